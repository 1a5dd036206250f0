package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/denylist"
)

// Revocations bounds the memory of revocations.
type Revocations struct {
	// Bytes is the room for revoked token ids: at most 32 bytes each, allocated as they come. Zero: 32 MiB, which holds
	// 1,048,576 of them. There is room for 131,072 revocations of subjects, as many of sessions, 16,384 of clients and 1,024 of
	// issuers beside them, together up to 30 MB, which ids cannot take.
	//
	// Revocations that find no room are in force all the same, in filters of 1 MiB each, at most five: a token that matches one
	// of them gets 503, since it may be revoked, until the revocation ends. With 500,000 revocations in a filter, about one
	// other token in 500 matches, too. [Guard.Status] is Degraded meanwhile.
	Bytes int64
}

// Revoke rejects tokens even though they verify: those remembered are forgotten at once, and the revocation is held until
// none of the tokens can be accepted, see [valetkey.Revocation]. With [Config].CancelWithToken, the requests under way with
// such a token end. It looks at every remembered token and every request under way, so revoke several at once where there are
// many. It is for this process only; see [Guard.Follow].
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
	now         func() time.Time
	log         *slog.Logger
}

var (
	errRevoked      error = &valetkey.Error{Code: valetkey.InvalidToken, Description: "the token has been revoked"}
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

// Follow applies the revocations of source until ctx is done, and follows again when source gives up. Run it in a
// goroutine of its own. What source finds out takes effect at once.
func (g *Guard) Follow(ctx context.Context, source valetkey.Revocations) error {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := source.Follow(ctx, func(r valetkey.Revocation) error { return g.Revoke(r) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		g.log.LogAttrs(ctx, slog.LevelError, "revocations are not followed", slog.Duration("again_in", wait), slog.Any("err", err))
		select {
		case <-time.After(wait - rand.N(wait/10)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
