package web

import (
	"encoding/json"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// A state is what a process reports about itself.
type state struct {
	draining atomic.Bool

	mu       sync.Mutex // guards what follows
	started  time.Time
	loads    int // configurations put into use after the first one
	failures int // reloads that failed
	err      error
	errAt    time.Time
}

func (s *state) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = time.Now()
}

func (s *state) reloaded(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.errAt = err, time.Time{}
	if err == nil {
		s.loads++
		return
	}
	s.failures++
	s.errAt = time.Now()
}

// closing returns a handler that asks clients to close their connections while the process drains, so that their next request goes
// elsewhere. An HTTP/2 connection ends after its requests in progress. WebSocket handshakes have another Connection header.
func (s *state) closing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() && r.Header.Get("Upgrade") == "" {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// A Status describes a process. It contains no secrets.
type Status struct {
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Draining bool      `json:"draining,omitempty"`
	Reloads  Reloads   `json:"reloads"`
}

// Reloads counts the reloads of a process.
type Reloads struct {
	Done     int       `json:"done"`
	Failed   int       `json:"failed"`
	Error    string    `json:"error,omitempty"` // of the last reload; empty: it succeeded
	FailedAt time.Time `json:"failed_at,omitzero"`
}

// Status returns the status of the process.
func (p *Process) Status() Status {
	s := &p.state
	s.mu.Lock()
	defer s.mu.Unlock()
	status := Status{Version: Version(), Started: s.started, Draining: s.draining.Load(), Reloads: Reloads{Done: s.loads, Failed: s.failures, FailedAt: s.errAt}}
	if s.err != nil {
		status.Reloads.Error = s.err.Error()
	}
	return status
}

// Version returns the version of this program; see [VersionOf].
var Version = sync.OnceValue(func() string {
	info, _ := debug.ReadBuildInfo()
	return VersionOf(info)
})

// VersionOf returns the version of the module of a program. Without one it returns the revision of the working copy, with +dirty for
// uncommitted changes, or (devel) if the build has recorded neither. A nil info has recorded neither.
func VersionOf(info *debug.BuildInfo) string {
	if info == nil {
		return "(devel)"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	var revision, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+dirty"
		}
	}
	if revision == "" {
		return "(devel)"
	}
	return revision + dirty
}

// Probes returns the handler of a probe: GET /live, /ready, /status and /metrics.
//
//   - /live is 200 while the process runs.
//   - /ready is ready, or 503 while the process drains.
//   - /status and /metrics are the other two handlers. A nil handler is not served.
func (p *Process) Probes(ready, status, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /live", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "live") })
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, r *http.Request) {
		if p.state.draining.Load() {
			answer(w, http.StatusServiceUnavailable, "draining")
			return
		}
		ready.ServeHTTP(w, r)
	})
	if status != nil {
		mux.Handle("GET /status", status)
	}
	if metrics != nil {
		mux.Handle("GET /metrics", metrics)
	}
	return mux
}

func answer(w http.ResponseWriter, status int, state string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(struct {
		State string `json:"state"`
	}{state})
}
