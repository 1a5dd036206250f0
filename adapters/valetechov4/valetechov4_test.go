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
)

// An adaption is valetechov4, or a copy of it with a mistake.
type adaption struct {
	require  func(g *middleware.Guard, needs ...valetkey.Requirement) echo.MiddlewareFunc
	optional func(g *middleware.Guard) echo.MiddlewareFunc
}

func (a adaption) serve(t testing.TB, routes []valetkeytest.AdapterRoute) string {
	return a.serveTLS(t, routes, nil)
}

func (a adaption) serveTLS(t testing.TB, routes []valetkeytest.AdapterRoute, config *tls.Config) string {
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
		if len(route.Require) == 0 {
			group.Use(a.optional(route.Guard))
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
	own := adaption{valetechov4.Require, valetechov4.Optional}
	valetkeytest.TestAdapter(t, valetkeytest.Adapter{Serve: own.serve, ServeTLS: own.serveTLS})
}

func TestMistakes(t *testing.T) {
	// A copy of Require and the line that a mistake is made in.
	require := func(f func(c echo.Context, next echo.HandlerFunc, g *middleware.Guard, needs []valetkey.Requirement) error) adaption {
		return adaption{func(g *middleware.Guard, needs ...valetkey.Requirement) echo.MiddlewareFunc {
			return func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c echo.Context) error { return f(c, next, g, needs) }
			}
		}, valetechov4.Optional}
	}
	for _, m := range []struct {
		name    string
		mistake adaption
		found   string
	}{
		{"no return", require(func(c echo.Context, next echo.HandlerFunc, g *middleware.Guard, needs []valetkey.Requirement) error {
			checked, err := g.Check(c.Response(), c.Request(), needs...)
			if err != nil {
				g.Refuse(c.Response(), c.Request(), err)
				checked = c.Request()
			}
			c.SetRequest(checked)
			return next(c)
		}), "no credentials: the handler was called 1 times, not 0"},
		{"context dropped", require(func(c echo.Context, next echo.HandlerFunc, g *middleware.Guard, needs []valetkey.Requirement) error {
			if _, err := g.Check(c.Response(), c.Request(), needs...); err != nil {
				g.Refuse(c.Response(), c.Request(), err)
				return nil
			}
			return next(c)
		}), "hello nobody"},
		{"an error for echo's error handler", require(func(c echo.Context, next echo.HandlerFunc, g *middleware.Guard, needs []valetkey.Requirement) error {
			checked, err := g.Check(c.Response(), c.Request(), needs...)
			if err != nil {
				status, _, body := g.Refusal(c.Request().Context(), err)
				return echo.NewHTTPError(status, string(body))
			}
			c.SetRequest(checked)
			return next(c)
		}), "no credentials: it answers"},
		{"needs dropped", require(func(c echo.Context, next echo.HandlerFunc, g *middleware.Guard, _ []valetkey.Requirement) error {
			return valetechov4.Require(g)(next)(c)
		}), "the wrong scope: the handler was called 1 times, not 0"},
		{"next's error dropped, and with it a panic", require(func(c echo.Context, next echo.HandlerFunc, g *middleware.Guard, needs []valetkey.Requirement) error {
			defer func() { recover() }()
			return valetechov4.Require(g, needs...)(next)(c)
		}), "a panic is the framework's: "},
		{"optional context dropped", adaption{valetechov4.Require, func(g *middleware.Guard) echo.MiddlewareFunc {
			return func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c echo.Context) error {
					request := c.Request()
					return valetechov4.Optional(g)(func(c echo.Context) error {
						c.SetRequest(request)
						return next(c)
					})(c)
				}
			}
		}}, "optional, a good token: it answers"},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			assert.ErrorContains(t, valetkeytest.CheckAdapter(t, valetkeytest.Adapter{Serve: m.mistake.serve}), m.found)
		})
	}
}

// TestError shows that the error of a handler reaches echo, and a refusal does not.
func TestError(t *testing.T) {
	guard, err := middleware.New(middleware.Config{Verifier: demo})
	assert.NoError(t, err)
	teapot := func(echo.Context) error { return echo.NewHTTPError(418, "short and stout") }
	for name, guarded := range map[string]echo.MiddlewareFunc{"required": valetechov4.Require(guard), "optional": valetechov4.Optional(guard)} {
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
