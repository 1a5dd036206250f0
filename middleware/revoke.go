package middleware

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/denylist"
	"github.com/valetkey/valetkey/internal/heldtoken"
)

// Revocations configures the source of revocations and bounds the memory for them. The zero value suits a single process.
type Revocations struct {
	// Source delivers the revocations that other processes publish, for example a valetredis.Redis. [Guard.Watch] must run. Until
	// it has caught up with Source for the first time, the guard does not verify tokens: requests with a token get 503, and
	// [Guard.Status] is Down. If it loses the connection to Source after that, the known revocations remain in force, requests
	// are served, and Status is Degraded. Status is also Degraded while Source has lost revocations that are still in force.
	// Nil: none; only [Guard.Revoke] revokes.
	Source valetkey.RevocationSource

	// AllowBeforeCaughtUp serves requests before the guard has caught up with Source. Revoked tokens may be accepted until then.
	// Status is Degraded instead of Down.
	AllowBeforeCaughtUp bool

	// Keep is how long a revocation with a zero Until is held. Set it to at least the longest lifetime of an access token: a
	// revoked token that lives longer, and that the guard does not see within this time, is accepted again. The guard logs the
	// first token that lives longer. Zero: 24 h.
	Keep time.Duration

	// Bytes limits the memory for revoked token IDs. Each takes at most 32 bytes, allocated as needed. Zero: 32 MiB, which holds
	// 1,048,576 of them. There is separate room for 131,072 revocations of subjects, 131,072 of sessions, 16,384 of clients and
	// 1,024 of issuers, up to 30 MB in total, which token IDs cannot use.
	//
	// Revocations that exceed these limits remain in force in filters of 1 MiB each, at most five. A token that matches a filter
	// gets 503, because it may be revoked, at least until the revocation ends. A matching token is added to the filter too, so the
	// filter may stay full for longer. With 500,000 entries in a filter, about one other token in 500 matches; with 1,000,000,
	// one in ten. [Guard.Status] is Degraded while a filter is in use.
	Bytes int64
}

// Revoke rejects tokens even though they still verify. It removes them from the cache at once, and holds each revocation until
// none of its tokens can be accepted, see [valetkey.Revocation]. With [Config].CancelWithToken, it ends requests in progress that
// carry such a token. It also removes the tokens that package onbehalf has obtained for it. It affects all guards that Config.Previous connects, and no other process; for those, see [Guard.Watch].
//
// Revoke compares every cached token and every request in progress with rs, so pass several revocations in one call if there are many.
//
// The error names every malformed revocation; the others are applied. None is dropped for lack of memory, see [Revocations.Bytes].
// Revoke is safe for concurrent use.
func (g *Guard) Revoke(rs ...valetkey.Revocation) error { return g.denials.revoke(rs...) }

func (d *denials) revoke(rs ...valetkey.Revocation) error {
	errs := make([]error, 0, len(rs))
	now := d.now()
	for i, r := range rs {
		if err := d.list.Add(r, now); err != nil {
			errs = append(errs, fmt.Errorf("middleware: revocation %d: %w", i, err))
			continue
		}
		d.sessionless.noteRevocation(r, d.log)
	}
	d.noteOverflow()
	// A cache holds no token that earlier revocations deny, so comparing names saves most of the look-ups.
	selected := denylist.Select(rs)
	denied := func(t *valetkey.Token) bool { return d.check(t) != nil }
	for _, g := range d.guards.all() {
		g.cache.PurgeNamed(selected.Names, denied)
		g.streams.endDenied(selected)
	}
	d.dependents.Purge(func(t *valetkey.Token) bool { return selected.NamesToken(t) && denied(t) })
	return errors.Join(errs...)
}

// denials holds the revocations that a guard knows. A guard shares it with its Config.Previous.
type denials struct {
	list        *denylist.List
	guards      family               // to which the revocations apply
	dependents  heldtoken.Dependents // results of package onbehalf that depend on the tokens
	overflowing atomic.Bool          // as last logged
	watched     *watched             // nil: there is no source
	keep        time.Duration
	sessionless sessionless
	outlived    sync.Once // for the log line about a token that lives longer than keep
	now         func() time.Time
	log         *slog.Logger
}

func newDenials(cfg Revocations, g *Guard) *denials {
	d := &denials{list: denylist.New(denylist.Config{Bytes: cfg.Bytes, Keep: cfg.Keep}), keep: cmp.Or(cfg.Keep, denylist.DefaultKeep), now: g.now, log: g.log}
	if cfg.Source != nil {
		d.watched = &watched{source: cfg.Source, allow: cfg.AllowBeforeCaughtUp, now: g.now, since: g.now(), err: errNotWatched}
	}
	return d
}

// noteLifetime logs the first token that can outlive a revocation of it, so that an operator learns it before there is one.
func (d *denials) noteLifetime(t *valetkey.Token) {
	if t.Deadline().Sub(d.now()) > d.keep+denylist.MaxLeeway {
		d.outlived.Do(func() {
			d.log.Warn("a token lives longer than revocations without Until are held: raise Revocations.Keep",
				"issuer", t.Issuer(), "expiry", t.Expiry(), "keep", d.keep)
		})
	}
}

var (
	errRevoked      error = &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonRevoked}
	errMayBeRevoked error = &valetkey.Unavailable{RetryAfter: time.Minute,
		Err: errors.New("the token may be revoked: it matches a revocation that did not fit in memory, see Config.Revocations.Bytes")}
)

// check returns a refusal if t is revoked, a failure if t may be revoked, and nil otherwise.
func (d *denials) check(t *valetkey.Token) error {
	switch d.list.Look(t, d.now()) {
	case denylist.Clear:
		return nil
	case denylist.Denied:
		return errRevoked
	default:
		return errMayBeRevoked
	}
}

// noteOverflow logs once when a revocation does not fit in memory, and once when all fit again.
func (d *denials) noteOverflow() (overflowing bool) {
	overflowing = d.list.Overflowing(d.now())
	switch {
	case overflowing && d.overflowing.CompareAndSwap(false, true):
		d.log.Error("no room for a revocation: tokens that match it get 503 until it ends; see Config.Revocations.Bytes")
	case !overflowing && d.overflowing.CompareAndSwap(true, false):
		d.log.Info("room for all revocations again")
	}
	return overflowing
}

// A watched holds the state of a guard's source of revocations.
type watched struct {
	source   valetkey.RevocationSource
	allow    bool        // accept requests before it has caught up
	caughtUp atomic.Bool // at least once
	now      func() time.Time

	mu    sync.Mutex // guards what follows
	since time.Time  // start of the current state
	err   error      // why revocations may be missing; nil: none are
}

var errNotWatched = errors.New("the published revocations have not been received yet")

// unknown returns an error if no token can be accepted yet, and nil otherwise.
func (w *watched) unknown() error {
	if w == nil || w.allow || w.caughtUp.Load() {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return &valetkey.Unavailable{RetryAfter: retryAfter, Err: w.err}
}

// report records that the source has caught up, or why it may be missing revocations.
func (w *watched) report(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if (w.err == nil) != (err == nil) {
		w.since = w.now()
	}
	if w.err = err; hasCaughtUp(err) {
		w.caughtUp.Store(true)
	} else if !w.caughtUp.Load() {
		w.err = fmt.Errorf("%w: %w", errNotWatched, err)
	}
}

// hasCaughtUp reports whether a source that reports err has delivered all available revocations.
func hasCaughtUp(err error) bool { return err == nil || errors.Is(err, valetkey.ErrRevocationsMissing) }

// health returns the health of the source; the zero Health if there is none.
func (w *watched) health() (h valetkey.Health) {
	if w == nil {
		return h
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	h = valetkey.Health{Name: "revocations", State: valetkey.Ready, Since: w.since, Err: w.err}
	switch {
	case w.err == nil:
	case w.caughtUp.Load() || w.allow:
		h.State = valetkey.Degraded
	default:
		h.State = valetkey.Down
	}
	return h
}

// Watch applies the revocations of Config.Revocations.Source until ctx is done, and then returns the error of ctx. If the source
// ends, Watch logs it and watches again after 1 s to 1 min. Run it in a goroutine, once per guard, or once for all guards that
// Config.Previous connects: it applies the revocations to each of them. If there is no source, it returns an error immediately.
func (g *Guard) Watch(ctx context.Context) error { return g.denials.watch(ctx) }

func (d *denials) watch(ctx context.Context) error {
	w := d.watched
	if w == nil {
		return errors.New("middleware: Revocations.Source: required for Watch")
	}
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		var caughtUp atomic.Bool
		err := w.source.Watch(ctx, d.revoke, func(err error) {
			w.report(err)
			caughtUp.Store(caughtUp.Load() || hasCaughtUp(err))
		})
		if caughtUp.Load() {
			wait = firstWait
		}
		if ctx.Err() != nil {
			w.report(ctx.Err())
			return ctx.Err()
		}
		if err == nil {
			err = errors.New("the source ended without an error")
		}
		w.report(err)
		d.log.LogAttrs(ctx, slog.LevelError, "watching revocations failed", slog.Duration("retry_in", wait), slog.Any("err", err))
		select {
		case <-time.After(wait - rand.N(wait/10)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// The waits of Guard.Watch before it watches a source again.
const (
	firstWait = time.Second
	lastWait  = time.Minute
)
