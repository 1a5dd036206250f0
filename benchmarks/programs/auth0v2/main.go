// Command auth0v2 is examples/orders on auth0/go-jwt-middleware v2, for its size.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	jwtmiddleware "github.com/auth0/go-jwt-middleware/v2"
	"github.com/auth0/go-jwt-middleware/v2/jwks"
	"github.com/auth0/go-jwt-middleware/v2/validator"
)

func main() {
	issuer, err := url.Parse(os.Getenv("ISSUER"))
	if err != nil {
		log.Fatal(err)
	}
	v, err := validator.New(jwks.NewCachingProvider(issuer, 5*time.Minute).KeyFunc, validator.ES256, issuer.String(), []string{"https://orders.example.com"},
		validator.WithCustomClaims(func() validator.CustomClaims { return new(scopeClaim) }))
	if err != nil {
		log.Fatal(err)
	}
	guard := jwtmiddleware.New(v.ValidateToken).CheckJWT
	hello := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello, %s\n", claims(r).RegisteredClaims.Subject)
	}
	http.Handle("GET /orders", guard(scoped("orders:read", hello)))
	http.Handle("POST /orders", guard(scoped("orders:write", hello)))
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), nil))
}

func claims(r *http.Request) *validator.ValidatedClaims {
	return r.Context().Value(jwtmiddleware.ContextKey{}).(*validator.ValidatedClaims)
}

type scopeClaim struct {
	Scope string `json:"scope"`
}

func (*scopeClaim) Validate(context.Context) error { return nil }

func scoped(need string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(strings.Fields(claims(r).CustomClaims.(*scopeClaim).Scope), need) {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next(w, r)
	}
}
