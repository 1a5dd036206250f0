package authserver_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func get(t testing.TB, url string) answer {
	t.Helper()
	res, err := http.Get(url)
	return read(t, res, err)
}

func TestMetadata(t *testing.T) {
	for _, c := range []struct {
		name, path string
		places     []string
	}{
		{"AS-META-01 an issuer without a path", "", []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"}},
		{"AS-META-01 an issuer that ends in a slash", "/", []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"}},
		{"AS-META-01 an issuer with a path", "/tenants/1", []string{"/.well-known/oauth-authorization-server/tenants/1", "/.well-known/openid-configuration/tenants/1", "/tenants/1/.well-known/openid-configuration"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, c.path)
			root := strings.TrimSuffix(s.url, c.path)
			base := strings.TrimSuffix(s.url, "/")
			first := get(t, root+c.places[0])
			t.Run("AS-META-03 is JSON without empty members but the required one", func(t *testing.T) {
				require.Equal(t, 200, first.status)
				assert.Equal(t, "application/json", first.header.Get("Content-Type"))
				for name, v := range first.body {
					if name != "response_types_supported" {
						assert.NotEmpty(t, v, name)
					}
				}
			})
			t.Run("AS-META-04 names the issuer byte by byte", func(t *testing.T) {
				assert.Equal(t, s.url, first.body["issuer"])
				assert.Equal(t, s.url, s.Issuer())
			})
			t.Run("AS-META-05 names no response types, there being none", func(t *testing.T) {
				assert.Equal(t, []any{}, first.body["response_types_supported"])
				assert.NotContains(t, first.body, "authorization_endpoint")
			})
			t.Run("AS-META-06 offers no signed client authentication", func(t *testing.T) {
				for _, endpoint := range []string{"token", "introspection", "revocation"} {
					assert.Equal(t, []any{"client_secret_basic", "client_secret_post"}, first.body[endpoint+"_endpoint_auth_methods_supported"])
				}
			})
			t.Run("AS-META-08 is the same for OpenID clients", func(t *testing.T) {
				for _, place := range c.places[1:] {
					assert.Equal(t, first.text, get(t, root+place).text, place)
				}
			})
			t.Run("names endpoints that answer", func(t *testing.T) {
				for _, endpoint := range []string{"token", "introspection", "revocation"} {
					url := first.body[endpoint+"_endpoint"].(string)
					assert.True(t, strings.HasPrefix(url, base+"/oauth2/"), url)
					assert.Equal(t, 405, get(t, url).status, "%s: there, and for POST only", url)
				}
				assert.Equal(t, []any{"client_credentials"}, first.body["grant_types_supported"])
				assert.Equal(t, []any{"files:read", "orders:read", "orders:write", "vault:open"}, first.body["scopes_supported"])
			})
			t.Run("leads to tokens of this issuer", func(t *testing.T) {
				s := *s
				s.url = base
				assert.Equal(t, s.Issuer(), part(t, s.token(t, "reader", "").AccessToken, 1)["iss"])
			})
			t.Run("AS-META-07 leads to the public keys, each for signatures", func(t *testing.T) {
				keys := get(t, first.body["jwks_uri"].(string))
				require.Equal(t, 200, keys.status)
				var algs []any
				for _, k := range keys.body["keys"].([]any) {
					k := k.(map[string]any)
					algs = append(algs, k["alg"])
					assert.Equal(t, "sig", k["use"])
					for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
						assert.NotContains(t, k, private)
					}
				}
				assert.Equal(t, []any{"ES256", "RS256"}, algs, "one for each algorithm in use")
			})
		})
	}
	t.Run("may be remembered, and is sent again only if it changed", func(t *testing.T) {
		s := start(t, "")
		a := get(t, s.url+"/oauth2/keys")
		assert.Equal(t, "public, max-age=300", a.header.Get("Cache-Control"))
		r, err := http.NewRequest("GET", s.url+"/oauth2/keys", nil)
		require.NoError(t, err)
		r.Header.Set("If-None-Match", a.header.Get("ETag"))
		res, err := http.DefaultClient.Do(r)
		assert.Equal(t, 304, read(t, res, err).status)
		assert.NotEqual(t, a.header.Get("ETag"), get(t, start(t, "").url+"/oauth2/keys").header.Get("ETag"), "another server has other keys")
	})
}
