package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/denylist"
)

// Revocations configures where revocations come from, and bounds the memory of them.
type Revocations struct {
	// Source delivers the revocations that other processes publish, such as a valetredis.Redis. [Guard.Watch] must run: until it
	// has caught up with Source for the first time, tokens are not verified, requests with one get 503, and [Guard.Status] is
	// Down. When it loses Source after that, what it knows stays in force, requests are served, and Status is Degraded, also
	// while Source has lost revocations that still matter. Nil: none, and [Guard.Revoke] alone revokes.
	Source valetkey.RevocationSource

	// AllowBeforeCaughtUp serves requests before the guard has caught up with Source, so that revoked tokens are accepted
	// until then. Status is Degraded and not Down.
	AllowBeforeCaughtUp bool

	// Bytes is the room for revoked token ids: at most 32 bytes each, allocated as they come. Zero: 32 MiB, which holds
	// 1,048,576 of them. There is room for 131,072 revocations of subjects, as many of sessions, 16,384 of clients and 1,024 of
	// issuers beside them, together up to 30 MB, which ids cannot take.
	//
	// Revocations that find no room are in force all the same, in filters of 1 MiB each, at most five: a token that matches one
	// of them gets 503, since it may be revoked, at least until the revocation ends: a token that matches is kept in the filter
	// too, which may so stay full for longer. With 500,000 entries in a filter, about one other token in 500 matches, with
	// 1,000,000 one in ten. [Guard.Status] is Degraded meanwhile.
	Bytes int64
}

// Revoke rejects tokens even though they verify: those remembered are forgotten at once, and the revocation is held until
// none of the tokens can be accepted, see [valetkey.Revocation]. With [Config].CancelWithToken, the requests under way with
// such a token end. It looks at every remembered token and every request under way, so revoke several at once where there are
// many. It is for this process only; see [Guard.Watch].
//
// The error names every revocation that is malformed; the others apply. None is dropped for lack of room, see
// [Revocations.Bytes].
func (g *Guard) Revoke(rs ...valetkey.Revocation) error {
	errs := make([]error, 0, len(rs))
	now := g.now()
	for i, r := range rs {
		if err := g.denials.list.Add(r, now); err != nil {
			errs = append(errs, fmt.Errorf("middleware: revocation %d: %w", i, err))
		}
	}
	g.denials.noteOverflow()
	g.cache.Purge(func(t *valetkey.Token) bool {
		// What earlier revocations deny is not remembered, so a name that is compared saves most of the look-ups.
		named := len(rs) > 8 || slices.ContainsFunc(rs, func(r valetkey.Revocation) bool { return denylist.Names(r, t) })
		return named && g.denials.check(t) != nil
	})
	g.streams.endDenied()
	return errors.Join(errs...)
}

// denials are the revocations that a guard knows of.
type denials struct {
	list        *denylist.List
	overflowing atomic.Bool // and the log says so
	watched     *watched    // nil: there is no source
	now         func() time.Time
	log         *slog.Logger
}

var (
	errRevoked      error = &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonRevoked}
	errMayBeRevoked error = &valetkey.Unavailable{RetryAfter: time.Minute,
		Err: errors.New("the token may be revoked: it matches a revocation for which there was no room, see Config.Revocations.Bytes")}
)

// check returns the refusal of a token that is revoked, and a failure where that cannot be known; nil: it is not.
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

// noteOverflow logs once when there is no room for a revocation, and once when there is again.
func (d *denials) noteOverflow() (overflowing bool) {
	overflowing = d.list.Overflowing(d.now())
	switch {
	case overflowing && d.overflowing.CompareAndSwap(false, true):
		d.log.Error("no room for a revocation: tokens that match it get 503 until it ends; see Config.Revocations.Bytes")
	case !overflowing && d.overflowing.CompareAndSwap(true, false):
		d.log.Info("all revocations have room again")
	}
	return overflowing
}

// A watched is how a guard stands with its source of revocations.
type watched struct {
	source   valetkey.RevocationSource
	allow    bool        // requests before it has caught up
	caughtUp atomic.Bool // at least once
	now      func() time.Time

	mu    sync.Mutex // guards what follows
	since time.Time  // of the state
	err   error      // why revocations may be missing; nil: none is
}

var errNotWatched = errors.New("the published revocations are not known yet")

// unknown returns why no token can be accepted; nil: one can.
func (w *watched) unknown() error {
	if w == nil || w.allow || w.caughtUp.Load() {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return &valetkey.Unavailable{RetryAfter: retryAfter, Err: w.err}
}

// report takes in that the source has caught up, or why it may be missing revocations.
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

// hasCaughtUp reports whether a source that reports err has delivered all that it has.
func hasCaughtUp(err error) bool { return err == nil || errors.Is(err, valetkey.ErrRevocationsMissing) }

// health returns the state; the zero one without a source.
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

// Watch applies the revocations of Config.Revocations.Source until ctx is done, and returns its error. When the source ends, it
// logs that and watches again after a wait of 1 s to 1 min. Run it in a goroutine, once for each guard. It returns an error at
// once without a source.
func (g *Guard) Watch(ctx context.Context) error {
	w := g.denials.watched
	if w == nil {
		return errors.New("middleware: Revocations.Source: required for Watch")
	}
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		var caughtUp atomic.Bool
		err := w.source.Watch(ctx, g.Revoke, func(err error) {
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
			err = errors.New("the source has ended")
		}
		w.report(err)
		g.log.LogAttrs(ctx, slog.LevelError, "revocations are not watched", slog.Duration("again_in", wait), slog.Any("err", err))
		select {
		case <-time.After(wait - rand.N(wait/10)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Of Guard.Watch, before it watches a source again that has ended.
const (
	firstWait = time.Second
	lastWait  = time.Minute
)
