package proxy_test

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

func TestMetadata(t *testing.T) {
	const wellKnown = "/.well-known/oauth-protected-resource"
	upstream := &recorder{}
	server := httptest.NewServer(upstream)
	defer server.Close()
	config := func(resource string) string {
		return fmt.Sprintf(`
listen: 127.0.0.1:0
upstream: %s
resource: %q
verifiers:
  - jwks: {issuer: "https://as.example.com"}
  - jwks: {issuer_type: entra_id_any_tenant, audience: x}
  - jwks: {issuer_type: spiffe, tenants: example.org, audience: x, url: "https://spire.example.org/keys"}
  - introspection: {issuer: "https://as2.example.com", client_id: x, client_secret: x}
  - introspection: {url: "https://as3.example.com", client_id: x, client_secret: x, jwt_issuers: "urn:x"}
routes: {"GET /orders": "orders:read"}
`, server.URL, resource)
	}

	for _, c := range []struct{ name, host, path, served string }{
		{"a host", "https://api.example.com", "", wellKnown},
		{"a host and a slash", "https://api.example.com", "/", wellKnown},
		{"a path", "https://api.example.com", "/v1/orders", wellKnown + "/v1/orders"},
		{"a path that needs escapes", "https://api.example.com", "/%7Ba%7D", wellKnown + "/%7Ba%7D"},
		{"a path that no router would take", "https://api.example.com", "/a//b/../", wellKnown + "/a//b/.."},
		{"this machine", "http://127.0.0.1:8081", "", wellKnown},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := start(t, config(c.host+c.path), slog.New(slog.DiscardHandler))
			challenge := valetkeytest.Challenge(t, send(t, addr, "GET /orders").Header, "Bearer")
			require.Equal(t, c.host+c.served, challenge["resource_metadata"])

			status, body := get(t, "http://"+addr+c.served, "")
			require.Equal(t, 200, status)
			require.JSONEq(t, `{"resource": "`+c.host+c.path+`", "bearer_methods_supported": ["header"], "scopes_supported": ["orders:read"],
				"authorization_servers": ["https://as.example.com", "https://as2.example.com"]}`, string(body))
			preflight := send(t, addr, "OPTIONS "+c.served, "Origin: https://app.example.com", "Access-Control-Request-Method: GET")
			require.Equal(t, 204, preflight.StatusCode)
			require.Equal(t, 405, send(t, addr, "DELETE "+c.served).StatusCode)
			require.Equal(t, 401, send(t, addr, "GET "+wellKnown+"/other").StatusCode)
			require.Nil(t, upstream.take())
		})
	}
	for _, resource := range []string{"urn:orders", "orders", "http://api.example.com", "https://api.example.com?x"} {
		t.Run("a mere name: "+resource, func(t *testing.T) {
			addr := start(t, config(resource), slog.New(slog.DiscardHandler))
			for _, path := range []string{"/orders", wellKnown, wellKnown + "/X"} {
				res := send(t, addr, "GET "+path)
				require.Equal(t, 401, res.StatusCode)
				require.NotContains(t, valetkeytest.Challenge(t, res.Header, "Bearer"), "resource_metadata")
			}
			require.Nil(t, upstream.take())
		})
	}
}
