package engine_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
)

// RFC 6749, section 3.3: clients ask for scopes of other servers, and learn from the response which ones they have got.
func TestNarrowedScopes(t *testing.T) {
	s := start(t, func(c *config) { c.Implicit = true; with(devices()...)(c) })
	for _, c := range []struct{ name, scope, resource, want string }{
		{"AS-CORE-11 unknown scopes are left out", "openid orders:read offline_access", "", "orders:read"},
		{"so are scopes of another API than the resource", "orders:read files:read", files, "files:read"},
		{"the order and repetitions do not matter", "orders:write orders:read orders:write x", orders, "orders:read orders:write"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := s.login(t, "scope", c.scope, "resource", c.resource)
			assert.Equal(t, c.want, got.scope, "the response states them")
			assert.Equal(t, c.want, s.refresh(t, "web", got.refresh).tokens(t).scope)
			uri := s.push(t, "web", request("scope", c.scope, "resource", c.resource))
			a := newBrowser().get(t, s.authorizeURL(form("client_id", "web", "request_uri", uri)))
			assert.Equal(t, c.want, s.redeem(t, "web", a.back.Get("code")).tokens(t).scope, "pushed")
		})
	}
	t.Run("the scopes of a device", func(t *testing.T) {
		a := s.post(t, "/oauth2/device_authorization", "", form("client_id", "tv", "scope", "openid orders:read"))
		require.Equal(t, 200, a.status, a.text)
		in, err := s.Device(t.Context(), a.body["user_code"].(string))
		require.NoError(t, err)
		assert.Equal(t, "orders:read", in.Scopes.String())
		refused(t, s.post(t, "/oauth2/device_authorization", "", form("client_id", "tv", "scope", "openid")), 400, "invalid_scope")
	})
	t.Run("a client without a user gets exactly what it requests", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/token", "service", form("grant_type", "client_credentials", "scope", "openid orders:read")), 400, "invalid_scope")
	})
}

// Several APIs have a scope named orders:read.
func TestSameScopeAtSeveralAPIs(t *testing.T) {
	shared := func(c *config) {
		c.APIs[1].Scopes = append(c.APIs[1].Scopes, model.Scope{Name: "orders:read"})
		with(
			clients.Client{ID: "both", AuthMethod: "client_secret_basic", SecretDigest: []string{store.Digest("secret-of-both")},
				GrantTypes: []string{"client_credentials"}, Scopes: []string{"orders:read", "orders:write"}},
			clients.Client{ID: "by-default", AuthMethod: "client_secret_basic", SecretDigest: []string{store.Digest("secret-of-by-default")},
				GrantTypes: []string{"client_credentials"}, Scopes: []string{"orders:read"}, DefaultAPI: files},
		)(c)
	}
	ask := func(t *testing.T, s *site, id string, pairs ...string) answer {
		return s.post(t, "/oauth2/token", id, append2(form("grant_type", "client_credentials"), pairs...))
	}
	audience := func(t *testing.T, a answer) any { return part(t, a.tokens(t).access, 1)["aud"] }
	s := start(t, shared)
	refused(t, ask(t, s, "both", "scope", "orders:read"), 400, "invalid_target")
	assert.Equal(t, files, audience(t, ask(t, s, "both", "scope", "orders:read", "resource", files)), "the resource decides")
	assert.Equal(t, orders, audience(t, ask(t, s, "both", "scope", "orders:read", "resource", orders)))
	assert.Equal(t, orders, audience(t, ask(t, s, "both", "scope", "orders:read orders:write")), "only one has both")
	assert.Equal(t, files, audience(t, ask(t, s, "by-default", "scope", "orders:read")), "the default of the client decides")
	assert.Equal(t, files, audience(t, ask(t, s, "by-default")))
	assert.Equal(t, "invalid_target", newBrowser().get(t, s.authorizeURL(request("client_id", "other", "redirect_uri", "https://other.example.com/cb"))).back.Get("error"))

	s = start(t, shared, func(c *config) { c.DefaultAPI = orders })
	assert.Equal(t, orders, audience(t, ask(t, s, "both", "scope", "orders:read")), "the default of the server decides")
	assert.Equal(t, files, audience(t, ask(t, s, "by-default", "scope", "orders:read")), "that of the client takes precedence")

	t.Run("AT-22 a token for one is not valid at the other", func(t *testing.T) {
		s := start(t, exchanging, func(c *config) {
			c.APIs[1].Scopes = append(c.APIs[1].Scopes, model.Scope{Name: "orders:read"})
			c.APIs[0].MayAct = ""
		})
		alices := s.login(t, "scope", "orders:read", "resource", orders).access
		refused(t, s.exchange(t, "orders-svc", alices, "scope", "orders:read", "resource", files), 400, "invalid_scope")
		refused(t, s.exchange(t, "orders-svc", alices, "resource", files), 400, "invalid_scope")
		assert.Equal(t, orders, audience(t, s.exchange(t, "orders-svc", alices, "scope", "orders:read")))
	})
}
