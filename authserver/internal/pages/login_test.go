package pages_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/pages"
	"github.com/valetkey/valetkey/authserver/store"
)

func TestLogin(t *testing.T) {
	h := newHouse(t)
	t.Run("the page does not reveal which part is wrong, and does not return the password", func(t *testing.T) {
		said := map[string]bool{}
		for _, form := range []url.Values{
			{"name": {"alice"}, "password": {"a wrong password"}},
			{"name": {"nobody"}, "password": {"a wrong password"}},
			{"name": {"alice"}, "password": {strings.Repeat("x", 2000)}},
		} {
			b := h.browser().get("/login").press("Log in", form)
			require.Equal(t, 422, b.resp.StatusCode)
			said[b.text()] = true
			require.NotContains(t, b.body, "a wrong password")
			require.Contains(t, b.body, `value="`+form.Get("name")+`"`)
		}
		require.Len(t, said, 1)
		require.NotContains(t, h.log.String(), "nobody", "it may be a password")
	})
	t.Run("an empty field is reported", func(t *testing.T) {
		require.Contains(t, h.browser().get("/login").press("Log in", url.Values{"name": {"alice"}}).text(), "Enter your name and your password.")
	})
	t.Run("an unknown user type is reported", func(t *testing.T) {
		require.Contains(t, h.browser().get("/login").press("Log in", url.Values{"name": {"alice"}, "password": {"alice's password"}, "type": {"admin"}}).text(), "Choose what kind of user you are")
	})
	t.Run("each kind has its own names", func(t *testing.T) {
		b := h.browser().get("/login").press("Log in", url.Values{"name": {"carol"}, "password": {"carol's password"}})
		require.Equal(t, 422, b.resp.StatusCode, "carol is an employee")
		require.Contains(t, b.press("Log in", as("carol")).body, "Carol &lt;b&gt;")
	})
	t.Run("an outage is 503 and a word, not a refusal", func(t *testing.T) {
		b := h.browser().get("/login").press("Log in", url.Values{"name": {"mallory"}, "password": {"x"}, "type": {"employee"}})
		require.Equal(t, 503, b.resp.StatusCode)
		require.NotEmpty(t, b.resp.Header.Get("Retry-After"))
		require.Contains(t, b.text(), "cannot be checked at the moment")
		require.NotContains(t, b.body, "directory")
	})
	t.Run("a user of another kind than asked for is not let in", func(t *testing.T) {
		b := h.browser().get("/login").press("Log in", url.Values{"name": {"impostor"}, "password": {"x"}, "type": {"employee"}})
		require.Equal(t, 503, b.resp.StatusCode)
	})
	t.Run("too many tries are 429, and when to come back", func(t *testing.T) {
		b := h.browser().get("/login")
		for range 6 {
			require.Equal(t, 422, b.press("Log in", url.Values{"name": {"bob"}, "password": {"wrong"}}).resp.StatusCode)
		}
		b.press("Log in", as("bob"))
		require.Equal(t, 429, b.resp.StatusCode)
		require.Regexp(t, `^[1-9][0-9]{0,2}$`, b.resp.Header.Get("Retry-After"))
		require.Regexp(t, `too many attempts. Wait [0-9]+ (seconds|minutes?) and`, b.text())
	})
	t.Run("a link to log in leads to no other site", func(t *testing.T) {
		in := h.loggedIn("alice")
		for _, to := range []string{"https://evil.example", "//evil.example", `/\evil.example`, "/developer/../..//evil.example", "javascript:alert(1)", "/developer?x=//evil", "developer", "/developer\t"} {
			b := in.get("/login?return=" + url.QueryEscape(to))
			require.Equal(t, []string{"/"}, b.way, to)
		}
		b := h.browser().post("/login", url.Values{"name": {"carol"}, "password": {"carol's password"}, "type": {"employee"}, "return": {"//evil.example"}})
		require.Equal(t, "/", b.way[len(b.way)-1])
	})
}

func TestLoginLeadsBack(t *testing.T) {
	h := newHouse(t)
	b := h.browser().get("/account/applications")
	require.Equal(t, "Log in", b.h1())
	require.Equal(t, "Applications you have allowed", b.press("Log in", as("alice")).h1())
	require.Equal(t, []string{"/developer"}, b.get("/login?return=/developer").way, "who is logged in goes on")
}

func TestSession(t *testing.T) {
	cookie := func(b *browser) *http.Cookie {
		u, _ := url.Parse(b.base)
		for _, c := range b.client.Jar.Cookies(u) {
			if c.Name == "valetkey" {
				return c
			}
		}
		return nil
	}
	t.Run("a visit without a log-in starts no session", func(t *testing.T) {
		h := newHouse(t)
		require.Nil(t, cookie(h.browser().get("/").get("/login").get("/device").get(h.ask("shop", nil))))
	})
	t.Run("a session that was slipped in is not the one of the user", func(t *testing.T) {
		h := newHouse(t)
		victim, u := h.browser(), mustParse(h.url)
		victim.client.Jar.SetCookies(u, []*http.Cookie{{Name: "valetkey", Value: "chosen-by-an-attacker"}})
		victim.get("/login").press("Log in", as("alice"))
		require.NotEqual(t, "chosen-by-an-attacker", cookie(victim).Value)

		first := cookie(victim).Value
		victim.get(h.ask("shop", url.Values{"prompt": {"login"}})).press("Log in", as("alice"))
		require.NotEqual(t, first, cookie(victim).Value, "a log-in renews it")
		thief := h.browser()
		thief.client.Jar.SetCookies(u, []*http.Cookie{{Name: "valetkey", Value: first}})
		require.Equal(t, "Log in", thief.get("/developer").h1())
	})
	t.Run("logging out ends it on the server", func(t *testing.T) {
		h := newHouse(t)
		b := h.loggedIn("alice")
		kept := cookie(b)
		require.NotContains(t, b.press("Log out", nil).body, "Log out")
		require.Nil(t, cookie(b))
		b.client.Jar.SetCookies(mustParse(h.url), []*http.Cookie{kept})
		require.Equal(t, "Log in", b.get("/developer").h1())
	})
	t.Run("all sessions of one user end at once", func(t *testing.T) {
		h := newHouse(t)
		phone, laptop, bobs := h.loggedIn("alice"), h.loggedIn("alice"), h.loggedIn("bob")
		for _, want := range []int{2, 0} {
			n, err := h.pages.EndSessions(t.Context(), "customer:alice")
			require.NoError(t, err)
			require.Equal(t, want, n)
		}
		require.Equal(t, "Log in", phone.get("/developer").h1())
		require.Equal(t, "Log in", laptop.get(h.ask("shop", nil)).h1(), "an application would get what was allowed it before")
		require.Equal(t, "Your applications", bobs.get("/developer").h1())
		phone.get("/login").press("Log in", as("alice"))
		require.Equal(t, "Your applications", phone.get("/developer").h1())
	})
	t.Run("one that cannot be found by its user ends too", func(t *testing.T) {
		h := newHouse(t)
		b := h.loggedIn("alice")
		records, err := h.store.Find(t.Context(), "web", store.Key{}, "", 10)
		require.NoError(t, err)
		require.NotEmpty(t, records)
		for _, r := range records {
			r.Keys = nil // as an earlier release wrote it
			_, err := h.store.Put(t.Context(), r)
			require.NoError(t, err)
		}
		n, err := h.pages.EndSessions(t.Context(), "customer:alice")
		require.NoError(t, err)
		require.Zero(t, n)
		require.Equal(t, "Log in", b.get("/developer").h1())
	})
	t.Run("whether it has ended has to be known", func(t *testing.T) {
		h := newHouse(t)
		b := h.loggedIn("alice")
		h.store.set("ended")
		require.Equal(t, 503, b.get("/developer").resp.StatusCode)
		_, err := h.pages.EndSessions(t.Context(), "customer:alice")
		require.Error(t, err)
	})
	t.Run("the store learns neither its token nor what it holds", func(t *testing.T) {
		h := newHouse(t)
		b := h.loggedIn("alice")
		records, err := h.store.Find(t.Context(), "web", store.Key{}, "", 10)
		require.NoError(t, err)
		require.Len(t, records, 1)
		require.NotContains(t, records[0].ID+string(records[0].Value), cookie(b).Value)
		require.NotContains(t, string(records[0].Value), "alice")
	})
	t.Run("over https the cookie is of this host and for https only", func(t *testing.T) {
		var https string
		h := newHouse(t, func(c *pages.Config) { c.Issuer = strings.Replace(c.Issuer, "http:", "https:", 1); https = c.Issuer })
		b := h.browser()
		b.follow(http.MethodPost, "/login", with(as("alice"), "type", "customer"), http.Header{"Origin": {https}})
		require.Len(t, b.set, 1)
		require.Regexp(t, `^__Host-valetkey=[\w-]+; Path=/; HttpOnly; Secure; SameSite=Lax$`, b.set[0])
	})
	t.Run("its record ends with it", func(t *testing.T) {
		h := newHouse(t, func(c *pages.Config) { c.SessionLifetime = time.Minute })
		h.loggedIn("alice")
		records, err := h.store.Find(t.Context(), "web", store.Key{}, "", 10)
		require.NoError(t, err)
		require.Len(t, records, 1)
		require.WithinDuration(t, time.Now().Add(time.Minute), records[0].Expires, 30*time.Second)
	})
	t.Run("without a store there is an outage, and no session", func(t *testing.T) {
		h := newHouse(t)
		b := h.loggedIn("alice")
		h.store.set("web")
		b.get("/developer")
		require.Equal(t, 503, b.resp.StatusCode)
		require.NotEmpty(t, b.resp.Header.Get("Retry-After"))
		require.NotContains(t, b.body, "store")
	})
}

func mustParse(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

func TestForms(t *testing.T) {
	h := newHouse(t)
	t.Run("one of another site is refused", func(t *testing.T) {
		for _, path := range []string{"/login", "/logout", "/device", "/account/applications", "/developer/applications/new"} {
			b := h.browser().follow(http.MethodPost, path, as("alice"), http.Header{"Sec-Fetch-Site": {"cross-site"}})
			require.Equal(t, 403, b.resp.StatusCode, path)
		}
	})
	t.Run("one without the token of the session is refused", func(t *testing.T) {
		b := h.loggedIn("alice")
		for _, path := range []string{"/logout", "/account/applications"} {
			require.Equal(t, 403, b.post(path, url.Values{"client_id": {"shop"}, "token": {"x"}}).resp.StatusCode, path)
		}
		require.Equal(t, "You have logged in again", b.h1())
		require.Contains(t, b.text(), "You are logged in as alice now.")
	})
	t.Run("one that is too long is refused", func(t *testing.T) {
		require.Equal(t, 400, h.browser().post("/login", url.Values{"name": {strings.Repeat("x", 70_000)}}).resp.StatusCode)
	})
	t.Run("one that comes after the session has ended does nothing", func(t *testing.T) {
		require.Equal(t, "Log in", h.browser().post("/account/applications", url.Values{"client_id": {"shop"}}).h1())
	})
}

func TestNew(t *testing.T) {
	_, err := pages.New(pages.Config{Issuer: "ftp://x", Accent: "#ffff00", SessionLifetime: -1, Renewable: -1, Logins: []pages.UserType{{}}})
	require.Error(t, err)
	for _, field := range []string{"Issuer", "Accent", "Logins[0]", "APIs", "Clients", "Store", "Engine", "AuthorizeURL", "TokenURL", "Token:", "Account", "Codes", "SessionLifetime", "Renewable"} {
		require.ErrorContains(t, err, field)
	}
	_, err = pages.New(pages.Config{Accent: "teal"})
	require.ErrorContains(t, err, "Accent: must be a color")
}

func TestStylesheet(t *testing.T) {
	h := newHouse(t, func(c *pages.Config) { c.Accent = "#1a237e" })
	b := h.browser().get("/")
	style := b.page.all("link")[0].attr["href"]
	b.get(style)
	require.Equal(t, "text/css; charset=utf-8", b.resp.Header.Get("Content-Type"))
	require.Contains(t, b.resp.Header.Get("Cache-Control"), "immutable")
	require.Contains(t, b.body, "--accent: #1a237e;")
	require.NotEqual(t, style, newHouse(t).browser().get("/").page.all("link")[0].attr["href"], "the name depends on the content")
	raw, err := json.Marshal(b.body)
	require.NoError(t, err)
	require.NotContains(t, string(raw), "url(", "it loads nothing")
}
