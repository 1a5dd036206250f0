package engine_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// Requests for authorization need no credentials, and each is kept until its user answers.
func TestRequestsOfAnybody(t *testing.T) {
	t.Run("there are only so many at once from one network, and the page states it", func(t *testing.T) {
		s := start(t, func(c *config) { c.Pushes = login.Rate{Burst: 3, Every: time.Hour} })
		s.asks(page)
		for range 3 {
			require.Equal(t, 200, newBrowser().get(t, s.authorizeURL(request())).status)
		}
		a := newBrowser().get(t, s.authorizeURL(request()))
		assert.Equal(t, 429, a.status)
		assert.Empty(t, a.header.Get("Location"))
		kept, err := s.store.Find(t.Context(), "session", store.Key{}, "", 10)
		require.NoError(t, err)
		assert.Len(t, kept, 3)
	})
	t.Run("each is short", func(t *testing.T) {
		s := start(t)
		s.asks(page)
		for _, name := range []string{"state", "login_hint", "acr_values", "resource"} {
			a := newBrowser().get(t, s.authorizeURL(request(name, strings.Repeat("x", 9000))))
			assert.Equal(t, 303, a.status, name)
			assert.Equal(t, "invalid_request", a.back.Get("error"), name)
		}
		kept, err := s.store.Find(t.Context(), "session", store.Key{}, "", 10)
		require.NoError(t, err)
		assert.Empty(t, kept)
		refused(t, s.post(t, "/oauth2/par", "web", request("state", strings.Repeat("x", 9000), "client_id", "")), 400, "invalid_request")
	})
}

// A developer who takes a redirect URI back may know why.
func TestRedirectURITakenBack(t *testing.T) {
	s := start(t)
	c, _, err := s.registry.Create(t.Context(), clients.Client{
		RedirectURIs: []string{"https://good.example.com/cb", "https://lost.example.com/cb"}, GrantTypes: []string{"authorization_code"},
		Scopes: []string{"orders:read"},
	}, false)
	require.NoError(t, err)
	s.asks(page)
	b := newBrowser()
	a := b.get(t, s.authorizeURL(request("client_id", c.ID, "redirect_uri", "https://lost.example.com/cb")))
	require.Equal(t, 200, a.status, a.text)
	c, err = s.registry.Get(t.Context(), c.ID)
	require.NoError(t, err)
	c.RedirectURIs = c.RedirectURIs[:1]
	require.NoError(t, s.registry.Update(t.Context(), *c))
	s.asks(nil)
	t.Run("AS-CODE-02 no code goes there any more, not even one that was asked for before", func(t *testing.T) {
		a := b.get(t, a.action(t, s))
		assert.Equal(t, 400, a.status)
		assert.Empty(t, a.header.Get("Location"))
	})
}

// URIs that one parser takes for the client's and a browser for another site's.
func TestRedirectURIsThatParsersReadInTwoWays(t *testing.T) {
	s := start(t)
	for _, uri := range []string{
		"http://127.0.0.1:80@evil.test/cb", "http://127.0.0.1:80:90/cb", "http://127.0.0.1:/cb", "http://127.0.0.1:123456/cb", "http://127.0.0.1:-1/cb",
		`http://127.0.0.1:1\@evil.test/cb`, `http://127.0.0.1\.evil.test/cb`, "http://127.0.0.1.evil.test/cb", "http://127.0.0.1%2eevil.test/cb",
		"http://127.0.0.1%00.evil.test/cb", "http://127.0.0.1\t/cb", "http://127.0.0.1/cb\r\nX: y", "http://127.0.0.1/cb#@evil.test", "http://127.0.0.1//cb",
		"http://127.0.0.1/x/../cb", "http://127.0.0.1/%63b", "http://127.0.0.1/cb?x=1", "http://127.0.0.1/cb/", "http://0177.0.0.1/cb", "http://127.1/cb",
		"http://2130706433/cb", "http://127.0.0.2/cb", "http://[::ffff:127.0.0.1]/cb", "http://[0:0:0:0:0:0:0:1]/cb", "http://[::1%25lo]/cb",
		"http://[::1]:80@evil.test/cb", "http://LOCALHOST:7000/cb", "http://localhost.:7000/cb", "http://localhost:7000\u3002evil.test/cb", "HTTP://127.0.0.1/cb",
		"https://127.0.0.1/cb", "//127.0.0.1/cb", "http:127.0.0.1/cb", "http:/127.0.0.1/cb", "http:///127.0.0.1/cb",
		"COM.example.app:/cb", "com.example.app://evil.test/cb", "com.example.app:cb", "com.example.app:///cb", "javascript:alert(1)//http://127.0.0.1/cb",
	} {
		t.Run("AS-CODE-02 AS-CODE-03 "+uri, func(t *testing.T) {
			a := newBrowser().get(t, s.authorizeURL(request("client_id", "native", "redirect_uri", uri)))
			assert.Equal(t, 400, a.status)
			assert.Empty(t, a.header.Get("Location"))
		})
	}
	t.Run("another port is accepted", func(t *testing.T) {
		a := newBrowser().get(t, s.authorizeURL(request("client_id", "native", "redirect_uri", "http://[::1]:65535/cb")))
		assert.Equal(t, "http://[::1]:65535/cb", a.to)
	})
}
