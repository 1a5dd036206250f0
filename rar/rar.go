// Package rar says what was authorized in detail: the authorization_details of a token (RFC 9396), for what scopes are too
// coarse for.
//
//	guard.Handler(initiate, rar.Requirement{
//		Type:      "payment_initiation",
//		Actions:   []string{"initiate"},
//		Locations: []string{"https://api.example.com/payments"},
//	})
//
// A handler reads with [Of] what the rule does not say: the amount, the account.
package rar

import (
	"errors"
	"fmt"
	"slices"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/derived"
	"github.com/valetkey/valetkey/internal/strictjson"
)

// A Detail is one element of authorization_details, with the members that all types share (RFC 9396, section 2.2). Nothing in it
// can be changed.
type Detail struct {
	Type       string                // never empty
	Locations  valetkey.List[string] // resource servers
	Actions    valetkey.List[string]
	DataTypes  valetkey.List[string] // datatypes
	Identifier string                // of a particular resource
	Privileges valetkey.List[string]

	// Raw is the JSON object of the element, with the members of its own type.
	Raw string
}

// Of returns the authorization details of a token, from the claim of a JWT (RFC 9396, section 9.1) or the member of an
// introspection answer (section 9.2); none if it has none. It is an error if one of them is malformed: what is not
// understood cannot be relied on. The slice is the caller's.
func Of(t *valetkey.Token) ([]Detail, error) {
	list, err := of(t)
	return slices.Clone(list), err
}

// maxKept is how many details of one token are kept beside it, so that they are read once. Only the issuer can cause more, and
// they are read at each request.
const maxKept = 32

type details struct {
	list []Detail
	err  error
}

type key struct{}

func of(t *valetkey.Token) ([]Detail, error) {
	if t.Raw() == "" {
		return nil, nil
	}
	var all details
	kept := derived.Of(t, key{}, func() any {
		all.list, all.err = readAll(t.Raw())
		if len(all.list) > maxKept {
			return (*details)(nil)
		}
		return &all
	}).(*details)
	if kept == nil { // too many to keep
		if all.list == nil {
			return readAll(t.Raw())
		}
		kept = &all
	}
	return kept.list, kept.err
}

func readAll(claims string) ([]Detail, error) {
	var all strictjson.Value
	err := strictjson.Object([]byte(claims), func(name string, value strictjson.Value) error {
		if name == "authorization_details" {
			all = value
		}
		return nil
	})
	if all == nil || err != nil {
		return nil, err
	}
	elements, ok := all.Elements()
	if !ok {
		return nil, errors.New("authorization_details is not an array")
	}
	list := make([]Detail, len(elements))
	for i, e := range elements {
		if list[i], err = read(e); err != nil {
			return nil, fmt.Errorf("authorization_details[%d]: %w", i, err)
		}
	}
	return list, nil
}

func read(element strictjson.Value) (Detail, error) {
	d := Detail{Raw: string(element)}
	if !element.IsObject() {
		return d, errors.New("is not an object")
	}
	strings := func(to *valetkey.List[string], v strictjson.Value) bool {
		list, ok := v.Strings()
		*to = valetkey.ListOf(list...)
		return ok
	}
	err := strictjson.Object(element, func(name string, value strictjson.Value) (err error) {
		ok := true
		switch name {
		case "type":
			d.Type, ok = value.Text()
		case "identifier":
			d.Identifier, ok = value.Text()
		case "locations":
			ok = strings(&d.Locations, value)
		case "actions":
			ok = strings(&d.Actions, value)
		case "datatypes":
			ok = strings(&d.DataTypes, value)
		case "privileges":
			ok = strings(&d.Privileges, value)
		}
		if !ok {
			return fmt.Errorf("%s is of the wrong kind", name)
		}
		return nil
	})
	if err == nil && d.Type == "" {
		err = errors.New("type is missing")
	}
	return d, err
}

// A Requirement is met by a token of whose details a single one has all that the Requirement lists (RFC 9396, section 2.2):
// what two of them allow apart, they do not allow together. What it does not list may be anything; what it lists and the
// detail leaves out is missing. The zero value, which has no Type, is met by no token.
//
// It must not be modified once a guard has it.
type Requirement struct {
	Type       string // required
	Locations  []string
	Actions    []string
	DataTypes  []string
	Identifier string
	Privileges []string

	// Match decides the rest, by members of the type's own. It must be safe for concurrent use. Nil: nothing more.
	Match func(d Detail) bool
}

// Check refuses with 403 insufficient_scope, RFC 9396 having no code of its own, and a token whose details are malformed
// with 401.
func (r Requirement) Check(a valetkey.Access) error {
	list, err := of(a.Token)
	if err != nil {
		return &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonDetailsMalformed, Err: err}
	}
	if !slices.ContainsFunc(list, r.metBy) {
		return &valetkey.Error{Code: valetkey.InsufficientScope, Reason: valetkey.ReasonDetails}
	}
	return nil
}

func (r Requirement) metBy(d Detail) bool {
	return r.Type != "" && d.Type == r.Type &&
		contains(d.Locations, r.Locations) &&
		contains(d.Actions, r.Actions) &&
		contains(d.DataTypes, r.DataTypes) &&
		contains(d.Privileges, r.Privileges) &&
		(r.Identifier == "" || d.Identifier == r.Identifier) &&
		(r.Match == nil || r.Match(d))
}

func contains(has valetkey.List[string], needs []string) bool {
	return !slices.ContainsFunc(needs, func(n string) bool { return !has.Has(n) })
}

// Describe returns the type, for authorization_details_types_supported (RFC 9728, section 2).
func (r Requirement) Describe() valetkey.Needs {
	if r.Type == "" {
		return valetkey.Needs{}
	}
	return valetkey.Needs{DetailTypes: []string{r.Type}}
}
