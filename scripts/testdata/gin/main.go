// A consumer of the adapter for gin.
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/gin-gonic/gin"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetgin"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

func newAPI(guard *middleware.Guard) http.Handler {
	router := gin.New()
	router.GET("/orders", valetgin.Require(guard, scopes.All("orders:read")), func(c *gin.Context) {
		c.String(http.StatusOK, "the orders of %s", valetkey.FromContext(c.Request.Context()).Subject())
	})
	return router
}

func main() {
	guard, err := middleware.New(middleware.Config{Issuer: os.Getenv("ISSUER"), Audience: []string{"https://api.example.com"}})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), newAPI(guard)))
}
