package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The credentials with which servers authenticate to the introspection endpoint.
const (
	introspectionID     = "resource-server"
	introspectionSecret = "resource-server-secret"
)

// An issuer is the authorization server of a run: three issuers with metadata and key sets, of which servers trust main, may trust second
// and never trust hostile; introspection; and a status list. It counts its requests and misbehaves on demand.
type issuer struct {
	url    string
	canary string
	secret string       // for introspection; not changed while the server runs
	offset atomic.Int64 // by which its clock is ahead
	server *http.Server
	done   chan struct{} // closed when it stops

	mu       sync.Mutex // guards what follows
	hits     map[string]int
	faults   map[string]*Fault
	keys     string            // the key set of main
	metadata map[string]any    // members that replace those of main
	answers  map[string]Answer // opaque token -> response; as many as the cases make
	asked    map[string]int    // "TOKEN" or "CONDITION TOKEN" -> introspection requests
	statuses []byte            // two bits per index
}

// startIssuer starts an issuer that listens at address and has the given canary.
func startIssuer(address, canary string) (*issuer, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("starting the issuer: %w", err)
	}
	iss := &issuer{
		url: "http://" + listener.Addr().String(), canary: canary, secret: introspectionSecret, done: make(chan struct{}),
		hits: map[string]int{}, faults: map[string]*Fault{}, answers: map[string]Answer{}, asked: map[string]int{},
		statuses: make([]byte, 4),
	}
	if iss.keys, err = keySetOf("main"); err != nil {
		listener.Close()
		return nil, err
	}
	iss.server = &http.Server{Handler: http.HandlerFunc(iss.serve), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0)} // a server that closes its connection is part of the test
	go iss.server.Serve(listener)
	return iss, nil
}

// close stops the issuer.
func (iss *issuer) close() {
	close(iss.done)
	iss.server.Close()
}

// publishedKeys are the keys of each issuer, unless a case publishes others.
var publishedKeys = []string{"es256", "rs256", "ps256", "es384", "eddsa"}

func keySetOf(owner string) (string, error) {
	var keys []map[string]any
	for _, name := range publishedKeys {
		k, err := findKey(owner, name)
		if err != nil {
			return "", err
		}
		keys = append(keys, k.jwk)
	}
	text, err := json.Marshal(map[string]any{"keys": keys})
	return string(text), err
}

func (iss *issuer) now() time.Time { return time.Now().Add(time.Duration(iss.offset.Load())) }

// urlOf returns a URL of one of the three issuers: its identifier, or its jwks_uri.
func (iss *issuer) urlOf(owner, what string) string {
	base := iss.url
	if owner != "main" {
		base += "/" + owner
	}
	if what == "jwks_uri" {
		return base + "/jwks"
	}
	return base
}

// know makes the introspection endpoint answer for a token.
func (iss *issuer) know(token string, a Answer) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.answers[token] = a
}

// counts returns the number of requests by endpoint. Those of introspection are for the given tokens only.
func (iss *issuer) counts(tokens []string) map[string]int {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	n := maps.Clone(iss.hits)
	n["introspection"] = 0
	for _, token := range tokens {
		n["introspection"] += iss.asked[token]
		for _, condition := range []string{"anonymous", "ill-formed", "not-json", "untyped"} {
			n["introspection "+condition] += iss.asked[condition+" "+token]
		}
	}
	return n
}

// do carries out an action that concerns the issuer.
func (iss *issuer) do(a Action, b *bench) error {
	switch {
	case a.Keys != nil:
		set, err := b.publishedSet(a.Keys)
		if err != nil {
			return err
		}
		iss.mu.Lock()
		iss.keys = set
		iss.mu.Unlock()
	case a.Fault != nil:
		f := *a.Fault
		f.Body = b.expand(f.Body)
		f.Header = nil
		for _, line := range a.Fault.Header {
			f.Header = append(f.Header, b.expand(line))
		}
		iss.mu.Lock()
		iss.faults[f.Endpoint] = &f
		iss.mu.Unlock()
	case a.Restore != "":
		iss.mu.Lock()
		delete(iss.faults, a.Restore)
		iss.mu.Unlock()
	case a.Revoke != "":
		iss.know(b.tokens[a.Revoke], Answer{Status: 200, Header: []string{"Content-Type: application/json"}, Body: `{"active":false}`})
	case a.Status != nil:
		iss.mu.Lock()
		at, shift := a.Status.Index/4, a.Status.Index%4*2
		iss.statuses[at] = iss.statuses[at]&^(3<<shift) | byte(a.Status.Value&3)<<shift
		iss.mu.Unlock()
	case a.Metadata != nil:
		text, err := b.json(a.Metadata)
		if err != nil {
			return err
		}
		iss.mu.Lock()
		defer iss.mu.Unlock()
		iss.metadata = nil
		return json.Unmarshal([]byte(text), &iss.metadata)
	}
	return nil
}

// endpointOf returns the endpoint at a path, and whose it is.
func endpointOf(path string) (endpoint, owner string) {
	const oauth, openid = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
	owner = "main"
	for _, other := range []string{"second", "hostile"} {
		switch path {
		case oauth + "/" + other, openid + "/" + other, "/" + other + openid:
			return "metadata", other
		case "/" + other + "/jwks":
			return "jwks", other
		}
	}
	switch path {
	case oauth, openid:
		endpoint = "metadata"
	case "/jwks":
		endpoint = "jwks"
	case "/introspect":
		endpoint = "introspection"
	case "/statuses":
		endpoint = "status"
	}
	return endpoint, owner
}

func (iss *issuer) serve(w http.ResponseWriter, r *http.Request) {
	endpoint, owner := endpointOf(r.URL.Path)
	if endpoint == "" {
		http.NotFound(w, r)
		return
	}
	iss.mu.Lock()
	name := endpoint
	if owner != "main" {
		name = owner + " " + endpoint
	}
	iss.hits[name]++
	fault := iss.faults[name]
	if fault != nil && fault.Times > 0 {
		if fault.Times--; fault.Times == 0 {
			delete(iss.faults, name)
		}
	}
	var now Fault
	if fault != nil {
		now = *fault
	}
	iss.mu.Unlock()

	if endpoint == "introspection" {
		iss.count(r)
	}
	if fault != nil && iss.misbehave(w, r, now) {
		return
	}
	switch endpoint {
	case "metadata":
		iss.serveMetadata(w, owner)
	case "jwks":
		iss.serveKeys(w, owner)
	case "introspection":
		iss.introspect(w, r)
	case "status":
		iss.serveStatuses(w, r)
	}
}

// misbehave serves a fault, and reports whether that was the whole response.
func (iss *issuer) misbehave(w http.ResponseWriter, r *http.Request, f Fault) bool {
	if d, err := time.ParseDuration(f.Delay); err == nil {
		iss.wait(r, d)
	}
	switch f.Kind {
	case "slow":
		return false
	case "down":
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			fmt.Fprint(conn, "H") // so that no client takes the connection for one that was idle too long, and tries again
			conn.Close()
		}
		return true
	}
	answer(w, Answer{Status: f.Status, Header: f.Header, Body: f.Body})
	if f.Kind == "endless" {
		for space := bytes.Repeat([]byte(" "), 1<<14); ; {
			select {
			case <-iss.done:
				return true
			default:
			}
			if _, err := w.Write(space); err != nil {
				return true
			}
		}
	}
	return true
}

func (iss *issuer) wait(r *http.Request, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	case <-iss.done:
	}
}

func answer(w http.ResponseWriter, a Answer) {
	for _, line := range a.Header {
		name, value, _ := strings.Cut(line, ":")
		w.Header().Add(name, strings.TrimSpace(value))
	}
	if a.Status == 0 {
		a.Status = 200
	}
	w.WriteHeader(a.Status)
	io.WriteString(w, a.Body)
}

func (iss *issuer) serveMetadata(w http.ResponseWriter, owner string) {
	doc := map[string]any{
		"issuer":                   iss.urlOf(owner, "issuer"),
		"jwks_uri":                 iss.urlOf(owner, "jwks_uri"),
		"introspection_endpoint":   iss.url + "/introspect",
		"token_endpoint":           iss.url + "/token",
		"authorization_endpoint":   iss.url + "/authorize",
		"response_types_supported": []string{"code"},
		"introspection_endpoint_auth_methods_supported": []string{"client_secret_basic"},
	}
	if owner == "main" {
		iss.mu.Lock()
		maps.Copy(doc, iss.metadata)
		iss.mu.Unlock()
	}
	text, err := json.Marshal(doc)
	if err != nil {
		http.Error(w, "metadata", http.StatusInternalServerError)
		return
	}
	answer(w, Answer{Header: []string{"Content-Type: application/json"}, Body: string(text)})
}

func (iss *issuer) serveKeys(w http.ResponseWriter, owner string) {
	iss.mu.Lock()
	set := iss.keys
	iss.mu.Unlock()
	if owner != "main" {
		var err error
		if set, err = keySetOf(owner); err != nil {
			http.Error(w, "keys", http.StatusInternalServerError)
			return
		}
	}
	answer(w, Answer{Header: []string{"Content-Type: application/json"}, Body: set})
}

// count records an introspection request by its token, and what is wrong with it (RFC 7662, section 2.1).
func (iss *issuer) count(r *http.Request) {
	r.ParseForm()
	token := r.PostForm.Get("token")
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	accept := r.Header.Get("Accept")
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.asked[token]++
	if !iss.authenticated(r) {
		iss.asked["anonymous "+token]++
	}
	if r.Method != http.MethodPost || kind != "application/x-www-form-urlencoded" {
		iss.asked["ill-formed "+token]++
	}
	if accept != "" && !strings.Contains(accept, "json") && !strings.Contains(accept, "*/*") && !strings.Contains(accept, "+jwt") {
		iss.asked["not-json "+token]++
	}
	if !strings.Contains(accept, "application/token-introspection+jwt") {
		iss.asked["untyped "+token]++
	}
}

func (iss *issuer) authenticated(r *http.Request) bool {
	if id, secret, ok := r.BasicAuth(); ok {
		id, _ = url.QueryUnescape(id) // RFC 6749, section 2.3.1
		secret, _ = url.QueryUnescape(secret)
		return id == introspectionID && secret == iss.secret
	}
	return r.PostForm.Get("client_id") == introspectionID && r.PostForm.Get("client_secret") == iss.secret
}

func (iss *issuer) introspect(w http.ResponseWriter, r *http.Request) {
	if !iss.authenticated(r) {
		answer(w, Answer{Status: 401, Header: []string{`WWW-Authenticate: Basic realm="issuer"`, "Content-Type: application/json"},
			Body: `{"error":"invalid_client"}`})
		return
	}
	iss.mu.Lock()
	a, ok := iss.answers[r.PostForm.Get("token")]
	iss.mu.Unlock()
	if !ok {
		a = Answer{Header: []string{"Content-Type: application/json"}, Body: `{"active":false}`}
	}
	if d, err := time.ParseDuration(a.Delay); err == nil {
		iss.wait(r, d)
	}
	answer(w, a)
}

// serveStatuses serves the status list token.
func (iss *issuer) serveStatuses(w http.ResponseWriter, r *http.Request) {
	iss.mu.Lock()
	if !strings.Contains(r.Header.Get("Accept"), "application/statuslist+jwt") {
		iss.hits["status untyped"]++
	}
	iss.mu.Unlock()
	raw, err := iss.statusList("")
	if err != nil {
		http.Error(w, "statuses", http.StatusInternalServerError)
		return
	}
	answer(w, Answer{Header: []string{"Content-Type: application/statuslist+jwt"}, Body: raw})
}

// A canary is a server that no resource server has a reason to contact. Tokens and headers contain its URLs. It counts requests by
// their first path segment, the ID of a case.
type canary struct {
	url    string
	server *http.Server
	mu     sync.Mutex
	seen   map[string]int
}

func startCanary() (*canary, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the canary: %w", err)
	}
	c := &canary{url: "http://" + listener.Addr().String(), seen: map[string]int{}}
	hostile, err := keySetOf("hostile")
	if err != nil {
		listener.Close()
		return nil, err
	}
	c.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		c.mu.Lock()
		c.seen[id]++
		c.mu.Unlock()
		answer(w, Answer{Header: []string{"Content-Type: application/json"}, Body: hostile})
	})}
	go c.server.Serve(listener)
	return c, nil
}

func (c *canary) contacted(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[id] > 0
}

func (c *canary) close() { c.server.Close() }
