package proxy_test

import (
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/valetkeytest"
)

const document = `openapi: 3.1.0
info: {title: orders, version: "1"}
security: [{as: ["orders:read"]}]
paths:
  /orders/{id}:
    get: {responses: {}}
    post: {responses: {}, security: [{as: ["orders:read", "orders:write"]}, {as: [admin]}]}
  /orders/{id}:cancel: {post: {responses: {}, security: [{as: [cancel]}]}}
  /whoami: {get: {responses: {}, security: [{token: []}]}}
  /health: {get: {responses: {}, security: []}}
  /greeting: {get: {responses: {}, security: [{}, {as: [greet]}]}}
components:
  securitySchemes:
    as: {type: openIdConnect, openIdConnectUrl: "https://as.example.com/.well-known/openid-configuration"}
    token: {type: http, scheme: bearer}
`

// loadWith loads a configuration that has a document beside it.
func loadWith(t *testing.T, config, document string) (*proxy.Proxy, error) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"proxy.yaml": config, "openapi.yaml": document} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	return proxy.Load(filepath.Join(dir, "proxy.yaml"), drivers, slog.New(slog.DiscardHandler))
}

func TestOpenAPI(t *testing.T) {
	iss, upstream := valetkeytest.NewIssuer(t), &recorder{}
	server := httptest.NewServer(upstream)
	defer server.Close()
	config, _, _ := strings.Cut(good, "routes:")
	config = strings.NewReplacer("http://127.0.0.1:9", server.URL, "https://as.example.com", iss.URL).Replace(config)
	p, err := loadWith(t, config+"openapi: openapi.yaml", document)
	require.NoError(t, err)
	defer p.Close()

	token := func(scopes ...string) string { return iss.Token(valetkeytest.Scopes(scopes...)) }
	for _, c := range []struct {
		name, line, token string
		status            int
		scope             string // of the challenge
		subject           string // as the upstream sees it
	}{
		{"what the document requires, without a token", "GET /orders/7", "", 401, "orders:read", ""},
		{"an operation replaces what the document requires", "POST /orders/7", token("orders:read"), 403, "orders:read orders:write", ""},
		{"any good token is not a bad one", "GET /whoami", iss.Token(valetkeytest.Expired()), 401, "", ""},
		{"an optional token is not a bad one", "GET /greeting", iss.Token(valetkeytest.Expired()), 401, "", ""},
		{"an optional token is not one that no header can name", "GET /greeting", iss.Token(valetkeytest.Subject("alice ")), 401, "", ""},
		{"a path that is not in the document", "GET /admin", token("orders:read"), 403, "", ""},
		{"a method that is not in the document", "DELETE /health", "", 401, "", ""},
		{"a custom method is not the path before it", "POST /orders/7:cancel", token("orders:read", "orders:write"), 403, "cancel", ""},
		{"the path before a custom method is not that method", "POST /orders/7", token("cancel"), 403, "admin", ""},
		{"the scope of a custom method", "POST /orders/7:cancel", token("cancel"), 200, "", "alice"},
		{"the scope of the document", "GET /orders/7", token("orders:read"), 200, "", "alice"},
		{"one of two alternatives", "POST /orders/7", token("admin"), 200, "", "alice"},
		{"any good token", "GET /whoami", token(), 200, "", "alice"},
		{"no token is needed", "GET /health", token(), 200, "", ""},
		{"an optional token", "GET /greeting", token(), 200, "", "alice"},
		{"no optional token", "GET /greeting", "", 200, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := httptest.NewRecorder()
			method, path, _ := strings.Cut(c.line, " ")
			r := valetkeytest.Request(method, path, c.token)
			if c.token == "" {
				r.Header.Del("Authorization")
			}
			r.Header.Set("X-Valetkey-Subject", "eve")
			p.ServeHTTP(res, r)
			require.Equal(t, c.status, res.Code, res.Body)
			seen := upstream.take()
			if c.status != 200 {
				require.Nil(t, seen)
				require.Equal(t, c.scope, valetkeytest.Challenge(t, res.Header(), "Bearer")["scope"])
				return
			}
			require.NotNil(t, seen)
			require.Equal(t, c.subject, seen.Header.Get("X-Valetkey-Subject"))
		})
	}
}

func TestOpenAPIMistakes(t *testing.T) {
	config, _, _ := strings.Cut(good, "routes:")
	for _, c := range []struct {
		name, config, document string
		want                   []string
	}{
		{"no document and no routes", config, "", []string{"1: routes: required, or openapi"}},
		{"a document beside routes", good + "openapi: openapi.yaml", document, []string{"6: openapi: cannot be combined with routes"}},
		{"an invalid name", config + "openapi: ''", "", []string{"5: openapi: is empty"}},
		{"a document that is not there", config + "openapi: nowhere.json", "", []string{"5: openapi: open DIR/nowhere.json: no such file or directory"}},
		{"a document without end", config + "openapi: openapi.yaml", strings.Repeat("#", 16<<20+1), []string{
			"5: openapi: read DIR/openapi.yaml: it is longer than 16777216 bytes"}},
		{"another version", config + "openapi: openapi.yaml", strings.Replace(document, "3.1.0", "2.0.0", 1), []string{
			`5: openapi: openapi: "2.0.0" is not 3.0, 3.1 or 3.2`}},
		{"every mistake, with the line in the document", config + "openapi: openapi.yaml", strings.NewReplacer(
			"[{token: []}]", "[{key: []}]", `security: [{as: ["orders:read"]}]`, "tags: []", "security: []", "x-security: []").Replace(document), []string{
			`5: openapi: line 10: GET /health: security: neither the operation nor the document states a requirement`,
			`5: openapi: line 6: GET /orders/{id}: security: neither the operation nor the document states a requirement`,
			`5: openapi: line 9: GET /whoami: security: the scheme "key" is not among components.securitySchemes`}},
		{"paths that cannot stand together", config + "openapi: openapi.yaml", strings.Replace(document, "/health", "/{x}/health", 1), []string{
			`5: openapi: line 10: GET /{x}/health: cannot be public: net/http has no pattern that matches this path alone, and a wider row would open others`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := loadWith(t, c.config, c.document)
			if err == nil {
				p.Close()
				t.Fatal("accepted")
			}
			require.Equal(t, strings.Join(c.want, "\n"), strings.Join(mistakes(err), "\n"))
		})
	}
}

func TestOpenAPIWithoutItsDriver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "proxy.yaml")
	config, _, _ := strings.Cut(good, "routes:")
	require.NoError(t, os.WriteFile(file, []byte(config+"openapi: openapi.yaml"), 0o600))
	const want = "openapi: OpenAPI is not part of this build of valetkey: " +
		"build the full one in a clone: go build -o valetkey ./cmd/valetkey/full/valetkey"
	_, err := proxy.Load(file, driver.Set{}, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, want)
	require.NotContains(t, err.Error(), "\n", "the only mistake")
	_, err = proxy.Rehearse(t.Context(), file, proxy.Request{}, driver.Set{}, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, want)
}
