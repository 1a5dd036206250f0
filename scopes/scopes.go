// Package scopes provides requirements on the scopes of an OAuth 2.0 access token.
//
//	mux.Handle("GET /orders", guard.Handler(listOrders, scopes.All("orders:read")))
//
//	scopes.All("orders:read", "orders:export")   // every one
//	scopes.Any("orders:read", "admin")           // one of them
//	scopes.MustParse("orders:read orders:export | admin")
//
// Scopes are compared byte by byte (RFC 6749, section 3.3) unless [Requirement.Matching] sets another comparison.
package scopes

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
)

// A Requirement is a [valetkey.Requirement] that consists of alternatives. A token meets it if it has all scopes of one
// alternative. No token meets the zero value, or [All] and [Any] without arguments, so that a loop that collects scopes and never
// runs does not open a route.
//
// A Requirement is immutable and safe for concurrent use.
type Requirement struct {
	alternatives []alternative // in source order, each with at least one need
}

type alternative []need

type need struct {
	scope string
	match Match // nil: exact
}

// All returns a Requirement that a token meets if it has every scope. It panics if one is not a scope-token of RFC 6749, section
// 3.3. For scopes that are not constants in the source, use [Parse].
func All(scope ...string) Requirement {
	mustBeScopes(scope)
	if len(scope) == 0 {
		return Requirement{}
	}
	return Requirement{[]alternative{alternativeOf(scope)}}
}

// Any returns a Requirement that a token meets if it has at least one of the scopes. It panics as [All] does.
func Any(scope ...string) Requirement {
	mustBeScopes(scope)
	var r Requirement
	for _, s := range scope {
		r.alternatives = append(r.alternatives, alternativeOf([]string{s}))
	}
	return r
}

// Parse parses an expression such as "orders:read orders:write | admin". Spaces separate scopes that are all required. A separate
// "|" separates alternatives. There are no parentheses and no other operators.
//
// RFC 6749, section 3.3, allows '|', '&' and parentheses in a scope, so "a|b" and "(a)" are each one scope. Parse refuses a word
// that looks like an operator, because no token would have such a scope: "||", "&&", "|x", "x|", "x,", "!x", an unmatched
// parenthesis, and the words and, or, not in any letter case. [All] and [Any] accept such a scope. The error lists every mistake,
// in one [valetkey.ConfigError] without a field.
func Parse(expr string) (Requirement, error) {
	var (
		r    Requirement
		alt  []string
		errs []error
		none bool // an alternative has no scope, which is reported once
	)
	end := func() {
		if len(alt) == 0 && !none {
			none = true
			errs = append(errs, errors.New("an alternative has no scope"))
		}
		r.alternatives = append(r.alternatives, alternativeOf(alt))
		alt = nil
	}
	// Only a space is a separator (RFC 6749, section 3.3): a tab or line break is a mistake.
	for word := range strings.SplitSeq(expr, " ") {
		switch {
		case word == "":
		case word == "|":
			end()
		default:
			errs = append(errs, Validate(word), notAnOperator(word))
			alt = append(alt, word)
		}
	}
	end()
	if err := errors.Join(errs...); err != nil {
		return Requirement{}, fmt.Errorf("scopes: %w", &valetkey.ConfigError{Err: fmt.Errorf("%q: %w", expr, err)})
	}
	return r, nil
}

// notAnOperator returns an error for a word that looks like an operator of another language.
func notAnOperator(word string) error {
	switch lower := strings.ToLower(word); {
	case lower == "and", lower == "or", lower == "not":
	case strings.Trim(word, "|&,;") != word, strings.Contains(word, "||"), strings.Contains(word, "&&"):
	case strings.HasPrefix(word, "!"), word == "+", word == "/":
	case strings.Count(word, "(") != strings.Count(word, ")"):
	default:
		return nil
	}
	return fmt.Errorf("%q reads as an operator: write a space between scopes that are all needed, \" | \" between alternatives", word)
}

// MustParse returns the result of [Parse], and panics on a mistake. It is for expressions that are constants in the source.
func MustParse(expr string) Requirement {
	r, err := Parse(expr)
	if err != nil {
		panic(err)
	}
	return r
}

// Valid returns nil if scope is a scope-token of RFC 6749, section 3.3: 1*( %x21 / %x23-5B / %x5D-7E ). Otherwise it returns an
// error that states why not.
func Validate(scope string) error {
	if scope == "" {
		return errors.New("a scope is empty")
	}
	for i := range len(scope) {
		if c := scope[i]; c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			return fmt.Errorf("scope %q: character %q at %d is not allowed (RFC 6749, section 3.3)", scope, c, i)
		}
	}
	return nil
}

func mustBeScopes(list []string) {
	for _, s := range list {
		if err := Validate(s); err != nil {
			panic("scopes: " + err.Error())
		}
	}
}

func alternativeOf(scope []string) alternative {
	a := make(alternative, len(scope))
	for i, s := range scope {
		a[i] = need{scope: s}
	}
	return a
}

// And returns a Requirement that a token meets if it meets both r and o.
func (r Requirement) And(o Requirement) Requirement {
	var both Requirement
	for _, a := range r.alternatives {
		for _, b := range o.alternatives {
			both.alternatives = append(both.alternatives, slices.Concat(a, b))
		}
	}
	return both
}

// Or returns a Requirement that a token meets if it meets r or o.
func (r Requirement) Or(o Requirement) Requirement {
	return Requirement{slices.Concat(r.alternatives, o.alternatives)}
}

// A Match reports whether the scope granted to a token covers the scope needed by a route. It must be cheap and safe for
// concurrent use.
type Match func(granted, needed string) bool

// Matching returns a copy of r that compares scopes with m instead of byte by byte. See [Hierarchic] and [Wildcard].
func (r Requirement) Matching(m Match) Requirement {
	out := Requirement{make([]alternative, len(r.alternatives))}
	for i, a := range r.alternatives {
		out.alternatives[i] = slices.Clone(a)
		for j := range out.alternatives[i] {
			out.alternatives[i][j].match = m
		}
	}
	return out
}

// Hierarchic is a [Match] in which a scope covers itself and all scopes below it. ':' separates the levels. "orders" covers
// "orders:read" and "orders:read:own", not "orders2". An empty granted scope covers nothing.
func Hierarchic(granted, needed string) bool {
	rest, found := strings.CutPrefix(needed, granted)
	return found && granted != "" && (rest == "" || rest[0] == ':')
}

// Wildcard is a [Match] in which a scope covers itself, and a scope that ends in ":*" also covers all scopes below it. "orders:*"
// covers "orders:read" and "orders:read:own", not "orders". "*" covers only itself.
func Wildcard(granted, needed string) bool {
	if granted == needed {
		return true
	}
	prefix, wild := strings.CutSuffix(granted, "*")
	return wild && len(prefix) > 1 && prefix[len(prefix)-1] == ':' && len(needed) > len(prefix) && strings.HasPrefix(needed, prefix)
}

func (n need) in(granted valetkey.Scopes) bool {
	if n.match == nil {
		return granted.Has(n.scope)
	}
	for g := range granted.All() {
		if n.match(g, n.scope) {
			return true
		}
	}
	return false
}

// Check returns nil if the token meets r. Otherwise it returns a refusal with insufficient_scope that lists all scopes of the
// nearest alternative: the one with the fewest missing scopes, or the first of several (RFC 6750, section 3.1).
func (r Requirement) Check(a valetkey.Access) error {
	nearest, met := r.nearest(a.Token.Scopes())
	if met {
		return nil
	}
	return &valetkey.Error{
		Code:   valetkey.InsufficientScope,
		Reason: valetkey.ReasonScope,
		Scope:  nearest.scopes(),
	}
}

// nearest returns the alternative with the fewest missing scopes. met is true if no scope of it is missing.
func (r Requirement) nearest(granted valetkey.Scopes) (nearest alternative, met bool) {
	fewest := 0
	for _, a := range r.alternatives {
		missing := 0
		for _, n := range a {
			if !n.in(granted) {
				missing++
			}
		}
		if missing == 0 {
			return a, true
		}
		if nearest == nil || missing < fewest {
			nearest, fewest = a, missing
		}
	}
	return nearest, false
}

func (a alternative) scopes() valetkey.Scopes {
	scope := make([]string, len(a))
	for i, n := range a {
		scope[i] = n.scope
	}
	return valetkey.NewScopes(scope...)
}

// Describe returns all scopes in r and, for challenges, the scopes of the alternative with the fewest scopes, or of the first of
// several. For the zero value it returns the zero [valetkey.Needs].
func (r Requirement) Describe() valetkey.Needs {
	var all []string
	for _, a := range r.alternatives {
		for _, n := range a {
			all = append(all, n.scope)
		}
	}
	if all == nil {
		return valetkey.Needs{}
	}
	shortest, _ := r.nearest(valetkey.Scopes{})
	return valetkey.Needs{Challenge: shortest.scopes(), All: valetkey.NewScopes(all...)}
}

// String returns r in the format that [Parse] accepts; "" for the zero value. It does not show a [Match].
func (r Requirement) String() string {
	alternatives := make([]string, len(r.alternatives))
	for i, a := range r.alternatives {
		scope := make([]string, len(a))
		for j, n := range a {
			scope[j] = n.scope
		}
		alternatives[i] = strings.Join(scope, " ")
	}
	return strings.Join(alternatives, " | ")
}
