package valetchi_test

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-chi/chi/v5"
	chimiddleware "github.com/go-chi/chi/v5/middleware"
	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest/adaptertest"
)

// An adaption is the guard's own middleware, or a copy of it with a mistake.
type adaption struct {
	require func(g *middleware.Guard, needs ...valetkey.Requirement) func(http.Handler) http.Handler
}

func (a adaption) serve(t testing.TB, routes []adaptertest.Route) string {
	return a.serveTLS(t, routes, nil)
}

func (a adaption) serveTLS(t testing.TB, routes []adaptertest.Route, config *tls.Config) string {
	router := chi.NewRouter()
	router.Use(chimiddleware.Recoverer)
	for _, route := range routes {
		router.Group(func(r chi.Router) {
			if route.Outer != nil {
				r.Use(a.require(route.Outer))
			}
			for _, needs := range route.Require {
				r.Use(a.require(route.Guard, needs...))
			}
			r.Handle(route.Path, route.Handler)
		})
	}
	server := httptest.NewUnstartedServer(router)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if server.TLS = config; config != nil {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return server.URL
}

func TestAdapter(t *testing.T) {
	own := adaption{(*middleware.Guard).Require}
	adaptertest.Test(t, adaptertest.Adapter{Serve: own.serve, ServeTLS: own.serveTLS})
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		name    string
		require func(g *middleware.Guard, needs ...valetkey.Requirement) func(http.Handler) http.Handler
		found   string
	}{
		{"no return", func(g *middleware.Guard, needs ...valetkey.Requirement) func(http.Handler) http.Handler {
			return func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					r, _ = g.Decide(r, needs...).Apply(w, r)
					next.ServeHTTP(w, r)
				})
			}
		}, "no credentials: the handler was called 1 times, not 0"},
		{"context dropped", func(g *middleware.Guard, needs ...valetkey.Requirement) func(http.Handler) http.Handler {
			return func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					g.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { next.ServeHTTP(w, r) }), needs...).ServeHTTP(w, r)
				})
			}
		}, "hello nobody"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mistaken := adaptertest.Adapter{Serve: adaption{c.require}.serve}
			assert.ErrorContains(t, adaptertest.Check(t, mistaken), c.found)
		})
	}
}
