package authserver_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/valetkey/valetkey/authserver"
)

const (
	orders = "https://orders.example.com/" // JWT, ES256
	files  = "https://files.example.com"   // JWT, RS256
	vault  = "urn:example:vault"           // opaque
	// A client whose id and secret change when they are form-encoded.
	oddID, oddSecret = "odd client:1", "demo secret: 100% & more + %41"
)

func config(issuer string) authserver.Config {
	return authserver.Config{
		Issuer: issuer,
		APIs: []authserver.API{
			{Audience: orders, Scopes: []authserver.Scope{{Name: "orders:read", Description: "See orders"}, {Name: "orders:write", Description: "Change orders"}}},
			{Audience: files, Scopes: []authserver.Scope{{Name: "files:read", Description: "See files"}}, Algorithm: "RS256", Lifetime: time.Minute},
			{Audience: vault, Scopes: []authserver.Scope{{Name: "vault:open", Description: "Open the vault"}}, Tokens: authserver.Opaque},
		},
		Clients: []authserver.Client{
			{ID: "reader", Secret: "test-secret-of-reader", Scopes: []string{"orders:read"}},
			{ID: "writer", Secret: "test-secret-of-writer", Scopes: []string{"orders:write", "orders:read"}},
			{ID: "all", Secret: "test-secret-of-all", Scopes: []string{"orders:read", "files:read", "vault:open"}},
			{ID: "filer", Secret: "test-secret-of-filer", Scopes: []string{"orders:read", "files:read"}, DefaultAPI: files},
			{ID: oddID, Secret: oddSecret, Scopes: []string{"orders:read"}},
			{ID: "orders-api", Secret: "test-secret-of-orders-api", Introspects: []string{orders}},
			{ID: "vault-api", Secret: "test-secret-of-vault-api", Introspects: []string{vault}},
		},
	}
}

// site is a server on loopback and what it logged.
type site struct {
	*authserver.Server
	url string
	log *log
}

type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// start serves config with its issuer at path, changed by the functions.
func start(t testing.TB, path string, change ...func(*authserver.Config)) *site {
	t.Helper()
	web := httptest.NewUnstartedServer(nil)
	s := &site{url: "http://" + web.Listener.Addr().String() + path, log: new(log)}
	cfg := config(s.url)
	cfg.Logger = slog.New(slog.NewTextHandler(s.log, nil))
	for _, f := range change {
		f(&cfg)
	}
	var err error
	s.Server, err = authserver.New(t.Context(), cfg)
	require.NoError(t, err)
	web.Config.Handler = s
	web.Start()
	t.Cleanup(web.Close)
	return s
}

// answer is a response that has been read.
type answer struct {
	status int
	header http.Header
	text   string
	body   map[string]any
}

func read(t testing.TB, res *http.Response, err error) answer {
	t.Helper()
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	a := answer{status: res.StatusCode, header: res.Header, text: string(text)}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") && !strings.HasPrefix(a.text, "[") {
		require.NoError(t, json.Unmarshal(text, &a.body))
	}
	return a
}

// post sends a form as a client, by Basic unless id is "".
func (s *site) post(t testing.TB, path, id, secret string, form url.Values) answer {
	t.Helper()
	r, err := http.NewRequest("POST", s.url+path, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if id != "" {
		r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	}
	res, err := http.DefaultClient.Do(r)
	return read(t, res, err)
}

func form(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v
}

// token asks for a token as a real client does.
func (s *site) token(t testing.TB, id, resource string, scopes ...string) *oauth2.Token {
	t.Helper()
	c := clientcredentials.Config{
		ClientID: id, ClientSecret: "test-secret-of-" + id, Scopes: scopes,
		TokenURL: s.url + "/oauth2/token", AuthStyle: oauth2.AuthStyleInHeader,
	}
	if resource != "" {
		c.EndpointParams = form("resource", resource)
	}
	tok, err := c.Token(context.Background())
	require.NoError(t, err)
	return tok
}

func (s *site) introspect(t testing.TB, id, token string) answer {
	t.Helper()
	return s.post(t, "/oauth2/introspect", id, "test-secret-of-"+id, form("token", token))
}

// part decodes a part of a JWT without looking at its signature.
func part(t testing.TB, token string, i int) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	text, err := base64.RawURLEncoding.DecodeString(parts[i])
	require.NoError(t, err)
	var v map[string]any
	require.NoError(t, json.Unmarshal(text, &v))
	return v
}

const grant = "client_credentials"

func TestRefusedTokenRequests(t *testing.T) {
	s := start(t, "")
	for _, c := range []struct {
		name       string
		id, secret string // by Basic
		form       url.Values
		status     int
		code       string
	}{
		{"AS-CORE-02 a parameter that is repeated", "reader", "test-secret-of-reader", form("grant_type", grant, "scope", "orders:read", "scope", "orders:read"), 400, "invalid_request"},
		{"AS-CORE-02 a parameter that is repeated with no value", "reader", "test-secret-of-reader", form("grant_type", grant, "scope", "", "scope", ""), 400, "invalid_request"},
		{"AS-CORE-03 AS-CORE-12 an empty grant type is a missing one", "reader", "test-secret-of-reader", form("grant_type", ""), 400, "invalid_request"},
		{"AS-CORE-06 a secret in the header and in the body", "reader", "test-secret-of-reader", form("grant_type", grant, "client_id", "reader", "client_secret", "test-secret-of-reader"), 400, "invalid_request"},
		{"AS-CORE-06 a secret in the header and an assertion", "reader", "test-secret-of-reader", form("grant_type", grant, "client_assertion", "a.b.c"), 400, "invalid_request"},
		{"AS-CORE-06 another client's id in the body", "reader", "test-secret-of-reader", form("grant_type", grant, "client_id", "writer"), 400, "invalid_request"},
		{"AS-CORE-09 a wrong secret by Basic", "reader", "test-secret-of-writer", form("grant_type", grant), 401, "invalid_client"},
		{"AS-CORE-09 an empty secret by Basic", "reader", "", form("grant_type", grant), 401, "invalid_client"},
		{"AS-CORE-09 an unknown client by Basic", "nobody", "test-secret-of-reader", form("grant_type", grant), 401, "invalid_client"},
		{"AS-CORE-12 a wrong secret in the body", "", "", form("grant_type", grant, "client_id", "reader", "client_secret", "test-secret-of-writer"), 401, "invalid_client"},
		{"AS-CC-01 a client that sends no secret", "", "", form("grant_type", grant, "client_id", "reader"), 401, "invalid_client"},
		{"AS-CC-01 no client at all", "", "", form("grant_type", grant), 401, "invalid_client"},
		{"an assertion that cannot be verified", "", "", form("grant_type", grant, "client_id", "reader", "client_assertion", "a.b.c", "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"), 401, "invalid_client"},
		{"AS-CORE-12 a grant that is not offered", "reader", "test-secret-of-reader", form("grant_type", "password", "username", "a", "password", "b"), 400, "unsupported_grant_type"},
		{"AS-CORE-12 a client that gets no tokens", "orders-api", "test-secret-of-orders-api", form("grant_type", grant), 400, "unauthorized_client"},
		{"AS-CORE-12 a scope that is another client's", "reader", "test-secret-of-reader", form("grant_type", grant, "scope", "orders:read orders:write"), 400, "invalid_scope"},
		{"AS-CORE-12 an unknown scope", "reader", "test-secret-of-reader", form("grant_type", grant, "scope", "admin"), 400, "invalid_scope"},
		{"a part of a scope's name", "reader", "test-secret-of-reader", form("grant_type", grant, "scope", "orders"), 400, "invalid_scope"},
		{"openid", "reader", "test-secret-of-reader", form("grant_type", grant, "scope", "openid"), 400, "invalid_scope"},
		{"scopes separated by a tab", "writer", "test-secret-of-writer", form("grant_type", grant, "scope", "orders:read\torders:write"), 400, "invalid_scope"},
		{"scopes of two APIs", "all", "test-secret-of-all", form("grant_type", grant, "scope", "orders:read files:read"), 400, "invalid_scope"},
		{"a scope of another API than the resource", "all", "test-secret-of-all", form("grant_type", grant, "scope", "orders:read", "resource", files), 400, "invalid_scope"},
		{"a resource the client has no scope of", "reader", "test-secret-of-reader", form("grant_type", grant, "resource", files), 400, "invalid_scope"},
		{"a resource that is not known", "reader", "test-secret-of-reader", form("grant_type", grant, "resource", orders+"x"), 400, "invalid_target"},
		{"two resources", "all", "test-secret-of-all", form("grant_type", grant, "resource", orders, "resource", files), 400, "invalid_target"},
		{"a client of several APIs that names none", "all", "test-secret-of-all", form("grant_type", grant), 400, "invalid_target"},
		{"a form that is too long", "reader", "test-secret-of-reader", form("grant_type", grant, "state", strings.Repeat("x", 40<<10)), 400, "invalid_request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.post(t, "/oauth2/token", c.id, c.secret, c.form)
			assert.Equal(t, c.status, a.status, a.text)
			assert.Equal(t, c.code, a.body["error"])
			assert.NotContains(t, a.body, "access_token")
			assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
			assert.Equal(t, c.status == 401, strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Basic realm="))
			t.Run("AS-CORE-13 its description", func(t *testing.T) {
				assert.Regexp(t, `^[\x20-\x21\x23-\x5b\x5d-\x7e]+$`, a.body["error_description"])
			})
		})
	}
	assert.NotContains(t, s.log.String(), "test-secret", "secrets do not reach the log")
	assert.Contains(t, s.log.String(), `client=reader error=invalid_scope`)
}

func TestRefusedTransports(t *testing.T) {
	s := start(t, "")
	send := func(method, path, contentType, authorization, body string) answer {
		r, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("Content-Type", contentType)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		res, err := http.DefaultClient.Do(r)
		return read(t, res, err)
	}
	const urlencoded = "application/x-www-form-urlencoded"
	const body = "grant_type=client_credentials&client_id=reader&client_secret=test-secret-of-reader"
	require.Equal(t, 200, send("POST", "/oauth2/token", urlencoded+"; charset=UTF-8", "", body).status)

	t.Run("AS-CORE-05 GET", func(t *testing.T) {
		a := send("GET", "/oauth2/token?"+body, "", "", "")
		assert.Equal(t, 405, a.status)
		assert.Equal(t, "POST", a.header.Get("Allow"))
	})
	t.Run("AS-CORE-08 credentials in the query", func(t *testing.T) {
		assert.Equal(t, "invalid_request", send("POST", "/oauth2/token?"+body, urlencoded, "", "grant_type=client_credentials").body["error"])
		assert.Equal(t, "invalid_request", send("POST", "/oauth2/token?"+body, urlencoded, "", body).body["error"])
	})
	t.Run("the grant type in the query", func(t *testing.T) {
		assert.Equal(t, "invalid_request", send("POST", "/oauth2/token?grant_type=client_credentials", urlencoded, "", "client_id=reader&client_secret=test-secret-of-reader").body["error"])
	})
	t.Run("JSON", func(t *testing.T) {
		assert.Equal(t, "invalid_request", send("POST", "/oauth2/token", "application/json", "", `{"grant_type":"client_credentials"}`).body["error"])
	})
	t.Run("no content type", func(t *testing.T) {
		assert.Equal(t, "invalid_request", send("POST", "/oauth2/token", "", "", body).body["error"])
	})
	t.Run("a malformed form", func(t *testing.T) {
		assert.Equal(t, "invalid_request", send("POST", "/oauth2/token", urlencoded, "", body+"&scope=%zz").body["error"])
	})
	t.Run("another scheme than Basic", func(t *testing.T) {
		assert.Equal(t, 401, send("POST", "/oauth2/token", urlencoded, "Bearer abc", body).status)
	})
	t.Run("AS-CORE-07 a secret that is not form-encoded", func(t *testing.T) {
		basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("reader:100%"))
		assert.Equal(t, "invalid_request", send("POST", "/oauth2/token", urlencoded, basic, "grant_type=client_credentials").body["error"])
	})
	t.Run("two Authorization headers", func(t *testing.T) {
		r, err := http.NewRequest("POST", s.url+"/oauth2/token", strings.NewReader("grant_type=client_credentials"))
		require.NoError(t, err)
		r.Header.Set("Content-Type", urlencoded)
		r.SetBasicAuth("reader", "test-secret-of-reader")
		r.Header.Add("Authorization", r.Header.Get("Authorization"))
		res, err := http.DefaultClient.Do(r)
		assert.Equal(t, 401, read(t, res, err).status)
	})
	t.Run("endpoints that the engine has and the server does not offer", func(t *testing.T) {
		for _, path := range []string{"/authorize", "/token", "/register", "/userinfo", "/jwks", "/par"} {
			assert.Equal(t, 404, send("POST", path, urlencoded, "", body).status, path)
		}
	})
}

func TestTokens(t *testing.T) {
	s := start(t, "")

	t.Run("AS-CORE-07 AS-CORE-10 a token by Basic", func(t *testing.T) {
		a := s.post(t, "/oauth2/token", oddID, oddSecret, form("grant_type", grant))
		require.Equal(t, 200, a.status, a.text)
		assert.Equal(t, "application/json", a.header.Get("Content-Type"))
		assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
		assert.Equal(t, "no-cache", a.header.Get("Pragma"))
		assert.Equal(t, "Bearer", a.body["token_type"])
		assert.EqualValues(t, 600, a.body["expires_in"])
		assert.NotEmpty(t, a.body["access_token"])
	})
	t.Run("a token by client_secret_post", func(t *testing.T) {
		a := s.post(t, "/oauth2/token", "", "", form("grant_type", grant, "client_id", oddID, "client_secret", oddSecret))
		assert.Equal(t, 200, a.status, a.text)
	})
	t.Run("AS-CC-02 no refresh token", func(t *testing.T) {
		assert.Empty(t, s.token(t, "reader", "").RefreshToken)
	})
	t.Run("AS-CORE-04 an unknown parameter is ignored", func(t *testing.T) {
		assert.Equal(t, 200, s.post(t, "/oauth2/token", "reader", "test-secret-of-reader", form("grant_type", grant, "colour", "red")).status)
	})
	t.Run("AS-CORE-03 AS-CORE-11 an empty scope is an omitted one and means all of the client's", func(t *testing.T) {
		a := s.post(t, "/oauth2/token", "writer", "test-secret-of-writer", form("grant_type", grant, "scope", "", "resource", ""))
		require.Equal(t, 200, a.status, a.text)
		assert.Equal(t, "orders:read orders:write", a.body["scope"])
	})
	t.Run("a scope that is asked for is granted alone", func(t *testing.T) {
		assert.Equal(t, "orders:read", s.token(t, "writer", "", "orders:read").Extra("scope"))
	})

	for _, c := range []struct {
		name, id, resource string
		scopes             []string
		aud, scope, alg    string
	}{
		{"the API of the resource", "all", files, nil, files, "files:read", "RS256"},
		{"the API of the scopes", "all", "", []string{"orders:read"}, orders, "orders:read", "ES256"},
		{"the default API", "filer", "", nil, files, "files:read", "RS256"},
		{"a scope of another API than the default", "filer", "", []string{"orders:read"}, orders, "orders:read", "ES256"},
		{"the only API", "reader", "", nil, orders, "orders:read", "ES256"},
	} {
		t.Run("the audience is "+c.name, func(t *testing.T) {
			token := s.token(t, c.id, c.resource, c.scopes...).AccessToken
			header, claims := part(t, token, 0), part(t, token, 1)
			assert.Equal(t, c.aud, claims["aud"])
			assert.Equal(t, c.scope, claims["scope"])
			assert.Equal(t, c.alg, header["alg"])
		})
	}
	t.Run("AS-CC-03 a JWT of RFC 9068 whose subject is the client", func(t *testing.T) {
		before := time.Now().Unix()
		token := s.token(t, "reader", "").AccessToken
		header, claims := part(t, token, 0), part(t, token, 1)
		assert.Equal(t, "at+jwt", header["typ"])
		assert.Equal(t, s.Issuer(), claims["iss"])
		assert.Equal(t, "reader", claims["sub"])
		assert.Equal(t, "reader", claims["client_id"])
		assert.NotEmpty(t, claims["jti"])
		assert.InDelta(t, before, claims["iat"], 120)
		assert.InDelta(t, claims["iat"], claims["exp"].(float64)-600, 0)
		assert.NotEqual(t, claims["jti"], part(t, s.token(t, "reader", "").AccessToken, 1)["jti"])
	})
	t.Run("AS-CORE-14 an opaque token has more than 160 random bits and reveals nothing", func(t *testing.T) {
		seen := map[string]bool{}
		for range 100 {
			token := s.token(t, "all", vault).AccessToken
			assert.Regexp(t, `^[A-Z2-7]{52}$`, token) // 5 bits each
			seen[token] = true
		}
		assert.Len(t, seen, 100)
	})
	t.Run("the log reports tokens without containing them", func(t *testing.T) {
		token := s.token(t, "all", vault).AccessToken
		assert.Contains(t, s.log.String(), "msg=\"token issued\" client=all audience=urn:example:vault scope=vault:open format=opaque")
		assert.NotContains(t, s.log.String(), token)
		assert.NotContains(t, s.log.String(), "test-secret")
		assert.NotContains(t, s.log.String(), "eyJ")
	})
}
