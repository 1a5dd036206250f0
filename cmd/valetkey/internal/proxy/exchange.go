package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
)

// An exchange is the client's side of a forwarded request. It ends when the token ends the context of the request. In that case
// httputil.ReverseProxy ends only the upstream's side: it keeps waiting for a client that neither reads nor sends.
type exchange struct {
	http.ResponseWriter
	request *http.Request
	visit   *visit // of request
	stop    func() bool
	over    sync.WaitGroup // done once the end of the token has been handled
	own     http.Header    // headers of the response that the upstream does not send, such as the next DPoP nonce
	interim bool           // an interim response has been written
	begun   bool           // the final response has begun
	body    *body          // of request; nil: it has none
	grpc    *grpcRefusals  // of a call of gRPC; nil: none

	mu    sync.Mutex
	conn  net.Conn // the hijacked connection of a WebSocket; nil: none
	ended bool
}

// lastWords is the time limit for writing a refusal to the client.
const lastWords = time.Second

func newExchange(w http.ResponseWriter, r *http.Request) *exchange {
	e := &exchange{ResponseWriter: w, request: r, visit: visitOf(r.Context())}
	e.visit.row, e.visit.forwarded = r.Pattern, true
	if r.Body != nil && r.Body != http.NoBody {
		e.body = &body{ReadCloser: r.Body}
		r.Body = e.body
	}
	if h := w.Header(); len(h) > 0 {
		e.own = maps.Clone(h)
	}
	e.over.Add(1)
	e.stop = context.AfterFunc(r.Context(), e.end)
	return e
}

// WriteHeader writes the status. httputil.ReverseProxy clears all headers after an interim response, such as 103 Early Hints, so
// WriteHeader restores those that are not from the upstream.
func (e *exchange) WriteHeader(status int) {
	if status < http.StatusOK { // the headers of the upstream have been added to those of the proxy, without a check
		e.interim = true
		delete(e.Header(), "Dpop-Nonce")
		maps.Copy(e.Header(), e.own)
	} else {
		if e.interim {
			h := e.Header()
			for name, values := range e.own {
				h[name] = append(slices.Clip(values), h[name]...)
			}
		}
		if e.body != nil && e.request.ProtoMajor == 1 && e.refusal() != nil {
			// Whether the server has read the body when end sets the deadline is a race. See there why it matters.
			e.Header().Set("Connection", "close")
		}
		e.visit.status, e.begun = status, true
	}
	e.ResponseWriter.WriteHeader(status)
}

// Unwrap and Hijack support http.ResponseController.
func (e *exchange) Unwrap() http.ResponseWriter { return e.ResponseWriter }

func (e *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(e.ResponseWriter).Hijack()
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		e.conn, e.visit.status = conn, http.StatusSwitchingProtocols
		if e.ended {
			conn.Close()
		}
	}
	return conn, rw, err
}

// refusal returns the refusal that ended the request, or nil if its token did not end it.
func (e *exchange) refusal() (refusal *valetkey.Error) {
	errors.As(context.Cause(e.request.Context()), &refusal)
	return refusal
}

func (e *exchange) end() {
	defer e.over.Done()
	if e.refusal() == nil { // the client disconnected, or the server stops
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	if e.conn != nil {
		e.conn.Close()
		return
	}
	// Both calls fail if the writer does not support deadlines.
	control := http.NewResponseController(e.ResponseWriter)
	if e.body != nil && !e.body.read.Load() {
		// For a client that does not send. Behind the body, the server of HTTP/1 waits for the next request, and an error there would cancel
		// the context of every further request of the connection.
		_ = control.SetReadDeadline(time.Unix(1, 0))
	}
	_ = control.SetWriteDeadline(time.Now().Add(lastWords))
}

// A body is the body of a request.
type body struct {
	io.ReadCloser
	read atomic.Bool // to its end, or to an error
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.read.Store(true)
	}
	return n, err
}

// done ends the exchange. Call it after the request has been served.
func (e *exchange) done() {
	if e.stop() {
		return
	}
	e.over.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended && e.conn == nil {
		_ = http.NewResponseController(e.ResponseWriter).SetWriteDeadline(time.Time{}) // the connection may serve another request
	}
}
