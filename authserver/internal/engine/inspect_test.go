package engine_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/introspect"
)

func TestIntrospection(t *testing.T) {
	s := start(t)
	jwt, opaque := s.login(t), s.login(t, "scope", "vault:open")
	for _, id := range []string{"", "spa"} {
		t.Run("AS-INTRO-01 a caller without a secret "+id, func(t *testing.T) {
			refused(t, s.introspect(t, id, jwt.access), 401, "invalid_client")
		})
	}
	t.Run("no token", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/introspect", "orders-api", form()), 400, "invalid_request")
	})
	for _, c := range []struct{ name, api, token string }{
		{"AS-INTRO-02 a guess", "orders-api", "guess"},
		{"AS-INTRO-02 a code", "orders-api", s.code(t)},
		{"AS-INTRO-02 a refresh token, which no API may take", "orders-api", jwt.refresh},
		{"AS-INTRO-02 a JWT that was cut", "orders-api", jwt.access[:len(jwt.access)-2]},
		{"AS-INTRO-03 a JWT of another API", "vault-api", jwt.access},
		{"AS-INTRO-03 an opaque token of another API", "orders-api", opaque.access},
		{"AS-INTRO-03 the client's own token", "web", jwt.access},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.introspect(t, c.api, c.token)
			assert.Equal(t, 200, a.status)
			assert.Equal(t, map[string]any{"active": false}, a.body)
			assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
		})
	}
	assert.Len(t, s.saw(engine.NotItsTokens), 3)
	for _, c := range []struct{ name, api, token, aud, scope string }{
		{"a JWT", "orders-api", jwt.access, orders, "orders:read"},
		{"a JWT whose scope is an array", "files-api", s.login(t, "scope", "files:read").access, files, "files:read"},
		{"an opaque token", "vault-api", opaque.access, vault, "vault:open"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.introspect(t, c.api, c.token)
			for name, want := range map[string]any{
				"active": true, "token_type": "Bearer", "iss": s.url, "sub": "employee:alice", "username": "alice@example.com",
				"aud": c.aud, "scope": c.scope, "client_id": "web", "acr": "pwd",
			} {
				assert.Equal(t, want, a.body[name], name)
			}
			assert.InDelta(t, time.Now().Unix(), a.body["auth_time"], 120)
			assert.InDelta(t, time.Now().Unix()+600, a.body["exp"], 120)
			assert.NotContains(t, a.body, "grant_id")
			assert.NotContains(t, a.text, c.token)
		})
	}
}

func TestSignedAnswers(t *testing.T) {
	s := start(t)
	const kind = "application/token-introspection+jwt"
	token := s.login(t).access
	t.Run("AS-INTRO-05 AS-INTRO-06 the answer", func(t *testing.T) {
		a := s.post(t, "/oauth2/introspect", "orders-api", form("token", token), "Accept", kind)
		require.Equal(t, 200, a.status, a.text)
		assert.Equal(t, kind, a.header.Get("Content-Type"))
		assert.Equal(t, "token-introspection+jwt", part(t, a.text, 0)["typ"])
		claims := part(t, a.text, 1)
		assert.Equal(t, s.url, claims["iss"])
		assert.Equal(t, "orders-api", claims["aud"])
		assert.InDelta(t, time.Now().Unix(), claims["iat"], 120)
		assert.Equal(t, true, claims["token_introspection"].(map[string]any)["active"])
		assert.NotContains(t, claims, "sub")
		assert.NotContains(t, claims, "exp")
	})
	t.Run("AS-INTRO-05 it is not an access token", func(t *testing.T) {
		a := s.post(t, "/oauth2/introspect", "orders-api", form("token", token), "Accept", kind)
		assert.False(t, s.active(t, a.text))
	})
	t.Run("AS-INTRO-05 refusals are not signed", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/introspect", "", form("token", token), "Accept", kind), 401, "invalid_client")
	})
	for accept, want := range map[string]string{
		"*/*": "application/json", "application/json": "application/json", kind + ";q=0": "application/json",
		"application/json;q=0.5, " + kind: kind,
	} {
		t.Run("to Accept "+accept, func(t *testing.T) {
			assert.Equal(t, want, s.post(t, "/oauth2/introspect", "orders-api", form("token", token), "Accept", accept).header.Get("Content-Type"))
		})
	}
	t.Run("AS-INTRO-05 the other half of the house takes it", func(t *testing.T) {
		v, err := introspect.New(introspect.Config{
			URL: s.url + "/oauth2/introspect", Issuer: s.url, Audience: []string{vault}, Auth: introspect.BasicAuth("vault-api", "secret-of-vault-api"),
			Signed: &introspect.Signed{Algorithm: "ES256", JWKSURL: s.url + "/oauth2/keys"},
		})
		require.NoError(t, err)
		got, err := v.Verify(context.Background(), s.login(t, "scope", "vault:open").access)
		require.NoError(t, err)
		assert.Equal(t, "employee:alice", got.Subject())
		_, err = v.Verify(context.Background(), s.login(t, "scope", "vault:open").refresh)
		var told *valetkey.Error
		require.ErrorAs(t, err, &told)
		assert.Equal(t, valetkey.InvalidToken, told.Code)
	})
}

func TestRevocation(t *testing.T) {
	s := start(t)
	revoke := func(id, token string, pairs ...string) answer {
		return s.post(t, "/oauth2/revoke", id, append2(form("token", token), pairs...))
	}
	for name, which := range map[string]func(tokens) string{
		"an access token": func(g tokens) string { return g.access },
		"AS-REVOKE-05 AS-REVOKE-06 a refresh token": func(g tokens) string { return g.refresh },
	} {
		for api, scope := range map[string]string{"orders-api": "orders:read", "files-api": "files:read", "vault-api": "vault:open"} {
			t.Run("AS-REVOKE-01 AS-REVOKE-03 AS-REVOKE-04 AS-REVOKE-07 "+name+" for "+scope, func(t *testing.T) {
				got := s.login(t, "scope", scope)
				active := func() any { return s.introspect(t, api, got.access).body["active"] }
				refused(t, revoke("other", which(got)), 400, "invalid_grant")
				refused(t, revoke("spa", which(got)), 400, "invalid_grant")
				require.Equal(t, true, active())
				assert.Equal(t, 200, revoke("web", which(got), "token_type_hint", "nonsense").status)
				assert.Equal(t, false, active())
				refused(t, s.refresh(t, "web", got.refresh), 400, "invalid_grant")
				assert.Equal(t, 200, revoke("web", which(got)).status, "AS-REVOKE-02: once more")
			})
		}
	}
	t.Run("AS-REVOKE-01 a public client's", func(t *testing.T) {
		got := s.redeem(t, "spa", s.code(t, "client_id", "spa", "redirect_uri", spaURI), "redirect_uri", spaURI).tokens(t)
		assert.Equal(t, 200, revoke("spa", got.refresh).status)
		assert.False(t, s.active(t, got.access))
	})
	t.Run("AS-REVOKE-02 text that is not a token", func(t *testing.T) {
		for _, token := range []string{"guess", "a.b.c", s.code(t)} {
			a := revoke("web", token)
			assert.Equal(t, 200, a.status)
			assert.Empty(t, a.text)
		}
		refused(t, s.post(t, "/oauth2/revoke", "web", form()), 400, "invalid_request")
	})
	t.Run("AS-REVOKE-08 a caller without credentials", func(t *testing.T) {
		got := s.login(t)
		refused(t, revoke("", got.access), 401, "invalid_client")
		refused(t, revoke("", got.access, "client_id", "web"), 401, "invalid_client")
		assert.True(t, s.active(t, got.access))
	})
	t.Run("AS-REVOKE-01 GET", func(t *testing.T) {
		res, err := http.Get(s.url + "/oauth2/revoke?token=x")
		assert.Equal(t, 405, read(t, res, err).status)
	})
}

func TestRevokeGrants(t *testing.T) {
	s := start(t)
	ctx := context.Background()
	mine := func() []tokens {
		var all []tokens
		for range 120 { // more than a page of the store
			all = append(all, s.login(t))
		}
		return all
	}
	bob := *alice
	bob.Subject = "employee:bob"
	s.asks(func(_ http.ResponseWriter, _ *http.Request, in *flow.Interaction) (*flow.Decision, error) {
		d := allow(in)
		d.User = &bob
		return d, nil
	})
	bobs := s.login(t)
	s.asks(nil)
	spa := s.redeem(t, "spa", s.code(t, "client_id", "spa", "redirect_uri", spaURI), "redirect_uri", spaURI).tokens(t)
	own := s.post(t, "/oauth2/token", "service", form("grant_type", "client_credentials", "scope", "orders:read")).tokens(t)

	_, err := s.RevokeGrants(ctx, "", "")
	require.Error(t, err)
	for _, c := range []struct {
		name, subject, client string
		n                     int
	}{
		{"nobody's", "employee:nobody", "web", 0},
		{"a user's of one client", "employee:alice", "web", 120},
		{"again, when none is left", "employee:alice", "web", 0},
		{"all of a user's", "employee:alice", "", 1},
		{"all of a client's, its own", "", "service", 1},
		{"all of a client's, another user's", "", "web", 1},
	} {
		var all []tokens
		if c.n == 120 {
			all = mine()
		}
		n, err := s.RevokeGrants(ctx, c.subject, c.client)
		require.NoError(t, err, c.name)
		assert.Equal(t, c.n, n, c.name)
		if c.n == 120 {
			for _, one := range all {
				require.False(t, s.active(t, one.access))
			}
			refused(t, s.refresh(t, "web", all[7].refresh), 400, "invalid_grant")
			assert.True(t, s.active(t, bobs.access))
			assert.True(t, s.active(t, spa.access))
		}
	}
	for _, one := range []tokens{bobs, spa, own} {
		assert.False(t, s.active(t, one.access))
	}
	t.Run("a code that waits is dead, too", func(t *testing.T) {
		code := s.code(t)
		n, err := s.RevokeGrants(ctx, "employee:alice", "")
		require.NoError(t, err)
		assert.Equal(t, 1, n)
		refused(t, s.redeem(t, "web", code), 400, "invalid_grant")
	})
}
