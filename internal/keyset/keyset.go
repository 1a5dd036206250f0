// Package keyset holds the keys of one issuer, which rotate.
//
// A [Set] is an immutable snapshot behind an atomic pointer. Who verifies a token reads it: no lock, no clock, no wait.
// Timers do the rest: they refresh the snapshot ahead of its age, retry with backoff when the issuer does not answer, and
// give the keys up when they have become too old. A well-formed set with keys withdraws the held keys that it does not contain
// as usable, even if that leaves none; an empty or malformed one is an outage, and changes nothing. Only a token whose key is missing asks for a fetch itself, as often as
// the cooldown allows, and waits for it only as long as [maxWait].
package keyset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
)

const (
	maxWait       = 2 * time.Second   // of one request, for a fetch
	maxWaiters    = 1024              // requests that wait at the same time; others are answered from what is held
	maxFetch      = 4 * fetch.Timeout // of one fetch: three places of metadata and the key set
	minFresh      = time.Minute       // however little an issuer's Cache-Control says
	maxFresh      = 24 * time.Hour    // however much
	maxStale      = 24 * time.Hour
	firstRetry    = time.Second // after a failure, doubling
	lastRetry     = time.Minute // up to this
	maxRetryAfter = 5 * time.Minute
	rediscover    = 3 // failures in a row after which a discovered URL is looked up again
)

// The defaults of [Config].
const (
	DefaultFresh      = 10 * time.Minute
	DefaultCooldown   = 30 * time.Second
	DefaultStaleLimit = time.Hour
)

// Config says whose keys a [Set] holds and where they come from.
type Config struct {
	// Issuer is whose metadata names the URL, if URL is empty.
	Issuer string

	// URL is that of the key set. Empty: it is discovered, and discovered again after repeated failures.
	URL string

	// Fetch carries the requests.
	Fetch fetch.Client

	// Fresh is the age at which a key set should have been fetched again, which happens ahead, after 1/2 to 4/5 of it. It
	// counts where the issuer sends no Cache-Control; that is honoured from 1 min to 24 h. Zero: 10 min.
	Fresh time.Duration

	// Cooldown is the time after which tokens with unknown keys may cause another fetch, with one to spare for a key that
	// rotates twice. Zero: 30 s.
	Cooldown time.Duration

	// StaleLimit is how long keys are used past Fresh while the issuer does not answer, 24 h at most. Zero: 1 h; negative:
	// not at all.
	StaleLimit time.Duration

	// Logger gets refreshes that fail (Warn), keys given up (Error), and dropped keys (Warn). Nil: slog.Default().
	Logger *slog.Logger

	// Observer is told of each fetch, once it has ended: [valetkey.KeySetRefreshed]. Nil: nobody is.
	Observer valetkey.Observer
}

// Refusals of [Set.Verify].
var (
	ErrUnknownKey = errors.New("the issuer has no key that fits")
	ErrAmbiguous  = fmt.Errorf("more than %d keys fit, and none is tried", maxTries)
)

// A Set is the key set of one issuer. It is safe for concurrent use and must be closed.
type Set struct {
	cfg     Config
	static  bool
	current atomic.Pointer[snapshot] // nil: none held
	waiting atomic.Int64

	ctx      context.Context // of fetches; ends with Close
	cancel   context.CancelFunc
	fetching sync.WaitGroup

	mu       sync.Mutex    // guards what follows; never held during I/O
	flight   chan struct{} // closed when the fetch in progress has ended; nil: none is
	closed   bool
	url      string // of the key set; "" until discovered
	failures int    // in a row
	begun    time.Time
	lastErr  error
	due      time.Time // of the next fetch
	refresh  *time.Timer
	expiry   *time.Timer
	credit   time.Time       // see allowed
	warned   map[string]bool // dropped keys of the last answer
	health   valetkey.Health // but for what time alone changes, see healthLocked
}

// New returns the key set of an issuer. It does no I/O and starts nothing: the first Verify or Ready does. The error
// names every mistake in cfg.
func New(cfg Config) (*Set, error) {
	var mistakes []error
	mistake := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	if cfg.URL != "" {
		if err := cfg.Fetch.Allowed(cfg.URL); err != nil {
			mistake("URL: %w", err)
		}
	} else if err := cfg.Fetch.Discoverable(cfg.Issuer); err != nil {
		mistake("Issuer: discovery needs a URL: %w", err)
	}
	if cfg.Fresh < 0 || cfg.Fresh > maxFresh {
		mistake("Fresh: %v is not between 0 and %v", cfg.Fresh, maxFresh)
	}
	if cfg.Cooldown < 0 {
		mistake("Cooldown: %v is negative", cfg.Cooldown)
	}
	if cfg.StaleLimit > maxStale {
		mistake("StaleLimit: %v is more than %v", cfg.StaleLimit, maxStale)
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	if cfg.Fresh == 0 {
		cfg.Fresh = DefaultFresh
	}
	if cfg.Cooldown == 0 {
		cfg.Cooldown = DefaultCooldown
	}
	if cfg.StaleLimit == 0 {
		cfg.StaleLimit = DefaultStaleLimit
	}
	cfg.StaleLimit = max(0, cfg.StaleLimit)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	s := &Set{cfg: cfg, url: cfg.URL, health: valetkey.Health{Name: cfg.Issuer, State: valetkey.Down, Since: time.Now(), Err: errNotFetched}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Static returns a set of keys that never change.
func Static(keys ...*jose.Key) *Set {
	now := time.Now()
	s := &Set{static: true, cancel: func() {}, health: valetkey.Health{State: valetkey.Ready, Since: now}}
	s.current.Store(&snapshot{keys: adopt(nil, keys), at: now})
	return s
}

// Verify returns the key that c is signed with, looked up by kid and what fits the algorithm. If there is none, or if it
// is not signed with it, the key set may have rotated: Verify tries once more if a fetch that the cooldown allows, or
// that is in progress, brings other keys.
//
// The error is [ErrUnknownKey], [ErrAmbiguous] or [jose.ErrSignature], or [*valetkey.Unavailable] if no keys are held.
func (s *Set) Verify(ctx context.Context, c *jose.Compact) (*Key, error) {
	held := s.current.Load()
	tried := held.candidates(c.Header)
	key, err := try(tried, c)
	if err == nil || errors.Is(err, ErrAmbiguous) {
		return key, err
	}
	s.await(ctx, s.demand(held))
	if held = s.current.Load(); held == nil {
		return nil, s.unavailable()
	}
	if again := held.candidates(c.Header); !slices.Equal(again, tried) {
		return try(again, c)
	}
	return nil, err
}

// Ready returns nil if keys are held. If none are, it waits for the fetch in progress, or the first one, and returns why
// it brought none. Between failures it does not fetch but returns the last reason.
func (s *Set) Ready(ctx context.Context) error {
	if s.current.Load() != nil {
		return nil
	}
	if flight := s.demand(nil); flight != nil {
		select {
		case <-flight:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the key set: %w", context.Cause(ctx))
		}
	}
	if s.current.Load() != nil {
		return nil
	}
	return s.unavailable()
}

// Status is the state of a key set.
type Status struct {
	URL       string        // of the key set; "" if it is not yet discovered, or static
	Keys      int           // held; zero: tokens get 503
	Age       time.Duration // since the issuer last vouched for them
	Fresh     bool          // Age is within what Cache-Control or Config.Fresh says
	LastFetch time.Time     // when the last fetch began; zero: none has
	LastError error         // of the last fetch; nil: it was good
}

// Status returns the state of s.
func (s *Set) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := Status{URL: s.url, LastFetch: s.begun, LastError: s.lastErr}
	if held := s.current.Load(); held != nil {
		status.Keys = len(held.keys)
		status.Age = time.Since(held.at)
		status.Fresh = s.static || status.Age < held.lifetime
	}
	return status
}

// Close ends fetches and timers, waits for them, and withdraws all keys. It may be called more than once.
func (s *Set) Close() {
	s.mu.Lock()
	s.closed = true
	s.lastErr = errClosed
	stop(s.refresh)
	stop(s.expiry)
	s.comes(valetkey.Down, errClosed)
	s.publish(nil)
	s.mu.Unlock()
	s.cancel()
	s.fetching.Wait()
}

func stop(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}

// await returns when flight has ended, ctx is done, or too long has been waited; at once if there is no flight or too many
// wait already.
func (s *Set) await(ctx context.Context, flight <-chan struct{}) {
	if flight == nil {
		return
	}
	defer s.waiting.Add(-1)
	if s.waiting.Add(1) > maxWaiters {
		return
	}
	limit := time.NewTimer(maxWait)
	defer limit.Stop()
	select {
	case <-flight:
	case <-ctx.Done():
	case <-limit.C:
	}
}

// demand returns the fetch that might bring what is missing from held, beginning one if it may; nil: none does.
func (s *Set) demand(held *snapshot) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.static || s.closed || s.current.Load() != held: // other keys have come meanwhile
		return nil
	case s.flight != nil:
		return s.flight
	case s.failures > 0 || !s.allowed(): // after a failure the timer retries, and nobody else
		return nil
	}
	s.begin()
	return s.flight
}

// allowed reports whether a token may cause a fetch. Each fetch, of whatever cause, uses up one cooldown, and one may be
// used up in advance: credit is the time up to which all are.
func (s *Set) allowed() bool {
	return !time.Now().Before(s.credit.Add(-s.cfg.Cooldown))
}

// begin starts a fetch. It is detached from whoever asks for it.
func (s *Set) begin() {
	now := time.Now()
	s.begun = now
	if s.credit.Before(now) {
		s.credit = now
	}
	s.credit = earlier(s.credit.Add(s.cfg.Cooldown), now.Add(2*s.cfg.Cooldown))
	flight := make(chan struct{})
	s.flight = flight
	s.fetching.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, maxFetch)
		defer cancel()
		next, keys, err := s.fetch(ctx)
		s.land(next, keys, err)
		close(flight)
		s.observe(time.Since(now), next, err)
	})
}

// observe tells of a fetch that has ended, unless it was Close that ended it.
func (s *Set) observe(took time.Duration, next *snapshot, err error) {
	if s.cfg.Observer == nil || s.ctx.Err() != nil {
		return
	}
	status := http.StatusOK // there is an answer, even if it is of no use
	if e, ok := errors.AsType[*fetch.Error](err); ok {
		status = e.Status
	} else if err == nil {
		status = next.status
	}
	s.cfg.Observer.Observe(s.ctx, valetkey.Event{
		Kind: valetkey.KeySetRefreshed, Issuer: s.cfg.Issuer, Status: status, Duration: took, Err: err,
	})
}

// land takes the result of a fetch in.
func (s *Set) land(next *snapshot, keys []*jose.Key, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight = nil
	if s.closed {
		return
	}
	s.lastErr = err
	if err != nil {
		if errors.Is(err, ErrWithdrawn) {
			s.withdraw(err)
		}
		s.failed(err)
		return
	}
	s.failures = 0
	s.comes(valetkey.Ready, nil)
	next.keys = adopt(s.current.Load(), keys)
	s.publish(next)
	s.schedule(ahead(next.lifetime))
	stop(s.expiry)
	s.expiry = time.AfterFunc(time.Until(next.end(s.cfg.StaleLimit)), s.expire)
}

// withdraw ends all held keys: the issuer's set no longer contains them as usable.
func (s *Set) withdraw(err error) {
	held := s.current.Load()
	if held == nil {
		return
	}
	s.comes(valetkey.Down, err)
	s.publish(nil)
	stop(s.expiry)
	s.cfg.Logger.Error("key set: the issuer has withdrawn all keys", "issuer", s.cfg.Issuer, "keys", len(held.keys), "error", err)
}

// failed plans the next attempt. It changes no keys.
func (s *Set) failed(err error) {
	s.failures++
	if s.current.Load() != nil {
		s.comes(valetkey.Degraded, err)
	} else {
		s.comes(valetkey.Down, err)
	}
	wait := jitter(min(lastRetry, firstRetry<<min(s.failures-1, 10)))
	if e, ok := errors.AsType[*fetch.Error](err); ok {
		wait = max(wait, min(e.RetryAfter, maxRetryAfter))
	}
	s.schedule(wait)
	if s.cfg.URL == "" && s.failures%rediscover == 0 {
		s.url = ""
	}
	s.cfg.Logger.Warn("key set: the refresh did not succeed", "issuer", s.cfg.Issuer, "retry_in", wait, "error", err)
}

// publish replaces the keys, and withdraws those that next does not have.
func (s *Set) publish(next *snapshot) {
	old := s.current.Swap(next)
	if old == nil {
		return
	}
	for _, key := range old.keys {
		if next == nil || !slices.Contains(next.keys, key) {
			key.withdrawn.Store(true)
		}
	}
}

// schedule sets the time of the next fetch. Timers and ages are of the monotonic clock: they do not mind when the wall
// clock jumps.
func (s *Set) schedule(wait time.Duration) {
	stop(s.refresh)
	s.due = time.Now().Add(wait)
	s.refresh = time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed && s.flight == nil && !time.Now().Before(s.due) { // else it was stopped too late
			s.begin()
		}
	})
}

// expire gives keys up which the issuer has not vouched for in too long.
func (s *Set) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.current.Load()
	if held == nil || time.Now().Before(held.end(s.cfg.StaleLimit)) {
		return
	}
	s.comes(valetkey.Down, s.healthLocked().Err)
	s.publish(nil)
	s.cfg.Logger.Error("key set: the keys are too old and given up", "issuer", s.cfg.Issuer, "age", time.Since(held.at), "error", s.lastErr)
}

// unavailable says that no keys are held, why, and when there may be.
func (s *Set) unavailable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.lastErr
	if err == nil {
		err = errors.New("no answer yet")
	}
	return &valetkey.Unavailable{
		RetryAfter: max(time.Second, time.Until(s.due)),
		Err:        fmt.Errorf("no keys of the issuer: %w", err),
	}
}

// ahead returns when a set that is fresh for so long is fetched again. It is spread wide: a rotation makes all who serve
// the issuer's tokens fetch at once, and they should not go on in step.
func ahead(lifetime time.Duration) time.Duration {
	return lifetime/2 + rand.N(lifetime*3/10+1)
}

// jitter takes up to a tenth away, so that many who started together do not fetch together.
func jitter(d time.Duration) time.Duration {
	return d - rand.N(d/10+1)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
