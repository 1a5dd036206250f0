// Command hashicorpcap is examples/orders on hashicorp/cap, for its size.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/cap/jwt"
)

func main() {
	keys, err := jwt.NewOIDCDiscoveryKeySet(context.Background(), os.Getenv("ISSUER"), "")
	if err != nil {
		log.Fatal(err)
	}
	validator, err := jwt.NewValidator(keys)
	if err != nil {
		log.Fatal(err)
	}
	expected := jwt.Expected{Issuer: os.Getenv("ISSUER"), Audiences: []string{"https://orders.example.com"}, SigningAlgorithms: []jwt.Alg{jwt.ES256}}
	verify := func(r *http.Request, raw string) (string, string, error) {
		c, err := validator.Validate(r.Context(), raw, expected)
		subject, _ := c["sub"].(string)
		scope, _ := c["scope"].(string)
		return subject, scope, err
	}
	http.Handle("GET /orders", guarded(verify, "orders:read"))
	http.Handle("POST /orders", guarded(verify, "orders:write"))
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), nil))
}

// guarded lets tokens with the scope through.
func guarded(verify func(r *http.Request, raw string) (subject, scope string, err error), need string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		raw, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		subject, scope, err := verify(r, raw)
		switch {
		case err != nil:
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
		case !slices.Contains(strings.Fields(scope), need):
			w.WriteHeader(http.StatusForbidden)
		default:
			fmt.Fprintf(w, "hello, %s\n", subject)
		}
	}
}
