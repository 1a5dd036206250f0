package proxy

import (
	"fmt"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

// ruled returns v with the rules in CEL at the path at. If there are mistakes, the result refuses every token.
func (f *file) ruled(at string, v valetkey.Verifier, rules []driver.CELRule) valetkey.Verifier {
	switch {
	case len(rules) == 0:
		return v
	case f.drivers.CEL.Verifier == nil:
		f.Mistake(at, "%w", driver.Missing("CEL"))
		return valetkey.First()
	case f.Profile == "fapi2":
		f.Mistake(at, "cannot be combined with profile: fapi2: use rules, or cel in a route")
	}
	made, err := f.drivers.CEL.Verifier(v, rules)
	if err != nil {
		f.blameRules(at, err)
		return valetkey.First()
	}
	return made
}

// celRequirement returns the requirement of the rules at the path at; nil if there are mistakes.
func (f *file) celRequirement(at string, rules []driver.CELRule) valetkey.Requirement {
	if f.drivers.CEL.Require == nil {
		f.Mistake(at, "%w", driver.Missing("CEL"))
		return nil
	}
	need, err := f.drivers.CEL.Require(rules)
	if err != nil {
		f.blameRules(at, err)
		return nil
	}
	return need
}

// celNames replaces the fields of valetcel.Rule by their names in files.
var celNames = strings.NewReplacer(".Expression", ".rule", ".Message", ".message")

// blameRules adds the mistakes in the rules at the path at. A rule may be a text in place of a mapping, and the only one in place of a
// list.
func (f *file) blameRules(at string, err error) {
	for _, m := range valetkey.ConfigErrors(err) {
		field := at + celNames.Replace(strings.TrimPrefix(m.Field, "Rules"))
		for len(field) > len(at) && !f.Given(field) {
			field = field[:strings.LastIndexAny(field, ".[")]
		}
		f.Mistake(field, "%w", m.Err)
	}
}

// needText returns the requirement of a route as text.
func needText(need valetkey.Requirement) string {
	all, ok := need.(valetkey.AllOf)
	if !ok {
		all = valetkey.AllOf{need}
	}
	var texts []string
	for _, one := range all {
		needs := valetkey.Describe(one)
		if needs.StepUp == nil && len(needs.DetailTypes) == 0 {
			texts = append(texts, fmt.Sprint(one))
			continue
		}
		if login := needs.StepUp; login != nil && len(login.ACRValues) > 0 {
			texts = append(texts, "acr "+strings.Join(login.ACRValues, " or "))
		}
		if login := needs.StepUp; login != nil && login.MaxAge != nil {
			texts = append(texts, "a login within "+login.MaxAge.String())
		}
		for _, name := range needs.DetailTypes {
			texts = append(texts, "authorization_details of the type "+name)
		}
	}
	return strings.Join(texts, " and ")
}
