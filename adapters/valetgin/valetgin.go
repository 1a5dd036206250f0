// Package valetgin guards routes of gin with access tokens.
//
//	router.GET("/orders", valetgin.Require(guard, scopes.All("orders:read")), listOrders)
//
// Handlers find the token with valetkey.FromContext(c.Request.Context()).
package valetgin

import (
	"slices"

	"github.com/gin-gonic/gin"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// Require lets a request on to the next handler with a token that meets all needs, or, without needs, with any good
// token. With [valetkey.Optional] as the only need, a request without credentials goes on too. It answers all others as [middleware.Guard.Handler] does, and aborts.
func Require(g *middleware.Guard, needs ...valetkey.Requirement) gin.HandlerFunc {
	needs = slices.Clone(needs)
	g.Declare(needs...)
	return func(c *gin.Context) {
		r, ok := g.Decide(c.Request, needs...).Apply(c.Writer, c.Request)
		if !ok {
			c.Abort()
			return
		}
		c.Request = r
	}
}
