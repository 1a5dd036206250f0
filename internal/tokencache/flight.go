package tokencache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/digest"
)

// A flight is a verification in progress. Other calls with the same token wait for it.
type flight struct {
	done chan struct{} // closed when the fields below are final; nil while no call waits; created under the shard's lock

	entry     *Entry
	err       error
	abandoned bool // the leader's context ended before there was a result: another call must lead
}

var errPanicked = errors.New("tokencache: the verifier panicked")

// miss verifies a token that is not cached, or whose entry, dead, is no longer fresh.
func (c *Cache) miss(ctx context.Context, raw string, s *shard, key digest.Digest, dead *Entry, now time.Time) (*Entry, error) {
	for {
		f, leads := s.join(key, dead)
		if leads {
			return c.lead(ctx, raw, s, key, f, now)
		}
		if f != nil {
			select {
			case <-f.done:
			case <-ctx.Done():
				return nil, fmt.Errorf("tokencache: waiting for the verification of the same token: %w", ctx.Err())
			}
			switch {
			case f.abandoned:
			case f.err != nil:
				return nil, f.err
			case f.entry.alive(c.now()):
				return f.entry, nil
			default:
				return c.ask(ctx, raw) // a result that is not fresh is for the leader only
			}
		}
		now = c.now()
		e := s.open(&key, now)
		if e != nil && e.alive(now) {
			return e, nil
		}
		dead = e
	}
}

// lead asks the verifier on behalf of all calls that wait for f.
func (c *Cache) lead(ctx context.Context, raw string, s *shard, key digest.Digest, f *flight, now time.Time) (*Entry, error) {
	f.err = errPanicked // for the waiting calls, if the verifier panics
	var r *record
	defer func() { s.land(key, f, r, now) }()

	until := now.Round(0).Add(c.maxAge) // by the wall clock, as exp is: the monotonic clock stops while a machine sleeps
	entry, err := c.ask(digest.NewContext(ctx, raw, key), raw)
	if now = c.now(); err == nil {
		if own := entry.Token.Freshness().Until; own.Before(until) {
			until = own
		}
		if now.Before(until) {
			r = newRecord(key, entry.Token, until)
		}
	}
	var refusal *valetkey.Error
	f.abandoned = err != nil && ctx.Err() != nil && !errors.As(err, &refusal)
	f.entry, f.err = entry, err
	return entry, err
}
