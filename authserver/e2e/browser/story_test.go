package browser_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/valetkey/valetkey/authserver/ldaplogin/slapdtest"
)

// TestBrowser is one story of several users: each sees the results of the previous one.
func TestBrowser(t *testing.T) {
	b := start(t)
	s := newSite(t)
	alice := b.tab(t)
	for _, part := range []struct {
		name string
		tell func(t *testing.T)
	}{
		{"a developer registers an application", func(t *testing.T) { s.register(t, alice) }},
		{"and tries it: denies, allows, uses the token, and revokes it", func(t *testing.T) { s.try(t, alice) }},
		{"and other kinds of it", func(t *testing.T) { s.tryOthers(t, alice) }},
		{"an employee of the directory lets the application in, and out again", func(t *testing.T) { s.employ(t, b.tab(t)) }},
		{"a user who allows less, or nothing", func(t *testing.T) { s.restrict(t, b.tab(t)) }},
		{"a device", func(t *testing.T) { s.connect(t, alice, b.tab(t)) }},
		{"what goes wrong", func(t *testing.T) { s.fail(t, b.tab(t)) }},
		{"the developer deletes the application", func(t *testing.T) { s.remove(t, alice) }},
	} {
		if !t.Run(part.name, part.tell) {
			return // the rest would make no sense
		}
	}
	log := s.log.String()
	for _, secret := range append(s.secrets, alicePassword, bobPassword, apiSecret, slapdtest.CarolPassword, slapdtest.BindPassword) {
		if strings.Contains(log, secret) {
			t.Error("the log has a secret")
		}
	}
	for _, what := range []string{"consent given", "consent denied", "consent revoked", "application registered", "log-in refused", "token issued"} {
		if !strings.Contains(log, what) {
			t.Errorf("the audit log has no %q", what)
		}
	}
}

// logIn fills in the form for logging in.
func (v *tab) logIn(kind, name, password string) {
	v.t.Helper()
	v.tick(kind)
	v.fill("Name", name)
	v.fill("Password", password)
	v.press("Log in")
}

// secret reads the secret that the page of an application shows once.
func (s *site) secret(v *tab) string {
	v.t.Helper()
	secret := get(v, "read the secret", chromedp.TextContent(chromedp.CSS(".note code")))
	s.secrets = append(s.secrets, secret)
	return secret
}

// knows reports whether the server accepts the secret.
func (s *site) knows(t *testing.T, id, secret string) bool {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/oauth2/token", strings.NewReader("grant_type=refresh_token&refresh_token=x"))
	must(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(id, secret)
	resp, err := http.DefaultClient.Do(r)
	must(t, err)
	resp.Body.Close()
	return resp.StatusCode != http.StatusUnauthorized
}

func (s *site) register(t *testing.T, v *tab) {
	v.t = t
	v.visit(s.url)
	v.sees(http.StatusOK, "Example accounts", "Developers")
	v.shoot("home")
	v.press("Developers")
	v.sees(http.StatusOK, "Log in")
	v.shoot("login")
	v.logIn("Customer", "alice", "a wrong one")
	v.sees(http.StatusUnprocessableEntity, "The name or the password is wrong.")
	v.shoot("login-refused")
	v.logIn("Customer", "alice", alicePassword)
	v.sees(http.StatusOK, "You have not registered any yet.", "Alice Liddell")
	v.shoot("applications-none")

	v.press("Register an application")
	v.sees(http.StatusOK, "What kind of application is it?", "Open your vault")
	v.shoot("register")
	v.fill("Name", "The fruit shop")
	v.fill("Website", "https://fruit.example.com")
	v.fill("Redirect URIs", "http://fruit.example.com/callback")
	v.press("Register")
	v.sees(http.StatusUnprocessableEntity, "There is a problem", "Line 1", "Select at least one scope.")
	v.shoot("register-problems")
	v.fill("Redirect URIs", s.app.url+"/callback")
	for _, scope := range []string{"See your orders", "Place and change orders for you", "Open your vault"} {
		v.tick(scope)
	}
	v.press("Register")
	v.sees(http.StatusOK, "The fruit shop", "Keep this secret now", "Try this application", s.app.url+"/callback")
	v.shoot("application-new")
	id, first := v.value("Client id"), s.secret(v)
	if !s.knows(t, id, first) {
		t.Fatal("the server does not accept the secret that it has shown")
	}

	s.page = v.at()
	v.visit(s.page)
	v.seesNot(first)
	v.shoot("application")
	v.press("Edit")
	v.sees(http.StatusOK, "Edit the application")
	v.shoot("edit")
	v.fill("Name", "Fruit shop")
	v.press("Save")
	v.sees(http.StatusOK, "Fruit shop")
	v.press("Replace it")
	v.sees(http.StatusOK, "Replace the secret of Fruit shop?")
	v.shoot("replace-secret")
	v.press("Replace the secret")
	second := s.secret(v)
	if s.knows(t, id, first) || !s.knows(t, id, second) {
		t.Fatal("the old secret is accepted, or the new one is not")
	}
	s.app.registered(id, second)
	v.press("Your applications")
	v.sees(http.StatusOK, "Fruit shop", "Web application")
	v.shoot("applications")
}

func (s *site) try(t *testing.T, v *tab) {
	v.t = t
	v.press("Fruit shop")
	v.tick("Orders")
	v.press("Try this application")
	v.sees(http.StatusOK, "Allow Fruit shop?", "In Orders, it wants to:", "See your orders", "its name and website have not been checked")
	v.shoot("consent")
	v.press("Deny")
	v.sees(http.StatusOK, "The trial was refused", "access_denied")
	v.shoot("token-refused")
	v.press("Back to the application")
	v.press("Try this application")
	v.tick("See your orders")
	v.tick("Place and change orders for you")
	v.press("Allow")
	v.sees(http.StatusUnprocessableEntity, "Select at least one, or choose Deny.")
	v.shoot("consent-problem")
	v.tick("See your orders")
	v.press("Allow")
	v.sees(http.StatusOK, "Your access token", "Its claims", ordersAPI, "orders:read", "customer:alice")
	v.seesNot("orders:write")
	v.shoot("token")
	v.press("Use it")
	v.sees(http.StatusOK, "200 OK", "apples")
	v.shoot("token-used")
	token := v.at()

	v.press("Allowed applications")
	v.sees(http.StatusOK, "Fruit shop", "See your orders", "Allowed since")
	v.shoot("allowed")
	v.press("Revoke")
	v.press("Revoke the access")
	v.sees(http.StatusOK, "“Fruit shop” cannot get access any more. What it has now ends within 10 minutes.")
	v.shoot("revoked")
	v.sees(http.StatusOK, "None yet.")
	v.shoot("allowed-none")
	v.visit(token)
	v.press("Use it again")
	v.sees(http.StatusOK, "401 Unauthorized", "invalid_token")
	v.seesNot("apples")
	v.shoot("token-revoked")
}

func (s *site) tryOthers(t *testing.T, v *tab) {
	v.t = t
	v.visit(s.page)
	v.tick("The vault")
	v.press("Try this application")
	v.sees(http.StatusOK, "In The vault, it wants to:", "Open your vault")
	v.press("Allow")
	v.sees(http.StatusOK, "It is opaque")
	v.shoot("token-opaque")
	v.press("Use it")
	v.sees(http.StatusOK, "200 OK", `"open"`)

	v.visit(s.url + "/developer/applications/new")
	v.fill("Name", "Nightly report")
	v.tick("Service")
	v.tick("See your orders")
	v.press("Register")
	v.sees(http.StatusOK, "Nightly report", "It acts for itself")
	s.secret(v)
	v.press("Try this application")
	v.sees(http.StatusOK, "Your access token", "Its claims")
	v.press("Use it")
	v.sees(http.StatusOK, "200 OK", "apples")

	// No user can make a page unreadable by its content.
	v.visit(s.url + "/developer/applications/new")
	v.fill("Name", strings.Repeat("Unübersichtlich", 6))
	v.fill("Website", "https://"+strings.Repeat("long.", 20)+"example.com/"+strings.Repeat("way", 30))
	v.fill("Redirect URIs", "https://"+strings.Repeat("long.", 20)+"example.com/"+strings.Repeat("way", 30))
	v.tick("Single-page application")
	v.tick("See your orders")
	v.press("Register")
	v.sees(http.StatusOK, "None (public client).")
	v.shoot("application-long")
	v.press("Try this application")
	v.shoot("consent-long")
	v.press("Allow")
	v.press("Allowed applications")
	v.shoot("allowed-long")
	v.visit(s.url + "/developer")
	v.shoot("applications-long")
}
