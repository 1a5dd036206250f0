package middleware_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

const assertion = "Cf-Access-Jwt-Assertion"

func headerToken(origins ...string) func(*middleware.Config) {
	return func(c *middleware.Config) {
		c.Methods = []middleware.BearerMethod{middleware.HeaderToken(assertion, origins...)}
	}
}

func TestHeaderTokenReplacesAuthorization(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	token, other := iss.Token(valetkeytest.Scopes("orders:read")), iss.Token(valetkeytest.Subject("bob"), valetkeytest.Scopes("orders:read"))
	guard := newGuard(t, iss, headerToken())
	api := serve(t, guard.Handler(hello, scopes.All("orders:read")))
	plain := serve(t, newGuard(t, iss).Handler(hello))
	sent := func(values ...string) sender { return header(assertion, values...) }
	for _, c := range []struct {
		name, url string
		change    []func(*http.Request)
		status    int
		challenge string
	}{
		{"by default the header is ignored", plain, []func(*http.Request){sent(token)}, 401, `Bearer realm="api"`},
		{"no credentials", api, nil, 401, bare},
		{"Authorization is not read", api, []func(*http.Request){header("Authorization", "Bearer "+token)}, 401, bare},
		{"an empty value is not a token", api, []func(*http.Request){sent("")}, 401, bare},
		{"another header", api, []func(*http.Request){header("X-Cf-Access-Jwt-Assertion", token)}, 401, bare},
		{"two lines", api, []func(*http.Request){sent(token, token)}, 400, twice},
		{"two lines, one empty", api, []func(*http.Request){sent(token, "")}, 400, twice},
		{"two tokens in a line", api, []func(*http.Request){sent(token + "," + token)}, 400, odd},
		{"a scheme before the token", api, []func(*http.Request){sent("Bearer " + token)}, 400, odd},
		{"a token of the wrong API", api, []func(*http.Request){sent(iss.Token(valetkeytest.WrongAudience()))}, 401,
			`Bearer realm="api", error="invalid_token", error_description="the token is for another audience"`},
		{"too little scope", api, []func(*http.Request){sent(iss.Token())}, 403,
			`Bearer realm="api", error="insufficient_scope", error_description="the token lacks a scope that this request needs", scope="orders:read"`},
		{"a good token", api, []func(*http.Request){sent(token)}, 200, ""},
		{"a good token, and one of the application's in Authorization", api, []func(*http.Request){sent(token), header("Authorization", "Bearer "+other)}, 200, ""},
		{"a good token, and two lines of Authorization", api, []func(*http.Request){sent(token), header("Authorization", "DPoP x", "Basic eDp5")}, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := do(t, "GET", c.url, "", c.change...)
			assert.Equal(t, c.status, got.status, got.body)
			assert.Equal(t, c.challenge, got.challenge())
			if c.status == 200 {
				assert.Equal(t, "hello "+valetkeytest.DefaultSubject, got.body)
				assert.Equal(t, "private", got.header.Get("Cache-Control"), "RFC 9111, section 3.5 does not protect the response")
			}
		})
	}
	t.Run("Vary has the header that the response depends on", func(t *testing.T) {
		optional := serve(t, guard.Handler(hello, valetkey.Optional))
		assert.Equal(t, assertion, do(t, "GET", optional, "").header.Get("Vary"))
		assert.Equal(t, assertion, do(t, "GET", optional, "", sent(token)).header.Get("Vary"))
	})
	t.Run("a rejection does not depend on Authorization", func(t *testing.T) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Authorization"] = []string{"DPoP x"}
		d := guard.Reject(r, &valetkey.Error{Code: valetkey.InvalidRequest, Reason: valetkey.ReasonPathAmbiguous})
		assert.Equal(t, []string{`Bearer realm="api", error="invalid_request", error_description="` + valetkey.ReasonPathAmbiguous.Description() + `"`},
			d.Header()["Www-Authenticate"])
	})
	t.Run("the metadata does not offer Authorization", func(t *testing.T) {
		guard := newGuard(t, iss, headerToken(), func(c *middleware.Config) { c.Resource.ID = "https://api.example.com" })
		var metadata map[string]any
		require.NoError(t, json.Unmarshal(guard.MetadataJSON(), &metadata))
		assert.NotContains(t, metadata, "bearer_methods_supported")
		assert.NotContains(t, metadata, "dpop_bound_access_tokens_required")
	})
	t.Run("a token in another place counts too, and not both", func(t *testing.T) {
		guard := newGuard(t, iss, func(c *middleware.Config) {
			c.Methods = []middleware.BearerMethod{middleware.HeaderToken("X-Api-Token"), middleware.WebSocketProtocol("bearer.")}
		})
		api := serve(t, guard.Handler(socket))
		status, _ := handshake(t, api, "X-Api-Token: "+token, "Sec-WebSocket-Protocol: chat, bearer."+token)
		assert.Equal(t, 400, status)
		for _, line := range []string{"X-Api-Token: " + token, "x-api-token: " + token, "Sec-WebSocket-Protocol: chat, bearer." + token} {
			status, subject := handshake(t, api, line)
			assert.Equal(t, 101, status)
			assert.Equal(t, valetkeytest.DefaultSubject, subject)
		}
	})
}

// Only a header that replaces Authorization can carry the padding that a load balancer of AWS adds to each part.
func TestHeaderTokenPadding(t *testing.T) {
	asked := ""
	verifier := valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
		asked = raw
		return valetkey.NewToken(valetkey.TokenFields{Subject: "alice"}), nil
	})
	other, plain := guardWith(t, verifier, headerToken()), guardWith(t, verifier)
	for _, c := range []struct {
		name, token string
		accepted    bool
	}{
		{"padding within a part", "eyJ=x.eyJ.c2ln", false},
		{"padding alone", "eyJ.==.c2ln", false},
		{"an empty part with padding in another", "eyJ==..c2ln", false},
		{"another character", "eyJ==.e,yJ.c2ln", false},
		{"padding of each part", "eyJ0==.eyJ1cw=.c2ln==", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked = ""
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set(assertion, c.token)
			d := other.Decide(r)
			if !c.accepted {
				assert.Equal(t, 400, d.Status())
				assert.Empty(t, asked)
				return
			}
			assert.NoError(t, d.Err())
			assert.Equal(t, c.token, asked)
			asked = ""
			assert.Equal(t, 400, plain.DecideToken(t.Context(), c.token).Status())
			assert.Empty(t, asked)
		})
	}
}

// A stream whose token came in another header ends with it too.
func TestHeaderTokenStream(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss, headerToken(), cancels)
	opened, ended := make(chan struct{}), make(chan error, 1)
	api := serve(t, guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(opened)
		<-r.Context().Done()
		ended <- context.Cause(r.Context())
	})))
	go func() {
		<-opened
		assert.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: iss.URL, Subject: "alice"}))
	}()
	do(t, "GET", api, "", header(assertion, iss.Token(valetkeytest.Subject("alice"))))
	var refusal *valetkey.Error
	require.ErrorAs(t, <-ended, &refusal)
	assert.Equal(t, valetkey.ReasonRevoked, refusal.Reason)
}

// A proxy that logs users in turns its cookie into the header, whichever site has caused the request.
func TestHeaderTokenOrigin(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	token := iss.Token(valetkeytest.Subject("alice"))
	guard := newGuard(t, iss, headerToken("https://app.example.com"))
	for _, c := range []struct {
		name, method string
		header       http.Header
		refused      bool
	}{
		{"a POST from another site", "POST", http.Header{"Origin": {"https://evil.example"}}, true},
		{"a POST that the browser calls cross-site", "POST", http.Header{"Sec-Fetch-Site": {"cross-site"}}, true},
		{"a POST from another host of the site", "POST", http.Header{"Sec-Fetch-Site": {"same-site"}}, true},
		{"a POST from a sandboxed page", "POST", http.Header{"Origin": {"null"}}, true},
		{"a handshake from another site", "GET", http.Header{"Upgrade": {"websocket"}, "Origin": {"https://evil.example"}}, true},
		{"an extended CONNECT from another site", "CONNECT", http.Header{":protocol": {"websocket"}, "Origin": {"https://evil.example"}}, true},
		{"a plain GET from another site", "GET", http.Header{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}}, false},
		{"a POST from the own origin", "POST", http.Header{"Origin": {"https://api.example.com"}}, false},
		{"a POST that the browser calls same-origin, behind a proxy that changes the host", "POST", http.Header{"Origin": {"https://www.example.com"}, "Sec-Fetch-Site": {"same-origin"}}, false},
		{"a POST from a trusted origin", "POST", http.Header{"Origin": {"https://app.example.com"}, "Sec-Fetch-Site": {"cross-site"}}, false},
		{"a handshake from the own origin", "GET", http.Header{"Upgrade": {"websocket"}, "Origin": {"https://api.example.com"}}, false},
		{"a POST that no browser has sent", "POST", http.Header{}, false},
		{"a handshake that no browser has sent", "GET", http.Header{"Upgrade": {"websocket"}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "https://api.example.com/", nil)
			r.Method, r.Header = c.method, c.header
			r.Header.Set(assertion, token)
			err := guard.Decide(r).Err()
			if !c.refused {
				assert.NoError(t, err)
				return
			}
			var refusal *valetkey.Error
			require.ErrorAs(t, err, &refusal)
			assert.Equal(t, valetkey.NoCredentials, refusal.Code)
		})
	}
}

func TestHeaderTokenMistakes(t *testing.T) {
	proofs, err := dpop.New(dpop.Config{})
	require.NoError(t, err)
	x := middleware.HeaderToken("X-Token")
	for _, c := range []struct {
		name string
		cfg  middleware.Config
		want string
	}{
		{"no name", middleware.Config{Methods: []middleware.BearerMethod{middleware.HeaderToken("")}}, `middleware: Methods[0]: "" is not the name of a header`},
		{"a name with a colon", middleware.Config{Methods: []middleware.BearerMethod{middleware.HeaderToken("X-Token:")}}, `Methods[0]: "X-Token:" is not the name`},
		{"a name with a line break", middleware.Config{Methods: []middleware.BearerMethod{middleware.HeaderToken("X\r\nY")}}, `is not the name of a header`},
		{"two headers", middleware.Config{Methods: []middleware.BearerMethod{x, middleware.HeaderToken("X-Other")}}, `Methods[1]: a second header would replace Authorization`},
		{"DPoP", middleware.Config{Methods: []middleware.BearerMethod{x}, DPoP: proofs, Resource: middleware.Resource{ID: "https://a.example"}}, `Methods[0]: conflicts with DPoP`},
		{"the header of the certificate", middleware.Config{Methods: []middleware.BearerMethod{x}, ClientCertificate: middleware.PEMHeader("x-token"),
			Proxies: middleware.Proxies{Trusted: prefixes("10.0.0.0/8")}}, `Methods[0]: X-Token is the header of ClientCertificate`},
		{"an invalid origin", middleware.Config{Methods: []middleware.BearerMethod{middleware.HeaderToken("X-Token", "app.example.com")}}, `Methods[0]: "app.example.com" is not an origin`},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Verifier = valetkey.First()
			_, err := middleware.New(c.cfg)
			assert.ErrorContains(t, err, c.want)
		})
	}
	for _, name := range []string{"authorization", "Proxy-Authorization", "Cookie", "DPoP", "Host", "Origin", "Forwarded", "X-Forwarded-Proto", "Client-Cert",
		"Sec-WebSocket-Protocol", "Connection", "Upgrade", "Transfer-Encoding", "Content-Type", "Access-Control-Request-Headers", "If-None-Match"} {
		t.Run("the name "+name, func(t *testing.T) {
			_, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Methods: []middleware.BearerMethod{middleware.HeaderToken(name)}})
			assert.ErrorContains(t, err, "has another meaning")
		})
	}
	for _, name := range []string{"Cf-Access-Jwt-Assertion", "X-Goog-IAP-JWT-Assertion", "x-amzn-oidc-data", "X-Forwarded-Access-Token", "X_Token"} {
		t.Run("the name "+name, func(t *testing.T) {
			_, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Methods: []middleware.BearerMethod{middleware.HeaderToken(name)}})
			assert.NoError(t, err)
		})
	}
}

func TestRemoveCredentials(t *testing.T) {
	guard := guardWith(t, valetkey.First(), func(c *middleware.Config) {
		c.Methods = []middleware.BearerMethod{
			middleware.HeaderToken(assertion), middleware.Cookie("session", http.NewCrossOriginProtection()), middleware.WebSocketProtocol("bearer."),
		}
	})
	h := http.Header{
		"Authorization": {"Bearer secret"}, "Dpop": {"secret"}, assertion: {"secret"}, "Accept": {"text/plain"},
		"Cookie":                 {"a=1; session=secret; b=2", "session=secret"},
		"Sec-Websocket-Protocol": {"bearer.secret, chat", "bearer.secret"},
	}
	guard.RemoveCredentials(h)
	assert.Equal(t, http.Header{"Accept": {"text/plain"}, "Cookie": {"a=1; b=2"}, "Sec-Websocket-Protocol": {"chat"}}, h)

	alone := http.Header{"Cookie": {"a=1; ; session=secret;"}, "Sec-Websocket-Protocol": {"bearer.secret"}}
	guard.RemoveCredentials(alone)
	assert.Equal(t, http.Header{"Cookie": {"a=1"}}, alone)

	left := http.Header{"Cookie": {"a=1;b=2", "c=3"}, "Sec-Websocket-Protocol": {"chat,superchat", "x"}}
	want := left.Clone()
	guard.RemoveCredentials(left)
	assert.Equal(t, want, left, "without a token the lines stay as they are")
	guard.RemoveCredentials(http.Header{})
	assert.Equal(t, []string{"Authorization", "Dpop", assertion, "Cookie", "Sec-Websocket-Protocol"}, guard.CredentialHeaders())
	many := guardWith(t, valetkey.First(), func(c *middleware.Config) {
		protection := http.NewCrossOriginProtection()
		c.Methods = []middleware.BearerMethod{middleware.Query(), middleware.Form(0), middleware.APIKeyAuthorization(), middleware.Cookie("a", protection), middleware.Cookie("b", protection)}
	})
	assert.Equal(t, []string{"Authorization", "Dpop", "Cookie"}, many.CredentialHeaders())
	assert.Equal(t, "Authorization, Cookie", many.Decide(httptest.NewRequest("GET", "/", nil), valetkey.Optional).Header().Get("Vary"))
	plain := guardWith(t, valetkey.First(), func(*middleware.Config) {})
	assert.Equal(t, []string{"Authorization", "Dpop"}, plain.CredentialHeaders())
}

func TestRemoveOtherCredentials(t *testing.T) {
	const basic, bearer, cookie, key = "Basic eDp5", "Bearer secret", "session=secret", "Basic c2VjcmV0Og=="
	cookies, header := middleware.Cookie("session", http.NewCrossOriginProtection()), middleware.HeaderToken(assertion)
	keys, keyHeader := middleware.APIKeyAuthorization(), middleware.APIKeyHeader("X-Key")
	for _, c := range []struct {
		name          string
		methods       []middleware.BearerMethod
		method        string // of a request of another site; "": GET
		given, remain http.Header
	}{
		{"the token in Authorization", []middleware.BearerMethod{cookies, keys, keyHeader}, "", http.Header{"Authorization": {bearer}, "Cookie": {"a=1"}}, http.Header{"Authorization": {bearer}, "Cookie": {"a=1"}}},
		{"a proof", []middleware.BearerMethod{cookies}, "", http.Header{"Authorization": {"DPoP secret"}, "Dpop": {"secret"}}, http.Header{"Authorization": {"DPoP secret"}}},
		{"a cookie of another site beside it", []middleware.BearerMethod{cookies}, "POST", http.Header{"Authorization": {bearer}, "Cookie": {cookie}}, http.Header{"Authorization": {bearer}}},
		{"the token in a cookie", []middleware.BearerMethod{cookies, keyHeader}, "", http.Header{"Authorization": {basic}, "Dpop": {"x"}, "Cookie": {cookie}, "X-Key": {""}}, http.Header{"Cookie": {cookie}}},
		{"the token in the assertion", []middleware.BearerMethod{cookies, header}, "", http.Header{"Authorization": {bearer}, assertion: {"secret"}}, http.Header{assertion: {"secret"}}},
		{"the token in the assertion, and a cookie that the guard ignores", []middleware.BearerMethod{cookies, middleware.HeaderToken(assertion, "https://other.example")}, "POST",
			http.Header{assertion: {"secret"}, "Cookie": {cookie + "; b=2"}}, http.Header{assertion: {"secret"}, "Cookie": {"b=2"}}},
		{"the token in a cookie instead of the assertion", []middleware.BearerMethod{cookies, header}, "", http.Header{"Authorization": {bearer}, assertion: {""}, "Cookie": {cookie}}, http.Header{"Cookie": {cookie}}},
		{"the token in a cookie, and an assertion that the guard ignores", []middleware.BearerMethod{middleware.Cookie("session", trusting(t, "https://other.example")), header}, "POST",
			http.Header{assertion: {"other"}, "Cookie": {cookie}}, http.Header{"Cookie": {cookie}}},
		{"an API key in Authorization", []middleware.BearerMethod{cookies, keys, keyHeader}, "", http.Header{"Authorization": {"ApiKey secret"}, "Dpop": {"x"}, "Accept": {"a"}}, http.Header{"Authorization": {"ApiKey secret"}, "Accept": {"a"}}},
		{"an API key as the user of Basic", []middleware.BearerMethod{keys}, "", http.Header{"Authorization": {key}}, http.Header{"Authorization": {key}}},
		{"an API key in another header", []middleware.BearerMethod{keys, keyHeader}, "", http.Header{"Authorization": {"Digest x"}, "X-Key": {"secret"}}, http.Header{"X-Key": {"secret"}}},
		{"an API key in another header, and a cookie that the guard ignores", []middleware.BearerMethod{cookies, keyHeader}, "POST", http.Header{"Cookie": {cookie}, "X-Key": {"secret"}}, http.Header{"X-Key": {"secret"}}},
		{"an API key in another header, and Basic credentials that the guard ignores", []middleware.BearerMethod{keys, keyHeader}, "POST", http.Header{"Authorization": {key}, "X-Key": {"secret"}}, http.Header{"X-Key": {"secret"}}},
		{"a token in the query, and Basic credentials that the guard does not read", []middleware.BearerMethod{middleware.Query()}, "", http.Header{"Authorization": {basic}}, http.Header{}},
		{"a token in the query, and Digest credentials beside API keys", []middleware.BearerMethod{middleware.Query(), keys}, "", http.Header{"Authorization": {"Digest x"}}, http.Header{}},
		{"the token in a subprotocol", []middleware.BearerMethod{middleware.WebSocketProtocol("bearer."), keyHeader}, "",
			http.Header{"Upgrade": {"websocket"}, "Sec-Websocket-Protocol": {"chat, bearer.secret"}}, http.Header{"Upgrade": {"websocket"}, "Sec-Websocket-Protocol": {"chat, bearer.secret"}}},
		{"a subprotocol without a handshake", []middleware.BearerMethod{middleware.WebSocketProtocol("bearer."), keyHeader}, "",
			http.Header{"X-Key": {"secret"}, "Sec-Websocket-Protocol": {"bearer.secret"}}, http.Header{"X-Key": {"secret"}}},
		{"no token", []middleware.BearerMethod{cookies, keys, keyHeader}, "", http.Header{"Accept": {"text/plain"}}, http.Header{"Accept": {"text/plain"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			guard := guardWith(t, valetkey.First(), func(cfg *middleware.Config) { cfg.Methods = c.methods })
			r := httptest.NewRequest("GET", "https://api.example.com/", nil)
			r.Header = c.given.Clone()
			if c.method != "" {
				r.Method = c.method
				r.Header.Set("Origin", "https://other.example")
			}
			guard.RemoveOtherCredentials(c.given, r)
			assert.Equal(t, c.remain, c.given)
		})
	}
}

func trusting(t *testing.T, origin string) *http.CrossOriginProtection {
	protection := http.NewCrossOriginProtection()
	require.NoError(t, protection.AddTrustedOrigin(origin))
	return protection
}

// The response to a token in a cookie may not be shared either.
func TestCookieResponsesArePrivate(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss, func(c *middleware.Config) {
		c.Methods = []middleware.BearerMethod{middleware.Cookie("session", http.NewCrossOriginProtection())}
	})
	cookie := header("Cookie", "session="+iss.Token())
	got := do(t, "GET", serve(t, guard.Handler(hello)), "", cookie)
	require.Equal(t, 200, got.status)
	assert.Equal(t, "private", got.header.Get("Cache-Control"))
	optional := serve(t, guard.Handler(hello, valetkey.Optional))
	assert.Equal(t, "Authorization, Cookie", do(t, "GET", optional, "").header.Get("Vary"))
	assert.Equal(t, "Authorization, Cookie", do(t, "GET", optional, "", cookie).header.Get("Vary"))
	own := guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		io.WriteString(w, "x")
	}))
	assert.Equal(t, "no-store", do(t, "GET", serve(t, own), "", cookie).header.Get("Cache-Control"))
}
