package signals_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/signals"
	"github.com/valetkey/valetkey/valetkeytest"
)

const logoutClient = "orders-app"

// logouts makes a receiver accept the logout tokens of the issuer of a, and nothing else.
func logouts(a *api, changes ...func(*signals.Config)) signals.Config {
	cfg := signals.Config{Delivery: signals.NoStream, Issuer: a.iss.URL, Guards: []signals.Guard{a.guard}, Client: a.iss.Client(),
		Logger: slog.New(slog.DiscardHandler), Logout: signals.LogoutConfig{Audience: []string{logoutClient, "other-app"}}}
	for _, c := range changes {
		c(&cfg)
	}
	return cfg
}

// logoutToken returns the logout token of a session, with changes.
func (a *api) logoutToken(sub, sid any, opts ...valetkeytest.Option) string {
	return a.iss.Token(append([]valetkeytest.Option{valetkeytest.Type("logout+jwt"), valetkeytest.Claim("aud", logoutClient),
		valetkeytest.Claim("sub", sub), valetkeytest.Claim("sid", sid), valetkeytest.Claim("client_id", nil), valetkeytest.Claim("scope", nil),
		valetkeytest.Claim("events", M{string(signals.Logout): M{}}), valetkeytest.Claim("iat", time.Now().Unix())}, opts...)...)
}

func logout(r *signals.Receiver, token string, changes ...func(*http.Request)) *httptest.ResponseRecorder {
	req := httptest.NewRequest("POST", "/backchannel-logout", strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, c := range changes {
		c(req)
	}
	w := httptest.NewRecorder()
	r.Logout().ServeHTTP(w, req)
	return w
}

func TestLogout(t *testing.T) {
	a, other := newAPI(t), newAPI(t)
	event := func(v any) valetkeytest.Option { return valetkeytest.Claim("events", v) }
	token := a.token("alice", "s1")
	require.Equal(t, 200, a.get(token))
	for _, test := range []struct {
		name  string
		token string
	}{
		{"BCL-02 another iss", a.logoutToken("alice", "s1", valetkeytest.Claim("iss", other.iss.URL))},
		{"BCL-02 the iss with a slash", a.logoutToken("alice", "s1", valetkeytest.Claim("iss", a.iss.URL+"/"))},
		{"BCL-02 another aud", a.logoutToken("alice", "s1", valetkeytest.Claim("aud", "another-app"))},
		{"BCL-02 the aud of the API", a.logoutToken("alice", "s1", valetkeytest.Claim("aud", valetkeytest.DefaultAudience))},
		{"BCL-02 no aud", a.logoutToken("alice", "s1", valetkeytest.Claim("aud", nil))},
		{"BCL-02 no iat", a.logoutToken("alice", "s1", valetkeytest.Claim("iat", nil))},
		{"BCL-02 an iat in the future", a.logoutToken("alice", "s1", valetkeytest.Claim("iat", time.Now().Add(time.Hour).Unix()))},
		{"BCL-02 an exp in the past", a.logoutToken("alice", "s1", valetkeytest.Claim("exp", time.Now().Add(-time.Minute).Unix()))},
		{"BCL-02 no exp", a.logoutToken("alice", "s1", valetkeytest.Claim("exp", nil))},
		{"BCL-02 no jti", a.logoutToken("alice", "s1", valetkeytest.Claim("jti", nil))},
		{"BCL-02 the signature of another issuer", other.logoutToken("alice", "s1", valetkeytest.Claim("iss", a.iss.URL))},
		{"BCL-02 the signature of nothing", a.logoutToken("alice", "s1") + "AA"},
		{"BCL-03 no events", a.logoutToken("alice", "s1", event(nil))},
		{"BCL-03 another event", a.logoutToken("alice", "s1", event(M{"https://example.com/event": M{}}))},
		{"BCL-03 the event is null", a.logoutToken("alice", "s1", event(M{string(signals.Logout): nil}))},
		{"BCL-03 the event is an array", a.logoutToken("alice", "s1", event(M{string(signals.Logout): []int{}}))},
		{"BCL-03 events is an array", a.logoutToken("alice", "s1", event([]string{string(signals.Logout)}))},
		{"BCL-04 a nonce", a.logoutToken("alice", "s1", valetkeytest.Claim("nonce", "n"))},
		{"BCL-04 a nonce that is null", a.logoutToken("alice", "s1", nullClaim("nonce"))},
		{"BCL-04 an empty nonce", a.logoutToken("alice", "s1", valetkeytest.Claim("nonce", ""))},
		{"BCL-05 neither sub nor sid", a.logoutToken(nil, nil)},
		{"BCL-05 an empty sub and no sid", a.logoutToken("", nil)},
		{"BCL-06 the typ of an access token", a.logoutToken("alice", "s1", valetkeytest.Type("at+jwt"))},
		{"BCL-06 the typ JWT", a.logoutToken("alice", "s1", valetkeytest.Type("JWT"))},
		{"BCL-06 the typ of a SET", a.logoutToken("alice", "s1", valetkeytest.Type("secevent+jwt"))},
		{"BCL-10 an access token", token},
		{"BCL-10 an ID token", a.iss.Token(valetkeytest.Type("JWT"), valetkeytest.Claim("aud", logoutClient), valetkeytest.Claim("nonce", "n"))},
		{"a sid that is too long", a.logoutToken("alice", strings.Repeat("x", 1025))},
		{"a sub that is not text", a.logoutToken(1, "s1")},
		{"nothing", ""},
	} {
		t.Run(test.name+" is refused", func(t *testing.T) {
			r := newReceiver(t, logouts(a))
			w := logout(r, test.token)
			assert.Equal(t, 400, w.Code)
			assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			assert.NotEmpty(t, errOf(t, w))
			assert.Equal(t, 200, a.get(token))
		})
	}
	for name, change := range map[string]func(*http.Request){
		"BCL-01 a GET": func(r *http.Request) { r.Method = "GET" },
		"BCL-01 a PUT": func(r *http.Request) { r.Method = "PUT" },
		"BCL-01 JSON":  func(r *http.Request) { r.Header.Set("Content-Type", "application/json") },
		"BCL-01 a JWT": func(r *http.Request) { r.Header.Set("Content-Type", "application/logout+jwt") },
		"in the query": func(r *http.Request) {
			r.URL.RawQuery = "logout_token=" + a.logoutToken("alice", "s1")
			r.Body = http.NoBody
		},
		"a second time": func(r *http.Request) { r.Body = readCloser("logout_token=a&logout_token=b") },
		"a huge form":   func(r *http.Request) { r.Body = readCloser("x=" + strings.Repeat("x", 20<<10)) },
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			w := logout(newReceiver(t, logouts(a)), a.logoutToken("alice", "s1"), change)
			assert.Contains(t, []int{400, 405}, w.Code)
			assert.Equal(t, 200, a.get(token))
		})
	}
	t.Run("BCL-06 JWT and no typ are accepted by option", func(t *testing.T) {
		r := newReceiver(t, logouts(a, func(cfg *signals.Config) { cfg.Logout.AllowUntyped = true }))
		for _, typ := range []string{"JWT", "", "logout+jwt", "application/logout+jwt"} {
			assert.Equal(t, 200, logout(r, a.logoutToken("carol", "s9", valetkeytest.Type(typ))).Code, typ)
		}
		assert.Equal(t, 400, logout(r, a.logoutToken("carol", "s9", valetkeytest.Type("at+jwt"))).Code)
		assert.Equal(t, 400, logout(r, a.iss.Token(valetkeytest.Type("JWT"), valetkeytest.Claim("aud", logoutClient))).Code, "an ID token has no events")
	})
	t.Run("BCL-10 a logout token is not an access token", func(t *testing.T) {
		for _, typ := range []string{"logout+jwt", "JWT"} {
			assert.Equal(t, 401, a.get(a.logoutToken("alice", "s1", valetkeytest.Type(typ), valetkeytest.Claim("aud", valetkeytest.DefaultAudience))))
		}
	})
	t.Run("without client IDs the handler answers 404", func(t *testing.T) {
		r := newReceiver(t, newTransmitter(t).config())
		assert.Equal(t, 404, logout(r, a.logoutToken("alice", "s1")).Code)
	})
	t.Run("without the keys it answers 503", func(t *testing.T) {
		a := newAPI(t)
		a.iss.KeySet.Down()
		assert.Equal(t, 503, logout(newReceiver(t, logouts(a)), a.logoutToken("alice", "s1")).Code)
	})
	t.Run("without the event in Events it is acknowledged, and revokes nothing", func(t *testing.T) {
		r := newReceiver(t, logouts(a, func(cfg *signals.Config) { cfg.Events = []signals.Event{signals.SessionRevoked} }))
		assert.Equal(t, 200, logout(r, a.logoutToken("alice", "s1")).Code)
		assert.Equal(t, 200, a.get(token))
	})

	t.Run("BCL-01 BCL-09 a form that is posted gets 200, and ends the session alone", func(t *testing.T) {
		second, bystander := a.token("alice", "s2"), a.token("bob", "s3")
		w := logout(newReceiver(t, logouts(a)), a.logoutToken("alice", "s1"))
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		assert.Equal(t, []int{401, 200, 200}, []int{a.get(token), a.get(second), a.get(bystander)})
	})
	t.Run("BCL-08 without sid all sessions of the user end, and those of others do not", func(t *testing.T) {
		tokens := []string{a.token("dave", "s4"), a.token("dave", "s5"), a.token("erin", "s6")}
		theirs := other.token("dave", "s4")
		r := newReceiver(t, logouts(a))
		require.Equal(t, 200, logout(r, a.logoutToken("dave", nil)).Code)
		assert.Equal(t, []int{401, 401, 200, 200}, []int{a.get(tokens[0]), a.get(tokens[1]), a.get(tokens[2]), other.get(theirs)})
	})
	t.Run("with Widen the user's tokens without sid end too", func(t *testing.T) {
		plain := a.token("frank", "", valetkeytest.Claim("sid", nil))
		require.Equal(t, 200, logout(newReceiver(t, logouts(a)), a.logoutToken("frank", "s7")).Code)
		assert.Equal(t, 200, a.get(plain))
		require.Equal(t, 200, logout(newReceiver(t, logouts(a, func(cfg *signals.Config) { cfg.Widen = true })), a.logoutToken("frank", "s7")).Code)
		assert.Equal(t, 401, a.get(plain))
	})
	t.Run("BCL-07 the same token again changes nothing, and the bound stays", func(t *testing.T) {
		s := &sink{}
		r := newReceiver(t, logouts(a, func(cfg *signals.Config) { cfg.Guards = []signals.Guard{s} }))
		issued := time.Now().Add(-20 * time.Second).Truncate(time.Second)
		again := a.logoutToken("grace", "s8", valetkeytest.Claim("iat", issued.Unix()))
		for range 2 {
			require.Equal(t, 200, logout(r, again).Code)
		}
		w := watch(t, r)
		require.Equal(t, []string{"sid s8"}, w.what())
		assert.Equal(t, issued.Add(time.Second).Unix(), w.last().Before.Unix())
		assert.Equal(t, issued.Add(time.Second+24*time.Hour).Unix(), w.last().Until.Unix())
	})
	t.Run("a receiver without a stream accepts no SETs", func(t *testing.T) {
		assert.Equal(t, 404, push(newReceiver(t, logouts(a)), newTransmitter(t).set()).Code)
	})
	t.Run("a receiver without a stream has caught up at once", func(t *testing.T) {
		r := newReceiver(t, logouts(a))
		run(t, r)
		assert.NoError(t, r.Ready(t.Context()))
		assert.True(t, watch(t, r).says(""))
		assert.NoError(t, r.Status().Err)
		require.Len(t, r.Health(), 1, "that of the keys")
		assert.Equal(t, valetkey.Ready, r.Health()[0].State)
	})
}

func readCloser(text string) io.ReadCloser { return io.NopCloser(strings.NewReader(text)) }

func TestGlobalRevocation(t *testing.T) {
	const endpoint = "https://api.example.com/global-token-revocation"
	a, okta, evil := newAPI(t), newAPI(t), newAPI(t)
	config := func(changes ...func(*signals.Config)) signals.Config {
		cfg := signals.Config{Delivery: signals.NoStream, Issuer: a.iss.URL, Guards: []signals.Guard{a.guard}, Resolve: people,
			Logger: slog.New(slog.DiscardHandler), GlobalRevocation: signals.GlobalRevocationConfig{Audience: []string{endpoint}, Issuer: okta.iss.URL}}
		for _, c := range changes {
			c(&cfg)
		}
		return cfg
	}
	// assertion returns the JWT that Okta sends.
	assertion := func(of *api, opts ...valetkeytest.Option) string {
		return of.iss.Token(append([]valetkeytest.Option{valetkeytest.Type("global-token-revocation+jwt"), valetkeytest.Claim("aud", endpoint),
			valetkeytest.Claim("sub", "client"), valetkeytest.Claim("nbf", time.Now().Add(-5*time.Minute).Unix()), valetkeytest.Claim("iat", time.Now().Unix())}, opts...)...)
	}
	call := func(r *signals.Receiver, token, body string) *httptest.ResponseRecorder {
		req := httptest.NewRequest("POST", "/global-token-revocation", strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		r.GlobalRevocation().ServeHTTP(w, req)
		return w
	}
	email := `{"sub_id":{"format":"email","email":"alice@example.com"}}`
	theirs := func(iss, sub string) string {
		return `{"sub_id":{"format":"iss_sub","iss":"` + iss + `","sub":"` + sub + `"}}`
	}

	for name, token := range map[string]string{
		"no token":                        "",
		"an opaque token":                 "opaque",
		"an access token":                 okta.iss.Token(valetkeytest.Claim("aud", endpoint)),
		"the typ JWT":                     assertion(okta, valetkeytest.Type("JWT")),
		"another iss":                     assertion(evil),
		"the iss, but the key of another": assertion(evil, valetkeytest.Claim("iss", okta.iss.URL)),
		"another aud":                     assertion(okta, valetkeytest.Claim("aud", "https://other.example.com")),
		"two audiences":                   assertion(okta, valetkeytest.Claim("aud", []string{endpoint, "https://other.example.com"})),
		"no exp":                          assertion(okta, valetkeytest.Claim("exp", nil)),
		"no iat":                          assertion(okta, valetkeytest.Claim("iat", nil)),
		"an exp in the past":              assertion(okta, valetkeytest.Claim("exp", time.Now().Add(-time.Minute).Unix())),
		"an nbf in the future":            assertion(okta, valetkeytest.Claim("nbf", time.Now().Add(time.Hour).Unix())),
		"a long life":                     assertion(okta, valetkeytest.Claim("exp", time.Now().Add(time.Hour).Unix())),
	} {
		t.Run("GTR-01 "+name+" gets 401", func(t *testing.T) {
			token1 := a.token("alice", "s")
			w := call(newReceiver(t, config()), token, email)
			assert.Equal(t, 401, w.Code)
			assert.Equal(t, "Bearer", w.Header().Get("WWW-Authenticate"))
			assert.Equal(t, 200, a.get(token1))
		})
	}
	t.Run("GTR-01 another scheme gets 401", func(t *testing.T) {
		req := httptest.NewRequest("POST", "/global-token-revocation", strings.NewReader(email))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "DPoP "+assertion(okta))
		w := httptest.NewRecorder()
		newReceiver(t, config()).GlobalRevocation().ServeHTTP(w, req)
		assert.Equal(t, 401, w.Code)
	})
	t.Run("GTR-01 a user of another issuer gets 403", func(t *testing.T) {
		assert.Equal(t, 403, call(newReceiver(t, config()), assertion(okta), theirs(evil.iss.URL, "alice@example.com")).Code)
	})
	t.Run("GTR-01 another sub gets 403", func(t *testing.T) {
		r := newReceiver(t, config(func(cfg *signals.Config) { cfg.GlobalRevocation.Subject = "client" }))
		assert.Equal(t, 403, call(r, assertion(okta, valetkeytest.Claim("sub", "other")), email).Code)
		assert.Equal(t, 404, call(r, assertion(okta), `{"sub_id":{"format":"email","email":"nobody@example.com"}}`).Code)
	})
	for name, test := range map[string]struct {
		body string
		code int
	}{
		"GTR-02 an unknown format":                {`{"sub_id":{"format":"catalog_item","id":"x"}}`, 400},
		"GTR-02 a complex subject":                {`{"sub_id":{"format":"complex","user":{"format":"email","email":"alice@example.com"}}}`, 400},
		"GTR-02 no subject":                       {`{}`, 400},
		"GTR-02 two subjects":                     {`{"sub_id":{"format":"email","email":"a@b"},"subject":{"format":"email","email":"c@d"}}`, 400},
		"GTR-02 a subject twice":                  {`{"sub_id":{"format":"email","email":"a@b"},"sub_id":{"format":"email","email":"c@d"}}`, 400},
		"GTR-02 no JSON":                          {`alice`, 400},
		"GTR-02 a body that is too long":          {`{"x":"` + strings.Repeat("x", 9<<10) + `"}`, 400},
		"GTR-02 an unknown user":                  {`{"sub_id":{"format":"email","email":"nobody@example.com"}}`, 404},
		"GTR-02 an unknown user of the sender":    {theirs(okta.iss.URL, "nobody"), 404},
		"GTR-02 a resolver that fails, for later": {`{"sub_id":{"format":"email","email":"down@example.com"}}`, 503},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.code, call(newReceiver(t, config()), assertion(okta), test.body).Code)
		})
	}
	for _, kind := range []string{"text/plain", "application/json; x", ""} {
		t.Run("GTR-02 a body of the type "+kind, func(t *testing.T) {
			req := httptest.NewRequest("POST", "/global-token-revocation", strings.NewReader(email))
			req.Header.Set("Content-Type", kind)
			req.Header.Set("Authorization", "Bearer "+assertion(okta))
			w := httptest.NewRecorder()
			newReceiver(t, config()).GlobalRevocation().ServeHTTP(w, req)
			assert.Equal(t, 400, w.Code)
			assert.Contains(t, w.Body.String(), "Content-Type")
		})
	}
	t.Run("GTR-02 without a resolver an email address is an unsupported format", func(t *testing.T) {
		assert.Equal(t, 400, call(newReceiver(t, config(func(cfg *signals.Config) { cfg.Resolve = nil })), assertion(okta), email).Code)
	})
	for name, body := range map[string]string{
		"by email":                          email,
		"by the sub at the sender":          theirs(okta.iss.URL, "alice@example.com"),
		"by the sub here":                   theirs("ISSUER", "alice"),
		"in the member of the first drafts": `{"subject":{"format":"email","email":"alice@example.com"}}`,
		"with members that are not known":   `{"sub_id":{"format":"email","email":"alice@example.com","x":1},"reason":"y"}`,
	} {
		t.Run("GTR-02 a user "+name+" gets 204, and the old tokens are refused", func(t *testing.T) {
			a := newAPI(t)
			r := newReceiver(t, config(a.of))
			body := strings.ReplaceAll(body, "ISSUER", a.iss.URL)
			old, bystander := a.token("alice", "s"), a.token("bob", "s")
			require.Equal(t, 200, a.get(old))
			w := call(r, assertion(okta), body)
			assert.Equal(t, 204, w.Code, w.Body.String())
			assert.Equal(t, []int{401, 200}, []int{a.get(old), a.get(bystander)})
			assert.Equal(t, map[string]uint64{"applied": 1}, r.Status().Outcomes)
		})
	}
	t.Run("a JWT that is used again revokes no token that was issued after it", func(t *testing.T) {
		s := &sink{}
		r := newReceiver(t, config(func(cfg *signals.Config) { cfg.Guards = []signals.Guard{s} }))
		issued := time.Now().Add(-4 * time.Minute).Truncate(time.Second)
		again := assertion(okta, valetkeytest.Claim("iat", issued.Unix()))
		require.Equal(t, 204, call(r, again, email).Code)
		assert.True(t, s.last().Before.IsZero() != s.last().At.IsZero())
		assert.WithinDuration(t, issued.Add(time.Second), later(s.last().Before, s.last().At), 0)
	})
	t.Run("without an audience the handler answers 404", func(t *testing.T) {
		assert.Equal(t, 404, call(newReceiver(t, logouts(a)), assertion(okta), email).Code)
	})
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
