package authserver_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

const (
	oldPassword = "the old password of hers"
	newPassword = "the new password of hers"
)

// withAccounts adds alice in the store, bob in the configuration, and an application that both may allow.
func withAccounts(t *testing.T, change ...func(*authserver.Config)) *site {
	t.Helper()
	s := start(t, "/as", append([]func(*authserver.Config){func(c *authserver.Config) {
		c.Users = []authserver.User{{Name: "bob", Password: oldPassword}}
		c.Clients = append(c.Clients, authserver.Client{
			ID: "web", AuthMethod: "none", RedirectURIs: []string{webURI}, Scopes: []string{"orders:read"}, Trusted: true,
		})
	}}, change...)...)
	_, err := s.AddUser(t.Context(), "", login.NewUser{Name: "alice", ID: "alice", Password: oldPassword})
	require.NoError(t, err)
	return s
}

// post sends a form with the token of the page that is at a path.
func (v *visitor) post(s *site, path string, pairs ...string) answer {
	v.t.Helper()
	values := form(pairs...)
	page := v.get(s.url + path)
	if token := regexp.MustCompile(`name="token" value="([A-Z0-9]*)"`).FindStringSubmatch(page.text); token != nil {
		values.Set("token", token[1])
	}
	res, err := v.client.PostForm(s.url+path, values)
	return read(v.t, res, err)
}

// enters logs a user in.
func (v *visitor) enters(s *site, name, password string) *visitor {
	v.t.Helper()
	a := v.post(s, "/login", "name", name, "password", password)
	require.Equal(v.t, 303, a.status, a.text)
	return v
}

// isIn reports whether the browser is logged in.
func (v *visitor) isIn(s *site) bool {
	v.t.Helper()
	a := v.get(s.url + "/account/sessions")
	require.Contains(v.t, []int{200, 303}, a.status, a.text)
	return a.status == 200
}

// grants returns a refresh token for the application of the user who is logged in.
func (v *visitor) grants(s *site) string {
	v.t.Helper()
	to := v.to(s.authorizeURL("web", "scope", "orders:read"))
	a := s.post(v.t, "/oauth2/token", "", "", form("grant_type", "authorization_code", "client_id", "web", "code", to.Query().Get("code"),
		"redirect_uri", webURI, "code_verifier", verifier))
	require.Equal(v.t, 200, a.status, a.text)
	return a.body["refresh_token"].(string)
}

func (s *site) refreshes(t *testing.T, token string) bool {
	t.Helper()
	a := s.post(t, "/oauth2/token", "", "", form("grant_type", "refresh_token", "client_id", "web", "refresh_token", token))
	require.Contains(t, []int{200, 400}, a.status, a.text)
	return a.status == 200
}

func TestUsersChangeTheirPassword(t *testing.T) {
	s := withAccounts(t)
	alice := newVisitor(t).enters(s, "alice", oldPassword)
	for _, c := range []struct{ name, old, new, repeat, words string }{
		{"no old password", "", newPassword, newPassword, "Enter your current password."},
		{"a wrong old password", "a guess of it", newPassword, newPassword, "This is not your current password."},
		{"a short one", oldPassword, "short", "short", "at least 8 characters"},
		{"a long one", oldPassword, strings.Repeat("x", 1025), strings.Repeat("x", 1025), "is too long"},
		{"two that differ", oldPassword, newPassword, newPassword + ".", "The two new passwords differ."},
		{"the same", oldPassword, oldPassword, oldPassword, "The new password is the current one."},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := alice.post(s, "/account/password", "old", c.old, "new", c.new, "repeat", c.repeat)
			assert.Equal(t, 422, a.status)
			assert.Contains(t, a.text, c.words)
			assert.NotContains(t, a.text, `value="`+c.new)
		})
	}
	t.Run("a form of another site", func(t *testing.T) {
		res, err := alice.client.PostForm(s.url+"/account/password", form("old", oldPassword, "new", newPassword, "repeat", newPassword))
		assert.Equal(t, 403, read(t, res, err).status)
	})
	t.Run("a user of the configuration", func(t *testing.T) {
		bob := newVisitor(t).enters(s, "bob", oldPassword)
		a := bob.post(s, "/account/password", "old", oldPassword, "new", newPassword, "repeat", newPassword)
		assert.Equal(t, 422, a.status)
		assert.Contains(t, a.text, "the operator of this site sets it")
	})
	t.Run("a visitor", func(t *testing.T) {
		assert.Equal(t, "/as/login?return=/as/account/password", newVisitor(t).to(s.url+"/account/password").RequestURI())
	})
	t.Run("other sessions and applications remain, if the user wants", func(t *testing.T) {
		other := newVisitor(t).enters(s, "alice", oldPassword)
		token := other.grants(s)
		before := cookieOf(alice, s.url, "valetkey")
		a := alice.post(s, "/account/password", "old", oldPassword, "new", newPassword, "repeat", newPassword)
		require.Equal(t, 303, a.status, a.text)
		assert.Contains(t, alice.get(s.url+"/account/password").text, "Your password has been changed.")
		assert.NotContains(t, alice.get(s.url+"/account/password").text, "Your password has been changed.", "once")
		assert.NotEqual(t, before, cookieOf(alice, s.url, "valetkey"), "a copy of the cookie is worthless")
		assert.True(t, other.isIn(s))
		assert.True(t, s.refreshes(t, token))
		assert.Equal(t, 422, newVisitor(t).post(s, "/login", "name", "alice", "password", oldPassword).status)
	})
	t.Run("other sessions and applications end", func(t *testing.T) {
		other := newVisitor(t).enters(s, "alice", newPassword)
		token := other.grants(s)
		a := alice.post(s, "/account/password", "old", newPassword, "new", oldPassword, "repeat", oldPassword, "others", "end")
		require.Equal(t, 303, a.status, a.text)
		assert.True(t, alice.isIn(s), "the session that changed it goes on")
		assert.False(t, other.isIn(s))
		assert.False(t, s.refreshes(t, token))
		newVisitor(t).enters(s, "alice", oldPassword)
	})
	t.Run("guesses count as log-ins", func(t *testing.T) {
		s := withAccounts(t, func(c *authserver.Config) { c.Limits.LoginName = login.Rate{Burst: 3, Every: time.Hour} })
		alice := newVisitor(t).enters(s, "alice", oldPassword)
		for range 3 {
			assert.Equal(t, 422, alice.post(s, "/account/password", "old", "guess", "new", newPassword, "repeat", newPassword).status)
		}
		a := alice.post(s, "/account/password", "old", oldPassword, "new", newPassword, "repeat", newPassword)
		assert.Equal(t, 429, a.status)
		assert.NotEmpty(t, a.header.Get("Retry-After"))
	})
	assert.NotContains(t, s.log.String(), newPassword)
	assert.Contains(t, s.log.String(), `msg="password changed" subject=customer:alice`)
}

func TestUsersSeeAndEndTheirSessions(t *testing.T) {
	s := withAccounts(t)
	named := func(header string) *visitor {
		v := newVisitor(t)
		v.client.Transport = agentOf(header)
		return v
	}
	const (
		firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
		safari  = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1"
	)
	today := time.Now().UTC().Format("2 January 2006")
	alice, phone, bob := named(firefox).enters(s, "alice", oldPassword), named(safari).enters(s, "alice", oldPassword), named(firefox).enters(s, "bob", oldPassword)
	ids := func(v *visitor) (found []string) {
		for _, m := range regexp.MustCompile(`name="session" value="([A-Z0-9]+)"`).FindAllStringSubmatch(v.get(s.url+"/account/sessions").text, -1) {
			found = append(found, m[1])
		}
		return found
	}
	page := alice.get(s.url + "/account/sessions").text
	assert.Regexp(t, `(?s)Firefox, Linux.*this browser.*Safari, iPhone`, page)
	if today == time.Now().UTC().Format("2 January 2006") { // not at midnight
		assert.Contains(t, page, today)
	}
	require.Len(t, ids(alice), 1, "the present session ends by logging out")
	t.Run("another user's session", func(t *testing.T) {
		require.Empty(t, ids(bob))
		a := bob.post(s, "/account/sessions", "session", ids(alice)[0])
		assert.Equal(t, 303, a.status, "as if it had ended meanwhile")
		assert.True(t, phone.isIn(s))
	})
	t.Run("no session", func(t *testing.T) {
		assert.Equal(t, 404, alice.post(s, "/account/sessions").status)
	})
	t.Run("one of them ends", func(t *testing.T) {
		require.Equal(t, 303, alice.post(s, "/account/sessions", "session", ids(alice)[0]).status)
		assert.False(t, phone.isIn(s))
		assert.True(t, alice.isIn(s))
		assert.Empty(t, ids(alice))
		phone.enters(s, "alice", oldPassword)
		assert.True(t, phone.isIn(s), "and can begin again")
	})
	t.Run("log out everywhere", func(t *testing.T) {
		token := phone.grants(s)
		assert.Contains(t, alice.get(s.url+"/account/everywhere").text, "This ends all of your sessions")
		assert.True(t, phone.isIn(s), "the question ends nothing")
		a := alice.post(s, "/account/everywhere")
		require.Equal(t, 303, a.status, a.text)
		done := alice.get(must(url.Parse(s.url)).ResolveReference(must(url.Parse(a.header.Get("Location")))).String())
		assert.Contains(t, done.text, "You are logged out everywhere")
		assert.False(t, alice.isIn(s))
		assert.False(t, phone.isIn(s))
		assert.False(t, s.refreshes(t, token))
		assert.True(t, bob.isIn(s), "others are not affected")
		alice.enters(s, "alice", oldPassword)
		assert.True(t, alice.isIn(s))
	})
}

// agentOf is a transport that sends a User-Agent.
type agentOf string

func (a agentOf) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", string(a))
	return http.DefaultTransport.RoundTrip(r)
}

// A racing store loses a session while another request is about to replace its record.
type racing struct {
	store.Store
	race bool
}

func (s *racing) Put(ctx context.Context, r store.Record) (int64, error) {
	if s.race && r.Kind == "web" {
		if err := s.Store.Delete(ctx, r.Kind, r.ID); err != nil {
			return 0, err
		}
	}
	return s.Store.Put(ctx, r)
}

func TestTheLastUseOfASessionIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := &racing{Store: store.NewMemory(0)}
		cfg := config("http://localhost:1")
		cfg.Store, cfg.InsecureUnsealed = records, true
		cfg.Users = []authserver.User{{Name: "alice", Password: oldPassword}}
		s, err := authserver.New(t.Context(), cfg)
		require.NoError(t, err)
		var cookies []*http.Cookie
		send := func(method, path, body string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(method, "http://localhost:1"+path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			for _, c := range cookies {
				r.AddCookie(c)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if set := w.Result().Cookies(); len(set) > 0 {
				cookies = set
			}
			return w
		}
		require.Equal(t, 303, send("POST", "/login", form("name", "alice", "password", oldPassword).Encode()).Code)
		began := time.Now().UTC().Format("15:04:05")
		count := func() int {
			found, err := records.Find(t.Context(), "web", store.Key{}, "", 10)
			require.NoError(t, err)
			return len(found)
		}
		version := func() int64 {
			found, err := records.Find(t.Context(), "web", store.Key{}, "", 10)
			require.NoError(t, err)
			require.Len(t, found, 1)
			return found[0].Version
		}
		first := version()
		time.Sleep(4 * time.Minute)
		send("GET", "/", "")
		assert.Equal(t, first, version(), "not at each request")
		time.Sleep(6 * time.Minute)
		send("GET", "/", "")
		assert.NotEqual(t, first, version())
		used := time.Now().UTC().Format("15:04:05")
		page := send("GET", "/account/sessions", "").Body.String()
		assert.Contains(t, page, began)
		assert.Contains(t, page, used)

		time.Sleep(10 * time.Minute)
		records.race = true
		send("GET", "/", "")
		assert.Zero(t, count(), "a session that ends meanwhile does not come back")
	})
}
