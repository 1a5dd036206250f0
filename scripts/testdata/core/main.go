// A consumer of the core.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

func orders(keys *jwks.Verifier) (http.Handler, error) {
	guard, err := middleware.New(middleware.Config{Verifier: keys})
	if err != nil {
		return nil, err
	}
	return guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "the orders of ", valetkey.FromContext(r.Context()).Subject())
	}), scopes.All("orders:read")), nil
}

func main() {
	keys, err := jwks.New(jwks.Config{Issuer: os.Getenv("ISSUER"), Audience: []string{"https://api.example.com"}})
	if err != nil {
		log.Fatal(err)
	}
	api, err := orders(keys)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), api))
}
