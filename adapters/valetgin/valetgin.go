// Package valetgin guards routes of gin with access tokens.
//
//	router.GET("/orders", valetgin.Require(guard, scopes.All("orders:read")), listOrders)
//
// Handlers find the token with valetkey.FromContext(c.Request.Context()).
package valetgin

import (
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// Require lets a request on to the next handler with a token that meets all needs, or, without needs, with any good
// token. It answers all others as [middleware.Guard.Handler] does, and aborts.
func Require(g *middleware.Guard, needs ...valetkey.Requirement) gin.HandlerFunc {
	needs = slices.Clone(needs)
	g.Declare(needs...)
	return func(c *gin.Context) {
		checked, err := g.Check(c.Writer, c.Request, needs...)
		if err != nil {
			c.Abort()
			g.Refuse(c.Writer, c.Request, err)
			return
		}
		c.Request = checked
	}
}

// Optional lets a request without credentials on to the next handler too, as [middleware.Guard.Optional] does.
func Optional(g *middleware.Guard) gin.HandlerFunc {
	return func(c *gin.Context) {
		passed := false
		g.Optional(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			c.Request, passed = r, true
		})).ServeHTTP(c.Writer, c.Request)
		if !passed {
			c.Abort()
		}
	}
}
