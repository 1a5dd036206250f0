// Command gosdk is a server of the conformance suite on the bearer gate of the MCP SDK for Go, with golang-jwt.
package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/golang-jwt/jwt/v5"
	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/oauthex"

	"github.com/valetkey/valetkey/conformance/harness/servers/internal/peer"
)

type claims struct {
	jwt.RegisteredClaims
	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
}

func main() {
	parser, keys := jwt.NewParser(peer.Options()...), peer.Keys()
	verify := func(_ context.Context, raw string, _ *http.Request) (*auth.TokenInfo, error) {
		var c claims
		if _, err := parser.ParseWithClaims(raw, &c, keys); err != nil {
			return nil, fmt.Errorf("%w: %w", auth.ErrInvalidToken, err)
		}
		return &auth.TokenInfo{Scopes: strings.Fields(c.Scope), Expiration: c.ExpiresAt.Time, UserID: c.Subject,
			Extra: map[string]any{"sub": c.Subject, "client_id": c.ClientID, "scope": c.Scope}}, nil
	}
	const metadataPath = "/.well-known/oauth-protected-resource"
	for path, scopes := range peer.ScopesOf {
		guard := auth.RequireBearerToken(verify, &auth.RequireBearerTokenOptions{ResourceMetadataURL: peer.Audience + metadataPath, Scopes: scopes})
		http.Handle(path, guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer.Caller(w, auth.TokenInfoFromContext(r.Context()).Extra)
		})))
	}
	http.Handle(metadataPath, auth.ProtectedResourceMetadataHandler(&oauthex.ProtectedResourceMetadata{Resource: peer.Audience,
		AuthorizationServers: []string{peer.Issuer}, ScopesSupported: []string{"orders:read", "orders:write"}, BearerMethodsSupported: []string{"header"}}))
	peer.Serve(http.DefaultServeMux)
}
