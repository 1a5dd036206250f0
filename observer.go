package valetkey

import (
	"context"
	"net/http"
	"slices"
	"time"
)

// An Observer receives events, for metrics and traces.
type Observer interface {
	// Observe must return fast and must be safe for concurrent use. For an event about a request, ctx is the context of the
	// request, and Observe may read its values.
	Observe(ctx context.Context, e Event)
}

// A RefusalObserver is an [Observer] that can state that it needs no events of accepted requests. Then a guard does not create them,
// nor measure how long its decisions take, which is most of what an Observer costs.
type RefusalObserver interface {
	Observer

	// ObservesAccepted reports whether Observe is to be called for accepted requests. It must return the same value on each call.
	ObservesAccepted() bool
}

// ObservesAccepted reports whether o needs events of accepted requests. It is true unless o is a [RefusalObserver] that returns false.
func ObservesAccepted(o Observer) bool {
	r, ok := o.(RefusalObserver)
	return !ok || r.ObservesAccepted()
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
// token and no text that a client chooses. Token, Request and Err are not: they are for records and traces.
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

	// Duration is the time that the operation took. It is zero if no time was measured: for a request that was refused before its
	// credentials were read, and if the observer is a [RefusalObserver] that needs refusals only.
	Duration time.Duration

	// Token is the verified token of a request, accepted or refused; nil if the request carries none, or one that was refused.
	Token *Token

	// Request is the request, for reading while Observe runs: its method, and its Pattern if a router of net/http or a route table
	// matched it. Its headers, query and cookies contain credentials. Nil for a token that came without a request.
	Request *http.Request

	// Needs holds the requirements of the request's route, see [Describe]. It must not be modified. Nil: unknown.
	Needs []Requirement

	// ReportOnly reports that the request was refused with Status and Err, and let through nevertheless, see
	// [InsecureReportOnly].
	ReportOnly bool

	// Err is the error, for a log or a trace. It is not suitable as a label. Nil: none.
	Err error
}

// JoinObservers returns an Observer that calls each of observers in order. It skips nil ones, and returns nil if there is no other.
func JoinObservers(observers ...Observer) Observer {
	all := slices.DeleteFunc(slices.Clone(observers), func(o Observer) bool { return o == nil })
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	return &joined{all}
}

type joined struct{ all []Observer }

func (j *joined) ObservesAccepted() bool { return slices.ContainsFunc(j.all, ObservesAccepted) }

func (j *joined) Observe(ctx context.Context, e Event) {
	for _, o := range j.all {
		o.Observe(ctx, e)
	}
}
