package middleware

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/valetkey/valetkey"
)

// Status is how a guard stands.
type Status struct {
	// State is Down if all verifiers are or the source of revocations is, Ready if all are and Overflowed is zero, and Degraded
	// otherwise.
	State       valetkey.State
	Verifiers   []valetkey.Health // those that are a [valetkey.HealthReporter]
	Cache       CacheStatus
	Revocations RevocationStatus
	Requests    int // under way with a token; zero without Config.CancelWithToken
}

// RevocationStatus is a reading of the memory of revocations.
type RevocationStatus struct {
	Held       int // revocations, some of which may have ended: they go when their room is needed
	Overflowed int // about how many more are in force and found no room: tokens that match them get 503

	// Source is the state of Config.Revocations.Source, by the name "revocations": Down before the guard has caught up with it,
	// Ready after, and Degraded when revocations may be missing. It is the zero Health without one.
	Source valetkey.Health
}

// CacheStatus is a reading of the memory of verified tokens.
type CacheStatus struct {
	Entries   int    // remembered tokens, some of which may have expired
	Bytes     int64  // an estimate of the memory they take
	Hits      uint64 // requests whose token was remembered
	Misses    uint64 // all others
	Evictions uint64 // tokens forgotten to make room
}

// Status returns how the guard stands. It does no I/O.
func (g *Guard) Status() Status {
	held := g.denials.list.Stats(g.now())
	s := Status{
		State:       valetkey.Ready,
		Cache:       CacheStatus(g.cache.Stats()),
		Revocations: RevocationStatus{Held: held.Held, Overflowed: held.Overflowed, Source: g.denials.watched.health()},
		Requests:    g.streams.len(),
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

// probeWait is how long a probe waits for what can be made ready.
const probeWait = 2 * time.Second

// Readiness returns a handler for readiness probes: 200, or 503 while [Guard.Status] is Down. It has the first keys fetched,
// so a server that waits for its probe before it is sent requests gets them, too. The body is JSON with the states, for
// operators: serve it where clients do not come.
func (g *Guard) Readiness() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := g.Status()
		if ready, ok := g.verifier.(valetkey.HealthReporter); ok && s.State != valetkey.Ready {
			ctx, cancel := context.WithTimeout(r.Context(), probeWait)
			defer cancel()
			if ready.Ready(ctx) == nil {
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
