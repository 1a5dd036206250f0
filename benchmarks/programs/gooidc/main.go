// Command gooidc is examples/orders on go-oidc v3, for its size.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
)

func main() {
	provider, err := oidc.NewProvider(context.Background(), os.Getenv("ISSUER"))
	if err != nil {
		log.Fatal(err)
	}
	verifier := provider.Verifier(&oidc.Config{ClientID: "https://orders.example.com"})
	verify := func(r *http.Request, raw string) (string, string, error) {
		t, err := verifier.Verify(r.Context(), raw)
		if err != nil {
			return "", "", err
		}
		var c struct {
			Scope string `json:"scope"`
		}
		err = t.Claims(&c)
		return t.Subject, c.Scope, err
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
