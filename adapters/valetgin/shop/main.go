// Command shop is an ordinary gin application. It exists twice: without a guard in the folder unguarded, and with one in the folder above.
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/gin-gonic/gin"
	"github.com/valetkey/valetkey/adapters/valetgin"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

func main() {
	guard, err := middleware.New(middleware.Config{Issuer: os.Getenv("ISSUER"), Audience: []string{os.Getenv("AUDIENCE")}})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(newAPI(guard).Run(os.Getenv("ADDR")))
}

func newAPI(guard *middleware.Guard) *gin.Engine {
	router := gin.Default()
	router.GET("/orders", valetgin.Require(guard, scopes.All("orders:read")), listOrders)
	router.POST("/orders", valetgin.Require(guard, scopes.All("orders:write")), placeOrder)
	return router
}

func listOrders(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"orders": []string{"a teapot"}}) }

func placeOrder(c *gin.Context) { c.Status(http.StatusCreated) }
