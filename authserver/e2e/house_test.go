//go:build unix

package e2e_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/storetest/pgtest"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// The stores of a server, as its configuration has them.
var stores = map[string]func(t *testing.T) string{
	"memory": func(*testing.T) string { return "store: memory" },
	"sqlite": func(*testing.T) string { return "store: sqlite:valetkey.db" },
	"postgres": func(t *testing.T) string {
		dsn := url.Values{}
		for word := range strings.FieldsSeq(pgtest.Start(t)) {
			name, value, _ := strings.Cut(word, "=")
			dsn.Set(name, value)
		}
		seal := filepath.Join(t.TempDir(), "seal")
		require.NoError(t, os.WriteFile(seal, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600))
		return "store: postgres:///?" + dsn.Encode() + "\nseal_file: " + seal
	},
}

const (
	callback     = "https://web.example/callback?from=valetkey"
	initialToken = "an initial access token for tests"
	password     = "alice, who reads her orders"
)

func secretOf(id string) string { return "the secret of " + id }

// A house is a server and two APIs that identify their callers by its tokens.
type house struct {
	*server
	orders string // takes JWTs, bound to a key or not
	vault  string // takes opaque tokens
}

func start(t *testing.T, store string, change ...func(config string) string) *house {
	t.Helper()
	h := &house{}
	var toOrders, toVault http.Handler
	listen := func(path string, handler *http.Handler) string {
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*handler).ServeHTTP(w, r) }))
		t.Cleanup(api.Close)
		return api.URL + path
	}
	h.orders, h.vault = listen("/orders", &toOrders), listen("/vault", &toVault)
	h.server = serve(t, func(issuer string) string {
		text := fmt.Sprintf(config, issuer, h.orders, h.vault, store, sha256.Sum256([]byte(initialToken)))
		for _, f := range change {
			text = f(text)
		}
		return text
	})

	local, err := jwks.New(jwks.Config{Issuer: h.url, Audience: []string{h.orders}})
	require.NoError(t, err)
	t.Cleanup(local.Close)
	toOrders = guarded(t, local, "orders:read")
	remote, err := introspect.New(introspect.Config{
		Issuer: h.url, Audience: []string{h.vault}, Auth: introspect.BasicAuth("vault-api", secretOf("vault-api")), CacheTTL: -1,
	})
	require.NoError(t, err)
	t.Cleanup(remote.Close)
	toVault = guarded(t, remote, "vault:open")
	return h
}

// config needs the issuer, the orders, the vault, the store, and the digest of initialToken.
const config = `
issuer: %s
apis:
  - {audience: "%[2]s", name: Orders, scopes: {"orders:read": See your orders, "orders:write": Place orders for you}}
  - {audience: "%[3]s", name: Vault, tokens: opaque, scopes: {"vault:open": Open your vault}}
%[4]s
clients:
  - {id: web, name: A website, secret: the secret of web, scopes: ["orders:read", "vault:open"],
     redirect_uris: ["` + callback + `", "https://web.example/callback"]}
  - {id: app, name: An app, token_endpoint_auth_method: none, native: true, scopes: ["orders:read"],
     redirect_uris: ["http://127.0.0.1/callback", "http://localhost:4712/callback"]}
  - {id: tv, name: A television, token_endpoint_auth_method: none, scopes: ["orders:read"],
     grant_types: ["urn:ietf:params:oauth:grant-type:device_code", refresh_token]}
  - {id: service, secret: the secret of service, scopes: ["orders:read", "vault:open"]}
  - {id: orders-api, secret: the secret of orders-api, introspects: ["%[2]s"]}
  - {id: vault-api, secret: the secret of vault-api, introspects: ["%[3]s"]}
users:
  - {name: alice, password: "` + password + `"}
registration:
  initial_tokens: [{name: tests, sha256: %[5]x}]
limits:
  pushes: {burst: 10000, every: 1ms} # the races are all of one address
`

// guarded is an API that returns its caller.
func guarded(t *testing.T, v valetkey.Verifier, scope string) http.Handler {
	t.Helper()
	proofs, err := dpop.New(dpop.Config{})
	require.NoError(t, err)
	// An API on a port that is not known yet: one with a name has it in a Resource.
	asSent := func(r *http.Request) string { return "http://" + r.Host + r.URL.EscapedPath() }
	guard, err := middleware.New(middleware.Config{Verifier: v, DPoP: proofs, URL: asSent})
	require.NoError(t, err)
	return guard.Require(scopes.All(scope))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]string{"sub": valetkey.FromContext(r.Context()).Subject()})
	}))
}

// many carries requests that are sent at once without a new connection for each.
var many = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}

// An answer is one of the token or introspection endpoint.
type answer struct {
	status       int
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	Error        string `json:"error"`
	Active       bool   `json:"active"`
}

// post sends a form as a client that has a secret, or as the client in the form if id is empty.
func (h *house) post(path, id string, form url.Values) (a answer, err error) {
	r, err := http.NewRequest(http.MethodPost, h.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		return a, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if id != "" {
		r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secretOf(id)))
	}
	resp, err := many.Do(r)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	a.status = resp.StatusCode
	if resp.ContentLength != 0 { // a revocation is answered with nothing
		err = json.NewDecoder(resp.Body).Decode(&a)
	}
	return a, err
}

func (h *house) token(id string, form url.Values) (answer, error) {
	return h.post("/oauth2/token", id, form)
}

// active reports whether introspection by an API returns the token as active.
func (h *house) active(t *testing.T, api, token string) bool {
	t.Helper()
	a, err := h.post("/oauth2/introspect", api, url.Values{"token": {token}})
	require.NoError(t, err)
	require.Equal(t, 200, a.status)
	return a.Active
}
