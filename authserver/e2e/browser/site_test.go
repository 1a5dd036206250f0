// Package browser_test looks at the pages of the authorization server with a real browser, as developers and users do, with a
// real directory, real APIs and a real application behind them.
package browser_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/ldaplogin"
	"github.com/valetkey/valetkey/authserver/ldaplogin/slapdtest"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// find returns the path of the first program that is installed, or skips the test.
func find(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skipf("%s is not installed", names[0])
	return ""
}

const (
	ordersAPI = "https://orders.example.com" // JWTs, which the API has confirmed
	vaultAPI  = "urn:example:vault"          // opaque tokens

	alicePassword = "alice keeps bees"
	bobPassword   = "bob builds boats"
	apiSecret     = "a-secret-of-the-apis-only"

	attempts = 8 // to log in with one name, before there are too many
)

// A site is the authorization server and all that it is about.
type site struct {
	url       string // of the server, its issuer
	app       *application
	directory *slapdtest.Server
	log       *record

	page    string   // of the application in the portal
	secrets []string // that have been shown, and no log may have
}

// newSite starts the server, with customers in its database and employees in a directory, two APIs, and an application.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{directory: slapdtest.Start(t), log: new(record)}
	employees, err := ldaplogin.New(ldaplogin.Config{
		URL: s.directory.URL, RootCAs: s.directory.CAs, BindDN: slapdtest.BindDN, BindPassword: slapdtest.BindPassword,
		BaseDN: slapdtest.BaseDN, Groups: map[string][]string{slapdtest.Finance: {"orders:read", "orders:write", "vault:open"}},
	})
	must(t, err)
	t.Cleanup(func() { employees.Close() })

	server := httptest.NewUnstartedServer(nil)
	t.Cleanup(server.Close)
	s.url = "http://" + server.Listener.Addr().String()
	mux := http.NewServeMux()
	apis := httptest.NewServer(mux)
	t.Cleanup(apis.Close)

	as, err := authserver.New(t.Context(), authserver.Config{
		Issuer: s.url,
		Name:   "Example accounts",
		APIs: []authserver.API{
			{Audience: ordersAPI, Name: "Orders", TryURL: apis.URL + "/orders", Scopes: []authserver.Scope{{Name: "orders:read", Description: "See your orders"}, {Name: "orders:write", Description: "Place and change orders for you"}}},
			{Audience: vaultAPI, Name: "The vault", Tokens: authserver.Opaque, TryURL: apis.URL + "/vault", Scopes: []authserver.Scope{{Name: "vault:open", Description: "Open your vault"}}},
		},
		Clients: []authserver.Client{{ID: "apis", Secret: apiSecret, Introspects: []string{ordersAPI, vaultAPI}}},
		UserTypes: []authserver.UserType{
			{Type: "customer", Label: "Customer"},
			{Type: "employee", Label: "Employee", Login: employees},
		},
		Users: []authserver.User{
			{Name: "alice", Display: "Alice Liddell", Password: alicePassword},
			{Name: "bob", Display: "Bob", Password: bobPassword, Scopes: []string{"orders:read"}},
		},
		Portal: authserver.Portal{Developers: []string{"customer"}, Services: []string{"customer"}},
		Limits: authserver.Limits{LoginName: login.Rate{Burst: attempts, Every: 5 * time.Minute}},
		Logger: slog.New(slog.NewTextHandler(s.log, nil)),
	})
	must(t, err)
	server.Config.Handler = as
	server.Start()

	auth := introspect.BasicAuth("apis", apiSecret)
	asked, err := introspect.New(introspect.Config{Issuer: s.url, Audience: []string{ordersAPI}, Auth: auth, JWTIssuers: []string{s.url}, CacheTTL: -1, NegativeTTL: -1})
	must(t, err)
	keys, err := jwks.New(jwks.Config{Issuer: s.url, Audience: []string{ordersAPI}})
	must(t, err)
	t.Cleanup(func() { keys.Close() })
	guardAPI(t, mux, "/orders", valetkey.CrossCheck(keys, asked), "orders:read", `{"orders": ["apples", "pears"]}`)
	opaque, err := introspect.New(introspect.Config{Issuer: s.url, Audience: []string{vaultAPI}, Auth: auth, CacheTTL: -1, NegativeTTL: -1})
	must(t, err)
	guardAPI(t, mux, "/vault", opaque, "vault:open", `{"vault": "open"}`)

	s.app = newApplication(t, s.url, apis.URL+"/orders")
	return s
}

// guardAPI puts an API on mux, as its owner would.
func guardAPI(t *testing.T, mux *http.ServeMux, path string, v valetkey.Verifier, scope, body string) {
	t.Helper()
	guard, err := middleware.New(middleware.Config{Verifier: v, Realm: path[1:]})
	must(t, err)
	mux.Handle("GET "+path, guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, body)
	}), scopes.All(scope)))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An application is what a developer registers: a web application with a server, which takes orders.
type application struct {
	url string

	mu     sync.Mutex // guards what follows
	config oauth2.Config
	states map[string]string // of log-ins under way, with their PKCE verifiers
	token  *oauth2.Token
}

func newApplication(t *testing.T, issuer, api string) *application {
	t.Helper()
	a := &application{states: map[string]string{}}
	mux := http.NewServeMux()
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	_, port, err := net.SplitHostPort(web.Listener.Addr().String())
	must(t, err)
	a.url = "http://localhost:" + port // another site than the server, which is at 127.0.0.1
	a.config.Endpoint = oauth2.Endpoint{AuthURL: issuer + "/oauth2/authorize", TokenURL: issuer + "/oauth2/token", AuthStyle: oauth2.AuthStyleInHeader}
	a.config.RedirectURL = a.url + "/callback"
	mux.HandleFunc("GET /login", a.login)
	mux.HandleFunc("GET /callback", a.callback)
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) { a.orders(w, r, api) })
	return a
}

// registered makes the application the client that the server knows.
func (a *application) registered(id, secret string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.config.ClientID, a.config.ClientSecret = id, secret
}

func (a *application) login(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.config.Scopes = []string{"orders:read", "orders:write"}
	state, verifier := oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	a.states[state] = verifier
	http.Redirect(w, r, a.config.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier)), http.StatusFound)
}

func (a *application) callback(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	query := r.URL.Query()
	verifier, known := a.states[query.Get("state")]
	delete(a.states, query.Get("state"))
	switch {
	case !known:
		say(w, http.StatusBadRequest, "We did not ask for this", "")
	case query.Has("error"):
		say(w, http.StatusOK, "You did not let us in", query.Get("error"))
	default:
		token, err := a.config.Exchange(r.Context(), query.Get("code"), oauth2.VerifierOption(verifier))
		if err != nil {
			say(w, http.StatusBadGateway, "No token", err.Error())
			return
		}
		a.token = token
		say(w, http.StatusOK, "Welcome", "You may: "+token.Extra("scope").(string))
	}
}

// orders shows what the API answers to the token as it is: it is not renewed.
func (a *application) orders(w http.ResponseWriter, r *http.Request, api string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ask, err := http.NewRequestWithContext(r.Context(), http.MethodGet, api, nil)
	if err != nil {
		say(w, http.StatusInternalServerError, "No question", err.Error())
		return
	}
	a.token.SetAuthHeader(ask)
	resp, err := http.DefaultClient.Do(ask)
	if err != nil {
		say(w, http.StatusBadGateway, "No answer", err.Error())
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		say(w, http.StatusBadGateway, "Half an answer", err.Error())
		return
	}
	say(w, http.StatusOK, "The API says "+resp.Status, resp.Header.Get("WWW-Authenticate")+" "+string(body))
}

// renew asks for another token with the refresh token, and returns the code of the error, or "".
func (a *application) renew(ctx context.Context) (code string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err = a.config.TokenSource(ctx, &oauth2.Token{RefreshToken: a.token.RefreshToken}).Token()
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return refused.ErrorCode, nil
	}
	return "", err
}

var page = template.Must(template.New("").Parse(`<!DOCTYPE html><html lang="en"><meta name="viewport" content="width=device-width">` +
	`<title>Fruit</title><h1>{{.Title}}</h1><p>{{.Words}}</p></html>`))

func say(w http.ResponseWriter, status int, title, words string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	page.Execute(w, struct{ Title, Words string }{title, words})
}

// A record is a log that is read while it is written.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// device asks for a code as a device without a browser does, and returns what is shown to the user.
func (s *site) device(t *testing.T, client string) *oauth2.DeviceAuthResponse {
	t.Helper()
	config := oauth2.Config{ClientID: client, Scopes: []string{"orders:read"}, Endpoint: oauth2.Endpoint{
		DeviceAuthURL: s.url + "/oauth2/device_authorization", TokenURL: s.url + "/oauth2/token", AuthStyle: oauth2.AuthStyleInParams}}
	code, err := config.DeviceAuth(t.Context())
	must(t, err)
	return code
}

// poll asks once whether the user of a device has decided, and returns the token or the code of the error.
func (s *site) poll(t *testing.T, client, deviceCode string) (token, code string) {
	t.Helper()
	resp, err := http.PostForm(s.url+"/oauth2/token", map[string][]string{
		"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {deviceCode}, "client_id": {client}})
	must(t, err)
	defer resp.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
		Error string `json:"error"`
	}
	must(t, json.NewDecoder(resp.Body).Decode(&answer))
	if answer.Token == "" && answer.Error == "" {
		t.Fatal(fmt.Errorf("the token endpoint answers %s without a token or an error", resp.Status))
	}
	return answer.Token, answer.Error
}
