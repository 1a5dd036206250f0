package authserver_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
)

func TestConfigMistakes(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*authserver.Config)
		want   string
	}{
		{"AS-META-02 no issuer", func(c *authserver.Config) { c.Issuer = "" }, "issuer: is required"},
		{"AS-META-02 an issuer that is no URL", func(c *authserver.Config) { c.Issuer = "as.example.com" }, "issuer: is not an https URL"},
		{"AS-META-02 an issuer of another scheme", func(c *authserver.Config) { c.Issuer = "ftp://as.example.com" }, "issuer: is not an https URL"},
		{"AS-META-02 an issuer with a query", func(c *authserver.Config) { c.Issuer = "https://as.example.com?" }, "issuer: has a query"},
		{"AS-META-02 an issuer with a fragment", func(c *authserver.Config) { c.Issuer = "https://as.example.com#" }, "issuer: has a query, a fragment"},
		{"an issuer with a user", func(c *authserver.Config) { c.Issuer = "https://a@as.example.com" }, "issuer: has a query, a fragment or a user"},
		{"an issuer whose path is a pattern", func(c *authserver.Config) { c.Issuer = "https://as.example.com/{a}" }, "issuer: has a path with unusual"},
		{"an issuer whose path climbs", func(c *authserver.Config) { c.Issuer = "https://as.example.com/a/../b" }, "issuer: has a path with unusual"},
		{"an issuer with two slashes", func(c *authserver.Config) { c.Issuer = "https://as.example.com//" }, "issuer: has a path with unusual"},
		{"AS-META-02 http beyond loopback", func(c *authserver.Config) { c.Issuer = "http://as.example.com" }, "issuer: is http and not on loopback"},
		{"http on a host that only looks like loopback", func(c *authserver.Config) { c.Issuer = "http://127.0.0.1.example.com" }, "issuer: is http and not on loopback"},
		{"no API", func(c *authserver.Config) { c.APIs = nil }, "apis: at least one"},
		{"no audience", func(c *authserver.Config) { c.APIs[1].Audience = "" }, `apis[1].audience: "" is not an absolute URI`},
		{"a relative audience", func(c *authserver.Config) { c.APIs[1].Audience = "files" }, `apis[1].audience: "files" is not an absolute URI`},
		{"an audience with a fragment", func(c *authserver.Config) { c.APIs[1].Audience = "https://a#b" }, "apis[1].audience: "},
		{"one audience twice", func(c *authserver.Config) { c.APIs[1].Audience = orders }, "apis[1].audience: \"" + orders + "\" is the audience of another"},
		{"no scope", func(c *authserver.Config) { c.APIs[2].Scopes = nil }, "apis[2].scopes: at least one"},
		{"a scope of two words", func(c *authserver.Config) { c.APIs[0].Scopes["a b"] = "" }, `apis[0].scopes: scope "a b"`},
		{"the scope openid", func(c *authserver.Config) { c.APIs[0].Scopes["openid"] = "" }, "apis[0].scopes: openid"},
		{"a scope of two APIs", func(c *authserver.Config) { c.APIs[2].Scopes["orders:read"] = "" }, `apis[2].scopes: "orders:read" is a scope of another`},
		{"an unknown format", func(c *authserver.Config) { c.APIs[0].Tokens = "JWT" }, `apis[0].tokens: "JWT" is neither`},
		{"an unknown algorithm", func(c *authserver.Config) { c.APIs[0].Algorithm = "none" }, `apis[0].algorithm: "none" is neither`},
		{"a negative lifetime", func(c *authserver.Config) { c.APIs[0].Lifetime = -time.Second }, "apis[0].lifetime: -1s"},
		{"a lifetime of nanoseconds", func(c *authserver.Config) { c.APIs[0].Lifetime = 600 }, "apis[0].lifetime: 600ns"},
		{"a lifetime of days", func(c *authserver.Config) { c.APIs[0].Lifetime = 25 * time.Hour }, "apis[0].lifetime: 25h"},
		{"no client", func(c *authserver.Config) { c.Clients = nil }, "clients: at least one"},
		{"no client id", func(c *authserver.Config) { c.Clients[0].ID = "" }, "clients[0].id: printable"},
		{"a client id that is not ASCII", func(c *authserver.Config) { c.Clients[0].ID = "é" }, "clients[0].id: printable"},
		{"one client id twice", func(c *authserver.Config) { c.Clients[1].ID = "reader" }, `clients[1].id: "reader" is the id of another`},
		{"AS-CC-01 no secret", func(c *authserver.Config) { c.Clients[0].Secret = "" }, "clients[0].secret: either"},
		{"a secret and its digest", func(c *authserver.Config) { c.Clients[0].SecretSHA256 = strings.Repeat("0", 64) }, "clients[0].secret: either"},
		{"a short secret", func(c *authserver.Config) { c.Clients[0].Secret = "fifteen letters" }, "clients[0].secret: has fewer than 16"},
		{"a secret that is not ASCII", func(c *authserver.Config) { c.Clients[0].Secret = strings.Repeat("é", 16) }, "clients[0].secret: "},
		{"a digest that is short", func(c *authserver.Config) { c.Clients[0].Secret, c.Clients[0].SecretSHA256 = "", "00" }, "clients[0].secret_sha256: is not 64"},
		{"a digest that is not hexadecimal", func(c *authserver.Config) {
			c.Clients[0].Secret, c.Clients[0].SecretSHA256 = "", strings.Repeat("x", 64)
		}, "clients[0].secret_sha256: is not 64"},
		{"a client's scope that no API has", func(c *authserver.Config) { c.Clients[0].Scopes = []string{"admin"} }, `clients[0].scopes: no API has "admin"`},
		{"a default that is no API", func(c *authserver.Config) { c.Clients[0].DefaultAPI = "x" }, `clients[0].default_api: "x"`},
		{"a default the client has no scope of", func(c *authserver.Config) { c.Clients[0].DefaultAPI = files }, "clients[0].default_api: "},
		{"introspection for no API", func(c *authserver.Config) { c.Clients[0].Introspects = []string{"x"} }, `clients[0].introspects: "x"`},
		{"a client that could do nothing", func(c *authserver.Config) { c.Clients[0].Scopes = nil }, "clients[0]: has neither"},
		{"a negative bound", func(c *authserver.Config) { c.MaxTokens = -1 }, "max_tokens: is negative"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config("https://as.example.com")
			c.change(&cfg)
			_, err := authserver.New(cfg)
			require.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), "demo-secret")
		})
	}
	t.Run("all of them at once", func(t *testing.T) {
		cfg := config("")
		cfg.APIs[0].Algorithm = "none"
		cfg.Clients[3].Secret = ""
		_, err := authserver.New(cfg)
		require.ErrorContains(t, err, "issuer: ")
		require.ErrorContains(t, err, "apis[0].algorithm: ")
		require.ErrorContains(t, err, "clients[3].secret: ")
	})
	for _, issuer := range []string{"https://as.example.com", "https://as.example.com/", "https://as.example.com/a/b", "http://localhost:1", "http://[::1]:1", "http://127.1.2.3"} {
		t.Run("no mistake in "+issuer, func(t *testing.T) {
			_, err := authserver.New(config(issuer))
			require.NoError(t, err)
		})
	}
	t.Run("http beyond loopback is allowed by name only", func(t *testing.T) {
		cfg := config("http://as.example.com")
		cfg.InsecureHTTP = true
		_, err := authserver.New(cfg)
		require.NoError(t, err)
	})
}

func TestLoadConfig(t *testing.T) {
	demo, err := os.ReadFile("testdata/demo.yaml")
	require.NoError(t, err)
	change := func(old, new string) string {
		require.Contains(t, string(demo), old)
		return strings.Replace(string(demo), old, new, 1)
	}
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", "", []string{"issuer: is required", "apis: at least one", "clients: at least one"}},
		{"what is not YAML", "issuer: [", []string{"read the configuration: yaml: line 1"}},
		{"a list", "- issuer", []string{"line 1: cannot unmarshal"}},
		{"an unknown field", change("issuer:", "issuers:"), []string{"line 2: field issuers not found", "issuer: is required"}},
		{"an unknown field inside", change("    name:", "    nam:"), []string{"line 6: field nam not found"}},
		{"a field of the code", change("issuer:", "logger: x\nissuer:"), []string{"line 2: field logger not found"}},
		{"a field twice", change("issuer:", "issuer: http://127.0.0.1\nissuer:"), []string{`line 3: mapping key "issuer" already defined at line 2`}},
		{"a wrong type", change("[orders:read]", "{a: b}"), []string{"line 14: cannot unmarshal"}},
		{"mistakes of all kinds at once", change("    name:", "    algorithm: none\n    nam:"), []string{"line 7: field nam", `apis[0].algorithm: "none"`}},
		{"a lifetime without a unit", change("    name:", "    lifetime: 600\n    name:"), []string{"line 6: cannot unmarshal"}},
		{"two documents", string(demo) + "\n---\nissuer: x\n", []string{"more than one YAML document"}},
		{"a megabyte", string(demo) + strings.Repeat("#", 1<<20), []string{"longer than 1048576 bytes"}},
	} {
		t.Run("refuses "+c.name, func(t *testing.T) {
			cfg, err := authserver.LoadConfig(strings.NewReader(c.text))
			require.Error(t, err)
			for _, want := range c.want {
				assert.ErrorContains(t, err, want)
			}
			assert.Equal(t, authserver.Config{}, cfg)
			assert.NotContains(t, err.Error(), "demo-secret")
		})
	}
	t.Run("refuses what cannot be read", func(t *testing.T) {
		broken := errors.New("broken disk")
		_, err := authserver.LoadConfig(iotest.ErrReader(broken))
		require.ErrorIs(t, err, broken)
	})
	t.Run("reads the demo", func(t *testing.T) {
		cfg, err := authserver.LoadConfig(strings.NewReader(string(demo)))
		require.NoError(t, err)
		assert.Equal(t, authserver.Demo(), cfg)
	})
	t.Run("reads every field", func(t *testing.T) {
		digest := sha256.Sum256([]byte("demo-secret-of-files-api"))
		cfg, err := authserver.LoadConfig(strings.NewReader(`
issuer: http://as.example.com
insecure_http: true
max_tokens: 5
apis:
  - {audience: "https://files.example.com", name: Files, scopes: {"files:read": See files}, tokens: opaque, algorithm: RS256, lifetime: 1m30s}
clients:
  - {id: a, secret_sha256: ` + hex.EncodeToString(digest[:]) + `, scopes: ["files:read"], default_api: "https://files.example.com", introspects: ["https://files.example.com"]}
`))
		require.NoError(t, err)
		assert.Equal(t, authserver.Config{
			Issuer: "http://as.example.com", InsecureHTTP: true, MaxTokens: 5,
			APIs: []authserver.API{{
				Audience: files, Name: "Files", Scopes: map[string]string{"files:read": "See files"},
				Tokens: authserver.Opaque, Algorithm: "RS256", Lifetime: 90 * time.Second,
			}},
			Clients: []authserver.Client{{
				ID: "a", SecretSHA256: hex.EncodeToString(digest[:]), Scopes: []string{"files:read"}, DefaultAPI: files, Introspects: []string{files},
			}},
		}, cfg)
	})
	t.Run("a digest stands for its secret", func(t *testing.T) {
		digest := sha256.Sum256([]byte("demo-secret-of-reader"))
		s := start(t, "", func(c *authserver.Config) {
			c.Clients[0].Secret, c.Clients[0].SecretSHA256 = "", hex.EncodeToString(digest[:])
		})
		assert.NotEmpty(t, s.token(t, "reader", "").AccessToken)
	})
}
