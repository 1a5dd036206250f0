package engine_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/jwks"
)

func TestRefusedRedemptions(t *testing.T) {
	s := start(t)
	for _, c := range []struct {
		name   string
		params []string // of the authorization request
		id     string
		pairs  []string // of the redemption
		status int
		code   string
	}{
		{"AS-CORE-12 no code", nil, "web", []string{"code", ""}, 400, "invalid_request"},
		{"AS-CORE-12 a guess", nil, "web", []string{"code", "guess"}, 400, "invalid_grant"},
		{"AS-CORE-12 a better guess", nil, "web", []string{"code", strings.Repeat("A", 52)}, 400, "invalid_grant"},
		{"AS-CODE-08 another client", nil, "other", nil, 400, "invalid_grant"},
		{"AS-CODE-08 another public client", nil, "spa", nil, 400, "invalid_grant"},
		{"AS-CODE-09 no redirect_uri", nil, "web", []string{"redirect_uri", ""}, 400, "invalid_grant"},
		{"AS-CODE-09 another redirect_uri", nil, "web", []string{"redirect_uri", "https://web.example.com/cb"}, 400, "invalid_grant"},
		{"AS-CODE-10 a confidential client that only names itself", nil, "web", []string{"client_id", "web"}, 401, "invalid_client"},
		{"AS-CORE-06 a secret in header and body", nil, "web", []string{"client_secret", "secret-of-web"}, 400, "invalid_request"},
		{"AS-CORE-06 a secret and an assertion", nil, "web", []string{"client_id", "web", "client_secret", "secret-of-web", "client_assertion", "a.b.c"}, 400, "invalid_request"},
		{"a public client with a secret", []string{"client_id", "spa", "redirect_uri", spaURI}, "spa", []string{"redirect_uri", spaURI, "client_secret", "x"}, 401, "invalid_client"},
		{"AS-PKCE-01 a verifier that is too short", nil, "web", []string{"code_verifier", verifier[:42]}, 400, "invalid_request"},
		{"AS-PKCE-01 a verifier that is too long", nil, "web", []string{"code_verifier", strings.Repeat("a", 129)}, 400, "invalid_request"},
		{"AS-PKCE-01 a verifier with other characters", nil, "web", []string{"code_verifier", verifier[:42] + "+"}, 400, "invalid_request"},
		{"AS-PKCE-06 a wrong verifier", nil, "web", []string{"code_verifier", strings.Repeat("a", 43)}, 400, "invalid_grant"},
		{"AS-PKCE-06 the challenge as verifier", nil, "web", []string{"code_verifier", challenge}, 400, "invalid_grant"},
		{"AS-PKCE-07 no verifier", nil, "web", []string{"code_verifier", ""}, 400, "invalid_grant"},
		{"a scope that was not granted", nil, "web", []string{"scope", "orders:write"}, 400, "invalid_scope"},
		{"a resource that was not granted", nil, "web", []string{"resource", files}, 400, "invalid_target"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, s.post(t, "/oauth2/token", c.id, redemption(s.code(t, c.params...), c.pairs...)), c.status, c.code)
		})
	}
	t.Run("AS-DPOP-07 an origin is the same resource with and without its slash", func(t *testing.T) {
		for _, c := range []struct{ name, asked, redeemed, refreshed string }{
			{"asked for without it", strings.TrimSuffix(orders, "/"), orders, orders},
			{"redeemed without it", orders, strings.TrimSuffix(orders, "/"), orders},
			{"refreshed without it", orders, orders, strings.TrimSuffix(orders, "/")},
		} {
			got := s.redeem(t, "web", s.code(t, "resource", c.asked), "resource", c.redeemed).tokens(t)
			got = s.refresh(t, "web", got.refresh, "resource", c.refreshed).tokens(t)
			assert.Equal(t, orders, s.introspect(t, "orders-api", got.access).body["aud"], c.name)
		}
		uri := s.push(t, "web", request("resource", strings.TrimSuffix(orders, "/")))
		a := newBrowser().get(t, s.authorizeURL(form("client_id", "web", "request_uri", uri)))
		got := s.redeem(t, "web", a.back.Get("code")).tokens(t)
		assert.Equal(t, orders, s.introspect(t, "orders-api", got.access).body["aud"], "pushed without it")
	})
	t.Run("two resources", func(t *testing.T) {
		f := append2(redemption(s.code(t)), "resource", orders, "resource", files)
		refused(t, s.post(t, "/oauth2/token", "web", f), 400, "invalid_target")
	})
	t.Run("tokens that have to be bound are not given as bearer tokens", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/token", "bound", form("grant_type", "client_credentials")), 400, "invalid_request")
	})
	t.Run("AS-PKCE-08 a verifier where there was no challenge", func(t *testing.T) {
		const uri = "http://localhost:8080/authorization"
		code := s.code(t, "client_id", "legacy", "redirect_uri", uri, "code_challenge", "", "code_challenge_method", "")
		refused(t, s.redeem(t, "legacy", code, "redirect_uri", uri), 400, "invalid_grant")
	})
	t.Run("AS-CC-01 client credentials of a public client", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/token", "spa", form("grant_type", "client_credentials")), 400, "unauthorized_client")
	})
	t.Run("AS-CORE-12 a grant that is not the client's", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/token", "service", redemption("x")), 400, "invalid_grant")
		refused(t, s.post(t, "/oauth2/token", "web", form("grant_type", "client_credentials")), 400, "unauthorized_client")
	})
	t.Run("AS-IMPL-03 AS-CORE-12 a grant that is not offered", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/token", "web", form("grant_type", "password", "username", "alice", "password", "x")), 400, "unsupported_grant_type")
	})
	t.Run("AS-CORE-09 a wrong secret", func(t *testing.T) {
		r, err := http.NewRequest("POST", s.url+"/oauth2/token", strings.NewReader(redemption(s.code(t)).Encode()))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("web", "secret-of-other")
		res, err := http.DefaultClient.Do(r)
		a := read(t, res, err)
		refused(t, a, 401, "invalid_client")
		assert.Regexp(t, `^Basic realm=`, a.header.Get("WWW-Authenticate"))
	})
	t.Run("AS-CORE-08 a secret in the URL", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/token?client_secret=x", "web", redemption(s.code(t))), 400, "invalid_request")
	})
	t.Run("AS-CORE-05 GET", func(t *testing.T) {
		res, err := http.Get(s.url + "/oauth2/token?" + redemption("x").Encode())
		assert.Equal(t, 405, read(t, res, err).status)
	})
	for _, e := range s.saw(engine.Refused) {
		assert.NotContains(t, e.Client, "secret")
	}
}

// An unused registration expires; this one is used.
func TestClientsInUseAreKept(t *testing.T) {
	s := start(t)
	ctx := context.Background()
	c, secret, err := s.registry.Create(ctx, clients.Client{
		GrantTypes: []string{"client_credentials"}, Scopes: []string{"orders:read"}, Expires: time.Now().Add(time.Hour),
	}, true)
	require.NoError(t, err)
	ask := func(secret string) answer {
		return s.post(t, "/oauth2/token", "", form("grant_type", "client_credentials", "client_id", c.ID, "client_secret", secret))
	}
	expires := func() time.Time {
		c, err := s.registry.Get(ctx, c.ID)
		require.NoError(t, err)
		return c.Expires
	}
	refused(t, ask("wrong"), 401, "invalid_client")
	require.False(t, expires().IsZero())
	ask(secret).tokens(t)
	assert.True(t, expires().IsZero())
}

// Grants lose the scopes that the client or the API no longer has at the next refresh.
func TestRefreshAfterChanges(t *testing.T) {
	s := start(t)
	ctx := context.Background()
	c, secret, err := s.registry.Create(ctx, clients.Client{
		GrantTypes: []string{"authorization_code", "refresh_token"}, RedirectURIs: []string{webURI}, Scopes: []string{"orders:read", "orders:write"},
	}, true)
	require.NoError(t, err)
	refresh := func(token string) answer {
		return s.post(t, "/oauth2/token", "", form("grant_type", "refresh_token", "refresh_token", token, "client_id", c.ID, "client_secret", secret))
	}
	code := s.code(t, "client_id", c.ID, "scope", "orders:read orders:write")
	got := s.redeem(t, "", code, "client_id", c.ID, "client_secret", secret).tokens(t)
	for _, left := range [][]string{{"orders:write"}, {"files:read"}} {
		c, err := s.registry.Get(ctx, c.ID)
		require.NoError(t, err)
		c.Scopes = left
		require.NoError(t, s.registry.Update(ctx, *c))
		a := refresh(got.refresh)
		if left[0] == "files:read" {
			refused(t, a, 400, "invalid_grant")
			break
		}
		got = a.tokens(t)
		assert.Equal(t, "orders:write", got.scope)
	}
	require.NoError(t, s.registry.Delete(ctx, c.ID))
	refused(t, refresh(got.refresh), 401, "invalid_client")
}

func TestRedemption(t *testing.T) {
	s := start(t)
	t.Run("AS-PKCE-02 the challenge of RFC 7636 is that of its verifier", func(t *testing.T) {
		sum := sha256.Sum256([]byte(verifier))
		require.Equal(t, challenge, base64.RawURLEncoding.EncodeToString(sum[:]))
		assert.Equal(t, 200, s.redeem(t, "web", s.code(t)).status)
	})
	t.Run("AS-CORE-10 AS-CORE-11 the answer", func(t *testing.T) {
		a := s.redeem(t, "web", s.code(t))
		assert.Equal(t, "application/json", a.header.Get("Content-Type"))
		assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
		assert.Equal(t, "no-cache", a.header.Get("Pragma"))
		assert.Equal(t, "Bearer", a.body["token_type"])
		assert.EqualValues(t, 600, a.body["expires_in"])
		assert.Equal(t, "orders:read", a.body["scope"])
		assert.Regexp(t, `^[A-Z2-7]{52}$`, a.body["refresh_token"], "AS-CORE-14")
	})
	t.Run("AS-CORE-07 credentials in the body", func(t *testing.T) {
		assert.Equal(t, 200, s.redeem(t, "web", s.code(t), "client_id", "web", "client_secret", "secret-of-web").status)
	})
	t.Run("a client without refresh tokens gets none, and its own lifetime", func(t *testing.T) {
		a := s.redeem(t, "brief", s.code(t, "client_id", "brief"))
		assert.Empty(t, a.tokens(t).refresh)
		assert.EqualValues(t, 60, a.body["expires_in"])
	})
	t.Run("a narrower scope", func(t *testing.T) {
		a := s.redeem(t, "web", s.code(t, "scope", "orders:read orders:write"), "scope", "orders:write")
		assert.Equal(t, "orders:write", a.tokens(t).scope)
	})
	t.Run("AS-CODE-07 a code presented again is refused, and ends what it has brought", func(t *testing.T) {
		code := s.code(t)
		got := s.redeem(t, "web", code).tokens(t)
		require.True(t, s.active(t, got.access))
		refused(t, s.redeem(t, "web", code), 400, "invalid_grant")
		assert.False(t, s.active(t, got.access))
		refused(t, s.refresh(t, "web", got.refresh), 400, "invalid_grant")
		refused(t, s.redeem(t, "web", code), 400, "invalid_grant")
		assert.Len(t, s.saw(engine.CodeReused), 1)
	})
	t.Run("AS-CODE-08 a code that another client has presented is spent", func(t *testing.T) {
		code := s.code(t)
		refused(t, s.redeem(t, "other", code), 400, "invalid_grant")
		refused(t, s.redeem(t, "web", code), 400, "invalid_grant")
	})
	t.Run("AS-PKCE-06 a code that was presented with a wrong verifier is spent", func(t *testing.T) {
		code := s.code(t)
		refused(t, s.redeem(t, "web", code, "code_verifier", strings.Repeat("a", 43)), 400, "invalid_grant")
		refused(t, s.redeem(t, "web", code), 400, "invalid_grant")
	})
}

func TestCodeExpires(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration
		want  int
	}{
		"in time":  {59 * time.Second, 200},
		"too late": {60 * time.Second, 400},
	} {
		t.Run("AS-CODE-06 a code of 60 s redeemed "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := inProcess(t)
				code := h.code(t)
				time.Sleep(c.after)
				assert.Equal(t, c.want, h.token(t, redemption(code)).status)
			})
		})
	}
	t.Run("an interaction of 15 min", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := inProcess(t)
			h.asks(page)
			begun := h.do(t, "GET", "/oauth2/authorize?"+request().Encode(), nil, "")
			time.Sleep(15 * time.Minute)
			a := h.do(t, "POST", strings.TrimPrefix(begun.action(t, h.site), h.url), form("do", "allow"), begun.header.Get("Set-Cookie"))
			assert.Equal(t, 400, a.status)
		})
	})
}

// An inside is a site without a network, whose clock is that of a bubble.
type inside struct {
	*site
	mux *http.ServeMux
}

func inProcess(t testing.TB, change ...func(*config)) *inside {
	h := &inside{build(t, "https://as.example.com", change...), http.NewServeMux()}
	h.Routes(h.mux)
	return h
}

func (h *inside) do(t testing.TB, method, path string, f url.Values, cookie string) answer {
	t.Helper()
	r := httptest.NewRequest(method, h.url+path, strings.NewReader(f.Encode()))
	if f != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	return h.serve(t, r)
}

func (h *inside) serve(t testing.TB, r *http.Request) answer {
	t.Helper()
	w := httptest.NewRecorder()
	h.mux.ServeHTTP(w, r)
	return read(t, w.Result(), nil)
}

func (h *inside) code(t testing.TB, pairs ...string) string {
	t.Helper()
	return h.do(t, "GET", "/oauth2/authorize?"+request(pairs...).Encode(), nil, "").back.Get("code")
}

// token asks as web.
func (h *inside) token(t testing.TB, f url.Values) answer {
	t.Helper()
	return h.do(t, "POST", "/oauth2/token", append2(f, "client_id", "web", "client_secret", "secret-of-web"), "")
}

func TestSecureCookie(t *testing.T) {
	a := inProcess(t).do(t, "GET", "/oauth2/authorize?"+request().Encode(), nil, "")
	assert.Regexp(t, `^__Host-authorization=[A-Z2-7]{52}; Path=/; HttpOnly; Secure; SameSite=Lax$`, a.header.Get("Set-Cookie"))
}

func TestAccessTokens(t *testing.T) {
	s := start(t)
	before := time.Now().Unix()
	for _, c := range []struct {
		name, scope, audience, alg string
		profile                    jwks.Profile
		want                       map[string]any
		absent                     []string
	}{
		{"AS-CC-03 RFC 9068 by ES256", "orders:read", orders, "ES256", jwks.Profile{}, map[string]any{"scope": "orders:read"}, []string{"user_id", "permissions", "azp"}},
		{"of the profile user by EdDSA", "files:read", files, "EdDSA", jwks.Lenient(), map[string]any{"scope": []any{"files:read"}, "user_id": "alice", "user_type": "employee"}, []string{"permissions"}},
		{"of the profile permissions by RS256", "bank:pay", bank, "RS256", jwks.Profile{}, map[string]any{"scope": "bank:pay", "permissions": []any{"bank:pay"}, "azp": "web"}, []string{"user_id"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			token := s.login(t, "scope", c.scope).access
			header, claims := part(t, token, 0), part(t, token, 1)
			assert.Equal(t, "at+jwt", header["typ"])
			assert.Equal(t, c.alg, header["alg"])
			for name, want := range map[string]any{
				"iss": s.url, "sub": "employee:alice", "aud": c.audience, "client_id": "web", "acr": "pwd",
			} {
				assert.Equal(t, want, claims[name], name)
			}
			for name, want := range c.want {
				assert.Equal(t, want, claims[name], name)
			}
			for _, name := range c.absent {
				assert.NotContains(t, claims, name)
			}
			assert.NotEmpty(t, claims["jti"])
			assert.InDelta(t, before, claims["auth_time"], 120)
			assert.InDelta(t, before, claims["iat"], 120)
			assert.InDelta(t, claims["iat"].(float64)+600, claims["exp"], 0)

			v, err := jwks.New(jwks.Config{Issuer: s.url, Audience: []string{c.audience}, JWKSURL: s.url + "/oauth2/keys", Profile: c.profile})
			require.NoError(t, err)
			defer v.Close()
			got, err := v.Verify(context.Background(), token)
			require.NoError(t, err)
			assert.Equal(t, valetkey.NewScopes(c.scope), got.Scopes())
			assert.False(t, got.ByClient())
		})
	}
	t.Run("opaque", func(t *testing.T) {
		assert.Regexp(t, `^[A-Z2-7]{52}$`, s.login(t, "scope", "vault:open").access)
	})
	t.Run("of a client itself", func(t *testing.T) {
		claims := part(t, s.post(t, "/oauth2/token", "service", form("grant_type", "client_credentials", "scope", "files:read")).tokens(t).access, 1)
		assert.Equal(t, "service", claims["sub"])
		assert.Equal(t, []any{"files:read"}, claims["scope"])
		assert.NotContains(t, claims, "user_id")
		assert.NotContains(t, claims, "auth_time")
	})
	t.Run("after a rotation of the keys", func(t *testing.T) {
		old := s.login(t).access
		require.NoError(t, s.ring.RotateNow(context.Background(), "ES256"))
		fresh := s.login(t).access
		assert.NotEqual(t, part(t, old, 0)["kid"], part(t, fresh, 0)["kid"])
		assert.True(t, s.active(t, old))
		assert.True(t, s.active(t, fresh))
	})
}

// The client that most Go programs use.
func TestOAuth2Client(t *testing.T) {
	s := start(t)
	cfg := oauth2.Config{
		ClientID: "web", ClientSecret: "secret-of-web", RedirectURL: webURI, Scopes: []string{"orders:read", "orders:write"},
		Endpoint: oauth2.Endpoint{AuthURL: s.url + "/oauth2/authorize", TokenURL: s.url + "/oauth2/token"},
	}
	ctx, verifier := context.Background(), oauth2.GenerateVerifier()
	a := newBrowser().get(t, cfg.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)))
	require.Equal(t, "state", a.back.Get("state"))
	_, err := cfg.Exchange(ctx, "guess", oauth2.VerifierOption(verifier))
	var told *oauth2.RetrieveError
	require.ErrorAs(t, err, &told)
	assert.Equal(t, "invalid_grant", told.ErrorCode)

	first, err := cfg.Exchange(ctx, a.back.Get("code"), oauth2.VerifierOption(verifier))
	require.NoError(t, err)
	assert.Equal(t, "orders:read orders:write", first.Extra("scope"))
	again := *first
	again.Expiry = time.Now().Add(-time.Hour)
	second, err := cfg.TokenSource(ctx, &again).Token()
	require.NoError(t, err)
	assert.NotEqual(t, first.AccessToken, second.AccessToken)
	assert.NotEqual(t, first.RefreshToken, second.RefreshToken)
	assert.True(t, s.active(t, second.AccessToken))
}
