package main

import (
	"cmp"
	"log"
	"os"

	"github.com/gin-gonic/gin"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetgin"
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
	hello := func(c *gin.Context) { c.JSON(200, valetkey.FromContext(c.Request.Context()).Subject()) }
	router := gin.Default()
	router.GET("/healthz", func(c *gin.Context) { c.Status(200) })
	router.GET("/orders", valetgin.Require(guard, table["GET /orders"]), hello)
	router.POST("/orders", valetgin.Require(guard, table["POST /orders"]), hello)
	var listed []routes.Route
	for _, r := range router.Routes() {
		listed = append(listed, routes.Route{Method: r.Method, Path: r.Path})
	}
	if err := table.Covers(routes.Gin, listed...); err != nil {
		log.Fatal(err)
	}
	log.Fatal(router.Run(cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080")))
}
