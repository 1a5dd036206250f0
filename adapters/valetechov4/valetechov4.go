// Package valetechov4 guards routes of echo v4 with access tokens.
//
//	e.GET("/orders", listOrders, valetechov4.Require(guard, scopes.All("orders:read")))
//
// Handlers read the token with valetkey.FromContext(c.Request().Context()). The middleware writes a refusal itself; echo's error
// handler does not see it.
package valetechov4

import (
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// Require returns middleware that calls the next handler only if g accepts the request. The token must meet all needs. Without
// needs, any valid token is sufficient. With [valetkey.Optional] as the only need, a request without credentials passes too.
// Every other request gets the response of [middleware.Guard.Handler].
func Require(g *middleware.Guard, needs ...valetkey.Requirement) echo.MiddlewareFunc {
	needs = slices.Clone(needs)
	g.Declare(needs...)
	readsPath := middleware.ReadsPath(needs...)
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if readsPath {
				for _, name := range c.ParamNames() {
					c.Request().SetPathValue(name, c.Param(name))
				}
			}
			r, ok := g.Decide(c.Request(), needs...).Apply(c.Response(), c.Request())
			if !ok {
				return nil
			}
			c.SetRequest(r)
			return next(c)
		}
	}
}
