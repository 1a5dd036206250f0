package valetkey

import (
	"context"
	"errors"
	"time"
)

// A State says how well a [Verifier] can do its work.
type State string

// The states, from good to bad.
const (
	Ready    State = "ready"
	Degraded State = "degraded" // it answers from what it holds, and cannot renew it
	Down     State = "down"     // it has no answer for a token it does not know; the client gets 503
)

// Health is the state of one verifier.
type Health struct {
	Name  string    // the issuer, or the URL that is asked
	State State     //
	Since time.Time // when it came into this state
	Err   error     // what is wrong; nil: nothing
}

// A HealthReporter is a [Verifier] that can say how it is: those of packages jwks and introspect, and what [First] and
// [CrossCheck] make of them. Both methods are safe for concurrent use.
type HealthReporter interface {
	// Health does no I/O.
	Health() []Health

	// Ready makes ready what can be, a first fetch of keys for one, waits for that until ctx is done, and returns why
	// something is not.
	Ready(ctx context.Context) error
}

func (vs first) Health() []Health                { return healthOf(vs...) }
func (vs first) Ready(ctx context.Context) error { return ready(ctx, vs...) }

func (c crossCheck) Health() []Health                { return healthOf(c.v, c.by) }
func (c crossCheck) Ready(ctx context.Context) error { return ready(ctx, c.v, c.by) }

func healthOf(vs ...Verifier) (all []Health) {
	for _, v := range vs {
		if r, ok := v.(HealthReporter); ok {
			all = append(all, r.Health()...)
		}
	}
	return all
}

func ready(ctx context.Context, vs ...Verifier) error {
	var errs []error
	for _, v := range vs {
		if r, ok := v.(HealthReporter); ok {
			errs = append(errs, r.Ready(ctx))
		}
	}
	return errors.Join(errs...)
}
