package pages_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/internal/keys"
	"github.com/valetkey/valetkey/authserver/internal/pages"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// A house is a whole authorization server on loopback, with an API that asks it about each token.
type house struct {
	t        *testing.T
	url, api string
	pages    *pages.Pages
	store    *troubled
	registry *clients.Registry
	engine   *engine.Engine
	log      *bytes.Buffer
}

// troubled is a store that can fail.
type troubled struct {
	store.Store
	mu   sync.Mutex
	down string // the kind that cannot be used
	puts func(kind string)
}

func (s *troubled) set(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = kind
}

func (s *troubled) usable(kind string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind == s.down {
		return errors.New("the store is down")
	}
	return nil
}

func (s *troubled) Get(ctx context.Context, kind, id string) (store.Record, error) {
	if err := s.usable(kind); err != nil {
		return store.Record{}, err
	}
	return s.Store.Get(ctx, kind, id)
}

func (s *troubled) Put(ctx context.Context, r store.Record) (int64, error) {
	if err := s.usable(r.Kind); err != nil {
		return 0, err
	}
	if s.puts != nil {
		s.puts(r.Kind)
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return s.Store.Put(ctx, r)
}

// outage is employees' login: it knows carol, and mallory brings it down.
type outage struct{}

func (outage) Login(_ context.Context, name, password string) (*login.User, error) {
	switch {
	case name == "mallory":
		return nil, errors.New("the directory is out of reach")
	case name == "impostor":
		return &login.User{Subject: "customer:alice", Type: "customer", Name: name}, nil
	case name == "carol" && password == "carol's password":
		return &login.User{Subject: "employee:carol", Type: "employee", Name: "carol", Display: "Carol <b>", Scopes: []string{"orders:read"}}, nil
	default:
		return nil, login.ErrRefused
	}
}

func (outage) Lookup(_ context.Context, subject string) (*login.Account, error) {
	if subject != "employee:carol" {
		return nil, login.ErrNoUser
	}
	return &login.Account{Scopes: []string{"orders:read"}}, nil
}

const (
	back       = "https://shop.example/callback"
	verifier   = "a-verifier-of-forty-three-characters-or-more"
	orders     = "https://orders.example"
	shopSecret = "a secret of the shop"
)

func newHouse(t *testing.T, change ...func(*pages.Config)) *house {
	t.Helper()
	ctx := t.Context()
	h := &house{t: t, store: &troubled{Store: store.NewMemory(0)}, log: new(bytes.Buffer)}
	server := httptest.NewUnstartedServer(nil)
	h.url = "http://" + server.Listener.Addr().String()

	logger := slog.New(slog.NewTextHandler(&guarded{w: h.log}, nil))
	h.registry = clients.NewRegistry(h.store, []clients.Client{
		{ID: "shop", Name: "The Shop", URI: "https://shop.example", SecretDigest: []string{store.Digest(shopSecret)}, AuthMethod: "client_secret_basic",
			RedirectURIs: []string{back}, GrantTypes: []string{"authorization_code", "refresh_token"}, Scopes: []string{"orders:read", "orders:write"}},
		{ID: "ours", Name: "Ours", AuthMethod: "none", Trusted: true, RedirectURIs: []string{back}, GrantTypes: []string{"authorization_code"}, Scopes: []string{"orders:read", "orders:write"}},
		{ID: "tool", Name: "<script>alert(1)</script>", AuthMethod: "none", Native: true, RedirectURIs: []string{"http://127.0.0.1/cb"}, GrantTypes: []string{"authorization_code"}, Scopes: []string{"orders:read"}},
		{ID: "lamp", Name: "The Lamp", AuthMethod: "none", Trusted: true, GrantTypes: []string{"urn:ietf:params:oauth:grant-type:device_code"}, Scopes: []string{"orders:read"}},
		{ID: "orders-api", AuthMethod: "client_secret_basic", SecretDigest: []string{store.Digest("a secret of the orders")}, Introspects: []string{orders}},
	})
	ring, err := keys.Open(ctx, h.store, keys.Config{Algorithms: []string{"ES256"}, InsecureUnsealed: true})
	require.NoError(t, err)
	customers, err := login.NewDatabase(h.store, "customer")
	require.NoError(t, err)
	look := login.Chain(customers, outage{}).Lookup
	h.engine, err = engine.New(engine.Config{
		Issuer: h.url, Account: look, Clients: h.registry, Store: h.store, Keys: ring, Logger: logger,
		APIs: []model.API{
			{Audience: orders, Scopes: []model.Scope{{Name: "orders:read"}, {Name: "orders:write"}}, DetailTypes: []model.DetailType{{Name: "order"}}, Algorithm: "ES256", Lifetime: 10 * time.Minute},
			{Audience: "https://vault.example", Scopes: []model.Scope{{Name: "vault:open"}}, Tokens: model.Opaque, Algorithm: "ES256", Lifetime: 10 * time.Minute},
		},
	})
	require.NoError(t, err)

	for _, name := range []string{"alice", "bob"} {
		_, err = customers.Add(ctx, login.NewUser{Name: name, ID: name, Password: name + "'s password"})
		require.NoError(t, err)
	}
	limit := func(l login.Login) *login.Limited {
		limited, err := login.Limit(l, login.Limits{Name: login.Rate{Burst: 6, Every: 10 * time.Minute}})
		require.NoError(t, err)
		return limited
	}
	codes, err := login.NewLimiter(login.Rate{Burst: 5, Every: 200 * time.Second}, 0)
	require.NoError(t, err)

	h.startAPI()
	cfg := pages.Config{
		Issuer: h.url, Name: "Example & Sons", Store: h.store, Clients: h.registry, Engine: h.engine, Codes: codes, Logger: logger, Account: look,
		Logins: []pages.UserType{{Type: "customer", Label: "Customer", Login: limit(customers)}, {Type: "employee", Login: limit(outage{})}},
		APIs: []model.API{
			{Audience: orders, Name: "Orders", Scopes: []model.Scope{{Name: "orders:read", Description: "See your orders"}, {Name: "orders:write", Description: "Place orders for you"}}, DetailTypes: []model.DetailType{{Name: "order", Description: "Place this order", Descriptions: map[string]string{"de": "Diese Bestellung aufgeben"}}}, TryURL: h.api, Lifetime: 10 * time.Minute},
			{Audience: "https://vault.example", Scopes: []model.Scope{{Name: "vault:open"}}, Lifetime: 10 * time.Minute},
		},
		AuthorizeURL: h.url + "/oauth2/authorize", TokenURL: h.url + "/oauth2/token", Token: http.HandlerFunc(h.engine.Token),
		Services: []string{"employee"}, Renewable: 30 * 24 * time.Hour,
	}
	for _, c := range change {
		c(&cfg)
	}
	h.pages, err = pages.New(cfg)
	require.NoError(t, err)

	mux := http.NewServeMux()
	h.pages.Routes(mux)
	h.engine.Routes(mux)
	flow.Front{Engine: h.engine, Pages: flow.Pages{
		Interact: h.pages.Interact, Leave: h.pages.Leave, Said: h.pages.Said, Ended: h.pages.Ended, ErrorPage: h.pages.ErrorPage,
	}}.Routes(mux, "", "/oauth2/authorize")
	server.Config.Handler = mux
	server.Start()
	t.Cleanup(server.Close)
	return h
}

// guarded makes a writer safe for concurrent use.
type guarded struct {
	mu sync.Mutex
	w  io.Writer
}

func (g *guarded) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.w.Write(p)
}

// startAPI starts the API of the orders.
func (h *house) startAPI() {
	asks, err := introspect.New(introspect.Config{
		URL: h.url + "/oauth2/introspect", Issuer: h.url, Audience: []string{orders}, Auth: introspect.BasicAuth("orders-api", "a secret of the orders"), CacheTTL: -1, JWTIssuers: []string{h.url},
	})
	require.NoError(h.t, err)
	guard, err := middleware.New(middleware.Config{Verifier: asks})
	require.NoError(h.t, err)
	api := httptest.NewServer(guard.Require(scopes.All("orders:read"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]string{"orders": "<i>three</i>", "of": valetkey.FromContext(r.Context()).Subject()})
	})))
	h.t.Cleanup(api.Close)
	h.api = api.URL + "/orders"
}

func (h *house) browser() *browser { return newBrowser(h.t, h.url) }

// ask is the path of an authorization request of a client; more parameters replace those given.
func (h *house) ask(client string, more url.Values) string {
	challenge := sha256.Sum256([]byte(verifier))
	query := url.Values{
		"response_type": {"code"}, "client_id": {client}, "redirect_uri": {back}, "scope": {"orders:read"}, "state": {"a state"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}
	for name, values := range more {
		query[name] = values
	}
	return "/oauth2/authorize?" + query.Encode()
}

func as(name string) url.Values {
	form := url.Values{"name": {name}, "password": {name + "'s password"}}
	if name == "carol" {
		form.Set("type", "employee")
	}
	return form
}

// loggedIn returns a browser in which a user has logged in.
func (h *house) loggedIn(name string) *browser {
	h.t.Helper()
	b := h.browser().get("/login").press("Log in", as(name))
	require.Equal(h.t, "Example & Sons", b.h1())
	return b
}

// redeem exchanges the code that the shop has got, and returns the scope of the token.
func (h *house) redeem(u *url.URL) string {
	h.t.Helper()
	require.True(h.t, strings.HasPrefix(u.String(), back), u)
	require.Equal(h.t, "a state", u.Query().Get("state"))
	status, body := h.tell("/oauth2/token", "shop", url.Values{
		"grant_type": {"authorization_code"}, "code": {u.Query().Get("code")}, "redirect_uri": {back}, "code_verifier": {verifier},
	})
	require.Equal(h.t, 200, status, body)
	return body["scope"].(string)
}

// tell sends a form to an endpoint, as a client.
func (h *house) tell(path, client string, form url.Values) (status int, body map[string]any) {
	h.t.Helper()
	if client != "shop" {
		form.Set("client_id", client)
	}
	r, err := http.NewRequest(http.MethodPost, h.url+path, strings.NewReader(form.Encode()))
	require.NoError(h.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if client == "shop" {
		r.SetBasicAuth("shop", url.QueryEscape(shopSecret))
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(h.t, err)
	defer resp.Body.Close()
	require.NoError(h.t, json.NewDecoder(resp.Body).Decode(&body))
	return resp.StatusCode, body
}
