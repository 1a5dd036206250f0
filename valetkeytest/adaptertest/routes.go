package adaptertest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// adapterGuards are the guards of the routes, shared by the adapter and plain net/http.
type adapterGuards struct {
	plain  *middleware.Guard // with a common configuration
	full   *middleware.Guard // with every option that changes requests and responses
	ending *middleware.Guard // ends each request a moment after it began
	other  *middleware.Guard // reads the token from a header that replaces Authorization, or from a subprotocol
	bound  *middleware.Guard // accepts tokens bound to a key or a certificate, behind a proxy on this host

	// The nonces of bound: the one that it hands out, and the one before.
	nonce, olderNonce string

	verified atomic.Int64 // tokens that were verified; none is cached
}

// outage is a token whose verification fails because the issuer is not available.
const outage = "outage"

func newAdapterGuards(t testing.TB, iss *valetkeytest.Issuer, noForwarded bool) *adapterGuards {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	keys, err := jwks.New(jwks.Config{
		Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Now: iss.Now, Logger: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(keys.Close)
	if err := keys.Ready(t.Context()); err != nil { // a request would wait for 2 s only
		t.Fatal(err)
	}

	gs := new(adapterGuards)
	guard := func(cfg middleware.Config) *middleware.Guard {
		cfg.Cache.Entries, cfg.Logger = -1, quiet
		g, err := middleware.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	verify := valetkey.VerifierFunc(func(ctx context.Context, raw string) (*valetkey.Token, error) {
		gs.verified.Add(1)
		if raw == outage {
			return nil, &valetkey.Unavailable{RetryAfter: 7 * time.Second, Err: errors.New("the issuer is out of reach")}
		}
		return keys.Verify(ctx, raw)
	})
	const nonceEvery = 2 * time.Minute
	nonces, err := dpop.NewNonces(dpop.NoncesConfig{Every: nonceEvery})
	if err != nil {
		t.Fatal(err)
	}
	start := iss.Now()
	gs.plain = guard(middleware.Config{Verifier: verify, Now: iss.Now})
	gs.full = guard(middleware.Config{
		Verifier: verify, Now: iss.Now, Preflight: http.HandlerFunc(preflight), ErrorBody: middleware.ProblemJSON, Realm: "orders",
		ErrorURI: "https://api.example.com/errors", Methods: []middleware.BearerMethod{
			middleware.Form(1000), middleware.Query(), middleware.Cookie("session", http.NewCrossOriginProtection()),
		},
	})
	gs.other = guard(middleware.Config{Verifier: verify, Now: iss.Now, Methods: []middleware.BearerMethod{
		middleware.HeaderToken("Cf-Access-Jwt-Assertion"), middleware.WebSocketProtocolPair("access_token"),
		middleware.WebSocketProtocolBase64URL(middleware.KubernetesProtocol),
	}})
	gs.ending = guard(middleware.Config{
		Verifier: valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{Subject: valetkeytest.DefaultSubject, Expiry: start.Add(time.Millisecond)}), nil
		}),
		CancelWithToken: true,
		Now:             func() time.Time { return start },
	})
	proofs := func(now time.Time) *dpop.Verifier {
		v, err := dpop.New(dpop.Config{
			Nonces: nonces, Now: func() time.Time { return now }, ReplayStore: dpop.InsecureAllowReplays{}, // each request goes to two servers
		})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	gs.nonce, gs.olderNonce = proofs(start).Nonce(), proofs(start.Add(-nonceEvery)).Nonce()
	bound := middleware.Config{
		Verifier: verify, Now: iss.Now, DPoP: proofs(start), ClientCertificate: middleware.ClientCertHeader(), ExposeChallenge: true,
		Proxies: middleware.Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Forwarded: middleware.XForwarded},
	}
	if noForwarded {
		bound.Proxies, bound.ClientCertificate = middleware.Proxies{}, middleware.TLSCertificate()
		bound.Resource.ID = "https://api.example.com"
	}
	gs.bound = guard(bound)
	return gs
}

// An adapterServer is a server with the routes of the test, either the adapter's or one of plain net/http.
type adapterServer struct {
	url   string
	calls atomic.Int64  // of all handlers
	read  chan struct{} // receives a value once the client has read the first part of a stream
	gone  chan struct{} // receives a value once a handler has learned that its client has disconnected
}

func newAdapterServer(t testing.TB, gs *adapterGuards, serve func(testing.TB, []Route) string, parameter func(string) string) *adapterServer {
	t.Helper()
	if parameter == nil {
		parameter = braces
	}
	s := &adapterServer{read: make(chan struct{}, 1), gone: make(chan struct{}, 1)}
	behind := func(needs ...valetkey.Requirement) [][]valetkey.Requirement { return [][]valetkey.Requirement{needs} }
	readOrders := scopes.All("orders:read")
	kept := behind(readOrders)
	s.url = serve(t, []Route{
		{Path: "/any", Guard: gs.plain, Require: behind(), Handler: s.counted(hello)},
		{Path: "/read", Guard: gs.plain, Require: behind(readOrders), Handler: s.counted(hello)},
		{Path: "/write", Guard: gs.plain, Require: behind(scopes.All("orders:write")), Handler: s.counted(hello)},
		{Path: "/two", Guard: gs.plain, Require: behind(readOrders, scopes.All("orders:write")), Handler: s.counted(hello)},
		{Path: "/tenants/" + parameter("tenant"), Guard: gs.plain, Require: behind(ownTenant), Handler: s.counted(hello)},
		{Path: "/kept", Guard: gs.plain, Require: kept, Handler: s.counted(hello)},
		{Path: "/group", Guard: gs.plain, Require: append(behind(), behind(readOrders)...), Handler: s.counted(hello)},
		{Path: "/optional", Guard: gs.plain, Require: behind(valetkey.Optional), Handler: s.counted(hello)},
		{Path: "/optional/inner", Guard: gs.plain, Outer: gs.full, Require: behind(valetkey.Optional), Handler: s.counted(hello)},
		{Path: "/full", Guard: gs.full, Require: behind(readOrders), Handler: s.counted(hello)},
		{Path: "/full/optional", Guard: gs.full, Require: behind(valetkey.Optional), Handler: s.counted(hello)},
		{Path: "/other", Guard: gs.other, Require: behind(readOrders), Handler: s.counted(hello)},
		{Path: "/other/optional", Guard: gs.other, Require: behind(valetkey.Optional), Handler: s.counted(hello)},
		{Path: "/bound", Guard: gs.bound, Require: behind(readOrders), Handler: s.counted(hello)},
		{Path: "/bound/group", Guard: gs.bound, Require: append(behind(), behind(readOrders)...), Handler: s.counted(hello)},
		{Path: "/bound/optional", Guard: gs.bound, Require: behind(valetkey.Optional), Handler: s.counted(hello)},
		{Path: "/ending", Guard: gs.ending, Require: behind(), Handler: s.counted(ending)},
		{Path: "/panic", Guard: gs.plain, Require: behind(), Handler: s.counted(func(http.ResponseWriter, *http.Request) { panic("boom") })},
		{Path: "/stream", Guard: gs.plain, Require: behind(), Handler: s.counted(s.stream)},
		{Path: "/wait", Guard: gs.plain, Require: behind(), Handler: s.counted(s.wait)},
		{Path: "/upgrade", Guard: gs.plain, Require: behind(), Handler: s.counted(upgrade)},
	})
	kept[0][0] = scopes.Requirement{} // the adapter has a copy
	return s
}

func (s *adapterServer) counted(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		h(w, r)
	})
}

// hello responds with the token in the context and the body that is left for the handler.
func hello(w http.ResponseWriter, r *http.Request) {
	who := "nobody"
	if token := valetkey.FromContext(r.Context()); token != nil {
		who = token.Subject() + " with " + token.Scopes().String()
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "hello %s%s", who, body)
}

// preflight answers a CORS preflight and leaves sending the header to the server.
func preflight(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
	w.Header().Set("Content-Type", "text/plain")
}

const (
	// patience bounds every wait for something that happens immediately unless there is a fault.
	patience = 5 * time.Second

	// limit bounds an exchange with a server, which also takes long on a busy machine. Waits within it are bounded by patience.
	limit = time.Minute
)

// ending waits for the end of the request's context.
func ending(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	if valetkey.FromContext(r.Context()) == nil {
		io.WriteString(w, "the context holds no token")
		return
	}
	select {
	case <-r.Context().Done():
		fmt.Fprintf(w, "ended: %v", context.Cause(r.Context()))
	case <-time.After(patience):
		io.WriteString(w, "the context goes on")
	}
}

// stream sends a part, and the rest once the client has read it.
func (s *adapterServer) stream(w http.ResponseWriter, _ *http.Request) {
	io.WriteString(w, "first\n")
	if err := http.NewResponseController(w).Flush(); err != nil {
		io.WriteString(w, "flush: "+err.Error())
		return
	}
	select {
	case <-s.read:
		io.WriteString(w, "second\n")
	case <-time.After(patience):
	}
}

// wait sends its header and waits until the client disconnects.
func (s *adapterServer) wait(w http.ResponseWriter, r *http.Request) {
	if err := http.NewResponseController(w).Flush(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	select {
	case <-r.Context().Done():
		s.gone <- struct{}{}
	case <-time.After(patience):
	}
}

// upgrade takes over the connection and returns the line that it receives.
func upgrade(w http.ResponseWriter, _ *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit))
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: line\r\n\r\n")
	if line, err := bufio.NewReader(rw).ReadString('\n'); err == nil {
		io.WriteString(conn, "back: "+line)
	}
}

func braces(name string) string { return "{" + name + "}" }

// ownTenant accepts one tenant, by the path.
var ownTenant = valetkey.RequirementFunc(func(a valetkey.Access) error {
	if a.PathValue("tenant") != "own" {
		return &valetkey.Error{Code: valetkey.InsufficientScope, Reason: reasonTenant}
	}
	return nil
})

var reasonTenant = valetkey.NewReason("adaptertest_tenant", "the token is for another tenant")

// serveHTTP is the Serve of net/http, with which all others are compared.
func serveHTTP(t testing.TB, routes []Route) string {
	mux := http.NewServeMux()
	for _, route := range routes {
		h := route.Handler
		for i := len(route.Require) - 1; i >= 0; i-- {
			h = route.Guard.Handler(h, route.Require[i]...)
		}
		if route.Outer != nil {
			h = route.Outer.Handler(h)
		}
		mux.Handle(route.Path, h)
	}
	server := httptest.NewServer(recovered(mux))
	t.Cleanup(server.Close)
	return server.URL
}

// recovered is the equivalent of a framework's recovery from panics.
func recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}
