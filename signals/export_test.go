package signals

import (
	"context"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
)

// MaxBatch is the number of revocations that are applied in one step.
const MaxBatch = maxBatch

// Deliver applies the revocations of several SETs.
func Deliver(ctx context.Context, r *Receiver, all ...[]valetkey.Revocation) []error {
	return r.feed.deliver(ctx, all...)
}

// SetCapacity sets the number of revocations that r holds for later watchers.
func SetCapacity(r *Receiver, n int) { r.feed.capacity = n }

// SetOwnClock makes the clock of the transmitter that of the issuer, although their ports differ.
func SetOwnClock(r *Receiver) { r.ownClock = true }

// ParseSubject parses a subject.
func ParseSubject(text string, legacy bool) (simple []Subject, complex map[string][]Subject, err error) {
	// A subject is part of a SET, which is validated as a whole.
	if err := strictjson.Object([]byte(`{"sub_id":`+text+`}`), nil); err != nil {
		return nil, nil, err
	}
	p, err := parseSubject(strictjson.Value(text), legacy)
	return p.simple, p.complex, err
}

// ReadPollAnswer reads the answer to a poll: names and SETs.
func ReadPollAnswer(body []byte) (sets [][2]string, more bool, err error) {
	a, err := readPollAnswer(body)
	for _, s := range a.sets {
		sets = append(sets, [2]string{s.jti, s.raw})
	}
	return sets, a.more, err
}

// Open finds the stream of r, or creates it, as Run does, and reads its status. endpoint is the URL that is polled.
func Open(ctx context.Context, r *Receiver) (found Status, endpoint string, created bool, err error) {
	m, err := r.discover(ctx)
	if err != nil {
		return Status{}, "", false, err
	}
	s, created, err := r.open(ctx, m, "")
	if err != nil {
		return Status{}, "", false, err
	}
	found = Status{StreamID: s.id, Delivered: s.delivered, Missing: s.missing}
	if err = r.readStatus(ctx, m, s.id); err != nil {
		return Status{}, "", false, err
	}
	found.Stream = r.stream.status().Stream
	return found, s.endpoint, created, nil
}

// SameHost reports whether two URLs have the same host.
func SameHost(a, b string) bool { return sameHost(a, b) }

// A Backoff determines the times between attempts.
type Backoff struct{ backoff }

// Next returns when to try again after an error.
func (b *Backoff) Next(err error) time.Duration { return b.next(err) }

// APIError is a response of the API with an unexpected status.
func APIError(status int, retryAfter time.Duration) error {
	return &apiError{"testing", status, retryAfter}
}
