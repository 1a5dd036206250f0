package pages_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/store"
)

func TestConsent(t *testing.T) {
	t.Run("a user who denies returns to the application with access_denied", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().get(h.ask("shop", nil)).press("Log in", as("alice")).press("Deny", nil)
		require.Equal(t, "access_denied", b.away().Query().Get("error"))
		require.Equal(t, "a state", b.away().Query().Get("state"))
		require.Contains(t, h.log.String(), `msg="consent denied" subject=customer:alice client=shop`)
	})
	t.Run("so does a user who cancels the log-in", func(t *testing.T) {
		h := newHouse(t)
		require.Equal(t, "access_denied", h.browser().get(h.ask("shop", nil)).press("Cancel", nil).away().Query().Get("error"))
	})
	t.Run("AS-CODE-02 a redirect URI that is not the client's ends on a page, not in a redirect", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().get(h.ask("shop", url.Values{"redirect_uri": {"https://evil.example/"}}))
		require.Equal(t, 400, b.resp.StatusCode)
		require.Equal(t, "Something went wrong", b.h1())
		require.Empty(t, b.way)
	})
	t.Run("allowing nothing is not consent", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().get(h.ask("shop", nil)).press("Log in", as("alice")).press("Allow", url.Values{"scope": nil})
		require.Equal(t, 422, b.resp.StatusCode)
		require.Contains(t, b.text(), "Select at least one, or choose Deny.")
	})
	t.Run("to allow what was not asked for does not count", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().get(h.ask("shop", nil)).press("Log in", as("alice")).press("Allow", url.Values{"scope": {"orders:read", "orders:write", "vault:open"}})
		require.Equal(t, "orders:read", h.redeem(b.away()))
	})
	t.Run("the page states who asks for what, where, for how long, and of whom", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().get(h.ask("shop", nil))
		require.Contains(t, b.text(), "to continue to The Shop")
		b.press("Log in", as("alice"))
		require.Equal(t, "Allow The Shop?", b.h1())
		for _, words := range []string{"https://shop.example", "logged in as alice", "In Orders, it wants to:", "See your orders orders:read", "Access lasts 10 minutes, and the application can renew it for 30 days.", "You will return to shop.example."} {
			require.Contains(t, b.text(), words)
		}
		require.NotContains(t, b.text(), "its name and website have not been checked", "it is in the configuration")
	})
	t.Run("the host of an application's own scheme is not a place, and is not shown as one", func(t *testing.T) {
		h := newHouse(t)
		const uri = "com.example.tool://www.bank.example/cb"
		c, _, err := h.registry.Create(t.Context(), clients.Client{
			Name: "The Bank", Native: true, RedirectURIs: []string{uri}, GrantTypes: []string{"authorization_code"}, Scopes: []string{"orders:read"},
		}, false)
		require.NoError(t, err)
		b := h.browser().get(h.ask(c.ID, url.Values{"redirect_uri": {uri}})).press("Log in", as("alice"))
		require.Equal(t, "Allow The Bank?", b.h1())
		require.NotContains(t, b.text(), "You will return to")
		require.NotContains(t, b.text(), "www.bank.example")
	})
	t.Run("authorization_details are shown as they are issued, each time", func(t *testing.T) {
		h := newHouse(t)
		details := `[{"type":"order","item":"<b>tea</b>\u202e","amount":2}]`
		ask := func(client string, more url.Values) string {
			query := url.Values{"authorization_details": {details}}
			for name, values := range more {
				query[name] = values
			}
			return h.ask(client, query)
		}
		b := h.browser().get(ask("shop", nil)).press("Log in", as("alice"))
		for range 2 {
			require.Contains(t, b.text(), "Place this order")
			require.Contains(t, b.text(), `"amount": 2`)
			require.Contains(t, b.text(), `"item": "\u003cb\u003etea\u003c/b\u003e\u202e"`, "and changes no direction of the text around it")
			require.NotEmpty(t, b.press("Allow", nil).away().Query().Get("code"))
			b.get(ask("shop", nil))
		}
		require.Equal(t, "consent_required", b.get(ask("shop", url.Values{"prompt": {"none"}})).away().Query().Get("error"))
		require.NotEmpty(t, b.get(h.ask("shop", url.Values{"prompt": {"none"}})).away().Query().Get("code"), "the scopes are allowed")
		require.Contains(t, b.get(ask("shop", url.Values{"ui_locales": {"de"}})).text(), "Diese Bestellung aufgeben")
		require.NotEmpty(t, b.get(ask("ours", nil)).away().Query().Get("code"), "a trusted client needs no consent")
	})
	t.Run("authorization_details without a scope, by users who may and may not allow them", func(t *testing.T) {
		h := newHouse(t)
		ask := h.ask("shop", url.Values{"scope": nil, "resource": {orders}, "authorization_details": {`[{"type":"order"}]`}})
		b := h.browser().get(ask).press("Log in", as("alice"))
		require.Contains(t, b.text(), "Place this order")
		require.NotContains(t, b.text(), "See your orders")
		require.NotEmpty(t, b.press("Allow", nil).away().Query().Get("code"))
		b = h.browser().get(ask).press("Log in", as("carol"))
		require.Contains(t, b.text(), "Your account is not permitted to allow anything that it requested: Place this order")
		require.NotContains(t, b.body, `value="allow"`)
		require.Equal(t, "access_denied", b.press("Deny", nil).away().Query().Get("error"))
	})
	t.Run("a scope can be left out", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().get(h.ask("shop", url.Values{"scope": {"orders:read orders:write"}})).press("Log in", as("alice"))
		require.Equal(t, "orders:read", h.redeem(b.press("Allow", url.Values{"scope": {"orders:read"}}).away()))
		b.get(h.ask("shop", url.Values{"scope": {"orders:read orders:write"}}))
		require.Equal(t, "Allow The Shop?", b.h1(), "what was left out is asked for again")
	})
	t.Run("Enter in a checkbox decides nothing, and the checkboxes keep their state", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().get(h.ask("shop", url.Values{"scope": {"orders:read orders:write"}})).press("Log in", as("alice"))
		for _, ticked := range [][]string{{"orders:write"}, {"orders:read"}, nil} {
			b.enter(url.Values{"scope": ticked})
			require.Equal(t, 200, b.resp.StatusCode)
			require.Equal(t, "Allow The Shop?", b.h1())
			var kept []string
			for _, in := range b.page.all("input") {
				if in.attr["name"] == "scope" && in.has("checked") {
					kept = append(kept, in.attr["value"])
				}
			}
			require.Equal(t, ticked, kept)
		}
		require.NotContains(t, h.log.String(), "consent")
		require.Equal(t, "orders:write", h.redeem(b.press("Allow", url.Values{"scope": {"orders:write"}}).away()))
	})
	t.Run("neither keyboards nor screen readers find the button that decides nothing", func(t *testing.T) {
		h := newHouse(t)
		form := h.browser().get(h.ask("shop", nil)).press("Log in", as("alice")).page.all("form")[1]
		first := form.all("button")[0]
		require.Equal(t, "stay", first.attr["value"])
		require.Equal(t, "-1", first.attr["tabindex"])
		require.Equal(t, "true", first.attr["aria-hidden"])
	})
	t.Run("a scope that the user may not allow is not offered", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().get(h.ask("shop", url.Values{"scope": {"orders:read orders:write"}})).press("Log in", as("carol"))
		require.Contains(t, b.text(), "which your account is not permitted to allow: Place orders for you")
		require.Equal(t, "orders:read", h.redeem(b.press("Allow", url.Values{"scope": {"orders:read", "orders:write"}}).away()))
	})
	t.Run("if that is all of them, there is nothing to allow", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().get(h.ask("shop", url.Values{"scope": {"orders:write"}})).press("Log in", as("carol"))
		require.Contains(t, b.text(), "Your account is not permitted to allow anything that it requested:")
		require.Equal(t, "access_denied", b.press("Deny", nil).away().Query().Get("error"))
		require.Equal(t, "access_denied", b.get(h.ask("ours", url.Values{"scope": {"orders:write"}})).away().Query().Get("error"))
	})
	t.Run("another user can log in instead", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().get(h.ask("shop", nil)).press("Log in", as("alice")).press("Not you?", nil)
		require.Equal(t, "Log in", b.h1())
		require.Contains(t, b.press("Log in", as("bob")).text(), "logged in as bob")
	})
	t.Run("names are text", func(t *testing.T) {
		h := newHouse(t)
		b := h.browser().get(h.ask("tool", url.Values{"redirect_uri": {"http://127.0.0.1:4711/cb"}})).press("Log in", as("carol"))
		require.Equal(t, "Allow <script>alert(1)</script>?", b.h1())
		require.Contains(t, b.text(), "logged in as Carol <b>.")
	})
}

func TestRememberedConsent(t *testing.T) {
	h := newHouse(t)
	b := h.browser().get(h.ask("shop", nil)).press("Log in", as("alice")).press("Allow", nil)
	require.Equal(t, "orders:read", h.redeem(b.away()))

	t.Run("more scopes are asked for", func(t *testing.T) {
		require.Equal(t, "Allow The Shop?", b.get(h.ask("shop", url.Values{"scope": {"orders:read orders:write"}})).h1())
	})
	t.Run("prompt=consent asks", func(t *testing.T) {
		require.Equal(t, "Allow The Shop?", b.get(h.ask("shop", url.Values{"prompt": {"consent"}})).h1())
	})
	t.Run("another user is asked", func(t *testing.T) {
		require.Equal(t, "Allow The Shop?", h.browser().get(h.ask("shop", nil)).press("Log in", as("bob")).h1())
	})
	t.Run("a client that any program on the machine could impersonate needs consent each time", func(t *testing.T) {
		ask := h.ask("tool", url.Values{"redirect_uri": {"http://127.0.0.1:4711/cb"}})
		require.NotEmpty(t, b.get(ask).press("Allow", nil).away().Query().Get("code"))
		require.Equal(t, "Allow <script>alert(1)</script>?", b.get(ask).h1())
		require.Equal(t, "consent_required", b.get(ask+"&prompt=none").away().Query().Get("error"))
	})
	t.Run("the same is not asked again, not even silently", func(t *testing.T) {
		require.Equal(t, "orders:read", h.redeem(b.get(h.ask("shop", nil)).away()))
		require.Equal(t, "orders:read", h.redeem(b.get(h.ask("shop", url.Values{"prompt": {"none"}})).away()))
	})
	t.Run("a trusted client is not asked for, but listed", func(t *testing.T) {
		require.NotEmpty(t, b.get(h.ask("ours", nil)).away().Query().Get("code"))
		require.Contains(t, b.get("/account/applications").text(), "Ours")
	})
	t.Run("a client that a store of an older server has as trusted is asked for on loopback, each time", func(t *testing.T) {
		value := `{"client_id":"old","client_name":"Old","token_endpoint_auth_method":"none","native":true,"trusted":true,
			"redirect_uris":["http://127.0.0.1/cb"],"grant_types":["authorization_code"],"scopes":["orders:read"]}`
		_, err := h.store.Put(t.Context(), store.Record{Kind: "client", ID: "old", Value: []byte(value)})
		require.NoError(t, err)
		ask := h.ask("old", url.Values{"redirect_uri": {"http://127.0.0.1:4711/cb"}})
		for range 2 {
			require.Equal(t, "Allow Old?", b.get(ask).h1())
			require.NotEmpty(t, b.press("Allow", nil).away().Query().Get("code"))
		}
		require.Equal(t, "consent_required", b.get(ask+"&prompt=none").away().Query().Get("error"))
	})
	t.Run("prompt=consent asks even for a trusted one", func(t *testing.T) {
		require.Equal(t, "Allow Ours?", b.get(h.ask("ours", url.Values{"prompt": {"consent"}})).h1())
	})
}

func TestPrompt(t *testing.T) {
	h := newHouse(t)
	none := url.Values{"prompt": {"none"}}
	t.Run("prompt=none without a log-in is login_required", func(t *testing.T) {
		require.Equal(t, "login_required", h.browser().get(h.ask("shop", none)).away().Query().Get("error"))
	})
	t.Run("prompt=none without a consent is consent_required", func(t *testing.T) {
		require.Equal(t, "consent_required", h.loggedIn("bob").get(h.ask("shop", none)).away().Query().Get("error"))
	})
	t.Run("prompt=none without anything to allow is access_denied", func(t *testing.T) {
		ask := h.ask("shop", url.Values{"prompt": {"none"}, "scope": {"orders:write"}})
		require.Equal(t, "access_denied", h.loggedIn("carol").get(ask).away().Query().Get("error"))
	})
	for name, more := range map[string]url.Values{"prompt=login": {"prompt": {"login"}}, "prompt=select_account": {"prompt": {"select_account"}}, "max_age=0": {"max_age": {"0"}}} {
		t.Run(name+" requires a new log-in, once", func(t *testing.T) {
			h := newHouse(t)
			b := h.loggedIn("alice").get(h.ask("shop", more))
			require.Equal(t, "Log in", b.h1())
			require.Contains(t, b.body, `value="alice"`)
			b.press("Log in", as("alice"))
			require.Equal(t, "Allow The Shop?", b.h1())
			require.NotEmpty(t, b.press("Allow", nil).away().Query().Get("code"))
		})
	}
	t.Run("a log-in that is young enough for max_age will do", func(t *testing.T) {
		h := newHouse(t)
		require.Equal(t, "Allow The Shop?", h.loggedIn("alice").get(h.ask("shop", url.Values{"max_age": {"60"}})).h1())
	})
	t.Run("a log-in of a certain strength cannot be had, and the user is not asked for one in vain", func(t *testing.T) {
		for _, b := range []*browser{h.browser(), h.loggedIn("alice")} {
			require.Equal(t, "unmet_authentication_requirements", b.get(h.ask("shop", url.Values{"acr_values": {"phr"}})).away().Query().Get("error"))
		}
	})
	t.Run("login_hint is filled in", func(t *testing.T) {
		b := h.browser().get(h.ask("shop", url.Values{"login_hint": {`"><script>`}}))
		require.Contains(t, b.body, `value="&#34;&gt;&lt;script&gt;"`)
	})
}

func TestFormsOfInteractions(t *testing.T) {
	h := newHouse(t)
	t.Run("AS-CODE-11 the password is answered with 303, without a page", func(t *testing.T) {
		b := h.browser().get(h.ask("shop", nil)).press("Log in", as("alice"))
		require.Len(t, b.way, 1, "press requires 303")
		require.True(t, strings.HasPrefix(b.way[0], "/oauth2/authorize/"))
	})
	t.Run("AS-CODE-12 a preflight gets no CORS headers", func(t *testing.T) {
		for _, path := range []string{h.ask("shop", nil), "/login", "/developer"} {
			r, err := http.NewRequest(http.MethodOptions, h.url+path, nil)
			require.NoError(t, err)
			r.Header.Set("Origin", "https://evil.example")
			r.Header.Set("Access-Control-Request-Method", "GET")
			resp, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			resp.Body.Close()
			for name := range resp.Header {
				require.False(t, strings.HasPrefix(name, "Access-Control-"), name)
			}
		}
	})
	t.Run("AS-CODE-13 a form that another site sends is refused, with the user's cookies and all", func(t *testing.T) {
		b := h.browser().get(h.ask("shop", nil)).press("Log in", as("alice"))
		at, form := b.resp.Request.URL.Path, url.Values{"do": {"allow"}, "scope": {"orders:read"}, "token": {b.page.all("input")[0].attr["value"]}}
		for _, header := range []http.Header{{"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": {"same-site"}}, {"Origin": {"https://evil.example"}}, {"Origin": {"null"}}} {
			b.way = nil
			b.follow(http.MethodPost, at, form, header)
			require.Equal(t, 403, b.resp.StatusCode, header)
			require.Equal(t, "This form came from another site", b.h1())
		}
	})
	t.Run("AS-CODE-13 nor does one count that lacks the token of the session, from a browser that sends no origin", func(t *testing.T) {
		b := h.browser().get(h.ask("shop", nil)).press("Log in", as("alice"))
		at := b.resp.Request.URL.Path
		for _, token := range []string{"", "AAAAAAAAAAAAAAAAAAAAAAAAAA"} {
			b.way = nil
			b.follow(http.MethodPost, at, url.Values{"do": {"allow"}, "scope": {"orders:read"}, "token": {token}}, nil)
			require.Equal(t, "Allow The Shop?", b.h1(), "asked again, of whoever is there now")
		}
	})
	t.Run("AS-CODE-13 the pages cannot be framed", func(t *testing.T) {
		b := h.browser().get(h.ask("shop", nil))
		require.Contains(t, b.resp.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'")
		require.Equal(t, "DENY", b.resp.Header.Get("X-Frame-Options"))
	})
	t.Run("forms may lead to where the client is, and on other pages nowhere else", func(t *testing.T) {
		b := h.browser().get(h.ask("shop", nil))
		require.True(t, strings.HasSuffix(b.resp.Header.Get("Content-Security-Policy"), "form-action 'self' https:"))
		require.True(t, strings.HasSuffix(b.get("/login").resp.Header.Get("Content-Security-Policy"), "form-action 'self'"))
	})
	t.Run("an authorization request may come by POST from anywhere", func(t *testing.T) {
		u, err := url.Parse(h.ask("shop", nil))
		require.NoError(t, err)
		b := h.browser().follow(http.MethodPost, "/oauth2/authorize", u.Query(), http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"https://shop.example"}})
		require.Equal(t, "Log in", b.h1())
	})
	t.Run("a consent that cannot be stored is not given", func(t *testing.T) {
		b := h.browser().get(h.ask("shop", nil)).press("Log in", as("bob"))
		h.store.set("consent")
		defer h.store.set("")
		b.press("Allow", nil)
		require.GreaterOrEqual(t, b.resp.StatusCode, 500)
		require.Empty(t, b.way)
	})
}
