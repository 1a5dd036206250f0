package jwks

import (
	"fmt"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// scopesOf returns the scopes of all claims that are configured to contain them. If [Config.RequireScope] is set and there
// is not a scope, the token is not an access token.
func (v *Verifier) scopesOf(in *unread) (valetkey.Scopes, error) {
	var room [16]string // on the stack
	found := room[:0]
	for _, name := range v.scopes {
		var value strictjson.Value
		arrays := true
		switch name {
		case "scope":
			value, arrays = in.scope, v.profile.AllowScopeArray
		case "scp":
			value = in.scp
		default:
			value = strictjson.At(in.payload, name)
		}
		if value.IsEmpty() { // as if it were not there
			continue
		}
		var err error
		if found, err = tokenclaims.AppendScopes(found, value, arrays); err != nil {
			return valetkey.Scopes{}, refuse(valetkey.ReasonClaimMalformed, fmt.Errorf("%.100q %w", name, err))
		}
	}
	if v.requireScope && len(found) == 0 {
		return valetkey.Scopes{}, refuse(valetkey.ReasonNotAccessToken, fmt.Errorf("it has no scope in the claims %q, and RequireScope is set", v.scopes))
	}
	return valetkey.NewScopes(found...), nil
}
