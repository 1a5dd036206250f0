package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
)

// What other servers were seen to let through, and the library that this one is built on.
func TestAttacks(t *testing.T) {
	s := start(t)
	at := func(uri string) answer { return newBrowser().get(t, s.authorizeURL(request("redirect_uri", uri))) }
	for name, uri := range map[string]string{
		"a host that ends like the client's": "https://evilweb.example.com/cb?tenant=1",
		"a host of the attacker's":           "https://attacker.test/x",
		"another path":                       "https://web.example.com/cb2?tenant=1",
		"another port":                       "https://web.example.com:444/cb?tenant=1",
		"a prefix of the host":               "https://web.example/cb?tenant=1",
	} {
		t.Run("AS-CODE-02 AS-CODE-03 no code and no error goes to "+name, func(t *testing.T) {
			a := at(uri)
			assert.Equal(t, 400, a.status)
			assert.Empty(t, a.header.Get("Location"))
		})
	}
	t.Run("AS-RT-01 a refresh with another client's id and a wrong secret", func(t *testing.T) {
		got := s.login(t)
		f := form("grant_type", "refresh_token", "refresh_token", got.refresh, "client_id", "other", "client_secret", "wrong")
		refused(t, s.post(t, "/oauth2/token", "", f), 401, "invalid_client")
	})
	t.Run("AS-RT-05 the child of a refresh token that is used again is dead", func(t *testing.T) {
		first := s.login(t)
		child := s.refresh(t, "web", first.refresh).tokens(t)
		refused(t, s.refresh(t, "web", first.refresh), 400, "invalid_grant")
		refused(t, s.refresh(t, "web", child.refresh), 400, "invalid_grant")
		assert.False(t, s.active(t, child.access))
	})
	t.Run("any scope by client credentials", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/token", "service", form("grant_type", "client_credentials", "scope", "super-admin")), 400, "invalid_scope")
	})
	t.Run("a part of a scope's name", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/token", "service", form("grant_type", "client_credentials", "scope", "r")), 400, "invalid_scope")
		assert.Equal(t, "invalid_scope", newBrowser().get(t, s.authorizeURL(request("scope", "orders"))).back.Get("error"))
	})
	t.Run("AS-PKCE-03 AS-PKCE-04 no PKCE, and plain", func(t *testing.T) {
		for _, pairs := range [][]string{{"code_challenge", "", "code_challenge_method", ""}, {"code_challenge_method", "plain"}} {
			a := newBrowser().get(t, s.authorizeURL(request(pairs...)))
			assert.Equal(t, "invalid_request", a.back.Get("error"))
			assert.Equal(t, s.url, a.back.Get("iss"))
			assert.Equal(t, "s/1 &", a.back.Get("state"))
		}
	})
	t.Run("AS-CODE-07 the replay of a code kills the token that it brought", func(t *testing.T) {
		code := s.code(t)
		got := s.redeem(t, "web", code).tokens(t)
		refused(t, s.redeem(t, "web", code), 400, "invalid_grant")
		assert.False(t, s.active(t, got.access))
	})
	t.Run("AS-CODE-07 the replay of a code without the verifier does, too", func(t *testing.T) {
		code := s.code(t)
		got := s.redeem(t, "web", code).tokens(t)
		refused(t, s.redeem(t, "spa", code, "code_verifier", ""), 400, "invalid_grant")
		assert.False(t, s.active(t, got.access))
	})
	t.Run("AS-PKCE-06 a wrong verifier burns the code", func(t *testing.T) {
		code := s.code(t)
		refused(t, s.redeem(t, "web", code, "code_verifier", strings.Repeat("b", 43)), 400, "invalid_grant")
		refused(t, s.redeem(t, "web", code), 400, "invalid_grant")
	})
	t.Run("an answer of ours is not an access token", func(t *testing.T) {
		for _, raw := range []string{s.code(t), s.login(t).refresh} {
			assert.False(t, s.active(t, raw))
		}
	})
	t.Run("the library's own paths are not there", func(t *testing.T) {
		for _, path := range []string{"/authorize", "/token", "/register", "/userinfo", "/jwks", "/par", "/introspect", "/.well-known/openid-configuration"} {
			for _, base := range []string{s.url, strings.TrimSuffix(s.url, "/as")} {
				res, err := http.PostForm(base+path, request())
				assert.Equal(t, 404, read(t, res, err).status, path)
			}
		}
	})
}

// Who reads the store, or a copy of it, has nothing to present; and who reads the audit log, neither.
func TestNoSecretIsStored(t *testing.T) {
	var log strings.Builder
	s := start(t, func(c *config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	ctx := context.Background()
	var secrets []string
	secret := func(v string) string {
		require.NotEmpty(t, v)
		secrets = append(secrets, v)
		return v
	}
	s.asks(page)
	b := newBrowser()
	begun := b.get(t, s.authorizeURL(request()))
	interaction := begun.action(t, s)
	cookie, _, _ := strings.Cut(begun.header.Get("Set-Cookie"), ";")
	secret(strings.TrimPrefix(cookie, "authorization="))
	id, _, _ := strings.Cut(interaction[strings.LastIndex(interaction, "/")+1:], "?")
	secret(id)
	require.Equal(t, 400, newBrowser().get(t, interaction).status)
	s.asks(func(http.ResponseWriter, *http.Request, *flow.Interaction) (*flow.Decision, error) {
		return nil, errBroken
	})
	require.Equal(t, 500, b.get(t, interaction).status)
	s.asks(nil)
	secret(strings.TrimPrefix(s.push(t, "web", request()), "urn:ietf:params:oauth:request_uri:"))
	secret(s.code(t))
	first := s.redeem(t, "web", secret(s.code(t))).tokens(t)
	second := s.refresh(t, "web", secret(first.refresh)).tokens(t)
	secret(second.refresh)
	opaque := s.login(t, "scope", "vault:open")
	secret(opaque.access)
	secret(opaque.refresh)
	secrets = append(secrets, first.access, second.access, "secret-of-", verifier)

	var dump strings.Builder
	for _, kind := range []string{"grant", "token", "session", "spent", "jti"} {
		found, err := s.store.Find(ctx, kind, store.Key{}, "", 1000)
		require.NoError(t, err)
		if kind != "jti" {
			assert.NotEmpty(t, found, kind)
		}
		for _, rec := range found {
			fmt.Fprintf(&dump, "%s %s %v %s\n", rec.Kind, rec.ID, rec.Keys, rec.Value)
			assert.False(t, rec.Expires.IsZero(), "%s: everything ends", kind)
		}
	}
	s.mu.Lock()
	for _, e := range s.events {
		fmt.Fprintln(&dump, e.Attrs())
	}
	s.mu.Unlock()
	require.Contains(t, log.String(), "request not answered")
	dump.WriteString(log.String())
	for _, v := range secrets {
		assert.NotContains(t, dump.String(), v)
	}
	assert.Contains(t, dump.String(), "employee:alice")
}

// AS-CORE-15 for machines: people's passwords are limited where they are typed.
func TestLimits(t *testing.T) {
	s := start(t, func(c *config) {
		c.Failures, c.Pushes = login.Rate{Burst: 3, Every: 1e12}, login.Rate{Burst: 2, Every: 1e12}
	})
	guess := func(id string) answer {
		return s.post(t, "/oauth2/token", "", form("grant_type", "client_credentials", "client_id", id, "client_secret", "guess"))
	}
	t.Run("AS-CORE-15 a client that guesses a secret has to wait, and locks no other client out", func(t *testing.T) {
		for range 3 {
			refused(t, guess("service"), 401, "invalid_client")
		}
		for _, path := range []string{"/oauth2/token", "/oauth2/introspect", "/oauth2/revoke", "/oauth2/par"} {
			a := s.post(t, path, "", form("grant_type", "x", "client_id", "service", "client_secret", "guess"))
			refused(t, a, 429, "invalid_request")
			wait, err := strconv.Atoi(a.header.Get("Retry-After"))
			require.NoError(t, err)
			assert.InDelta(t, 1000, wait, 120, "from the first guess on")
		}
		refused(t, guess("web"), 401, "invalid_client")
		assert.Equal(t, 200, s.post(t, "/oauth2/token", "service", form("grant_type", "client_credentials")).status)
	})
	t.Run("AS-PAR-07 a client that pushes too many requests has to wait", func(t *testing.T) {
		s.push(t, "web", request())
		s.push(t, "web", request())
		f := request()
		f.Del("client_id")
		refused(t, s.post(t, "/oauth2/par", "web", f), 429, "invalid_request")
		s.push(t, "pushy", request())
	})
}

// A broken store fails what is asked of it, once it is broken.
type broken struct {
	store.Store
	mu   sync.Mutex
	kind string // "": none
}

var errBroken = errors.New("the disk is on fire")

func (b *broken) down(kind string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kind = kind
}

func (b *broken) breaks(kind string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kind != "" && b.kind == kind {
		return errBroken
	}
	return nil
}

func (b *broken) Get(ctx context.Context, kind, id string) (store.Record, error) {
	if err := b.breaks(kind); err != nil {
		return store.Record{}, err
	}
	return b.Store.Get(ctx, kind, id)
}

func (b *broken) Put(ctx context.Context, r store.Record) (int64, error) {
	if err := b.breaks(r.Kind); err != nil {
		return 0, err
	}
	return b.Store.Put(ctx, r)
}

func (b *broken) Find(ctx context.Context, kind string, key store.Key, after string, limit int) ([]store.Record, error) {
	if err := b.breaks(kind); err != nil {
		return nil, err
	}
	return b.Store.Find(ctx, kind, key, after, limit)
}

func TestOutages(t *testing.T) {
	b := &broken{}
	s := start(t, func(c *config) {
		b.Store, c.Store = c.Store, b
		c.Clients = clients.NewRegistry(b, static())
	})
	code, got, opaque := s.code(t), s.login(t), s.login(t, "scope", "vault:open")
	old := s.refresh(t, "web", s.login(t).refresh).tokens(t)
	spent := old.refresh
	s.refresh(t, "web", old.refresh).tokens(t)
	pushed := s.push(t, "web", request())
	without := func(v url.Values) url.Values { v.Del("client_id"); return v }
	for _, c := range []struct {
		kind, name string
		do         func() answer
	}{
		{"grant", "a code", func() answer { return s.redeem(t, "web", code) }},
		{"grant", "a refresh token", func() answer { return s.refresh(t, "web", got.refresh) }},
		{"spent", "a refresh token", func() answer { return s.refresh(t, "web", got.refresh) }},
		{"spent", "an old refresh token", func() answer { return s.refresh(t, "web", spent) }},
		{"grant", "client credentials", func() answer {
			return s.post(t, "/oauth2/token", "service", form("grant_type", "client_credentials"))
		}},
		{"token", "an opaque token", func() answer {
			return s.post(t, "/oauth2/token", "service", form("grant_type", "client_credentials", "scope", "vault:open"))
		}},
		{"grant", "introspection", func() answer { return s.introspect(t, "orders-api", got.access) }},
		{"token", "introspection", func() answer { return s.introspect(t, "vault-api", opaque.access) }},
		{"grant", "introspection of an opaque token", func() answer { return s.introspect(t, "vault-api", opaque.access) }},
		{"grant", "revocation", func() answer { return s.post(t, "/oauth2/revoke", "web", form("token", got.access)) }},
		{"jti", "an assertion", func() answer {
			return s.post(t, "/oauth2/token", "signer", asserted(assertion(t, clientKey(), nil, s.url, nil)))
		}},
		{"client", "a registered client", func() answer {
			return s.post(t, "/oauth2/token", "registered", form("grant_type", "client_credentials"))
		}},
		{"session", "pushing", func() answer { return s.post(t, "/oauth2/par", "web", without(request())) }},
	} {
		t.Run("no "+c.kind+" records: "+c.name, func(t *testing.T) {
			b.down(c.kind)
			a := c.do()
			b.down("")
			refused(t, a, 500, "server_error")
			assert.NotContains(t, a.text, "fire")
		})
	}
	for kind, params := range map[string]url.Values{
		"session": request(), "grant": request(), "client": request("client_id", "registered"),
	} {
		t.Run("no "+kind+" records: authorization", func(t *testing.T) {
			if kind == "session" {
				s.asks(page)
				defer s.asks(nil)
			}
			b.down(kind)
			a := newBrowser().get(t, s.authorizeURL(params))
			b.down("")
			assert.Equal(t, 500, a.status)
			assert.Empty(t, a.header.Get("Location"))
			assert.NotContains(t, a.text, "fire")
			assert.NotContains(t, a.text, "<form", "what the user could not answer is not shown")
		})
	}
	t.Run("no session records: a pushed request", func(t *testing.T) {
		b.down("session")
		a := newBrowser().get(t, s.authorizeURL(form("client_id", "web", "request_uri", pushed)))
		b.down("")
		assert.Equal(t, 500, a.status)
	})
	t.Run("afterwards all is as it was", func(t *testing.T) {
		assert.True(t, s.active(t, got.access))
		assert.Equal(t, 200, s.refresh(t, "web", got.refresh).status)
		assert.Equal(t, 200, s.redeem(t, "web", code).status)
		_, err := s.RevokeGrants(context.Background(), "employee:alice", "")
		require.NoError(t, err)
	})
}

func TestConfigMistakes(t *testing.T) {
	_, err := engine.New(engine.Config{RefreshGrace: -1, CodeLifetime: 1})
	require.Error(t, err)
	for _, want := range []string{"Clients: ", "Store: ", "Keys: ", "APIs: ", "RefreshGrace: ", "CodeLifetime: ", "Account: "} {
		assert.ErrorContains(t, err, want)
	}
	s := build(t, "https://as.example.com")
	_, err = engine.New(engine.Config{Issuer: s.url, Store: s.store, Clients: s.registry, Keys: s.ring, APIs: []model.API{{Audience: orders, Scopes: []model.Scope{{Name: "a"}}, Algorithm: "ES512", Profile: "x"}}})
	assert.ErrorContains(t, err, "APIs[0].Algorithm: ")
	assert.ErrorContains(t, err, "APIs[0].Profile: ")
	_, err = engine.New(engine.Config{Issuer: s.url, Store: s.store, Clients: s.registry, Keys: s.ring, Account: login.Chain().Lookup, Failures: login.Rate{Burst: -1}, APIs: []model.API{{Audience: orders, Scopes: []model.Scope{{Name: "a"}}, Algorithm: "ES256"}}})
	assert.ErrorContains(t, err, "Failures")
}

// Without pages every request is denied.
func TestWithoutPages(t *testing.T) {
	s := start(t, func(c *config) { c.Interact = nil })
	assert.Equal(t, "access_denied", newBrowser().get(t, s.authorizeURL(request())).back.Get("error"))
}

// The endpoints can be anywhere, the issuer too.
func TestPaths(t *testing.T) {
	s := start(t, func(c *config) {
		c.Paths = model.Paths{Authorize: "/oauth2/code", Token: "/t", PAR: "/p", Introspect: "/i", Revoke: "/r"}
	})
	s.asks(page)
	b := newBrowser()
	at := b.get(t, s.url+"/oauth2/code?"+request().Encode()).action(t, s)
	assert.True(t, strings.HasPrefix(at, s.url+"/oauth2/code/"), at)
	got := s.post(t, "/t", "web", redemption(b.post(t, at, form("do", "allow")).back.Get("code"))).tokens(t)
	assert.Equal(t, true, s.post(t, "/i", "orders-api", form("token", got.access)).body["active"])
	assert.Equal(t, 200, s.post(t, "/r", "web", form("token", got.access)).status)
	assert.Equal(t, false, s.post(t, "/i", "orders-api", form("token", got.access)).body["active"])
	assert.Equal(t, 201, s.post(t, "/p", "signer", request("client_id", "signer", "client_assertion_type", assertionType,
		"client_assertion", assertion(t, clientKey(), nil, s.url, map[string]any{"aud": s.url + "/t"}))).status)
	assert.Equal(t, s.url+"/oauth2/code", s.Metadata().Authorization)
}
