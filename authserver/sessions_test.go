package authserver_test

import (
	"context"
	"errors"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// loggedIn returns a browser in which a user has logged in.
func (s *site) loggedIn(t *testing.T, name, password string) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	b := &http.Client{Jar: jar}
	res, err := b.PostForm(s.url+"/login", url.Values{"name": {name}, "password": {password}, "return": {"/account/applications"}})
	read(t, res, err)
	require.Equal(t, "/account/applications", res.Request.URL.Path)
	return b
}

// still reports whether the browser's user is logged in.
func (s *site) still(t *testing.T, b *http.Client) bool {
	t.Helper()
	res, err := b.Get(s.url + "/account/applications")
	read(t, res, err)
	return res.Request.URL.Path == "/account/applications"
}

// A user whose password was replaced, or who was removed, must not continue in an open browser, which could renew the ended grants.
func TestSessionsEndWithTheirUser(t *testing.T) {
	s := start(t, "")
	ctx := t.Context()
	_, err := s.AddUser(ctx, "", login.NewUser{Name: "alice", Password: "correct horse"})
	require.NoError(t, err)
	loggedIn := func(password string) *http.Client { return s.loggedIn(t, "alice", password) }
	still := func(b *http.Client) bool { return s.still(t, b) }
	b := loggedIn("correct horse")
	require.True(t, still(b))
	require.NoError(t, s.SetPassword(ctx, "", "alice", "correct mule!"))
	assert.False(t, still(b), "with the old password")
	b = loggedIn("correct mule!")
	require.True(t, still(b))
	require.NoError(t, s.RemoveUser(ctx, "", "alice"))
	assert.False(t, still(b), "of a user who is gone")
}

// passwords makes writer take passwords, which is the quickest way to a grant, and puts alice into the configuration.
func passwords(c *authserver.Config) {
	c.Legacy.Password = true
	c.Clients[1].GrantTypes = []string{"password", "refresh_token"} // writer
	c.Users = []authserver.User{{Name: "alice", Password: "correct horse"}}
}

func (s *site) grant(t *testing.T, name, password string) (access, refresh string) {
	t.Helper()
	a := s.post(t, "/oauth2/token", "writer", "test-secret-of-writer", form("grant_type", "password", "username", name, "password", password))
	require.Equal(t, 200, a.status, a.text)
	return a.body["access_token"].(string), a.body["refresh_token"].(string)
}

func (s *site) refreshed(t *testing.T, token string) int {
	t.Helper()
	return s.post(t, "/oauth2/token", "writer", "test-secret-of-writer", form("grant_type", "refresh_token", "refresh_token", token)).status
}

func TestANewPasswordEndsGrants(t *testing.T) {
	s := start(t, "", passwords)
	_, err := s.AddUser(t.Context(), "", login.NewUser{Name: "bob", Password: "correct mule"})
	require.NoError(t, err)
	access, refresh := s.grant(t, "bob", "correct mule")
	_, alices := s.grant(t, "alice", "correct horse")
	require.NoError(t, s.SetPassword(t.Context(), "", "bob", "another mule"))
	assert.Equal(t, 400, s.refreshed(t, refresh))
	assert.Equal(t, inactive, strings.TrimSpace(s.introspect(t, "orders-api", access).text))
	assert.Equal(t, 200, s.refreshed(t, alices), "another's grants live on")
	_, refresh = s.grant(t, "bob", "another mule")
	assert.Equal(t, 200, s.refreshed(t, refresh), "the new password grants anew, at once")
}

func TestRevokeUser(t *testing.T) {
	s := start(t, "", passwords, func(c *authserver.Config) {
		c.Clients = append(c.Clients, authserver.Client{ID: "odd:client", Secret: "test-secret-of-odd", Scopes: []string{"orders:read"}})
	})
	ctx := t.Context()
	odd := s.post(t, "/oauth2/token", "odd:client", "test-secret-of-odd", form("grant_type", "client_credentials")).body["access_token"].(string)
	access, refresh := s.grant(t, "alice", "correct horse")
	t.Run("an invalid subject", func(t *testing.T) {
		for _, subject := range []string{"", "alice", "customer:", ":alice", "Customer:alice", "reader"} {
			_, _, err := s.RevokeUser(ctx, subject)
			assert.ErrorContains(t, err, "not a subject", subject)
		}
	})
	t.Run("a client", func(t *testing.T) {
		_, _, err := s.RevokeUser(ctx, "odd:client")
		require.ErrorIs(t, err, store.ErrNotFound)
		assert.ErrorContains(t, err, "it is the id of a client")
		assert.Equal(t, true, s.introspect(t, "orders-api", odd).body["active"])
	})
	t.Run("a subject with a mistake in it", func(t *testing.T) {
		_, _, err := s.RevokeUser(ctx, "customer:alicee")
		require.EqualError(t, err, `authserver: revoke user "customer:alicee": no session and no grant has this subject`)
		require.ErrorIs(t, err, store.ErrNotFound)
		assert.Equal(t, true, s.introspect(t, "orders-api", access).body["active"])
		assert.NotContains(t, s.log.String(), "user revoked")
	})
	t.Run("a user of the configuration is logged out everywhere, and can log in again at once", func(t *testing.T) {
		b := s.loggedIn(t, "alice", "correct horse")
		s.loggedIn(t, "alice", "correct horse")
		s.grant(t, "alice", "correct horse")
		sessions, grants, err := s.RevokeUser(ctx, "customer:alice")
		require.NoError(t, err)
		assert.Equal(t, 2, sessions)
		assert.Equal(t, 2, grants)
		assert.Equal(t, 400, s.refreshed(t, refresh))
		assert.Equal(t, inactive, strings.TrimSpace(s.introspect(t, "orders-api", access).text))
		assert.False(t, s.still(t, b))
		assert.Contains(t, s.log.String(), `msg="user revoked" subject=customer:alice by="the operator" sessions=2 grants=2`)
		b = s.loggedIn(t, "alice", "correct horse")
		assert.True(t, s.still(t, b))
		_, refresh := s.grant(t, "alice", "correct horse")
		assert.Equal(t, 200, s.refreshed(t, refresh))
	})
}

// grantless is a store that finds no grants while it is down.
type grantless struct {
	store.Store
	down bool
}

func (g *grantless) Find(ctx context.Context, kind string, key store.Key, after string, limit int) ([]store.Record, error) {
	if g.down && kind == "grant" {
		return nil, errors.New("out of order")
	}
	return g.Store.Find(ctx, kind, key, after, limit)
}

// Otherwise the grants of a removed user could not be ended.
func TestRemovalThatFailsCanBeDoneAgain(t *testing.T) {
	records := &grantless{Store: store.NewMemory(0), down: true}
	s := start(t, "", func(c *authserver.Config) { c.Store, c.InsecureUnsealed = records, true })
	ctx := t.Context()
	_, err := s.AddUser(ctx, "", login.NewUser{Name: "alice", Password: "correct horse"})
	require.NoError(t, err)
	require.ErrorContains(t, s.RemoveUser(ctx, "", "alice"), "out of order")
	people, err := s.Users("")
	require.NoError(t, err)
	_, err = people.Login(ctx, "alice", "correct horse")
	require.ErrorIs(t, err, login.ErrRefused, "and meanwhile grants no more")
	records.down = false
	require.NoError(t, s.RemoveUser(ctx, "", "alice"))
	require.ErrorIs(t, s.RemoveUser(ctx, "", "alice"), store.ErrNotFound)
}

// patience is a connection that records its read deadline.
type patience struct {
	*httptest.ResponseRecorder
	until time.Time
}

func (p *patience) SetReadDeadline(until time.Time) error {
	p.until = until
	return nil
}

func TestNobodySendsForEver(t *testing.T) {
	s := start(t, "")
	w := &patience{ResponseRecorder: httptest.NewRecorder()}
	begun := time.Now()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/oauth2/token", nil))
	assert.WithinRange(t, w.until, begun.Add(30*time.Second), time.Now().Add(30*time.Second))
}

// A heldBack body ends once release is closed, and closes reading when all but its end has been read.
type heldBack struct {
	io.Reader
	reading, release chan struct{}
}

func (b *heldBack) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		close(b.reading)
		<-b.release
	}
	return n, err
}

func TestAFormIsReadBeforeItsSessionIsLookedUp(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, s *site, subject string){
		"user revoke": func(t *testing.T, s *site, subject string) {
			_, _, err := s.RevokeUser(t.Context(), subject)
			require.NoError(t, err)
		},
		"a new password": func(t *testing.T, s *site, _ string) {
			require.NoError(t, s.SetPassword(t.Context(), "", "alice", "correct mule!"))
		},
		"a user who is removed": func(t *testing.T, s *site, _ string) {
			require.NoError(t, s.RemoveUser(t.Context(), "", "alice"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, "")
			alice, err := s.AddUser(t.Context(), "", login.NewUser{Name: "alice", Password: "correct horse"})
			require.NoError(t, err)
			b := s.loggedIn(t, "alice", "correct horse")
			res, err := b.Get(s.url + "/account/applications")
			page := read(t, res, err).text
			_, token, found := strings.Cut(page, `name="token" value="`)
			require.True(t, found, page)
			token, _, _ = strings.Cut(token, `"`)
			// A client that does not exist: the page is not found, unless the session has ended.
			sent := url.Values{"token": {html.UnescapeString(token)}, "client_id": {"none"}}.Encode()
			post := func(body io.Reader) *httptest.ResponseRecorder {
				r := httptest.NewRequestWithContext(t.Context(), "POST", s.url+"/account/applications", body)
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				at, err := url.Parse(s.url)
				require.NoError(t, err)
				for _, cookie := range b.Jar.Cookies(at) {
					r.AddCookie(cookie)
				}
				w := httptest.NewRecorder()
				s.ServeHTTP(w, r)
				return w
			}
			require.Equal(t, 404, post(strings.NewReader(sent)).Code, "a form of the session counts")
			slow := &heldBack{strings.NewReader(sent), make(chan struct{}), make(chan struct{})}
			answered := make(chan *httptest.ResponseRecorder, 1)
			go func() { answered <- post(slow) }()
			<-slow.reading
			end(t, s, alice.Subject)
			close(slow.release)
			w := <-answered
			require.Equal(t, 303, w.Code, w.Body)
			require.Contains(t, w.Header().Get("Location"), "/login")
		})
	}
}
