package proxy_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestRoutesWithRulesOnClaims(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	p, err := load(t, `listen: 127.0.0.1:0
upstream: http://127.0.0.1:9
resource: `+valetkeytest.DefaultAudience+`
verifiers: [jwks: {issuer: "`+iss.URL+`"}]
routes:
  "GET /tenants/{tenant}/": {scopes: orders:read, claims: "tenant_id = {tenant}"}
  "GET /groups/{group}": {claims: ["groups ~= {group}", email_verified = true]}
  "GET /braces": {scopes: "@any", claims: "note = {"}
`, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(p.Close)
	claims := []valetkeytest.Option{
		valetkeytest.Scopes("orders:read"), valetkeytest.Claim("tenant_id", "t1"), valetkeytest.Claim("groups", []string{"ops"}),
		valetkeytest.Claim("email_verified", true), valetkeytest.Claim("note", "{"),
	}
	with := func(more ...valetkeytest.Option) string { return iss.Token(append(slices.Clone(claims), more...)...) }
	for _, c := range []struct {
		name, path, token string
		status            int
	}{
		{"another tenant", "/tenants/t2/", with(), http.StatusForbidden},
		{"its tenant without the scope", "/tenants/t1/", with(valetkeytest.Scopes("x")), http.StatusForbidden},
		{"a token without a tenant", "/tenants/t1/", with(valetkeytest.Claim("tenant_id", nil)), http.StatusForbidden},
		{"another group", "/groups/dev", with(), http.StatusForbidden},
		{"one of two rules", "/groups/ops", with(valetkeytest.Claim("email_verified", false)), http.StatusForbidden},
		{"no token for a row without scopes", "/braces", "", http.StatusUnauthorized},
		{"its tenant", "/tenants/t1/", with(), http.StatusBadGateway}, // the upstream is down
		{"its group", "/groups/ops", with(), http.StatusBadGateway},
		{"a value that is one brace", "/braces", with(), http.StatusBadGateway},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			p.ServeHTTP(w, valetkeytest.Request("GET", c.path, c.token))
			assert.Equal(t, c.status, w.Code)
		})
	}
}

// TestRoutesThatRequireALogin proves that a row can require what middleware.ACR, middleware.MaxAge and rar.Requirement do, with the same
// challenges, at a proxy, an authorizer and in a rehearsal.
func TestRoutesThatRequireALogin(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	rows := `
routes:
  "POST /transfers": {scopes: payments, acr: [phr, phrh], max_age: 5m}
  "GET /login": {scopes: "@any", acr: phr}
  "GET /recent": {max_age: 300s}
  "POST /payments":
    authorization_details:
      type: payment
      actions: [initiate, status]
      locations: https://api.example.com/payments
      datatypes: accounts
      identifier: a1
      privileges: admin
  "GET /own": "@optional"
`
	config, upstream := guarded(t, iss, "")
	config = strings.Replace(config, `routes: {"GET /orders": orders:read}`, rows, 1)
	addr := start(t, config, slog.New(slog.DiscardHandler))
	a, err := loadAuthorizer(t, strings.Replace(strings.Replace(authorizing, "https://as.example.com", iss.URL, 1), `routes: {"GET /orders": "orders:read"}`, rows, 1), drivers)
	require.NoError(t, err)
	t.Cleanup(a.Close)

	ago := func(age time.Duration) valetkeytest.Option {
		return valetkeytest.Claim("auth_time", time.Now().Add(-age).Unix())
	}
	acr := func(value string) valetkeytest.Option { return valetkeytest.Claim("acr", value) }
	payment := func(change func(map[string]any)) valetkeytest.Option {
		d := map[string]any{"type": "payment", "actions": []string{"initiate", "status", "cancel"}, "locations": []string{"https://api.example.com/payments"},
			"datatypes": []string{"accounts"}, "identifier": "a1", "privileges": []string{"admin"}}
		change(d)
		return valetkeytest.Claim("authorization_details", []any{d})
	}
	payments := valetkeytest.Scopes("payments")
	for _, c := range []struct {
		name, line string
		token      string
		status     int
		challenge  string // a part of it
		check      string // that fails in the rehearsal
	}{
		{"no acr", "POST /transfers", iss.Token(payments, ago(0)), 401, `error="insufficient_user_authentication"`, "its user has logged in as required"},
		{"another acr", "POST /transfers", iss.Token(payments, ago(0), acr("pwd")), 401, `acr_values="phr phrh"`, "its user has logged in as required"},
		{"a login that is too old", "POST /transfers", iss.Token(payments, ago(6*time.Minute), acr("phr")), 401, `max_age="300"`, "its user has logged in as required"},
		{"no auth_time", "GET /recent", iss.Token(), 401, `max_age="300"`, "its user has logged in as required"},
		{"too little scope", "POST /transfers", iss.Token(ago(0), acr("phr")), 403, `scope="payments"`, "its scopes are sufficient for the request"},
		{"no acr where any scope is sufficient", "GET /login", iss.Token(), 401, `acr_values="phr"`, "its user has logged in as required"},
		{"no details", "POST /payments", iss.Token(), 403, `error="insufficient_scope"`, "its authorization details are sufficient"},
		{"another type", "POST /payments", iss.Token(payment(func(d map[string]any) { d["type"] = "transfer" })), 403, "", "its authorization details are sufficient"},
		{"an action is missing", "POST /payments", iss.Token(payment(func(d map[string]any) { d["actions"] = []string{"initiate"} })), 403, "", "its authorization details are sufficient"},
		{"another location", "POST /payments", iss.Token(payment(func(d map[string]any) { d["locations"] = []string{"https://api.example.com/x"} })), 403, "", "its authorization details are sufficient"},
		{"no kind of data", "POST /payments", iss.Token(payment(func(d map[string]any) { delete(d, "datatypes") })), 403, "", "its authorization details are sufficient"},
		{"another identifier", "POST /payments", iss.Token(payment(func(d map[string]any) { d["identifier"] = "a2" })), 403, "", "its authorization details are sufficient"},
		{"another privilege", "POST /payments", iss.Token(payment(func(d map[string]any) { d["privileges"] = []string{"read"} })), 403, "", "its authorization details are sufficient"},
		{"details that cannot be read", "POST /payments", iss.Token(valetkeytest.Claim("authorization_details", "payment")), 401, `error="invalid_token"`, "its authorization details are sufficient"},
		{"a bad token where one is optional", "GET /own", iss.Token(valetkeytest.Expired()), 401, `error="invalid_token"`, "it is valid at this time"},

		{"the second acr", "POST /transfers", iss.Token(payments, ago(time.Minute), acr("phrh")), 200, "", ""},
		{"the acr where any scope is sufficient", "GET /login", iss.Token(acr("phr")), 200, "", ""},
		{"a recent login", "GET /recent", iss.Token(ago(time.Minute)), 200, "", ""},
		{"the details", "POST /payments", iss.Token(payment(func(map[string]any) {})), 200, "", ""},
		{"a good token where one is optional", "GET /own", iss.Token(), 200, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			method, path, _ := strings.Cut(c.line, " ")
			bearer := "Authorization: Bearer " + c.token
			for where, res := range map[string]*http.Response{"proxy": send(t, addr, c.line, bearer), "authorizer": asked(t, a.Asked(), method, path, bearer)} {
				assert.Equal(t, c.status, res.StatusCode, where)
				assert.Contains(t, res.Header.Get("WWW-Authenticate"), c.challenge, where)
			}
			got := upstream.take()
			require.Equal(t, c.status == 200, got != nil)
			if got != nil {
				assert.Equal(t, "alice", got.Header.Get("X-Valetkey-Subject"))
			}
			out := rehearse(t, config, proxy.Request{Token: c.token, Method: method, URL: &url.URL{Path: path}})
			assert.Equal(t, c.check, failed(t, out))
			assert.Equal(t, c.status == 200, out.Passed)
		})
	}
	t.Run("no token where one is optional", func(t *testing.T) {
		require.Equal(t, 200, send(t, addr, "GET /own").StatusCode)
		got := upstream.take()
		require.NotNil(t, got)
		assert.Empty(t, got.Header["X-Valetkey-Subject"])
		assert.Equal(t, 200, asked(t, a.Asked(), "GET", "/own").StatusCode)
	})
	t.Run("the requirement as text", func(t *testing.T) {
		for line, want := range map[string]string{
			"POST /transfers": "payments and acr phr or phrh and a login within 5m0s", "GET /login": "acr phr", "GET /recent": "a login within 5m0s",
			"POST /payments": "authorization_details of the type payment", "GET /own": "optional",
		} {
			method, path, _ := strings.Cut(line, " ")
			assert.Equal(t, want, rehearse(t, config, proxy.Request{Token: iss.Token(), Method: method, URL: &url.URL{Path: path}}).Need)
		}
	})
}

// TestRouteWhoseRefusalsAreOnlyReported proves that the mode of one row does not affect others.
func TestRouteWhoseRefusalsAreOnlyReported(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	config, upstream := guarded(t, iss, "")
	config = strings.Replace(config, `routes: {"GET /orders": orders:read}`, `routes:
  "GET /orders": orders:read
  "GET /new": {scopes: orders:read, claims: tier = gold, insecure_report_only: true}
  "GET /any": {scopes: "@any", insecure_report_only: true}
`, 1)
	var log bytes.Buffer
	p, err := load(t, config, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	defer p.Close()
	assert.Contains(t, log.String(), `level=WARN msg="report-only mode of a route: its refusals are reported and not enforced" scope=orders:read rules="tier = gold"`)
	for _, c := range []struct {
		line, token     string
		status          int
		subject, logged string
	}{
		{"GET /orders", "", 401, "", "status=401 reason=no_credentials client"},
		{"GET /orders", iss.Token(), 403, "", "status=403 reason=scope issuer"},
		{"GET /new", "", 200, "", `row="GET /new" status=200 reason=no_credentials report_only=true`},
		{"GET /new", iss.Token(), 200, "alice", `row="GET /new" status=200 reason=claims_forbid report_only=true`},
		{"GET /new", iss.Token(valetkeytest.Claim("tier", "gold")), 200, "alice", `row="GET /new" status=200 reason=scope report_only=true`},
		{"GET /new", iss.Token(valetkeytest.Claim("tier", "gold"), valetkeytest.Scopes("orders:read")), 200, "alice", ""},
		{"GET /any", iss.Token(valetkeytest.Expired()), 200, "", `row="GET /any" status=200 reason=expired report_only=true`},
		{"GET /any", iss.Token(), 200, "alice", ""},
	} {
		log.Reset()
		var header []string
		if c.token != "" {
			header = []string{"Authorization: Bearer " + c.token}
		}
		server := httptest.NewServer(p)
		assert.Equal(t, c.status, send(t, server.Listener.Addr().String(), c.line, header...).StatusCode, c.line)
		server.Close() // waits for the line
		assert.Contains(t, log.String(), c.logged)
		got := upstream.take()
		require.Equal(t, c.status == 200, got != nil, c.line)
		if got != nil {
			assert.Equal(t, c.subject, got.Header.Get("X-Valetkey-Subject"))
			assert.Empty(t, got.Header["Authorization"])
		}
	}
	_, probe := serve(t, config+"probe: 127.0.0.1:0\ndrain: 0s\n")
	state := statusOf(t, probe)
	assert.Equal(t, []string{"GET /any", "GET /new"}, state.ReportOnlyRoutes)
	assert.False(t, state.ReportOnly)
	out := rehearse(t, config, proxy.Request{Token: iss.Token(), URL: &url.URL{Path: "/new"}})
	assert.False(t, out.Passed, "inspect shows the refusal")
	assert.Equal(t, 403, out.Status)
	_, err = load(t, config+"profile: fapi2", slog.New(slog.DiscardHandler))
	assert.Contains(t, strings.Join(mistakes(err), "\n"), `routes["GET /new"].insecure_report_only: cannot be combined with profile: fapi2`)
}
