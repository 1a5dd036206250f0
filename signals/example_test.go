package signals_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/signals"
)

// A single process polls its identity provider, and its guard watches the receiver.
func Example() {
	received, err := signals.New(signals.Config{
		Transmitter: "https://idp.example.com",
		Delivery:    signals.Poll,
		Credentials: signals.ClientCredentialsGrant(signals.ClientCredentials{
			TokenURL: "https://idp.example.com/token",
			Auth:     introspect.BasicAuth("orders-api", "secret"),
		}),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer received.Close()
	keys, err := jwks.New(jwks.Config{Issuer: "https://idp.example.com", Audience: []string{"https://api.example.com"}})
	if err != nil {
		log.Fatal(err)
	}
	defer keys.Close()
	guard, err := middleware.New(middleware.Config{
		Verifier:    keys,
		Revocations: middleware.Revocations{Source: received},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop() // in a server, ctx ends with the process
	go received.Run(ctx)
	go guard.Watch(ctx)

	mux := http.NewServeMux()
	mux.Handle("GET /orders", guard.Handler(http.NotFoundHandler(), scopes.All("orders:read")))
	fmt.Println(received.Status().State)
	// Output: down
}

// One replica receives pushed events and logout tokens, and publishes the revocations for all replicas.
func ExampleReceiver_Handler() {
	var shared signals.Publisher // a valetredis.Redis

	received, err := signals.New(signals.Config{
		Transmitter:         "https://idp.example.com",
		Delivery:            signals.Push,
		Endpoint:            "https://api.example.com/events",
		AuthorizationHeader: "Bearer a-long-random-text",
		Credentials:         signals.TokenFile("/run/secrets/ssf-token"),
		Publish:             shared,
		Logout:              signals.LogoutConfig{Audience: []string{"orders-app"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer received.Close()

	mux := http.NewServeMux()
	mux.Handle("POST /events", received.Handler())
	mux.Handle("POST /backchannel-logout", received.Logout())
}
