package middleware

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/valetkey/valetkey"
)

// Status is the status of a guard.
type Status struct {
	// State is Down if all verifiers are Down or the source of revocations is. It is Ready if all of them are Ready and
	// Revocations.Overflowed is zero. Otherwise it is Degraded.
	State       valetkey.State
	Verifiers   []valetkey.Health // of each verifier that is a [valetkey.HealthReporter]
	Cache       CacheStatus
	Revocations RevocationsStatus
	ReportOnly  bool // Config.InsecureReportOnly: refusals are not enforced
	Requests    int  // requests in progress with a token; zero without Config.CancelWithToken

	// ReportOnlyRoutes is the number of [valetkey.InsecureReportOnly] that were passed to [Guard.Handler], [Guard.Declare] or a route
	// table: refusals of these routes are not enforced.
	ReportOnlyRoutes int
}

// RevocationsStatus describes the revocations that a guard holds.
type RevocationsStatus struct {
	Held       int // number of revocations, including ended ones, which are removed when their room is needed
	Overflowed int // approximate number of further revocations that did not fit in memory: tokens that match them get 503

	// Unmatched is the number of issuers whose sessions are revoked although none of their accepted tokens so far has a sid: these
	// revocations reject nothing. It does not affect State, because tokens of machines belong to no session.
	Unmatched int

	// Source is the health of Config.Revocations.Source, with the name "revocations". It is Down until the guard has caught up
	// with it, then Ready, and Degraded when revocations may be missing. Without a source it is the zero Health.
	Source valetkey.Health
}

// CacheStatus describes the cache of verified tokens.
type CacheStatus struct {
	Entries   int    // number of cached tokens, including expired ones
	Bytes     int64  // estimated memory that they take
	Hits      uint64 // number of requests whose token was cached
	Misses    uint64 // number of other requests
	Evictions uint64 // number of tokens evicted to make room
}

// Status returns the status of the guard. It does no I/O. It is safe for concurrent use.
func (g *Guard) Status() Status {
	held := g.denials.list.Stats(g.now())
	s := Status{
		State:       valetkey.Ready,
		Cache:       CacheStatus(g.cache.Stats()),
		Revocations: RevocationsStatus{Held: held.Held, Overflowed: held.Overflowed, Unmatched: g.denials.sessionless.count(), Source: g.denials.watched.health()},
		Requests:    g.streams.len(),
		ReportOnly:  g.reportOnly,

		ReportOnlyRoutes: g.declared.reportOnlyRoutes(),
	}
	source := s.Revocations.Source.State
	if g.denials.noteOverflow() || source != "" && source != valetkey.Ready {
		s.State = valetkey.Degraded
	}
	if r, ok := g.verifier.(valetkey.HealthReporter); ok {
		s.Verifiers = r.Health()
	}
	down := 0
	for _, v := range s.Verifiers {
		if v.State != valetkey.Ready {
			s.State = valetkey.Degraded
		}
		if v.State == valetkey.Down {
			down++
		}
	}
	if down > 0 && down == len(s.Verifiers) || source == valetkey.Down {
		s.State = valetkey.Down
	}
	return s
}

// probeWait is how long a probe waits for the verifiers to become ready.
const probeWait = 2 * time.Second

// Readiness returns a handler for readiness probes. It responds with 200, or with 503 while [Guard.Status] is Down. A probe
// triggers the first fetch of keys and waits up to 2 s for it, so a server that receives no requests before its probe succeeds
// becomes ready. The body is JSON with the states. It is for operators, so do not expose it to clients.
func (g *Guard) Readiness() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := g.Status()
		if s.State != valetkey.Ready {
			ctx, cancel := context.WithTimeout(r.Context(), probeWait)
			defer cancel()
			if g.Ready(ctx) == nil {
				s = g.Status()
			}
		}
		type part struct {
			Name  string         `json:"name"`
			State valetkey.State `json:"state"`
			Since time.Time      `json:"since"`
			Error string         `json:"error,omitempty"`
		}
		report := func(h valetkey.Health) part {
			reported := part{Name: h.Name, State: h.State, Since: h.Since}
			if h.Err != nil {
				reported.Error = h.Err.Error()
			}
			return reported
		}
		body := struct {
			State       valetkey.State `json:"state"`
			Verifiers   []part         `json:"verifiers"`
			Revocations *part          `json:"revocations,omitempty"`
		}{State: s.State, Verifiers: []part{}}
		for _, v := range s.Verifiers {
			body.Verifiers = append(body.Verifiers, report(v))
		}
		if s.Revocations.Source.State != "" {
			source := report(s.Revocations.Source)
			body.Revocations = &source
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if s.State == valetkey.Down {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		json.NewEncoder(w).Encode(body)
	})
}
