package proxy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/rar"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

const maxOpenAPI = 16 << 20 // bytes; some documents have several million

// table returns the requirement of each route, from either routes or openapi.
func (f *file) table() routes.Table {
	rows, openapi := f.Given("routes"), f.Given("openapi")
	switch {
	case !openapi && !rows:
		f.Mistake("routes", "required, or openapi")
		return nil
	case !openapi:
		return f.rows()
	case rows:
		f.Mistake("openapi", "cannot be combined with routes")
	}
	if f.OpenAPI == "" {
		return nil
	}
	if f.drivers.OpenAPI == nil {
		f.Mistake("openapi", "%w", driver.Missing("OpenAPI"))
		return nil
	}
	document, err := config.Content(f.Path(f.OpenAPI), maxOpenAPI)
	if err != nil {
		f.Mistake("openapi", "%w", err)
		return nil
	}
	table, err := f.drivers.OpenAPI(document) // mistakes contain line numbers of the document
	f.Blame("openapi", err, map[string]string{})
	return table
}

func (f *file) rows() routes.Table {
	table := routes.Table{}
	for _, pattern := range slices.Sorted(maps.Keys(f.Routes)) {
		// An invalid row becomes a requirement that no token meets, so that the other rows can be validated.
		table[pattern] = scopes.Requirement{}
		if need := f.row(fmt.Sprintf("routes[%q]", pattern), f.Routes[pattern]); need != nil {
			table[pattern] = need
		}
	}
	for _, m := range valetkey.ConfigErrors(table.Validate()) {
		f.Mistake("routes"+strings.TrimPrefix(m.Field, "Table"), "%w", m.Err)
	}
	return table
}

// row returns the requirement of the route at the path in the file; nil if there is a mistake.
func (f *file) row(at string, s row) valetkey.Requirement {
	rules := f.rules(at, s)
	need := s.Scopes.Requirement
	openness, open := need.(valetkey.Openness)
	if text := fmt.Sprint(need); !open && !f.Given(at+".scopes") && (text == "public" || text == "optional" || text == "any") { // the short form, without the @
		f.Mistake(at, "%q would be a scope: write %q, or scopes: %s in a mapping if there is a scope of that name", text, "@"+text, text)
		return nil
	}
	if s.ReportOnly && f.Profile == "fapi2" {
		f.Mistake(at+".insecure_report_only", "cannot be combined with profile: fapi2, which requires that refusals are enforced")
	}
	switch {
	case f.Wrong(at) || slices.Contains(rules, nil):
		return nil
	case len(rules) == 0 && need == nil:
		f.Mistake(at, "scopes, claims, cel, acr, max_age or authorization_details is required")
		return nil
	case open && openness.Open() && s.ReportOnly:
		f.Mistake(at+".insecure_report_only", "has no effect on a route that needs no token: remove it, or @%s", openness)
		return nil
	case open && openness.Open() && len(rules) > 0:
		f.Mistake(at+".scopes", "@%s cannot be combined with conditions, which need a token", openness)
		return nil
	}
	if need != nil && (need != valetkey.AnyToken || len(rules) == 0 && !s.ReportOnly) {
		rules = append([]valetkey.Requirement{need}, rules...)
	}
	switch {
	case s.ReportOnly && f.rehearsal == nil: // inspect shows the refusal
		return valetkey.InsecureReportOnly(rules)
	case len(rules) == 0:
		return need
	case len(rules) == 1:
		return rules[0]
	}
	return valetkey.AllOf(rules)
}

// rules returns the conditions of a row beside its scopes. One with a mistake is nil.
func (f *file) rules(at string, s row) (rules []valetkey.Requirement) {
	for _, c := range s.Claims {
		rules = append(rules, c.Requirement)
	}
	if len(s.ACR) > 0 && !f.Wrong(at+".acr") {
		values := make([]string, len(s.ACR))
		for i, value := range s.ACR {
			values[i] = string(value)
		}
		rules = append(rules, middleware.ACR(values...))
	}
	switch age := time.Duration(s.MaxAge); {
	case age > 0 && age < time.Second:
		f.Mistake(at+".max_age", "is less than a second")
	case age > 0:
		rules = append(rules, middleware.MaxAge(age))
	}
	for _, d := range s.Details {
		rules = append(rules, rar.Requirement{
			Type: d.Type, Locations: d.Locations, Actions: d.Actions, DataTypes: d.DataTypes, Identifier: d.Identifier, Privileges: d.Privileges,
		})
	}
	if len(s.CEL) > 0 {
		rules = append(rules, f.celRequirement(at+".cel", s.CEL))
	}
	return rules
}
