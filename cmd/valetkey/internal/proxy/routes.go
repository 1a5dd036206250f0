package proxy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/internal/config"
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
	var rules []valetkey.Requirement
	for _, c := range s.Claims {
		rules = append(rules, c.Requirement)
	}
	if len(s.CEL) > 0 {
		rules = append(rules, f.celRequirement(at+".cel", s.CEL))
	}
	need := s.Scopes.Requirement
	_, open := need.(valetkey.Openness)
	if text := fmt.Sprint(need); !open && !f.Given(at+".scopes") && (text == "public" || text == "any") { // the short form, without the @
		f.Mistake(at, "%q would be a scope: write %q, or scopes: %s in a mapping if there is a scope of that name", text, "@"+text, text)
		return nil
	}
	switch {
	case f.Wrong(at) || slices.Contains(rules, nil):
		return nil
	case len(rules) == 0 && need == nil:
		f.Mistake(at, "scopes, claims or cel is required")
		return nil
	case len(rules) == 0:
		return need
	case need == valetkey.Public:
		f.Mistake(at+".scopes", "@public cannot be combined with claims or cel, which need a token")
		return nil
	case need == nil || need == valetkey.AnyToken:
		return valetkey.AllOf(rules)
	}
	return append(valetkey.AllOf{need}, rules...)
}
