package middleware

import (
	"net/http"
	"slices"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/scopes"
)

// authorize returns nil if t meets all needs. The refusal states everything that is missing, see [valetkey.AllOf]. r is nil for a
// token that came without a request.
func (g *Guard) authorize(t *valetkey.Token, r *http.Request, needs []valetkey.Requirement) error {
	switch len(needs) {
	case 0:
		return nil
	case 1:
		if o, _ := needs[0].(valetkey.Openness); o.Known() {
			return nil
		}
	}
	return valetkey.AllOf(needs).Check(valetkey.Access{Token: t, Time: g.now(), Request: r})
}

// ReadsPath reports whether one of needs may read the path values of a request, see [valetkey.Access.PathValue]. An adapter for a
// router that does not set them on the request must do so if ReadsPath returns true.
func ReadsPath(needs ...valetkey.Requirement) bool {
	return slices.ContainsFunc(needs, func(n valetkey.Requirement) bool {
		switch n := n.(type) {
		case valetkey.Openness, scopes.Requirement, claims.Rule, acr, maxAge:
			return false
		case valetkey.AllOf:
			return ReadsPath(n...)
		case valetkey.AnyOf:
			return ReadsPath(n...)
		}
		return true
	})
}
