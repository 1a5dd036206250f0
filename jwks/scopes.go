package jwks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
)

// scopesOf returns the scopes of all claims that hold some.
func (v *Verifier) scopesOf(in *claims) (valetkey.Scopes, error) {
	var found []string
	add := func(name string, value strictjson.Value, arrays bool) error {
		list, err := scopeList(value, arrays)
		if err != nil {
			return fmt.Errorf("%.100q %w", name, err)
		}
		found = append(found, list...)
		return nil
	}
	for _, name := range v.scopes {
		var err error
		switch name {
		case "scope":
			err = add(name, in.scope, v.profile.ScopeArray)
		case "scp":
			err = add(name, in.scp, true)
		default:
			err = add(name, at(in.payload, name), true)
		}
		if err != nil {
			return nil, err
		}
	}
	return valetkey.NewScopes(found...), nil
}

// scopeList reads the value of a claim; nil: there is none. A string is split on single spaces (RFC 6749, section 3.3).
// What is left empty, or has a space or control character in it, is no scope and is left out: in an array, "read admin" is
// neither two scopes nor one that could be told apart from two.
func scopeList(v strictjson.Value, arrays bool) ([]string, error) {
	if v == nil {
		return nil, nil
	}
	var list []string
	if s, ok := v.Text(); ok {
		list = strings.Split(s, " ")
	} else if list, ok = v.Strings(); !ok || !arrays {
		return nil, fmt.Errorf("is not a string of scopes (arrays allowed: %t)", arrays)
	}
	return slices.DeleteFunc(list, func(s string) bool {
		return s == "" || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f })
	}), nil
}

// at returns the value at path within object: the member that has all of path as its name, else what is at the rest of
// path within a member whose name and a dot path begins with. Nil: there is none.
func at(object strictjson.Value, path string) strictjson.Value {
	var exact, within strictjson.Value
	err := strictjson.Object(object, func(name string, v strictjson.Value) error {
		switch {
		case name == path:
			exact = v
		case v.IsObject() && within == nil && len(path) > len(name) && path[len(name)] == '.' && strings.HasPrefix(path, name):
			within = at(v, path[len(name)+1:])
		}
		return nil
	})
	switch {
	case err != nil:
		return nil
	case exact != nil:
		return exact
	default:
		return within
	}
}
