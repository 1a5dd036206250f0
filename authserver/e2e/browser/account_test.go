package browser_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/login"
)

// serveAccounts serves an authorization server on loopback.
func serveAccounts(t *testing.T, change func(*authserver.Config)) (s *authserver.Server, url string) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	t.Cleanup(server.Close)
	cfg := authserver.Config{
		Issuer: "http://" + server.Listener.Addr().String(), Name: "Example accounts",
		APIs: []authserver.API{{Audience: ordersAPI, Name: "Orders", Scopes: []authserver.Scope{{Name: "orders:read", Description: "See your orders"}}}},
	}
	change(&cfg)
	s, err := authserver.New(t.Context(), cfg)
	must(t, err)
	server.Config.Handler = s
	server.Start()
	return s, cfg.Issuer
}

// A user changes the password, sees the other session, and logs out everywhere.
func TestAccountPages(t *testing.T) {
	b := start(t)
	s, url := serveAccounts(t, func(*authserver.Config) {})
	_, err := s.AddUser(t.Context(), "", login.NewUser{Name: "alice", Display: "Alice Liddell", Password: alicePassword})
	must(t, err)
	here, there := b.tab(t), b.tab(t)
	enter := func(v *tab, password string) {
		t.Helper()
		v.visit(url + "/login")
		v.fill("Name", "alice")
		v.fill("Password", password)
		v.press("Log in")
	}
	enter(here, alicePassword)
	enter(there, alicePassword)

	here.visit(url)
	here.press("Change password")
	here.sees(http.StatusOK, "Current password", "Log out everywhere else")
	here.shoot("password")
	here.fill("Current password", "a guess of it")
	here.fill("New password", bobPassword)
	here.fill("Repeat the new password", bobPassword)
	here.press("Change password")
	here.sees(http.StatusUnprocessableEntity, "This is not your current password.")
	here.shoot("password-problem")
	here.fill("Current password", alicePassword)
	here.fill("New password", bobPassword)
	here.fill("Repeat the new password", bobPassword)
	here.tick("Log out everywhere else") // which is preset
	here.press("Change password")
	here.sees(http.StatusOK, "Your password has been changed.")
	here.shoot("password-changed")

	here.visit(url)
	here.press("Sessions")
	here.sees(http.StatusOK, "this browser", "Chrome, Linux", "last used")
	here.shoot("sessions")
	here.press("End")
	here.sees(http.StatusOK, "this browser")
	there.visit(url + "/account/sessions")
	there.sees(http.StatusOK, "Log in")
	enter(there, bobPassword)

	here.press("Log out everywhere")
	here.sees(http.StatusOK, "Log out everywhere?", "This ends all of your sessions")
	here.shoot("everywhere")
	here.press("Log out everywhere")
	here.sees(http.StatusOK, "You are logged out everywhere")
	here.shoot("logged-out")
	there.visit(url + "/account/sessions")
	there.sees(http.StatusOK, "Log in")

	here.visit(url + "/login?ui_locales=de")
	here.fill("Name", "alice")
	here.fill("Passwort", bobPassword)
	here.press("Anmelden")
	here.press("Sitzungen")
	here.sees(http.StatusOK, "dieser Browser")
	here.shoot("sessions-de")
	here.visit(url + "/account/password")
	here.sees(http.StatusOK, "Bisheriges Passwort")
	here.shoot("password-de")
}

// A loginPage is a page that log-ins are handed to. It logs everyone in who presses the button.
type loginPage struct {
	issuer string
	key    ed25519.PrivateKey
	asked  []map[string]any // challenges
}

func (p *loginPage) tell(path, typ string, claims map[string]any) (map[string]any, error) {
	claims["aud"], claims["exp"], claims["jti"] = p.issuer, time.Now().Unix()+60, rand.Text()
	payload, err := json.Marshal(claims)
	if err != nil {
		return nil, err
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","typ":"`+typ+`"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	text += "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(p.key, []byte(text)))
	resp, err := http.Post(p.issuer+path, "application/jwt", strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var body map[string]any
	return body, json.NewDecoder(resp.Body).Decode(&body)
}

func (p *loginPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("login_challenge")
	claims := map[string]any{"challenge": id, "sub": "alice", "name": "Alice Liddell", "acr": "phr", "auth_time": time.Now().Unix()}
	switch {
	case r.URL.Path != "/": // the browser looks for an icon
		http.NotFound(w, r)
		return
	case r.Method == http.MethodGet:
		about, err := p.tell("/login/challenge", "login-challenge+jwt", map[string]any{"challenge": id})
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		p.asked = append(p.asked, about)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, `<!DOCTYPE html><html lang="en"><meta name="viewport" content="width=device-width"><title>Your page</title><main><h1>Your page</h1><form method="post">
<p><button name="do" value="in"><br>Use a passkey<br><br></button></p><p><button name="do" value="out"><br>Go back<br><br></button></p></form></main></html>`)
		return
	case r.FormValue("do") == "out":
		claims = map[string]any{"challenge": id, "error": "access_denied"}
	}
	next, err := p.tell("/login/answer", "login-answer+jwt", claims)
	if err != nil || next["redirect_to"] == nil {
		http.Error(w, "no answer", http.StatusBadGateway)
		return
	}
	http.Redirect(w, r, next["redirect_to"].(string), http.StatusSeeOther)
}

// A real browser sends its cookies on the way to the page and back, and lets the forms of the server lead there.
func TestHandoffInABrowser(t *testing.T) {
	b := start(t)
	public, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	der, err := x509.MarshalPKIXPublicKey(public)
	must(t, err)
	page := &loginPage{key: private}
	elsewhere := httptest.NewServer(page)
	t.Cleanup(elsewhere.Close)
	done := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, `<!DOCTYPE html><html lang="en"><meta name="viewport" content="width=device-width"><title>Shop</title><main><h1>Shop</h1><p>error: `+
			map[bool]string{true: "none", false: r.FormValue("error")}[r.FormValue("code") != ""]+`</p></main></html>`)
	}))
	t.Cleanup(done.Close)
	_, url := serveAccounts(t, func(c *authserver.Config) {
		c.Login = authserver.Handoff{
			Redirect:  strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1) + "/", // another site
			ACRValues: []string{"phr"}, PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		}
		c.Clients = []authserver.Client{{ID: "shop", Name: "Shop", AuthMethod: "none", RedirectURIs: []string{done.URL + "/"}, Scopes: []string{"orders:read"}}}
	})
	page.issuer = url
	ask := url + "/oauth2/authorize?response_type=code&client_id=shop&scope=orders:read&acr_values=phr&ui_locales=en&redirect_uri=" + done.URL + "/" +
		"&code_challenge_method=S256&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

	v := b.tab(t)
	v.visit(ask)
	v.sees(http.StatusOK, "Your page")
	v.press("Go back")
	v.sees(http.StatusOK, "error: access_denied")
	v.visit(ask)
	v.press("Use a passkey")
	v.sees(http.StatusOK, "Allow Shop?", "You are logged in as Alice Liddell")
	v.press("Not you?") // a form of the server that leads to the page
	v.sees(http.StatusOK, "Your page")
	if last := page.asked[len(page.asked)-1]; last["prompt"] != "select_account" {
		t.Errorf("the page has been asked %v", last)
	}
	v.press("Use a passkey")
	back := v.at()
	v.press("Allow")
	v.sees(http.StatusOK, "error: none")
	v.visit(ask)
	v.sees(http.StatusOK, "Allow Shop?") // the session is there

	_, link, _ := strings.Cut(back, url)
	v.visit(url + link)
	v.sees(http.StatusBadRequest, "This request has been answered")

	other := b.tab(t)
	to, err := page.tell("/login/answer", "login-answer+jwt", map[string]any{"challenge": strings.Repeat("A", 52), "error": "access_denied"})
	must(t, err)
	if to["error"] != "unknown_challenge" {
		t.Errorf("the answer to no challenge is %v", to)
	}
	other.visit(url + "/login/return?login_challenge=" + strings.Repeat("A", 52))
	other.sees(http.StatusBadRequest, "This log-in has expired", "Start page")
	other.shoot("handoff-expired")
}
