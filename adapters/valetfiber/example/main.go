package main

import (
	"cmp"
	"log"
	"os"

	"github.com/gofiber/fiber/v3"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetfiber"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

func main() {
	guard, err := middleware.New(middleware.Config{
		Issuer:   cmp.Or(os.Getenv("ISSUER"), "http://127.0.0.1:8888"),
		Audience: []string{"http://127.0.0.1:8080"},
	})
	if err != nil {
		log.Fatal(err)
	}
	table := routes.Table{
		"GET /healthz": valetkey.Public,
		"GET /orders":  scopes.All("orders:read"),
		"POST /orders": scopes.All("orders:write"),
	}
	hello := func(c fiber.Ctx) error { return c.JSON(valetkey.FromContext(c.Context()).Subject()) }
	app := fiber.New(fiber.Config{ReadBufferSize: 32 << 10}) // tokens are long
	app.Get("/healthz", func(c fiber.Ctx) error { return c.SendStatus(200) })
	app.Get("/orders", valetfiber.Require(guard, table["GET /orders"]), hello)
	app.Post("/orders", valetfiber.Require(guard, table["POST /orders"]), hello)
	var listed []routes.Route
	for _, r := range app.GetRoutes(true) {
		listed = append(listed, routes.Route{Method: r.Method, Path: r.Path})
	}
	if err := table.Covers(routes.Fiber, listed...); err != nil {
		log.Fatal(err)
	}
	log.Fatal(app.Listen(cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080")))
}
