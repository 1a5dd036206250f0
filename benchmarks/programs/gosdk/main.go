// Command gosdk is examples/orders on MCP go-sdk and golang-jwt v5, which do not fetch keys, for its size.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/golang-jwt/jwt/v5"
	"github.com/modelcontextprotocol/go-sdk/auth"

	"github.com/valetkey/valetkey/benchmarks/programs/internal/publickey"
)

type claims struct {
	jwt.RegisteredClaims
	Scope string `json:"scope"`
}

func main() {
	key, err := publickey.Read(os.Getenv("KEY"))
	if err != nil {
		log.Fatal(err)
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithIssuer(os.Getenv("ISSUER")), jwt.WithAudience("https://orders.example.com"), jwt.WithExpirationRequired())
	verify := func(_ context.Context, raw string, _ *http.Request) (*auth.TokenInfo, error) {
		var c claims
		if _, err := parser.ParseWithClaims(raw, &c, func(*jwt.Token) (any, error) { return key, nil }); err != nil {
			return nil, fmt.Errorf("%w: %w", auth.ErrInvalidToken, err)
		}
		return &auth.TokenInfo{Scopes: strings.Fields(c.Scope), Expiration: c.ExpiresAt.Time, UserID: c.Subject}, nil
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello, %s\n", auth.TokenInfoFromContext(r.Context()).UserID)
	})
	http.Handle("GET /orders", auth.RequireBearerToken(verify, &auth.RequireBearerTokenOptions{Scopes: []string{"orders:read"}})(hello))
	http.Handle("POST /orders", auth.RequireBearerToken(verify, &auth.RequireBearerTokenOptions{Scopes: []string{"orders:write"}})(hello))
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), nil))
}
