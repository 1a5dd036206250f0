// A consumer of the adapter for gin.
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/gin-gonic/gin"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetgin"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

func orders(keys *jwks.Verifier) (http.Handler, error) {
	guard, err := middleware.New(middleware.Config{Verifier: keys})
	if err != nil {
		return nil, err
	}
	router := gin.New()
	router.GET("/orders", valetgin.Require(guard, scopes.All("orders:read")), func(c *gin.Context) {
		c.String(http.StatusOK, "the orders of %s", valetkey.FromContext(c.Request.Context()).Subject())
	})
	return router, nil
}

func main() {
	keys, err := jwks.New(jwks.Config{Issuer: os.Getenv("ISSUER"), Audience: []string{"https://api.example.com"}})
	if err != nil {
		log.Fatal(err)
	}
	api, err := orders(keys)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), api))
}
