package jwks

import (
	"fmt"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// scopesOf returns the scopes of all claims that are configured to contain them.
func (v *Verifier) scopesOf(in *unread) (valetkey.Scopes, error) {
	var found []string
	add := func(name string, value strictjson.Value, arrays bool) error {
		list, err := tokenclaims.Scopes(value, arrays)
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
			err = add(name, in.scope, v.profile.AllowScopeArray)
		case "scp":
			err = add(name, in.scp, true)
		default:
			err = add(name, at(in.payload, name), true)
		}
		if err != nil {
			return valetkey.Scopes{}, err
		}
	}
	return valetkey.NewScopes(found...), nil
}

// at returns the value at path within object, or nil if there is none. A member named path takes precedence. Otherwise at
// descends into the object whose name is a prefix of path, up to a dot, and looks up the rest of path there.
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
