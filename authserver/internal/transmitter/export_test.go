package transmitter

import "context"

// Lease gives tests the lease of a queue. held ends when it is lost; nil: another process has it.
func (t *Transmitter) Lease(ctx context.Context, name string) (held context.Context, release func(), err error) {
	return t.lease(ctx, name)
}
