package valetforward_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetforward"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

// demo accepts one token, the word valet.
var demo = valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
	if raw != "valet" {
		return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonInactive}
	}
	return valetkey.NewToken(valetkey.TokenFields{Subject: "alice", Scopes: valetkey.NewScopes("orders:read")}), nil
})

func Example() {
	guard, err := middleware.New(middleware.Config{Verifier: demo}) // in production, one from jwks.New
	if err != nil {
		log.Fatal(err)
	}
	decider, err := routes.Table{
		"GET /orders":    scopes.All("orders:read"),
		"DELETE /orders": scopes.All("admin"),
	}.Decider(guard)
	if err != nil {
		log.Fatal(err)
	}
	handler, err := valetforward.New(valetforward.Config{
		Decider: decider,
		Dialect: valetforward.Caddy,
		Callers: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
	})
	if err != nil {
		log.Fatal(err)
	}

	for _, method := range []string{"GET", "DELETE"} {
		question := httptest.NewRequest("GET", "/", nil) // as Caddy asks; httptest sends from 192.0.2.1
		question.Header = http.Header{
			"X-Forwarded-Method": {method}, "X-Forwarded-Uri": {"/orders"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"api.example.com"},
			"Authorization": {"Bearer valet"},
		}
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, question)
		fmt.Printf("%d subject=%q\n", answer.Code, answer.Header().Get("X-Valetkey-Subject"))
	}
	// Output:
	// 200 subject="alice"
	// 403 subject=""
}
