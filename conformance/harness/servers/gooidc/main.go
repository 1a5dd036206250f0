// Command gooidc is a server of the conformance suite on go-oidc v3.
package main

import (
	"context"
	"log"
	"net/http"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/valetkey/valetkey/conformance/harness/servers/internal/peer"
)

func main() {
	provider, err := oidc.NewProvider(context.Background(), peer.Issuer)
	if err != nil {
		log.Fatal(err)
	}
	verifier := provider.Verifier(&oidc.Config{ClientID: peer.Audience, SupportedSigningAlgs: peer.Algorithms})
	http.Handle(peer.Any, peer.Bearer(func(ctx context.Context, raw string) (map[string]any, error) {
		token, err := verifier.Verify(ctx, raw)
		if err != nil {
			return nil, err
		}
		claims := map[string]any{}
		return claims, token.Claims(&claims)
	}))
	peer.Serve(http.DefaultServeMux)
}
