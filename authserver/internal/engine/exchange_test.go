package engine_test

import (
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/jwks"
)

const (
	exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	accessType    = "urn:ietf:params:oauth:token-type:access_token"
	jwtType       = "urn:ietf:params:oauth:token-type:jwt"
)

// exchangers are the service behind the API orders, the one behind vault, and one that answers for nothing.
func exchangers() []clients.Client {
	service := func(id string, introspects ...string) clients.Client {
		return clients.Client{
			ID: id, AuthMethod: "client_secret_basic", SecretDigest: []string{store.Digest("secret-of-" + id)},
			GrantTypes: []string{exchangeGrant, "client_credentials"}, Introspects: introspects, DefaultAPI: orders,
			Scopes: []string{"orders:read", "orders:write", "vault:open", "files:read"},
		}
	}
	spa := clients.Client{ID: "spa2", AuthMethod: "none", GrantTypes: []string{exchangeGrant}, Scopes: []string{"orders:read"}}
	return []clients.Client{service("orders-svc", orders), service("vault-svc", vault), service("nobody-svc"), spa}
}

// exchanging makes a site where orders:read maps to vault:open.
func exchanging(c *config) {
	c.APIs[0].Exchange = map[string][]string{"orders:read": {"vault:open"}}
	with(exchangers()...)(c)
}

func exchange(subject string, pairs ...string) url.Values {
	v := form("grant_type", exchangeGrant, "subject_token", subject, "subject_token_type", accessType)
	for i := 0; i < len(pairs); i += 2 {
		if v.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
			v.Del(pairs[i])
		}
	}
	return v
}

func (s *site) exchange(t testing.TB, id, subject string, pairs ...string) answer {
	t.Helper()
	return s.post(t, "/oauth2/token", id, exchange(subject, pairs...))
}

func TestRefusedExchanges(t *testing.T) {
	s := start(t, exchanging, func(c *config) { c.APIs[1].MayAct = "files-svc" })
	alices := s.login(t, "scope", "orders:read").access
	revoked := s.login(t)
	require.Equal(t, 200, s.post(t, "/oauth2/revoke", "web", form("token", revoked.access)).status)
	own := func(id string, pairs ...string) string {
		return s.post(t, "/oauth2/token", id, append2(form("grant_type", "client_credentials"), pairs...)).tokens(t).access
	}
	opaque := own("vault-svc", "scope", "vault:open")
	bound := own("orders-svc", "scope", "files:read")
	for _, c := range []struct {
		name, id string
		form     url.Values
		code     string
	}{
		{"a client without the grant", "web", exchange(alices), "unauthorized_client"},
		{"a public client, which has no secret", "", exchange(alices, "client_id", "spa2"), "unauthorized_client"},
		{"AS-TX-01 no subject_token", "orders-svc", exchange(""), "invalid_request"},
		{"AS-TX-01 no subject_token_type", "orders-svc", exchange(alices, "subject_token_type", ""), "invalid_request"},
		{"AS-TX-01 a refresh token's type", "orders-svc", exchange(alices, "subject_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), "invalid_request"},
		{"AS-TX-01 an unknown type", "orders-svc", exchange(alices, "subject_token_type", "x"), "invalid_request"},
		{"AS-TX-02 an actor_token without its type", "orders-svc", exchange(alices, "actor_token", own("orders-svc")), "invalid_request"},
		{"AS-TX-02 the type of an actor_token without that", "orders-svc", exchange(alices, "actor_token_type", accessType), "invalid_request"},
		{"AS-TX-02 an unknown type of an actor_token", "orders-svc", exchange(alices, "actor_token", own("orders-svc"), "actor_token_type", "x"), "invalid_request"},
		{"AS-TX-03 no token at all", "orders-svc", exchange("x"), "invalid_request"},
		{"AS-TX-03 a token that was changed", "orders-svc", exchange(alices[:len(alices)-8] + "AAAAAAAA"), "invalid_request"},
		{"AS-TX-03 a revoked one", "orders-svc", exchange(revoked.access), "invalid_request"},
		{"AS-TX-03 a refresh token", "orders-svc", exchange(s.login(t).refresh), "invalid_request"},
		{"AS-TX-03 an opaque token that is called a JWT", "vault-svc", exchange(opaque, "subject_token_type", jwtType), "invalid_request"},
		{"AS-TX-03 another API's token", "orders-svc", exchange(s.login(t, "scope", "vault:open").access), "invalid_request"},
		{"AS-TX-03 a token of no API of the client's", "nobody-svc", exchange(alices), "invalid_request"},
		{"AS-TX-03 an actor_token that is not the client's", "orders-svc", exchange(alices, "actor_token", opaque, "actor_token_type", accessType), "invalid_request"},
		{"AS-TX-03 an actor_token that was changed", "orders-svc", exchange(alices, "actor_token", own("orders-svc")+"A", "actor_token_type", accessType), "invalid_request"},
		{"AS-TX-04 an unknown resource", "orders-svc", exchange(alices, "resource", "https://x.example.com/"), "invalid_target"},
		{"AS-TX-04 an unknown audience", "orders-svc", exchange(alices, "audience", "x"), "invalid_target"},
		{"AS-TX-04 two audiences", "orders-svc", append2(exchange(alices, "audience", orders), "audience", vault), "invalid_target"},
		{"AS-TX-04 a resource and another audience", "orders-svc", exchange(alices, "audience", orders, "resource", vault), "invalid_target"},
		{"AS-TX-05 a resource with a fragment", "orders-svc", exchange(alices, "resource", orders+"#x"), "invalid_target"},
		{"AS-TX-05 a relative resource", "orders-svc", exchange(alices, "resource", "/orders"), "invalid_target"},
		{"AS-TX-06 another type of token is wanted", "orders-svc", exchange(alices, "requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), "invalid_request"},
		{"AS-TX-09 may_act names another client", "orders-svc", exchange(bound), "invalid_request"},
		{"AS-TX-11 a scope that the token has not", "orders-svc", exchange(alices, "scope", "orders:write"), "invalid_scope"},
		{"AS-TX-11 all scopes of an API that the token has none of", "orders-svc", exchange(alices, "resource", files), "invalid_scope"},
		{"a scope that neither has", "orders-svc", exchange(alices, "scope", "bank:pay"), "invalid_scope"},
	} {
		t.Run(c.name, func(t *testing.T) { refused(t, s.post(t, "/oauth2/token", c.id, c.form), 400, c.code) })
	}
	t.Run("without its secret", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/token", "", exchange(alices, "client_id", "orders-svc")), 401, "invalid_client")
	})
}

func TestExchange(t *testing.T) {
	s := start(t, exchanging, func(c *config) { c.APIs[0].MayAct = "" })
	alices := s.login(t, "scope", "orders:read orders:write")
	t.Run("AS-TX-06 AS-TX-07 AS-TX-10 impersonation: less scope for the same API", func(t *testing.T) {
		a := s.exchange(t, "orders-svc", alices.access, "scope", "orders:read", "subject_token_type", jwtType)
		got := a.tokens(t)
		assert.Equal(t, accessType, a.body["issued_token_type"])
		assert.Equal(t, "Bearer", a.body["token_type"])
		assert.Equal(t, "orders:read", got.scope)
		assert.Empty(t, got.refresh)
		claims := part(t, got.access, 1)
		assert.Equal(t, "employee:alice", claims["sub"])
		assert.Equal(t, "orders-svc", claims["client_id"])
		assert.Equal(t, orders, claims["aud"])
		assert.Equal(t, "pwd", claims["acr"])
		assert.NotContains(t, claims, "act")
		assert.NotContains(t, claims, "may_act")
		assert.True(t, s.active(t, got.access))
	})
	t.Run("AS-TX-07 nothing is asked for: what the token has", func(t *testing.T) {
		assert.Equal(t, "orders:read orders:write", s.exchange(t, "orders-svc", alices.access).tokens(t).scope)
	})
	for _, target := range [][]string{{"resource", vault}, {"audience", vault}, {"scope", "vault:open"}, {"resource", vault, "audience", vault}} {
		t.Run("another API, as configured: "+strings.Join(target, " "), func(t *testing.T) {
			a := s.exchange(t, "orders-svc", alices.access, target...)
			if len(target) == 4 {
				refused(t, a, 400, "invalid_target") // one name is enough
				return
			}
			got := s.introspect(t, "vault-api", a.tokens(t).access).body
			assert.Equal(t, true, got["active"])
			assert.Equal(t, "employee:alice", got["sub"])
			assert.Equal(t, alice.Name, got["username"])
			assert.Equal(t, "vault:open", got["scope"])
		})
	}
	t.Run("the same API, as an origin without its slash", func(t *testing.T) {
		got := s.exchange(t, "orders-svc", alices.access, "audience", strings.TrimSuffix(orders, "/"), "scope", "orders:read").tokens(t)
		assert.Equal(t, orders, s.introspect(t, "orders-api", got.access).body["aud"])
	})
	acting := func(id, subject string, pairs ...string) answer {
		self := s.post(t, "/oauth2/token", id, form("grant_type", "client_credentials")).tokens(t).access
		return s.exchange(t, id, subject, append(pairs, "actor_token", self, "actor_token_type", accessType)...)
	}
	t.Run("AS-TX-08 AS-TX-10 delegation: each actor within the next, and only the outermost acts", func(t *testing.T) {
		first := acting("orders-svc", alices.access, "resource", vault).tokens(t).access
		assert.Equal(t, map[string]any{"sub": "orders-svc"}, s.introspect(t, "vault-api", first).body["act"])
		second := acting("vault-svc", first).tokens(t).access
		want := map[string]any{"sub": "vault-svc", "act": map[string]any{"sub": "orders-svc"}}
		got := s.introspect(t, "vault-api", second).body
		assert.Equal(t, want, got["act"])
		assert.Equal(t, "employee:alice", got["sub"])
		t.Run("which a later exchange without an actor does not hide", func(t *testing.T) {
			third := s.exchange(t, "vault-svc", second).tokens(t).access
			assert.Equal(t, want, s.introspect(t, "vault-api", third).body["act"])
		})
	})
	t.Run("AS-TX-08 an API goes by the top-level claims of a JWT", func(t *testing.T) {
		raw := acting("orders-svc", alices.access, "scope", "orders:read").tokens(t).access
		v, err := jwks.New(jwks.Config{Issuer: s.url, JWKSURL: s.url + "/oauth2/keys", Audience: []string{orders}})
		require.NoError(t, err)
		defer v.Close()
		token, err := v.Verify(t.Context(), raw)
		require.NoError(t, err)
		assert.Equal(t, "employee:alice", token.Subject())
		assert.Equal(t, "orders-svc", token.ClientID())
		assert.Equal(t, valetkey.NewScopes("orders:read"), token.Scopes())
		var claims struct {
			Act map[string]any `json:"act"`
		}
		require.NoError(t, token.Claims(&claims))
		assert.Equal(t, map[string]any{"sub": "orders-svc"}, claims.Act)
	})
	t.Run("an exchanged token ends with the token that it was exchanged for", func(t *testing.T) {
		original := s.login(t, "scope", "orders:read")
		first := s.exchange(t, "orders-svc", original.access, "resource", vault).tokens(t).access
		second := s.exchange(t, "vault-svc", first).tokens(t).access
		require.Equal(t, true, s.introspect(t, "vault-api", second).body["active"])
		require.Equal(t, 200, s.post(t, "/oauth2/revoke", "web", form("token", original.refresh)).status)
		for _, raw := range []string{first, second} {
			assert.Equal(t, false, s.introspect(t, "vault-api", raw).body["active"])
		}
		refused(t, s.exchange(t, "vault-svc", first), 400, "invalid_request")
	})
}

func TestMayAct(t *testing.T) {
	s := start(t, exchanging, func(c *config) { c.APIs[0].MayAct, c.APIs[3].MayAct = "orders-svc", "orders-svc" })
	alices := s.login(t, "scope", "orders:read").access
	assert.Equal(t, map[string]any{"sub": "orders-svc"}, part(t, alices, 1)["may_act"])
	t.Run("AS-TX-09 who it names may", func(t *testing.T) {
		assert.Equal(t, 200, s.exchange(t, "orders-svc", alices).status)
	})
	t.Run("AS-TX-09 no other client may, whatever the token", func(t *testing.T) {
		opaque := s.login(t, "scope", "vault:open").access
		refused(t, s.exchange(t, "vault-svc", opaque), 400, "invalid_request")
		self := s.post(t, "/oauth2/token", "vault-svc", form("grant_type", "client_credentials")).tokens(t).access
		refused(t, s.exchange(t, "vault-svc", opaque, "actor_token", self, "actor_token_type", accessType), 400, "invalid_request")
	})
}

// A token that an API was called with identifies the caller to the API. It does not prove to others that the API is that caller.
func TestActorsAreThemselves(t *testing.T) {
	s := start(t, exchanging, func(c *config) { c.APIs[3].MayAct = "orders-svc" })
	alices := s.login(t, "scope", "vault:open").access
	called := s.post(t, "/oauth2/token", "orders-svc", form("grant_type", "client_credentials", "scope", "vault:open")).tokens(t).access
	t.Run("AS-TX-03 AS-TX-09 an API does not act as a client that has called it", func(t *testing.T) {
		refused(t, s.exchange(t, "vault-svc", alices, "actor_token", called, "actor_token_type", accessType), 400, "invalid_request")
	})
}

func TestExchangedLifetime(t *testing.T) {
	for _, c := range []struct {
		name string
		wait time.Duration
		secs int // zero: refused
	}{
		{"AS-TX-11 a token does not outlive the one that it stands for", 9 * time.Minute, 60},
		{"less than a second is not worth a token", 10*time.Minute - 500*time.Millisecond, 0},
		{"AS-TX-03 an expired token", 10 * time.Minute, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := inProcess(t, exchanging)
				first := h.token(t, redemption(h.code(t, "scope", "orders:read"))).tokens(t).access
				time.Sleep(c.wait)
				a := h.do(t, "POST", "/oauth2/token", append2(exchange(first), "client_id", "orders-svc", "client_secret", "secret-of-orders-svc"), "")
				if c.secs == 0 {
					refused(t, a, 400, "invalid_request")
					return
				}
				assert.EqualValues(t, c.secs, a.body["expires_in"])
				assert.Equal(t, part(t, first, 1)["exp"], part(t, a.tokens(t).access, 1)["exp"])
			})
		})
	}
}
