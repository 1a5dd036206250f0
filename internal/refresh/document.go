// Package refresh holds documents that are fetched ahead of need, such as key sets and status lists.
//
// A [Document] is an immutable snapshot behind an atomic pointer: reading it takes no lock, no clock and no wait. Timers fetch the
// next snapshot before the held one is too old, retry with backoff after an error, and discard a snapshot past its limit. All
// callers that wait share one fetch. It is detached from their contexts, and no lock is held while it runs.
package refresh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
)

const (
	// maxWaiters is the maximum number of callers that wait for one document. Anyone who sends tokens can cause waits. A
	// caller beyond the limit gets the held snapshot immediately, as it would if the fetch failed.
	maxWaiters           = 1024
	maxFetch             = 4 * fetch.Timeout // of one fetch: up to three metadata requests and the document
	firstRetry           = time.Second       // after a failure, doubling
	lastRetry            = time.Minute       // up to this
	probing              = time.Minute       // see Config.Probe
	defaultMaxWait       = 2 * time.Second
	defaultMaxRetryAfter = 5 * time.Minute
)

// The reasons for states that no fetch causes.
var (
	errNotFetched = errors.New("nothing has been fetched yet")
	errOverdue    = errors.New("the document is older than it should be, and no answer has come yet")
	errNoAnswer   = errors.New("no answer yet")
	errClosed     = errors.New("closed")
)

// A Result is what a successful fetch returns.
type Result[T any] struct {
	Value  *T            // the new snapshot, never nil; not modified afterwards
	Fresh  time.Duration // its lifetime from the start of the fetch
	Until  time.Time     // the instant at which it ends in any case; zero: none
	Status int           // of HTTP, for the Observer; zero: 200
}

// Config describes a document. Fetch, Name, Missing and Logger are required.
type Config[T any] struct {
	// Fetch returns a new snapshot. held is the current one, or nil. Calls never overlap. Each ends after 20 s, or with Close.
	Fetch func(ctx context.Context, held *T) (Result[T], error)

	// Initial is held from the start: its Value, if it is not nil, counts as fetched when [Document.Start] is first called. Fetch
	// receives it as held.
	Initial Result[T]

	// Replace runs under the document's lock just before next takes the place of held; either may be nil. Nil: nothing runs.
	Replace func(held, next *T)

	// Withdrawn is wrapped by the errors of Fetch that discard the held snapshot. Nil: none does.
	Withdrawn error

	// StaleIfError is how long a snapshot is used past its lifetime while fetches fail.
	StaleIfError time.Duration

	// MinRefetchInterval is the minimum average time between fetches that callers cause. Spare is how many fetches may exceed
	// it in advance.
	MinRefetchInterval time.Duration
	Spare              int

	// Allow reports whether a caller may cause a fetch that MinRefetchInterval allows. It limits several documents together. It runs
	// under the lock of the document. Nil: always.
	Allow func() bool

	// WhileUsed makes the timers fetch only a document that was used since its last fetch: see [Document.Use]. An unused snapshot is
	// set aside at the end of its lifetime: callers get it again, within StaleIfError, only once a fetch has failed.
	WhileUsed bool

	// MaxWait bounds the wait of one caller. Zero: 2 s.
	MaxWait time.Duration

	// MaxRetryAfter is the longest Retry-After that is honored. Zero: 5 min.
	MaxRetryAfter time.Duration

	// Probe is for documents whose absence must end soon after the outage that causes it: while none is held, pauses do not double. A fetch
	// is tried every second in the first minute of an outage, and then whenever another eighth of it has passed.
	Probe bool

	// Name is the kind of document in logs, such as "key set". Missing is the text of the error when no snapshot is held.
	Name, Missing string

	// Logger receives failed fetches (Warn) and snapshots that are withdrawn or too old while fetches fail (Error).
	Logger *slog.Logger

	// Observer receives Event, completed, after each fetch that Close did not end. Nil: no events.
	Observer valetkey.Observer
	Event    valetkey.Event
}

// A Document is safe for concurrent use and must be closed.
type Document[T any] struct {
	held   atomic.Pointer[T] // nil: none
	used   atomic.Bool       // since the last fetch
	usedAt atomic.Int64      // when used was last set: Unix nanoseconds
	cfg    Config[T]
	life   *life
	turn   uint64 // of its last use; guarded by the pool's lock

	waiting atomic.Int64
	pending atomic.Bool // Config.Initial is held, and Start has not been called

	mu                 sync.Mutex    // guards what follows; never held during I/O
	flight             chan struct{} // closed when the fetch in progress has ended; nil: none
	closed             bool
	failures           int       // in a row
	failing            time.Time // when the first of them ended
	aside              *T        // see Config.WhileUsed; nil unless none is held
	err                error     // of the last fetch
	begun              time.Time // the last fetch
	asked              time.Time // when a caller last called Renew or Ready for want of a snapshot
	start, fresh, end  time.Time // of the held snapshot: its fetch, its lifetime, its use while fetches fail
	due                time.Time // of the next fetch
	credit             time.Time // see demand
	refreshing, ending *time.Timer
	health             valetkey.Health // except for what time alone changes, see healthLocked
}

// A life is the lifetime of the fetches of one document or of a pool.
type life struct {
	ctx      context.Context
	cancel   context.CancelFunc
	fetching sync.WaitGroup
}

func newLife() *life {
	l := new(life)
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

func (l *life) end() {
	l.cancel()
	l.fetching.Wait()
}

// New returns a document. It starts nothing: the first Renew or Ready does.
func New[T any](cfg Config[T]) *Document[T] { return open(cfg, newLife()) }

func open[T any](cfg Config[T], life *life) *Document[T] {
	cfg.MaxWait = cmp.Or(cfg.MaxWait, defaultMaxWait)
	cfg.MaxRetryAfter = cmp.Or(cfg.MaxRetryAfter, defaultMaxRetryAfter)
	d := &Document[T]{
		cfg: cfg, life: life, health: valetkey.Health{State: valetkey.Down, Since: time.Now(), Err: errNotFetched},
	}
	if d.cfg.Initial.Value != nil {
		d.replace(d.cfg.Initial.Value)
		d.health = valetkey.Health{State: valetkey.Ready, Since: time.Now()}
		d.pending.Store(true)
	}
	return d
}

// Static returns a document that is never fetched. Only Close replaces value, after a call of replace.
func Static[T any](value *T, replace func(held, next *T)) *Document[T] {
	now := time.Now()
	d := &Document[T]{
		cfg: Config[T]{Replace: replace}, life: &life{cancel: func() {}}, start: now,
		health: valetkey.Health{State: valetkey.Ready, Since: now},
	}
	d.held.Store(value)
	return d
}

// Load returns the held snapshot, nil if there is none. It is one atomic load.
func (d *Document[T]) Load() *T { return d.held.Load() }

// Start begins the first fetch, without waiting for it, if Config.Initial has a Value and Start has not been called before. Otherwise
// it is one atomic load.
func (d *Document[T]) Start() {
	if !d.pending.Load() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.pending.CompareAndSwap(true, false) || d.closed {
		return
	}
	now := time.Now()
	d.start, d.fresh = now, now.Add(d.cfg.Initial.Fresh)
	d.end = d.fresh.Add(d.cfg.StaleIfError)
	d.begin(now)
	d.limit()
}

// Use marks the document as used since its last fetch. It avoids repeated writes, which would invalidate the cache lines of
// other cores.
func (d *Document[T]) Use() {
	if !d.used.Load() {
		d.used.Store(true)
		d.usedAt.Store(time.Now().UnixNano())
	}
}

// Renew returns the snapshot that is held after a fetch, if held is still the current one. It begins a fetch, unless one is in
// progress, MinRefetchInterval does not allow it or the backoff after a failure has not passed. It returns at the latest when ctx
// is done or MaxWait has passed; the fetch goes on.
func (d *Document[T]) Renew(ctx context.Context, held *T) *T {
	flight := d.demand(held)
	if flight == nil {
		return d.Load()
	}
	defer d.waiting.Add(-1)
	if d.waiting.Add(1) > maxWaiters {
		return d.Load()
	}
	limit := time.NewTimer(d.cfg.MaxWait)
	defer limit.Stop()
	select {
	case <-flight:
	case <-ctx.Done():
	case <-limit.C:
	}
	return d.Load()
}

// Ready returns nil if a snapshot is held. If none is, it waits for the fetch in progress or begins one, as Renew does, until that
// has ended or ctx is done.
func (d *Document[T]) Ready(ctx context.Context) error {
	if d.Load() != nil {
		return nil
	}
	if flight := d.demand(nil); flight != nil {
		select {
		case <-flight:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the %s: %w", d.cfg.Name, context.Cause(ctx))
		}
	}
	if d.Load() != nil {
		return nil
	}
	return d.Unavailable()
}

// Unavailable returns the [*valetkey.Unavailable] for a caller that found no snapshot: with the reason, and when to retry.
func (d *Document[T]) Unavailable() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &valetkey.Unavailable{
		RetryAfter: max(time.Second, time.Until(d.due)),
		Err:        fmt.Errorf("%s: %w", d.cfg.Missing, cmp.Or(d.err, errNoAnswer)),
	}
}

// Status is the state of a document.
type Status struct {
	Start  time.Time // of the fetch that brought the last snapshot
	Fresh  bool      // the snapshot is within its lifetime
	Begun  time.Time // the last fetch; zero: there was none
	Asked  time.Time // when a caller last needed a snapshot other than the held one; zero: never
	Err    error     // of the last fetch; nil: it succeeded
	Health valetkey.Health
}

// Status returns the state of d. It does no I/O. Health is ready if a snapshot is held and the last fetch succeeded; degraded if one
// is held and the last fetch failed or is overdue; down if none is held.
func (d *Document[T]) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Status{
		Start: d.start, Fresh: d.Load() != nil && (d.cfg.Fetch == nil || d.pending.Load() || time.Now().Before(d.fresh)),
		Begun: d.begun, Asked: d.asked, Err: d.err, Health: d.healthLocked(),
	}
}

func (d *Document[T]) healthLocked() valetkey.Health {
	h := d.health
	if d.cfg.Fetch != nil && h.State == valetkey.Ready && !d.pending.Load() && !time.Now().Before(d.fresh) {
		h.State, h.Since, h.Err = valetkey.Degraded, d.fresh, errOverdue
	}
	return h
}

// comes records the state that d enters, or remains in for another reason. It runs before the snapshot is replaced, since the
// current state depends on the snapshot.
func (d *Document[T]) comes(state valetkey.State, err error) {
	h := d.healthLocked()
	if h.State != state {
		h.Since = time.Now()
	}
	h.State, h.Err = state, err
	d.health = h
}

// Close discards the snapshot, ends timers and the fetch in progress, and waits for it. It may be called more than once.
func (d *Document[T]) Close() {
	d.drop()
	d.life.end()
}

// drop does the same as Close but does not cancel the fetch in progress, whose result is ignored.
func (d *Document[T]) drop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed, d.err = true, errClosed
	stop(d.refreshing)
	d.discard(errClosed)
}

// limited returns the credit: see demand.
func (d *Document[T]) limited() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.credit
}

func stop(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}

// demand returns the fetch that may bring a snapshot other than held, and begins one if that is allowed; nil: there is none.
//
// Each fetch, whatever its cause, uses up one interval, and Spare intervals may be used up in advance: credit is the time up
// to which all intervals are used up.
func (d *Document[T]) demand(held *T) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	d.asked = now
	switch {
	case d.closed || d.cfg.Fetch == nil || d.Load() != held:
		return nil
	case d.flight != nil:
		return d.flight
	case d.failures > 0 && now.Before(d.due), now.Before(d.credit.Add(-time.Duration(d.cfg.Spare) * d.cfg.MinRefetchInterval)):
		return nil
	case d.cfg.Allow != nil && !d.cfg.Allow():
		return nil
	}
	d.begin(now)
	return d.flight
}

// begin starts a fetch.
func (d *Document[T]) begin(now time.Time) {
	d.begun, d.due = now, now
	d.credit = earlier(d.credit, now.Add(time.Duration(d.cfg.Spare)*d.cfg.MinRefetchInterval))
	if d.credit.Before(now) {
		d.credit = now
	}
	d.credit = d.credit.Add(d.cfg.MinRefetchInterval)
	d.used.Store(false)
	held, flight := d.Load(), make(chan struct{})
	d.flight = flight
	d.life.fetching.Go(func() {
		ctx, cancel := context.WithTimeout(d.life.ctx, maxFetch)
		defer cancel()
		result, err := d.cfg.Fetch(ctx, held)
		d.land(result, now, err)
		close(flight)
		d.observe(result.Status, time.Since(now), err)
	})
}

func (d *Document[T]) observe(status int, took time.Duration, err error) {
	if d.cfg.Observer == nil || d.life.ctx.Err() != nil {
		return
	}
	event := d.cfg.Event
	event.Status, event.Duration, event.Err = cmp.Or(status, http.StatusOK), took, err // also 200 if the response is unusable
	if e, ok := errors.AsType[*fetch.Error](err); ok {
		event.Status = e.Status
	}
	d.cfg.Observer.Observe(d.life.ctx, event)
}

// land applies the outcome of a fetch.
func (d *Document[T]) land(next Result[T], start time.Time, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flight = nil
	if d.closed {
		return
	}
	d.err = err
	if err != nil {
		d.failed(err)
		return
	}
	d.failures, d.aside = 0, nil
	d.comes(valetkey.Ready, nil)
	d.replace(next.Value)
	d.start, d.fresh = start, start.Add(next.Fresh)
	d.end = d.fresh.Add(d.cfg.StaleIfError)
	if !next.Until.IsZero() {
		d.end = earlier(d.end, next.Until)
	}
	d.schedule(ahead(next.Fresh))
	d.limit()
}

// failed plans the next attempt. The held snapshot stays, unless it is withdrawn.
func (d *Document[T]) failed(err error) {
	if d.failures++; d.failures == 1 {
		d.failing = time.Now()
	}
	switch held := d.Load() != nil; {
	case errors.Is(err, d.cfg.Withdrawn) && (held || d.aside != nil):
		d.discard(err)
		d.cfg.Logger.Error(d.cfg.Name+": withdrawn by its publisher", "error", err)
	case held:
		d.comes(valetkey.Degraded, err)
	case d.aside != nil:
		d.comes(valetkey.Degraded, err)
		d.replace(d.aside)
		d.aside = nil
		d.limit()
	default:
		d.comes(valetkey.Down, err)
	}
	wait := jitter(min(lastRetry, firstRetry<<min(d.failures-1, 10)))
	if d.cfg.Probe && d.Load() == nil {
		wait = jitter(min(lastRetry, max(firstRetry, (time.Since(d.failing)-probing)/8)))
	}
	if e, ok := errors.AsType[*fetch.Error](err); ok {
		wait = max(wait, min(e.RetryAfter, d.cfg.MaxRetryAfter))
	}
	d.schedule(wait)
	d.cfg.Logger.Warn(d.cfg.Name+": the fetch failed", "retry_in", wait, "error", err)
}

// schedule sets the time of the next fetch. Timers and ages use the monotonic clock, so a jump of the wall clock has no effect.
func (d *Document[T]) schedule(wait time.Duration) {
	stop(d.refreshing)
	d.due = time.Now().Add(wait)
	if d.cfg.WhileUsed && d.Load() == nil {
		return // the next caller fetches
	}
	d.refreshing = time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		now := time.Now()
		switch {
		case d.closed || d.flight != nil || now.Before(d.due): // stopped too late
		case !d.cfg.WhileUsed || d.used.Load() || d.failures > 0:
			d.begin(now)
		}
	})
}

// limit discards a snapshot that is too old or sets it aside, or sets the timer that does.
func (d *Document[T]) limit() {
	held, end := d.Load(), d.end
	idle := held != nil && d.cfg.WhileUsed && d.failures == 0 && d.flight == nil
	if idle {
		end = earlier(end, d.fresh) // no fetch was tried, so StaleIfError does not apply
	}
	stop(d.ending)
	if wait := time.Until(end); wait > 0 {
		d.ending = time.AfterFunc(wait, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.Load() != nil || d.aside != nil {
				d.limit()
			}
		})
		return
	}
	if held != nil && !idle {
		d.cfg.Logger.Error(d.cfg.Name+": too old, discarded", "age", time.Since(d.start), "error", d.err)
	}
	d.discard(cmp.Or(d.healthLocked().Err, errOverdue))
	if d.cfg.WhileUsed {
		stop(d.refreshing)
	}
	if idle && time.Now().Before(d.end) {
		d.aside = held
		d.limit()
	}
}

// discard removes the snapshot of d.
func (d *Document[T]) discard(err error) {
	d.comes(valetkey.Down, err)
	d.replace(nil)
	d.aside = nil
	stop(d.ending)
}

func (d *Document[T]) replace(next *T) {
	if held := d.Load(); d.cfg.Replace != nil && held != next {
		d.cfg.Replace(held, next)
	}
	d.held.Store(next)
}

// ahead returns when a snapshot with this lifetime is fetched again. The range is wide: a rotation makes all servers fetch at once,
// and they should not stay in step.
func ahead(lifetime time.Duration) time.Duration {
	return lifetime/2 + rand.N(lifetime*3/10+1)
}

// jitter subtracts up to a tenth, so that servers that started together do not fetch together.
func jitter(d time.Duration) time.Duration {
	return d - rand.N(d/10+1)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
