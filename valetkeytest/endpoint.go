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

// An Endpoint is one HTTP endpoint of an [Issuer]. It counts what it is asked, and has faults to order. A fault lasts
// until the next one, until [Endpoint.Restore], or as long as [Fault.Times] says. It is safe for concurrent use.
type Endpoint struct {
	// URL is where the endpoint is.
	URL string

	real  http.HandlerFunc
	empty string          // what Empty answers
	done  <-chan struct{} // closed when the test ends

	mu          sync.Mutex // guards what follows
	hits        int
	notModified int
	maxAge      time.Duration
	delay       time.Duration
	fault       *Fault // nil: none
}

// A Fault is what an [Endpoint] does instead of its work.
type Fault struct {
	endpoint *Endpoint
	serve    http.HandlerFunc
	left     int // requests; negative: without end
}

// Times ends the fault after n more requests.
func (f *Fault) Times(n int) {
	f.endpoint.mu.Lock()
	defer f.endpoint.mu.Unlock()
	f.left = max(n, 0)
}

// Hits returns how many requests have come, also those that a fault has answered.
func (e *Endpoint) Hits() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.hits
}

// NotModified returns how many of the requests were answered with 304.
func (e *Endpoint) NotModified() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.notModified
}

// MaxAge sets the Cache-Control max-age of the documents, in whole seconds. Zero, as in the beginning: no such header;
// negative: no-store. Answers about a token are always no-store.
func (e *Endpoint) MaxAge(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.maxAge = d
}

// Restore ends every fault, and slowness too.
func (e *Endpoint) Restore() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault, e.delay = nil, 0
}

// Slow makes every answer, be it right or a fault, wait for d first, or until the client has gone or the test ends.
// Zero: no longer slow.
func (e *Endpoint) Slow(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.delay = d
}

// Serve makes h answer: the fault that has no name here.
func (e *Endpoint) Serve(h http.HandlerFunc) *Fault {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault = &Fault{endpoint: e, serve: h, left: -1}
	return e.fault
}

// Answer makes the endpoint answer 200 with another JSON document, and no ETag.
func (e *Endpoint) Answer(json string) *Fault {
	return e.Serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, json)
	})
}

// Empty makes the endpoint answer 200 with a document that holds nothing: {"keys":[]} for a key set, else {}.
func (e *Endpoint) Empty() *Fault { return e.Answer(e.empty) }

// Fail makes the endpoint answer with an error status and these header lines: Fail(503, "Retry-After: 7").
func (e *Endpoint) Fail(status int, header ...string) *Fault {
	return e.Serve(func(w http.ResponseWriter, r *http.Request) {
		for _, line := range header {
			name, value, _ := strings.Cut(line, ":")
			w.Header().Add(name, strings.TrimSpace(value))
		}
		http.Error(w, http.StatusText(status), status)
	})
}

// Redirect makes the endpoint answer 302 with this Location.
func (e *Endpoint) Redirect(url string) *Fault {
	return e.Fail(http.StatusFound, "Location: "+url)
}

// Garbage makes the endpoint answer 200 with an HTML page, as the login page of a proxy does.
func (e *Endpoint) Garbage() *Fault {
	return e.Serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<!DOCTYPE html><title>Sign in</title><p>Please sign in to the network.")
	})
}

// Truncated makes the endpoint answer with the first half of the right document, as if that were all.
func (e *Endpoint) Truncated() *Fault {
	return e.instead(func(h http.Header, body []byte) []byte { return body[:len(body)/2] })
}

// Reset makes the endpoint close the connection in the middle of the right document.
func (e *Endpoint) Reset() *Fault {
	return e.instead(func(h http.Header, body []byte) []byte {
		h.Set("Content-Length", strconv.Itoa(len(body))) // the server hangs up on a handler that writes less
		return body[:len(body)/2]
	})
}

// Compressed makes the endpoint send the right document with gzip, whatever the client accepts.
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

// Endless makes the endpoint answer 200 with JSON that never ends, until the client goes or the test ends.
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

// Down makes the endpoint close every connection without an answer.
func (e *Endpoint) Down() *Fault {
	return e.Serve(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		// After one byte the client cannot take the connection for one that was idle too long, and ask again by itself.
		fmt.Fprint(conn, "H")
		conn.Close()
	})
}

// instead lets the endpoint do its work, and sends what change makes of the answer.
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

// ServeHTTP counts the request, and answers it or does what the fault says.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	serve, delay := e.next()
	if delay > 0 {
		r.ParseForm() // only once the body is read, the server notices that a client has gone
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

// document serves what body returns, with an ETag and on condition (RFC 9110, section 13.1.2).
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
