package pages_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/pages"
	"github.com/valetkey/valetkey/authserver/store"
)

var lamp = url.Values{
	"client_name": {"The Lamp"}, "client_uri": {"https://lamp.example"}, "kind": {"web"},
	"redirect_uris": {"https://lamp.example/cb\r\n\r\n https://lamp.example/other "}, "scope": {"orders:read", "orders:write"},
}

func with(form url.Values, name string, values ...string) url.Values {
	changed := url.Values{}
	for n, v := range form {
		changed[n] = v
	}
	changed[name] = values
	return changed
}

// registered is a browser on the page of an application that its user has just registered.
func (h *house) registered(name string, form url.Values) *browser {
	h.t.Helper()
	b := h.loggedIn(name).get("/developer/applications/new").press("Register", form)
	require.Equal(h.t, form.Get("client_name"), b.h1(), b.text())
	return b
}

// copied are the texts that the page has for copying.
func (b *browser) copied() (list []string) {
	for _, c := range b.page.all("code") {
		if strings.HasPrefix(c.attr["class"], "copy") {
			list = append(list, c.text)
		}
	}
	return list
}

func TestRegister(t *testing.T) {
	h := newHouse(t)
	b := h.loggedIn("alice")
	for _, c := range []struct {
		name string
		form url.Values
		says string
	}{
		{"no name", with(lamp, "client_name", " "), "Enter a name"},
		{"a name that turns the line around", with(lamp, "client_name", "a\u202eb"), "a character that cannot be shown"},
		{"no website but a script", with(lamp, "client_uri", "javascript:alert(1)"), "Enter the https or http URL of a website."},
		{"no redirect URI", with(lamp, "redirect_uris", "\n"), "Enter at least one redirect URI."},
		{"a redirect URI that is http", with(lamp, "redirect_uris", "https://a.example/cb\nhttp://a.example/cb"), "Line 2 is neither https"},
		{"a redirect URI with a fragment", with(lamp, "redirect_uris", "https://a.example/#x"), "Line 1 has a fragment."},
		{"a private-use scheme for a web application", with(lamp, "redirect_uris", "com.example.app:/cb"), "which requires a native application"},
		{"too many redirect URIs", with(lamp, "redirect_uris", strings.Repeat("https://a.example/cb\n", 30)), "This are too many."},
		{"no scope", with(lamp, "scope"), "Select at least one scope."},
		{"a scope that there is not", with(lamp, "scope", "orders:delete"), "One of the scopes no longer exists."},
		{"no kind", with(lamp, "kind"), "Choose what kind"},
		{"a service, which customers may not register", with(lamp, "kind", "service"), "Choose what kind"},
	} {
		t.Run(c.name+" is refused, and what was filled in stays", func(t *testing.T) {
			b.get("/developer/applications/new").press("Register", c.form)
			require.Equal(t, 422, b.resp.StatusCode)
			require.Contains(t, b.text(), c.says)
			if c.form.Get("client_uri") == "https://lamp.example" {
				require.Contains(t, b.body, `value="https://lamp.example"`)
			}
		})
	}
	t.Run("none of these was registered", func(t *testing.T) {
		list, err := h.registry.ByOwner(t.Context(), "customer:alice")
		require.NoError(t, err)
		require.Empty(t, list)
	})
	t.Run("one application too many is refused", func(t *testing.T) {
		for range 100 {
			_, _, err := h.registry.Create(t.Context(), clients.Client{Owner: "customer:bob", Name: "one more", GrantTypes: []string{"client_credentials"}}, true)
			require.NoError(t, err)
		}
		b := h.loggedIn("bob").get("/developer/applications/new").press("Register", lamp)
		require.Contains(t, b.text(), "you have 100 applications already")
		list, err := h.registry.ByOwner(t.Context(), "customer:bob")
		require.NoError(t, err)
		for _, c := range list {
			require.NoError(t, h.registry.Delete(t.Context(), c.ID))
		}
	})
	t.Run("the secret is shown once, and not stored", func(t *testing.T) {
		b := h.registered("alice", lamp)
		require.Len(t, b.way, 1)
		secret := b.copied()[0]
		require.Regexp(t, `^[A-Z2-7]{26}$`, secret)
		require.Contains(t, b.text(), "It is shown only once")
		list, err := h.registry.ByOwner(t.Context(), "customer:alice")
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.True(t, list[0].HasSecret(secret))
		require.Equal(t, []string{"https://lamp.example/cb", "https://lamp.example/other", h.url + "/developer/try/callback"}, list[0].RedirectURIs)
		require.Equal(t, []string{"authorization_code", "refresh_token"}, list[0].GrantTypes)
		require.NotContains(t, b.text(), "try/callback", "that one is ours")

		require.NotContains(t, b.get("/developer/applications/"+list[0].ID).body, secret)
		require.Contains(t, b.get("/developer").text(), "The Lamp")
		require.NotContains(t, h.log.String(), secret)
		require.Contains(t, h.log.String(), `msg="application registered" subject=customer:alice client=`+list[0].ID)
	})
	t.Run("public kinds have no secret", func(t *testing.T) {
		for _, kind := range []string{"spa", "native"} {
			require.Contains(t, h.registered("bob", with(lamp, "kind", kind)).text(), "None (public client).")
		}
		list, err := h.registry.ByOwner(t.Context(), "customer:bob")
		require.NoError(t, err)
		require.True(t, list[0].Public() && list[1].Public())
		require.True(t, list[0].Native != list[1].Native)
	})
	t.Run("users with the permission register services", func(t *testing.T) {
		b := h.registered("carol", with(lamp, "kind", "service"))
		require.NotContains(t, b.text(), "Redirect URIs")
	})
	t.Run("hostile names stay text everywhere", func(t *testing.T) {
		b := h.registered("carol", with(lamp, "client_name", `"><script>alert(1)</script>`))
		at := b.resp.Request.URL.Path
		for _, page := range []string{"", "/edit", "/rotate", "/delete"} {
			require.NotContains(t, b.get(at+page).body, "<script")
		}
		require.NotContains(t, b.get("/developer").body, "<script")
	})
}

func TestPortalIsForItsOwner(t *testing.T) {
	h := newHouse(t)
	at := h.registered("alice", lamp).resp.Request.URL.Path
	bob := h.loggedIn("bob")
	token := bob.get("/developer/applications/new").page.all("form")[1].all("input")[0].attr["value"]
	for _, page := range []string{"", "/edit", "/rotate", "/delete", "/token"} {
		require.Equal(t, 404, bob.get(at+page).resp.StatusCode, page)
		require.Equal(t, "Log in", h.browser().get(at+page).h1())
	}
	for _, page := range []string{"/edit", "/rotate", "/delete", "/token", "/try"} {
		require.Equal(t, 404, bob.post(at+page, with(lamp, "token", token)).resp.StatusCode, page)
	}
	require.Equal(t, 404, bob.get("/developer/applications/shop").resp.StatusCode, "of the configuration")

	t.Run("if configured, not for all users", func(t *testing.T) {
		h := newHouse(t, func(c *pages.Config) { c.Developers = []string{"employee"} })
		b := h.loggedIn("alice")
		require.NotContains(t, b.body, ">Developers</a>\n</nav>")
		require.Equal(t, 403, b.get("/developer").resp.StatusCode)
		require.Equal(t, "Your applications", h.loggedIn("carol").get("/developer").h1())
	})
}

func TestEditRotateDelete(t *testing.T) {
	h := newHouse(t)
	b := h.registered("alice", lamp)
	at, old := b.resp.Request.URL.Path, b.copied()[0]
	id := at[strings.LastIndex(at, "/")+1:]

	t.Run("a mistake changes nothing", func(t *testing.T) {
		b.get(at+"/edit").press("Save", url.Values{"redirect_uris": {"http://lamp.example"}, "client_name": {"Other"}})
		require.Equal(t, 422, b.resp.StatusCode)
		require.Equal(t, "The Lamp", b.get(at).h1())
	})
	t.Run("changes are saved, and the kind and the secret stay", func(t *testing.T) {
		b.get(at+"/edit").press("Save", url.Values{"client_name": {"The New Lamp"}, "scope": {"orders:read"}, "kind": {"service"}})
		require.Equal(t, "The New Lamp", b.h1())
		c, err := h.registry.Get(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, []string{"orders:read"}, c.Scopes)
		require.Equal(t, []string{"https://lamp.example/cb", "https://lamp.example/other", h.url + "/developer/try/callback"}, c.RedirectURIs)
		require.True(t, c.HasSecret(old))
		require.Contains(t, b.text(), "Web application")
	})
	t.Run("a new secret is shown once, and the old one is dead", func(t *testing.T) {
		b.get(at+"/rotate").press("Replace the secret", nil)
		secret := b.copied()[0]
		c, err := h.registry.Get(t.Context(), id)
		require.NoError(t, err)
		require.True(t, c.HasSecret(secret))
		require.False(t, c.HasSecret(old))
		require.NotContains(t, b.get(at).body, secret)
	})
	t.Run("a public client has none to replace", func(t *testing.T) {
		spa := h.registered("bob", with(lamp, "kind", "spa"))
		require.Equal(t, 404, spa.get(spa.resp.Request.URL.Path+"/rotate").resp.StatusCode)
	})
	t.Run("deleting asks first, and ends what it may do", func(t *testing.T) {
		b.get(at).press("Try this application", nil).press("Allow", nil)
		require.Equal(t, "Your access token", b.h1())
		require.Contains(t, b.press("Use it", nil).text(), "200 OK")
		use := b.resp.Request.URL.Path
		require.Equal(t, "Delete The New Lamp?", b.get(at+"/delete").h1())
		require.Contains(t, b.press("Delete the application", nil).text(), "“The New Lamp” has been deleted.")
		require.NotContains(t, b.get("/developer").text(), "The New Lamp")
		require.Equal(t, 404, b.get(use).resp.StatusCode)
		left, err := h.store.Find(t.Context(), "consent", store.Key{Name: "client", Value: id}, "", 1)
		require.NoError(t, err)
		require.Empty(t, left)
		require.Contains(t, h.log.String(), "grants=1")
	})
}

func TestTry(t *testing.T) {
	t.Run("an unexpected answer is refused", func(t *testing.T) {
		h := newHouse(t)
		b := h.registered("alice", lamp)
		require.Equal(t, 400, b.get("/developer/try/callback?code=x&state=").resp.StatusCode)
		at := b.get("/developer").page.all("h2")[0].all("a")[0].attr["href"]
		for _, query := range []string{"?code=x&state=wrong&iss=" + h.url, "?code=x&iss=" + h.url} {
			b.get(at).press("Try this application", nil)
			require.Equal(t, 400, b.get("/developer/try/callback"+query).resp.StatusCode)
			require.Equal(t, "No trial is in progress", b.h1())
		}
	})
	t.Run("so is one of another issuer, or a second one", func(t *testing.T) {
		h := newHouse(t)
		b := h.registered("alice", lamp)
		b.press("Try this application", nil)
		state := regexp.MustCompile(`state=(\w+)`).FindStringSubmatch(b.way[0])[1]
		require.Equal(t, "The response is not from this server", b.get("/developer/try/callback?code=x&state="+state+"&iss=https://evil.example").h1())
		require.Equal(t, "No trial is in progress", b.get("/developer/try/callback?code=x&state="+state+"&iss="+h.url).h1())
	})
	t.Run("a code that is wrong, and a user who denies, are shown as the application receives them", func(t *testing.T) {
		h := newHouse(t)
		b := h.registered("alice", lamp)
		at := b.resp.Request.URL.Path
		b.press("Try this application", nil)
		state := regexp.MustCompile(`state=(\w+)`).FindStringSubmatch(b.way[0])[1]
		b.get("/developer/try/callback?code=x&state=" + state + "&iss=" + h.url)
		require.Equal(t, "The trial was refused", b.h1())
		require.Contains(t, b.text(), "invalid_grant")
		b.get(at).press("Try this application", nil).press("Deny", nil)
		require.Contains(t, b.text(), "access_denied")
	})
	t.Run("an API that the application has no scope of cannot be tried", func(t *testing.T) {
		h := newHouse(t)
		require.Equal(t, 404, h.registered("alice", lamp).press("Try this application", url.Values{"audience": {"https://vault.example"}}).resp.StatusCode)
	})
	for _, kind := range []string{"web", "spa", "native"} {
		t.Run("the flow of a "+kind+" application ends with a token, explained and used, until it is taken back", func(t *testing.T) {
			h := newHouse(t)
			b := h.registered("alice", with(lamp, "kind", kind))
			id := b.resp.Request.URL.Path[len("/developer/applications/"):]
			b.press("Try this application", nil)
			require.Equal(t, "Allow The Lamp?", b.h1())
			require.Contains(t, b.text(), "its name and website have not been checked")
			b.press("Allow", nil)
			require.Equal(t, "Your access token", b.h1())
			for _, words := range []string{"at+jwt", "The issuer: this server. RFC 7519, 4.1.1", "customer:alice", "https://orders.example", "orders:read orders:write", ", in 10 minutes", "Nothing: anyone who obtains it can use it", id} {
				require.Contains(t, b.text(), words)
			}
			token := b.page.all("code")[0].text
			require.Equal(t, 2, strings.Count(token, "."))

			b.press("Use it", nil)
			require.Contains(t, b.text(), "GET /orders HTTP/1.1 Host: ")
			require.Contains(t, b.text(), "200 OK")
			require.Contains(t, b.text(), `"orders": "\u003ci\u003ethree\u003c/i\u003e"`)
			require.Contains(t, b.text(), `"of": "customer:alice"`)

			back := b.resp.Request.URL.Path
			require.Contains(t, b.get("/account/applications").text(), "The Lamp https://lamp.example It may: See your orders")
			b.revoke()
			require.Contains(t, b.text(), "“The Lamp” cannot get access any more. What it has now ends within 10 minutes.")
			require.Contains(t, b.text(), "None yet.")
			require.NotContains(t, b.get("/account/applications").text(), "The Lamp", "the result is reported once")
			require.Contains(t, b.get(back).press("Use it again", nil).text(), "401 Unauthorized")

			require.NotContains(t, h.log.String(), token)
			require.NotContains(t, h.log.String(), strings.Split(token, ".")[2])
			c, err := h.registry.Get(t.Context(), id)
			require.NoError(t, err)
			require.LessOrEqual(t, len(c.SecretDigest), 1, "the secret of the trial is gone")
		})
	}
	t.Run("a service gets its token without a user", func(t *testing.T) {
		h := newHouse(t)
		b := h.registered("carol", with(with(lamp, "kind", "service"), "scope", "orders:read", "vault:open")).press("Try this application", nil)
		require.Equal(t, "Your access token", b.h1())
		require.Contains(t, b.press("Use it", nil).text(), "200 OK")
	})
	t.Run("an opaque token reveals nothing, and there may be nowhere to use it", func(t *testing.T) {
		h := newHouse(t)
		b := h.registered("alice", with(lamp, "scope", "vault:open")).press("Try this application", nil).press("Allow", nil)
		require.Contains(t, b.text(), "It is opaque")
		require.NotContains(t, b.text(), "Use it")
	})
	t.Run("an answer that nests deeply is shown as it is: indented, it would be the square of its length", func(t *testing.T) {
		nested := strings.Repeat("[", 8000) + strings.Repeat("]", 8000)
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, nested) }))
		defer api.Close()
		h := newHouse(t, func(c *pages.Config) { c.APIs[0].TryURL = api.URL })
		b := h.registered("alice", lamp).press("Try this application", nil).press("Allow", nil).press("Use it", nil)
		require.Equal(t, 200, b.resp.StatusCode)
		require.Contains(t, b.text(), nested)
	})
	t.Run("an API that is down is what there is to see", func(t *testing.T) {
		h := newHouse(t, func(c *pages.Config) { c.APIs[0].TryURL = "http://127.0.0.1:1/orders" })
		b := h.registered("alice", lamp).press("Try this application", nil).press("Allow", nil).press("Use it", nil)
		require.Equal(t, 200, b.resp.StatusCode)
		require.Contains(t, b.text(), "No response: nothing answers at http:")
	})
	t.Run("the token is of one session, and nothing of it is in the store", func(t *testing.T) {
		h := newHouse(t)
		b := h.registered("alice", lamp).press("Try this application", nil).press("Allow", nil)
		at := b.resp.Request.URL.Path
		require.Equal(t, "The Lamp", h.loggedIn("alice").get(at).h1(), "another session has none")
		require.Equal(t, "Your access token", b.get(at).h1())
	})
	t.Run("on an issuer that cannot be redirected to there is nothing to try", func(t *testing.T) {
		h := newHouse(t, func(c *pages.Config) { c.Issuer = "http://as.internal" })
		require.NotContains(t, h.registered("alice", lamp).text(), "Try this application")
	})
}

func TestAllowedApplications(t *testing.T) {
	h := newHouse(t)
	b := h.loggedIn("alice")
	require.Contains(t, b.get("/account/applications").text(), "None yet.")
	code := b.get(h.ask("shop", nil)).press("Allow", nil).away()
	require.Equal(t, "orders:read", h.redeem(code))

	t.Run("others do not see them", func(t *testing.T) {
		require.Contains(t, h.loggedIn("bob").get("/account/applications").text(), "None yet.")
	})
	t.Run("the list states what, and since when", func(t *testing.T) {
		require.Regexp(t, `The Shop https://shop.example It may: See your orders orders:read at Orders Allowed since \d+ \w+ \d{4}\. Revoke`, b.get("/account/applications").text())
	})
	t.Run("no client is not all of them", func(t *testing.T) {
		require.Equal(t, 404, b.follow(http.MethodGet, b.links()["Revoke"], nil, nil).press("Revoke the access", url.Values{"client_id": nil}).resp.StatusCode)
	})
	t.Run("if the tokens cannot be ended, the application stays in the list", func(t *testing.T) {
		b.get("/account/applications")
		h.store.set("grant")
		require.Equal(t, 503, b.revoke().resp.StatusCode)
		h.store.set("")
		require.Contains(t, b.get("/account/applications").text(), "The Shop")
	})
	t.Run("a client that is gone is no longer listed", func(t *testing.T) {
		lamp := h.registered("bob", lamp)
		at := lamp.resp.Request.URL.Path
		lamp.press("Try this application", nil).press("Allow", nil)
		require.Contains(t, lamp.get("/account/applications").text(), "The Lamp")
		require.NoError(t, h.registry.Delete(t.Context(), at[strings.LastIndex(at, "/")+1:]))
		require.Contains(t, lamp.get("/account/applications").text(), "None yet.")
	})
	t.Run("a revoked consent is asked for again", func(t *testing.T) {
		require.Contains(t, b.get("/account/applications").revoke().text(), "None yet.")
		require.Equal(t, "Allow The Shop?", b.get(h.ask("shop", nil)).h1())
		require.Contains(t, h.log.String(), `msg="consent revoked" subject=customer:alice client=shop grants=1`)
	})
}

func TestErrorPage(t *testing.T) {
	h := newHouse(t)
	b := h.browser().get("/oauth2/authorize?client_id=" + url.QueryEscape("<script>"))
	require.Equal(t, http.StatusBadRequest, b.resp.StatusCode)
	require.Contains(t, b.text(), "client_id is missing, or the client is not known")

	h.store.set("client")
	b.get("/oauth2/authorize?client_id=other")
	require.GreaterOrEqual(t, b.resp.StatusCode, 500)
	require.Contains(t, b.text(), "something went wrong on our side")
}
