package pages_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// withoutCookies makes the browser keep none from now on.
func (b *browser) withoutCookies() *browser {
	client := *b.client
	client.Jar = nil
	b.client = &client
	return b
}

// sameAs makes the browser another tab of one that is open.
func (b *browser) sameAs(tab *browser) *browser {
	b.client = tab.client
	return b
}

func TestABrowserWithoutCookies(t *testing.T) {
	h := newHouse(t)
	t.Run("that logs in learns what is missing", func(t *testing.T) {
		b := h.browser().withoutCookies().get("/account/applications").press("Log in", as("alice"))
		require.Equal(t, http.StatusBadRequest, b.resp.StatusCode)
		require.Equal(t, "Log in", b.h1())
		require.Contains(t, b.text(), "your browser did not keep the cookie that remembers your log-in")
		require.Equal(t, "Applications you have allowed", b.sameAs(h.browser()).press("Log in", as("alice")).h1(), "and the form still leads back")
	})
	t.Run("that answers an application learns it too, with the way back", func(t *testing.T) {
		b := h.browser().withoutCookies().get(h.ask("shop", nil)).press("Log in", as("alice"))
		require.Equal(t, http.StatusBadRequest, b.resp.StatusCode)
		require.Equal(t, "Your browser sent no cookie", b.h1())
		require.Contains(t, b.text(), "Allow cookies for this site.")
		require.Equal(t, "https://shop.example", b.links()["Go to shop.example"])
	})
	t.Run("in which the request did not begin is warned", func(t *testing.T) {
		began := h.browser().get(h.ask("shop", nil))
		at, form := began.formOf("login")
		other := h.browser().get(h.ask("shop", nil))
		other.post(at, form)
		require.Equal(t, "This request began in another browser", other.h1())
		require.Contains(t, other.text(), "If someone sent you a link to this page, do not use it")
		require.Equal(t, "This request began in another browser", other.get(at).h1())
		require.Equal(t, "Allow The Shop?", began.press("Log in", as("alice")).h1(), "the first one is not disturbed")
	})
}

func TestASecondTabContinues(t *testing.T) {
	t.Run("to the page that it wanted, as the user who is logged in", func(t *testing.T) {
		h := newHouse(t)
		one := h.browser().get("/account/applications")
		two := h.browser().sameAs(one).get("/developer")
		one.press("Log in", as("alice"))
		require.Equal(t, "Your applications", two.press("Log in", as("alice")).h1())
		require.Contains(t, two.text(), "You are logged in as alice, from another window of this browser.")
		require.NotContains(t, two.get("/developer").text(), "another window")
		require.Equal(t, 1, strings.Count(h.log.String(), `msg="logged in"`))
	})
	t.Run("to the application that waits", func(t *testing.T) {
		h := newHouse(t)
		one := h.browser().get(h.ask("shop", nil))
		two := h.browser().sameAs(one).get(h.ask("shop", url.Values{"scope": {"orders:write"}}))
		one.press("Log in", as("alice"))
		require.Equal(t, "Allow The Shop?", two.press("Log in", as("bob")).h1())
		require.Contains(t, two.text(), "You are logged in as alice.")
		require.Equal(t, "orders:write", h.redeem(two.press("Allow", nil).away()))
		require.Equal(t, "orders:read", h.redeem(one.press("Allow", nil).away()))
	})
}

func TestWorkIsKeptDuringALogIn(t *testing.T) {
	form := with(lamp, "client_name", `Lamp "<b>"`)
	t.Run("after the session has ended, and is not applied until the user sends it again", func(t *testing.T) {
		h := newHouse(t)
		b := h.loggedIn("alice").get("/developer/applications/new")
		b.sameAs(h.browser()).press("Register", form)
		require.Equal(t, "Log in", b.h1())
		require.Equal(t, 422, b.press("Log in", url.Values{"name": {"alice"}, "password": {"wrong"}}).resp.StatusCode)
		b.press("Log in", as("alice"))
		require.Equal(t, "Register an application", b.h1())
		require.Contains(t, b.text(), "Your input is here again, but nothing has been saved yet.")
		require.Contains(t, b.body, `value="Lamp &#34;&lt;b&gt;&#34;"`)
		require.NotContains(t, h.log.String(), "application registered")
		require.Equal(t, `Lamp "<b>"`, b.press("Register", nil).h1())
		require.NotContains(t, b.get("/developer/applications/new").body, "Lamp", "it is shown once")
	})
	t.Run("after another log-in of the same browser", func(t *testing.T) {
		h := newHouse(t)
		b := h.loggedIn("alice").get("/developer/applications/new")
		other := h.browser().sameAs(b).get("/")
		other.press("Log out", nil).get("/login").press("Log in", as("alice"))
		b.press("Register", form)
		require.Equal(t, "Register an application", b.h1())
		require.Contains(t, b.text(), "You have logged in again since you opened this form.")
		require.Contains(t, b.body, `value="Lamp &#34;&lt;b&gt;&#34;"`)
		require.NotContains(t, h.log.String(), "application registered")
	})
	t.Run("of a change, too", func(t *testing.T) {
		h := newHouse(t)
		b := h.registered("alice", lamp)
		b.get(b.resp.Request.URL.Path+"/edit").sameAs(h.browser()).press("Save", with(lamp, "client_name", "Candle"))
		require.Equal(t, "Edit the application", b.press("Log in", as("alice")).h1())
		require.Contains(t, b.body, `value="Candle"`)
		require.Equal(t, "Candle", b.press("Save", nil).h1())
	})
	t.Run("of the choice of scopes, which is not an answer", func(t *testing.T) {
		h := newHouse(t)
		b := h.loggedIn("alice").get(h.ask("shop", url.Values{"scope": {"orders:read orders:write"}}))
		_, err := h.pages.EndSessions(t.Context(), "customer:alice")
		require.NoError(t, err)
		b.press("Allow", url.Values{"scope": {"orders:write", "more"}})
		require.Equal(t, "Log in", b.h1())
		require.Equal(t, 422, b.press("Log in", url.Values{"name": {"alice"}, "password": {"wrong"}}).resp.StatusCode)
		b.press("Log in", as("alice"))
		require.Equal(t, "Allow The Shop?", b.h1())
		require.NotContains(t, h.log.String(), "consent given")
		require.Equal(t, "orders:write", h.redeem(b.press("Allow", nil).away()))
	})
	t.Run("but not one of another site, or one that is too long", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().follow(http.MethodPost, "/developer/applications/new", form, http.Header{"Sec-Fetch-Site": {"cross-site"}})
		require.Equal(t, 403, b.resp.StatusCode)
		b = h.browser().post("/developer/applications/new", url.Values{"client_name": {strings.Repeat("x", 20_000)}})
		require.Equal(t, "Log in", b.h1())
		require.NotContains(t, b.body, "xxxx")
	})
	t.Run("nothing is stored for a visitor who is not logged in", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().post("/developer/applications/new", form)
		require.Empty(t, b.set)
	})
}

func TestAFormSentTwiceCountsOnce(t *testing.T) {
	// twice sends a form twice at once, and returns both answers.
	twice := func(b *browser, to string, form url.Values) [2]*browser {
		var both [2]*browser
		var wait sync.WaitGroup
		for i := range both {
			both[i] = newBrowser(b.t, b.base).sameAs(b)
			wait.Go(func() { both[i].post(to, form) })
		}
		wait.Wait()
		return both
	}
	filled := func(b *browser, values url.Values) (string, url.Values) {
		at, form := b.formOf("")
		form.Del("do")
		for name, v := range values {
			form[name] = v
		}
		return at, form
	}
	t.Run("registering", func(t *testing.T) {
		h := newHouse(t)
		b := h.loggedIn("alice").get("/developer/applications/new")
		at, form := filled(b, lamp)
		both := twice(b, at, form)
		assert.Equal(t, both[0].way, both[1].way)
		assert.Equal(t, "The Lamp", both[0].h1())
		assert.Equal(t, 1, strings.Count(h.log.String(), `msg="application registered"`))
		assert.True(t, strings.Contains(both[0].text(), "Keep this secret now") || strings.Contains(both[1].text(), "Keep this secret now"))
		assert.Len(t, b.get("/developer").page.all("h2"), 1)
		assert.Equal(t, both[0].way, b.post(at, form).way, "later, too")
	})
	t.Run("registering, if the browser aborts the first request", func(t *testing.T) {
		h := newHouse(t)
		b := h.loggedIn("alice").get("/developer/applications/new")
		at, form := filled(b, lamp)
		ctx, abort := context.WithCancel(t.Context())
		h.store.puts = func(kind string) {
			if kind == "client" {
				abort()
			}
		}
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, h.url+at, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for _, c := range b.client.Jar.Cookies(mustParse(h.url)) {
			r.AddCookie(c)
		}
		mux := http.NewServeMux()
		h.pages.Routes(mux)
		mux.ServeHTTP(httptest.NewRecorder(), r)
		require.Error(t, ctx.Err())
		h.store.puts = nil
		assert.Equal(t, "The Lamp", b.post(at, form).h1())
		assert.Contains(t, b.text(), "Keep this secret now")
		assert.Equal(t, 1, strings.Count(h.log.String(), `msg="application registered"`))
	})
	t.Run("replacing a secret", func(t *testing.T) {
		h := newHouse(t)
		b := h.registered("alice", lamp)
		b.get(b.resp.Request.URL.Path + "/rotate")
		_, form := filled(b, nil)
		twice(b, b.resp.Request.URL.Path, form)
		assert.Equal(t, 1, strings.Count(h.log.String(), `msg="secret replaced"`))
	})
	t.Run("deleting", func(t *testing.T) {
		h := newHouse(t)
		b := h.registered("alice", lamp)
		b.get(b.resp.Request.URL.Path + "/delete")
		_, form := filled(b, nil)
		for _, each := range twice(b, b.resp.Request.URL.Path, form) {
			assert.Equal(t, "Your applications", each.h1())
		}
	})
	t.Run("revoking", func(t *testing.T) {
		h := newHouse(t)
		b := h.loggedIn("alice")
		h.redeem(b.get(h.ask("shop", nil)).press("Allow", nil).away())
		b.get("/account/applications")
		b.get(b.links()["Revoke"])
		_, form := filled(b, nil)
		for _, each := range twice(b, "/account/applications", form) {
			assert.Contains(t, each.text(), "None yet.")
		}
	})
	t.Run("a form with a problem can be sent again with the same token", func(t *testing.T) {
		h := newHouse(t)
		b := h.loggedIn("alice").get("/developer/applications/new")
		at, form := filled(b, with(lamp, "client_name", ""))
		require.Equal(t, 422, b.post(at, form).resp.StatusCode)
		form.Set("client_name", "Candle")
		require.Equal(t, "Candle", b.post(at, form).h1())
	})
	t.Run("two users may have the same token", func(t *testing.T) {
		h := newHouse(t)
		for _, name := range []string{"alice", "bob"} {
			b := h.loggedIn(name).get("/developer/applications/new")
			at, form := filled(b, lamp)
			form.Set("once", "the same")
			require.Equal(t, "The Lamp", b.post(at, form).h1())
		}
	})
}

func TestHome(t *testing.T) {
	h := newHouse(t)
	b := h.browser().get("/")
	require.Equal(t, "/login", b.links()["Log in"])
	require.Equal(t, "Log in", b.get("/login").h1())
	require.Empty(t, b.page.all("header")[0].all("nav"), "the page itself does not lead to itself")
	b.press("Log in", as("alice"))
	require.Empty(t, b.links()["Log in"])
}
