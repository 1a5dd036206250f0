package pages_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/pages"
	"github.com/valetkey/valetkey/authserver/login"
)

// A staff replaces the lookup of users during a test; nil: the database.
type staff struct {
	look atomic.Pointer[func() (*login.Account, error)]
}

func (s *staff) finds(a *login.Account, err error) {
	look := func() (*login.Account, error) { return a, err }
	s.look.Store(&look)
}

func (s *staff) put(c *pages.Config) {
	database := c.Account
	c.Account = func(ctx context.Context, subject string) (*login.Account, error) {
		if look := s.look.Load(); look != nil {
			return (*look)()
		}
		return database(ctx, subject)
	}
}

func TestSessionsEndWithTheirUser(t *testing.T) {
	for name, leave := range map[string]func(*staff){
		"a user who is gone":           func(s *staff) { s.finds(nil, login.ErrNoUser) },
		"a user with another password": func(s *staff) { s.finds(&login.Account{Since: time.Now()}, nil) },
	} {
		t.Run(name+" is asked to log in, and the session does not come back", func(t *testing.T) {
			var s staff
			h := newHouse(t, s.put)
			b := h.loggedIn("alice")
			leave(&s)
			require.Equal(t, "Log in", b.get("/account/applications").h1())
			s.look.Store(nil)
			require.Equal(t, "Log in", b.get("/account/applications").h1())
			require.Contains(t, h.log.String(), `msg="session ended with its user" subject=customer:alice`)
		})
		t.Run(name+" grants nothing", func(t *testing.T) {
			var s staff
			h := newHouse(t, s.put)
			consenting := h.browser().get(h.ask("shop", nil)).press("Log in", as("alice"))
			require.Equal(t, "Allow The Shop?", consenting.h1())
			asking, trusted := h.loggedIn("alice"), h.loggedIn("alice")
			leave(&s)
			require.Equal(t, "Log in", consenting.press("Allow", nil).h1(), "who has seen the page for consent")
			require.Equal(t, "login_required", asking.get(h.ask("shop", url.Values{"prompt": {"none"}})).away().Query().Get("error"))
			require.Equal(t, "Log in", trusted.get(h.ask("ours", nil)).h1(), "not even a trusted client gets a code")
		})
		t.Run(name+" takes nothing back by a form that is sent late", func(t *testing.T) {
			var s staff
			h := newHouse(t, s.put)
			h.redeem(h.browser().get(h.ask("shop", nil)).press("Log in", as("alice")).press("Allow", nil).away())
			b := h.loggedIn("alice").get("/account/applications")
			b.get(b.links()["Revoke"])
			leave(&s)
			require.Equal(t, "Log in", b.press("Revoke the access", nil).h1())
			s.look.Store(nil)
			require.Contains(t, h.loggedIn("alice").get("/account/applications").text(), "The Shop")
		})
	}
	t.Run("a user who may allow less is offered less", func(t *testing.T) {
		var s staff
		h := newHouse(t, s.put)
		b := h.loggedIn("alice")
		s.finds(&login.Account{Scopes: []string{"orders:read"}}, nil)
		b.get(h.ask("shop", url.Values{"scope": {"orders:read orders:write"}})).press("Allow", url.Values{"scope": {"orders:read", "orders:write"}})
		require.Equal(t, "orders:read", h.redeem(b.away()))
	})
}

func TestADirectoryThatIsDownKeepsSessions(t *testing.T) {
	var s staff
	h := newHouse(t, s.put)
	b, leaving := h.loggedIn("alice"), h.loggedIn("alice")
	h.redeem(h.browser().get(h.ask("shop", nil)).press("Log in", as("alice")).press("Allow", nil).away())
	leaving.get("/")
	s.finds(nil, errors.New("the directory is on fire"))
	for _, path := range []string{"/account/applications", "/", h.ask("shop", nil), h.ask("shop", url.Values{"prompt": {"none"}})} {
		b.get(path)
		require.Equal(t, http.StatusServiceUnavailable, b.resp.StatusCode, path)
		require.Equal(t, "Sign-in is temporarily unavailable", b.h1(), path)
		require.NotEmpty(t, b.resp.Header.Get("Retry-After"), path)
		require.NotContains(t, b.text(), "fire")
		require.Empty(t, b.way, "no browser is redirected")
	}
	require.Contains(t, h.log.String(), "the directory is on fire")
	leaving.press("Log out", nil)
	require.Equal(t, "Log in", leaving.get("/account/applications").h1(), "who wants to can log out")
	require.Equal(t, http.StatusOK, h.browser().get("/login").resp.StatusCode, "who has not logged in is not looked up")
	s.look.Store(nil)
	require.Equal(t, "Applications you have allowed", b.get("/account/applications").h1())
	require.Contains(t, h.redeem(b.get(h.ask("shop", nil)).away()), "orders:read")
}
