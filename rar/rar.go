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
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
)

// A Detail is one element of authorization_details, with the members that all types share (RFC 9396, section 2.2).
type Detail struct {
	Type       string   // never empty
	Locations  []string // resource servers
	Actions    []string
	DataTypes  []string // datatypes
	Identifier string   // of a particular resource
	Privileges []string

	// Raw is the JSON object of the element, with the members of its own type.
	Raw json.RawMessage
}

// Of returns the authorization details of a token, from the claim of a JWT (RFC 9396, section 9.1) or the member of an
// introspection answer (section 9.2); none if it has none. It is an error if one of them is malformed: what is not
// understood cannot be relied on.
func Of(t *valetkey.Token) ([]Detail, error) {
	if len(t.Raw) == 0 {
		return nil, nil
	}
	var all strictjson.Value
	err := strictjson.Object(t.Raw, func(name string, value strictjson.Value) error {
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
	d := Detail{Raw: json.RawMessage(slices.Clone(element))}
	if !element.IsObject() {
		return d, errors.New("is not an object")
	}
	err := strictjson.Object(element, func(name string, value strictjson.Value) (err error) {
		ok := true
		switch name {
		case "type":
			d.Type, ok = value.Text()
		case "identifier":
			d.Identifier, ok = value.Text()
		case "locations":
			d.Locations, ok = value.Strings()
		case "actions":
			d.Actions, ok = value.Strings()
		case "datatypes":
			d.DataTypes, ok = value.Strings()
		case "privileges":
			d.Privileges, ok = value.Strings()
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
	list, err := Of(a.Token)
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

func contains(has, needs []string) bool {
	return !slices.ContainsFunc(needs, func(n string) bool { return !slices.Contains(has, n) })
}

// Describe returns the type, for authorization_details_types_supported (RFC 9728, section 2).
func (r Requirement) Describe() valetkey.Needs {
	if r.Type == "" {
		return valetkey.Needs{}
	}
	return valetkey.Needs{DetailTypes: []string{r.Type}}
}
