package tokencache

import (
	"context"
	"errors"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/digest"
	"github.com/valetkey/valetkey/internal/flight"
)

// A verification in progress is a flight. Other calls with the same token wait for it.
type verification = flight.Flight[digest.Digest, verified]

type verified struct {
	entry     *Entry
	err       error
	abandoned bool // the leader's context ended before there was a result: another call must lead
}

var errPanicked = errors.New("tokencache: the verifier panicked")

// lead asks the verifier on behalf of all calls that wait for f.
func (c *Cache) lead(ctx context.Context, raw string, s *shard, key digest.Digest, f *verification, now time.Time) (*Entry, error) {
	f.Result.err = errPanicked // for the waiting calls, if the verifier panics
	var r *record
	defer func() { s.land(f, r, now) }()

	until := now.Round(0).Add(c.maxAge) // by the wall clock, as exp is: the monotonic clock stops while a machine sleeps
	entry, err := c.ask(digest.NewContext(ctx, raw, key), raw)
	f.Result = verified{entry: entry, err: err}
	if err != nil {
		_, refusal := errors.AsType[*valetkey.Error](err)
		f.Result.abandoned = ctx.Err() != nil && !refusal
		return nil, err
	}
	fields := entry.Token.Fields()
	limited := until.Before(fields.Freshness.Until)
	if !limited {
		until = fields.Freshness.Until
	}
	if now = c.now(); now.Before(until) {
		if limited {
			fields.Freshness.Until = until
			entry.set(valetkey.NewToken(fields))
		}
		r = newRecord(key, &fields, until)
	}
	return entry, nil
}
