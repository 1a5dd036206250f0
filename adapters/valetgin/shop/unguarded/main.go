// Command shop is an ordinary gin application. It exists twice: without a guard in the folder unguarded, and with one in the folder above.
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/gin-gonic/gin"
)

func main() {
	log.Fatal(newAPI().Run(os.Getenv("ADDR")))
}

func newAPI() *gin.Engine {
	router := gin.Default()
	router.GET("/orders", listOrders)
	router.POST("/orders", placeOrder)
	return router
}

func listOrders(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"orders": []string{"a teapot"}}) }

func placeOrder(c *gin.Context) { c.Status(http.StatusCreated) }
