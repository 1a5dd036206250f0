package valetkey

import (
	"context"
	"time"
)

// An Observer receives events, for metrics and traces.
type Observer interface {
	// Observe must return fast and must be safe for concurrent use. For an event about a request, ctx is the context of the
	// request, and Observe may read its values.
	Observe(ctx context.Context, e Event)
}

// An EventKind is the kind of an [Event].
type EventKind string

// The kinds of events. Later versions may add kinds.
const (
	RequestDecided  EventKind = "request_decided"   // a guard accepted or refused a request
	KeySetRefreshed EventKind = "key_set_refreshed" // an issuer's key set was fetched, or the fetch failed
	IssuerAsked     EventKind = "issuer_asked"      // an issuer was asked about a token (RFC 7662)
	StatusListRead  EventKind = "status_list_read"  // a status list of an issuer was fetched, or the fetch failed
)

// An Event describes one occurrence. All its strings are from bounded sets, so they are suitable as metric labels: they contain no
// token and no text that a client chooses.
type Event struct {
	Kind EventKind

	// Issuer is the configured issuer. For a request it is the issuer of the token if the token was accepted, else "".
	Issuer string

	// Status is the HTTP status. For a request it is that of the refusal, or 200 if the request was accepted. For a fetch it is
	// that of the response, or 0 if there was none.
	Status int

	// Reason is the reason of a refused request. It is "" if the request was accepted, if it failed on the server's side, or if
	// the reason is not [Reason.Known].
	Reason Reason

	// Remembered reports whether the token of a request was in the cache.
	Remembered bool

	// Duration is the time that the operation took.
	Duration time.Duration

	// Err is the error, for a log or a trace. It is not suitable as a label. Nil: none.
	Err error
}
