package engine_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// push pushes a request and returns its request_uri.
func (s *site) push(t testing.TB, id string, params url.Values) string {
	t.Helper()
	params.Del("client_id")
	a := s.post(t, "/oauth2/par", id, params)
	require.Equal(t, 201, a.status, a.text)
	return a.body["request_uri"].(string)
}

func TestRefusedPushes(t *testing.T) {
	s := start(t)
	without := func(v url.Values) url.Values { v.Del("client_id"); return v }
	for _, c := range []struct {
		name, id string
		params   url.Values
		status   int
		code     string
	}{
		{"AS-PAR-01 a request without a client", "", without(request()), 401, "invalid_client"},
		{"AS-PAR-01 a client that only names itself", "", request(), 401, "invalid_client"},
		{"AS-PAR-01 a wrong secret", "", request("client_secret", "x"), 401, "invalid_client"},
		{"AS-PAR-02 a request_uri", "web", without(request("request_uri", "urn:x")), 400, "invalid_request"},
		{"AS-PAR-10 an unregistered redirect_uri", "web", without(request("redirect_uri", spaURI)), 400, "invalid_request"},
		{"AS-PAR-10 an unregistered redirect_uri of a public client", "spa", request("redirect_uri", webURI), 400, "invalid_request"},
		{"AS-PKCE-03 no challenge", "web", without(request("code_challenge", "", "code_challenge_method", "")), 400, "invalid_request"},
		{"an unknown scope", "web", without(request("scope", "admin")), 400, "invalid_scope"},
		{"no response_type", "web", without(request("response_type", "")), 400, "invalid_request"},
		{"AS-CORE-02 a parameter twice", "web", append2(without(request()), "state", "2"), 400, "invalid_request"},
		{"an acr that the server does not offer", "web", without(request("acr_values", "phr")), 400, "unmet_authentication_requirements"},
		{"AS-PAR-07 a request that is too long", "web", without(request("state", strings.Repeat("x", 40<<10))), 413, "invalid_request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.post(t, "/oauth2/par", c.id, c.params)
			refused(t, a, c.status, c.code)
			assert.NotContains(t, a.body, "request_uri")
		})
	}
	t.Run("AS-PAR-07 GET", func(t *testing.T) {
		res, err := http.Get(s.url + "/oauth2/par?" + request().Encode())
		assert.Equal(t, 405, read(t, res, err).status)
	})
}

func TestPushed(t *testing.T) {
	s := start(t)
	use := func(id, uri string, more ...string) url.Values {
		return append2(form("client_id", id, "request_uri", uri), more...)
	}

	t.Run("AS-PAR-03 the answer", func(t *testing.T) {
		f := request()
		f.Del("client_id")
		a := s.post(t, "/oauth2/par", "web", f)
		assert.Equal(t, 201, a.status)
		assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
		assert.Regexp(t, `^urn:ietf:params:oauth:request_uri:[A-Z2-7]{52}$`, a.body["request_uri"])
		assert.EqualValues(t, 90, a.body["expires_in"])
	})
	t.Run("AS-PAR-09 a client that has to push gets a code so", func(t *testing.T) {
		a := newBrowser().get(t, s.authorizeURL(use("pushy", s.push(t, "pushy", request()))))
		require.Equal(t, 303, a.status, a.text)
		assert.Equal(t, "s/1 &", a.back.Get("state"))
		assert.Equal(t, 200, s.redeem(t, "pushy", a.back.Get("code")).status)
	})
	t.Run("AS-PAR-04 another client's request_uri", func(t *testing.T) {
		uri := s.push(t, "web", request())
		a := newBrowser().get(t, s.authorizeURL(use("other", uri)))
		assert.Equal(t, 400, a.status)
		assert.Empty(t, a.header.Get("Location"))
		assert.Equal(t, 303, newBrowser().get(t, s.authorizeURL(use("web", uri))).status, "and it is still good")
	})
	t.Run("AS-PAR-06 a second use, after a page that was loaded twice", func(t *testing.T) {
		s.asks(page)
		defer s.asks(nil)
		b, at := newBrowser(), s.authorizeURL(use("web", s.push(t, "web", request())))
		form1 := b.get(t, at).action(t, s)
		assert.Equal(t, form1, b.get(t, at).action(t, s))
		assert.Equal(t, 400, newBrowser().get(t, at).status, "by another browser")
		assert.NotEmpty(t, b.post(t, form1, form("do", "allow")).back.Get("code"))
		a := b.get(t, at)
		assert.Equal(t, 400, a.status)
		assert.Empty(t, a.header.Get("Location"))
	})
	t.Run("parameters added in the URL are ignored", func(t *testing.T) {
		uri := s.push(t, "web", request("state", ""))
		a := newBrowser().get(t, s.authorizeURL(use("web", uri, "scope", "orders:write", "state", "evil", "redirect_uri", "https://other.example.com/cb", "code_challenge", strings.Repeat("a", 43))))
		require.Equal(t, 303, a.status, a.text)
		assert.Equal(t, "https://web.example.com/cb", a.to)
		assert.False(t, a.back.Has("state"))
		assert.Equal(t, "orders:read", s.redeem(t, "web", a.back.Get("code")).tokens(t).scope)
	})
	t.Run("a native application's port", func(t *testing.T) {
		const uri = "http://127.0.0.1:4711/cb"
		pushed := s.push(t, "native", request("redirect_uri", uri))
		assert.Equal(t, uri, newBrowser().get(t, s.authorizeURL(use("native", pushed))).to)
	})
	t.Run("a code or a session is not a request_uri", func(t *testing.T) {
		for _, secret := range []string{s.code(t), "guess"} {
			assert.Equal(t, 400, newBrowser().get(t, s.authorizeURL(use("web", "urn:ietf:params:oauth:request_uri:"+secret))).status)
		}
	})
	t.Run("AS-PAR-05 one that has expired", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := inProcess(t)
			push := func() string {
				f := request("client_secret", "secret-of-web")
				return h.do(t, "POST", "/oauth2/par", f, "").body["request_uri"].(string)
			}
			begin := func(uri string) answer { return h.do(t, "GET", "/oauth2/authorize?"+use("web", uri).Encode(), nil, "") }
			early, late := push(), push()
			time.Sleep(89 * time.Second)
			assert.Equal(t, 303, begin(early).status)
			time.Sleep(time.Second)
			assert.Equal(t, 400, begin(late).status)
		})
	})
}
