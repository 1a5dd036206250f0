package proxy_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/apikey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/statuslist"
	"github.com/valetkey/valetkey/valetkeytest"
)

// inFiles maps each field of the structs to its keys in files, or to "-" and the reason why it has none. "." maps to a key of the same
// section.
var inFiles = []struct {
	config any
	at     string // section of the keys
	fields map[string]string
}{
	{jwks.Config{}, "verifiers.jwks", map[string]string{
		"Issuer": "issuer", "IssuerAliases": "issuer_aliases", "Audience": "audience", "AudienceClaim": "audience_claim", "AudienceHeader": "audience_header",
		"SoleAudience": "sole_audience", "JWKSURL": "url", "JWKS": "file", "InitialJWKS": "initial_file", "Algorithms": "algorithms", "Types": "types",
		"Markers": "markers", "RequireScope": "require_scope", "Rules": "rules", "Clients": "clients", "ClientIDHeader": "client_id_header",
		"ClientIDClaim": "client_id_claim", "Profile": "profile", "AllowPaddedSegments": "allow", "Leeway": "leeway", "MaxLifetime": "max_lifetime",
		"Scopes": "scopes", "KeyRequests": "token_file", "InsecureHTTP": "insecure_http", "RefreshInterval": "refresh_interval",
		"MinRefetchInterval": "min_refetch_interval", "StaleIfError": "stale_if_error",
		"MaxTokenBytes": "- max_token_bytes at the top applies to all verifiers",
		"Secret":        "- with a secret of the issuer, every reader of the file could issue tokens",
		"Client":        "- code", "Logger": "- code", "Observer": "- code", "Now": "- code",
	}},
	{jwks.KeyRequests{}, "verifiers.jwks", map[string]string{
		"TokenFile": "token_file", "CAFile": "ca_file", "CertFile": "cert_file", "KeyFile": "key_file", "Header": "- token_file is for the header that issuers ask for",
	}},
	{introspect.Config{}, "verifiers.introspection", map[string]string{
		"URL": "url", "Issuer": "issuer", "Audience": "audience", "SoleAudience": "sole_audience", "AudienceByIssuer": "audience_by_issuer", "Auth": "auth",
		"JWTIssuers": "jwt_issuers", "TypeHint": "token_type_hint", "AllowScopeArray": "allow_scope_array", "Signed": "signed", "CacheTTL": "cache_ttl",
		"NegativeTTL": "negative_ttl", "Leeway": "leeway", "Timeout": "timeout", "MaxInFlight": "max_in_flight", "InsecureHTTP": "insecure_http",
		"MaxTokenBytes": "- max_token_bytes at the top applies to all verifiers",
		"SharedCache":   "- the redis section",
		"Client":        "- code", "Logger": "- code", "Observer": "- code", "Now": "- code",
	}},
	{introspect.Signed{}, "verifiers.introspection.signed", map[string]string{"Algorithm": "algorithm", "Audience": "audience", "JWKSURL": "url", "JWKS": "file"}},
	{statuslist.Config{}, "verifiers.jwks.status_list", map[string]string{
		"Required": "required", "Origins": "origins", "Allow": "allow", "RefreshInterval": "refresh_interval", "MinTTL": "min_ttl", "MaxTTL": "max_ttl",
		"StaleIfError": "stale_if_error",
		"Issuer":       "- the jwks section", "JWKSURL": "- the jwks section", "JWKS": "- the jwks section", "InsecureHTTP": "- the jwks section",
		"Algorithms": "- lists are signed as tokens are", "MaxLists": "- the default suits one issuer", "MaxBytes": "- the default suits one issuer",
		"Verifier": "- code", "Client": "- code", "Logger": "- code", "Observer": "- code",
	}},
	{apikey.Config{}, "verifiers.api_keys", map[string]string{
		"Issuer": "issuer", "File": "file", "Lookup": "- code", "Keys": "- code", "CacheTTL": "- has no effect on a file", "Now": "- code",
	}},
	{middleware.Config{}, "", map[string]string{
		"MaxTokenBytes": "max_token_bytes", "Methods": "token_header", "DPoP": "dpop", "ClientCertificate": "mtls", "SenderConstrained": "sender_constrained",
		"URL": "dpop.origin", "Proxies": "trusted_proxies", "Resource": "resource", "Realm": "realm", "ErrorURI": "error_uri", "ErrorBody": "error_body",
		"Cache": "cache", "Revocations": "revocations", "Preflight": "cors", "CancelWithToken": "cancel_with_token", "InsecureReportOnly": "insecure_report_only",
		"Issuer":          "- the verifiers section",
		"Audience":        "- the verifiers section",
		"Verifier":        "- the verifiers section",
		"ExposeChallenge": "- cors exposes the challenge",
		"Previous":        "- a reload sets it", "KeepCached": "- a reload sets it",
		"OnBehalf": "- for handlers that call other services",
		"Claims":   "- code", "Logger": "- code", "Observer": "- code", "Now": "- code",
	}},
	{middleware.AuditOptions{}, "audit", map[string]string{
		"Grants": "grants", "Identity": "identity", "Key": "key", "Queue": "queue", "Block": "block",
		"Proxies": "- trusted_proxies at the top", "RequestID": "- the proxy knows it", "Logger": "- code",
	}},
	{middleware.Cache{}, "cache", map[string]string{"Entries": "entries", "Bytes": "bytes", "MaxAge": "max_age"}},
	{middleware.Revocations{}, "revocations", map[string]string{"Keep": "keep", "Bytes": "bytes", "Source": "- the redis section", "AllowBeforeCaughtUp": "- redis.allow_before_caught_up"}},
	{middleware.Resource{}, "metadata", map[string]string{
		"Name": "name", "Documentation": "documentation", "Policy": "policy", "TermsOfUse": "terms_of_use", "Scopes": "scopes", "MaxAge": "max_age",
		"ID": "- resource at the top", "AuthorizationServers": "- the issuers of the verifiers",
	}},
	{middleware.Proxies{}, "", map[string]string{
		"Trusted": "trusted_proxies", "Forwarded": "forwarded_header", "XForwardedPort": "forwarded_port", "XForwardedPrefix": "forwarded_prefix",
		"UnixSocket": "- the proxy listens on TCP",
	}},
	{issuers.Params{}, "verifiers.jwks", map[string]string{"Issuer": "issuer", "Audience": "audience", "Tenants": "tenants", "Clients": "clients", "Rules": "rules"}},
}

func TestEverySettingIsInFiles(t *testing.T) {
	for _, s := range inFiles {
		config := reflect.TypeOf(s.config)
		known := map[string]bool{}
		for i := range config.NumField() {
			name := config.Field(i).Name
			if known[name] = true; !config.Field(i).IsExported() {
				continue
			}
			key, reason := s.fields[name], ""
			if rest, without := strings.CutPrefix(key, "- "); without {
				key, reason = "", rest
			}
			if path := strings.TrimPrefix(s.at+"."+key, "."); reason == "" && (key == "" || !proxy.HasKey(path)) {
				t.Errorf("%v.%s has no key in files: add one, or the reason to inFiles", config, name)
			}
		}
		for name := range s.fields {
			assert.True(t, known[name], "%v has no field %s", config, name)
		}
	}
	for i := range reflect.TypeFor[jwks.Profile]().NumField() { // allow: scope_array
		field := reflect.TypeFor[jwks.Profile]().Field(i).Name
		allowed := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(field, "Allow")), "_", "")
		found := false
		for _, name := range issuer.Allowances() {
			found = found || strings.ReplaceAll(name, "_", "") == allowed
		}
		assert.True(t, found, "allow has no value for jwks.Profile.%s", field)
	}
}

func TestSettingsOfTheGuard(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	at := func(more string) (addr string, upstream *recorder) {
		config, upstream := guarded(t, iss, more)
		return start(t, config, slog.New(slog.DiscardHandler)), upstream
	}
	bearer := "Authorization: Bearer " + iss.Token(valetkeytest.Scopes("orders:read"))
	t.Run("the form and the URL of errors", func(t *testing.T) {
		addr, _ := at("error_body: problem_json\nerror_uri: https://api.example.com/errors")
		res := send(t, addr, "GET /orders", "Authorization: Bearer x")
		assert.Equal(t, "application/problem+json", res.Header.Get("Content-Type"))
		assert.Equal(t, "https://api.example.com/errors", valetkeytest.Challenge(t, res.Header, "Bearer")["error_uri"])
	})
	t.Run("the metadata", func(t *testing.T) {
		addr, _ := at("metadata: {name: Orders, documentation: 'https://docs.example.com', policy: 'https://example.com/policy', terms_of_use: 'https://example.com/tos', scopes: a, max_age: 5m}")
		res := send(t, addr, "GET /.well-known/oauth-protected-resource")
		var body bytes.Buffer
		_, err := body.ReadFrom(res.Body)
		require.NoError(t, err)
		for _, part := range []string{`"Orders"`, `"https://docs.example.com"`, `"https://example.com/policy"`, `"https://example.com/tos"`, `["a"]`} {
			assert.Contains(t, body.String(), part)
		}
		assert.Contains(t, res.Header.Get("Cache-Control"), "300")
	})
	t.Run("refusals are enforced by default, and only reported if that is configured", func(t *testing.T) {
		addr, upstream := at("")
		assert.Equal(t, 401, send(t, addr, "GET /orders").StatusCode)
		assert.Nil(t, upstream.take())
		var log bytes.Buffer
		config, upstream := guarded(t, iss, "insecure_report_only: true")
		addr = start(t, config, slog.New(slog.NewTextHandler(&log, nil)))
		assert.Equal(t, 200, send(t, addr, "GET /orders", "X-Valetkey-Subject: eve").StatusCode)
		assert.Empty(t, upstream.take().Header["X-Valetkey-Subject"])
		assert.Contains(t, log.String(), "status=200 reason=no_credentials report_only=true")
	})
	t.Run("no cache", func(t *testing.T) {
		addr, _ := at("cache: {entries: -1, bytes: 1000, max_age: 1m}\nrevocations: {bytes: 100000, keep: 1h}")
		assert.Equal(t, 200, send(t, addr, "GET /orders", bearer).StatusCode)
	})
	t.Run("one audience", func(t *testing.T) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.ParseForm()
			assert.Equal(t, "access_token", r.Form.Get("token_type_hint"))
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"active":true,"sub":"alice","scope":"orders:read","aud":["https://api.example.com"%s],"exp":%d}`, map[string]string{"both": `,"https://other"`}[r.Form.Get("token")], time.Now().Add(time.Hour).Unix())
		}))
		defer server.Close()
		config, _ := guarded(t, iss, "")
		config = strings.Replace(config, fmt.Sprintf("[jwks: {issuer: %q}]", iss.URL),
			"[introspection: {url: '"+server.URL+"', client_id: x, client_secret: y, sole_audience: true, token_type_hint: true, timeout: 1s, max_in_flight: 2}]", 1)
		addr := start(t, config, slog.New(slog.DiscardHandler))
		assert.Equal(t, 401, send(t, addr, "GET /orders", "Authorization: Bearer both").StatusCode)
		assert.Equal(t, 200, send(t, addr, "GET /orders", "Authorization: Bearer one").StatusCode)
	})
	t.Run("how keys are refreshed", func(t *testing.T) {
		config, _ := guarded(t, iss, "")
		config = strings.Replace(config, iss.URL+`"}`, iss.URL+`", refresh_interval: 5m, min_refetch_interval: 1m, stale_if_error: 0s}`, 1)
		addr := start(t, config, slog.New(slog.DiscardHandler))
		assert.Equal(t, 200, send(t, addr, "GET /orders", bearer).StatusCode)
	})
	for more, want := range map[string]string{
		"metadata: {name: x}\nresource2: x":          `7: unknown field "resource2"`,
		"metadata: {policy: x}":                      `6: metadata.policy: "x" is not a URL`,
		"cache: {bytes: -1}":                         "6: cache.bytes: -1 is negative",
		"revocations: {bytes: -1}":                   "6: revocations.bytes: -1 is negative",
		"error_body: html":                           `6: error_body: "html" is not text or problem_json`,
		"error_uri: 'a b'":                           `6: error_uri: "a b" is not a URI reference`,
		"profile: fapi2\ninsecure_report_only: true": "7: insecure_report_only: cannot be combined with profile: fapi2",
	} {
		_, err := load(t, good+more, slog.New(slog.DiscardHandler))
		assert.Contains(t, strings.Join(mistakes(err), "\n"), want)
	}
	for section, want := range map[string]string{
		"jwks: {issuer: 'https://a', stale_if_error: 25h}":                                                            "4: verifiers[0].jwks.stale_if_error: ",
		"introspection: {issuer: 'https://a', client_id: x, client_secret: x, timeout: 6s}":                           "4: verifiers[0].introspection.timeout: ",
		"introspection: {issuer: 'https://a', client_id: x, client_secret: x, max_in_flight: -1}":                     "4: verifiers[0].introspection.max_in_flight: ",
		"introspection: {issuer: 'https://a', client_id: x, client_secret: x, signed: {algorithm: x}}":                "4: verifiers[0].introspection.signed.algorithm: ",
		"introspection: {issuer: 'https://a', client_id: x, client_secret: x, signed: {url: 'https://a/k', file: k}}": "4: verifiers[0].introspection.signed.file: cannot be combined with url",
	} {
		_, err := load(t, strings.Replace(good, `jwks: {issuer: "https://as.example.com"}`, section, 1), slog.New(slog.DiscardHandler))
		assert.Contains(t, strings.Join(mistakes(err), "\n"), want)
	}
}

func TestReportOnlyWithoutARow(t *testing.T) {
	iss, seen := valetkeytest.NewIssuer(t), &recorder{}
	upstream := httptest.NewServer(seen)
	defer upstream.Close()
	for _, c := range []struct {
		name, upstreams string
		status          int
	}{
		{"several upstreams", "upstreams: [{url: " + upstream.URL + ", prefix: /api/orders}, {url: " + upstream.URL + ", prefix: /api/users}]\n", 403},
		{"one upstream for a part of the paths", "upstreams: [{url: " + upstream.URL + ", prefix: /api, strip_prefix: true}]\n", 403},
		{"one upstream", "upstream: " + upstream.URL + "\n", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			addr := start(t, "listen: 127.0.0.1:0\n"+c.upstreams+"insecure_report_only: true\nresource: "+valetkeytest.DefaultAudience+
				"\nverifiers: [jwks: {issuer: '"+iss.URL+"'}]\nroutes: {GET /api/orders: orders:read, GET /api/users: users}\n", slog.New(slog.NewTextHandler(&log, nil)))
			for _, line := range []string{"GET /admin", "DELETE /api/orders"} {
				res := send(t, addr, line)
				assert.Equal(t, c.status, res.StatusCode, line)
				assert.Equal(t, c.status == 200, seen.take() != nil, line)
			}
			assert.Contains(t, log.String(), `row=""`)
			res := send(t, addr, "GET /api/orders")
			assert.Equal(t, 200, res.StatusCode, "a row leads to its upstream")
			assert.NotNil(t, seen.take())
		})
	}
}
