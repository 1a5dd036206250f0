package signals_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/signals"
	"github.com/valetkey/valetkey/valetkeytest"
)

const (
	soon     = time.Minute // the limit for events that must happen
	audience = "https://receiver.example.com"
	endpoint = "https://receiver.example.com/events"
	secret   = "Bearer push-secret"
	apiToken = "api-token"
)

// M is a JSON object.
type M = map[string]any

// A transmitter is a transmitter of SSF over real HTTP: metadata, keys, the API of streams, poll and push.
type transmitter struct {
	t      testing.TB
	URL    string // issuer
	server *httptest.Server

	handler  http.Handler
	listener *memoryListener
	client   *http.Client // nil: any
	close    func()

	mu         sync.Mutex
	keys       []*jose.PrivateKey // the first signs
	jwksDown   bool
	jwksWait   time.Duration // before the keys are sent
	jwksHits   int
	metadata   M // changes
	streams    []M
	creates    []M                                               // bodies
	noCreate   int                                               // status instead of creating
	late       []M                                               // streams that appear with the refusal to create one
	apiFault   func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	queries    []string                                          // method and query of the requests for streams
	single     bool
	change     func(M) // of a stream that is created
	patches    []string
	pollStatus int
	status     string
	statusHit  int
	verifies   []M // bodies of requests
	onVerify   func(body M) int
	queue      []string          // jti in order
	pending    map[string]string // jti -> SET
	acked      []string
	failed     map[string]string // jti -> err
	polls      []M
	pollFault  func(w http.ResponseWriter) bool // true: it has answered
	batch      int                              // SETs in an answer at most; zero: maxEvents
	longPoll   bool
	arrived    chan struct{} // closed and replaced when a SET is queued
	auth       []string      // Authorization of API requests
	n          int
}

// newKey returns a key that no other transmitter of this process has.
func newKey(t testing.TB, alg string) *jose.PrivateKey {
	key, err := jose.GenerateKey(alg, "")
	require.NoError(t, err)
	return key
}

// prepareTransmitter returns a transmitter that does not listen yet.
func prepareTransmitter(t testing.TB) *transmitter {
	tr := &transmitter{t: t, keys: []*jose.PrivateKey{newKey(t, "ES256")}, status: "enabled", pending: map[string]string{},
		failed: map[string]string{}, arrived: make(chan struct{}), metadata: M{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/ssf-configuration", tr.serveMetadata)
	mux.HandleFunc("GET /jwks", tr.serveKeys)
	mux.HandleFunc("/streams", tr.api(tr.serveStreams))
	mux.HandleFunc("GET /status", tr.api(tr.serveStatus))
	mux.HandleFunc("POST /verify", tr.api(tr.serveVerify))
	mux.HandleFunc("POST /poll", tr.api(tr.servePoll))
	tr.handler = mux
	return tr
}

// newTransmitter starts a transmitter on loopback.
func newTransmitter(t testing.TB) *transmitter {
	tr := prepareTransmitter(t)
	tr.server = httptest.NewServer(tr.handler)
	t.Cleanup(tr.server.Close)
	t.Cleanup(tr.server.CloseClientConnections)
	tr.URL = tr.server.URL
	return tr
}

// newTransmitterInMemory starts a transmitter whose connections are in memory, so that it runs in virtual time. It must be closed.
func newTransmitterInMemory(t testing.TB) *transmitter {
	tr := prepareTransmitter(t)
	tr.URL = "http://127.0.0.1:1"
	tr.listener = &memoryListener{conns: make(chan net.Conn), done: make(chan struct{})}
	server := &http.Server{Handler: tr.handler}
	tr.client = &http.Client{Transport: &http.Transport{DialContext: tr.listener.dial, DisableKeepAlives: true}}
	go func() { _ = server.Serve(tr.listener) }()
	tr.close = func() { _ = server.Close() }
	return tr
}

// A memoryListener accepts connections in memory.
type memoryListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *memoryListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *memoryListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (tr *transmitter) with(f func()) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	f()
}

func (tr *transmitter) serveMetadata(w http.ResponseWriter, _ *http.Request) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	m := M{"issuer": tr.URL, "spec_version": "1_0", "jwks_uri": tr.URL + "/jwks", "configuration_endpoint": tr.URL + "/streams",
		"status_endpoint": tr.URL + "/status", "verification_endpoint": tr.URL + "/verify"}
	maps.Copy(m, tr.metadata)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	reply(w, 200, m)
}

func (tr *transmitter) serveKeys(w http.ResponseWriter, _ *http.Request) {
	tr.mu.Lock()
	wait := tr.jwksWait
	tr.mu.Unlock()
	time.Sleep(wait)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.jwksHits++
	if tr.jwksDown {
		w.WriteHeader(503)
		return
	}
	all := []json.RawMessage{}
	for _, k := range tr.keys {
		all = append(all, k.PublicJWK())
	}
	reply(w, 200, M{"keys": all})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (tr *transmitter) api(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		tr.with(func() { tr.auth = append(tr.auth, r.Header.Get("Authorization")) })
		if r.Header.Get("Authorization") != "Bearer "+apiToken {
			w.WriteHeader(401)
			return
		}
		h(w, r)
	}
}

func body(r *http.Request) (m M) {
	data, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(data, &m)
	return m
}

func (tr *transmitter) serveStreams(w http.ResponseWriter, r *http.Request) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.queries = append(tr.queries, r.Method+" "+r.URL.RawQuery)
	if tr.apiFault != nil && tr.apiFault(w, r) {
		return
	}
	switch r.Method {
	case "GET":
		assert.Zero(tr.t, r.ContentLength, "a GET has no body")
		if id := r.URL.Query().Get("stream_id"); id != "" {
			for _, s := range tr.streams {
				if s["stream_id"] == id {
					reply(w, 200, s)
					return
				}
			}
			w.WriteHeader(404)
			return
		}
		if tr.streams == nil {
			reply(w, 200, []M{})
			return
		}
		if tr.single {
			reply(w, 200, tr.streams[0])
			return
		}
		reply(w, 200, tr.streams)
	case "POST":
		create := body(r)
		tr.creates = append(tr.creates, create)
		if tr.noCreate != 0 {
			tr.streams = append(tr.streams, tr.late...)
			w.WriteHeader(tr.noCreate)
			return
		}
		tr.n++
		s := tr.stream(fmt.Sprint("stream-", tr.n), create["delivery"].(M), create["events_requested"])
		if tr.change != nil {
			tr.change(s)
		}
		tr.streams = append(tr.streams, s)
		reply(w, 201, s)
	default:
		tr.patches = append(tr.patches, r.Method)
		w.WriteHeader(405)
	}
}

// stream returns a configuration.
func (tr *transmitter) stream(id string, delivery M, events any) M {
	d := maps.Clone(delivery)
	if d["method"] == "urn:ietf:rfc:8936" {
		d["endpoint_url"] = tr.URL + "/poll"
	}
	return M{"stream_id": id, "iss": tr.URL, "aud": audience, "delivery": d, "events_requested": events, "events_delivered": events,
		"events_supported": events}
}

func (tr *transmitter) serveStatus(w http.ResponseWriter, r *http.Request) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.statusHit++
	id := r.URL.Query().Get("stream_id")
	if !slices.ContainsFunc(tr.streams, func(s M) bool { return s["stream_id"] == id }) {
		w.WriteHeader(404)
		return
	}
	reply(w, 200, M{"stream_id": r.URL.Query().Get("stream_id"), "status": tr.status})
}

func (tr *transmitter) serveVerify(w http.ResponseWriter, r *http.Request) {
	m := body(r)
	tr.mu.Lock()
	tr.verifies = append(tr.verifies, m)
	then := tr.onVerify
	tr.mu.Unlock()
	if then != nil {
		w.WriteHeader(then(m))
		return
	}
	w.WriteHeader(204)
}

func (tr *transmitter) servePoll(w http.ResponseWriter, r *http.Request) {
	req := body(r)
	tr.mu.Lock()
	tr.polls = append(tr.polls, req)
	if tr.pollStatus != 0 {
		w.WriteHeader(tr.pollStatus)
		tr.mu.Unlock()
		return
	}
	if tr.pollFault != nil && tr.pollFault(w) {
		tr.mu.Unlock()
		return
	}
	acks, _ := req["ack"].([]any)
	for _, jti := range acks {
		tr.acked = append(tr.acked, jti.(string))
		delete(tr.pending, jti.(string))
	}
	errs, _ := req["setErrs"].(M)
	for jti, e := range errs {
		tr.failed[jti] = e.(M)["err"].(string)
		delete(tr.pending, jti)
	}
	tr.queue = slices.DeleteFunc(tr.queue, func(jti string) bool { return tr.pending[jti] == "" })
	limit := int(req["maxEvents"].(float64))
	if tr.batch > 0 {
		limit = min(limit, tr.batch)
	}
	if immediate, _ := req["returnImmediately"].(bool); tr.longPoll && !immediate && len(tr.queue) == 0 {
		arrived := tr.arrived
		tr.mu.Unlock()
		select {
		case <-arrived:
		case <-r.Context().Done():
			return
		}
		tr.mu.Lock()
	}
	sets := M{}
	for _, jti := range tr.queue[:min(limit, len(tr.queue))] {
		sets[jti] = tr.pending[jti]
	}
	answer := M{"sets": sets}
	if len(tr.queue) > len(sets) {
		answer["moreAvailable"] = true
	}
	tr.mu.Unlock()
	reply(w, 200, answer)
}

// enqueue queues SETs for poll.
func (tr *transmitter) enqueue(jti, raw string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.queue, tr.pending[jti] = append(tr.queue, jti), raw
	close(tr.arrived)
	tr.arrived = make(chan struct{})
}

// A change changes a SET before it is signed.
type change func(header, claims M)

func claim(name string, v any) change {
	return func(_, claims M) { claims[name] = v }
}

func header(name string, v any) change {
	return func(header, _ M) { header[name] = v }
}

func with(key *jose.PrivateKey) change {
	return func(header, _ M) { header["\x00key"] = key }
}

// event sets the only event.
func event(e signals.Event, payload M) change {
	return claim("events", M{string(e): payload})
}

// user is the subject of a user of an issuer.
func user(issuer, sub string) M { return M{"format": "iss_sub", "iss": issuer, "sub": sub} }

func opaque(id string) M { return M{"format": "opaque", "id": id} }

func session(user any, sid string) M {
	return M{"format": "complex", "user": user, "session": opaque(sid)}
}

// set returns a SET that disables alice, with changes. A nil claim is left out.
func (tr *transmitter) set(changes ...change) string {
	tr.t.Helper()
	tr.mu.Lock()
	tr.n++
	key := tr.keys[0]
	claims := M{"iss": tr.URL, "aud": audience, "iat": time.Now().Unix(), "jti": fmt.Sprint("set-", tr.n), "txn": "t",
		"sub_id": user(tr.URL, "alice"), "events": M{string(signals.AccountDisabled): M{}}}
	tr.mu.Unlock()
	head := M{"typ": "secevent+jwt"}
	for _, c := range changes {
		c(head, claims)
	}
	if k, is := head["\x00key"].(*jose.PrivateKey); is {
		key = k
		delete(head, "\x00key")
	}
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	text, err := json.Marshal(claims)
	require.NoError(tr.t, err)
	if raw, is := claims["\x00raw"].(string); is {
		text = []byte(raw)
	}
	signed, err := key.Sign(head, text)
	require.NoError(tr.t, err)
	return signed
}

// config returns the configuration of a receiver of an unmanaged push stream.
func (tr *transmitter) config(changes ...func(*signals.Config)) signals.Config {
	cfg := signals.Config{Transmitter: tr.URL, Delivery: signals.Push, Stream: signals.Stream{Unmanaged: true}, Audience: []string{audience},
		Client: tr.client, Logger: slog.New(slog.DiscardHandler)}
	for _, c := range changes {
		c(&cfg)
	}
	return cfg
}

// managed makes the stream a managed one.
func managed(d signals.Delivery) func(*signals.Config) {
	return func(cfg *signals.Config) {
		cfg.Delivery, cfg.Stream.Unmanaged, cfg.Audience = d, false, nil
		cfg.Credentials = signals.BearerToken(apiTokenOf)
		if d == signals.Push {
			cfg.Endpoint, cfg.AuthorizationHeader = endpoint, secret
		}
	}
}

// apiTokenOf returns the access token of the API.
func apiTokenOf(context.Context) (string, error) { return apiToken, nil }

func newReceiver(t testing.TB, cfg signals.Config) *signals.Receiver {
	t.Helper()
	r, err := signals.New(cfg)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// run calls Run until the test ends, or stop is called.
func run(t testing.TB, r *signals.Receiver) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				assert.Error(t, err)
			case <-time.After(soon):
				t.Error("Run does not end")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// A sink records revocations.
type sink struct {
	mu  sync.Mutex
	all []valetkey.Revocation
	n   int // calls
	err error
}

func (s *sink) Revoke(rs ...valetkey.Revocation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all, s.n = append(s.all, rs...), s.n+1
	return s.err
}

func (s *sink) Publish(_ context.Context, r valetkey.Revocation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.all = append(s.all, r)
	}
	s.n++
	return s.err
}

func (s *sink) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// what returns what the revocations select, in order.
func (s *sink) what() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []string{}
	for _, r := range s.all {
		all = append(all, what(r))
	}
	return all
}

func (s *sink) last() valetkey.Revocation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[len(s.all)-1]
}

func what(r valetkey.Revocation) string {
	switch {
	case r.ID != "":
		return "jti " + r.ID
	case r.Subject != "":
		return "sub " + r.Subject
	case r.SessionID != "":
		return "sid " + r.SessionID
	case r.ClientID != "":
		return "client " + r.ClientID
	case r.All:
		return "all"
	}
	return "nothing"
}

// push pushes a SET to a receiver and returns the response.
func push(r *signals.Receiver, raw string, changes ...func(*http.Request)) *httptest.ResponseRecorder {
	req := httptest.NewRequest("POST", "/events", strings.NewReader(raw))
	req.Header.Set("Content-Type", "application/secevent+jwt")
	for _, c := range changes {
		c(req)
	}
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, req)
	return w
}

// errOf returns err in the body of a response.
func errOf(t testing.TB, w *httptest.ResponseRecorder) string {
	t.Helper()
	var m map[string]string
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &m), w.Body.String())
	assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
	assert.Equal(t, "en", w.Header().Get("Content-Language"))
	assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	assert.Empty(t, w.Header().Get("Retry-After"))
	assert.NotEmpty(t, m["description"])
	return m["err"]
}

// descriptionOf returns description in the body of a response.
func descriptionOf(t testing.TB, w *httptest.ResponseRecorder) string {
	t.Helper()
	var m map[string]string
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &m), w.Body.String())
	return m["description"]
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, soon, 5*time.Millisecond, what)
}

// An api is a guard with a handler, for tokens of an issuer.
type api struct {
	t     testing.TB
	iss   *valetkeytest.Issuer
	guard *middleware.Guard
	h     http.Handler
}

func newAPI(t testing.TB, changes ...func(*middleware.Config)) *api {
	iss := valetkeytest.NewIssuer(t)
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client()})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	cfg := middleware.Config{Verifier: keys, Logger: slog.New(slog.DiscardHandler)}
	for _, c := range changes {
		c(&cfg)
	}
	guard, err := middleware.New(cfg)
	require.NoError(t, err)
	a := &api{t: t, iss: iss, guard: guard}
	a.h = guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) }), valetkey.AnyToken)
	return a
}

// token returns one that was issued a minute ago.
func (a *api) token(sub, sid string, opts ...valetkeytest.Option) string {
	opts = append([]valetkeytest.Option{valetkeytest.Claim("sub", sub), valetkeytest.Claim("sid", sid),
		valetkeytest.Claim("iat", time.Now().Add(-time.Minute).Unix())}, opts...)
	return a.iss.Token(opts...)
}

// get returns the status of a request with a token.
func (a *api) get(token string) int {
	w := httptest.NewRecorder()
	a.h.ServeHTTP(w, valetkeytest.Request("GET", "/", token))
	return w.Code
}

// of makes the issuer of a the one whose tokens a receiver revokes.
func (a *api) of(cfg *signals.Config) {
	cfg.Issuer, cfg.Guards = a.iss.URL, []signals.Guard{a.guard}
}

// A logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) log(cfg *signals.Config) { cfg.Logger = slog.New(slog.NewTextHandler(l, nil)) }

// subject returns the options of a token that is issued now.
func subject(sub string) []valetkeytest.Option {
	return []valetkeytest.Option{valetkeytest.Claim("sub", sub)}
}

// decode decodes a part of a token.
func decode(t testing.TB, part string) string {
	text, err := base64.RawURLEncoding.DecodeString(part)
	require.NoError(t, err)
	return string(text)
}

// source makes a guard watch r.
func source(r *signals.Receiver) func(*middleware.Config) {
	return func(cfg *middleware.Config) { cfg.Revocations.Source = r }
}
