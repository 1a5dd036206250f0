package main_test

import (
	"net/http"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/adapters/internal/exampletest"
)

// A sender sends a token with each request.
type sender string

func (s sender) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(s))
	return http.DefaultTransport.RoundTrip(r)
}

func TestProgram(t *testing.T) {
	exampletest.Short(t)
	addr, token := exampletest.Start(t)
	connect := func(token string) (*mcp.ClientSession, error) {
		client := mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, nil)
		return client.Connect(t.Context(), &mcp.StreamableClientTransport{
			Endpoint: "http://" + addr, HTTPClient: &http.Client{Transport: sender(token)}, MaxRetries: -1,
		}, nil)
	}
	t.Run("a forged token", func(t *testing.T) {
		_, err := connect("forged")
		require.ErrorContains(t, err, "Unauthorized")
	})
	for _, c := range []struct{ name, scope, tool, refused string }{
		{"a writer does not read", "orders:write", "list_orders", "Forbidden"},
		{"a reader does not write", "orders:read", "place_order", "Forbidden"},
		{"a reader reads", "orders:read", "list_orders", ""},
		{"a writer writes", "orders:write", "place_order", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			session, err := connect(token(c.scope))
			require.NoError(t, err)
			defer session.Close()
			result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: c.tool})
			if c.refused != "" {
				require.ErrorContains(t, err, c.refused)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "alice", result.Content[0].(*mcp.TextContent).Text)
		})
	}
}
