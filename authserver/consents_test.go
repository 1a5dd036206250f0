package authserver_test

import (
	"net/http"
	"net/url"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
)

// A user who allows an application a scope at one API has not allowed the scope of the same name at another.
func TestConsentIsForOneAPI(t *testing.T) {
	const notes, mail = "https://notes.example.com", "https://mail.example.com"
	s := start(t, "", passwords, func(c *authserver.Config) {
		read := func(words string) []authserver.Scope { return []authserver.Scope{{Name: "read", Description: words}} }
		c.APIs = append(c.APIs, authserver.API{Audience: notes, Name: "Notes", Scopes: read("Read your notes")},
			authserver.API{Audience: mail, Name: "Mail", Scopes: read("Read your mail")})
		c.Clients = append(c.Clients, authserver.Client{ID: "reads", Secret: "test-secret-of-reads", RedirectURIs: []string{webURI}, Scopes: []string{"read"}})
	})
	b := s.loggedIn(t, "alice", "correct horse")
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ask := func(api string, pairs ...string) answer {
		q := authorization(append([]string{"client_id", "reads", "scope", "read", "resource", api}, pairs...)...)
		res, err := b.Get(s.url + "/oauth2/authorize?" + q.Encode())
		return read(t, res, err)
	}
	sent := func(a answer) url.Values {
		to, err := url.Parse(a.header.Get("Location"))
		require.NoError(t, err)
		return to.Query()
	}
	allow := func(api, words string) {
		t.Helper()
		page := ask(api)
		require.Contains(t, page.text, words)
		action := regexp.MustCompile(`action="(/oauth2/authorize/[^"]+)"`).FindStringSubmatch(page.text)
		token := regexp.MustCompile(`name="token" value="([^"]+)"`).FindStringSubmatch(page.text)
		require.NotNil(t, action, page.text)
		require.NotNil(t, token, page.text)
		res, err := b.PostForm(s.url+action[1], form("do", "allow", "scope", "read", "token", token[1]))
		require.NotEmpty(t, sent(read(t, res, err)).Get("code"))
	}
	allow(notes, "Read your notes")
	assert.NotEmpty(t, sent(ask(notes, "prompt", "none")).Get("code"))
	assert.Equal(t, "consent_required", sent(ask(mail, "prompt", "none")).Get("error"))
	allow(mail, "Read your mail")
	assert.NotEmpty(t, sent(ask(notes, "prompt", "none")).Get("code"))
	assert.NotEmpty(t, sent(ask(mail, "prompt", "none")).Get("code"))

	res, err := b.Get(s.url + "/account/applications")
	list := read(t, res, err)
	assert.Equal(t, http.StatusOK, list.status)
	assert.Contains(t, list.text, "Read your notes")
	assert.Contains(t, list.text, "Read your mail")
}
