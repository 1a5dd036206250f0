package authserver_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
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
			t.Run("AS-META-03 is JSON without empty members", func(t *testing.T) {
				require.Equal(t, 200, first.status)
				assert.Equal(t, "application/json", first.header.Get("Content-Type"))
				for name, v := range first.body {
					assert.NotEmpty(t, v, name)
				}
			})
			t.Run("AS-META-04 names the issuer byte by byte", func(t *testing.T) {
				assert.Equal(t, s.url, first.body["issuer"])
				assert.Equal(t, s.url, s.Issuer())
			})
			t.Run("AS-META-05 names the response types", func(t *testing.T) {
				assert.Equal(t, []any{"code"}, first.body["response_types_supported"])
			})
			t.Run("AS-META-06 names the algorithms of assertions, and never none", func(t *testing.T) {
				for _, endpoint := range []string{"token", "introspection", "revocation"} {
					assert.Contains(t, first.body[endpoint+"_endpoint_auth_methods_supported"], "private_key_jwt")
					if methods := first.body[endpoint+"_endpoint_auth_methods_supported"].([]any); endpoint != "introspection" {
						assert.Equal(t, "none", methods[len(methods)-1], "clients that choose the first one authenticate")
					}
					algs := first.body[endpoint+"_endpoint_auth_signing_alg_values_supported"]
					assert.Contains(t, algs, "ES256")
					assert.NotContains(t, algs, "none")
				}
			})
			t.Run("AS-META-09 AS-ISS-03 lists the resources, and states that answers name the issuer", func(t *testing.T) {
				assert.Equal(t, []any{orders, files, vault}, first.body["protected_resources"])
				assert.Equal(t, true, first.body["authorization_response_iss_parameter_supported"])
			})
			t.Run("AS-META-08 is the same for OpenID clients", func(t *testing.T) {
				for _, place := range c.places[1:] {
					assert.Equal(t, first.text, get(t, root+place).text, place)
				}
			})
			t.Run("names endpoints that answer", func(t *testing.T) {
				for _, endpoint := range []string{"token", "introspection", "revocation", "pushed_authorization_request", "device_authorization"} {
					url := first.body[endpoint+"_endpoint"].(string)
					assert.True(t, strings.HasPrefix(url, base+"/oauth2/"), url)
					assert.Equal(t, 405, get(t, url).status, "%s: there, and for POST only", url)
				}
				assert.Equal(t, 400, get(t, first.body["authorization_endpoint"].(string)).status, "which client?")
				assert.NotContains(t, first.body, "registration_endpoint")
				assert.NotContains(t, first.body, "acr_values_supported", "there is none")
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
				assert.Equal(t, []any{"ES256", "ES256", "RS256", "RS256"}, algs, "of each algorithm in use, the one that signs and the next")
			})
		})
	}
	t.Run("names what is on, where it is", func(t *testing.T) {
		s := start(t, "/as", func(c *authserver.Config) {
			c.Registration.Open, c.Legacy, c.RequirePAR = true, authserver.Legacy{Implicit: true, Password: true}, true
			c.Paths = authserver.Paths{
				Authorize: "/a/authorize", Token: "/a/token", Device: "/a/device", PAR: "/a/par", Introspect: "/a/introspect",
				Revoke: "/a/revoke", Register: "/a/register", Keys: "/a/keys",
			}
		})
		about := get(t, s.url+"/.well-known/openid-configuration").body
		for member, path := range map[string]string{
			"authorization_endpoint": "authorize", "token_endpoint": "token", "device_authorization_endpoint": "device",
			"pushed_authorization_request_endpoint": "par", "introspection_endpoint": "introspect", "revocation_endpoint": "revoke",
			"registration_endpoint": "register", "jwks_uri": "keys",
		} {
			assert.Equal(t, s.url+"/a/"+path, about[member], member)
			assert.NotEqual(t, 404, get(t, s.url+"/a/"+path).status, path)
			assert.Equal(t, 404, get(t, s.url+"/oauth2/"+path).status, path)
		}
		assert.Equal(t, true, about["require_pushed_authorization_requests"])
		assert.Contains(t, about["grant_types_supported"], "implicit")
		assert.Contains(t, about["grant_types_supported"], "password")
		assert.Contains(t, about["response_types_supported"], "token")
	})
	t.Run("AS-META-07 a key set is not kept for longer than a key is published before it signs", func(t *testing.T) {
		s := start(t, "", func(c *authserver.Config) { c.Keys.Publish = time.Minute })
		assert.Equal(t, "public, max-age=60", get(t, s.url+"/oauth2/keys").header.Get("Cache-Control"))
	})
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
