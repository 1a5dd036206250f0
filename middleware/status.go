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
	// State is Ready if all verifiers are, Down if all are, and Degraded otherwise and while Overflowed is not zero.
	State       valetkey.State
	Verifiers   []valetkey.Health // those that are a [valetkey.Reporter]
	Cache       CacheStatus
	Revocations RevocationStatus
	Requests    int // under way with a token; zero without Config.CancelWithToken
}

// RevocationStatus is a reading of the memory of revocations.
type RevocationStatus struct {
	Held       int // revocations, some of which may have ended: they go when their room is needed
	Overflowed int // about how many more are in force and found no room: tokens that match them get 503
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
	now := g.now()
	s := Status{State: valetkey.Ready, Cache: CacheStatus(g.cache.Stats()), Revocations: RevocationStatus(g.denials.list.Stats(now)), Requests: g.streams.len()}
	if g.denials.noteOverflow() {
		s.State = valetkey.Degraded
	}
	if r, ok := g.verifier.(valetkey.Reporter); ok {
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
	if down > 0 && down == len(s.Verifiers) {
		s.State = valetkey.Down
	}
	return s
}

// probeWait is how long a probe waits for what can be made ready.
const probeWait = 2 * time.Second

// Probe returns a handler for readiness probes: 200, or 503 while [Guard.Status] is Down. It has the first keys fetched,
// so a server that waits for its probe before it is sent requests gets them, too. The body is JSON with the states, for
// operators: serve it where clients do not come.
func (g *Guard) Probe() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := g.Status()
		if ready, ok := g.verifier.(valetkey.Reporter); ok && s.State != valetkey.Ready {
			ctx, cancel := context.WithTimeout(r.Context(), probeWait)
			defer cancel()
			if ready.Ready(ctx) == nil {
				s = g.Status()
			}
		}
		type verifier struct {
			Name  string         `json:"name"`
			State valetkey.State `json:"state"`
			Since time.Time      `json:"since"`
			Error string         `json:"error,omitempty"`
		}
		body := struct {
			State     valetkey.State `json:"state"`
			Verifiers []verifier     `json:"verifiers"`
		}{State: s.State, Verifiers: []verifier{}}
		for _, v := range s.Verifiers {
			reported := verifier{Name: v.Name, State: v.State, Since: v.Since}
			if v.Err != nil {
				reported.Error = v.Err.Error()
			}
			body.Verifiers = append(body.Verifiers, reported)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if s.State == valetkey.Down {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		json.NewEncoder(w).Encode(body)
	})
}
