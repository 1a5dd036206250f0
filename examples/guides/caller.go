// Package guides has the code that the guides in docs show.
package guides

import (
	"fmt"
	"net/http"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// OrderClaims are the claims that this API reads beside the standard ones.
type OrderClaims struct {
	Tenant string                `json:"tenant"`
	Roles  valetkey.List[string] `json:"roles"`
}

var orderClaims = valetkey.DeclareClaims[OrderClaims]()

// Caller guards a handler that reports who calls.
func Caller(verifier valetkey.Verifier) (http.Handler, error) {
	guard, err := middleware.New(middleware.Config{Verifier: verifier, Claims: orderClaims})
	if err != nil {
		return nil, err
	}
	return guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := valetkey.FromContext(r.Context())
		own, _ := orderClaims.From(r.Context())
		fmt.Fprintf(w, "%s through %s, of %s, may write: %t\n",
			token.Subject(), token.ClientID(), own.Tenant, token.Scopes().Has("orders:write"))
	}), scopes.Any("orders:read", "orders:write")), nil // one of the two is enough
}
