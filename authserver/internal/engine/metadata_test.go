package engine_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMetadata(t *testing.T) {
	s := start(t)
	text, err := json.Marshal(s.Metadata())
	require.NoError(t, err)
	var m map[string]any
	require.NoError(t, json.Unmarshal(text, &m))

	t.Run("AS-META-04 the issuer", func(t *testing.T) { assert.Equal(t, s.url, m["issuer"]) })
	t.Run("AS-META-05 the response types", func(t *testing.T) { assert.Equal(t, []any{"code"}, m["response_types_supported"]) })
	t.Run("AS-META-06 algorithms where assertions are taken, and never none", func(t *testing.T) {
		for _, endpoint := range []string{"token", "introspection", "revocation"} {
			assert.Contains(t, m[endpoint+"_endpoint_auth_methods_supported"], "private_key_jwt")
			algs := m[endpoint+"_endpoint_auth_signing_alg_values_supported"]
			assert.Contains(t, algs, "ES256")
			assert.NotContains(t, algs, "none")
		}
	})
	t.Run("the acr values that a log-in can have", func(t *testing.T) { assert.Equal(t, []any{"mfa", "pwd"}, m["acr_values_supported"]) })
	t.Run("AS-PKCE-09 S256", func(t *testing.T) { assert.Equal(t, []any{"S256"}, m["code_challenge_methods_supported"]) })
	t.Run("AS-ISS-03 iss in responses", func(t *testing.T) {
		assert.Equal(t, true, m["authorization_response_iss_parameter_supported"])
	})
	t.Run("AS-META-09 the resources", func(t *testing.T) { assert.Contains(t, m["protected_resources"], orders) })
	t.Run("AS-META-03 nothing is empty", func(t *testing.T) {
		for name, v := range m {
			assert.NotEmpty(t, v, name)
		}
	})
	t.Run("endpoints that answer", func(t *testing.T) {
		for _, name := range []string{"authorization", "token", "introspection", "revocation", "pushed_authorization_request"} {
			res, err := http.PostForm(m[name+"_endpoint"].(string), form("a", "b"))
			assert.NotEqual(t, 404, read(t, res, err).status, name)
		}
	})
	t.Run("AS-PAR-09 all have to push", func(t *testing.T) {
		s := start(t, func(c *config) { c.RequirePAR = true })
		assert.True(t, s.Metadata().RequirePAR)
		assert.Equal(t, "invalid_request", newBrowser().get(t, s.authorizeURL(request())).back.Get("error"))
		pushed := s.push(t, "web", request())
		assert.NotEmpty(t, newBrowser().get(t, s.authorizeURL(form("client_id", "web", "request_uri", pushed))).back.Get("code"))
	})
}

// Regardless of the request, browsers are sent only to redirect URIs of the client.
func FuzzAuthorize(f *testing.F) {
	h := inProcess(f)
	for _, seed := range []url.Values{
		request(), request("redirect_uri", "https://web.example.com.evil.example/cb?tenant=1"), request("client_id", "native", "redirect_uri", "http://127.0.0.1:1@evil.example/cb"),
		request("client_id", "native", "redirect_uri", "http://[::1]:99999/cb"), append2(request(), "redirect_uri", "https://evil.example"),
	} {
		f.Add(seed.Encode())
	}
	allowed := []string{"https://web.example.com/cb?", "https://spa.example.com/cb?", "https://other.example.com/cb?", "com.example.app:/cb?", "http://localhost:8080/authorization?"}
	f.Fuzz(func(t *testing.T, query string) {
		r, err := http.NewRequest("GET", "https://as.example.com/oauth2/authorize", nil)
		require.NoError(t, err)
		r.URL.RawQuery = query
		to := h.serve(t, r).header.Get("Location")
		if to == "" {
			return
		}
		u, err := url.Parse(to)
		require.NoError(t, err)
		if u.Scheme == "http" && u.Path == "/cb" {
			require.Contains(t, []string{"127.0.0.1", "::1", "localhost"}, u.Hostname())
			require.Nil(t, u.User)
			return
		}
		for _, one := range allowed {
			if strings.HasPrefix(to, one) {
				return
			}
		}
		t.Fatalf("sent to %q", to)
	})
}
