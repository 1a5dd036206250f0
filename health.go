package valetkey

import (
	"context"
	"errors"
	"time"
)

// A State is the health of a [Verifier]. The zero value is not a state.
type State string

// The states, from best to worst.
const (
	Ready    State = "ready"    // it can verify tokens
	Degraded State = "degraded" // it verifies with the data that it holds, but cannot refresh that data
	Down     State = "down"     // it cannot verify tokens that are not cached; the client gets 503
)

// Health describes the state of one verifier.
type Health struct {
	Name  string    // the issuer, or the URL that the verifier calls
	State State     //
	Since time.Time // when the verifier entered this state
	Err   error     // the cause; nil: none
}

// A HealthReporter is a [Verifier] that reports its health. The verifiers of packages jwks and introspect do, and those that
// [First] and [CrossCheck] return. Both methods are safe for concurrent use.
type HealthReporter interface {
	// Health returns the health of the verifier, or of each verifier that it combines. It does no I/O.
	Health() []Health

	// Ready prepares the verifier, for example by a first fetch of its keys, and waits until it is ready or ctx is done. It
	// returns nil if the verifier is ready, and the causes otherwise.
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
