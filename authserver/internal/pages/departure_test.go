package pages_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/login"
)

// RFC 9700, section 4.11.2: an attacker who has registered a client cannot use links to this server as an open redirector.
func TestLeave(t *testing.T) {
	const phish = "https://phish.example/login"
	h := newHouse(t)
	register := func(c clients.Client) string {
		t.Helper()
		c.AuthMethod, c.GrantTypes, c.Scopes = "none", []string{"authorization_code"}, []string{"orders:read", "orders:write"}
		made, _, err := h.registry.Create(t.Context(), c, false)
		require.NoError(t, err)
		return made.ID
	}
	stranger := register(clients.Client{Name: "<b>The Bank</b>", RedirectURIs: []string{phish}, RegistrationDigest: "of a token"})
	atPhish := func(id string, more url.Values) string {
		query := url.Values{"redirect_uri": {phish}}
		for name, values := range more {
			query[name] = values
		}
		return h.ask(id, query)
	}
	// stays requires the page, and returns where its link leads.
	stays := func(t *testing.T, b *browser, code string) *url.URL {
		t.Helper()
		require.Equal(t, 400, b.resp.StatusCode, b.way)
		require.Equal(t, "Do you want to leave this site?", b.h1())
		require.Contains(t, b.text(), "Error: "+code)
		require.Contains(t, b.text(), "its name and website have not been checked")
		for _, a := range b.page.all("a") {
			if strings.HasPrefix(a.text, "Continue to ") {
				require.Equal(t, "noopener noreferrer", a.attr["rel"])
				to, err := url.Parse(a.attr["href"])
				require.NoError(t, err)
				return to
			}
		}
		t.Fatal("there is no link:", b.body)
		return nil
	}
	for _, c := range []struct {
		name string
		more url.Values
		code string
	}{
		{"a wrong response_type", url.Values{"response_type": {"x"}}, "unsupported_response_type"},
		{"a wrong scope", url.Values{"scope": {"x"}}, "invalid_scope"},
		{"a wrong resource", url.Values{"resource": {"https://x.example"}}, "invalid_target"},
		{"a request without PKCE", url.Values{"code_challenge": nil}, "invalid_request"},
		{"a parameter twice", url.Values{"scope": {"orders:read", "orders:read"}}, "invalid_request"},
		{"a request object", url.Values{"request": {"x"}}, "request_not_supported"},
		{"an acr that cannot be had", url.Values{"acr_values": {"phr"}}, "unmet_authentication_requirements"},
		{"prompt=none without a log-in", url.Values{"prompt": {"none"}}, "login_required"},
	} {
		t.Run("a stranger's error is shown, and leads away by a link only: "+c.name, func(t *testing.T) {
			b := h.browser().get(atPhish(stranger, c.more))
			to := stays(t, b, c.code)
			require.True(t, strings.HasPrefix(to.String(), phish+"?"), to)
			require.Equal(t, c.code, to.Query().Get("error"))
			require.Equal(t, "a state", to.Query().Get("state"))
			require.Equal(t, h.url, to.Query().Get("iss"))
			require.Contains(t, b.text(), "Continue to phish.example")
			require.Contains(t, b.text(), "<b>The Bank</b> sent you here", "names are text")
		})
	}
	t.Run("prompt=none of a user who has not allowed the stranger anything", func(t *testing.T) {
		stays(t, h.loggedIn("alice").get(atPhish(stranger, url.Values{"prompt": {"none"}})), "consent_required")
	})
	t.Run("a log-in that is cancelled: its page does not name where the answer goes", func(t *testing.T) {
		stays(t, h.browser().get(atPhish(stranger, nil)).press("Cancel", nil), "access_denied")
		stays(t, h.loggedIn("alice").get(atPhish(stranger, url.Values{"prompt": {"login"}})).press("Cancel", nil), "access_denied")
	})
	t.Run("a developer's client in the portal is a stranger's, too", func(t *testing.T) {
		id := register(clients.Client{RedirectURIs: []string{phish}, Owner: "customer:mallory"})
		stays(t, h.browser().get(atPhish(id, url.Values{"scope": {"x"}})), "invalid_scope")
	})
	t.Run("an application on the device is named by its scheme", func(t *testing.T) {
		const uri = "com.example.tool://www.bank.example/cb"
		id := register(clients.Client{Native: true, RedirectURIs: []string{uri}, RegistrationDigest: "x"})
		b := h.browser().get(h.ask(id, url.Values{"redirect_uri": {uri}, "scope": {"x"}}))
		require.True(t, strings.HasPrefix(stays(t, b, "invalid_scope").String(), uri+"?error="))
		require.Contains(t, b.text(), "an application on this device, at com.example.tool.")
		require.NotContains(t, b.text(), "www.bank.example")
	})
	t.Run("while the store does not answer, there is no redirect", func(t *testing.T) {
		b := h.loggedIn("alice")
		h.store.set("consent")
		defer h.store.set("")
		b.get(atPhish(stranger, url.Values{"scope": {"x"}}))
		require.Empty(t, b.way)
		require.GreaterOrEqual(t, b.resp.StatusCode, 500)
	})

	t.Run("a user who denies on the page that names the destination goes there at once", func(t *testing.T) {
		b := h.loggedIn("alice").get(atPhish(stranger, nil))
		require.Contains(t, b.text(), "It leads back to phish.example.")
		require.Equal(t, "access_denied", b.press("Cancel", nil).away().Query().Get("error"))
	})
	t.Run("a user who has allowed the client something does, too", func(t *testing.T) {
		b := h.loggedIn("alice").get(atPhish(stranger, nil)).press("Continue", nil).press("Allow", nil)
		require.NotEmpty(t, b.away().Query().Get("code"))
		require.Equal(t, "invalid_scope", b.get(atPhish(stranger, url.Values{"scope": {"x"}})).away().Query().Get("error"))
		silent := atPhish(stranger, url.Values{"prompt": {"none"}, "scope": {"orders:read orders:write"}})
		require.Equal(t, "consent_required", b.get(silent).away().Query().Get("error"))
		require.NotEmpty(t, b.get(atPhish(stranger, url.Values{"prompt": {"none"}})).away().Query().Get("code"))
		stays(t, h.loggedIn("bob").get(silent), "consent_required")
		b.get("/account/applications").revoke()
		stays(t, b.get(silent), "consent_required")
	})
	t.Run("consents of a removed user are void", func(t *testing.T) {
		var at staff
		h := newHouse(t, at.put)
		made, _, err := h.registry.Create(t.Context(), clients.Client{
			AuthMethod: "none", RedirectURIs: []string{phish}, GrantTypes: []string{"authorization_code"}, Scopes: []string{"orders:read"},
			RegistrationDigest: "of a token",
		}, false)
		require.NoError(t, err)
		b := h.loggedIn("alice").get(atPhish(made.ID, nil)).press("Continue", nil).press("Allow", nil)
		wrong := atPhish(made.ID, url.Values{"scope": {"x"}})
		require.NotEmpty(t, b.get(wrong).away())
		at.finds(nil, errors.New("the directory is down"))
		require.GreaterOrEqual(t, b.get(wrong).resp.StatusCode, 500)
		require.Empty(t, b.way)
		at.finds(nil, login.ErrNoUser)
		stays(t, b.get(wrong), "invalid_scope")
	})
	t.Run("the developer of a client does, too", func(t *testing.T) {
		id := register(clients.Client{RedirectURIs: []string{phish}, Owner: "customer:bob"})
		require.Equal(t, "invalid_scope", h.loggedIn("bob").get(atPhish(id, url.Values{"scope": {"x"}})).away().Query().Get("error"))
		stays(t, h.loggedIn("alice").get(atPhish(id, url.Values{"scope": {"x"}})), "invalid_scope")
	})
	t.Run("a client that the operator has added goes on at once, even without a page to ask on", func(t *testing.T) {
		id := register(clients.Client{RedirectURIs: []string{phish}})
		require.Equal(t, "invalid_scope", h.browser().get(atPhish(id, url.Values{"scope": {"x"}})).away().Query().Get("error"))
		require.Equal(t, "login_required", h.browser().get(atPhish(id, url.Values{"prompt": {"none"}})).away().Query().Get("error"))
	})
}
