// Command gojose is examples/orders on go-jose v4, which does not fetch keys, for its size.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/valetkey/valetkey/benchmarks/programs/internal/publickey"
)

func main() {
	key, err := publickey.Read(os.Getenv("KEY"))
	if err != nil {
		log.Fatal(err)
	}
	verify := func(_ *http.Request, raw string) (string, string, error) {
		var c struct {
			jwt.Claims
			Scope string `json:"scope"`
		}
		t, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			return "", "", err
		}
		if err := t.Claims(key, &c); err != nil {
			return "", "", err
		}
		return c.Subject, c.Scope, c.Validate(jwt.Expected{Issuer: os.Getenv("ISSUER"), AnyAudience: jwt.Audience{"https://orders.example.com"}})
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
