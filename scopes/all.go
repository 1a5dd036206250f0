package scopes

import "github.com/valetkey/valetkey"

// Scopes returns every scope that r names, in whichever alternative: what an API may tell its clients of, see
// scopes_supported of RFC 9728, section 2.
func (r Requirement) Scopes() valetkey.Scopes {
	var named []string
	for _, a := range r.alternatives {
		for _, n := range a {
			named = append(named, n.scope)
		}
	}
	return valetkey.NewScopes(named...)
}
