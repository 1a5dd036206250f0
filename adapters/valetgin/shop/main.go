// Command shop is an ordinary gin application whose orders need an access token, with the test that belongs to it. It accepts
// tokens of the demo, unless ISSUER, AUDIENCE and ADDR are set.
package main

import (
	"cmp"
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

func main() {
	keys, err := jwks.New(jwks.Config{
		Issuer:   cmp.Or(os.Getenv("ISSUER"), "http://127.0.0.1:8888"),
		Audience: []string{cmp.Or(os.Getenv("AUDIENCE"), "http://127.0.0.1:8080")},
	})
	if err != nil {
		log.Fatal(err)
	}
	api, err := newAPI(middleware.Config{Verifier: keys})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(api.Run(cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8090")))
}

// newAPI takes the configuration of the guard, so that a test can pass the verifier and the clock of its issuer.
func newAPI(cfg middleware.Config) (*gin.Engine, error) {
	guard, err := middleware.New(cfg)
	if err != nil {
		return nil, err
	}
	router := gin.Default()
	router.GET("/orders", valetgin.Require(guard, scopes.All("orders:read")), func(c *gin.Context) {
		c.JSON(http.StatusOK, gin.H{"orders of": valetkey.FromContext(c.Request.Context()).Subject()})
	})
	router.POST("/orders", valetgin.Require(guard, scopes.All("orders:write")), func(c *gin.Context) {
		c.Status(http.StatusCreated)
	})
	return router, nil
}
