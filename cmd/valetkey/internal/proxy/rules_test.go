package proxy_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
