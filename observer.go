package valetkey

import (
	"context"
	"time"
)

// An Observer is told what happens, for metrics and traces. Observe must return fast and be safe for concurrent use. It
// may read whatever is in ctx, which for a request is the request's.
type Observer interface {
	Observe(ctx context.Context, e Event)
}

// An EventKind says what an [Event] is about.
type EventKind string

// The kinds of events. More may come.
const (
	RequestDecided  EventKind = "request_decided"   // a guard let a request through or refused it
	KeySetRefreshed EventKind = "key_set_refreshed" // the key set of an issuer was fetched, or not
	IssuerAsked     EventKind = "issuer_asked"      // an issuer was asked about a token (RFC 7662)
	StatusListRead  EventKind = "status_list_read"  // a status list of an issuer was fetched, or not
)

// An Event is one thing that happened. All strings are of bounded sets, fit for the labels of a metric: no token, and
// nothing that a client made up.
type Event struct {
	Kind EventKind

	// Issuer is the configured issuer; of a request only that of an accepted token, else "".
	Issuer string

	// Status is the HTTP status: of a request 200 if it was let through, of a fetch that of the answer, 0 if there was none.
	Status int

	// Reason is why a request was refused; "" if it was let through, if the failure was ours, or if the reason is not
	// [Reason.Known].
	Reason Reason

	// Remembered says that the token of a request had been verified before.
	Remembered bool

	// Duration is how long it took.
	Duration time.Duration

	// Err is what went wrong, for a log or a trace and not for a label; nil: nothing.
	Err error
}
