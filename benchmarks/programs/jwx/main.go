// Command jwx is examples/orders on jwx v2, for its size.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"
)

func main() {
	cache := jwk.NewCache(context.Background())
	if err := cache.Register(os.Getenv("KEYS")); err != nil {
		log.Fatal(err)
	}
	keys := jwk.NewCachedSet(cache, os.Getenv("KEYS"))
	verify := func(_ *http.Request, raw string) (string, string, error) {
		t, err := jwt.Parse([]byte(raw), jwt.WithKeySet(keys), jwt.WithIssuer(os.Getenv("ISSUER")), jwt.WithAudience("https://orders.example.com"))
		if err != nil {
			return "", "", err
		}
		scope, _ := t.Get("scope")
		text, _ := scope.(string)
		return t.Subject(), text, nil
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
