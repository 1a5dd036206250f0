package fleet_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valetkey/valetkey/valetkeytest"
)

const latency = 20 * time.Millisecond // of every answer

// The endpoints of the issuer.
const (
	metadata = iota
	keySet
	introspection
	endpoints
)

// A network carries the calls of guards to the issuer's handlers, without connections, and counts them.
type network struct {
	issuer *valetkeytest.Issuer
	begin  time.Time
	outage atomic.Bool

	mu        sync.Mutex       // guards what follows
	perMinute [endpoints][]int // calls of all guards
}

// A route is one guard's way through a network.
type route struct {
	*network
	hangs bool // in an outage its calls are not refused but get no answer

	minute int            // guarded by network.mu
	calls  [endpoints]int // in that minute
	most   [endpoints]int // in any
}

var errDown = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

func (r *route) RoundTrip(req *http.Request) (*http.Response, error) {
	endpoint, handler := r.find(req.URL.Path)
	r.count(endpoint)
	if req.Body != nil {
		defer req.Body.Close()
	}
	if r.outage.Load() {
		if r.hangs {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}
		return nil, errDown
	}
	time.Sleep(latency)
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, req.Clone(req.Context()))
	resp := answer.Result()
	resp.Request = req
	return resp, nil
}

func (r *route) find(path string) (int, http.Handler) {
	switch path {
	case "/jwks":
		return keySet, r.issuer.KeySet
	case "/introspect":
		return introspection, r.issuer.Introspection
	default:
		return metadata, r.issuer.Metadata
	}
}

func (r *route) count(endpoint int) {
	minute := int(time.Since(r.begin) / time.Minute)
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.perMinute[endpoint]) <= minute {
		r.perMinute[endpoint] = append(r.perMinute[endpoint], 0)
	}
	r.perMinute[endpoint][minute]++
	if r.minute != minute {
		r.minute, r.calls = minute, [endpoints]int{}
	}
	r.calls[endpoint]++
	r.most[endpoint] = max(r.most[endpoint], r.calls[endpoint])
}
