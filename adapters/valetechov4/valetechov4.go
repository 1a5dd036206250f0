// Package valetechov4 guards routes of echo v4 with access tokens.
//
//	e.GET("/orders", listOrders, valetechov4.Require(guard, scopes.All("orders:read")))
//
// Handlers find the token with valetkey.FromContext(c.Request().Context()). A refusal is answered here and is no error
// for echo's error handler.
package valetechov4

import (
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// Require lets a request on to the next handler with a token that meets all needs, or, without needs, with any good
// token. With [valetkey.Optional] as the only need, a request without credentials goes on too. It answers all others as [middleware.Guard.Handler] does.
func Require(g *middleware.Guard, needs ...valetkey.Requirement) echo.MiddlewareFunc {
	needs = slices.Clone(needs)
	g.Declare(needs...)
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r, ok := g.Decide(c.Request(), needs...).Apply(c.Response(), c.Request())
			if !ok {
				return nil
			}
			c.SetRequest(r)
			return next(c)
		}
	}
}
