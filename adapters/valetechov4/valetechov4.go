// Package valetechov4 guards routes of echo v4 with access tokens.
//
//	e.GET("/orders", listOrders, valetechov4.Require(guard, scopes.All("orders:read")))
//
// Handlers find the token with valetkey.FromContext(c.Request().Context()). A refusal is answered here and is no error
// for echo's error handler.
package valetechov4

import (
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// Require lets a request on to the next handler with a token that meets all needs, or, without needs, with any good
// token. It answers all others as [middleware.Guard.Handler] does.
func Require(g *middleware.Guard, needs ...valetkey.Requirement) echo.MiddlewareFunc {
	needs = slices.Clone(needs)
	g.Declare(needs...)
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			checked, err := g.Check(c.Response(), c.Request(), needs...)
			if err != nil {
				g.Refuse(c.Response(), c.Request(), err)
				return nil
			}
			c.SetRequest(checked)
			return next(c)
		}
	}
}

// Optional lets a request without credentials on to the next handler too, as [middleware.Guard.Optional] does.
func Optional(g *middleware.Guard) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) (err error) {
			g.Optional(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				c.SetRequest(r)
				err = next(c)
			})).ServeHTTP(c.Response(), c.Request())
			return err
		}
	}
}
