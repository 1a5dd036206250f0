package valetgin_test

import (
	"crypto/tls"
	"io"
	"log"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetgin"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest/adaptertest"
)

func init() { gin.SetMode(gin.ReleaseMode) }

// An adaption is valetgin, or a copy of it with a mistake.
type adaption struct {
	require func(g *middleware.Guard, needs ...valetkey.Requirement) gin.HandlerFunc
}

func (a adaption) serve(t testing.TB, routes []adaptertest.Route) string {
	return a.serveTLS(t, routes, nil)
}

func (a adaption) serveTLS(t testing.TB, routes []adaptertest.Route, config *tls.Config) string {
	router := gin.New()
	router.Use(gin.LoggerWithWriter(io.Discard), gin.RecoveryWithWriter(io.Discard)) // as gin.Default does
	for _, route := range routes {
		group := router.Group("")
		if route.Outer != nil {
			group.Use(a.require(route.Outer))
		}
		for _, needs := range route.Require {
			group.Use(a.require(route.Guard, needs...))
		}
		group.Any(route.Path, gin.WrapH(route.Handler))
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
	own := adaption{valetgin.Require}
	adaptertest.Test(t, adaptertest.Adapter{Serve: own.serve, ServeTLS: own.serveTLS, PathParameter: func(name string) string { return ":" + name }})
}

func TestMistakes(t *testing.T) {
	type requireFunc = func(*middleware.Guard, ...valetkey.Requirement) gin.HandlerFunc
	for _, c := range []struct {
		name    string
		require requireFunc
		found   string
	}{
		{"no abort", func(g *middleware.Guard, needs ...valetkey.Requirement) gin.HandlerFunc {
			return func(c *gin.Context) {
				if r, ok := g.Decide(c.Request, needs...).Apply(c.Writer, c.Request); ok {
					c.Request = r
				}
			}
		}, "no credentials: the handler was called 1 times, not 0"},
		{"context dropped", func(g *middleware.Guard, needs ...valetkey.Requirement) gin.HandlerFunc {
			return func(c *gin.Context) {
				if _, ok := g.Decide(c.Request, needs...).Apply(c.Writer, c.Request); !ok {
					c.Abort()
				}
			}
		}, "hello nobody"},
		{"the status alone", func(g *middleware.Guard, needs ...valetkey.Requirement) gin.HandlerFunc {
			return func(c *gin.Context) {
				d := g.Decide(c.Request, needs...)
				if d.Err() != nil {
					c.AbortWithStatus(d.Status())
					return
				}
				c.Request, _ = d.Apply(c.Writer, c.Request)
			}
		}, "no credentials: it answers"},
		{"needs dropped", func(g *middleware.Guard, _ ...valetkey.Requirement) gin.HandlerFunc {
			return valetgin.Require(g)
		}, "the wrong scope: the handler was called 1 times, not 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mistaken := adaptertest.Adapter{Serve: adaption{c.require}.serve}
			assert.ErrorContains(t, adaptertest.Check(t, mistaken), c.found)
		})
	}
}
