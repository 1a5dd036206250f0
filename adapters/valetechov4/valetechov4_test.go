package valetechov4_test

import (
	"crypto/tls"
	"io"
	"log"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"
	echomiddleware "github.com/labstack/echo/v4/middleware"
	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetechov4"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
	"github.com/valetkey/valetkey/valetkeytest/adaptertest"
)

// An adaption is valetechov4, or a copy of it with a mistake.
type adaption struct {
	require func(g *middleware.Guard, needs ...valetkey.Requirement) echo.MiddlewareFunc
}

func (a adaption) serve(t testing.TB, routes []adaptertest.Route) string {
	return a.serveTLS(t, routes, nil)
}

func (a adaption) serveTLS(t testing.TB, routes []adaptertest.Route, config *tls.Config) string {
	e := echo.New()
	e.Use(echomiddleware.Recover())
	for _, route := range routes {
		group := e.Group("")
		if route.Outer != nil {
			group.Use(a.require(route.Outer))
		}
		for _, needs := range route.Require {
			group.Use(a.require(route.Guard, needs...))
		}
		group.Any(route.Path, echo.WrapHandler(route.Handler))
	}
	server := httptest.NewUnstartedServer(e)
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
	own := adaption{valetechov4.Require}
	adaptertest.Test(t, adaptertest.Adapter{Serve: own.serve, ServeTLS: own.serveTLS, PathParameter: func(name string) string { return ":" + name }})
}

func TestMistakes(t *testing.T) {
	// A copy of Require and the line that a mistake is made in.
	require := func(f func(c echo.Context, next echo.HandlerFunc, g *middleware.Guard, needs []valetkey.Requirement) error) adaption {
		return adaption{func(g *middleware.Guard, needs ...valetkey.Requirement) echo.MiddlewareFunc {
			return func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c echo.Context) error { return f(c, next, g, needs) }
			}
		}}
	}
	for _, m := range []struct {
		name    string
		mistake adaption
		found   string
	}{
		{"no return", require(func(c echo.Context, next echo.HandlerFunc, g *middleware.Guard, needs []valetkey.Requirement) error {
			r, _ := g.Decide(c.Request(), needs...).Apply(c.Response(), c.Request())
			c.SetRequest(r)
			return next(c)
		}), "no credentials: the handler was called 1 times, not 0"},
		{"context dropped", require(func(c echo.Context, next echo.HandlerFunc, g *middleware.Guard, needs []valetkey.Requirement) error {
			if _, ok := g.Decide(c.Request(), needs...).Apply(c.Response(), c.Request()); !ok {
				return nil
			}
			return next(c)
		}), "hello nobody"},
		{"an error for echo's error handler", require(func(c echo.Context, next echo.HandlerFunc, g *middleware.Guard, needs []valetkey.Requirement) error {
			d := g.Decide(c.Request(), needs...)
			if d.Err() != nil {
				return echo.NewHTTPError(d.Status(), string(d.Body()))
			}
			r, _ := d.Apply(c.Response(), c.Request())
			c.SetRequest(r)
			return next(c)
		}), "no credentials: it answers"},
		{"needs dropped", require(func(c echo.Context, next echo.HandlerFunc, g *middleware.Guard, _ []valetkey.Requirement) error {
			return valetechov4.Require(g)(next)(c)
		}), "the wrong scope: the handler was called 1 times, not 0"},
		{"next's error dropped, and with it a panic", require(func(c echo.Context, next echo.HandlerFunc, g *middleware.Guard, needs []valetkey.Requirement) error {
			defer func() { recover() }()
			return valetechov4.Require(g, needs...)(next)(c)
		}), "a panic is the framework's: "},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			assert.ErrorContains(t, adaptertest.Check(t, adaptertest.Adapter{Serve: m.mistake.serve}), m.found)
		})
	}
}

// TestError shows that the error of a handler reaches echo, and a refusal does not.
func TestError(t *testing.T) {
	guard, err := middleware.New(middleware.Config{Verifier: demo})
	assert.NoError(t, err)
	teapot := func(echo.Context) error { return echo.NewHTTPError(418, "short and stout") }
	for name, guarded := range map[string]echo.MiddlewareFunc{"required": valetechov4.Require(guard), "optional": valetechov4.Require(guard, valetkey.Optional)} {
		e := echo.New()
		var seen error
		e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error {
				seen = next(c)
				return seen
			}
		})
		e.GET("/", teapot, guarded)
		answer := httptest.NewRecorder()
		e.ServeHTTP(answer, valetkeytest.Request("GET", "/", "valet"))
		assert.Equal(t, 418, answer.Code, name)
		assert.Error(t, seen, name)
		answer = httptest.NewRecorder()
		e.ServeHTTP(answer, valetkeytest.Request("GET", "/", "fake"))
		assert.Equal(t, 401, answer.Code, name)
		assert.NoError(t, seen, name)
	}
}
