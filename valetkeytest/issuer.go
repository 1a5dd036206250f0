// Package valetkeytest helps to test what a guard protects, with real tokens of a real issuer:
//
//	func TestOrders(t *testing.T) {
//		iss := valetkeytest.NewIssuer(t)
//		keys, err := jwks.New(jwks.Config{
//			Issuer:   iss.URL,
//			Audience: []string{valetkeytest.DefaultAudience},
//			Client:   iss.Client(),
//			Now:      iss.Now,
//		})
//		...
//		api := guard.Handler(listOrders, scopes.All("orders:read"))
//
//		res := httptest.NewRecorder()
//		api.ServeHTTP(res, valetkeytest.Request("GET", "/orders", iss.Token(valetkeytest.Scopes("orders:write"))))
//
//		if res.Code != http.StatusForbidden {
//			t.Errorf("a token with another scope got %d", res.Code)
//		}
//		if c := valetkeytest.Challenge(t, res.Header(), "Bearer"); c["scope"] != "orders:read" {
//			t.Errorf("the challenge asks for %q", c["scope"])
//		}
//	}
//
// [NewIssuer] starts an issuer on loopback: metadata (RFC 8414), key set (RFC 7517), introspection (RFC 7662), status list. It signs
// JWT access tokens of RFC 9068 with [Issuer.Token] and hands out opaque ones with [Issuer.Opaque]; an [Option] makes
// one that is good, or wrong in one respect. [Issuer.Forgeries] are tokens that nothing may accept.
//
// Keys rotate ([Issuer.Rotate]), time passes ([Issuer.Advance]), and every [Endpoint] counts its requests and can be
// down, slow or broken. With the setting [InMemory] all of it runs within a bubble of [testing/synctest].
//
// What it is not: an authorization server. There is no token endpoint, no login and no consent; package authserver has
// them.
package valetkeytest

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What a token says, and how the introspection endpoint knows its caller, unless told otherwise.
const (
	DefaultAudience = "https://api.example.com"
	DefaultSubject  = "alice"
	DefaultClientID = "orders-app"
	DefaultLifetime = 5 * time.Minute

	IntrospectionID     = "resource-server"
	IntrospectionSecret = "resource-server-secret"
)

// An Issuer is a real issuer of access tokens on loopback, made by [NewIssuer]. It is safe for concurrent use.
type Issuer struct {
	// URL is the issuer identifier and the base of its endpoints.
	URL string

	Metadata      *Endpoint // RFC 8414, also at the path of OpenID Connect Discovery
	KeySet        *Endpoint // RFC 7517, section 5
	Introspection *Endpoint // RFC 7662
	StatusList    *Endpoint // draft-ietf-oauth-status-list, see [Status]

	t      testing.TB
	client *http.Client
	offset atomic.Int64  // nanoseconds the issuer's clock is ahead of time.Now
	done   chan struct{} // closed when the test ends

	settings settings

	mu      sync.Mutex // guards what follows
	keys    keyRing
	opaque  map[string]json.RawMessage // token -> claims
	revoked map[string]bool
	list    statusList
}

type settings struct {
	tls, inMemory bool
	algorithms    []string // the first signs by default
	id, secret    string   // of introspection; no id: anyone may ask
}

// A Setting changes what [NewIssuer] makes.
type Setting func(*settings)

// TLS makes the issuer serve https. [Issuer.Client] trusts its certificate.
func TLS() Setting { return func(s *settings) { s.tls = true } }

// InMemory makes the issuer serve over memory instead of loopback, so that it can live within a bubble of
// [testing/synctest], where a real socket would stop time. Only [Issuer.Client] reaches it.
func InMemory() Setting { return func(s *settings) { s.inMemory = true } }

// SignWith names the algorithms whose keys stand in the key set from the start: the first signs unless [Algorithm] says
// otherwise. Default: ES256. The key of another algorithm is made, and published, with the first token that needs it.
func SignWith(algorithm string, more ...string) Setting {
	return func(s *settings) { s.algorithms = append([]string{algorithm}, more...) }
}

// IntrospectionClient sets the credentials that the introspection endpoint asks for, by HTTP Basic (RFC 6749, section
// 2.3.1). Default: [IntrospectionID] and [IntrospectionSecret].
func IntrospectionClient(id, secret string) Setting {
	return func(s *settings) { s.id, s.secret = id, secret }
}

// OpenIntrospection makes the introspection endpoint ask for no credentials, which RFC 7662, section 2.1 forbids and
// some issuers do.
func OpenIntrospection() Setting { return func(s *settings) { s.id = "" } }

// NewIssuer starts an issuer that stops when the test ends. What goes wrong with it fails t.
func NewIssuer(t testing.TB, set ...Setting) *Issuer {
	t.Helper()
	iss := &Issuer{
		t:        t,
		done:     make(chan struct{}),
		settings: settings{algorithms: []string{"ES256"}, id: IntrospectionID, secret: IntrospectionSecret},
		keys:     newKeyRing(),
		opaque:   map[string]json.RawMessage{},
		revoked:  map[string]bool{},
	}
	for _, s := range set {
		s(&iss.settings)
	}
	iss.Metadata = &Endpoint{done: iss.done, empty: `{}`}
	iss.Metadata.real = iss.Metadata.document(iss.metadata)
	iss.KeySet = &Endpoint{done: iss.done, empty: `{"keys":[]}`}
	iss.KeySet.real = iss.KeySet.document(iss.JWKS)
	iss.Introspection = &Endpoint{done: iss.done, empty: `{}`, real: iss.introspect}

	iss.StatusList = &Endpoint{done: iss.done, real: iss.serveStatusList}

	mux := http.NewServeMux()
	mux.Handle("GET /.well-known/oauth-authorization-server", iss.Metadata)
	mux.Handle("GET /.well-known/openid-configuration", iss.Metadata)
	mux.Handle("GET /jwks", iss.KeySet)
	mux.Handle("POST /introspect", iss.Introspection)
	mux.Handle("GET /statuses", iss.StatusList)
	iss.serve(mux)

	iss.Metadata.URL = iss.URL + "/.well-known/oauth-authorization-server"
	iss.KeySet.URL = iss.URL + "/jwks"
	iss.Introspection.URL = iss.URL + "/introspect"
	iss.StatusList.URL = iss.URL + "/statuses"

	t.Cleanup(iss.giveBackKeys)
	for _, alg := range iss.settings.algorithms {
		if _, err := iss.signingKey(alg); err != nil {
			t.Fatalf("valetkeytest: %v", err)
		}
	}
	return iss
}

func (iss *Issuer) serve(h http.Handler) {
	server := httptest.NewUnstartedServer(h)
	// A client that does not trust the certificate, or goes away, is part of the test.
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	var memory *memoryListener
	if iss.settings.inMemory {
		server.Listener.Close()
		memory = newMemoryListener()
		server.Listener = memory
	}
	if iss.settings.tls {
		server.StartTLS()
	} else {
		server.Start()
	}
	iss.URL, iss.client = server.URL, server.Client()
	if memory != nil {
		iss.client.Transport.(*http.Transport).DialContext = memory.dial
	}
	iss.t.Cleanup(func() {
		close(iss.done)
		server.Close()
	})
}

// Client returns an HTTP client that reaches the issuer, and trusts its certificate.
func (iss *Issuer) Client() *http.Client { return iss.client }

// Now is the issuer's clock: that of the machine, or of the synctest bubble, and what [Issuer.Advance] added.
func (iss *Issuer) Now() time.Time { return time.Now().Add(time.Duration(iss.offset.Load())) }

// Advance moves the issuer's clock by d. It wakes nobody up: what sleeps goes by the machine's clock.
func (iss *Issuer) Advance(d time.Duration) { iss.offset.Add(int64(d)) }

// metadata is the document of RFC 8414, section 2. There is no way to get a grant here, thus no endpoint for one.
func (iss *Issuer) metadata() []byte {
	doc := map[string]any{
		"issuer":                   iss.URL,
		"jwks_uri":                 iss.KeySet.URL,
		"introspection_endpoint":   iss.Introspection.URL,
		"response_types_supported": []string{"none"},
		"introspection_endpoint_auth_methods_supported": []string{"client_secret_basic"},
	}
	if iss.settings.id == "" {
		doc["introspection_endpoint_auth_methods_supported"] = []string{"none"}
	}
	return mustJSON(doc)
}

// mustJSON encodes what this package has put together itself.
func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("valetkeytest: %v", err))
	}
	return data
}
