package main

import (
	"cmp"
	"log"
	"os"

	"github.com/labstack/echo/v5"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetecho"
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
	hello := func(c *echo.Context) error { return c.JSON(200, valetkey.FromContext(c.Request().Context()).Subject()) }
	e := echo.New()
	e.GET("/healthz", func(c *echo.Context) error { return c.NoContent(200) })
	e.GET("/orders", hello, valetecho.Require(guard, table["GET /orders"]))
	e.POST("/orders", hello, valetecho.Require(guard, table["POST /orders"]))
	var listed []routes.Route
	for _, r := range e.Router().Routes() {
		listed = append(listed, routes.Route{Method: r.Method, Path: r.Path})
	}
	if err := table.Covers(routes.Echo, listed...); err != nil {
		log.Fatal(err)
	}
	log.Fatal(e.Start(cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080")))
}
