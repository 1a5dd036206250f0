package tokencache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/digest"
)

// A flight is a verification under way, which those who come with the same token wait for.
type flight struct {
	done chan struct{} // closed once what follows is final; nil as long as nobody waits, made under the shard's lock

	entry     *Entry
	err       error
	abandoned bool // the leader's context ended before there was an answer: another must lead
}

var errPanicked = errors.New("tokencache: the verifier panicked")

// miss finds out about a token whose entry is dead, or nil.
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
				return c.ask(ctx, raw) // an answer that may not be relied on was for the leader alone
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

// lead asks the verifier on behalf of all who wait for f.
func (c *Cache) lead(ctx context.Context, raw string, s *shard, key digest.Digest, f *flight, now time.Time) (*Entry, error) {
	f.err = errPanicked // what the others are told if the next lines do not return
	var r *record
	defer func() { s.land(key, f, r, now) }()

	until := now.Round(0).Add(c.maxAge) // by the wall clock, as exp is: the other one stops while a machine sleeps
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
