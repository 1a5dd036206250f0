package engine_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/login"
)

// Errors that must not be sent to an application are shown to the user, regardless of the redirect URI in the request.
func TestAuthorizeWithoutRedirect(t *testing.T) {
	s := start(t)
	for _, c := range []struct {
		name   string
		params url.Values
	}{
		{"AS-CODE-02 no client_id", request("client_id", "")},
		{"AS-CODE-02 an unknown client", request("client_id", "nobody")},
		{"AS-CODE-02 no redirect_uri", request("redirect_uri", "")},
		{"AS-CORE-03 AS-CODE-02 an empty redirect_uri", append2(request("redirect_uri", ""), "redirect_uri", "")},
		{"AS-CODE-02 another client's redirect_uri", request("redirect_uri", spaURI)},
		{"AS-CORE-02 two redirect URIs", append2(request(), "redirect_uri", "https://evil.example.com/")},
		{"AS-CORE-02 the redirect_uri twice", append2(request(), "redirect_uri", webURI)},
		{"AS-CORE-02 two client ids", append2(request(), "client_id", "spa")},
		{"AS-CODE-03 another path", request("redirect_uri", "https://web.example.com/cb/../x?tenant=1")},
		{"AS-CODE-03 another query", request("redirect_uri", "https://web.example.com/cb?tenant=2")},
		{"AS-CODE-03 a longer query", request("redirect_uri", webURI+"&a=b")},
		{"AS-CODE-03 no query", request("redirect_uri", "https://web.example.com/cb")},
		{"AS-CODE-03 another letter case", request("redirect_uri", "HTTPS://WEB.example.com/cb?tenant=1")},
		{"AS-CODE-03 another port", request("redirect_uri", "https://web.example.com:8443/cb?tenant=1")},
		{"AS-CODE-03 the default port", request("redirect_uri", "https://web.example.com:443/cb?tenant=1")},
		{"AS-CODE-03 a user", request("redirect_uri", "https://a@web.example.com/cb?tenant=1")},
		{"AS-CODE-03 a suffix of the host", request("redirect_uri", "https://web.example.com.evil.example/cb?tenant=1")},
		{"AS-CODE-03 a fragment", request("redirect_uri", webURI+"#f")},
		{"AS-CODE-03 a line break", request("redirect_uri", webURI+"\n")},
		{"AS-CODE-04 http that is not loopback", request("redirect_uri", "http://web.example.com/cb?tenant=1")},
		{"AS-CODE-03 another loopback port, not native", request("client_id", "legacy", "redirect_uri", "http://localhost:9090/authorization")},
		{"AS-CODE-03 another path on loopback", request("client_id", "native", "redirect_uri", "http://127.0.0.1:9000/other")},
		{"AS-CODE-03 another loopback address", request("client_id", "native", "redirect_uri", "http://127.0.0.2:9000/cb")},
		{"AS-CODE-03 an invalid port", request("client_id", "native", "redirect_uri", "http://127.0.0.1:/cb")},
		{"AS-CODE-03 a port that is a host", request("client_id", "native", "redirect_uri", "http://127.0.0.1:80@evil.example/cb")},
		{"AS-CODE-03 a host that begins like loopback", request("client_id", "native", "redirect_uri", "http://127.0.0.1.evil.example/cb")},
		{"AS-CODE-03 https on loopback", request("client_id", "native", "redirect_uri", "https://127.0.0.1/cb")},
		{"a request_uri of the web", request("request_uri", "https://evil.example.com/r")},
		{"an unknown request_uri", request("request_uri", "urn:ietf:params:oauth:request_uri:"+strings.Repeat("A", 52))},
		{"a request that is too long", request("state", strings.Repeat("x", 40<<10))},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newBrowser().get(t, s.authorizeURL(c.params))
			assert.GreaterOrEqual(t, a.status, 400)
			assert.Less(t, a.status, 500)
			assert.Empty(t, a.header.Get("Location"))
			assert.Regexp(t, "^(invalid_request|request_uri_not_supported): ", a.text)
			assert.NotContains(t, a.text, "evil", "nothing of the request is shown")
		})
	}
	t.Run("a query that is malformed", func(t *testing.T) {
		a := newBrowser().get(t, s.authorizeURL(request())+"&a=%zz")
		assert.Equal(t, 400, a.status)
		assert.Empty(t, a.header.Get("Location"))
	})
}

func TestAuthorizeErrorsGoBack(t *testing.T) {
	s := start(t)
	for _, c := range []struct {
		name   string
		params url.Values
		code   string
	}{
		{"AS-CODE-01 no response_type", request("response_type", ""), "invalid_request"},
		{"AS-CODE-01 an unknown response_type", request("response_type", "codes"), "unsupported_response_type"},
		{"AS-CODE-01 AS-IMPL-01 response_type token", request("response_type", "token"), "unsupported_response_type"},
		{"AS-CORE-02 a scope twice", append2(request(), "scope", "orders:write"), "invalid_request"},
		{"AS-PKCE-03 no challenge", request("code_challenge", "", "code_challenge_method", ""), "invalid_request"},
		{"AS-PKCE-03 no challenge of a public client registered without PKCE", request("client_id", "legacy-spa", "redirect_uri", spaURI, "code_challenge", "", "code_challenge_method", ""), "invalid_request"},
		{"AS-PKCE-03 a method without a challenge", request("code_challenge", ""), "invalid_request"},
		{"AS-PKCE-04 plain", request("code_challenge_method", "plain"), "invalid_request"},
		{"AS-PKCE-04 an unknown method", request("code_challenge_method", "S512"), "invalid_request"},
		{"AS-PKCE-05 no method, which means plain", request("code_challenge_method", ""), "invalid_request"},
		{"AS-PKCE-05 plain of a client registered without PKCE", request("client_id", "legacy", "redirect_uri", "http://localhost:8080/authorization", "code_challenge_method", ""), "invalid_request"},
		{"a challenge that is too short", request("code_challenge", challenge[1:]), "invalid_request"},
		{"a challenge with other characters", request("code_challenge", "+"+challenge[1:]), "invalid_request"},
		{"an unknown scope", request("scope", "admin"), "invalid_scope"},
		{"another client's scope", request("client_id", "spa", "redirect_uri", spaURI, "scope", "orders:write"), "invalid_scope"},
		{"AS-ISS-05 only scopes that the client cannot have, such as that of ID tokens", request("scope", "openid offline_access"), "invalid_scope"},
		{"an invalid scope", request("scope", "orders:read \""), "invalid_scope"},
		{"scopes of two APIs", request("scope", "orders:read files:read"), "invalid_scope"},
		{"an unknown resource", request("resource", orders+"/"), "invalid_target"},
		{"two resources", append2(request("resource", orders), "resource", files), "invalid_target"},
		{"a scope of another API than the resource", request("resource", files), "invalid_scope"},
		{"a request object", request("request", "a.b.c"), "request_not_supported"},
		{"a response_mode", request("response_mode", "form_post"), "invalid_request"},
		{"an unknown prompt", request("prompt", "dance"), "invalid_request"},
		{"prompt none and login", request("prompt", "none login"), "invalid_request"},
		{"a max_age that is not a number", request("max_age", "-1"), "invalid_request"},
		{"an acr that the server does not offer", request("acr_values", "phr phrh"), "unmet_authentication_requirements"},
		{"an acr that the server does not offer, silently", request("acr_values", "phr", "prompt", "none"), "unmet_authentication_requirements"},
		{"AS-PAR-09 a client that has to push", request("client_id", "pushy"), "invalid_request"},
	} {
		t.Run("AS-CODE-05 AS-ISS-02 "+c.name, func(t *testing.T) {
			a := newBrowser().get(t, s.authorizeURL(c.params))
			require.Equal(t, 303, a.status, a.text)
			assert.Equal(t, c.params.Get("redirect_uri"), withQuery(a, c.params))
			assert.Equal(t, c.code, a.back.Get("error"))
			assert.Regexp(t, `^[\x20-\x21\x23-\x5b\x5d-\x7e]+$`, a.back.Get("error_description"))
			assert.Equal(t, "s/1 &", a.back.Get("state"))
			assert.Equal(t, s.url, a.back.Get("iss"))
			assert.Empty(t, a.back.Get("code"))
		})
	}
	assert.NotEmpty(t, s.saw(engine.Refused))
	assert.Empty(t, s.saw(engine.Granted))
}

// withQuery returns the destination of a redirect, with the query of the redirect URI itself.
func withQuery(a answer, params url.Values) string {
	if _, own, ok := strings.Cut(params.Get("redirect_uri"), "?"); ok {
		for name, v := range mustQuery(own) {
			if a.back.Get(name) == v[0] {
				return a.to + "?" + own
			}
		}
	}
	return a.to
}

func mustQuery(s string) url.Values {
	v, err := url.ParseQuery(s)
	if err != nil {
		panic(err)
	}
	return v
}

func TestAuthorize(t *testing.T) {
	s := start(t)
	t.Run("AS-CORE-01 AS-CODE-05 AS-CODE-11 AS-ISS-01 a code by GET", func(t *testing.T) {
		a := newBrowser().get(t, s.authorizeURL(request()))
		require.Equal(t, 303, a.status, a.text)
		assert.Equal(t, "https://web.example.com/cb", a.to)
		assert.Equal(t, "1", a.back.Get("tenant"), "the redirect URI keeps its query")
		assert.Equal(t, "s/1 &", a.back.Get("state"))
		assert.Equal(t, s.url, a.back.Get("iss"))
		assert.Regexp(t, `^[A-Z2-7]{52}$`, a.back.Get("code"), "AS-CORE-14: 5 bits each")
		assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
		assert.Equal(t, "no-referrer", a.header.Get("Referrer-Policy"))
		granted := s.saw(engine.Granted)
		require.Len(t, granted, 1)
		assert.Equal(t, "employee:alice", granted[0].Subject)
		assert.Equal(t, "orders:read", granted[0].Scope)
	})
	t.Run("AS-CORE-01 AS-CODE-11 a code by POST", func(t *testing.T) {
		a := newBrowser().post(t, s.url+"/oauth2/authorize", request())
		require.Equal(t, 303, a.status, a.text)
		assert.NotEmpty(t, a.back.Get("code"))
	})
	t.Run("a code at the path of older servers", func(t *testing.T) {
		a := newBrowser().get(t, s.url+"/oauth2/code?"+request().Encode())
		assert.NotEmpty(t, a.back.Get("code"))
	})
	t.Run("AS-CORE-03 AS-CORE-04 empty and unknown parameters do not count", func(t *testing.T) {
		a := newBrowser().get(t, s.authorizeURL(append2(request(), "colour", "red", "response_mode", "", "prompt", "", "nonce", "n")))
		assert.NotEmpty(t, a.back.Get("code"), a.back)
	})
	t.Run("without a state there is none in the answer", func(t *testing.T) {
		a := newBrowser().get(t, s.authorizeURL(request("state", "")))
		assert.False(t, a.back.Has("state"))
	})
	t.Run("a client registered without PKCE", func(t *testing.T) {
		a := newBrowser().get(t, s.authorizeURL(form("client_id", "legacy", "response_type", "code", "redirect_uri", "http://localhost:8080/authorization")))
		require.NotEmpty(t, a.back.Get("code"), a.back)
		got := s.post(t, "/oauth2/token", "legacy", form("grant_type", "authorization_code", "code", a.back.Get("code"), "redirect_uri", "http://localhost:8080/authorization"))
		assert.Equal(t, "orders:read", got.tokens(t).scope)
	})
	for _, uri := range []string{"http://127.0.0.1:53123/cb", "http://127.0.0.1/cb", "http://[::1]:65535/cb", "http://localhost:7001/cb", "com.example.app:/cb"} {
		t.Run("AS-CODE-03 a native application at "+uri, func(t *testing.T) {
			a := newBrowser().get(t, s.authorizeURL(request("client_id", "native", "redirect_uri", uri)))
			require.Equal(t, 303, a.status, a.text)
			assert.Equal(t, uri, a.to)
			assert.Equal(t, 200, s.redeem(t, "native", a.back.Get("code"), "redirect_uri", uri).status)
		})
	}
	t.Run("AS-CODE-12 a preflight gets no CORS headers", func(t *testing.T) {
		for _, method := range []string{"OPTIONS", "GET"} {
			r, err := http.NewRequest(method, s.authorizeURL(request()), nil)
			require.NoError(t, err)
			r.Header.Set("Origin", "https://evil.example.com")
			r.Header.Set("Access-Control-Request-Method", "GET")
			res, err := newBrowser().Do(r)
			a := read(t, res, err)
			for name := range a.header {
				assert.False(t, strings.HasPrefix(name, "Access-Control-"), name)
			}
		}
	})
}

// page is an Interact that shows a form, and takes its answer.
func page(w http.ResponseWriter, r *http.Request, in *flow.Interaction) (*flow.Decision, error) {
	switch r.PostFormValue("do") {
	case "allow":
		return allow(in), nil
	case "deny":
		return &flow.Decision{Denied: true}, nil
	}
	w.Header().Set("Content-Type", "text/html")
	http.SetCookie(w, &http.Cookie{Name: "page", Value: "1"})
	fmt.Fprintf(w, `<form action="%s" method="post">`, in.ContinueURL)
	return nil, nil
}

// action returns where the form of a page goes.
func (a answer) action(t testing.TB, s *site) string {
	t.Helper()
	require.Equal(t, 200, a.status, a.text)
	_, rest, ok := strings.Cut(a.text, `action="`)
	require.True(t, ok, a.text)
	path, _, _ := strings.Cut(rest, `"`)
	return strings.TrimSuffix(s.url, "/as") + path
}

func TestInteraction(t *testing.T) {
	s := start(t)
	s.asks(page)
	begin := func(t *testing.T, b *browser, pairs ...string) string {
		return b.get(t, s.authorizeURL(request(pairs...))).action(t, s)
	}
	t.Run("AS-CODE-13 a page cannot be framed", func(t *testing.T) {
		a := newBrowser().get(t, s.authorizeURL(request()))
		assert.Equal(t, "DENY", a.header.Get("X-Frame-Options"))
		assert.Contains(t, a.header.Get("Content-Security-Policy"), "frame-ancestors 'none'")
		assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
	})
	t.Run("AS-CODE-13 scripts and other sites cannot read the cookie", func(t *testing.T) {
		cookies := newBrowser().get(t, s.authorizeURL(request())).header.Values("Set-Cookie")
		require.Len(t, cookies, 2, "and the page may set its own")
		assert.Regexp(t, `^authorization=[A-Z2-7]{52}; Path=/; HttpOnly; SameSite=Lax$`, cookies[0])
	})
	t.Run("AS-CODE-13 AS-CODE-11 the user allows it, by a form that is answered with 303", func(t *testing.T) {
		b := newBrowser()
		at := begin(t, b)
		assert.Equal(t, at, b.get(t, at).action(t, s), "the page can be loaded again")
		a := b.post(t, at, form("do", "allow"))
		require.Equal(t, 303, a.status, a.text)
		assert.Equal(t, s.url, a.back.Get("iss"))
		assert.Equal(t, 200, s.redeem(t, "web", a.back.Get("code")).status)
	})
	t.Run("AS-CODE-05 AS-ISS-02 the user denies it", func(t *testing.T) {
		b := newBrowser()
		a := b.post(t, begin(t, b), form("do", "deny"))
		require.Equal(t, 303, a.status, a.text)
		assert.Equal(t, "access_denied", a.back.Get("error"))
		assert.Equal(t, "s/1 &", a.back.Get("state"))
		assert.Equal(t, s.url, a.back.Get("iss"))
	})
	t.Run("AS-CODE-13 a browser cannot answer for another one", func(t *testing.T) {
		b := newBrowser()
		at := begin(t, b)
		for name, other := range map[string]*browser{"without a cookie": newBrowser(), "with another": newBrowser()} {
			if name == "with another" {
				begin(t, other)
			}
			a := other.post(t, at, form("do", "allow"))
			assert.Equal(t, 400, a.status, name)
			assert.Empty(t, a.header.Get("Location"), name)
		}
		assert.NotEmpty(t, b.post(t, at, form("do", "allow")).back.Get("code"), "and the right one still can")
	})
	t.Run("an answer counts once", func(t *testing.T) {
		b := newBrowser()
		at := begin(t, b)
		require.NotEmpty(t, b.post(t, at, form("do", "allow")).back.Get("code"))
		for _, do := range []string{"allow", "deny"} {
			a := b.post(t, at, form("do", do))
			assert.Equal(t, 400, a.status)
			assert.Empty(t, a.header.Get("Location"))
		}
	})
	t.Run("the request of an application is not an answer", func(t *testing.T) {
		b := newBrowser()
		b.post(t, s.url+"/oauth2/authorize", append2(request(), "do", "allow")).action(t, s)
		b.get(t, s.authorizeURL(append2(request(), "do", "allow"))).action(t, s)
	})
	t.Run("two requests of one browser do not disturb each other", func(t *testing.T) {
		b := newBrowser()
		one, two := begin(t, b), begin(t, b, "scope", "orders:write")
		assert.NotEqual(t, one, two)
		assert.Equal(t, "orders:read", s.redeem(t, "web", b.post(t, one, form("do", "allow")).back.Get("code")).tokens(t).scope)
		assert.Equal(t, "orders:write", s.redeem(t, "web", b.post(t, two, form("do", "allow")).back.Get("code")).tokens(t).scope)
	})
	t.Run("a guess is not an interaction", func(t *testing.T) {
		for _, id := range []string{strings.Repeat("A", 52), "x", "%00", strings.Repeat("A", 5000)} {
			a := newBrowser().get(t, s.url+"/oauth2/authorize/"+id)
			assert.Equal(t, 400, a.status, id[:1])
		}
	})
}

func TestDecisions(t *testing.T) {
	s := start(t)
	some := &login.User{Subject: "customer:bob", Type: "customer", Name: "bob", Scopes: []string{"orders:read"}}
	for _, c := range []struct {
		name   string
		params url.Values
		decide func(in *flow.Interaction) (*flow.Decision, error)
		code   string
		scope  string
	}{
		{name: "nobody", decide: func(*flow.Interaction) (*flow.Decision, error) { return &flow.Decision{}, nil }, code: "access_denied"},
		{name: "no scope", decide: func(*flow.Interaction) (*flow.Decision, error) {
			return &flow.Decision{User: alice, AuthTime: time.Now()}, nil
		}, code: "access_denied"},
		{name: "a scope that was not asked for", decide: func(*flow.Interaction) (*flow.Decision, error) {
			return &flow.Decision{User: alice, AuthTime: time.Now(), Scopes: valetkey.NewScopes("orders:write")}, nil
		}, code: "access_denied"},
		{name: "a scope that is not the user's to allow", params: request("scope", "orders:write"), decide: func(in *flow.Interaction) (*flow.Decision, error) {
			return &flow.Decision{User: some, AuthTime: time.Now(), Scopes: in.Scopes}, nil
		}, code: "access_denied"},
		{name: "a login that is too old", params: request("max_age", "60"), decide: func(in *flow.Interaction) (*flow.Decision, error) {
			d := allow(in)
			d.AuthTime = time.Now().Add(-2 * time.Minute)
			return d, nil
		}, code: "login_required"},
		{name: "prompt none", params: request("prompt", "none"), decide: func(in *flow.Interaction) (*flow.Decision, error) {
			if in.Prompt != "none" {
				return nil, errors.New("the prompt is lost")
			}
			return &flow.Decision{Denied: true, Error: "login_required"}, nil
		}, code: "login_required"},
		{name: "step-up", params: request("acr_values", "mfa pwd"), decide: func(in *flow.Interaction) (*flow.Decision, error) {
			if len(in.ACRValues) != 2 || in.ACRValues[0] != "mfa" {
				return nil, errors.New("the values are lost")
			}
			return &flow.Decision{Denied: true, Error: "unmet_authentication_requirements"}, nil
		}, code: "unmet_authentication_requirements"},
		{name: "a login that is weaker than what was asked for", params: request("acr_values", "mfa phr"), decide: func(in *flow.Interaction) (*flow.Decision, error) {
			return allow(in), nil
		}, code: "unmet_authentication_requirements"},
		{name: "a login without a class", params: request("acr_values", "mfa pwd"), decide: func(in *flow.Interaction) (*flow.Decision, error) {
			d := allow(in)
			d.ACR = ""
			return d, nil
		}, code: "unmet_authentication_requirements"},
		{name: "a login of one of the classes asked for", params: request("acr_values", "mfa pwd"), decide: func(in *flow.Interaction) (*flow.Decision, error) {
			return allow(in), nil
		}, scope: "orders:read"},
		{name: "an error of no standard", decide: func(*flow.Interaction) (*flow.Decision, error) {
			return &flow.Decision{Denied: true, Error: "whatever"}, nil
		}, code: "access_denied"},
		{name: "AS-CORE-11 a part of what was asked for", params: request("scope", "orders:write orders:read"), decide: func(in *flow.Interaction) (*flow.Decision, error) {
			d := allow(in)
			d.Scopes = valetkey.NewScopes("orders:write")
			return d, nil
		}, scope: "orders:write"},
		{name: "AS-CORE-11 what the user may allow", params: request("scope", "orders:write orders:read"), decide: func(in *flow.Interaction) (*flow.Decision, error) {
			return &flow.Decision{User: some, AuthTime: time.Now(), Scopes: in.Scopes}, nil
		}, scope: "orders:read"},
		{name: "no scope is all of the client's at the default API", params: request("scope", ""), decide: func(in *flow.Interaction) (*flow.Decision, error) {
			if in.API.Audience != orders || in.MaxAge != -1 || in.RedirectURI != webURI || in.Client.ID != "web" {
				return nil, fmt.Errorf("%+v", in)
			}
			return allow(in), nil
		}, scope: "orders:read orders:write"},
		{name: "a login that is young enough", params: request("max_age", "0"), decide: func(in *flow.Interaction) (*flow.Decision, error) {
			if in.MaxAge != 0 {
				return nil, errors.New("the age is lost")
			}
			return allow(in), nil
		}, scope: "orders:read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.asks(func(_ http.ResponseWriter, _ *http.Request, in *flow.Interaction) (*flow.Decision, error) {
				return c.decide(in)
			})
			if c.params == nil {
				c.params = request()
			}
			a := newBrowser().get(t, s.authorizeURL(c.params))
			require.Equal(t, 303, a.status, a.text)
			assert.Equal(t, c.code, a.back.Get("error"))
			if c.code == "" {
				assert.Equal(t, c.scope, s.redeem(t, "web", a.back.Get("code")).tokens(t).scope)
			}
		})
	}
	t.Run("an outage is shown to the user, without its cause", func(t *testing.T) {
		s.asks(func(http.ResponseWriter, *http.Request, *flow.Interaction) (*flow.Decision, error) {
			return nil, errors.New("the directory is down")
		})
		a := newBrowser().get(t, s.authorizeURL(request()))
		assert.Equal(t, 500, a.status)
		assert.Empty(t, a.header.Get("Location"))
		assert.NotContains(t, a.text, "directory")
	})
}
