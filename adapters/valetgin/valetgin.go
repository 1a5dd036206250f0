// Package valetgin guards routes of gin with access tokens.
//
//	router.GET("/orders", valetgin.Require(guard, scopes.All("orders:read")), listOrders)
//
// Handlers read the token with valetkey.FromContext(c.Request.Context()).
package valetgin

import (
	"slices"

	"github.com/gin-gonic/gin"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// Require returns a handler that calls the next handler only if g accepts the request. The token must meet all needs. Without
// needs, any valid token is sufficient. With [valetkey.Optional] as the only need, a request without credentials passes too.
// Every other request gets the response of [middleware.Guard.Handler], and the chain is aborted.
func Require(g *middleware.Guard, needs ...valetkey.Requirement) gin.HandlerFunc {
	needs = slices.Clone(needs)
	g.Declare(needs...)
	readsPath := middleware.ReadsPath(needs...)
	return func(c *gin.Context) {
		if readsPath {
			for _, p := range c.Params {
				c.Request.SetPathValue(p.Key, p.Value)
			}
		}
		r, ok := g.Decide(c.Request, needs...).Apply(c.Writer, c.Request)
		if !ok {
			c.Abort()
			return
		}
		c.Request = r
	}
}
