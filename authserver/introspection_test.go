package authserver_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
)

const inactive = `{"active":false}`

func TestIntrospection(t *testing.T) {
	s := start(t, "")
	signed := s.token(t, "reader", "").AccessToken
	opaque := s.token(t, "all", vault).AccessToken

	for _, c := range []struct{ name, id, secret string }{
		{"AS-INTRO-01 no credentials", "", ""},
		{"AS-INTRO-01 an API with a wrong secret", "orders-api", "test-secret-of-vault-api"},
		{"AS-INTRO-01 an unknown API", "other-api", "test-secret-of-orders-api"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.post(t, "/oauth2/introspect", c.id, c.secret, form("token", signed))
			assert.Equal(t, 401, a.status)
			assert.Equal(t, "invalid_client", a.body["error"])
			assert.NotEmpty(t, a.header.Get("WWW-Authenticate"))
			assert.NotContains(t, a.body, "active")
		})
	}
	t.Run("no token is a malformed request", func(t *testing.T) {
		a := s.post(t, "/oauth2/introspect", "orders-api", "test-secret-of-orders-api", nil)
		assert.Equal(t, 400, a.status)
		assert.Equal(t, "invalid_request", a.body["error"])
	})

	head, rest, _ := strings.Cut(signed, ".")
	claims, signature, _ := strings.Cut(rest, ".")
	other := start(t, "").token(t, "reader", "").AccessToken
	for _, c := range []struct{ name, id, token string }{
		{"AS-INTRO-02 text that is not a token", "orders-api", "guess"},
		{"AS-INTRO-02 what looks like a token", "orders-api", "a.b.c"},
		{"AS-INTRO-02 a token whose signature is cut off", "orders-api", head + "." + claims + "."},
		{"AS-INTRO-02 a token of another server", "orders-api", other},
		{"AS-INTRO-02 a token with another's signature", "orders-api", head + "." + claims + other[strings.LastIndex(other, "."):]},
		{"AS-INTRO-02 a token whose algorithm is none", "orders-api", "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0." + claims + "." + signature},
		{"AS-INTRO-03 a JWT of another API", "vault-api", signed},
		{"AS-INTRO-03 an opaque token of another API", "orders-api", opaque},
		{"AS-INTRO-03 a JWT asked for by the client that holds it", "reader", signed},
		{"AS-INTRO-03 an opaque token asked for by the client that holds it", "all", opaque},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.introspect(t, c.id, c.token)
			assert.Equal(t, 200, a.status)
			assert.Equal(t, inactive, strings.TrimSpace(a.text))
			assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
		})
	}

	t.Run("a JWT for the caller", func(t *testing.T) {
		a := s.introspect(t, "orders-api", signed)
		require.Equal(t, 200, a.status, a.text)
		want := part(t, signed, 1)
		delete(want, "grant_id")
		want["active"], want["token_type"] = true, "Bearer"
		assert.Equal(t, want, a.body)
	})
	t.Run("an opaque token of the caller", func(t *testing.T) {
		a := s.introspect(t, "vault-api", opaque)
		require.Equal(t, 200, a.status, a.text)
		assert.Equal(t, true, a.body["active"])
		assert.Equal(t, vault, a.body["aud"])
		assert.Equal(t, "vault:open", a.body["scope"])
		assert.Equal(t, "all", a.body["client_id"])
		assert.Equal(t, "all", a.body["sub"])
		assert.Equal(t, s.Issuer(), a.body["iss"])
		assert.InDelta(t, time.Now().Add(10*time.Minute).Unix(), a.body["exp"], 120)
		assert.NotContains(t, a.text, opaque)
	})
	t.Run("the log", func(t *testing.T) {
		assert.NotContains(t, s.log.String(), opaque)
		assert.NotContains(t, s.log.String(), "eyJ")
		assert.Contains(t, s.log.String(), `msg="introspection of another API's token" client=vault-api`)
	})
}

func TestRevocation(t *testing.T) {
	s := start(t, "")
	revoke := func(id, token string) answer {
		return s.post(t, "/oauth2/revoke", id, "test-secret-of-"+id, form("token", token, "token_type_hint", "refresh_token"))
	}
	for _, c := range []struct{ name, resource, api string }{
		{"a JWT", orders, "orders-api"},
		{"an opaque token", vault, "vault-api"},
	} {
		token, twin := s.token(t, "all", c.resource).AccessToken, s.token(t, "all", c.resource).AccessToken
		t.Run("AS-REVOKE-08 "+c.name+" without credentials", func(t *testing.T) {
			assert.Equal(t, 401, s.post(t, "/oauth2/revoke", "all", "wrong", form("token", token)).status)
		})
		t.Run("AS-REVOKE-03 "+c.name+" of another client", func(t *testing.T) {
			a := revoke("reader", token)
			assert.Equal(t, 400, a.status)
			assert.Equal(t, "invalid_grant", a.body["error"])
			assert.Equal(t, true, s.introspect(t, c.api, token).body["active"])
		})
		t.Run("AS-REVOKE-01 AS-REVOKE-04 AS-INTRO-02 "+c.name+" of the caller, with a wrong hint", func(t *testing.T) {
			assert.Equal(t, 200, revoke("all", token).status)
			assert.Equal(t, inactive, strings.TrimSpace(s.introspect(t, c.api, token).text))
			assert.Equal(t, true, s.introspect(t, c.api, twin).body["active"], "and no other")
		})
		t.Run("AS-REVOKE-02 "+c.name+" once more, and a guess", func(t *testing.T) {
			assert.Equal(t, 200, revoke("all", token).status)
			assert.Equal(t, 200, revoke("all", "guess").status)
		})
	}
}

// The clock of a bubble reaches the server only without a network.
func TestTime(t *testing.T) {
	call := func(t *testing.T, s http.Handler, path, id string, f url.Values) answer {
		r := httptest.NewRequest("POST", path, strings.NewReader(f.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(id, "test-secret-of-"+id)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return read(t, w.Result(), nil)
	}
	issue := func(t *testing.T, s http.Handler, resource string) string {
		a := call(t, s, "/oauth2/token", "all", form("grant_type", grant, "resource", resource))
		require.Equal(t, 200, a.status, a.text)
		return a.body["access_token"].(string)
	}
	active := func(t *testing.T, s http.Handler, api, token string) bool {
		return call(t, s, "/oauth2/introspect", api, form("token", token)).body["active"].(bool)
	}

	t.Run("AS-INTRO-02 tokens die when they expire", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, err := authserver.New(t.Context(), config("https://as.example.com"))
			require.NoError(t, err)
			signed, opaque := issue(t, s, orders), issue(t, s, vault)
			time.Sleep(10*time.Minute - time.Second)
			assert.True(t, active(t, s, "orders-api", signed))
			assert.True(t, active(t, s, "vault-api", opaque))
			time.Sleep(2 * time.Second)
			assert.False(t, active(t, s, "orders-api", signed))
			assert.False(t, active(t, s, "vault-api", opaque))
		})
	})
	t.Run("the oldest tokens give way when there are too many", func(t *testing.T) {
		cfg := config("https://as.example.com")
		cfg.MaxTokens = 3
		s, err := authserver.New(t.Context(), cfg)
		require.NoError(t, err)
		var tokens []string
		for range 5 {
			tokens = append(tokens, issue(t, s, vault))
		}
		for i, token := range tokens {
			assert.Equal(t, i >= 2, active(t, s, "vault-api", token), i)
		}
	})
}

func TestClientThatHangsUp(t *testing.T) {
	s := start(t, "")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := httptest.NewRequestWithContext(ctx, "POST", "/oauth2/token", strings.NewReader(form("grant_type", grant).Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("reader", "test-secret-of-reader")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	a := read(t, w.Result(), nil)
	assert.Equal(t, 500, a.status, "and not an empty 200")
	assert.Equal(t, "server_error", a.body["error"])
	assert.Contains(t, s.log.String(), "request not answered")
}

func TestManyClientsAtOnce(t *testing.T) {
	s := start(t, "", func(c *authserver.Config) { c.MaxTokens = 1000 })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				token := s.token(t, "all", vault).AccessToken
				assert.Equal(t, true, s.introspect(t, "vault-api", token).body["active"])
				assert.Equal(t, 200, s.post(t, "/oauth2/revoke", "all", "test-secret-of-all", form("token", token)).status)
				assert.Equal(t, false, s.introspect(t, "vault-api", token).body["active"])
			}
		})
	}
	wg.Wait()
}
