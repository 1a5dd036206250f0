package tokencache

import (
	"context"
	"errors"
	"fmt"

	"github.com/valetkey/valetkey"
)

// A flight is a verification under way, which those who come with the same token wait for.
type flight struct {
	done chan struct{} // closed once what follows is final; nil as long as nobody waits, made under the shard's lock

	entry     *Entry
	err       error
	abandoned bool // the leader's context ended before there was an answer: another must lead
}

var errPanicked = errors.New("tokencache: the verifier panicked")

func (c *Cache) miss(ctx context.Context, raw string, s *shard, key digest) (*Entry, error) {
	for {
		e := s.get(&key)
		if e != nil && e.alive(c.now()) {
			e.use()
			return e, nil
		}
		f, leads := s.join(key, e)
		if f == nil {
			continue
		}
		if leads {
			return c.lead(ctx, raw, s, key, f)
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("tokencache: waiting for the verification of the same token: %w", ctx.Err())
		}
		switch {
		case f.abandoned:
			continue
		case f.err != nil:
			return nil, f.err
		case f.entry.alive(c.now()):
			return f.entry, nil
		default:
			return c.ask(ctx, raw) // an answer that may not be relied on was for the leader alone
		}
	}
}

// lead asks the verifier on behalf of all who wait for f.
func (c *Cache) lead(ctx context.Context, raw string, s *shard, key digest, f *flight) (*Entry, error) {
	f.err = errPanicked // what the others are told if the next lines do not return
	keep := false
	defer func() { s.land(key, f, keep, c.now()) }()

	until := c.now().Round(0).Add(c.maxAge) // by the wall clock, as exp is: the other one stops while a machine sleeps
	entry, err := c.ask(ctx, raw)
	if err == nil {
		if reuse := entry.Token.Reuse.Until; reuse.Before(until) {
			until = reuse
		}
		if keep = c.now().Before(until); keep {
			entry.own(key, until)
		}
	}
	var refusal *valetkey.Error
	f.abandoned = err != nil && ctx.Err() != nil && !errors.As(err, &refusal)
	f.entry, f.err = entry, err
	return entry, err
}
