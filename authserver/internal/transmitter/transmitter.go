// Package transmitter notifies other parties that access has ended: over streams of security event tokens (OpenID Shared Signals
// Framework 1.0, CAEP 1.0, RISC 1.0, RFC 8417, RFC 8935, RFC 8936), by back-channel logout (OpenID Connect Back-Channel Logout 1.0),
// and accepts such notices by global token revocation (draft-parecki-oauth-global-token-revocation).
//
// An event passes these steps, each of which survives the process:
//
//   - [Transmitter.Record] keeps the event before its cause, and releases it after the cause (outbox.go).
//   - The event becomes one security event token per stream that wants it, in the queue of that stream (queue.go).
//   - The token is delivered, at least once and in the order of its subject: by push (push.go), or by poll (poll.go).
//   - What cannot be delivered is kept among the dead letters of the stream.
package transmitter

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/internal/keys"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/middleware"
)

// The scopes of the transmitter's API.
const (
	ScopeRead   = "ssf.read"                // read streams, fetch their events, request verification
	ScopeManage = "ssf.manage"              // also create, change and delete streams
	ScopeRevoke = "global_token_revocation" // end everything that a user has
)

// Algorithm is the algorithm of the transmitter's signatures, which the CAEP Interoperability Profile 1.0, section 2.6 requires.
const Algorithm = "RS256"

// Resource returns the audience of access tokens for the transmitter's API. base is the issuer without a slash at its end.
func Resource(base string) string { return base + "/ssf" }

// Config configures a [Transmitter]. Unless stated otherwise, fields are required.
type Config struct {
	_ struct{} // keyed literals only

	Issuer string // the iss of security event tokens, and of the users in them
	Base   string // prefix of the URLs of endpoints: the issuer without a slash at its end
	JWKS   string // URL of the key set

	Store   store.Store // kinds that begin with ssf_ and set_
	Keys    *keys.Ring  // with a key for Algorithm
	Clients *clients.Registry
	Engine  Engine

	// Account returns the account of a user by subject. RevokeUser ends everything that a user has, and returns the number of
	// sessions and grants. Its error wraps store.ErrNotFound for a subject that is not that of a user.
	Account    func(ctx context.Context, subject string) (*login.Account, error)
	RevokeUser func(ctx context.Context, subject string) (n int, err error)

	// SubjectTypes maps trusted issuers to the type of the subjects of their users: the user sub of the issuer is type:sub here.
	SubjectTypes map[string]string

	// Allow lists the networks in which receivers and approved clients may be, in addition to public addresses. InsecureLoopback also allows receivers
	// on loopback, and http there. May be empty.
	Allow            []netip.Prefix
	InsecureLoopback bool

	// Limits. Zero: the defaults.
	MaxWaiting int           // events in the queue of a stream; 100,000
	Settle     time.Duration // how long the cause of an event may take; 30 s

	Audit  func(ctx context.Context, name string, attrs ...slog.Attr) // receives changes to streams
	Logger *slog.Logger                                               // receives failures
}

// Engine is the part of the engine that the transmitter uses.
type Engine interface {
	Claims(ctx context.Context, token string) (map[string]any, error)
	Sessions(ctx context.Context, subject string) ([]endings.Session, error)
}

// A Transmitter is safe for concurrent use. It starts no goroutines except those of [Transmitter.Run].
type Transmitter struct {
	cfg     Config
	guard   *middleware.Guard
	http    *http.Client   // to receivers and approved clients
	public  *http.Client   // to other clients: not to Config.Allow, which any developer could reach otherwise
	holder  string         // identifies this process in leases
	checks  *login.Limiter // of verification requests, by stream
	changes *login.Limiter // of changes to subjects, by stream
	budgets *login.Limiter // of events that are not bulk, by budget

	released chan struct{} // holds a value if this process has released an event
	pushes   chan struct{} // holds a value if queues have new events
	logouts  chan struct{} // holds a value if there are new logout tokens

	mu      sync.Mutex
	counts  map[string]*count       // by stream
	waiting map[string]*waiting     // long polls, by stream
	running map[string]*pushRunning // deliveries in progress, by stream or client

	sightings map[string]sighting // of the leases of other processes, by name
	life      context.Context     // of Run; nil: it has not begun
}

const (
	defaultMaxWaiting = 100_000
	defaultSettle     = 30 * time.Second

	// retention is how long an event is delivered. Access tokens live for at most 24 h, so every token that the event concerns has
	// expired by then.
	retention = 25 * time.Hour

	pushTimeout = 10 * time.Second
)

// New returns a Transmitter. It does no I/O.
func New(cfg Config) (*Transmitter, error) {
	if cfg.MaxWaiting == 0 {
		cfg.MaxWaiting = defaultMaxWaiting
	}
	if cfg.Settle == 0 {
		cfg.Settle = defaultSettle
	}
	t := &Transmitter{
		cfg: cfg, holder: rand.Text(), released: make(chan struct{}, 1), pushes: make(chan struct{}, 1), logouts: make(chan struct{}, 1),
		counts: map[string]*count{}, waiting: map[string]*waiting{}, running: map[string]*pushRunning{},
		sightings: map[string]sighting{},
	}
	var here []netip.Prefix
	if cfg.InsecureLoopback {
		here = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	to := func(allow []netip.Prefix) *http.Client {
		return &http.Client{
			Transport:     fetch.Guarded(nil, allow...),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the credentials are for the endpoint only
			Timeout:       pushTimeout,
		}
	}
	t.http, t.public = to(slices.Concat(cfg.Allow, here)), to(here)
	var errs [4]error
	t.checks, errs[0] = login.NewLimiter(login.Rate{Burst: 3, Every: minVerification}, 0)
	t.changes, errs[1] = login.NewLimiter(login.Rate{Burst: 1000, Every: 100 * time.Millisecond}, 0)
	guard := middleware.Config{Verifier: verifier{t}, Logger: cfg.Logger, Cache: middleware.Cache{Entries: -1}, Realm: "ssf"}
	if u, err := url.Parse(cfg.Base); err == nil && (u.Scheme == "https" || loopback(u.Hostname())) { // else RFC 9728 knows no resource
		guard.Resource = middleware.Resource{
			ID: Resource(cfg.Base), AuthorizationServers: []string{cfg.Issuer}, Scopes: []string{ScopeRead, ScopeManage, ScopeRevoke},
			Name: "Shared signals",
		}
	}
	t.guard, errs[2] = middleware.New(guard)
	t.budgets, errs[3] = login.NewLimiter(login.Rate{Burst: bulkBurst, Every: bulkEvery}, 0)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("transmitter: %w", err)
	}
	return t, nil
}

// Run delivers events until ctx ends. Requests that wait for events are then answered, so that they do not hold up a shutdown. It returns after all of its goroutines have stopped.
func (t *Transmitter) Run(ctx context.Context) {
	t.mu.Lock()
	t.life = ctx
	t.mu.Unlock()
	var all sync.WaitGroup
	all.Go(func() { t.spreadAll(ctx) })
	all.Go(func() { t.pushAll(ctx) })
	all.Go(func() { t.logOutAll(ctx) })
	all.Go(func() { t.retire(ctx) })
	all.Wait()
	t.http.CloseIdleConnections()
	t.public.CloseIdleConnections()
}

// wake leaves a value in a channel with room for one.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wait returns after d or when c has a value, and reports whether ctx goes on.
func wait(ctx context.Context, d time.Duration, c <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-c:
	}
	return ctx.Err() == nil
}

// failed logs a failure, unless the process is shutting down.
func (t *Transmitter) failed(ctx context.Context, what string, err error, attrs ...any) {
	if ctx.Err() == nil {
		t.cfg.Logger.ErrorContext(ctx, what, append(attrs, "error", err)...)
	}
}
