// Command auth0 is a server of the conformance suite on auth0/go-jwt-middleware v3.
package main

import (
	"context"
	"log"
	"net/http"

	jwtmiddleware "github.com/auth0/go-jwt-middleware/v3"
	"github.com/auth0/go-jwt-middleware/v3/jwks"
	"github.com/auth0/go-jwt-middleware/v3/validator"

	"github.com/valetkey/valetkey/conformance/harness/servers/internal/peer"
)

type claims struct {
	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
}

func (*claims) Validate(context.Context) error { return nil }

func main() {
	// For several issuers, its documentation asks for this provider.
	keys, err := jwks.NewMultiIssuerProvider(jwks.WithMultiIssuerStrictJWKSURIOrigin())
	if err != nil {
		log.Fatal(err)
	}
	v, err := validator.New(validator.WithKeyFunc(keys.KeyFunc),
		validator.WithAlgorithms([]validator.SignatureAlgorithm{validator.RS256, validator.PS256, validator.ES256, validator.ES384, validator.EdDSA}),
		validator.WithIssuers([]string{peer.Issuer, peer.SecondIssuer}), validator.WithAudience(peer.Audience),
		validator.WithCustomClaims(func() *claims { return new(claims) }))
	if err != nil {
		log.Fatal(err)
	}
	guard, err := jwtmiddleware.New(jwtmiddleware.WithValidator(v), jwtmiddleware.WithDPoPMode(jwtmiddleware.DPoPAllowed))
	if err != nil {
		log.Fatal(err)
	}
	optional, err := jwtmiddleware.New(jwtmiddleware.WithValidator(v), jwtmiddleware.WithCredentialsOptional(true))
	if err != nil {
		log.Fatal(err)
	}
	http.Handle(peer.Any, guard.CheckJWT(http.HandlerFunc(identity)))
	http.Handle(peer.Optional, optional.CheckJWT(http.HandlerFunc(identity)))
	peer.Serve(http.DefaultServeMux)
}

func identity(w http.ResponseWriter, r *http.Request) {
	caller := map[string]any{}
	if c, err := jwtmiddleware.GetClaims[*validator.ValidatedClaims](r.Context()); err == nil {
		own := c.CustomClaims.(*claims)
		caller["sub"], caller["client_id"], caller["scope"] = c.RegisteredClaims.Subject, own.ClientID, own.Scope
	}
	peer.Caller(w, caller)
}
