package valetcel_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetcel"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

// This example accepts tokens that live ten minutes at most, and lets their owners read the orders of their tenant.
func Example() {
	// In a program, a jwks.Verifier. This one accepts every token.
	keys := valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
		return valetkey.NewToken(valetkey.TokenFields{
			Scopes: valetkey.NewScopes("orders:read"), Raw: `{"iat":1700000000,"exp":1700000600,"tenant_id":"t1"}`,
		}), nil
	})
	verifier, err := valetcel.Verifier(keys, valetcel.Rule{Expression: `claims.exp - claims.iat <= 600`, Message: "the token lives too long"})
	if err != nil {
		panic(err)
	}
	guard, err := middleware.New(middleware.Config{Verifier: verifier})
	if err != nil {
		panic(err)
	}
	tenant, err := valetcel.Require(valetcel.Rule{Expression: `claims.tenant_id == path.tenant`})
	if err != nil {
		panic(err)
	}
	api, err := routes.Table{
		"GET /tenants/{tenant}/orders": valetkey.AllOf{scopes.All("orders:read"), tenant},
	}.Guard(guard, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if err != nil {
		panic(err)
	}
	for _, path := range []string{"/tenants/t1/orders", "/tenants/t2/orders"} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer x")
		api.ServeHTTP(w, r)
		fmt.Println(path, w.Code)
	}

	_, err = valetcel.Require(valetcel.Rule{Expression: `claims.admin`})
	fmt.Println(err)
	// Output:
	// /tenants/t1/orders 200
	// /tenants/t2/orders 403
	// valetcel: Rules[0].Expression: is of the type dyn, not bool: compare it, as in claims.admin == true
}
