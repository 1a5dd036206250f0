package browser_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/internal/config"
)

// serveWalk serves an authorization server whose pages are all in use.
func serveWalk(t *testing.T) string {
	t.Helper()
	s, at := serveAccounts(t, func(cfg *authserver.Config) {
		cfg.APIs[0].Scopes = []authserver.Scope{
			{Name: "orders:read", Description: "See your orders", Descriptions: map[string]string{"de": "Ihre Bestellungen sehen"}},
			{Name: "orders:write", Description: "Place orders", Descriptions: map[string]string{"de": "Bestellungen aufgeben"}, Sensitive: true},
		}
		cfg.Portal.Developers = []string{"customer"}
		cfg.Registration.Open = true
		cfg.Logo = []byte(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 40"><rect width="200" height="40" rx="8" fill="#0b6b62"/></svg>`)
		cfg.Links = authserver.Links{Privacy: "https://example.com/privacy", Imprint: "https://example.com/imprint", Help: "mailto:help@example.com"}
	})
	_, err := s.AddUser(t.Context(), "", login.NewUser{Name: "alice", Display: "Alice Liddell", Password: alicePassword})
	must(t, err)
	return at
}

// registerItself registers an application over the network, and returns the URL of its authorization request.
func registerItself(t *testing.T, at, redirectURI, authMethod string) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"client_name": "Notes", "client_uri": "https://notes.example", "redirect_uris": []string{redirectURI}, "token_endpoint_auth_method": authMethod,
		"scope": "orders:read orders:write",
	})
	must(t, err)
	resp, err := http.Post(at+"/oauth2/register", "application/json", bytes.NewReader(text))
	must(t, err)
	defer resp.Body.Close()
	var made struct {
		ID string `json:"client_id"`
	}
	must(t, json.NewDecoder(resp.Body).Decode(&made))
	if made.ID == "" {
		t.Fatalf("the registration is answered with %s", resp.Status)
	}
	return at + "/oauth2/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {made.ID}, "redirect_uri": {redirectURI}, "scope": {"orders:read orders:write"},
		"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "code_challenge_method": {"S256"},
	}.Encode()
}

// serveBack serves the redirect URI of an application.
func serveBack(t *testing.T) string {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, `<!DOCTYPE html><html lang="en"><meta name="viewport" content="width=device-width"><title>Back</title><main><h1>Back with `)
		for _, name := range []string{"code", "error"} {
			if r.URL.Query().Has(name) {
				fmt.Fprintf(w, "a %s", name)
			}
		}
		io.WriteString(w, `</h1></main></html>`)
	}))
	t.Cleanup(web.Close)
	return web.URL + "/callback"
}

// english are texts of the pages that differ in German, in parts between placeholders and markup.
func english(t *testing.T) (texts []string) {
	t.Helper()
	read := func(language string) map[string]string {
		var file struct {
			Messages map[string]string `yaml:"messages"`
		}
		must(t, config.ReadFile("../../internal/pages/messages/"+language+".yaml", &file, func(*config.Document) error { return nil }))
		return file.Messages
	}
	german := read("de")
	for key, text := range read("en") {
		for _, part := range regexp.MustCompile(`\{[^}]*\}|<[^>]*>`).Split(text, -1) {
			if part = strings.TrimSpace(part); len(part) > 8 && !strings.Contains(german[key], part) {
				texts = append(texts, part)
			}
		}
	}
	if len(texts) < 100 {
		t.Fatalf("only %d texts", len(texts))
	}
	return texts
}

// TestGerman walks the pages in German, on a phone, in the dark and on a desk. The pages show no English.
func TestGerman(t *testing.T) {
	at := serveWalk(t)
	v := start(t).tab(t)
	texts := english(t)
	look := func(name string, words ...string) {
		t.Helper()
		shown := v.text()
		for _, w := range words {
			if !strings.Contains(shown, w) {
				t.Errorf("%s does not show %q:\n%s", name, w, shown)
			}
		}
		for _, e := range texts {
			if strings.Contains(shown, e) {
				t.Errorf("%s shows the English text %q:\n%s", name, e, shown)
			}
		}
		v.shoot("de-" + name)
	}
	v.visit(at)
	v.press("Deutsch")
	look("home", "Dies ist ein Autorisierungsserver", "Datenschutz", "Impressum", "Hilfe")
	v.visit(at + "/nirgends")
	look("not-found", "Seite nicht gefunden")
	v.visit(at + "/device")
	v.fill("Der Code auf Ihrem Gerät", "BCDF-GHJK")
	v.press("Weiter")
	look("device-problem", "Kein Gerät wartet mit diesem Code.")

	request := registerItself(t, at, serveBack(t), "none")
	v.visit(request)
	look("login-application", "um mit Notes fortzufahren")
	v.fill("Name", "alice")
	v.fill("Passwort", "geraten")
	v.press("Anmelden")
	look("login-refused", "Der Name oder das Passwort ist falsch.")
	v.fill("Passwort", alicePassword)
	v.press("Anmelden")
	look("stranger", "Kennen Sie „Notes“?", "hat sich gerade eben selbst registriert")
	v.press("Weiter")
	look("consent", "Notes Zugriff erlauben?", "Nicht geprüft", "Ihre Bestellungen sehen", "Heikel:")
	interaction := v.at()
	v.press("Erlauben")
	v.visit(interaction)
	look("ended-answered", "Diese Anfrage ist schon beantwortet")
	v.visit(at + "/oauth2/authorize/" + strings.Repeat("A", 52))
	look("ended-expired", "Diese Anfrage ist abgelaufen")
	v.visit(at + "/oauth2/authorize?client_id=nobody")
	look("error-client", "Etwas ist schiefgegangen")

	v.visit(at + "/account/applications")
	look("allowed", "Sie darf:", "Erlaubt seit")
	v.press("Widerrufen")
	look("revoke", "Zugriff von „Notes“ widerrufen?")
	v.press("Zugriff widerrufen")
	look("revoked", "„Notes“ erhält keinen Zugriff mehr.", "Noch keine.")
	for _, path := range []string{"password", "sessions", "everywhere"} {
		v.visit(at + "/account/" + path)
		look(path)
	}
	v.visit(at + "/developer")
	look("applications-none", "Sie haben noch keine registriert.")
	v.press("Anwendung registrieren")
	v.fill("Name", "Obstladen")
	v.press("Registrieren")
	look("register-problems", "Es gibt ein Problem")
	v.fill("Redirect-URIs", "https://obst.example.com/callback")
	v.tick("Ihre Bestellungen sehen")
	v.press("Registrieren")
	look("application", "Bewahren Sie dieses Geheimnis jetzt auf", "Webanwendung")
	application := v.at()
	for _, more := range []string{"edit", "rotate", "delete"} {
		v.visit(application + "/" + more)
		look(more)
	}
	v.visit(application)
	v.press("Anwendung ausprobieren")
	v.press("Ablehnen")
	look("token-refused", "Der Versuch wurde abgelehnt")
	v.press("Zurück zur Anwendung")
	v.press("Anwendung ausprobieren")
	v.press("Erlauben")
	look("token", "Ihr Access-Token", "Der Aussteller: dieser Server.")
}

// controls is what the keyboard has to reach on a page. Of radio buttons with one name, it reaches one.
const controls = `(() => {
	const radios = new Set();
	return [...document.querySelectorAll("a[href], button, input:not([type=hidden]), textarea, select, [tabindex='0']")].filter(e => {
		if (e.tabIndex < 0 || !e.checkVisibility({ visibilityProperty: true })) return false;
		if (e.type !== "radio") return true;
		const first = !radios.has(e.name);
		radios.add(e.name);
		return first;
	});
})()`

// focused returns words for the element with the focus, and whether it can be seen to have it.
const focused = `(() => {
	const e = document.activeElement, style = getComputedStyle(e), words = e.labels?.length ? e.labels[0].innerText : e.innerText;
	return {
		Words: (words ?? "").trim().replace(/\s+/g, " "), Key: e.type === "radio" ? e.name : "",
		Seen: e === document.body || style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
	};
})()`

// reaches fails the test unless Tab leads to every control of the page, and the focus can be seen at each.
func (v *tab) reaches(what string) {
	v.t.Helper()
	for _, complaint := range v.barriers() {
		v.t.Errorf("%s: %s: %s", what, v.at(), complaint)
	}
}

func (v *tab) barriers() (all []string) {
	v.t.Helper()
	n := get(v, "count the controls", chromedp.Evaluate[int](controls+".length"))
	v.do("remember the controls", chromedp.Evaluate[chromedp.Void](`globalThis.reached = new Set(), undefined`))
	for range 2*n + 4 { // the focus may begin anywhere, and goes round
		v.do("press Tab", chromedp.KeyEvent(kb.Tab))
		at := get(v, "find the focus", chromedp.Evaluate[struct {
			Words, Key string
			Seen       bool
			Reached    int
		}](`(() => { const at = `+focused+`; reached.add(at.Key || document.activeElement); return { ...at, Reached: `+controls+`.filter(e => reached.has(e) || reached.has(e.name)).length }; })()`))
		if !at.Seen {
			all = append(all, fmt.Sprintf("the focus on %q cannot be seen", at.Words))
		}
		if at.Reached == n {
			return all
		}
	}
	return append(all, get(v, "find the rest", chromedp.Evaluate[[]string](
		controls+`.filter(e => !reached.has(e) && !reached.has(e.name)).map(e => "the keyboard does not reach " + e.outerHTML.slice(0, 80))`))...)
}

// tabTo presses Tab until the focus is on the element with these words, and fails the test unless the focus can be seen on the way.
func (v *tab) tabTo(words string) {
	v.t.Helper()
	var way []string
	for range 60 {
		v.do("press Tab", chromedp.KeyEvent(kb.Tab))
		at := get(v, "find the focus", chromedp.Evaluate[struct {
			Words string
			Seen  bool
		}](focused))
		if !at.Seen {
			v.t.Errorf("%s: the focus on %q cannot be seen", v.at(), at.Words)
		}
		if strings.HasPrefix(at.Words, words) {
			return
		}
		way = append(way, at.Words)
	}
	v.t.Fatalf("%s: the keyboard does not lead to %q, but to %q", v.at(), words, way)
}

func (v *tab) enterKey(what string) {
	v.t.Helper()
	v.load("press Enter at "+what, chromedp.KeyEvent(kb.Enter))
}

func (v *tab) typeIn(label, text string) {
	v.t.Helper()
	v.tabTo(label)
	v.do("type in "+label, insert(text))
}

// TestKeyboard takes an application's whole way with the keyboard only, with a mistake in each form.
func TestKeyboard(t *testing.T) {
	at := serveWalk(t)
	v := start(t).tab(t)
	v.visit(registerItself(t, at, serveBack(t), "none"))
	v.typeIn("Name", "alice")
	v.typeIn("Password", "a guess of it")
	v.enterKey("the password")
	v.sees(http.StatusUnprocessableEntity, "The name or the password is wrong.")
	if focus := get(v, "find the focus", chromedp.Evaluate[string](`document.activeElement.className`)); focus != "problems" {
		t.Errorf("after a mistake, the focus is on %q", focus)
	}
	v.typeIn("Password", alicePassword)
	v.tabTo("Log in")
	v.enterKey("Log in")
	v.sees(http.StatusOK, "Do you know “Notes”?")
	v.tabTo("Continue")
	v.enterKey("Continue")
	v.sees(http.StatusOK, "Allow Notes?", "Sensitive: select it only if you want this.")
	v.tabTo("See your orders")
	v.do("press Space", chromedp.KeyEvent(" "))
	v.tabTo("Allow")
	v.enterKey("Allow")
	v.sees(http.StatusUnprocessableEntity, "Select at least one, or choose Deny.")
	v.tabTo("Place orders")
	v.do("press Space", chromedp.KeyEvent(" "))
	v.tabTo("Allow")
	v.enterKey("Allow")
	v.sees(http.StatusOK, "Back with a code")

	v.visit(at + "/account/applications")
	v.seesNot("See your orders") // which was not selected
	v.tabTo("Revoke")
	v.enterKey("Revoke")
	v.tabTo("Revoke the access")
	v.enterKey("Revoke the access")
	v.sees(http.StatusOK, "“Notes” cannot get access any more.")
	if focus := get(v, "find the focus", chromedp.Evaluate[string](`document.activeElement.className`)); focus != "notice" {
		t.Errorf("after a result, the focus is on %q", focus)
	}
	v.tabTo("Deutsch")
	v.enterKey("Deutsch")
	v.sees(http.StatusOK, "Noch keine.")
	v.tabTo("Abmelden")
	v.enterKey("Abmelden")
	v.sees(http.StatusOK, "Anmelden")
}

// TestWindowOfAnApplication shows that an application that logs users in in a separate window gets the result from it: the policy of the
// pages on the way does not separate the two.
func TestWindowOfAnApplication(t *testing.T) {
	at := serveWalk(t)
	var request string
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if r.URL.Path == "/callback" {
			io.WriteString(w, `<!DOCTYPE html><html lang="en"><title>Done</title><h1>Done</h1><script>opener.postMessage(location.search, location.origin)</script></html>`)
			return
		}
		fmt.Fprintf(w, `<!DOCTYPE html><html lang="en"><title>Application</title><h1>Application</h1><p id="result">waiting</p><button>Log in</button>
			<script>addEventListener("message", e => document.getElementById("result").textContent = e.data);
			document.querySelector("button").onclick = () => open(%q, "log-in", "width=500,height=700");</script></html>`, request)
	}))
	t.Cleanup(application.Close)
	request = registerItself(t, at, application.URL+"/callback", "client_secret_basic")

	v := start(t).tab(t)
	v.visit(at + "/login")
	v.fill("Name", "alice")
	v.fill("Password", alicePassword)
	v.press("Log in")
	v.visit(request)
	v.press("Continue")
	v.tick("Place orders")
	v.do("allow, so that the window needs no answer", chromedp.Steps(
		chromedp.Click(`//button[normalize-space()="Allow"]`), chromedp.WaitVisible(`//h1[normalize-space()="Done"]`),
	))

	v.scripts(true)
	v.do("open the application, and its window", chromedp.Steps(chromedp.Navigate(application.URL), chromedp.Click("//button")))
	result := get(v, "wait for the result", chromedp.Evaluate[string](`new Promise(done => {
		const look = () => { const text = document.getElementById("result").textContent; text === "waiting" ? setTimeout(look, 20) : done(text) };
		look();
	})`, chromedp.EvalAwaitPromise))
	if !strings.Contains(result, "code=") {
		t.Errorf("the window reports %q", result)
	}
}

// TestWalkIsComplete shows that no template is left out of the walks.
func TestWalkIsComplete(t *testing.T) {
	names, err := os.ReadDir("../../internal/pages/templates")
	must(t, err)
	var sources strings.Builder
	for _, file := range []string{"walk_test.go", "story_test.go", "people_test.go", "account_test.go"} {
		text, err := os.ReadFile(file)
		must(t, err)
		sources.Write(text)
	}
	shots := map[string]string{ // the page of each template, as a screenshot is called
		"allowed": "allowed", "application": "application", "applications": "applications", "ask": "delete", "code": "device", "consent": "consent",
		"device": "device-connected", "edit": "edit", "ended": "ended-expired", "error": "error-client", "everywhere": "everywhere",
		"home": "home", "leave": "leave", "loggedout": "logged-out", "login": "login", "password": "password", "revoke": "revoke",
		"sessions": "sessions", "stranger": "stranger", "token": "token", "handoff": "handoff",
	}
	for _, file := range names {
		name := strings.TrimSuffix(file.Name(), ".html")
		if file.IsDir() {
			continue
		}
		if shot := shots[name]; shot == "" || !strings.Contains(sources.String(), `"`+shot) {
			t.Errorf("no walk takes a screenshot of the page %s", name)
		}
	}
}
