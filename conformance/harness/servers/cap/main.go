// Command cap is a server of the conformance suite on hashicorp/cap.
package main

import (
	"context"
	"log"
	"net/http"

	"github.com/hashicorp/cap/jwt"

	"github.com/valetkey/valetkey/conformance/harness/servers/internal/peer"
)

func main() {
	keys, err := jwt.NewOIDCDiscoveryKeySet(context.Background(), peer.Issuer, "")
	if err != nil {
		log.Fatal(err)
	}
	validator, err := jwt.NewValidator(keys)
	if err != nil {
		log.Fatal(err)
	}
	expected := jwt.Expected{Issuer: peer.Issuer, Audiences: []string{peer.Audience},
		SigningAlgorithms: []jwt.Alg{jwt.RS256, jwt.PS256, jwt.ES256, jwt.ES384, jwt.EdDSA}}
	http.Handle(peer.Any, peer.Bearer(func(ctx context.Context, raw string) (map[string]any, error) {
		return validator.Validate(ctx, raw, expected)
	}))
	peer.Serve(http.DefaultServeMux)
}
