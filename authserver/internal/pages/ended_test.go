package pages_test

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
)

// formOf returns where the last form of the page goes, and what its button sends.
func (b *browser) formOf(do string) (action string, values url.Values) {
	b.t.Helper()
	forms := b.page.all("main")[0].all("form")
	form := forms[len(forms)-1]
	values = url.Values{"do": {do}}
	for _, in := range form.all("input") {
		if in.attr["type"] != "checkbox" || in.has("checked") {
			values.Add(in.attr["name"], in.attr["value"])
		}
	}
	return form.attr["action"], values
}

// links returns the words of the links of a page, with where they lead.
func (b *browser) links() map[string]string {
	b.t.Helper()
	links := map[string]string{}
	for _, a := range b.page.all("main")[0].all("a") {
		links[a.text] = a.attr["href"]
	}
	return links
}

// revoke revokes what the user has allowed the first application of the list.
func (b *browser) revoke() *browser {
	b.t.Helper()
	return b.get(b.links()["Revoke"]).press("Revoke the access", nil)
}

func TestAnsweredTwice(t *testing.T) {
	t.Run("another answer than the first is refused, with the way back", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().get(h.ask("shop", url.Values{"scope": {"orders:read orders:write"}})).press("Log in", as("alice"))
		at, allow := b.formOf("allow")
		code := b.press("Allow", nil).away().Query().Get("code")
		less, deny := maps.Clone(allow), maps.Clone(allow)
		less["scope"] = []string{"orders:read"}
		deny.Set("do", "deny")
		for name, again := range map[string]func(){
			"fewer scopes":       func() { b.post(at, less) },
			"deny":               func() { b.post(at, deny) },
			"Enter":              func() { b.post(at, url.Values{"do": {"stay"}, "token": allow["token"]}) },
			"another user":       func() { b.post(at, url.Values{"do": {"leave"}, "token": allow["token"]}) },
			"the page again":     func() { b.get(at) },
			"what no form sends": func() { b.post(at, url.Values{"do": {strings.Repeat("x", 1<<20)}}) },
		} {
			again()
			require.Equal(t, 400, b.resp.StatusCode, name)
			require.Empty(t, b.way, name)
			require.Equal(t, "This request has been answered", b.h1(), name)
			require.Contains(t, b.text(), "Each request can be answered once, and The Shop has your answer.", name)
			require.Equal(t, map[string]string{
				"Allowed applications": "/account/applications", "Go to shop.example": "https://shop.example", "Start page": "/",
			}, b.links(), name)
		}
		status, _ := h.tell("/oauth2/token", "shop", url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {back}, "code_verifier": {verifier}})
		require.Equal(t, 200, status, "and harms nothing")
	})
	t.Run("a double click on Allow gets one code", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().get(h.ask("shop", nil)).press("Log in", as("alice"))
		at, allow := b.formOf("allow")
		first := b.post(at, allow).away()
		require.Equal(t, first, b.post(at, allow).away())
		require.Equal(t, "orders:read", h.redeem(first))
	})
	t.Run("a double click on Deny, and on Cancel", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().get(h.ask("shop", nil))
		at, cancel := b.formOf("cancel")
		require.Equal(t, b.post(at, cancel).away(), b.post(at, cancel).away())
		b.get(h.ask("shop", nil)).press("Log in", as("alice"))
		at, deny := b.formOf("deny")
		require.Equal(t, b.post(at, deny).away(), b.post(at, deny).away())
	})
	t.Run("a double click on Log in, by a user who has allowed it before", func(t *testing.T) {
		h := newHouse(t)
		h.browser().get(h.ask("shop", nil)).press("Log in", as("alice")).press("Allow", nil)
		b := h.browser().get(h.ask("shop", nil))
		at, in := b.formOf("login")
		in.Set("name", "alice")
		in.Set("password", "alice's password")
		in.Set("type", "customer")
		first := b.post(at, in).away()
		require.NotEmpty(t, first.Query().Get("code"))
		require.Equal(t, first, b.post(at, in).away())
	})
}

// A repeated answer contains the code of the user who gave the first one.
func TestAnAnswerIsRepeatedOnlyToTheLogInThatGaveIt(t *testing.T) {
	for name, c := range map[string]struct {
		between func(b *browser)
		token   string // empty: that of the form
	}{
		"after a log-out": {between: func(b *browser) { b.get("/").press("Log out", nil) }},
		"after another user has logged in": {between: func(b *browser) {
			b.get("/").press("Log out", nil)
			b.get("/login").press("Log in", as("bob"))
		}},
		"after the same user has logged in again": {between: func(b *browser) {
			b.get("/").press("Log out", nil)
			b.get("/login").press("Log in", as("alice"))
		}},
		"with a form that has another token": {between: func(*browser) {}, token: "another"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			b := h.browser().get(h.ask("shop", nil)).press("Log in", as("alice"))
			at, allow := b.formOf("allow")
			first := b.post(at, allow).away()
			c.between(b)
			if c.token != "" {
				allow.Set("token", c.token)
			}
			for _, form := range []url.Values{allow, {"do": allow["do"], "scope": allow["scope"]}} {
				b.post(at, form)
				require.Empty(t, b.way)
				require.Equal(t, 400, b.resp.StatusCode)
				require.Equal(t, "This request has been answered", b.h1())
			}
			require.Equal(t, "orders:read", h.redeem(first), "and harms nothing")
		})
	}
	t.Run("nor to another user who loads the page, if it was given without a question", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().get(h.ask("shop", nil)).press("Log in", as("alice")).press("Allow", nil)
		b.get("/").press("Log out", nil)
		b.get(h.ask("shop", nil))
		at, _ := b.formOf("login")
		first := b.press("Log in", as("alice")).away()
		require.Equal(t, first, b.get(at).away())
		b.get("/").press("Log out", nil)
		b.get("/login").press("Log in", as("bob")).get(at)
		require.Empty(t, b.way)
		require.Equal(t, "This request has been answered", b.h1())
	})
}

func TestWayBack(t *testing.T) {
	h := newHouse(t)
	gone := func(client string) *browser {
		b := h.browser().get("/oauth2/authorize/" + strings.Repeat("A", 52) + "?" + url.Values{"client_id": {client}}.Encode())
		require.Equal(t, http.StatusBadRequest, b.resp.StatusCode)
		require.Equal(t, "This request has expired", b.h1())
		return b
	}
	register := func(c clients.Client) string {
		t.Helper()
		c.AuthMethod, c.GrantTypes, c.Scopes = "none", []string{"authorization_code"}, []string{"orders:read"}
		made, _, err := h.registry.Create(t.Context(), c, false)
		require.NoError(t, err)
		return made.ID
	}
	start := map[string]string{"Start page": "/"}
	t.Run("a link to nothing cannot name a stranger", func(t *testing.T) {
		id := register(clients.Client{Name: "The Bank", URI: "https://phish.example", RedirectURIs: []string{"https://phish.example/cb"}, RegistrationDigest: "x"})
		b := gone(id)
		require.Equal(t, start, b.links())
		require.NotContains(t, b.text(), "The Bank")
		require.Contains(t, b.text(), "start in the application that sent you here")
	})
	t.Run("nor what does not exist", func(t *testing.T) {
		for _, id := range []string{"", "nobody", "\x00", "<script>"} {
			require.Equal(t, start, gone(id).links())
		}
	})
	t.Run("to the website of an application that the operator knows", func(t *testing.T) {
		b := gone("shop")
		require.Contains(t, b.text(), "To try again, start in The Shop.")
		require.Equal(t, "https://shop.example", b.links()["Go to shop.example"])
	})
	t.Run("or else to where it is led back to", func(t *testing.T) {
		require.Equal(t, back[:strings.LastIndex(back, "/")+1], gone("ours").links()["Go to shop.example"])
		require.Equal(t, start, gone(register(clients.Client{Native: true, RedirectURIs: []string{"com.example.app://x/cb"}})).links())
	})
	t.Run("of a stranger to where the user has seen that it leads, and not to its website", func(t *testing.T) {
		id := register(clients.Client{Name: "Notes", URI: "https://phish.example", RedirectURIs: []string{"https://notes.example/cb"}, RegistrationDigest: "y"})
		b := h.loggedIn("alice").get(h.ask(id, url.Values{"redirect_uri": {"https://notes.example/cb"}})).press("Continue", nil)
		at, _ := b.formOf("allow")
		b.press("Allow", nil)
		require.Equal(t, "https://notes.example/", b.get(at).links()["Go to notes.example"])
		require.Equal(t, "This request has been answered", b.h1())
	})
}
