package valetkey_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// OrderClaims are the claims of an API's own in its tokens.
type OrderClaims struct {
	Tenant string                `json:"tenant"`
	Roles  valetkey.List[string] `json:"roles"`
}

// Validate refuses a token without a tenant with 401.
func (c OrderClaims) Validate() error {
	if c.Tenant == "" {
		return fmt.Errorf("the token names no tenant")
	}
	return nil
}

var orders = valetkey.DeclareClaims[OrderClaims]()

func ExampleDeclareClaims() {
	// In a program, a jwks.Verifier. This one accepts every token.
	verifier := valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
		return valetkey.NewToken(valetkey.TokenFields{Subject: "alice", Raw: `{"sub":"alice","tenant":"t1","roles":["clerk"]}`}), nil
	})
	guard, err := middleware.New(middleware.Config{Verifier: verifier, Claims: orders})
	if err != nil {
		panic(err)
	}
	api := guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller := valetkey.FromContext(r.Context())
		claims, _ := orders.From(r.Context())
		fmt.Fprintln(w, caller.Subject(), "of", claims.Tenant, "is a clerk:", claims.Roles.Has("clerk"))
	}))

	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/orders", nil)
	r.Header.Set("Authorization", "Bearer x")
	api.ServeHTTP(w, r)
	fmt.Print(w.Body)
	// Output: alice of t1 is a clerk: true
}

// reasonClosed is shown to clients, and is a label of metrics.
var reasonClosed = valetkey.NewReason("orders_closed", "orders are closed at the moment")

// A requirement of an application, beside those of packages scopes and claims.
func ExampleRequirementFunc() {
	open := false
	whileOpen := valetkey.RequirementFunc(func(a valetkey.Access) error {
		if open {
			return nil
		}
		return &valetkey.Error{Code: valetkey.Forbidden, Reason: reasonClosed}
	})
	err := whileOpen.Check(valetkey.Access{Token: valetkey.NewToken(valetkey.TokenFields{Subject: "alice"})})
	fmt.Println(err)
	// Output: forbidden: orders are closed at the moment
}
