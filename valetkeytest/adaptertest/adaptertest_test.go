package adaptertest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest/adaptertest"
)

// An adaption is how net/http would be adapted, were it not what the guard is made for.
type adaption struct {
	require func(g *middleware.Guard, needs []valetkey.Requirement, next http.Handler) http.Handler
	around  func(http.Handler) http.Handler
}

func right() adaption {
	return adaption{
		func(g *middleware.Guard, needs []valetkey.Requirement, next http.Handler) http.Handler {
			return g.Handler(next, needs...)
		},
		func(next http.Handler) http.Handler { return next },
	}
}

func (a adaption) serve(t testing.TB, routes []adaptertest.Route) string {
	server := httptest.NewServer(a.handler(routes))
	t.Cleanup(server.Close)
	return server.URL
}

func (a adaption) serveTLS(t testing.TB, routes []adaptertest.Route, config *tls.Config) string {
	server := httptest.NewUnstartedServer(a.handler(routes))
	server.TLS = config
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

func (a adaption) handler(routes []adaptertest.Route) http.Handler {
	mux := http.NewServeMux()
	for _, route := range routes {
		h := route.Handler
		for _, needs := range slices.Backward(route.Require) {
			h = a.require(route.Guard, needs, h)
		}
		if route.Outer != nil {
			h = a.require(route.Outer, nil, h)
		}
		mux.Handle(route.Path, a.around(h))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		mux.ServeHTTP(w, r)
	})
}

func TestAdapter(t *testing.T) {
	adaptertest.Test(t, adaptertest.Adapter{Serve: right().serve, ServeTLS: right().serveTLS})
}

// Each of these is an adapter with one mistake.
func TestCheck(t *testing.T) {
	type requireFunc = func(g *middleware.Guard, w http.ResponseWriter, r *http.Request, next http.Handler, needs []valetkey.Requirement)
	wrong := func(f requireFunc) adaption {
		a := right()
		a.require = func(g *middleware.Guard, needs []valetkey.Requirement, next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(g, w, r, next, needs) })
		}
		return a
	}
	around := func(f func(next http.Handler, w http.ResponseWriter, r *http.Request)) adaption {
		a := right()
		a.around = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(next, w, r) })
		}
		return a
	}
	for _, c := range []struct {
		name    string
		mistake adaption
		found   string
	}{
		{"no return after the refusal", wrong(func(g *middleware.Guard, w http.ResponseWriter, r *http.Request, next http.Handler, needs []valetkey.Requirement) {
			r, _ = g.Decide(r, needs...).Apply(w, r)
			next.ServeHTTP(w, r)
		}), "no credentials, POST: the handler was called 1 times, not 0"},
		{"the context dropped", wrong(func(g *middleware.Guard, w http.ResponseWriter, r *http.Request, next http.Handler, needs []valetkey.Requirement) {
			if _, ok := g.Decide(r, needs...).Apply(w, r); ok {
				next.ServeHTTP(w, r)
			}
		}), "hello nobody"},
		{"a context that has the token and does not end", wrong(func(g *middleware.Guard, w http.ResponseWriter, r *http.Request, next http.Handler, needs []valetkey.Requirement) {
			d := g.Decide(r, needs...)
			if _, ok := d.Apply(w, r); ok {
				next.ServeHTTP(w, r.WithContext(valetkey.NewContext(r.Context(), d.Token())))
			}
		}), "the token was verified 2 times, not 1"},
		{"the needs dropped", wrong(func(g *middleware.Guard, w http.ResponseWriter, r *http.Request, next http.Handler, _ []valetkey.Requirement) {
			g.Handler(next).ServeHTTP(w, r)
		}), "the wrong scope: the handler was called 1 times, not 0"},
		{"the first need alone", wrong(func(g *middleware.Guard, w http.ResponseWriter, r *http.Request, next http.Handler, needs []valetkey.Requirement) {
			g.Handler(next, needs[:min(1, len(needs))]...).ServeHTTP(w, r)
		}), "one scope of two: the handler was called 1 times, not 0"},
		{"another status for failures", wrong(func(g *middleware.Guard, w http.ResponseWriter, r *http.Request, next http.Handler, needs []valetkey.Requirement) {
			d := g.Decide(r, needs...)
			if err := d.Err(); err != nil && !errors.As(err, new(*valetkey.Error)) {
				d = g.Reject(r, &valetkey.Error{Code: valetkey.InvalidToken, Err: err})
			}
			if r, ok := d.Apply(w, r); ok {
				next.ServeHTTP(w, r)
			}
		}), "nothing can be found out: it answers"},
		{"a header of the answer dropped", wrong(func(g *middleware.Guard, w http.ResponseWriter, r *http.Request, next http.Handler, needs []valetkey.Requirement) {
			d := g.Decide(r, needs...)
			if d.Err() != nil {
				d.Apply(w, r)
				return
			}
			next.ServeHTTP(w, r.WithContext(d.Context(r.Context())))
		}), "full, in the query: it answers"},
		{"more written after the refusal", wrong(func(g *middleware.Guard, w http.ResponseWriter, r *http.Request, next http.Handler, needs []valetkey.Requirement) {
			d := g.Decide(r, needs...)
			if d.Err() != nil {
				w.Header().Set("WWW-Authenticate", d.Header().Get("WWW-Authenticate"))
				http.Error(w, string(d.Body()), d.Status())
				return
			}
			r, _ = d.Apply(w, r)
			next.ServeHTTP(w, r)
		}), "no credentials: it answers"},
		{"an optional token that may be bad", wrong(func(g *middleware.Guard, w http.ResponseWriter, r *http.Request, next http.Handler, needs []valetkey.Requirement) {
			if d := g.Decide(r, needs...); len(needs) == 1 && needs[0] == valetkey.Optional && d.Err() != nil {
				w.Header().Add("Vary", "Authorization")
				next.ServeHTTP(w, r)
			} else if r, ok := d.Apply(w, r); ok {
				next.ServeHTTP(w, r)
			}
		}), "optional, an expired token: the handler was called 1 times, not 0"},
		{"the last header of two counts", around(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			if sent := r.Header["Authorization"]; len(sent) > 1 {
				r.Header["Authorization"] = sent[len(sent)-1:]
			}
			next.ServeHTTP(w, r)
		}), "two headers: the handler was called 1 times, not 0"},
		{"a token in a trailer counts", around(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			if r.Trailer != nil {
				io.Copy(io.Discard, r.Body)
				r.Header["Authorization"] = r.Trailer["Authorization"]
			}
			next.ServeHTTP(w, r)
		}), "a token in a trailer is none: it answers 200 OK, and the handler was called 1 times"},
		{"a panic swallowed", around(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			defer func() { recover() }()
			next.ServeHTTP(w, r)
		}), "a panic is the framework's: the panic of a handler became 200 OK"},
		{"a writer that can only write", around(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
		}), "a connection can be taken over: it answers 500"},
		{"a writer that cannot flush", around(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
		}), `a stream flows: the rest is "flush: feature not supported"`},
		{"the address of the sender dropped", around(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			r.RemoteAddr = ""
			next.ServeHTTP(w, r)
		}), "bound, a good proof: the handler was called 0 times, not 1"},
		{"the first line of a header alone", around(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			for name, lines := range r.Header {
				r.Header[name] = lines[:1]
			}
			next.ServeHTTP(w, r)
		}), "bound, two proofs: the handler was called 1 times, not 0"},
		{"the path as a router has changed it", around(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			r.RequestURI = "/routed" + r.RequestURI
			next.ServeHTTP(w, r)
		}), "bound, a good proof, optional: the handler was called 0 times, not 1"},
		{"the TLS connection dropped", around(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			r.TLS = nil
			next.ServeHTTP(w, r)
		}), "a token bound to the certificate of the connection: with 1 certificates it answers 401 Unauthorized, not 200"},
		{"one challenge of two", around(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(firstChallenge{w}, r)
		}), "bound, no credentials: it answers"},
		{"a context that is not the request's", around(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(context.Background()))
		}), "the context ends with the request: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			assert.ErrorContains(t, adaptertest.Check(t, adaptertest.Adapter{Serve: c.mistake.serve, ServeTLS: c.mistake.serveTLS}), c.found)
		})
	}
}

// firstChallenge sends the first line of WWW-Authenticate only.
type firstChallenge struct{ http.ResponseWriter }

func (w firstChallenge) WriteHeader(status int) {
	if challenge := w.Header().Get("WWW-Authenticate"); challenge != "" {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	w.ResponseWriter.WriteHeader(status)
}

// joinedChallenges sends the lines of WWW-Authenticate as one.
type joinedChallenges struct{ http.ResponseWriter }

func (w joinedChallenges) WriteHeader(status int) {
	if lines := w.Header()["Www-Authenticate"]; len(lines) > 1 {
		w.Header().Set("WWW-Authenticate", strings.Join(lines, ", "))
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w joinedChallenges) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A page is what a reverse proxy makes of a refusal: its own page and headers.
type page struct {
	http.ResponseWriter
	refused bool
	status  func(int) int
}

func (w *page) WriteHeader(status int) {
	w.Header().Set("Server", "proxy")
	if w.refused = status >= 400; w.refused {
		w.Header().Del("Content-Length")
	}
	joinedChallenges{w.ResponseWriter}.WriteHeader(w.status(status))
	if w.refused {
		io.WriteString(w.ResponseWriter, "<html>")
	}
}

func (w *page) Write(p []byte) (int, error) {
	if w.refused {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

func (w *page) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestReverseProxies(t *testing.T) {
	serve := func(status func(int) int) func(testing.TB, []adaptertest.Route) string {
		a := right()
		a.around = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(&page{ResponseWriter: w, status: status}, r)
			})
		}
		return a.serve
	}
	same := func(status int) int { return status }
	check := func(a adaptertest.Adapter) error { return adaptertest.Check(t, a) }
	assert.ErrorContains(t, check(adaptertest.Adapter{Serve: serve(same), OneChallenge: true}), "no credentials: it answers")
	assert.NoError(t, check(adaptertest.Adapter{Serve: serve(same), StatusAndChallenge: true, NoCancel: true, NoForwarded: true}))
	forbidden := func(status int) int {
		if status == http.StatusUnauthorized {
			return http.StatusForbidden
		}
		return status
	}
	assert.ErrorContains(t, check(adaptertest.Adapter{Serve: serve(forbidden), StatusAndChallenge: true}), "no credentials: it answers\n403")
	first := right()
	first.around = func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(firstChallenge{w}, r) })
	}
	assert.ErrorContains(t, check(adaptertest.Adapter{Serve: first.serve, StatusAndChallenge: true}), "bound, no credentials: it answers\n401")
}

func TestGateways(t *testing.T) {
	joined := right()
	joined.around = func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(joinedChallenges{w}, r) })
	}
	check := func(a adaptertest.Adapter) error { return adaptertest.Check(t, a) }
	assert.ErrorContains(t, check(adaptertest.Adapter{Serve: joined.serve}), "bound, no credentials: it answers")
	assert.NoError(t, check(adaptertest.Adapter{Serve: joined.serve, OneChallenge: true, NoCancel: true, NoForwarded: true}))
	first := right()
	first.around = func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(firstChallenge{w}, r) })
	}
	assert.ErrorContains(t, check(adaptertest.Adapter{Serve: first.serve, OneChallenge: true}), "bound, no credentials: it answers")
	err := check(adaptertest.Adapter{Serve: right().serve, Unable: map[string]string{"a good token": "x", "a misspelt name": "x"}})
	assert.ErrorContains(t, err, "a good token: it succeeds, and is listed in Unable")
	assert.ErrorContains(t, err, `there is no check ["a misspelt name"]`)
	broken := right()
	broken.require = func(_ *middleware.Guard, _ []valetkey.Requirement, next http.Handler) http.Handler { return next }
	err = check(adaptertest.Adapter{Serve: broken.serve, Unable: map[string]string{"no credentials": "x"}})
	assert.False(t, strings.HasPrefix(err.Error(), "no credentials: "), "it fails, as listed")
	assert.ErrorContains(t, err, "no credentials, HEAD: ")
}
