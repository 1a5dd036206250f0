// Command jwtauth is a server of the conformance suite on chi jwtauth v5.
package main

import (
	"context"
	"log"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/jwtauth/v5"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/valetkey/valetkey/conformance/harness/servers/internal/peer"
)

func main() {
	// It takes one key, of one algorithm, and does not fetch keys.
	set, err := jwk.Fetch(context.Background(), peer.JWKSURI)
	if err != nil {
		log.Fatal(err)
	}
	var key any
	for i := range set.Len() {
		if k, ok := set.Key(i); ok && k.Algorithm().String() == jwa.ES256.String() {
			if err := k.Raw(&key); err != nil {
				log.Fatal(err)
			}
			break
		}
	}
	if key == nil {
		log.Fatal("the key set has no key for ES256")
	}
	auth := jwtauth.New("ES256", nil, key, jwt.WithIssuer(peer.Issuer), jwt.WithAudience(peer.Audience), jwt.WithRequiredClaim("exp"))
	router := chi.NewRouter()
	// Verifier would also take tokens from a cookie.
	router.Use(jwtauth.Verify(auth, jwtauth.TokenFromHeader), jwtauth.Authenticator(auth))
	router.HandleFunc(peer.Any, func(w http.ResponseWriter, r *http.Request) {
		_, claims, _ := jwtauth.FromContext(r.Context())
		peer.Caller(w, claims)
	})
	peer.Serve(router)
}
