package authserver_test

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/internal/costs"
	"github.com/valetkey/valetkey/authserver/internal/handoff"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
)

const loginPage = "https://login.example.com/start?tenant=1"

// keyOf returns a key pair of a login page.
var keyOf = sync.OnceValue(func() *jose.PrivateKey {
	k, err := jose.GenerateKey("EdDSA", "page-1")
	if err != nil {
		panic(err)
	}
	return k
})

// handsOff hands log-ins to a page with keyOf.
func handsOff(c *authserver.Config) {
	c.Login = authserver.Handoff{
		Redirect: loginPage, PublicKey: `{"keys":[` + string(keyOf().PublicJWK()) + `]}`, UserType: "person", ACRValues: []string{"pwd", "phr"},
	}
	c.Clients = append(c.Clients,
		authserver.Client{ID: "web", Name: "The Web", AuthMethod: "none", RedirectURIs: []string{webURI}, Scopes: []string{"orders:read", "orders:write"}, Trusted: true},
		authserver.Client{ID: "asking", AuthMethod: "none", RedirectURIs: []string{webURI}, Scopes: []string{"orders:read", "orders:write"}},
	)
}

// A visitor is a browser that follows no redirects by itself.
type visitor struct {
	t      testing.TB
	client *http.Client
}

func newVisitor(t testing.TB) *visitor {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	return &visitor{t, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (v *visitor) get(to string) answer {
	v.t.Helper()
	res, err := v.client.Get(to)
	return read(v.t, res, err)
}

// to loads a URL and returns where it redirects.
func (v *visitor) to(at string) *url.URL {
	v.t.Helper()
	a := v.get(at)
	require.Equal(v.t, 303, a.status, a.text)
	u, err := url.Parse(a.header.Get("Location"))
	require.NoError(v.t, err)
	base, err := url.Parse(at)
	require.NoError(v.t, err)
	return base.ResolveReference(u)
}

// authorizeURL returns an authorization request of a client; more parameters replace those given.
func (s *site) authorizeURL(client string, more ...string) string {
	q := form("response_type", "code", "client_id", client, "redirect_uri", webURI, "scope", "orders:read orders:write", "state", "a state",
		"code_challenge", challenge, "code_challenge_method", "S256")
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return s.url + "/oauth2/authorize?" + q.Encode()
}

// challengeOf begins a log-in in the browser, and returns its challenge.
func (v *visitor) challengeOf(at string) string {
	v.t.Helper()
	to := v.to(at)
	require.Equal(v.t, "login.example.com", to.Host, to)
	require.Equal(v.t, "1", to.Query().Get("tenant"))
	id := to.Query().Get("login_challenge")
	require.Len(v.t, id, 52)
	return id
}

// claims returns the claims of an answer, changed by pairs; a nil value removes a claim.
func (s *site) claims(id string, pairs ...any) map[string]any {
	now := time.Now().Unix()
	c := map[string]any{"aud": s.Issuer(), "challenge": id, "iat": now, "exp": now + 240, "jti": rand.Text(), "sub": "alice", "auth_time": now, "acr": "pwd"}
	for i := 0; i < len(pairs); i += 2 {
		c[pairs[i].(string)] = pairs[i+1]
	}
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func signed(t testing.TB, k *jose.PrivateKey, typ string, claims map[string]any) string {
	t.Helper()
	text, err := json.Marshal(claims)
	require.NoError(t, err)
	raw, err := k.Sign(map[string]any{"typ": typ}, text)
	require.NoError(t, err)
	return raw
}

func (s *site) tell(t testing.TB, path, jwt string) answer {
	t.Helper()
	return send(t, "POST", s.url+path, jwt, "Content-Type", "application/jwt")
}

// says sends a signed answer.
func (s *site) says(t testing.TB, id string, pairs ...any) answer {
	t.Helper()
	return s.tell(t, "/login/answer", signed(t, keyOf(), "login-answer+jwt", s.claims(id, pairs...)))
}

// answered sends a signed answer, and returns where the browser is sent.
func (s *site) answered(t testing.TB, id string, pairs ...any) string {
	t.Helper()
	a := s.says(t, id, pairs...)
	require.Equal(t, 200, a.status, a.text)
	return a.body["redirect_to"].(string)
}

// describes reads a challenge.
func (s *site) describes(t testing.TB, id string) answer {
	t.Helper()
	now := time.Now().Unix()
	return s.tell(t, "/login/challenge", signed(t, keyOf(), "login-challenge+jwt", map[string]any{"aud": s.Issuer(), "challenge": id, "exp": now + 240}))
}

// redeemed redeems the code that a browser was led to, and returns the claims of the token.
func (s *site) redeemed(t testing.TB, client string, to *url.URL) map[string]any {
	t.Helper()
	require.NotEmpty(t, to.Query().Get("code"), to)
	a := s.post(t, "/oauth2/token", "", "", form("grant_type", "authorization_code", "client_id", client, "code", to.Query().Get("code"),
		"redirect_uri", webURI, "code_verifier", verifier))
	require.Equal(t, 200, a.status, a.text)
	return part(t, a.body["access_token"].(string), 1)
}

// A log-in that the page has answered before the operator ended everything of the user is not used afterwards.
func TestAnswersEndWithTheirUser(t *testing.T) {
	s := start(t, "/as", handsOff)
	v, bystander := newVisitor(t), newVisitor(t)
	kept := s.answered(t, v.challengeOf(s.authorizeURL("web")), "sub", "dave")
	others := s.answered(t, bystander.challengeOf(s.authorizeURL("web")), "sub", "carol")
	s.RevokeUser(t.Context(), "person:dave") // there is nothing to end yet
	a := v.get(kept)
	assert.Equal(t, 400, a.status)
	assert.Contains(t, a.text, "expired")
	v.challengeOf(s.authorizeURL("web")) // no user is logged in
	s.redeemed(t, "web", bystander.to(bystander.to(others).String()))
	again := s.answered(t, v.challengeOf(s.authorizeURL("web")), "sub", "dave")
	assert.Equal(t, "person:dave", s.redeemed(t, "web", v.to(v.to(again).String()))["sub"], "the page has let the user in again")
}

func TestHandoffRefusesMessages(t *testing.T) {
	s := start(t, "/as", handsOff)
	other, err := jose.GenerateKey("EdDSA", "page-1")
	require.NoError(t, err)
	id := newVisitor(t).challengeOf(s.authorizeURL("web"))
	now := time.Now().Unix()
	ok := func(pairs ...any) string { return signed(t, keyOf(), "login-answer+jwt", s.claims(id, pairs...)) }
	secret, err := jose.SignSecret(keyOf().PublicJWK(), "HS256", map[string]any{"typ": "login-answer+jwt"}, []byte(`{}`))
	require.NoError(t, err)
	for _, c := range []struct{ name, jwt, code, words string }{
		{"no JWT", "x", "invalid_request", "the body is not a signed JWT"},
		{"a body that is too long", strings.Repeat("x", 9<<10), "invalid_request", "longer than 8192 bytes"},
		{"a signature of another key with the same kid", signed(t, other, "login-answer+jwt", s.claims(id)), "invalid_signature", "no configured key"},
		{"a signature by the text of the public key", secret, "invalid_signature", "no configured key"},
		{"a question", signed(t, keyOf(), "login-challenge+jwt", s.claims(id)), "invalid_request", "typ:"},
		{"an access token", signed(t, keyOf(), "at+jwt", s.claims(id)), "invalid_request", "typ:"},
		{"a JWT without a type", signed(t, keyOf(), "", s.claims(id)), "invalid_request", "typ:"},
		{"no audience", ok("aud", nil), "invalid_request", "aud:"},
		{"another server", ok("aud", "https://other.example.com"), "invalid_request", "aud:"},
		{"the slash of another issuer", ok("aud", s.Issuer()+"/"), "invalid_request", "aud:"},
		{"two servers", ok("aud", []string{s.Issuer(), "https://other.example.com"}), "invalid_request", "aud:"},
		{"no expiry", ok("exp", nil), "invalid_request", "exp: required"},
		{"an expired JWT", ok("exp", now-31), "invalid_request", "exp: the JWT has expired"},
		{"a JWT for hours", ok("exp", now+3600), "invalid_request", "exp: more than"},
		{"a JWT of tomorrow", ok("iat", now+3600), "invalid_request", "iat:"},
		{"no challenge", ok("challenge", nil), "invalid_request", "challenge: required"},
		{"no challenge of this server", ok("challenge", "x"), "unknown_challenge", "expired, or never existed"},
		{"another challenge", ok("challenge", strings.Repeat("A", 52)), "unknown_challenge", "expired, or never existed"},
		{"no jti", ok("jti", nil), "invalid_request", "jti:"},
		{"neither a subject nor an error", ok("sub", nil), "invalid_request", "sub:"},
		{"a subject with a space", ok("sub", "al ice"), "invalid_request", "sub:"},
		{"a subject that is too long", ok("sub", strings.Repeat("a", 256)), "invalid_request", "sub:"},
		{"a subject that is a number", ok("sub", 7), "invalid_request", "sub is not a string"},
		{"a subject and an error", ok("error", "access_denied"), "invalid_request", "error: cannot be combined with sub"},
		{"an unknown error", ok("sub", nil, "error", "server_error"), "invalid_request", "error:"},
		{"no time of the log-in", ok("auth_time", nil), "invalid_request", "auth_time: required"},
		{"a log-in of tomorrow", ok("auth_time", now+3600), "invalid_request", "auth_time: in the future"},
		{"an acr that is not configured", ok("acr", "mfa"), "invalid_request", `acr: "mfa" is not one of login.acr_values, [pwd phr]`},
		{"a name with a line break", ok("name", "Alice\nadmin"), "invalid_request", "name:"},
		{"scopes that are null", ok("scope", json.RawMessage("null")), "invalid_request", "scope"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.tell(t, "/login/answer", c.jwt)
			assert.Equal(t, c.code, a.body["error"], a.text)
			assert.Contains(t, a.body["error_description"], c.words)
			assert.GreaterOrEqual(t, a.status, 400)
			assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
		})
	}
	t.Run("a form", func(t *testing.T) {
		assert.Equal(t, 415, send(t, "POST", s.url+"/login/answer", ok(), "Content-Type", "application/x-www-form-urlencoded").status)
	})
	t.Run("an answer is not a question", func(t *testing.T) {
		assert.Equal(t, "invalid_request", s.tell(t, "/login/challenge", ok()).body["error"])
	})
	t.Run("only the page reads a challenge", func(t *testing.T) {
		question := map[string]any{"aud": s.Issuer(), "challenge": id, "exp": now + 240}
		assert.Equal(t, "invalid_signature", s.tell(t, "/login/challenge", signed(t, other, "login-challenge+jwt", question)).body["error"])
	})
	t.Run("no page of another site calls the back channel", func(t *testing.T) {
		a := send(t, "OPTIONS", s.url+"/login/answer", "", "Origin", "https://evil.example")
		assert.Empty(t, a.header.Get("Access-Control-Allow-Origin"))
	})
	assert.NotContains(t, s.log.String(), id, "a challenge is not logged")
}

func TestHandoff(t *testing.T) {
	s := start(t, "/as", handsOff, func(c *authserver.Config) { c.Portal.Developers = []string{"person"} })

	t.Run("a log-in, and the page learns what it is for", func(t *testing.T) {
		v := newVisitor(t)
		first := v.to(s.authorizeURL("asking", "login_hint", "alice@example.com", "ui_locales", "en de", "acr_values", "phr pwd", "max_age", "60", "resource", orders))
		assert.Equal(t, s.Issuer(), first.Query().Get("iss"))
		id := first.Query().Get("login_challenge")
		about := s.describes(t, id)
		require.Equal(t, 200, about.status, about.text)
		assert.InDelta(t, time.Now().Add(15*time.Minute).Unix(), about.body["expires_at"], 60)
		delete(about.body, "expires_at")
		assert.Equal(t, map[string]any{
			"client":   map[string]any{"client_id": "asking", "approved": true},
			"resource": orders, "scope": "orders:read orders:write", "acr_values": []any{"phr", "pwd"}, "max_age": 60.0, "login_hint": "alice@example.com", "ui_locales": "en de",
		}, about.body)

		back := s.answered(t, id, "name", "Alice Example", "acr", "phr", "scope", "orders:read files:read")
		assert.True(t, strings.HasPrefix(back, s.Issuer()+"/login/return?"), back)
		page := v.get(v.to(back).String())
		require.Equal(t, 200, page.status, page.text)
		assert.Contains(t, page.text, "See orders")
		assert.Contains(t, page.text, "your account is not permitted to allow") // what the answer does not allow
	})
	t.Run("the token has acr and auth_time, and the scopes that the answer allows", func(t *testing.T) {
		v := newVisitor(t)
		id := v.challengeOf(s.authorizeURL("web", "acr_values", "phr"))
		at := time.Now().Add(-time.Minute).Unix()
		to := v.to(v.to(s.answered(t, id, "acr", "phr", "auth_time", at, "scope", "orders:read")).String())
		claims := s.redeemed(t, "web", to)
		assert.Equal(t, "person:alice", claims["sub"])
		assert.Equal(t, "phr", claims["acr"])
		assert.EqualValues(t, at, claims["auth_time"])
		assert.Equal(t, "orders:read", claims["scope"])

		to = v.to(s.authorizeURL("web"))
		assert.Equal(t, "orders:read", s.redeemed(t, "web", to)["scope"], "the session keeps them, and needs no other log-in")
	})
	t.Run("an answer that allows no scope", func(t *testing.T) {
		v := newVisitor(t)
		to := v.to(v.to(s.answered(t, v.challengeOf(s.authorizeURL("web")), "scope", "")).String())
		assert.Equal(t, "access_denied", to.Query().Get("error"), to)
	})
	t.Run("step-up: a session with another acr logs in again, and the page learns who it was", func(t *testing.T) {
		v := newVisitor(t)
		v.to(s.answered(t, v.challengeOf(s.authorizeURL("web"))))
		assert.Equal(t, "pwd", s.redeemed(t, "web", v.to(s.authorizeURL("web", "acr_values", "pwd")))["acr"], "pwd is enough")
		id := v.challengeOf(s.authorizeURL("web", "acr_values", "phr"))
		assert.Equal(t, "alice", s.describes(t, id).body["subject"])
		to := v.to(v.to(s.answered(t, id, "acr", "phr")).String())
		assert.Equal(t, "phr", s.redeemed(t, "web", to)["acr"])
		assert.Equal(t, "phr", s.redeemed(t, "web", v.to(s.authorizeURL("web", "acr_values", "phr")))["acr"], "and the session has it now")
	})
	t.Run("step-up: the page answers with less", func(t *testing.T) {
		v := newVisitor(t)
		to := v.to(v.to(s.answered(t, v.challengeOf(s.authorizeURL("web", "acr_values", "phr")))).String())
		assert.Equal(t, "unmet_authentication_requirements", to.Query().Get("error"), to)
	})
	t.Run("step-up: an acr that the page cannot have is refused at once", func(t *testing.T) {
		to := newVisitor(t).to(s.authorizeURL("web", "acr_values", "gold"))
		assert.Equal(t, "unmet_authentication_requirements", to.Query().Get("error"), to)
	})
	t.Run("max_age: an old log-in at the page", func(t *testing.T) {
		v := newVisitor(t)
		to := v.to(v.to(s.answered(t, v.challengeOf(s.authorizeURL("web", "max_age", "60")), "auth_time", time.Now().Unix()-300)).String())
		assert.Equal(t, "login_required", to.Query().Get("error"), to)
	})
	t.Run("prompt=login", func(t *testing.T) {
		v := newVisitor(t)
		v.to(s.answered(t, v.challengeOf(s.authorizeURL("web"))))
		id := v.challengeOf(s.authorizeURL("web", "prompt", "login"))
		assert.Equal(t, "login", s.describes(t, id).body["prompt"])
		to := v.to(v.to(s.answered(t, id, "auth_time", time.Now().Unix()-300)).String())
		assert.Equal(t, "login_required", to.Query().Get("error"), "the page has not logged the user in again")
		id = v.challengeOf(s.authorizeURL("web", "prompt", "login"))
		s.redeemed(t, "web", v.to(v.to(s.answered(t, id)).String()))
	})
	t.Run("a user who is another one", func(t *testing.T) {
		v := newVisitor(t)
		next := v.to(s.answered(t, v.challengeOf(s.authorizeURL("asking")))).String()
		token := regexp.MustCompile(`name="token" value="([A-Z0-9]+)"`).FindStringSubmatch(v.get(next).text)
		require.Len(t, token, 2)
		res, err := v.client.PostForm(next, form("do", "leave", "token", token[1]))
		a := read(t, res, err)
		require.Equal(t, 303, a.status, a.text)
		id := v.challengeOf(next)
		assert.Equal(t, "select_account", s.describes(t, id).body["prompt"], "the page does not answer with its own session")
		page := v.get(v.to(s.answered(t, id, "sub", "bob", "name", "Bob Example")).String())
		assert.Contains(t, page.text, "Bob Example")
	})
	t.Run("prompt=none does not leave the server", func(t *testing.T) {
		to := newVisitor(t).to(s.authorizeURL("web", "prompt", "none"))
		assert.Equal(t, "login_required", to.Query().Get("error"), to)
	})
	for _, code := range []string{"access_denied", "login_required", "interaction_required", "unmet_authentication_requirements"} {
		t.Run("the page refuses with "+code, func(t *testing.T) {
			v := newVisitor(t)
			back := s.answered(t, v.challengeOf(s.authorizeURL("web")), "sub", nil, "error", code)
			to := v.to(v.to(back).String())
			assert.Equal(t, code, to.Query().Get("error"), to)
			assert.Equal(t, "a state", to.Query().Get("state"))
			again := v.challengeOf(s.authorizeURL("web"))
			assert.NotEmpty(t, again, "the next request logs in again")
		})
	}
	t.Run("a log-in to a page of the server", func(t *testing.T) {
		v := newVisitor(t)
		to := v.to(s.url + "/developer/applications/new")
		id := v.challengeOf(to.String())
		assert.Nil(t, s.describes(t, id).body["client"])
		to = v.to(s.answered(t, id, "name", "Alice Example"))
		page := v.get(to.String())
		assert.Equal(t, s.url+"/developer/applications/new", to.String())
		assert.Equal(t, 200, page.status)
		assert.Contains(t, page.text, "Alice Example")
	})
	t.Run("logging out ends the session, and leads to where the page logs out", func(t *testing.T) {
		for path, done := range map[string]string{"/logout": "/as/", "/account/everywhere": "/as/logged-out"} {
			for _, logout := range []string{"", "https://login.example.com/bye"} {
				s := start(t, "/as", handsOff, func(c *authserver.Config) { c.Login.Logout = logout })
				v := newVisitor(t)
				v.to(s.answered(t, v.challengeOf(s.url+"/login")))
				page := v.get(s.url + "/account/sessions")
				require.Equal(t, 200, page.status)
				assert.Contains(t, page.header.Get("Content-Security-Policy"), "form-action 'self' https:")
				token := regexp.MustCompile(`name="token" value="([A-Z0-9]+)"`).FindStringSubmatch(page.text)
				require.Len(t, token, 2)
				res, err := v.client.PostForm(s.url+path, form("token", token[1]))
				a := read(t, res, err)
				assert.Equal(t, cmp.Or(logout, done), a.header.Get("Location"))
				v.challengeOf(s.url + "/login")
			}
		}
	})
	t.Run("a refused log-in to a page of the server", func(t *testing.T) {
		v := newVisitor(t)
		page := v.get(s.answered(t, v.challengeOf(s.url+"/login"), "sub", nil, "error", "access_denied"))
		assert.Equal(t, 400, page.status)
		assert.Contains(t, page.text, "You are not logged in")
	})
	t.Run("there is no form for passwords", func(t *testing.T) {
		a := send(t, "POST", s.url+"/login", "name=alice&password=x", "Content-Type", "application/x-www-form-urlencoded")
		assert.Equal(t, 405, a.status)
	})
	t.Run("users who leave", func(t *testing.T) {
		v := newVisitor(t)
		v.to(s.answered(t, v.challengeOf(s.authorizeURL("web")), "sub", "dave"))
		s.redeemed(t, "web", v.to(s.authorizeURL("web")))
		sessions, grants, err := s.RevokeUser(t.Context(), "person:dave")
		require.NoError(t, err)
		assert.Equal(t, [2]int{1, 1}, [2]int{sessions, grants})
		v.challengeOf(s.authorizeURL("web"))
	})
	t.Run("a log-in at the page before the end of all sessions begins a new session", func(t *testing.T) {
		v := newVisitor(t)
		v.to(s.answered(t, v.challengeOf(s.authorizeURL("web")), "sub", "carol"))
		_, _, err := s.RevokeUser(t.Context(), "person:carol")
		require.NoError(t, err)
		v.to(s.answered(t, v.challengeOf(s.authorizeURL("web")), "sub", "carol", "auth_time", time.Now().Unix()-600))
		s.redeemed(t, "web", v.to(s.authorizeURL("web")))
	})
}

// Attacks that use the log-in of another user, or an old one.
func TestHandoffAttacks(t *testing.T) {
	s := start(t, "", handsOff)
	t.Run("a victim follows a link of an attacker: neither is logged in", func(t *testing.T) {
		attacker, victim := newVisitor(t), newVisitor(t)
		id := attacker.challengeOf(s.authorizeURL("web"))
		back := s.answered(t, id, "sub", "victim") // in the victim's browser, which is sent back here
		page := victim.get(back)
		assert.Equal(t, 400, page.status)
		assert.Contains(t, page.text, "Your browser sent no cookie")
		victim.challengeOf(s.authorizeURL("web")) // the victim's browser now has another challenge
		assert.Contains(t, victim.get(back).text, "This log-in began in another browser")

		guess := s.url + "/login/return?" + form("login_challenge", id, "login_verifier", strings.Repeat("A", 52)).Encode()
		assert.Contains(t, attacker.get(guess).text, "The log-in is not complete", "the attacker does not know the secret of the return")
		assert.Contains(t, attacker.get(s.url+"/login/return?login_challenge="+id).text, "The log-in is not complete")
		attacker.challengeOf(s.authorizeURL("web"))
	})
	t.Run("an attacker's answered log-in is planted in a victim's browser", func(t *testing.T) {
		attacker, victim := newVisitor(t), newVisitor(t)
		back := s.answered(t, attacker.challengeOf(s.authorizeURL("web")), "sub", "attacker")
		assert.Equal(t, 400, victim.get(back).status)
		assert.Empty(t, victim.client.Jar.Cookies(must(url.Parse(s.url))), "no session")
	})
	t.Run("an answer to one challenge is none to another of the same browser", func(t *testing.T) {
		v := newVisitor(t)
		one, other := v.challengeOf(s.authorizeURL("web")), v.challengeOf(s.authorizeURL("web"))
		back := must(url.Parse(s.answered(t, one)))
		q := back.Query()
		q.Set("login_challenge", other)
		back.RawQuery = q.Encode()
		assert.Contains(t, v.get(back.String()).text, "The log-in is not complete")
	})
	t.Run("a session that was planted before the log-in is not that of the user", func(t *testing.T) {
		v := newVisitor(t)
		v.to(s.answered(t, v.challengeOf(s.authorizeURL("web")), "sub", nil, "error", "access_denied")) // makes a session without a user
		before := cookieOf(v, s.url, "valetkey")
		require.NotEmpty(t, before)
		v.to(s.answered(t, v.challengeOf(s.authorizeURL("web"))))
		assert.NotEqual(t, before, cookieOf(v, s.url, "valetkey"))
	})
	t.Run("an answer is accepted once", func(t *testing.T) {
		v := newVisitor(t)
		raw := signed(t, keyOf(), "login-answer+jwt", s.claims(v.challengeOf(s.authorizeURL("web"))))
		require.Equal(t, 200, s.tell(t, "/login/answer", raw).status)
		a := s.tell(t, "/login/answer", raw)
		assert.Equal(t, 409, a.status)
		assert.Equal(t, "already_used", a.body["error"])
	})
	t.Run("a double click at the page: the last answer counts", func(t *testing.T) {
		v := newVisitor(t)
		id := v.challengeOf(s.authorizeURL("web"))
		first, last := s.answered(t, id), s.answered(t, id)
		page := v.get(first)
		assert.Contains(t, page.text, "The log-in is not complete")
		assert.Contains(t, page.text, ">Continue</a>", "a way forward")
		s.redeemed(t, "web", v.to(v.to(last).String()))
	})
	t.Run("a return counts once, and its page can be loaded twice", func(t *testing.T) {
		v := newVisitor(t)
		id := v.challengeOf(s.authorizeURL("web"))
		back := s.answered(t, id)
		next := v.to(back)
		assert.Equal(t, next, v.to(back), "the same browser")
		a := s.says(t, id, "sub", "mallory")
		assert.Equal(t, 409, a.status)
		assert.Equal(t, "already_answered", a.body["error"])
		assert.Equal(t, "already_answered", s.describes(t, id).body["error"])
		s.redeemed(t, "web", v.to(next.String()))

		root := must(url.Parse(s.url))
		thief := newVisitor(t)
		for _, c := range v.client.Jar.Cookies(root) {
			if c.Name == "login" { // a copy of the browser's secret, without its session
				thief.client.Jar.SetCookies(root, []*http.Cookie{c})
			}
		}
		assert.Contains(t, thief.get(back).text, "This log-in has been used")
	})
	t.Run("of two returns at once, one begins a session", func(t *testing.T) {
		v := newVisitor(t)
		v.challengeOf(s.authorizeURL("web"))
		for range 10 {
			back := s.answered(t, v.challengeOf(s.authorizeURL("web")))
			logged := make(chan bool, 4)
			root := must(url.Parse(s.url))
			for range cap(logged) {
				one := newVisitor(t)
				one.client.Jar.SetCookies(root, v.client.Jar.Cookies(root))
				go func() {
					res, err := one.client.Get(back)
					if err == nil {
						res.Body.Close()
					}
					logged <- err == nil && res.StatusCode == 303
				}()
			}
			n := 0
			for range cap(logged) {
				if <-logged {
					n++
				}
			}
			assert.Equal(t, 1, n)
		}
	})
	t.Run("no store keeps a secret of a log-in in clear text", func(t *testing.T) {
		records := store.NewMemory(0)
		s := start(t, "", handsOff, func(c *authserver.Config) { c.Store, c.InsecureUnsealed = records, true })
		v := newVisitor(t)
		id := v.challengeOf(s.authorizeURL("web", "login_hint", "alice@example.com"))
		s.answered(t, id, "name", "Alice Example")
		found, err := records.Find(t.Context(), "challenge", store.Key{}, "", 10)
		require.NoError(t, err)
		require.Len(t, found, 1)
		for _, secret := range []string{id, "alice@example.com", "Alice Example", `"web"`} {
			assert.NotContains(t, found[0].ID+string(found[0].Value), secret)
		}
	})
	t.Run("log-ins begun from one address are counted, except those that succeed", func(t *testing.T) {
		s := start(t, "", handsOff, func(c *authserver.Config) { c.Limits.LoginAddress = login.Rate{Burst: 2, Every: time.Hour} })
		v := newVisitor(t)
		for range 5 {
			v := newVisitor(t)
			v.to(s.answered(t, v.challengeOf(s.authorizeURL("web"))))
		}
		v.challengeOf(s.authorizeURL("web"))
		v.to(s.answered(t, v.challengeOf(s.authorizeURL("web")), "sub", nil, "error", "access_denied"))
		page := v.get(s.authorizeURL("web"))
		assert.Equal(t, 429, page.status)
		assert.NotEmpty(t, page.header.Get("Retry-After"))
	})
}

// A device is allowed by a user who logs in at the page, with what the page answers.
func TestHandoffForADevice(t *testing.T) {
	s := start(t, "", handsOff, func(c *authserver.Config) {
		c.Clients = append(c.Clients, authserver.Client{ID: "tv", Name: "The TV", AuthMethod: "none", GrantTypes: []string{deviceGrant}, Scopes: []string{"orders:read"}})
	})
	began := s.post(t, "/oauth2/device_authorization", "", "", form("client_id", "tv", "scope", "orders:read"))
	require.Equal(t, 200, began.status, began.text)
	v := newVisitor(t)
	a := v.post(s, "/device", "user_code", began.body["user_code"].(string))
	require.Equal(t, 303, a.status, a.text)
	id := v.challengeOf(s.url + "/device/confirm")
	assert.Equal(t, "tv", s.describes(t, id).body["client"].(map[string]any)["client_id"])
	next := v.to(s.answered(t, id, "acr", "phr"))
	assert.Equal(t, "/device/confirm", next.Path)
	a = v.post(s, "/device/confirm", "do", "allow", "scope", "orders:read")
	require.Equal(t, 303, a.status, a.text)
	token := s.post(t, "/oauth2/token", "", "", form("grant_type", deviceGrant, "client_id", "tv", "device_code", began.body["device_code"].(string)))
	require.Equal(t, 200, token.status, token.text)
	claims := part(t, token.body["access_token"].(string), 1)
	assert.Equal(t, "person:alice", claims["sub"])
	assert.Equal(t, "phr", claims["acr"])
}

// A log-in begins at one replica, is answered at another one, and returns to a third one.
func TestHandoffAmongReplicas(t *testing.T) {
	records := store.NewMemory(0)
	replica := func() *site {
		return start(t, "", handsOff, func(c *authserver.Config) {
			c.Issuer, c.Store, c.Seal = "http://localhost:1", records, []byte(strings.Repeat("s", 32))
		})
	}
	one, two, three := replica(), replica(), replica()
	v := newVisitor(t)
	id := v.challengeOf(one.authorizeURL("web"))
	require.Equal(t, 200, three.describes(t, id).status)
	back := must(url.Parse(two.answered(t, id)))
	next := v.to(three.url + back.RequestURI())
	one.redeemed(t, "web", v.to(two.url+next.RequestURI()))
}

// What a log-in at another page costs the store, by who causes it.
func TestHandoffCosts(t *testing.T) {
	counter := &costs.Counter{Store: store.NewMemory(0)}
	s := start(t, "", handsOff, func(c *authserver.Config) { c.Store, c.InsecureUnsealed = counter, true })
	v := newVisitor(t)
	var id, back, next string
	for _, c := range []struct {
		name string
		most costs.Cost
		do   func()
	}{
		{"an unsigned message", costs.Cost{}, func() { s.tell(t, "/login/answer", "e30.e30.e30") }},
		{"a return without a challenge", costs.Cost{}, func() { v.get(s.url + "/login/return") }},
		{"a return with a made-up challenge", costs.Cost{Reads: 1}, func() { v.get(s.url + "/login/return?login_challenge=" + madeUp()) }},
		{"a visitor of a page", costs.Cost{Writes: 1, Bytes: 1 << 10}, func() { newVisitor(t).challengeOf(s.url + "/login") }},
		{"a visitor with a request", costs.Cost{Reads: 3, Writes: 2, Bytes: 4 << 10}, func() { id = v.challengeOf(s.authorizeURL("web")) }},
		{"the page reads", costs.Cost{Reads: 1}, func() { require.Equal(t, 200, s.describes(t, id).status) }},
		{"the page answers", costs.Cost{Reads: 1, Writes: 2, Bytes: 2 << 10}, func() { back = s.answered(t, id) }},
		{"the user returns", costs.Cost{Reads: 3, Writes: 3, Bytes: 4 << 10}, func() { next = v.to(back).String() }},
		{"the user returns again", costs.Cost{Reads: 3}, func() { v.to(back) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := counter.Of(c.do)
			assert.LessOrEqual(t, got.Reads, c.most.Reads, "reads")
			assert.LessOrEqual(t, got.Writes, c.most.Writes, "writes")
			assert.LessOrEqual(t, got.Bytes, c.most.Bytes, "bytes")
		})
	}
	s.redeemed(t, "web", v.to(next))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func cookieOf(v *visitor, at, name string) string {
	for _, c := range v.client.Jar.Cookies(must(url.Parse(at))) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

func TestHandoffExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter, err := login.NewLimiter(login.Rate{Burst: 10, Every: time.Second}, 0)
		require.NoError(t, err)
		door := handoff.New(handoff.Config{Issuer: "https://as.example.com", Redirect: loginPage, Lifetime: time.Minute, Store: store.NewMemory(0), Limit: limiter})
		to, err := door.Begin(t.Context(), "browser", "", handoff.Request{}, handoff.Then{Location: "/"})
		require.NoError(t, err)
		id := must(url.Parse(to)).Query().Get("login_challenge")
		_, _, err = door.Return(t.Context(), "browser", id, "x")
		require.ErrorIs(t, err, handoff.ErrUnanswered)
		_, _, err = door.Return(t.Context(), "", id, "x")
		require.ErrorIs(t, err, handoff.ErrBrowser)
		time.Sleep(time.Minute)
		_, _, err = door.Return(t.Context(), "browser", id, "x")
		require.ErrorIs(t, err, handoff.ErrExpired)
	})
}

func TestHandoffMistakes(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*authserver.Config)
		want   string
	}{
		{"a page that is not a URL", func(c *authserver.Config) { c.Login.Redirect = "login.example.com" }, "Login.Redirect: is not an https URL"},
		{"http beyond loopback", func(c *authserver.Config) { c.Login.Redirect = "http://login.example.com" }, "Login.Redirect: is http and not on loopback"},
		{"a fragment", func(c *authserver.Config) { c.Login.Redirect += "#x" }, "Login.Redirect: has a fragment"},
		{"a parameter of this server", func(c *authserver.Config) { c.Login.Redirect += "&iss=x" }, "Login.Redirect: has the parameter iss"},
		{"a log-out that is not a URL", func(c *authserver.Config) { c.Login.Logout = "/bye" }, "Login.Logout: is not an https URL"},
		{"no key", func(c *authserver.Config) { c.Login.PublicKey = "" }, "Login.PublicKey: is required"},
		{"an invalid key", func(c *authserver.Config) { c.Login.PublicKey = "x" }, "Login.PublicKey: neither PEM nor a JWK Set"},
		{"a private key", func(c *authserver.Config) {
			c.Login.PublicKey = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n"
		}, "Login.PublicKey: "},
		{"a secret", func(c *authserver.Config) {
			c.Login.PublicKey = `{"keys":[{"kty":"oct","k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}]}`
		}, "Login.PublicKey: "},
		{"an acr of two words", func(c *authserver.Config) { c.Login.ACRValues = []string{"pwd mfa"} }, "Login.ACRValues[0]: "},
		{"a user type with a colon", func(c *authserver.Config) { c.Login.UserType = "a:b" }, "UserTypes[0].Type: "},
		{"users", func(c *authserver.Config) { c.Users = []authserver.User{{Name: "alice", Password: "correct horse"}} }, "Users: cannot be combined"},
		{"user types", func(c *authserver.Config) { c.UserTypes = []authserver.UserType{{Type: "customer"}} }, "Login.Redirect: cannot be combined with user_types"},
		{"the password grant", func(c *authserver.Config) { c.Legacy.Password = true }, "Legacy.Password: cannot be combined"},
		{"a key without a page", func(c *authserver.Config) { c.Login.Redirect = "" }, "Login.Redirect: is required with the other fields"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config("https://as.example.com")
			handsOff(&cfg)
			c.change(&cfg)
			_, err := authserver.New(t.Context(), cfg)
			require.ErrorContains(t, err, c.want)
		})
	}
	t.Run("users of a config that hands log-ins off are one mistake, whatever is wrong with them", func(t *testing.T) {
		cfg := config("https://as.example.com")
		handsOff(&cfg)
		cfg.Users = []authserver.User{{Name: "alice", Password: "correct horse"}, {Type: "x"}}
		_, err := authserver.New(t.Context(), cfg)
		require.EqualError(t, err, "authserver: Users: cannot be combined with login.redirect: all users log in at that page")
	})
	t.Run("PEM, with two keys", func(t *testing.T) {
		const pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"
		keys, err := handoff.ParseKeys(pem + "\n" + pem)
		require.NoError(t, err)
		assert.Len(t, keys, 2)
	})
}
