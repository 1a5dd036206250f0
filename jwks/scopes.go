package jwks

import (
	"fmt"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// scopesOf returns the scopes of all claims that are configured to contain them. If [Config.RequireScope] is set and the token has
// none of these claims, it is not an access token.
func (v *Verifier) scopesOf(in *unread) (valetkey.Scopes, error) {
	var found []string
	some := false
	add := func(name string, value strictjson.Value, arrays bool) error {
		if value.IsEmpty() { // as if it were not there
			return nil
		}
		some = true
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
			err = add(name, strictjson.At(in.payload, name), true)
		}
		if err != nil {
			return valetkey.Scopes{}, refuse(valetkey.ReasonClaimMalformed, err)
		}
	}
	if v.requireScope && !some {
		return valetkey.Scopes{}, refuse(valetkey.ReasonNotAccessToken, fmt.Errorf("it has none of the claims %q, and RequireScope is set", v.scopes))
	}
	return valetkey.NewScopes(found...), nil
}
