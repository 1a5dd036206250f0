package valetlambda_test

import (
	"context"
	"fmt"
	"log"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetlambda"
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
	decider, err := routes.Table{"GET /orders": scopes.All("orders:read")}.Decider(guard)
	if err != nil {
		log.Fatal(err)
	}
	authorizer, err := valetlambda.New(valetlambda.Config{Decider: decider, Kind: valetlambda.HTTP})
	if err != nil {
		log.Fatal(err)
	}
	// In a function: lambda.Start(authorizer)

	for _, token := range []string{"valet", "other"} {
		answer, err := authorizer.Invoke(context.Background(), []byte(`{
			"version": "2.0",
			"type": "REQUEST",
			"routeArn": "arn:aws:execute-api:eu-west-1:123456789012:a1b2c3d4e5/$default/GET/orders",
			"routeKey": "GET /orders",
			"rawPath": "/orders",
			"headers": {"authorization": "Bearer `+token+`"},
			"requestContext": {"http": {"method": "GET", "path": "/orders"}}
		}`))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%.24s\n", answer)
	}
	// Output:
	// {"isAuthorized":true,"co
	// {"isAuthorized":false,"c
}
