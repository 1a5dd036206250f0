package valetfiber_test

import (
	"net/url"
	"testing"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"

	"github.com/valetkey/valetkey/valetkeytest/adaptertest"
)

func TestEncodedSlash(t *testing.T) {
	respond := func(kind string) fiber.Handler {
		return func(c fiber.Ctx) error {
			id, err := url.PathUnescape(c.Params("id")) // fiber does not decode it
			if err != nil {
				return err
			}
			return c.SendString(kind + " " + id)
		}
	}
	app := fiber.New()
	app.Get("/projects/:id", respond("project"))
	app.Get("/projects/:id/keys", respond("keys"))
	adaptertest.TestEncodedSlash(t, adaptor.FiberApp(app))
}
