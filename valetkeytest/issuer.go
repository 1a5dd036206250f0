// Package valetkeytest provides an issuer on loopback and real tokens, for tests of handlers behind a guard.
//
//	func TestOrders(t *testing.T) {
//		iss := valetkeytest.NewIssuer(t)
//		api := iss.Guard().Handler(listOrders, scopes.All("orders:read")) // or your constructor, which takes the guard
//		iss.TestScopes(t, api, "GET /orders orders:read")
//
//		res := httptest.NewRecorder()
//		api.ServeHTTP(res, valetkeytest.Request("GET", "/orders", iss.Token(valetkeytest.Scopes("orders:read"))))
//		...
//	}
//
// [NewIssuer] starts an issuer with metadata (RFC 8414), a key set (RFC 7517), introspection (RFC 7662) and a status list.
// [Issuer.Token] returns JWT access tokens of RFC 9068, [Issuer.Opaque] returns opaque ones, and each [Option] changes a token,
// for example into one that is invalid in a single respect. [Issuer.Forgeries] returns tokens that must never be accepted.
//
// Options also give a token the shape of a product. A constructor of package issuers returns the settings for the URL of this issuer, or,
// if the product has one issuer for all, the test replaces the issuer and the URL of its keys:
//
//	cfg, err := issuers.GitHubActions(issuers.Params{Issuer: "https://token.actions.githubusercontent.com", ...})
//	cfg.Issuer, cfg.JWKSURL, cfg.Client, cfg.Now = iss.URL, iss.KeySet.URL, iss.Client(), iss.Now
//	...
//	iss.Token(valetkeytest.Type("JWT"), valetkeytest.Claim("client_id", nil), valetkeytest.Claim("repository_id", "701234567"))
//
// A test can rotate keys ([Issuer.Rotate]) and advance the clock ([Issuer.Advance]). Every [Endpoint] counts its requests and
// can be down, slow or broken. With the setting [InMemory], the issuer runs in a bubble of [testing/synctest].
//
// [NewTransmitter] adds a transmitter of security event tokens to an issuer, for tests of revocation.
//
// The issuer is not an authorization server. It has no token endpoint, login or consent; package authserver has them.
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

// The default claims of a token, and the default credentials for the introspection endpoint.
const (
	DefaultAudience = "https://api.example.com"
	DefaultSubject  = "alice"
	DefaultClientID = "orders-app"
	DefaultLifetime = 5 * time.Minute

	IntrospectionID     = "resource-server"
	IntrospectionSecret = "resource-server-secret"
)

// Issuer is a real issuer of access tokens on loopback. [NewIssuer] starts one. It is safe for concurrent use.
type Issuer struct {
	// URL is the issuer identifier and the base of its endpoints.
	URL string

	Metadata      *Endpoint // RFC 8414, also at the path of OpenID Connect Discovery
	KeySet        *Endpoint // RFC 7517, section 5
	Introspection *Endpoint // RFC 7662
	StatusList    *Endpoint // draft-ietf-oauth-status-list, see [Status]

	t      testing.TB
	client *http.Client
	offset atomic.Int64  // nanoseconds by which the issuer's clock is ahead of time.Now
	done   chan struct{} // closed when the test ends

	settings settings
	mux      *http.ServeMux // a transmitter adds its endpoints

	mu      sync.Mutex // guards what follows
	keys    keyRing
	opaque  map[string]json.RawMessage // token -> claims
	revoked map[string]bool
	list    statusList
}

type settings struct {
	tls, inMemory bool
	algorithms    []string // the first signs by default
	id, secret    string   // for introspection; empty id: no credentials required
}

// Setting configures the issuer that [NewIssuer] starts.
type Setting func(*settings)

// TLS makes the issuer serve https. [Issuer.Client] trusts its certificate.
func TLS() Setting { return func(s *settings) { s.tls = true } }

// InMemory makes the issuer use in-memory connections instead of loopback. It can then run in a bubble of [testing/synctest],
// where a real socket would stop the bubble's clock. Only [Issuer.Client] can reach it.
func InMemory() Setting { return func(s *settings) { s.inMemory = true } }

// SignWith lists the algorithms whose keys are in the key set from the start. The first is the default for signing; see
// [Algorithm]. Default: ES256. The key of any other algorithm is generated and published with the first token that needs it.
func SignWith(algorithm string, more ...string) Setting {
	return func(s *settings) { s.algorithms = append([]string{algorithm}, more...) }
}

// IntrospectionClient sets the credentials that the introspection endpoint requires, by HTTP Basic (RFC 6749, section 2.3.1).
// Default: [IntrospectionID] and [IntrospectionSecret].
func IntrospectionClient(id, secret string) Setting {
	return func(s *settings) { s.id, s.secret = id, secret }
}

// OpenIntrospection makes the introspection endpoint require no credentials. RFC 7662, section 2.1, forbids that, but some
// issuers do it.
func OpenIntrospection() Setting { return func(s *settings) { s.id = "" } }

// NewIssuer starts an issuer that stops when the test ends. Errors of the issuer fail t.
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

	iss.mux = http.NewServeMux()
	mux := iss.mux
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

// Client returns an HTTP client that can reach the issuer and trusts its certificate.
func (iss *Issuer) Client() *http.Client { return iss.client }

// Now returns the issuer's time: that of the machine or of the synctest bubble, plus all durations passed to
// [Issuer.Advance].
func (iss *Issuer) Now() time.Time { return time.Now().Add(time.Duration(iss.offset.Load())) }

// Advance moves the issuer's clock forward by d. It does not affect timers and sleeps, which use the machine's clock.
func (iss *Issuer) Advance(d time.Duration) { iss.offset.Add(int64(d)) }

// metadata returns the document of RFC 8414, section 2. The issuer supports no grant, so the document lists no endpoint for
// one.
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

// mustJSON encodes values that are known to encode.
func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("valetkeytest: %v", err))
	}
	return data
}
