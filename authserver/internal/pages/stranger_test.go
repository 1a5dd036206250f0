package pages_test

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/pages"
)

func TestStrangers(t *testing.T) {
	register := func(h *house, c clients.Client) string {
		c.AuthMethod, c.GrantTypes, c.Scopes = "none", []string{"authorization_code"}, []string{"orders:read", "orders:write"}
		if c.RedirectURIs == nil {
			c.RedirectURIs = []string{back}
		}
		made, _, err := h.registry.Create(t.Context(), c, false)
		require.NoError(t, err)
		return made.ID
	}
	t.Run("an application that registered itself is introduced before the question, once for each request", func(t *testing.T) {
		h := newHouse(t)
		id := register(h, clients.Client{Name: "The Bank", URI: "https://bank.example", RegistrationDigest: "x"})
		b := h.browser().get(h.ask(id, nil)).press("Log in", as("alice"))
		require.Equal(t, "Do you know “The Bank”?", b.h1())
		require.Contains(t, b.text(), "“The Bank” registered itself just now; its name and website have not been checked. It leads back to shop.example.")
		require.Contains(t, b.text(), "Website, as it states: https://bank.example")
		require.Empty(t, b.page.all("main")[0].all("a"), "nothing leads to its website")
		require.Equal(t, "Do you know “The Bank”?", b.get(b.way[len(b.way)-1]).h1())

		b.press("Continue", nil)
		require.Equal(t, "Allow The Bank?", b.h1())
		require.Contains(t, b.text(), "Not checked “The Bank” registered itself just now;")
		require.Contains(t, b.text(), "It leads back to shop.example. Allow it only if you know it.")
		require.Equal(t, "Allow The Bank?", b.press("Deutsch", nil).press("English", nil).h1())
		require.NotEmpty(t, b.press("Allow", nil).away().Query().Get("code"))

		require.Equal(t, "Allow The Bank?", b.get(h.ask(id, url.Values{"scope": {"orders:read orders:write"}})).h1(), "it is known now")
		require.Equal(t, "Do you know “The Bank”?", h.loggedIn("bob").get(h.ask(id, nil)).h1(), "not to another user")
	})
	t.Run("each request is introduced, until something is allowed", func(t *testing.T) {
		h := newHouse(t)
		id := register(h, clients.Client{RegistrationDigest: "x"})
		b := h.loggedIn("alice").get(h.ask(id, nil)).press("Continue", nil)
		require.Equal(t, "Do you know “"+id+"”?", b.get(h.ask(id, nil)).h1())
		require.Equal(t, "access_denied", b.press("Cancel", nil).away().Query().Get("error"))
	})
	t.Run("an application of the portal is introduced, but not to its developer", func(t *testing.T) {
		h := newHouse(t)
		id := register(h, clients.Client{Name: "Notes", Owner: "customer:alice"})
		b := h.loggedIn("bob").get(h.ask(id, nil))
		require.Contains(t, b.text(), "A developer registered “Notes” just now;")
		require.Equal(t, "Allow Notes?", h.loggedIn("alice").get(h.ask(id, nil)).h1())
	})
	t.Run("an application on this machine has no host", func(t *testing.T) {
		h := newHouse(t)
		id := register(h, clients.Client{Name: "Notes", Native: true, RedirectURIs: []string{"http://127.0.0.1/cb"}, RegistrationDigest: "x"})
		b := h.loggedIn("alice").get(h.ask(id, url.Values{"redirect_uri": {"http://127.0.0.1:7/cb"}}))
		require.Contains(t, b.text(), "It leads back to an application on this device.")
	})
	t.Run("an application that the operator has approved is not introduced, and has no banner", func(t *testing.T) {
		h := newHouse(t)
		b := h.loggedIn("alice").get(h.ask("shop", nil))
		require.Equal(t, "Allow The Shop?", b.h1())
		require.NotContains(t, b.text(), "Not checked")
		require.Contains(t, b.text(), "You will return to shop.example.")
	})
	t.Run("with prompt=none, nothing is asked", func(t *testing.T) {
		h := newHouse(t)
		id := register(h, clients.Client{Owner: "customer:alice"})
		b := h.loggedIn("alice").get(h.ask(id, url.Values{"prompt": {"none"}}))
		require.Equal(t, "consent_required", b.away().Query().Get("error"))
	})
}

func TestScopesOnTheConsentPage(t *testing.T) {
	sensitive := func(cfg *pages.Config) {
		cfg.APIs[0].Scopes[0], cfg.APIs[0].Scopes[1] = cfg.APIs[0].Scopes[1], cfg.APIs[0].Scopes[0]
		cfg.APIs[0].Scopes[0].Sensitive = true // orders:write
	}
	boxes := func(b *browser) (names []string, ticked map[string]bool) {
		ticked = map[string]bool{}
		for _, in := range b.page.all("input") {
			if in.attr["type"] == "checkbox" {
				names = append(names, in.attr["value"])
				ticked[in.attr["value"]] = in.has("checked")
			}
		}
		return names, ticked
	}
	both := url.Values{"scope": {"orders:read orders:write"}}
	t.Run("they are in the order of the configuration, and a sensitive one is explained and not selected", func(t *testing.T) {
		h := newHouse(t, sensitive)
		b := h.loggedIn("alice").get(h.ask("shop", both))
		names, ticked := boxes(b)
		require.Equal(t, []string{"orders:write", "orders:read"}, names)
		require.Equal(t, map[string]bool{"orders:write": false, "orders:read": true}, ticked)
		require.Contains(t, b.text(), "Place orders for you orders:write Sensitive: select it only if you want this.")
	})
	t.Run("the grant has only what was selected, and the rest is asked for again", func(t *testing.T) {
		h := newHouse(t, sensitive)
		b := h.loggedIn("alice").get(h.ask("shop", both)).press("Allow", nil)
		require.Equal(t, "orders:read", h.redeem(b.away()))
		b.get(h.ask("shop", both)).press("Allow", url.Values{"scope": {"orders:read", "orders:write"}})
		require.Equal(t, "orders:read orders:write", h.redeem(b.away()))
		require.Equal(t, "orders:read orders:write", h.redeem(b.get(h.ask("shop", both)).away()), "selected before")
	})
	t.Run("a request for nothing but a sensitive one needs the selection", func(t *testing.T) {
		h := newHouse(t, sensitive)
		b := h.loggedIn("alice").get(h.ask("shop", url.Values{"scope": {"orders:write"}})).press("Allow", nil)
		require.Equal(t, 422, b.resp.StatusCode)
		require.Contains(t, b.text(), "Select at least one, or choose Deny.")
	})
	t.Run("the pages of the account and of the portal have the same order", func(t *testing.T) {
		h := newHouse(t, sensitive)
		b := h.loggedIn("alice").get(h.ask("shop", both)).press("Allow", url.Values{"scope": {"orders:read", "orders:write"}})
		require.Regexp(t, "Place orders for you.*See your orders", b.get("/account/applications").text())
		require.Regexp(t, "Place orders for you.*See your orders", b.get("/developer/applications/new").text())
	})
}
