package celrules_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/full/celrules"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/schematest"
	"github.com/valetkey/valetkey/valetkeytest"
)

var drivers = driver.Set{CEL: celrules.CEL}

func written(t *testing.T, config string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "proxy.yaml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	return file
}

func TestMistakesHaveFileLineAndColumn(t *testing.T) {
	file := written(t, `listen: 127.0.0.1:0
upstream: http://127.0.0.1:9
resource: https://api.example.com
verifiers:
  - jwks:
      issuer: https://as.example.com
      cel:
        - claims.admin
        - rule: claims.a == now
          message: 'a "quote"'
  - introspection:
      issuer: https://other.example.com
      client_id: x
      client_secret: x
      cel: claims.a ==
routes:
  "GET /a":
    scopes: orders:read
    cel:
      - claims.sub.matches(claims.pattern)
      - |
        claims.a == 1 &&
        claims.b == c
  "GET /b/{tenant}": {cel: claims.tenant_id == path.tennant}
`)
	_, err := proxy.Load(file, drivers, slog.New(slog.DiscardHandler))
	require.Error(t, err)
	want := []string{
		`8: verifiers[0].jwks.cel[0]: is of the type dyn, not bool: compare it, as in claims.admin == true`,
		`9: verifiers[0].jwks.cel[1].rule: column 13: "now" is undefined: a rule on the token has no clock, because its verdict is remembered with the token`,
		`10: verifiers[0].jwks.cel[1].message: contains a quote, a backslash, or a character that is not printable ASCII`,
		`15: verifiers[1].introspection.cel: column 12: Syntax error: mismatched input '<EOF>'`,
		`20: routes["GET /a"].cel[0]: column 26: the pattern of matches is not a literal`,
		`21: routes["GET /a"].cel[1]: line 2 of the rule, column 13: "c" is undefined`,
		`24: routes["GET /b/{tenant}"]: the rule "claims.tenant_id == path.tennant" can never hold: the pattern has no wildcard {tennant}`,
	}
	got := strings.Split(err.Error(), "\n")
	require.Len(t, got, len(want), err)
	for i, line := range got {
		assert.Contains(t, line, file+":"+want[i])
	}
}

func TestTheProfileRefusesRulesOnTheToken(t *testing.T) {
	_, err := proxy.Load(written(t, `listen: 127.0.0.1:0
upstream: http://127.0.0.1:9
resource: https://api.example.com
profile: fapi2
trusted_proxies: [10.0.0.1]
dpop: {}
verifiers:
  - jwks: {issuer: "https://as.example.com", max_lifetime: 5m, cel: claims.a == 1}
routes:
  "GET /a": {cel: claims.a == 1}
`), drivers, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "8: verifiers[0].jwks.cel: cannot be combined with profile: fapi2")
	assert.NotContains(t, err.Error(), "routes")
}

// page is the example of docs/authorization.md with an issuer and an upstream of a test.
func page(t *testing.T, iss *valetkeytest.Issuer, upstream string, change ...string) string {
	t.Helper()
	text, err := os.ReadFile("../../../../examples/cel/proxy.yaml")
	require.NoError(t, err)
	schema, err := proxy.Schema()
	require.NoError(t, err)
	require.NoError(t, schematest.Check(schema, string(text)))
	return strings.NewReplacer(append(change, "127.0.0.1:8081", "127.0.0.1:0", "http://127.0.0.1:9000", upstream, "https://as.example.com", iss.URL)...).Replace(string(text))
}

// tokens returns a function that issues tokens which meet all rules, except for what the options change.
func tokens(iss *valetkeytest.Issuer) func(...valetkeytest.Option) string {
	return func(change ...valetkeytest.Option) string {
		return iss.Token(append([]valetkeytest.Option{
			valetkeytest.Scopes("orders:read", "orders:write"), valetkeytest.ExpiresIn(10 * time.Minute), valetkeytest.Claim("tenant_id", "t1"),
			valetkeytest.Claim("groups", []string{"clerks"}), valetkeytest.Claim("auth_time", iss.Now().Unix()),
		}, change...)...)
	}
}

func TestTheGuideHasTheExample(t *testing.T) {
	guide, err := os.ReadFile("../../../../docs/authorization.md")
	require.NoError(t, err)
	example, err := os.ReadFile("../../../../examples/cel/proxy.yaml")
	require.NoError(t, err)
	assert.Contains(t, string(guide), "<!-- examples/cel/proxy.yaml -->\n```yaml\n"+string(example)+"```\n")
}

func TestProxy(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(upstream.Close)
	file := written(t, page(t, iss, upstream.URL))
	service, err := proxy.Open(file, drivers, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(service.Close)
	token := tokens(iss)
	unverified := []valetkeytest.Option{valetkeytest.Claim("email", "a@example.com"), valetkeytest.Claim("email_verified", "yes-secret")}
	ask := func(method, path, token string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		service.ServeHTTP(w, valetkeytest.Request(method, path, token))
		return w
	}
	for _, c := range []struct {
		name, method, path, token string
		status                    int
		description               string
	}{
		{"a token that lives too long", "GET", "/tenants/t1/orders", token(valetkeytest.ExpiresIn(time.Hour)), 401,
			"the claims of the token do not meet the rules of this API"},
		{"an email address that is not verified", "GET", "/tenants/t1/orders", token(unverified...), 401, "the email address is not verified"},
		{"another tenant", "GET", "/tenants/t2/orders", token(), 403, ""},
		{"another tenant by a rule in CEL", "DELETE", "/tenants/t2/orders/1", token(), 403, ""},
		{"an old login", "DELETE", "/tenants/t1/orders/1", token(valetkeytest.Claim("auth_time", iss.Now().Unix()-901)), 403, ""},
		{"a login without a time", "DELETE", "/tenants/t1/orders/1", token(valetkeytest.Claim("auth_time", nil)), 403, ""},
		{"too little scope", "DELETE", "/tenants/t1/orders/1", token(valetkeytest.Scopes("orders:read")), 403, "the token lacks a scope that this request needs"},
		{"its own tenant", "GET", "/tenants/t1/orders", token(), 200, ""},
		{"a deletion", "DELETE", "/tenants/t1/orders/1", token(), 200, ""},
		{"a deletion by an operator", "DELETE", "/tenants/t2/orders/1", token(valetkeytest.Claim("groups", []string{"operators"})), 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // the second time from the cache
				w := ask(c.method, c.path, c.token)
				assert.Equal(t, c.status, w.Code)
				if c.description != "" {
					assert.Equal(t, c.description, valetkeytest.Challenge(t, w.Header(), "Bearer")["error_description"])
				}
				assert.NotContains(t, w.Body.String(), "secret")
			}
		})
	}
	t.Run("the message of a rule on the access is in the body", func(t *testing.T) {
		w := ask("DELETE", "/tenants/t1/orders/1", token(valetkeytest.Claim("auth_time", 1)))
		assert.Contains(t, w.Body.String(), "the login is too old for a deletion")
	})
	t.Run("a reload with another rule applies to tokens that are remembered", func(t *testing.T) {
		known := token()
		require.Equal(t, 200, ask("GET", "/tenants/t1/orders", known).Code)
		require.NoError(t, os.WriteFile(file, []byte(page(t, iss, upstream.URL, "claims.exp - claims.iat <= 600", "claims.exp - claims.iat < 600")), 0o600))
		require.NoError(t, service.Reload(t.Context()))
		assert.Equal(t, 401, ask("GET", "/tenants/t1/orders", known).Code)
	})
}

func TestOpaqueTokensMustMeetTheRules(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	file := written(t, `listen: 127.0.0.1:0
upstream: http://127.0.0.1:9
resource: `+valetkeytest.DefaultAudience+`
verifiers:
  - introspection:
      issuer: `+iss.URL+`
      client_id: `+valetkeytest.IntrospectionID+`
      client_secret: `+valetkeytest.IntrospectionSecret+`
      cel: {rule: claims.tenant_id == "t1", message: another tenant}
routes: {"GET /": "@any"}
`)
	for tenant, passed := range map[string]bool{"t1": true, "t2": false} {
		out, err := proxy.Rehearse(t.Context(), file, proxy.Request{Token: iss.Opaque(valetkeytest.Claim("tenant_id", tenant))}, drivers, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		assert.Equal(t, passed, out.Passed, tenant)
		if !passed {
			assert.Equal(t, "another tenant", out.Refusal.Reason.Description())
			verdicts := map[string]proxy.Verdict{}
			for _, c := range out.Checks {
				verdicts[c.Name] = c.Verdict
			}
			assert.Equal(t, proxy.Failed, verdicts["its claims are accepted here"], out.Checks)
		}
	}
}

func TestInspectShowsTheRuleThatRefused(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	file := written(t, page(t, iss, "http://127.0.0.1:9"))
	token := tokens(iss)
	code, out, errs := clitest.Run(t, drivers, "", "inspect", "--config", file, "--request", "GET /tenants/t1/orders", token(valetkeytest.ExpiresIn(time.Hour)))
	assert.Equal(t, cli.No, code, errs)
	assert.Contains(t, out, `the rule "claims.exp - claims.iat <= 600" does not hold`)
	assert.Regexp(t, `NO +its client and claims are accepted here`, out)

	code, out, errs = clitest.Run(t, drivers, "", "inspect", "--config", file, "--request", "DELETE /tenants/t1/orders/1", token(valetkeytest.Claim("auth_time", 1)))
	assert.Equal(t, cli.No, code, errs)
	assert.Contains(t, out, `the rule "has(claims.auth_time) && now - timestamp(claims.auth_time) < duration(\"15m\")" does not hold`)
	assert.Regexp(t, `NO +its claims allow the request`, out)
	assert.Contains(t, out, `decided by "DELETE /tenants/{tenant}/orders/{order}": orders:write and claims.tenant_id == path.tenant || "operators" in claims.groups && has(`)

	code, out, errs = clitest.Run(t, driver.Set{}, "", "inspect", "--config", file, token())
	assert.NotEqual(t, 0, code, out)
	assert.Contains(t, errs, "CEL is not part of this build of valetkey")
}

func TestAuthorize(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	config := page(t, iss, "", "listen: 127.0.0.1:8081", "listen_http: 127.0.0.1:0\ncallers: [127.0.0.1]\ndialect: caddy", "upstream: http://127.0.0.1:9000\n", "")
	log, stop := clitest.Background(t, drivers, "authorize", "--config", written(t, config))
	addr := log.Wait(t, `listening on ([0-9.:]+)`)[1]
	token := tokens(iss)()
	for path, want := range map[string]int{"/tenants/t2/orders/1": 403, "/tenants/t1/orders/1": 200} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr, nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("X-Forwarded-Method", "DELETE")
		r.Header.Set("X-Forwarded-Uri", path)
		r.Header.Set("X-Forwarded-Host", "api.example.com")
		r.Header.Set("X-Forwarded-Proto", "https")
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, want, resp.StatusCode, path)
	}
	stop()
}
