// Command gosdk is a server of the conformance suite on the bearer gate of the MCP SDK for Go, with golang-jwt.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"strings"

	"github.com/golang-jwt/jwt/v5"
	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/oauthex"

	"github.com/valetkey/valetkey/conformance/harness/servers/internal/peer"
)

func main() {
	parser, keys := jwt.NewParser(peer.Options()...), peer.Keys()
	verify := func(_ context.Context, raw string, _ *http.Request) (*auth.TokenInfo, error) {
		// A map, because encoding/json would take the member EXP for the exp of a struct.
		token, err := parser.Parse(raw, keys)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", auth.ErrInvalidToken, err)
		}
		claims := token.Claims.(jwt.MapClaims)
		expires, err := claims.GetExpirationTime()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", auth.ErrInvalidToken, err)
		}
		subject, err := claims.GetSubject()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", auth.ErrInvalidToken, err)
		}
		scope, _ := claims["scope"].(string)
		return &auth.TokenInfo{Scopes: strings.Split(scope, " "), Expiration: expires.Time, UserID: subject, Extra: claims}, nil
	}
	// RFC 9728, section 3.1: the path of the resource follows the well-known one.
	resource, err := url.Parse(peer.Audience)
	if err != nil {
		log.Fatal(err)
	}
	metadata := *resource
	metadata.Path = "/.well-known/oauth-protected-resource" + strings.TrimSuffix(resource.Path, "/")
	for path, scopes := range peer.ScopesOf {
		guard := auth.RequireBearerToken(verify, &auth.RequireBearerTokenOptions{ResourceMetadataURL: metadata.String(), Scopes: scopes})
		http.Handle(path, guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer.Caller(w, auth.TokenInfoFromContext(r.Context()).Extra)
		})))
	}
	http.Handle(metadata.Path, auth.ProtectedResourceMetadataHandler(&oauthex.ProtectedResourceMetadata{Resource: peer.Audience,
		AuthorizationServers: []string{peer.Issuer}, ScopesSupported: []string{"orders:read", "orders:write"}, BearerMethodsSupported: []string{"header"}}))
	peer.Serve(http.DefaultServeMux)
}
