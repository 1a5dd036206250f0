// Package rar provides requirements on the authorization_details of a token (RFC 9396, rich authorization requests), for
// permissions that are too fine-grained for scopes.
//
//	guard.Handler(initiate, rar.Requirement{
//		Type:      "payment_initiation",
//		Actions:   []string{"initiate"},
//		Locations: []string{"https://api.example.com/payments"},
//	})
//
// A handler uses [Of] to read the details that the requirement does not check, such as the amount or the account.
package rar

import (
	"errors"
	"fmt"
	"slices"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/derived"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// A Detail is one element of authorization_details, with the members that are common to all types (RFC 9396, section 2.2). A
// field is empty if the element does not have the member. The lists are immutable.
type Detail struct {
	Type       string                // never empty
	Locations  valetkey.List[string] // the resource servers
	Actions    valetkey.List[string]
	DataTypes  valetkey.List[string] // datatypes
	Identifier string                // the identifier of a particular resource
	Privileges valetkey.List[string]

	// Raw is the JSON object of the element, including the members that are specific to its type.
	Raw string
}

// Of returns the authorization details of t, from the claim of a JWT (RFC 9396, section 9.1) or the member of an introspection
// response (section 9.2). It returns nil if there are none. It returns an error if any of them is malformed, because details that
// are only partly understood cannot be relied on. The caller may modify the slice. Of is safe for concurrent use.
func Of(t *valetkey.Token) ([]Detail, error) {
	list, err := of(t)
	return slices.Clone(list), err
}

// maxKept is the maximum number of details that are stored with a token, so that they are parsed once. If a token has more, which
// only the issuer can cause, they are parsed on each request.
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
	kept := derived.Of(t, key{}, func() any {
		list, err := readAll(t.Raw())
		if len(list) > maxKept {
			return (*details)(nil)
		}
		return &details{list, err}
	}).(*details)
	if kept == nil { // too many to store
		return readAll(t.Raw())
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
	// The client chooses the members, and the handler decodes Raw. The user has consented to one of the two.
	if !strictjson.FoldsApart(element) {
		return d, errors.New("has a member in two letter cases")
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

// A Requirement is a [valetkey.Requirement] that a token meets if one of its details has everything that the Requirement lists
// (RFC 9396, section 2.2). Permissions of several details are not combined. The detail may have any value for a field that is
// empty here. If a field is set here, a detail without that member does not match. No token meets the zero value, which has no
// Type.
//
// It must not be modified once a guard uses it.
type Requirement struct {
	Type       string   // required
	Locations  []string // compared as the audiences of jwks.Config
	Actions    []string
	DataTypes  []string
	Identifier string
	Privileges []string

	// Match is an additional check, for example of members that are specific to the type. It must be safe for concurrent use.
	// Nil: no additional check.
	Match func(d Detail) bool
}

// Check returns nil if the token meets r. Otherwise it returns a refusal with 403 insufficient_scope, because RFC 9396 defines no
// error code for this case. If the token's details are malformed, it returns a refusal with 401.
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
		r.locatedIn(d) &&
		contains(d.Actions, r.Actions) &&
		contains(d.DataTypes, r.DataTypes) &&
		contains(d.Privileges, r.Privileges) &&
		(r.Identifier == "" || d.Identifier == r.Identifier) &&
		(r.Match == nil || r.Match(d))
}

func (r Requirement) locatedIn(d Detail) bool {
	return !slices.ContainsFunc(r.Locations, func(l string) bool { return !tokenclaims.IsFor(d.Locations, []string{l}, false) })
}

func contains(has valetkey.List[string], needs []string) bool {
	return !slices.ContainsFunc(needs, func(n string) bool { return !has.Has(n) })
}

// Describe returns the Type, for authorization_details_types_supported (RFC 9728, section 2).
func (r Requirement) Describe() valetkey.Needs {
	if r.Type == "" {
		return valetkey.Needs{}
	}
	return valetkey.Needs{DetailTypes: []string{r.Type}}
}
