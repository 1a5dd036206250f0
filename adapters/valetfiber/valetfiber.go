// Package valetfiber guards routes of fiber v3 with access tokens.
//
//	app := fiber.New(fiber.Config{ReadBufferSize: 32 << 10})
//	app.Get("/orders", valetfiber.Require(guard, scopes.All("orders:read")), listOrders)
//
// Handlers read the token with valetkey.FromContext(c.Context()). That context ends when the handlers have returned, as with
// net/http. If the handlers leave a stream or a hijacked connection behind, the context ends with it. The context does not end
// when a client disconnects, because fiber does not report that.
//
// Fiber limits the headers of a request to 4 KiB in total by default, which is too small for some tokens. Fiber responds to
// larger headers with 431. Raise the limit with ReadBufferSize.
package valetfiber

import (
	"context"
	"slices"

	"github.com/gofiber/fiber/v3"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// Require returns a handler that calls the next handler only if g accepts the request. The token must meet all needs. Without
// needs, any valid token is sufficient. With [valetkey.Optional] as the only need, a request without credentials passes too.
// Every other request gets the response of [middleware.Guard.Handler].
func Require(g *middleware.Guard, needs ...valetkey.Requirement) fiber.Handler {
	needs = slices.Clone(needs)
	g.Declare(needs...)
	readsPath := middleware.ReadsPath(needs...)
	return func(c fiber.Ctx) error { return guarded(g, c, readsPath, needs) }
}

func guarded(g *middleware.Guard, c fiber.Ctx, readsPath bool, needs []valetkey.Requirement) error {
	parent := c.Context()
	ctx, cancel := context.WithCancel(parent)
	defer func() {
		c.SetContext(parent)
		if c.Response().IsBodyStream() || c.RequestCtx().Hijacked() {
			// fasthttp closes the user values of a request once it has written the stream or given the hijacked connection back.
			c.RequestCtx().SetUserValue(endKey{ctx}, closer(cancel))
			return
		}
		cancel()
	}()

	d := decide(ctx, g, c, readsPath, needs)
	for name, values := range d.Header() {
		if name != "Vary" && name != "Access-Control-Expose-Headers" { // added to the API's own values
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

// An endKey is the key of the user value that ends ctx.
type endKey struct{ ctx context.Context }

type closer func()

func (c closer) Close() error {
	c()
	return nil
}
