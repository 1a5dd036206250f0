// Package valetfiber guards routes of fiber v3 with access tokens.
//
//	app := fiber.New(fiber.Config{ReadBufferSize: 32 << 10})
//	app.Get("/orders", valetfiber.Require(guard, scopes.All("orders:read")), listOrders)
//
// Handlers find the token with valetkey.FromContext(c.Context()). That context ends when the handlers have returned, as
// under net/http, or when a stream or a hijacked connection that they left behind has. Fiber does not say when a client has gone.
//
// Fiber's own limit for a request's header, 4 KiB together, is less than some tokens need; beyond it fiber answers 431.
package valetfiber

import (
	"context"
	"slices"

	"github.com/gofiber/fiber/v3"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// Require lets a request on to the next handler with a token that meets all needs, or, without needs, with any good
// token. With [valetkey.Optional] as the only need, a request without credentials goes on too. It answers all others as [middleware.Guard.Handler] does.
func Require(g *middleware.Guard, needs ...valetkey.Requirement) fiber.Handler {
	needs = slices.Clone(needs)
	g.Declare(needs...)
	return func(c fiber.Ctx) error { return guarded(g, c, needs) }
}

func guarded(g *middleware.Guard, c fiber.Ctx, needs []valetkey.Requirement) error {
	parent := c.Context()
	ctx, cancel := context.WithCancel(parent)
	defer func() {
		c.SetContext(parent)
		if c.Response().IsBodyStream() || c.RequestCtx().Hijacked() {
			// fasthttp closes what is among the values of a request once it has written the stream, or the connection is given back.
			c.RequestCtx().SetUserValue(endKey{ctx}, closer(cancel))
			return
		}
		cancel()
	}()

	d := decide(ctx, g, c, needs)
	for name, values := range d.Header() {
		if name != "Vary" && name != "Access-Control-Expose-Headers" { // beside what the API itself has
			c.Response().Header.Del(name)
		}
		for _, value := range values {
			c.Response().Header.Add(name, value)
		}
	}
	if d.Err() != nil {
		c.Response().SetStatusCode(d.Status())
		c.Response().SetBody(d.Body())
		return nil
	}
	c.SetContext(d.Context(ctx))
	return c.Next()
}

// endKey is that of the value that ends a context.
type endKey struct{ ctx context.Context }

type closer func()

func (c closer) Close() error {
	c()
	return nil
}
