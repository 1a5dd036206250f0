package engine_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/flow"
)

// The user decides whether an error is sent to a client that the operator has not approved, in every response mode.
func TestLeave(t *testing.T) {
	stranger := clients.Client{
		AuthMethod: "none", RedirectURIs: []string{spaURI}, GrantTypes: []string{"authorization_code", "implicit"}, Scopes: []string{"orders:read"},
		RegistrationDigest: "of a token",
	}
	var asked []*flow.Departure
	var leaves bool
	var outage error
	s := start(t, func(c *config) {
		c.Implicit = true
		c.Leave = func(w http.ResponseWriter, _ *http.Request, d *flow.Departure) (bool, error) {
			if asked = append(asked, d); !leaves && outage == nil {
				w.WriteHeader(http.StatusTeapot)
			}
			return leaves, outage
		}
	})
	made, _, err := s.registry.Create(t.Context(), stranger, false)
	require.NoError(t, err)
	want := func(pairs ...string) url.Values {
		return request(append([]string{"client_id", made.ID, "redirect_uri", spaURI, "scope", "vault:open"}, pairs...)...)
	}
	only := func(t *testing.T) *flow.Departure {
		t.Helper()
		require.Len(t, asked, 1)
		d := asked[0]
		asked = nil
		assert.Equal(t, made.ID, d.Client.ID)
		return d
	}
	t.Run("by GET and by POST", func(t *testing.T) {
		for _, a := range []answer{newBrowser().get(t, s.authorizeURL(want())), newBrowser().post(t, s.url+"/oauth2/authorize", want())} {
			assert.Equal(t, http.StatusTeapot, a.status)
			assert.Empty(t, a.header.Get("Location"))
			assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
		}
		require.Len(t, asked, 2)
		asked = asked[1:]
		d := only(t)
		assert.Equal(t, "invalid_scope", d.Code)
		assert.True(t, strings.HasPrefix(d.URL, spaURI+"?error=invalid_scope&"), d.URL)
	})
	t.Run("in the fragment", func(t *testing.T) {
		assert.Equal(t, http.StatusTeapot, newBrowser().get(t, s.authorizeURL(want("response_type", "token"))).status)
		d := only(t)
		assert.True(t, strings.HasPrefix(d.URL, spaURI+"#error=invalid_scope&"), d.URL)
	})
	t.Run("an error of a decision that the user was not asked for, with the cookies of the interaction", func(t *testing.T) {
		s.asks(func(w http.ResponseWriter, _ *http.Request, _ *flow.Interaction) (*flow.Decision, error) {
			http.SetCookie(w, &http.Cookie{Name: "page", Value: "1"})
			return &flow.Decision{Denied: true, Error: "login_required"}, nil
		})
		for _, leaves = range []bool{false, true} {
			a := newBrowser().get(t, s.authorizeURL(want("scope", "orders:read", "prompt", "none")))
			d := only(t)
			assert.Equal(t, "login_required", d.Code)
			assert.Equal(t, leaves, a.status == 303)
			if leaves {
				assert.Equal(t, d.URL, a.header.Get("Location"))
			}
			assert.Len(t, a.header.Values("Set-Cookie"), 2, "each once: %v", a.header)
		}
		leaves = false
	})
	t.Run("a log-in that is too old, after all", func(t *testing.T) {
		s.asks(func(_ http.ResponseWriter, _ *http.Request, in *flow.Interaction) (*flow.Decision, error) {
			d := allow(in)
			d.AuthTime = time.Now().Add(-time.Hour)
			return d, nil
		})
		assert.Equal(t, http.StatusTeapot, newBrowser().get(t, s.authorizeURL(want("scope", "orders:read", "max_age", "60"))).status)
		assert.Equal(t, "login_required", only(t).Code)
	})
	t.Run("an outage is not a redirect", func(t *testing.T) {
		outage = errors.New("the store is down")
		defer func() { outage, asked = nil, nil }()
		a := newBrowser().get(t, s.authorizeURL(want()))
		assert.Equal(t, 500, a.status)
		assert.Empty(t, a.header.Get("Location"))
		assert.NotContains(t, a.text, "down")
	})
	t.Run("a user who was informed is not asked", func(t *testing.T) {
		s.asks(func(http.ResponseWriter, *http.Request, *flow.Interaction) (*flow.Decision, error) {
			return &flow.Decision{Denied: true, Informed: true}, nil
		})
		a := newBrowser().get(t, s.authorizeURL(want("scope", "orders:read")))
		assert.Equal(t, "access_denied", a.back.Get("error"))
		assert.Empty(t, asked)
	})
	t.Run("without a page to ask on, the error ends here", func(t *testing.T) {
		s := start(t)
		made, _, err := s.registry.Create(t.Context(), stranger, false)
		require.NoError(t, err)
		a := newBrowser().get(t, s.authorizeURL(want("client_id", made.ID)))
		assert.Equal(t, 400, a.status)
		assert.Contains(t, a.text, "invalid_scope")
		assert.Empty(t, a.header.Get("Location"))
	})
}
