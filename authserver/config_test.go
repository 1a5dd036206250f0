package authserver_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/login"
)

func TestConfigMistakes(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*authserver.Config)
		want   string
	}{
		{"AS-META-02 no issuer", func(c *authserver.Config) { c.Issuer = "" }, "Issuer: is required"},
		{"AS-META-02 an issuer that is not a URL", func(c *authserver.Config) { c.Issuer = "as.example.com" }, "Issuer: is not an https URL"},
		{"AS-META-02 an issuer of another scheme", func(c *authserver.Config) { c.Issuer = "ftp://as.example.com" }, "Issuer: is not an https URL"},
		{"AS-META-02 an issuer with a query", func(c *authserver.Config) { c.Issuer = "https://as.example.com?" }, "Issuer: has a query"},
		{"AS-META-02 an issuer with a fragment", func(c *authserver.Config) { c.Issuer = "https://as.example.com#" }, "Issuer: has a query, a fragment"},
		{"an issuer with a user", func(c *authserver.Config) { c.Issuer = "https://a@as.example.com" }, "Issuer: has a query, a fragment or a user"},
		{"an issuer whose path is a pattern", func(c *authserver.Config) { c.Issuer = "https://as.example.com/{a}" }, "Issuer: has a path with unusual"},
		{"an issuer whose path climbs", func(c *authserver.Config) { c.Issuer = "https://as.example.com/a/../b" }, "Issuer: has a path with unusual"},
		{"an issuer with two slashes", func(c *authserver.Config) { c.Issuer = "https://as.example.com//" }, "Issuer: has a path with unusual"},
		{"AS-META-02 http beyond loopback", func(c *authserver.Config) { c.Issuer = "http://as.example.com" }, "Issuer: is http and not on loopback"},
		{"http on a host that only looks like loopback", func(c *authserver.Config) { c.Issuer = "http://127.0.0.1.example.com" }, "Issuer: is http and not on loopback"},
		{"no API", func(c *authserver.Config) { c.APIs = nil }, "APIs: at least one"},
		{"no audience", func(c *authserver.Config) { c.APIs[1].Audience = "" }, "APIs[1].Audience: is required"},
		{"a relative audience", func(c *authserver.Config) { c.APIs[1].Audience = "files" }, "APIs[1].Audience: \"files\" is not an absolute URI"},
		{"an audience with a fragment", func(c *authserver.Config) { c.APIs[1].Audience = "https://a#b" }, "APIs[1].Audience: "},
		{"an audience that differs in the slash of an origin", func(c *authserver.Config) { c.APIs[0].Audience, c.APIs[1].Audience = "https://a", "https://a/" }, "APIs[1].Audience: \"https://a/\" is also the audience of another"},
		{"AT-22 one audience twice", func(c *authserver.Config) { c.APIs[1].Audience = orders }, "APIs[1].Audience: \"" + orders + "\" is also the audience of another"},
		{"no scope", func(c *authserver.Config) { c.APIs[2].Scopes = nil }, "APIs[2].Scopes: at least one"},
		{"a scope of two words", func(c *authserver.Config) { c.APIs[0].Scopes[0].Name = "a b" }, `APIs[0].Scopes: scope "a b"`},
		{"the scope openid", func(c *authserver.Config) { c.APIs[0].Scopes[0].Name = "openid" }, "APIs[0].Scopes: openid"},
		{"open registration of clients that need no user", func(c *authserver.Config) {
			c.Registration = authserver.Registration{Open: true, GrantTypes: []string{"authorization_code", "client_credentials"}}
		}, `Registration.GrantTypes[1]: "client_credentials" requires no consent of a user, so it can be registered only with one of registration.initial_tokens`},
		{"an issuer of statements without keys", func(c *authserver.Config) {
			c.Registration.StatementIssuers = []authserver.StatementIssuer{{JWKS: "{}"}}
		}, "Registration.StatementIssuers[0].Issuer: is required"},
		{"a type of details twice", func(c *authserver.Config) {
			c.APIs[0].DetailTypes = []authserver.DetailType{{Name: "a"}, {Name: "a"}}
		}, `APIs[0].DetailTypes: "a" is given twice`},
		{"a type of details without a name", func(c *authserver.Config) { c.APIs[0].DetailTypes = []authserver.DetailType{{}} }, "APIs[0].DetailTypes: the name of a type"},
		{"an invalid default API", func(c *authserver.Config) { c.DefaultAPI = "https://none.example" }, "DefaultAPI: is not the audience of an API"},
		{"an exchange for a scope of two APIs", func(c *authserver.Config) {
			c.APIs[2].Scopes[0].Name = "files:read"
			c.Clients[2].Scopes = nil
			c.APIs[0].Exchange = map[string][]string{"orders:read": {"files:read"}}
		}, `APIs[0].Exchange["orders:read"][0]: "files:read" is a scope of several APIs`},
		{"a scope twice", func(c *authserver.Config) { c.APIs[0].Scopes[1].Name = "orders:read" }, `APIs[0].Scopes: "orders:read" is given twice`},
		{"a translation into no language", func(c *authserver.Config) {
			c.APIs[0].Scopes[1].Descriptions = map[string]string{"de": "x", "Deutsch!": "x"}
		}, `APIs[0].Scopes["orders:write"].Descriptions["Deutsch!"]: is not the tag`},
		{"a logo that is not an image", func(c *authserver.Config) { c.Logo = []byte("logo.svg") }, "Logo: must be an image"},
		{"a link that is a script", func(c *authserver.Config) { c.Links.Imprint = "javascript:alert(1)" }, "Links.Imprint: must be an https URL"},
		{"an accent that cannot be read", func(c *authserver.Config) { c.Accent = "#ffcc00" }, "Accent: must be darker: white text on it is not readable"},
		{"an unknown format", func(c *authserver.Config) { c.APIs[0].Tokens = "JWT" }, `APIs[0].Tokens: "JWT", want jwt or opaque`},
		{"an unknown algorithm", func(c *authserver.Config) { c.APIs[0].Algorithm = "none" }, `APIs[0].Algorithm: "none", want ES256`},
		{"a negative lifetime", func(c *authserver.Config) { c.APIs[0].Lifetime = -time.Second }, "APIs[0].Lifetime: -1s"},
		{"a lifetime of nanoseconds", func(c *authserver.Config) { c.APIs[0].Lifetime = 600 }, "APIs[0].Lifetime: 600ns"},
		{"a lifetime of days", func(c *authserver.Config) { c.APIs[0].Lifetime = 25 * time.Hour }, "APIs[0].Lifetime: 25h"},
		{"no client id", func(c *authserver.Config) { c.Clients[0].ID = "" }, "Clients[0].ID: 1 to 512 printable"},
		{"a client id that is not ASCII", func(c *authserver.Config) { c.Clients[0].ID = "é" }, "Clients[0].ID: 1 to 512 printable"},
		{"one client id twice", func(c *authserver.Config) { c.Clients[1].ID = "reader" }, `Clients[1].ID: "reader" is also the id of another`},
		{"AS-CC-01 no secret", func(c *authserver.Config) { c.Clients[0].Secret = "" }, "Clients[0].Secret: either"},
		{"a secret and its digest", func(c *authserver.Config) { c.Clients[0].SecretSHA256 = strings.Repeat("0", 64) }, "Clients[0].Secret: either"},
		{"a short secret", func(c *authserver.Config) { c.Clients[0].Secret = "fifteen letters" }, "Clients[0].Secret: must have at least 16"},
		{"a secret that is not ASCII", func(c *authserver.Config) { c.Clients[0].Secret = strings.Repeat("é", 16) }, "Clients[0].Secret: "},
		{"a digest that is short", func(c *authserver.Config) { c.Clients[0].Secret, c.Clients[0].SecretSHA256 = "", "00" }, "Clients[0].SecretSHA256: is not 64"},
		{"a digest that is not hexadecimal", func(c *authserver.Config) {
			c.Clients[0].Secret, c.Clients[0].SecretSHA256 = "", strings.Repeat("x", 64)
		}, "Clients[0].SecretSHA256: is not 64"},
		{"a receiver of signals that are off", func(c *authserver.Config) { c.Clients[0].Scopes = []string{"ssf.manage"} }, "Clients[0].Scopes[0]: ssf.manage requires signals"},
		{"a client's scope that no API has", func(c *authserver.Config) { c.Clients[0].Scopes = []string{"admin"} }, "Clients[0].Scopes[0]: is not a scope of any API"},
		{"a default that is not an API", func(c *authserver.Config) { c.Clients[0].DefaultAPI = "x" }, "Clients[0].DefaultAPI: is not the audience of an API"},
		{"a default the client has no scope of", func(c *authserver.Config) { c.Clients[0].DefaultAPI = files }, "Clients[0].DefaultAPI: "},
		{"introspection for no API", func(c *authserver.Config) { c.Clients[0].Introspects = []string{"x"} }, "Clients[0].Introspects[0]: is not the audience"},
		{"a client that could do nothing", func(c *authserver.Config) { c.Clients[0].Scopes = nil }, "Clients[0]: has neither"},
		{"a private-use scheme that runs scripts", func(c *authserver.Config) { c.PrivateUseSchemes = []string{"cursor", "javascript"} }, "PrivateUseSchemes[1]: is a scheme that browsers handle"},
		{"a private-use redirect URI that is not accepted", func(c *authserver.Config) { c.Clients[0].RedirectURIs = []string{"cursor://oauth/cb"} }, "Clients[0].RedirectURIs[0]: has a scheme"},
		{"a host of documents with a scheme", func(c *authserver.Config) { c.ClientDocuments.Hosts = []string{"https://app.example.com"} }, "ClientDocuments.Hosts[0]: is not a host name"},
		{"a host of documents with a port", func(c *authserver.Config) {
			c.ClientDocuments.Hosts = []string{"app.example.com", "app.example.com:8443"}
		}, "ClientDocuments.Hosts[1]: is not a host name"},
		{"a host of documents in upper case", func(c *authserver.Config) { c.ClientDocuments.Hosts = []string{"App.example.com"} }, "ClientDocuments.Hosts[0]: is not a host name"},
		{"hosts of documents that are not enabled", func(c *authserver.Config) { c.ClientDocuments.Hosts = []string{"app.example.com"} }, "ClientDocuments.Enabled: is required"},
		{"authorities that are not in PEM", func(c *authserver.Config) { c.ClientCertificate, c.ClientAuthorities = "tls", "MII" }, "ClientAuthorities: has no certificate in PEM"},
		{"authorities without certificates", func(c *authserver.Config) { c.ClientAuthorities = "MII" }, "ClientAuthorities: requires client_certificate"},
		{"a client of no authority", func(c *authserver.Config) {
			c.Clients[0].Secret, c.Clients[0].AuthMethod, c.Clients[0].TLSSubjectDN = "", "tls_client_auth", "CN=client"
		}, `ClientAuthorities: is required by tls_client_auth of client "reader"`},
		{"an invalid distinguished name", func(c *authserver.Config) { c.Clients[0].TLSSubjectDN = "client" }, "Clients[0].TLSSubjectDN: is not a distinguished name"},
		{"aliases in clear text", func(c *authserver.Config) { c.ClientCertificate, c.MTLSURL = "tls", "http://mtls.example.com" }, "MTLSURL: is not an https URL"},
		{"aliases without certificates", func(c *authserver.Config) { c.MTLSURL = "https://mtls.example.com" }, "MTLSURL: requires client_certificate"},
		{"an issuer of unknown grants", func(c *authserver.Config) {
			c.TrustedIssuers = []authserver.TrustedIssuer{{Issuer: "https://idp.example.com", JWKSURL: "https://idp.example.com/keys", SubjectType: "employee", Scopes: []string{"orders:read"}, GrantProfile: "saml"}}
		}, `TrustedIssuers[0].GrantProfile: "saml", want id-jag`},
		{"a negative bound", func(c *authserver.Config) { c.MaxTokens = -1 }, "MaxTokens: is negative"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config("https://as.example.com")
			c.change(&cfg)
			_, err := authserver.New(t.Context(), cfg)
			require.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), "test-secret")
		})
	}
	t.Run("all of them at once", func(t *testing.T) {
		cfg := config("")
		cfg.APIs[0].Algorithm = "none"
		cfg.Clients[3].Secret = ""
		_, err := authserver.New(t.Context(), cfg)
		require.ErrorContains(t, err, "Issuer: ")
		require.ErrorContains(t, err, "APIs[0].Algorithm: ")
		require.ErrorContains(t, err, "Clients[3].Secret: ")
	})
	for _, issuer := range []string{"https://as.example.com", "https://as.example.com/", "https://as.example.com/a/b", "http://localhost:1", "http://[::1]:1", "http://127.1.2.3"} {
		t.Run("no mistake in "+issuer, func(t *testing.T) {
			_, err := authserver.New(t.Context(), config(issuer))
			require.NoError(t, err)
		})
	}
	t.Run("a private-use scheme is allowed by name only", func(t *testing.T) {
		cfg := config("https://as.example.com")
		cfg.PrivateUseSchemes, cfg.Clients[0].RedirectURIs = []string{"cursor"}, []string{"cursor://oauth/cb"}
		_, err := authserver.New(t.Context(), cfg)
		require.NoError(t, err)
	})
	t.Run("http beyond loopback is allowed by name only", func(t *testing.T) {
		cfg := config("http://as.example.com")
		cfg.InsecureHTTP = true
		_, err := authserver.New(t.Context(), cfg)
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
		{"nothing", "", []string{"line 1: issuer: is required", "line 1: apis: at least one"}},
		{"what is not YAML", "issuer: [", []string{"read the configuration: yaml: line 1"}},
		{"a list", "- issuer", []string{"line 1: is not a mapping"}},
		{"an unknown field", change("issuer:", "issuers:"), []string{"line 2: unknown field \"issuers\"; did you mean issuer?", "line 2: issuer: is required"}},
		{"an unknown field inside", change("    name:", "    nam:"), []string{"line 6: apis[0]: unknown field \"nam\"; did you mean name?"}},
		{"a field of the code", change("issuer:", "logger: x\nissuer:"), []string{`line 2: unknown field "logger"`}},
		{"a field twice", change("issuer:", "issuer: http://127.0.0.1\nissuer:"), []string{`line 3: "issuer" is given on line 2 already`}},
		{"a wrong type", change("[orders:read]", "{a: b}"), []string{"read the configuration: line 19: clients[0].scopes: is not a list"}},
		{"mistakes of all kinds at once", change("    name:", "    algorithm: none\n    nam:"), []string{`line 7: apis[0]: unknown field "nam"`, `line 6: apis[0].algorithm: "none"`}},
		{"a lifetime without a unit", change("    name:", "    lifetime: 600\n    name:"), []string{`line 6: apis[0].lifetime: "600" is not a duration such as 30s`}},
		{"two documents", string(demo) + "\n---\nissuer: x\n", []string{"more than one YAML document"}},
		{"a megabyte", string(demo) + strings.Repeat("#", 1<<20), []string{"longer than 1048576 bytes"}},
	} {
		t.Run("refuses "+c.name, func(t *testing.T) {
			cfg, err := authserver.LoadConfig("", strings.NewReader(c.text))
			require.Error(t, err)
			for _, want := range c.want {
				assert.ErrorContains(t, err, want)
			}
			assert.Equal(t, authserver.Config{}, cfg)
			assert.NotContains(t, err.Error(), "test-secret")
		})
	}
	t.Run("refuses what cannot be read", func(t *testing.T) {
		broken := errors.New("broken disk")
		_, err := authserver.LoadConfig("", iotest.ErrReader(broken))
		require.ErrorIs(t, err, broken)
	})
	t.Run("reads the demo", func(t *testing.T) {
		cfg, err := authserver.LoadConfig("", strings.NewReader(string(demo)))
		require.NoError(t, err)
		assert.Equal(t, authserver.Demo(), cfg)
	})
	t.Run("reads every field", func(t *testing.T) {
		digest := strings.Repeat("0a", 32)
		cfg, err := authserver.LoadConfig("as.yaml", strings.NewReader(`
issuer: http://as.example.com
insecure_http: true
insecure_unsealed: true
max_tokens: 5
name: Example
accent: "#0b6b62"
client_certificate: tls
require_pushed_authorization_requests: true
proxies: [10.0.0.0/8]
paths: {authorize: /a, token: /t, device: /d, par: /p, introspect: /i, revoke: /v, register: /r, keys: /k}
apis:
  - {audience: "https://files.example.com", name: Files, scopes: {"files:read": See files}, tokens: opaque, algorithm: EdDSA, lifetime: 1m30s,
     profile: user, try_url: "https://files.example.com/x", exchange: {"files:read": ["files:read"]}, may_act: a}
clients:
  - {id: a, secret_sha256: `+digest+`, scopes: ["files:read"], default_api: "https://files.example.com", introspects: ["https://files.example.com"]}
  - {id: b, token_endpoint_auth_method: private_key_jwt, token_endpoint_auth_signing_alg: ES256, jwks_uri: "https://b.example.com/keys",
     name: B, uri: "https://b.example.com", native: true, redirect_uris: ["com.example.b:/cb"], grant_types: [authorization_code],
     scopes: ["files:read"], trusted: true, without_pkce: true, require_pushed_authorization_requests: true,
     dpop_bound_access_tokens: true, tls_client_certificate_bound_access_tokens: true, lifetime: 1h}
users: [{name: alice, type: customer, password: correct horse, id: "1", display: Alice, scopes: []}]
portal: {developers: [customer], services: [customer]}
registration: {open: true, unused_for: -1s, scopes: ["files:read"], grant_types: [authorization_code],
  initial_tokens: [{name: n, sha256: `+digest+`, uses: 2, expires: 2030-01-01T00:00:00Z}]}
trusted_issuers: [{issuer: "https://p.example.com", jwks_uri: "https://p.example.com/keys", subject_type: partner, scopes: ["files:read"]}]
legacy: {implicit: true, password: true}
lifetimes: {code: 1s, interaction: 2s, pushed: 3s, device: 4s, refresh: 5s, refresh_grace: 6s, session: 7s}
keys: {rotate: 1h, publish: 1m}
limits: {login_name: {burst: 1, every: 1s}, login_address: {burst: 2, every: 1s}, client_secret: {burst: 3, every: 1s},
  device_code: {burst: 4, every: 1s}, register: {burst: 5, every: 1s}, pushes: {burst: 6, every: 1s}}
`))
		require.NoError(t, err)
		files, rate := []string{"files:read"}, func(burst int) login.Rate { return login.Rate{Burst: burst, Every: time.Second} }
		assert.Equal(t, authserver.Config{
			Issuer: "http://as.example.com", InsecureHTTP: true, InsecureUnsealed: true, MaxTokens: 5, Name: "Example", Accent: "#0b6b62",
			ClientCertificate: "tls", RequirePAR: true, Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			Paths: authserver.Paths{Authorize: "/a", Token: "/t", Device: "/d", PAR: "/p", Introspect: "/i", Revoke: "/v", Register: "/r", Keys: "/k"},
			APIs: []authserver.API{{
				Audience: "https://files.example.com", Name: "Files", Scopes: []authserver.Scope{{Name: "files:read", Description: "See files"}}, Tokens: authserver.Opaque,
				Algorithm: "EdDSA", Lifetime: 90 * time.Second, Profile: "user", TryURL: "https://files.example.com/x",
				Exchange: map[string][]string{"files:read": files}, MayAct: "a",
			}},
			Clients: []authserver.Client{
				{ID: "a", SecretSHA256: digest, Scopes: files, DefaultAPI: "https://files.example.com", Introspects: []string{"https://files.example.com"}},
				{ID: "b", AuthMethod: "private_key_jwt", AssertionAlg: "ES256", JWKSURL: "https://b.example.com/keys", Name: "B",
					URI: "https://b.example.com", Native: true, RedirectURIs: []string{"com.example.b:/cb"}, GrantTypes: []string{"authorization_code"},
					Scopes: files, Trusted: true, WithoutPKCE: true, RequirePAR: true, DPoPBound: true, CertBound: true, Lifetime: time.Hour},
			},
			Users:  []authserver.User{{Name: "alice", Type: "customer", Password: "correct horse", ID: "1", Display: "Alice", Scopes: []string{}}},
			Portal: authserver.Portal{Developers: []string{"customer"}, Services: []string{"customer"}},
			Registration: authserver.Registration{Open: true, UnusedFor: -time.Second, Scopes: files, GrantTypes: []string{"authorization_code"},
				InitialTokens: []authserver.InitialToken{{Name: "n", SHA256: digest, Uses: 2, Expires: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}}},
			TrustedIssuers: []authserver.TrustedIssuer{{Issuer: "https://p.example.com", JWKSURL: "https://p.example.com/keys", SubjectType: "partner", Scopes: files}},
			Legacy:         authserver.Legacy{Implicit: true, Password: true},
			Lifetimes: authserver.Lifetimes{Code: 1 * time.Second, Interaction: 2 * time.Second, Pushed: 3 * time.Second, Device: 4 * time.Second,
				Refresh: 5 * time.Second, RefreshGrace: 6 * time.Second, Session: 7 * time.Second},
			Keys: authserver.Keys{Rotate: time.Hour, Publish: time.Minute},
			Limits: authserver.Limits{LoginName: rate(1), LoginAddress: rate(2), ClientSecret: rate(3), DeviceCode: rate(4),
				Register: rate(5), Pushes: rate(6)},
		}, cfg)
		_, err = authserver.New(t.Context(), cfg)
		require.NoError(t, err)
	})
	t.Run("a mistake names file and line", func(t *testing.T) {
		_, err := authserver.LoadConfig("as.yaml", strings.NewReader("issuer: x\napis: []\n"))
		require.EqualError(t, err, "authserver: read the configuration: as.yaml:1: issuer: is not an https URL\nas.yaml:2: apis: at least one is required")
		all := valetkey.ConfigErrors(err)
		require.Len(t, all, 2)
		assert.Equal(t, "issuer", all[0].Field)
		assert.Equal(t, "apis", all[1].Field)
	})
	t.Run("a digest stands for its secret", func(t *testing.T) {
		digest := sha256.Sum256([]byte("test-secret-of-reader"))
		s := start(t, "", func(c *authserver.Config) {
			c.Clients[0].Secret, c.Clients[0].SecretSHA256 = "", hex.EncodeToString(digest[:])
		})
		assert.NotEmpty(t, s.token(t, "reader", "").AccessToken)
	})
}
