package valetfiber_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	fiberrecover "github.com/gofiber/fiber/v3/middleware/recover"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetfiber"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest/adaptertest"
)

// An adaption is valetfiber, or a copy of it with a mistake.
type adaption struct {
	require func(g *middleware.Guard, needs ...valetkey.Requirement) fiber.Handler
	stream  bool
}

func (a adaption) serve(t testing.TB, routes []adaptertest.Route) string {
	return a.serveTLS(t, routes, nil)
}

func (a adaption) serveTLS(t testing.TB, routes []adaptertest.Route, config *tls.Config) string {
	app := fiber.New(fiber.Config{ReadBufferSize: 32 << 10, StreamRequestBody: a.stream})
	app.Use(fiberrecover.New())
	for _, route := range routes {
		var chain []any
		if route.Outer != nil {
			chain = append(chain, a.require(route.Outer))
		}
		for _, needs := range route.Require {
			chain = append(chain, a.require(route.Guard, needs...))
		}
		chain = append(chain, native(route.Handler))
		app.All(route.Path, chain[0], chain[1:]...)
	}
	return listen(t, app, config)
}

// listen serves app on loopback, with a configuration over TLS.
func listen(t testing.TB, app *fiber.App, config *tls.Config) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	url = "http://" + listener.Addr().String()
	if config != nil {
		listener, url = tls.NewListener(listener, config), strings.Replace(url, "http", "https", 1)
	}
	done := make(chan error, 1)
	go func() { done <- app.Listener(listener, fiber.ListenConfig{DisableStartupMessage: true}) }()
	t.Cleanup(func() {
		assert.NoError(t, app.Shutdown())
		assert.NoError(t, <-done)
	})
	return url
}

// native runs h with the context that a handler of fiber sees.
func native(h http.Handler) fiber.Handler {
	return adaptor.HTTPHandlerWithContext(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, _ := adaptor.LocalContextFromHTTPRequest(r)
		h.ServeHTTP(w, r.WithContext(ctx))
	}))
}

func TestAdapter(t *testing.T) {
	for name, stream := range map[string]bool{"bodies in memory": false, "bodies streamed": true} {
		t.Run(name, func(t *testing.T) {
			adaptertest.Test(t, adaptertest.Adapter{
				Serve:         adaption{valetfiber.Require, stream}.serve,
				ServeTLS:      adaption{valetfiber.Require, stream}.serveTLS,
				NoHangUp:      true,
				PathParameter: func(name string) string { return ":" + name },
			})
		})
	}
}

func TestMistakes(t *testing.T) {
	type requireFunc = func(*middleware.Guard, ...valetkey.Requirement) fiber.Handler
	for _, m := range []struct {
		name    string
		require requireFunc
		found   string
	}{
		{"no return", func(g *middleware.Guard, needs ...valetkey.Requirement) fiber.Handler {
			return func(c fiber.Ctx) error {
				if err := valetfiber.Require(g, needs...)(c); err != nil {
					return err
				}
				return c.Next()
			}
		}, "no credentials: the handler was called 1 times, not 0"},
		{"context dropped", func(g *middleware.Guard, needs ...valetkey.Requirement) fiber.Handler {
			return func(c fiber.Ctx) error {
				return valetfiber.Require(g, needs...)(dropping{c, c.Context()})
			}
		}, "hello nobody"},
		{"fasthttp's own conversion, which keeps the last of two headers", func(g *middleware.Guard, needs ...valetkey.Requirement) fiber.Handler {
			return func(c fiber.Ctx) error {
				r, err := adaptor.ConvertRequest(c, true)
				if err != nil {
					return err
				}
				d := g.Decide(r.WithContext(c.Context()), needs...)
				if d.Err() != nil {
					return valetfiber.Require(g, needs...)(c)
				}
				c.SetContext(d.Context(c.Context()))
				return c.Next()
			}
		}, "two headers, the last good: the handler was called 1 times, not 0"},
		{"an error for fiber's error handler", func(g *middleware.Guard, needs ...valetkey.Requirement) fiber.Handler {
			return func(c fiber.Ctx) error {
				r := &http.Request{Header: http.Header{"Authorization": {c.Get("Authorization")}}}
				if d := g.Decide(r, needs...); d.Err() != nil {
					return fiber.NewError(d.Status(), string(d.Body()))
				}
				return valetfiber.Require(g, needs...)(c)
			}
		}, "no credentials: it answers"},
		{"needs dropped", func(g *middleware.Guard, _ ...valetkey.Requirement) fiber.Handler {
			return valetfiber.Require(g)
		}, "the wrong scope: the handler was called 1 times, not 0"},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			mistaken := adaptertest.Adapter{Serve: adaption{m.require, false}.serve, NoHangUp: true}
			assert.ErrorContains(t, adaptertest.Check(t, mistaken), m.found)
		})
	}
}

// dropping loses the context that it is given.
type dropping struct {
	fiber.Ctx
	was context.Context
}

func (c dropping) SetContext(context.Context) { c.Ctx.SetContext(c.was) }

// What fiber has and net/http has not.
func TestFiber(t *testing.T) {
	accept := valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
		return valetkey.NewToken(valetkey.TokenFields{Subject: "alice", Expiry: time.Now().Add(time.Hour)}), nil
	})
	guard, err := middleware.New(middleware.Config{Verifier: accept, CancelWithToken: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	get := func(t *testing.T, app *fiber.App, header http.Header) (int, string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = header
		resp, err := app.Test(r, fiber.TestConfig{Timeout: time.Minute})
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}
	good := http.Header{"Authorization": {"Bearer x"}}

	t.Run("header names that fiber leaves as they are", func(t *testing.T) {
		app := fiber.New(fiber.Config{DisableHeaderNormalizing: true})
		app.Get("/", valetfiber.Require(guard), func(c fiber.Ctx) error {
			return c.SendString(valetkey.FromContext(c.Context()).Subject())
		})
		status, _ := get(t, app, http.Header{"authorization": {"Bearer x"}, "Authorization": {"Bearer x"}})
		assert.Equal(t, 400, status)
		status, body := get(t, app, http.Header{"authorization": {"Bearer x"}})
		assert.Equal(t, 200, status)
		assert.Equal(t, "alice", body)
	})
	t.Run("a target that net/http would not take", func(t *testing.T) {
		app := fiber.New()
		app.Use(valetfiber.Require(guard), func(c fiber.Ctx) error { return c.SendString("hello") })
		raw := &fasthttp.RequestCtx{}
		raw.Request.Header.SetRequestURI("/%zz")
		raw.Request.Header.Set("Authorization", "Bearer x")
		app.Handler()(raw)
		assert.Equal(t, 400, raw.Response.StatusCode())
		assert.Contains(t, string(raw.Response.Header.Peek("Www-Authenticate")), `error_description="the request target is malformed"`)
	})
	t.Run("the context ends with the handlers, and those around them keep theirs", func(t *testing.T) {
		var inner context.Context
		app := fiber.New()
		app.Use(func(c fiber.Ctx) error {
			outer := c.Context()
			err := c.Next()
			assert.Equal(t, outer, c.Context())
			assert.NoError(t, c.Context().Err())
			return err
		})
		app.Get("/", valetfiber.Require(guard), func(c fiber.Ctx) error {
			inner = c.Context()
			assert.NoError(t, inner.Err())
			return nil
		})
		status, _ := get(t, app, good)
		require.Equal(t, 200, status)
		assert.ErrorIs(t, inner.Err(), context.Canceled)
	})
	t.Run("HTTP-03 a stream that the handler leaves behind has the context until it ends", func(t *testing.T) {
		guard, err := middleware.New(middleware.Config{Verifier: accept, CancelWithToken: true})
		require.NoError(t, err)
		var left context.Context
		app := fiber.New()
		app.Get("/", valetfiber.Require(guard), func(c fiber.Ctx) error {
			ctx := c.Context()
			return c.SendStreamWriter(func(w *bufio.Writer) {
				left = ctx
				fmt.Fprint(w, valetkey.FromContext(ctx).Subject(), ctx.Err(), guard.Status().Requests)
			})
		})
		status, body := get(t, app, good)
		assert.Equal(t, 200, status)
		assert.Equal(t, "alice<nil>1", strings.ReplaceAll(body, " ", ""))
		<-left.Done()
	})
	t.Run("HTTP-03 so has a connection that is taken over", func(t *testing.T) {
		var left context.Context
		app := fiber.New()
		app.Get("/", valetfiber.Require(guard), func(c fiber.Ctx) error {
			ctx := c.Context()
			left = ctx
			c.RequestCtx().HijackSetNoResponse(true)
			c.RequestCtx().Hijack(func(conn net.Conn) {
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s %v", valetkey.FromContext(ctx).Subject(), ctx.Err())
			})
			return nil
		})
		r, err := http.NewRequest("GET", listen(t, app, nil), nil)
		require.NoError(t, err)
		r.Header = good
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, "alice <nil>", string(body))
		<-left.Done()
	})
	t.Run("nothing is left of requests that have ended", func(t *testing.T) {
		assert.Eventually(t, func() bool { return guard.Status().Requests == 0 }, time.Minute, time.Millisecond)
	})
	t.Run("what an earlier handler wrote is not part of a refusal", func(t *testing.T) {
		app := fiber.New()
		app.Use(func(c fiber.Ctx) error {
			c.Set("Cache-Control", "public")
			if err := c.SendString("secret"); err != nil {
				return err
			}
			return c.Next()
		})
		app.Get("/", valetfiber.Require(guard), func(fiber.Ctx) error { return nil })
		raw := &fasthttp.RequestCtx{}
		raw.Request.SetRequestURI("/")
		app.Handler()(raw)
		assert.Equal(t, 401, raw.Response.StatusCode())
		assert.Equal(t, "Unauthorized\n", string(raw.Response.Body()))
		assert.Equal(t, [][]byte{[]byte("no-store")}, raw.Response.Header.PeekAll("Cache-Control"))
	})
}
