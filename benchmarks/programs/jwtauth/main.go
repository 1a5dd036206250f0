// Command jwtauth is examples/orders on chi jwtauth v5, which does not fetch keys, for its size.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/go-chi/jwtauth/v5"
	"github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/valetkey/valetkey/benchmarks/programs/internal/publickey"
)

func main() {
	key, err := publickey.Read(os.Getenv("KEY"))
	if err != nil {
		log.Fatal(err)
	}
	a := jwtauth.New("ES256", nil, key, jwt.WithIssuer(os.Getenv("ISSUER")), jwt.WithAudience("https://orders.example.com"))
	guard := func(h http.Handler) http.Handler { return jwtauth.Verifier(a)(jwtauth.Authenticator(a)(h)) }
	hello := func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello, %s\n", claim(r, "sub")) }
	http.Handle("GET /orders", guard(scoped("orders:read", hello)))
	http.Handle("POST /orders", guard(scoped("orders:write", hello)))
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), nil))
}

func claim(r *http.Request, name string) string {
	_, claims, _ := jwtauth.FromContext(r.Context())
	text, _ := claims[name].(string)
	return text
}

func scoped(need string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(strings.Fields(claim(r, "scope")), need) {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next(w, r)
	}
}
