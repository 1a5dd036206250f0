// Command auth0v3 is examples/orders on auth0/go-jwt-middleware v3, for its size.
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

	jwtmiddleware "github.com/auth0/go-jwt-middleware/v3"
	"github.com/auth0/go-jwt-middleware/v3/jwks"
	"github.com/auth0/go-jwt-middleware/v3/validator"
)

func main() {
	issuer, err := url.Parse(os.Getenv("ISSUER"))
	if err != nil {
		log.Fatal(err)
	}
	keys, err := jwks.NewCachingProvider(jwks.WithIssuerURL(issuer))
	if err != nil {
		log.Fatal(err)
	}
	v, err := validator.New(validator.WithKeyFunc(keys.KeyFunc), validator.WithAlgorithm(validator.ES256), validator.WithIssuer(issuer.String()),
		validator.WithAudience("https://orders.example.com"), validator.WithCustomClaims(func() *scopeClaim { return new(scopeClaim) }))
	if err != nil {
		log.Fatal(err)
	}
	mw, err := jwtmiddleware.New(jwtmiddleware.WithValidator(v))
	if err != nil {
		log.Fatal(err)
	}
	hello := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello, %s\n", claims(r).RegisteredClaims.Subject)
	}
	http.Handle("GET /orders", mw.CheckJWT(scoped("orders:read", hello)))
	http.Handle("POST /orders", mw.CheckJWT(scoped("orders:write", hello)))
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), nil))
}

func claims(r *http.Request) *validator.ValidatedClaims {
	c, err := jwtmiddleware.GetClaims[*validator.ValidatedClaims](r.Context())
	if err != nil {
		return new(validator.ValidatedClaims)
	}
	return c
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
