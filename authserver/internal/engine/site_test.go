package engine_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/internal/keys"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
)

const (
	orders = "https://orders.example.com/" // JWT, ES256
	files  = "https://files.example.com"   // JWT, EdDSA, profile user
	bank   = "https://bank.example.com"    // JWT, RS256, profile permissions
	vault  = "urn:example:vault"           // opaque

	webURI    = "https://web.example.com/cb?tenant=1"
	spaURI    = "https://spa.example.com/cb"
	nativeURI = "http://127.0.0.1/cb"
)

var alice = &login.User{Subject: "employee:alice", Type: "employee", Name: "alice@example.com"}

// clientKey is the key of the client "signer".
var clientKey = sync.OnceValue(func() *jose.PrivateKey {
	k, err := jose.GenerateKey("EdDSA", "signer-1")
	if err != nil {
		panic(err)
	}
	return k
})

func static() []clients.Client {
	secret := func(id string) []string { return []string{store.Digest("secret-of-" + id)} }
	code := []string{"authorization_code", "refresh_token"}
	all := []string{"orders:read", "orders:write", "files:read", "bank:pay", "vault:open"}
	keySet := `{"keys":[` + string(clientKey().PublicJWK()) + `]}`
	return []clients.Client{
		{ID: "web", AuthMethod: "client_secret_basic", SecretDigest: secret("web"), GrantTypes: code, RedirectURIs: []string{webURI}, Scopes: all, DefaultAPI: orders},
		{ID: "other", AuthMethod: "client_secret_basic", SecretDigest: secret("other"), GrantTypes: code, RedirectURIs: []string{"https://other.example.com/cb"}, Scopes: all},
		{ID: "spa", AuthMethod: "none", GrantTypes: append(code, "client_credentials"), RedirectURIs: []string{spaURI}, Scopes: []string{"orders:read"}},
		{ID: "native", AuthMethod: "none", Native: true, GrantTypes: code, RedirectURIs: []string{nativeURI, "http://[::1]/cb", "http://localhost:7000/cb", "com.example.app:/cb"}, Scopes: []string{"orders:read"}},
		{ID: "brief", AuthMethod: "client_secret_basic", SecretDigest: secret("brief"), GrantTypes: []string{"authorization_code"}, RedirectURIs: []string{webURI}, Scopes: all, Lifetime: time.Minute},
		{ID: "legacy", AuthMethod: "client_secret_basic", SecretDigest: secret("legacy"), GrantTypes: code, RedirectURIs: []string{"http://localhost:8080/authorization"}, Scopes: []string{"orders:read"}, WithoutPKCE: true},
		{ID: "legacy-spa", AuthMethod: "none", GrantTypes: code, RedirectURIs: []string{spaURI}, Scopes: []string{"orders:read"}, WithoutPKCE: true},
		{ID: "pushy", AuthMethod: "client_secret_basic", SecretDigest: secret("pushy"), GrantTypes: code, RedirectURIs: []string{webURI}, Scopes: all, RequirePAR: true},
		{ID: "signer", AuthMethod: "private_key_jwt", JWKS: keySet, GrantTypes: append(code, "client_credentials"), RedirectURIs: []string{webURI}, Scopes: []string{"orders:read"}},
		{ID: "service", AuthMethod: "client_secret_basic", SecretDigest: secret("service"), GrantTypes: []string{"client_credentials"}, Scopes: all, DefaultAPI: orders},
		{ID: "bound", AuthMethod: "client_secret_basic", SecretDigest: secret("bound"), GrantTypes: []string{"client_credentials"}, Scopes: []string{"orders:read"}, DPoPBound: true},
		{ID: "orders-api", AuthMethod: "client_secret_basic", SecretDigest: secret("orders-api"), Introspects: []string{orders}},
		{ID: "files-api", AuthMethod: "client_secret_basic", SecretDigest: secret("files-api"), Introspects: []string{files}},
		{ID: "vault-api", AuthMethod: "client_secret_basic", SecretDigest: secret("vault-api"), Introspects: []string{vault}},
	}
}

// A site is an engine on loopback.
type site struct {
	*engine.Engine
	url      string
	store    store.Store
	registry *clients.Registry
	ring     *keys.Ring
	pages    flow.Pages
	paths    model.Paths

	mu     sync.Mutex
	ask    flow.Interact                                // nil: alice allows everything at once
	look   func(subject string) (*login.Account, error) // nil: every subject is a user
	events []engine.Event
}

func (s *site) interact(w http.ResponseWriter, r *http.Request, in *flow.Interaction) (*flow.Decision, error) {
	s.mu.Lock()
	ask := s.ask
	s.mu.Unlock()
	if ask != nil {
		return ask(w, r, in)
	}
	return allow(in), nil
}

func allow(in *flow.Interaction) *flow.Decision {
	return &flow.Decision{User: alice, AuthTime: time.Now(), ACR: "pwd", Scopes: in.Scopes}
}

// account is what the site knows of its users.
func (s *site) account(_ context.Context, subject string) (*login.Account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.look != nil {
		return s.look(subject)
	}
	return new(login.Account), nil
}

func (s *site) looksUp(look func(subject string) (*login.Account, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look = look
}

func (s *site) asks(ask flow.Interact) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ask = ask
}

func (s *site) audit(_ context.Context, e engine.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

// saw returns the events of a name.
func (s *site) saw(name string) (seen []engine.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Name == name {
			seen = append(seen, e)
		}
	}
	return seen
}

var rsaRing = sync.OnceValues(func() (store.Record, error) { // RSA keys are slow to make
	m := store.NewMemory(0)
	if _, err := keys.Open(context.Background(), m, keys.Config{Algorithms: []string{"RS256"}, InsecureUnsealed: true}); err != nil {
		return store.Record{}, err
	}
	found, err := m.Find(context.Background(), "key", store.Key{}, "", 1)
	if err != nil {
		return store.Record{}, err
	}
	found[0].Version = 0
	return found[0], nil
})

// A config configures a site: an engine, and the pages in front of it.
type config struct {
	engine.Config
	flow.Pages
}

// build makes a site that has no server.
func build(t testing.TB, issuer string, change ...func(*config)) *site {
	t.Helper()
	s := &site{url: issuer, store: store.NewMemory(0)}
	rsa, err := rsaRing()
	require.NoError(t, err)
	_, err = s.store.Put(context.Background(), rsa)
	require.NoError(t, err)
	s.ring, err = keys.Open(context.Background(), s.store, keys.Config{Algorithms: []string{"ES256", "EdDSA", "RS256"}, InsecureUnsealed: true})
	require.NoError(t, err)
	s.registry = clients.NewRegistry(s.store, static())
	cfg := config{Pages: flow.Pages{Interact: s.interact}, Config: engine.Config{
		Issuer: issuer, ACRs: []string{"mfa", "pwd"}, Store: s.store, Keys: s.ring, Clients: s.registry, Account: s.account, Audit: s.audit,
		Failures: login.Rate{Burst: 1000, Every: time.Millisecond}, Pushes: login.Rate{Burst: 10_000, Every: time.Millisecond},
		APIs: []model.API{
			{Audience: orders, Scopes: []model.Scope{{Name: "orders:read"}, {Name: "orders:write"}}, Algorithm: "ES256", Lifetime: 10 * time.Minute},
			{Audience: files, Scopes: []model.Scope{{Name: "files:read"}}, Algorithm: "EdDSA", Lifetime: 10 * time.Minute, Profile: model.User},
			{Audience: bank, Scopes: []model.Scope{{Name: "bank:pay"}}, Algorithm: "RS256", Lifetime: 10 * time.Minute, Profile: model.Permissions},
			{Audience: vault, Scopes: []model.Scope{{Name: "vault:open"}}, Algorithm: "ES256", Lifetime: 10 * time.Minute, Tokens: model.Opaque},
		},
	}}
	for _, f := range change {
		f(&cfg)
	}
	s.store = cfg.Store
	s.pages, s.paths = cfg.Pages, cfg.Paths.WithDefaults()
	s.Engine, err = engine.New(cfg.Config)
	require.NoError(t, err)
	return s
}

// Routes registers all endpoints below the path of the issuer.
func (s *site) Routes(mux *http.ServeMux) {
	issuer, _ := url.Parse(s.url)
	flow.Front{Engine: s.Engine, Pages: s.pages}.Routes(mux, issuer.Path, s.paths.Authorize)
	s.Engine.Routes(mux)
}

// start makes a site with a server; its issuer has a path.
func start(t testing.TB, change ...func(*config)) *site {
	t.Helper()
	web := httptest.NewUnstartedServer(nil)
	s := build(t, "http://"+web.Listener.Addr().String()+"/as", change...)
	mux := http.NewServeMux()
	s.Routes(mux)
	mux.HandleFunc("GET /as/oauth2/keys", func(w http.ResponseWriter, _ *http.Request) { w.Write(s.ring.KeySet()) })
	web.Config.Handler = mux
	web.Start()
	t.Cleanup(web.Close)
	return s
}

// answer is a response that has been read.
type answer struct {
	status int
	header http.Header
	text   string
	body   map[string]any
	back   url.Values // the query of a redirect to the client
	to     string     // where that is
}

func read(t testing.TB, res *http.Response, err error) answer {
	t.Helper()
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	a := answer{status: res.StatusCode, header: res.Header, text: string(text)}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		require.NoError(t, json.Unmarshal(text, &a.body))
	}
	if to, err := url.Parse(res.Header.Get("Location")); err == nil && to.String() != "" {
		a.back = to.Query()
		to.RawQuery = ""
		a.to = to.String()
	}
	return a
}

// A browser keeps cookies and follows no redirects.
type browser struct{ http.Client }

func newBrowser() *browser {
	jar, _ := cookiejar.New(nil)
	return &browser{http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (b *browser) get(t testing.TB, url string) answer {
	t.Helper()
	res, err := b.Get(url)
	return read(t, res, err)
}

func (b *browser) post(t testing.TB, url string, f url.Values) answer {
	t.Helper()
	res, err := b.PostForm(url, f)
	return read(t, res, err)
}

func form(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v
}

// RFC 7636, appendix B.
const (
	verifier  = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
)

// request returns the parameters of a good authorization request of web, and pairs over them; an empty one takes a parameter away.
func request(pairs ...string) url.Values {
	v := form("client_id", "web", "response_type", "code", "redirect_uri", webURI, "scope", "orders:read", "state", "s/1 &",
		"code_challenge", challenge, "code_challenge_method", "S256")
	for i := 0; i < len(pairs); i += 2 {
		if v.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
			v.Del(pairs[i])
		}
	}
	return v
}

func (s *site) authorizeURL(q url.Values) string { return s.url + "/oauth2/authorize?" + q.Encode() }

// code returns a code that alice has allowed.
func (s *site) code(t testing.TB, pairs ...string) string {
	t.Helper()
	a := newBrowser().get(t, s.authorizeURL(request(pairs...)))
	require.Equal(t, 303, a.status, a.text)
	require.NotEmpty(t, a.back.Get("code"), a.back)
	return a.back.Get("code")
}

// post sends a form to an endpoint, by Basic as a client that has a secret; the others name themselves.
func (s *site) post(t testing.TB, path, id string, f url.Values, header ...string) answer {
	t.Helper()
	if id == "spa" || id == "native" || id == "legacy-spa" {
		f.Set("client_id", id)
	}
	r, err := http.NewRequest("POST", s.url+path, strings.NewReader(f.Encode()))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if !f.Has("client_id") && !f.Has("client_assertion") && id != "" {
		r.SetBasicAuth(id, "secret-of-"+id)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	return read(t, res, err)
}

func redemption(code string, pairs ...string) url.Values {
	v := form("grant_type", "authorization_code", "code", code, "redirect_uri", webURI, "code_verifier", verifier)
	for i := 0; i < len(pairs); i += 2 {
		if v.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
			v.Del(pairs[i])
		}
	}
	return v
}

func (s *site) redeem(t testing.TB, id, code string, pairs ...string) answer {
	t.Helper()
	return s.post(t, "/oauth2/token", id, redemption(code, pairs...))
}

func (s *site) refresh(t testing.TB, id, token string, pairs ...string) answer {
	t.Helper()
	return s.post(t, "/oauth2/token", id, append2(form("grant_type", "refresh_token", "refresh_token", token), pairs...))
}

func append2(v url.Values, pairs ...string) url.Values {
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v
}

// tokens is what a token endpoint gave.
type tokens struct{ access, refresh, scope string }

func (a answer) tokens(t testing.TB) tokens {
	t.Helper()
	require.Equal(t, 200, a.status, a.text)
	text := func(name string) string { s, _ := a.body[name].(string); return s }
	require.NotEmpty(t, text("access_token"))
	return tokens{text("access_token"), text("refresh_token"), text("scope")}
}

// login returns tokens of alice for web.
func (s *site) login(t testing.TB, pairs ...string) tokens {
	t.Helper()
	return s.redeem(t, "web", s.code(t, pairs...)).tokens(t)
}

func (s *site) introspect(t testing.TB, api, token string) answer {
	t.Helper()
	return s.post(t, "/oauth2/introspect", api, form("token", token))
}

func (s *site) active(t testing.TB, token string) bool {
	t.Helper()
	a := s.introspect(t, "orders-api", token)
	require.Equal(t, 200, a.status, a.text)
	return a.body["active"].(bool)
}

func refused(t testing.TB, a answer, status int, code string) {
	t.Helper()
	assert.Equal(t, status, a.status, a.text)
	assert.Equal(t, code, a.body["error"], a.text)
	assert.NotContains(t, a.body, "access_token")
	assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
	assert.Regexp(t, `^[\x20-\x21\x23-\x5b\x5d-\x7e]+$`, a.body["error_description"])
}

// part decodes a part of a JWT without looking at its signature.
func part(t testing.TB, token string, i int) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	text, err := base64.RawURLEncoding.DecodeString(parts[i])
	require.NoError(t, err)
	var v map[string]any
	require.NoError(t, json.Unmarshal(text, &v))
	return v
}
