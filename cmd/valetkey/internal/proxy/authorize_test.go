package proxy_test

import (
	"encoding/pem"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/schematest"
	"github.com/valetkey/valetkey/valetkeytest"
)

const authorizing = `listen_http: 127.0.0.1:0
dialect: nginx
callers: [127.0.0.1]
resource: https://api.example.com
verifiers: [jwks: {issuer: "https://as.example.com"}]
routes: {"GET /orders": "orders:read"}
`

func loadAuthorizer(t *testing.T, config string, drivers driver.Set) (*proxy.Authorizer, error) {
	t.Helper()
	return authorizer(t, config, drivers, slog.New(slog.DiscardHandler))
}

func authorizer(t *testing.T, config string, drivers driver.Set, log *slog.Logger) (*proxy.Authorizer, error) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"authorize.yaml": config, "cert.pem": certificatePEM, "key.pem": keyPEM, "empty.pem": ""} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	a, err := proxy.LoadAuthorizer(filepath.Join(dir, "authorize.yaml"), drivers, log)
	if err == nil {
		schema, err := proxy.AuthorizeSchema()
		require.NoError(t, err)
		assert.NoError(t, schematest.Check(schema, config), "the schema refuses what the command accepts")
	}
	return a, err
}

func TestAuthorizerSchemaRefusesMistakes(t *testing.T) {
	schema, err := proxy.AuthorizeSchema()
	require.NoError(t, err)
	require.NoError(t, schematest.Check(schema, authorizing))
	base := func(replace ...string) string { return strings.NewReplacer(replace...).Replace(authorizing) }
	for _, config := range []string{
		"{}", base("listen_http: 127.0.0.1:0\n", ""), base("dialect: nginx\n", ""), base("nginx", "apache"), base("callers: [127.0.0.1]\n", ""), base("[127.0.0.1]", "[]"),
		base("127.0.0.1]", "0.0.0.0/0]"), authorizing + "listen: 127.0.0.1:1", authorizing + "upstream: http://127.0.0.1:9", authorizing + "openapi: x",
	} {
		assert.Error(t, schematest.Check(schema, config), config)
	}
}

func TestAuthorizerMistakes(t *testing.T) {
	base := func(replace ...string) string { return strings.NewReplacer(replace...).Replace(authorizing) }
	for _, c := range []struct {
		name, config string
		want         []string // "line: text" of each mistake
	}{
		{"an empty file", "", []string{
			"1: verifiers: required", "1: callers: required", "1: listen_http: required, or listen_grpc", "1: routes: required, or openapi"}},
		{"every key of the proxy about its upstream", authorizing + `listen: 127.0.0.1:1
upstream: http://127.0.0.1:9
trusted_proxies: [10.0.0.1]
forwarded_header: X-Forwarded
forwarded_port: true
forwarded_prefix: true
cancel_with_token: true`, []string{
			"7: listen: belongs to valetkey proxy: use listen_http or listen_grpc",
			"8: upstream: belongs to valetkey proxy: the gateway passes requests on",
			"9: trusted_proxies: belongs to valetkey proxy: use callers",
			"10: forwarded_header: belongs to valetkey proxy: the dialect determines the headers, and dpop.origin the URL",
			"11: forwarded_port: belongs to valetkey proxy: the dialect determines the headers, and dpop.origin the URL",
			"12: forwarded_prefix: belongs to valetkey proxy: the dialect determines the headers, and dpop.origin the URL",
			"13: cancel_with_token: belongs to valetkey proxy: a gateway asks once, and a decision cannot end a stream"}},
		{"CORS", authorizing + "cors: {origins: ['https://app.example.com'], methods: [GET]}", []string{
			"7: cors: belongs to valetkey proxy: the gateway answers preflights, or allow_preflight lets them pass"}},
		{"several upstreams", authorizing + "upstreams: [url: http://127.0.0.1:9]", []string{
			"7: upstreams: belongs to valetkey proxy: the gateway passes requests on"}},
		{"no dialect", base("dialect: nginx\n", ""), []string{
			"1: dialect: required: caddy, envoy-http, haproxy, ingress-nginx, nginx, traefik"}},
		{"an empty dialect", base("dialect: nginx", `dialect: ""`), []string{"2: dialect: is empty"}},
		{"another dialect", base("dialect: nginx", "dialect: apache"), []string{
			`2: dialect: "apache" is not supported: use caddy, envoy-http, haproxy, ingress-nginx, nginx, traefik`}},
		{"no callers", base("callers: [127.0.0.1]\n", ""), []string{"1: callers: required"}},
		{"an empty list of callers", base("[127.0.0.1]", "[]"), []string{"3: callers: is empty"}},
		{"all addresses", base("[127.0.0.1]", "[127.0.0.1, 0.0.0.0/0]"), []string{
			"3: callers[1]: 0.0.0.0/0 contains all addresses, so any client would be trusted as a proxy"}},
		{"envoy-http without a prefix", base("nginx", "envoy-http"), []string{
			"1: path_prefix: required: the path_prefix of Envoy's http_service, such as /check"}},
		{"a prefix of another dialect", authorizing + "path_prefix: /check", []string{
			"7: path_prefix: has an effect on the dialect envoy-http only"}},
		{"gRPC in the light build", base("listen_http", "listen_grpc", "dialect: nginx\n", ""), []string{
			"1: listen_grpc: ext_authz over gRPC is not part of this build of valetkey: build the full one in a clone: go build -o valetkey ./cmd/valetkey/full/valetkey"}},
		{"a dialect without HTTP", base("listen_http", "listen_grpc") + "path_prefix: /check\nmtls: {header: X-Cert}", []string{
			"1: listen_grpc: ext_authz over gRPC is not part of this build of valetkey: build the full one in a clone: go build -o valetkey ./cmd/valetkey/full/valetkey",
			"2: dialect: has no effect without listen_http", "7: path_prefix: has no effect without listen_http", "8: mtls.header: has no effect without listen_http"}},
		{"certificates that nothing reports", authorizing + "mtls: {}", []string{
			"7: mtls.header: required: the header in which the gateway reports the certificate of the client"}},
		{"authorities of callers without TLS", authorizing + "callers_ca_file: cert.pem", []string{"7: callers_ca_file: requires tls"}},
		{"invalid authorities of callers", authorizing + "tls: {cert_file: cert.pem, key_file: key.pem}\ncallers_ca_file: empty.pem", []string{
			"8: callers_ca_file: has no certificate in PEM"}},
		{"proofs without an origin", base("resource: https://api.example.com", "resource: urn:api") + "dpop: {}", []string{
			"7: dpop.origin: required, such as https://api.example.com, because resource is not a URL for clients"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := loadAuthorizer(t, c.config, driver.Set{})
			require.Nil(t, a)
			require.Error(t, err)
			var got []string
			for line := range strings.SplitSeq(err.Error(), "\n") {
				_, line, _ = strings.Cut(line, "authorize.yaml:")
				got = append(got, line)
			}
			assert.Equal(t, c.want, got)
		})
	}
	t.Run("the keys of the gateway are unknown to the proxy", func(t *testing.T) {
		for _, line := range []string{"listen_http: 127.0.0.1:1", "listen_grpc: 127.0.0.1:1", "dialect: nginx", "callers: [10.0.0.1]", "path_prefix: /x", "allow_preflight: true"} {
			_, err := load(t, good+line, slog.New(slog.DiscardHandler))
			assert.ErrorContains(t, err, "unknown field", line)
		}
	})
}

// asked sends the question of nginx about a request, and returns the response.
func asked(t *testing.T, h http.Handler, method, target string, header ...string) *http.Response {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	lines := append([]string{"X-Forwarded-Method: " + method, "X-Forwarded-Uri: " + target, "X-Forwarded-Proto: https", "X-Forwarded-Host: api.example.com"}, header...)
	return send(t, server.Listener.Addr().String(), "GET /", lines...)
}

func TestAuthorizer(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key, certificate := iss.ProofKey("ES256"), valetkeytest.ClientCertificate(t)
	config := strings.Replace(authorizing, "https://as.example.com", iss.URL, 1) + `dpop: {origin: "https://public.example.com"}
mtls: {header: X-Client-Cert}
`
	a, err := loadAuthorizer(t, config, driver.Set{})
	require.NoError(t, err)
	t.Cleanup(a.Close)
	read := valetkeytest.Scopes("orders:read")
	bearer := "Authorization: Bearer " + iss.Token(read)
	bound := iss.Token(read, valetkeytest.BoundTo(key))
	escaped := "X-Client-Cert: " + url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})))
	certified := "Authorization: Bearer " + iss.Token(read, valetkeytest.BoundToCertificate(certificate))
	for _, c := range []struct {
		name, method, target string
		header               []string
		status               int
	}{
		{"no token", "GET", "/orders", nil, 401},
		{"no row", "DELETE", "/orders", []string{bearer}, 403},
		{"the path of the metadata is a path like others", "GET", "/.well-known/oauth-protected-resource", nil, 401},
		{"an unclear path", "GET", "/x/..%2forders", []string{bearer}, 400},
		{"a proof for the host that the gateway reports", "GET", "/orders", []string{"Authorization: DPoP " + bound, "DPoP: " + key.Proof("GET", "https://api.example.com/orders", bound)}, 401},
		{"no certificate", "GET", "/orders", []string{certified}, 401},
		{"a good token", "GET", "/orders", []string{bearer}, 200},
		{"a proof for the origin", "GET", "/orders", []string{"Authorization: DPoP " + bound, "DPoP: " + key.Proof("GET", "https://public.example.com/orders", bound)}, 200},
		{"its certificate", "GET", "/orders", []string{certified, escaped}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := asked(t, a.Asked(), c.method, c.target, c.header...)
			assert.Equal(t, c.status, res.StatusCode)
			want := map[bool]string{true: "alice"}[c.status == 200]
			assert.Equal(t, want, res.Header.Get("X-Valetkey-Subject"))
		})
	}
	server := httptest.NewServer(a.Asked())
	t.Cleanup(server.Close)
	addr, metadata := server.Listener.Addr().String(), "GET /.well-known/oauth-protected-resource"
	t.Run("the metadata for a gateway that passes the request on", func(t *testing.T) {
		res := send(t, addr, metadata, "X-Forwarded-Host: api.example.com", "X-Forwarded-For: 192.0.2.1")
		assert.Equal(t, 200, res.StatusCode)
		assert.Equal(t, "application/json", res.Header.Get("Content-Type"))
	})
	t.Run("no metadata at another path, where clients look too", func(t *testing.T) {
		for _, path := range []string{metadata + "/", metadata + "/mcp"} {
			assert.Equal(t, 404, send(t, addr, path).StatusCode, path)
		}
	})
	t.Run("the metadata of a resource with a path", func(t *testing.T) {
		a, err := loadAuthorizer(t, strings.Replace(authorizing, "https://api.example.com", "https://api.example.com/orders", 1), driver.Set{})
		require.NoError(t, err)
		t.Cleanup(a.Close)
		server := httptest.NewServer(a.Asked())
		t.Cleanup(server.Close)
		assert.Equal(t, 200, send(t, server.Listener.Addr().String(), metadata+"/orders").StatusCode)
		assert.Equal(t, 404, send(t, server.Listener.Addr().String(), metadata).StatusCode)
	})
	t.Run("the metadata is not an answer to a question", func(t *testing.T) {
		for _, line := range []string{"X-Forwarded-Uri: /orders", "X-Forwarded-Method: GET", "X-Original-URL: https://api.example.com/orders", "x_original_method: GET"} {
			assert.Equal(t, 400, send(t, addr, metadata, line).StatusCode, line)
		}
		whole := []string{"X-Forwarded-Method: GET", "X-Forwarded-Uri: /orders", "X-Forwarded-Proto: https", "X-Forwarded-Host: api.example.com",
			"Authorization: Bearer " + iss.Token(valetkeytest.Scopes("orders:read"))}
		require.Equal(t, 200, send(t, addr, "GET /", whole...).StatusCode, "the question of the gateway")
		for _, path := range []string{
			metadata, metadata + "/", metadata + "/orders", metadata + "-x", metadata + "/../../orders", "GET /.well-known//oauth-protected-resource",
			"GET /x/../.well-known/oauth-protected-resource", "GET /x/%2e%2e/.well-known/oauth-protected-resource", "GET /.well-known%2foauth-protected-resource",
			"GET /.Well-Known/OAuth-Protected-Resource", "GET //.well-known/oauth-protected-resource", "GET /./.well-known/oauth-protected-resource",
		} {
			res := send(t, addr, path, whole...)
			assert.Equal(t, 400, res.StatusCode, "a client asks a whole question at a path that a gateway passes on: %s", path)
			assert.Empty(t, res.Header["X-Valetkey-Subject"])
		}
		assert.Equal(t, 200, send(t, addr, "GET /ask", whole...).StatusCode, "another path of the gateway's questions")
		prefixed, err := loadAuthorizer(t, strings.Replace(config, "dialect: nginx", "dialect: envoy-http\npath_prefix: /.well-known", 1), driver.Set{})
		require.NoError(t, err)
		t.Cleanup(prefixed.Close)
		server := httptest.NewServer(prefixed.Asked())
		t.Cleanup(server.Close)
		assert.Equal(t, 401, send(t, server.Listener.Addr().String(), metadata).StatusCode)
	})
}

// A key that is added to the proxy must be one that an authorizer obeys, or one that it refuses with the reason.
func TestAuthorizerKnowsEveryKeyOfTheProxy(t *testing.T) {
	schema, err := proxy.AuthorizeSchema()
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{
		"listen_http", "listen_grpc", "dialect", "path_prefix", "callers", "callers_ca_file", "allow_preflight",
		"tls", "resource", "realm", "forward_token", "token_header", "max_token_bytes", "trusted_origins", "websocket_token", "verifiers", "dpop", "mtls",
		"sender_constrained", "profile", "redis", "signals", "routes", "openapi", "allow_encoded_slash",
		"probe", "drain", "grace", "access_log", "audit", "max_header_bytes", "header_timeout", "idle_timeout",
		"metadata", "error_uri", "error_body", "cache", "revocations", "insecure_report_only",
	}, slices.Collect(maps.Keys(schema["properties"].(map[string]any))), "obey the key, or add it to proxyOnly in authorize.go")
}

func TestAuthorizerObeysTheSettingsOfTheGuard(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	config := strings.Replace(authorizing, "https://as.example.com", iss.URL, 1) + "error_uri: https://api.example.com/errors\nerror_body: problem_json\n"
	a, err := loadAuthorizer(t, config, driver.Set{})
	require.NoError(t, err)
	t.Cleanup(a.Close)
	refused := asked(t, a.Asked(), "GET", "/orders", "Authorization: Bearer x")
	assert.Equal(t, 401, refused.StatusCode)
	assert.Equal(t, "application/problem+json", refused.Header.Get("Content-Type"))
	assert.Equal(t, "https://api.example.com/errors", valetkeytest.Challenge(t, refused.Header, "Bearer")["error_uri"])

	reporting, err := loadAuthorizer(t, config+"insecure_report_only: true\n", driver.Set{})
	require.NoError(t, err)
	t.Cleanup(reporting.Close)
	passed := asked(t, reporting.Asked(), "GET", "/orders", "Authorization: Bearer x")
	assert.Equal(t, 200, passed.StatusCode)
	assert.Equal(t, []string{""}, passed.Header["X-Valetkey-Subject"], "the token is not verified")
	assert.Equal(t, 400, asked(t, reporting.Asked(), "GET", "//orders").StatusCode)
}
