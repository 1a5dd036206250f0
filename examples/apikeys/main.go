package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/apikey"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

func main() {
	tokens, err := jwks.New(jwks.Config{Issuer: os.Getenv("ISSUER"), Audience: []string{"https://orders.example.com"}})
	if err != nil {
		log.Fatal(err)
	}
	keys, err := apikey.New(apikey.Config{Issuer: "https://orders.example.com/keys", File: os.Getenv("KEYS")})
	if err != nil {
		log.Fatal(err)
	}
	guard, err := middleware.New(middleware.Config{
		Verifier: valetkey.First(keys, tokens),
		Methods:  []middleware.BearerMethod{middleware.APIKeyHeader("X-Api-Key")},
	})
	if err != nil {
		log.Fatal(err)
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello, %s\n", valetkey.FromContext(r.Context()).Subject())
	})
	http.Handle("GET /orders", guard.Handler(hello, scopes.All("orders:read")))
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), nil))
}
