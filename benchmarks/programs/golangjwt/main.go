// Command golangjwt is examples/orders on golang-jwt v5, which does not fetch keys, for its size.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/valetkey/valetkey/benchmarks/programs/internal/publickey"
)

type claims struct {
	jwt.RegisteredClaims
	Scope string `json:"scope"`
}

func main() {
	key, err := publickey.Read(os.Getenv("KEY"))
	if err != nil {
		log.Fatal(err)
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithIssuer(os.Getenv("ISSUER")), jwt.WithAudience("https://orders.example.com"))
	verify := func(_ *http.Request, raw string) (string, string, error) {
		var c claims
		_, err := parser.ParseWithClaims(raw, &c, func(*jwt.Token) (any, error) { return key, nil })
		return c.Subject, c.Scope, err
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
