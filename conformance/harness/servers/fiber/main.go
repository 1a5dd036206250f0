// Command fiber is the server of the conformance suite on fiber v3, with adapters/valetfiber. It does not offer mTLS.
package main

import (
	"context"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"

	"github.com/valetkey/valetkey/adapters/valetfiber"
	"github.com/valetkey/valetkey/conformance"
	"github.com/valetkey/valetkey/conformance/harness/internal/api"
)

func main() {
	api.MainServe(func(ctx context.Context, s conformance.Setup, a *api.API) error {
		app := fiber.New(fiber.Config{ReadBufferSize: 32 << 10}) // tokens are long
		for path := range a.Routes {
			app.All(path, valetfiber.Require(a.Guard, a.Needs(path)...), func(c fiber.Ctx) error { return c.JSON(api.Caller(c.Context())) })
		}
		path, metadata := a.Guard.Metadata()
		app.All(path, adaptor.HTTPHandler(metadata))
		return app.Listen(s.Listen, fiber.ListenConfig{GracefulContext: ctx, DisableStartupMessage: true})
	})
}
