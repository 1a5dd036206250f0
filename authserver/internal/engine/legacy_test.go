package engine_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

const oldURI = "https://old.example.com/cb?tenant=1"

func old() []clients.Client {
	return []clients.Client{
		{ID: "old-spa", AuthMethod: "none", GrantTypes: []string{"implicit", "refresh_token"}, RedirectURIs: []string{oldURI}, Scopes: []string{"orders:read", "orders:write", "vault:open"}, DefaultAPI: orders},
		{ID: "old-bound", AuthMethod: "none", GrantTypes: []string{"implicit"}, RedirectURIs: []string{oldURI}, Scopes: []string{"orders:read"}, DPoPBound: true},
		{ID: "old-app", AuthMethod: "client_secret_basic", SecretDigest: []string{store.Digest("secret-of-old-app")}, GrantTypes: []string{"password", "refresh_token"}, Scopes: []string{"orders:read", "orders:write"}},
	}
}

func implicit(c *config) {
	c.Implicit = true
	with(old()...)(c)
}

// fragment is what stands behind the # of a redirect.
func fragment(t *testing.T, a answer) url.Values {
	t.Helper()
	require.Equal(t, 303, a.status, a.text)
	to, after, ok := strings.Cut(a.header.Get("Location"), "#")
	require.True(t, ok, a.header.Get("Location"))
	require.Equal(t, oldURI, to)
	values, err := url.ParseQuery(after)
	require.NoError(t, err)
	return values
}

func TestImplicit(t *testing.T) {
	s := start(t, implicit)
	want := func(pairs ...string) string {
		return s.authorizeURL(request(append([]string{
			"client_id", "old-spa", "redirect_uri", oldURI, "response_type", "token", "code_challenge", "", "code_challenge_method", "",
		}, pairs...)...))
	}
	t.Run("AS-IMPL-01 it is off unless it is switched on", func(t *testing.T) {
		s := start(t, with(old()...))
		q := request("client_id", "old-spa", "redirect_uri", oldURI, "response_type", "token")
		assert.Equal(t, "unsupported_response_type", newBrowser().get(t, s.authorizeURL(q)).back.Get("error"))
	})
	for _, c := range []struct {
		name  string
		pairs []string
		code  string
	}{
		{"a client that is registered for codes only", []string{"client_id", "spa", "redirect_uri", spaURI}, "unauthorized_client"},
		{"a client whose tokens have to be bound", []string{"client_id", "old-bound"}, "unauthorized_client"},
		{"another client's scope", []string{"scope", "files:read"}, "invalid_scope"},
		{"the answer is wanted in the query", []string{"response_mode", "query"}, "invalid_request"},
		{"a code and a token", []string{"response_type", "code token"}, "unsupported_response_type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newBrowser().get(t, want(c.pairs...))
			assert.Contains(t, a.header.Get("Location"), "error="+c.code)
			assert.NotContains(t, a.header.Get("Location"), "access_token")
		})
	}
	t.Run("another redirect URI: a page reports it", func(t *testing.T) {
		a := newBrowser().get(t, want("redirect_uri", oldURI+"#"))
		assert.Equal(t, 400, a.status)
		assert.Empty(t, a.header.Get("Location"))
	})
	t.Run("AS-IMPL-02 an error is in the fragment, too", func(t *testing.T) {
		got := fragment(t, newBrowser().get(t, want("scope", "files:read")))
		assert.Equal(t, "invalid_scope", got.Get("error"))
		assert.Equal(t, "s/1 &", got.Get("state"))
		assert.Equal(t, s.url, got.Get("iss"))
	})
	t.Run("AS-IMPL-02 so does the user's no", func(t *testing.T) {
		s.asks(page)
		defer s.asks(nil)
		b := newBrowser()
		at := b.get(t, want()).action(t, s)
		assert.Equal(t, "access_denied", fragment(t, b.post(t, at, form("do", "deny"))).Get("error"))
	})
	t.Run("AS-IMPL-02 the token is in the fragment, with state, and there is no refresh token", func(t *testing.T) {
		got := fragment(t, newBrowser().get(t, want("scope", "orders:read")))
		assert.Equal(t, "s/1 &", got.Get("state"))
		assert.Equal(t, "Bearer", got.Get("token_type"))
		assert.Equal(t, "600", got.Get("expires_in"))
		assert.Equal(t, "orders:read", got.Get("scope"))
		assert.Empty(t, got.Get("refresh_token"))
		assert.Empty(t, got.Get("code"))
		claims := part(t, got.Get("access_token"), 1)
		assert.Equal(t, "employee:alice", claims["sub"])
		assert.Equal(t, "pwd", claims["acr"])
		assert.True(t, s.active(t, got.Get("access_token")))
		require.Equal(t, 200, s.post(t, "/oauth2/revoke", "", form("client_id", "old-spa", "token", got.Get("access_token"))).status)
		assert.False(t, s.active(t, got.Get("access_token")))
		assert.NotEmpty(t, s.saw(engine.Granted))
	})
	t.Run("after pages, and opaque", func(t *testing.T) {
		s.asks(page)
		defer s.asks(nil)
		b := newBrowser()
		at := b.get(t, want("scope", "vault:open", "response_mode", "fragment")).action(t, s)
		got := fragment(t, b.post(t, at, form("do", "allow")))
		assert.Equal(t, true, s.introspect(t, "vault-api", got.Get("access_token")).body["active"])
	})
	t.Run("codes still need a challenge", func(t *testing.T) {
		q := request("code_challenge", "", "code_challenge_method", "")
		assert.Equal(t, "invalid_request", newBrowser().get(t, s.authorizeURL(q)).back.Get("error"))
	})
	t.Run("the metadata tell of it", func(t *testing.T) {
		m := s.Metadata()
		assert.Equal(t, []string{"code", "token"}, m.ResponseTypes)
		assert.Equal(t, []string{"query", "fragment"}, m.ResponseModes)
		assert.Contains(t, m.GrantTypes, "implicit")
		assert.NotContains(t, start(t).Metadata().GrantTypes, "implicit")
	})
}

type people map[string]string

var errDirectory = errors.New("the directory is down: alice's password is fine")

func (p people) Login(_ context.Context, name, password string) (*login.User, error) {
	switch {
	case name == "outage":
		return nil, errDirectory
	case name == "impostor":
		return &login.User{Subject: "service", Name: name}, nil
	case p[name] == "" || p[name] != password:
		return nil, login.ErrRefused
	}
	return &login.User{Subject: "customer:" + name, Type: "customer", Name: name, Scopes: []string{"orders:read"}}, nil
}

// Lookup knows the same people.
func (p people) Lookup(_ context.Context, subject string) (*login.Account, error) {
	if name, ours := strings.CutPrefix(subject, "customer:"); !ours || p[name] == "" {
		return nil, login.ErrNoUser
	}
	return &login.Account{Scopes: []string{"orders:read"}}, nil
}

func TestPassword(t *testing.T) {
	var log bytes.Buffer
	s := start(t, func(c *config) {
		limited, err := login.Limit(people{"carol": "correct horse", "dave": "battery staple"}, login.Limits{Name: login.Rate{Burst: 5, Every: time.Hour}})
		require.NoError(t, err)
		c.Password = limited
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	}, with(old()...))
	ask := func(id, name, password string, pairs ...string) answer {
		return s.post(t, "/oauth2/token", id, append2(form("grant_type", "password", "username", name, "password", password), pairs...))
	}
	t.Run("AS-IMPL-03 it is off unless it is switched on", func(t *testing.T) {
		s := start(t, with(old()...))
		f := form("grant_type", "password", "username", "carol", "password", "correct horse")
		refused(t, s.post(t, "/oauth2/token", "old-app", f), 400, "unsupported_grant_type")
	})
	for _, c := range []struct {
		name   string
		a      answer
		status int
		code   string
	}{
		{"a client without the grant", ask("web", "carol", "correct horse"), 400, "unauthorized_client"},
		{"a client without its secret", ask("", "carol", "correct horse", "client_id", "old-app"), 401, "invalid_client"},
		{"no name", ask("old-app", "", "correct horse"), 400, "invalid_request"},
		{"no password", ask("old-app", "carol", ""), 400, "invalid_request"},
		{"AS-IMPL-04 a wrong password", ask("old-app", "carol", "x"), 400, "invalid_grant"},
		{"AS-IMPL-04 an unknown name", ask("old-app", "nobody", "x"), 400, "invalid_grant"},
		{"another client's scope", ask("old-app", "carol", "correct horse", "scope", "files:read"), 400, "invalid_scope"},
		{"a scope that is not the user's to give", ask("old-app", "carol", "correct horse", "scope", "orders:write"), 400, "invalid_scope"},
		{"a user whose subject is a client's id", ask("old-app", "impostor", "x"), 500, "server_error"},
		{"an outage is not a refusal", ask("old-app", "outage", "x"), 500, "server_error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, c.a, c.status, c.code)
			assert.NotContains(t, c.a.text, "directory")
		})
	}
	t.Run("a token of the user, for what is the user's to give", func(t *testing.T) {
		got := ask("old-app", "carol", "correct horse").tokens(t)
		assert.Equal(t, "orders:read", got.scope)
		assert.Equal(t, "customer:carol", part(t, got.access, 1)["sub"])
		said := s.introspect(t, "orders-api", got.access).body
		assert.Equal(t, "carol", said["username"])
		next := s.refresh(t, "old-app", got.refresh).tokens(t)
		require.Equal(t, 200, s.post(t, "/oauth2/revoke", "old-app", form("token", next.refresh)).status)
		assert.False(t, s.active(t, got.access))
		assert.False(t, s.active(t, next.access))
	})
	t.Run("AS-IMPL-04 a guesser has to wait, even with the right password", func(t *testing.T) {
		for range 5 {
			refused(t, ask("old-app", "dave", "x"), 400, "invalid_grant")
		}
		a := ask("old-app", "dave", "battery staple")
		refused(t, a, 429, "invalid_request")
		assert.NotEmpty(t, a.header.Get("Retry-After"))
	})
	t.Run("the log warns of it, and holds no password", func(t *testing.T) {
		assert.Contains(t, log.String(), "level=WARN")
		assert.Contains(t, log.String(), "password grant is enabled")
		assert.NotContains(t, log.String(), "correct horse")
		assert.NotContains(t, log.String(), "implicit")
	})
}

func TestWarnings(t *testing.T) {
	var log bytes.Buffer
	logger := func(c *config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }
	start(t, logger)
	assert.Empty(t, log.String())
	start(t, logger, implicit)
	assert.Contains(t, log.String(), "implicit grant is enabled")
}
