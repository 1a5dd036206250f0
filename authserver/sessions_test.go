package authserver_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// Who has the password no more, or is gone, must not go on in a browser that is still open: it would grant anew what was ended.
func TestSessionsEndWithTheirUser(t *testing.T) {
	s := start(t, "")
	ctx := t.Context()
	_, err := s.AddUser(ctx, "", login.NewUser{Name: "alice", Password: "correct horse"})
	require.NoError(t, err)
	loggedIn := func(password string) *http.Client {
		jar, err := cookiejar.New(nil)
		require.NoError(t, err)
		b := &http.Client{Jar: jar}
		res, err := b.PostForm(s.url+"/login", url.Values{"name": {"alice"}, "password": {password}, "return": {"/account/applications"}})
		require.Equal(t, "/account/applications", res.Request.URL.Path)
		read(t, res, err)
		return b
	}
	still := func(b *http.Client) bool {
		res, err := b.Get(s.url + "/account/applications")
		read(t, res, err)
		return res.Request.URL.Path == "/account/applications"
	}
	b := loggedIn("correct horse")
	require.True(t, still(b))
	require.NoError(t, s.SetPassword(ctx, "", "alice", "correct mule!"))
	assert.False(t, still(b), "with the old password")
	b = loggedIn("correct mule!")
	require.True(t, still(b))
	require.NoError(t, s.RemoveUser(ctx, "", "alice"))
	assert.False(t, still(b), "of a user who is gone")
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

// Otherwise nobody could end the grants of somebody who is no more.
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

// patience is a connection that is told how long to read.
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
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/oauth2/token", nil))
	assert.WithinDuration(t, time.Now().Add(30*time.Second), w.until, 5*time.Second)
}
