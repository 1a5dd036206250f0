package transmitter

import (
	"context"
	"time"
)

// Lease gives tests the lease of a queue. held ends when it is lost; nil: another process has it.
func (t *Transmitter) Lease(ctx context.Context, name string) (held context.Context, release func(), err error) {
	return t.lease(ctx, name)
}

// Deliver sends the first token of a stream once. again is why it is to be sent again, after retryAfter at the earliest; empty: it is not.
func (t *Transmitter) Deliver(ctx context.Context, id string) (again string, retryAfter time.Duration, err error) {
	s, err := t.stream(ctx, id)
	if err != nil {
		return "", 0, err
	}
	items, _, err := t.available(ctx, s, 1)
	if err != nil {
		return "", 0, err
	}
	r, err := t.deliver(ctx, s, items[0])
	return r.again, r.retryAfter, err
}
