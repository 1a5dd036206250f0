package valetkeytest

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Endpoint is one HTTP endpoint of an [Issuer]. It counts its requests and can be made to fail. A fault lasts until the next
// fault, until [Endpoint.Restore], or for the number of requests set with [Fault.Times]. It is safe for concurrent use.
type Endpoint struct {
	// URL is the address of the endpoint.
	URL string

	real  http.HandlerFunc
	empty string          // the response of Empty
	done  <-chan struct{} // closed when the test ends

	mu          sync.Mutex // guards what follows
	hits        int
	notModified int
	maxAge      time.Duration
	delay       time.Duration
	fault       *Fault // nil: none
}

// Fault is the behavior of an [Endpoint] in place of its normal one.
type Fault struct {
	endpoint *Endpoint
	serve    http.HandlerFunc
	left     int // requests; negative: unlimited
}

// Times ends the fault after n more requests.
func (f *Fault) Times(n int) {
	f.endpoint.mu.Lock()
	defer f.endpoint.mu.Unlock()
	f.left = max(n, 0)
}

// Hits returns the number of requests received, including those that a fault answered.
func (e *Endpoint) Hits() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.hits
}

// NotModified returns the number of requests that were answered with 304.
func (e *Endpoint) NotModified() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.notModified
}

// MaxAge sets the Cache-Control max-age of the metadata or key set, in whole seconds. Zero: no Cache-Control, as initially;
// negative: no-store. Introspection responses are always no-store.
func (e *Endpoint) MaxAge(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.maxAge = d
}

// Restore ends the fault, and the delay of [Endpoint.Slow].
func (e *Endpoint) Restore() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault, e.delay = nil, 0
}

// Slow delays every response, including those of a fault, by d. The delay ends early when the client disconnects or the test
// ends. Zero: no delay.
func (e *Endpoint) Slow(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.delay = d
}

// Serve replaces the normal behavior with h, for faults that have no method here.
func (e *Endpoint) Serve(h http.HandlerFunc) *Fault {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault = &Fault{endpoint: e, serve: h, left: -1}
	return e.fault
}

// Answer makes the endpoint respond with 200, the given JSON document and no ETag.
func (e *Endpoint) Answer(json string) *Fault {
	return e.Serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, json)
	})
}

// Empty makes the endpoint respond with 200 and an empty document: {"keys":[]} for a key set, {} otherwise.
func (e *Endpoint) Empty() *Fault { return e.Answer(e.empty) }

// Fail makes the endpoint respond with an error status and the given header lines: Fail(503, "Retry-After: 7").
func (e *Endpoint) Fail(status int, header ...string) *Fault {
	return e.Serve(func(w http.ResponseWriter, r *http.Request) {
		for _, line := range header {
			name, value, _ := strings.Cut(line, ":")
			w.Header().Add(name, strings.TrimSpace(value))
		}
		http.Error(w, http.StatusText(status), status)
	})
}

// Redirect makes the endpoint respond with 302 and url as the Location.
func (e *Endpoint) Redirect(url string) *Fault {
	return e.Fail(http.StatusFound, "Location: "+url)
}

// Garbage makes the endpoint respond with 200 and an HTML page, as the login page of a proxy does.
func (e *Endpoint) Garbage() *Fault {
	return e.Serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<!DOCTYPE html><title>Sign in</title><p>Please sign in to the network.")
	})
}

// Truncated makes the endpoint respond with the first half of the correct document as if it were complete.
func (e *Endpoint) Truncated() *Fault {
	return e.instead(func(h http.Header, body []byte) []byte { return body[:len(body)/2] })
}

// Reset makes the endpoint close the connection halfway through the correct document.
func (e *Endpoint) Reset() *Fault {
	return e.instead(func(h http.Header, body []byte) []byte {
		h.Set("Content-Length", strconv.Itoa(len(body))) // the server hangs up on a handler that writes less
		return body[:len(body)/2]
	})
}

// Compressed makes the endpoint send the correct document with gzip, whether or not the client accepts it.
func (e *Endpoint) Compressed() *Fault {
	return e.instead(func(h http.Header, body []byte) []byte {
		h.Set("Content-Encoding", "gzip")
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		z.Write(body)
		z.Close()
		return packed.Bytes()
	})
}

// Endless makes the endpoint respond with 200 and JSON that does not end until the client disconnects or the test ends.
func (e *Endpoint) Endless() *Fault {
	return e.Serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, "{")
		for space := strings.Repeat(" ", 4096); ; {
			select {
			case <-e.done:
				panic(http.ErrAbortHandler)
			default:
			}
			if _, err := fmt.Fprint(w, space); err != nil {
				return
			}
		}
	})
}

// Down makes the endpoint close every connection without a response.
func (e *Endpoint) Down() *Fault {
	return e.Serve(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		// After one byte, the client cannot mistake the connection for one that was idle too long, and does not retry by itself.
		fmt.Fprint(conn, "H")
		conn.Close()
	})
}

// instead runs the normal handler, and sends its response as modified by change.
func (e *Endpoint) instead(change func(h http.Header, body []byte) []byte) *Fault {
	return e.Serve(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("If-None-Match")
		right := httptest.NewRecorder()
		e.real(right, r)
		maps.Copy(w.Header(), right.Header())
		body := change(w.Header(), right.Body.Bytes())
		w.WriteHeader(right.Code)
		w.Write(body)
	})
}

// ServeHTTP counts the request, and answers it normally or as the fault specifies.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	serve, delay := e.next()
	if delay > 0 {
		r.ParseForm() // the server notices that a client has disconnected only after the body is read
		e.wait(r, delay)
	}
	serve(w, r)
}

func (e *Endpoint) next() (http.HandlerFunc, time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hits++
	if e.fault == nil || e.fault.left == 0 {
		return e.real, e.delay
	}
	e.fault.left--
	return e.fault.serve, e.delay
}

func (e *Endpoint) wait(r *http.Request, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	case <-e.done:
		panic(http.ErrAbortHandler)
	}
}

// document serves the result of body with an ETag, and handles conditional requests (RFC 9110, section 13.1.2).
func (e *Endpoint) document(body func() []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		doc := body()
		etag := fmt.Sprintf(`"%x"`, sha256.Sum256(doc))
		unchanged := r.Header.Get("If-None-Match") == etag

		e.mu.Lock()
		maxAge := e.maxAge
		if unchanged {
			e.notModified++
		}
		e.mu.Unlock()

		w.Header().Set("ETag", etag)
		switch {
		case maxAge > 0:
			w.Header().Set("Cache-Control", fmt.Sprintf("max-age=%d", int(maxAge.Seconds())))
		case maxAge < 0:
			w.Header().Set("Cache-Control", "no-store")
		}
		if unchanged {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(doc)
	}
}
