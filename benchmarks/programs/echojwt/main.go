// Command echojwt is examples/orders on echo-jwt v5, which does not fetch keys, for its size.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
	echojwt "github.com/labstack/echo-jwt/v5"
	"github.com/labstack/echo/v5"

	"github.com/valetkey/valetkey/benchmarks/programs/internal/publickey"
)

func main() {
	key, err := publickey.Read(os.Getenv("KEY"))
	if err != nil {
		log.Fatal(err)
	}
	e := echo.New()
	e.Use(echojwt.WithConfig(echojwt.Config{SigningKey: key, SigningMethod: "ES256"}))
	e.GET("/orders", scoped("orders:read"))
	e.POST("/orders", scoped("orders:write"))
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), e))
}

func scoped(need string) echo.HandlerFunc {
	return func(c *echo.Context) error {
		claims := c.Get("user").(*jwt.Token).Claims.(jwt.MapClaims)
		scope, _ := claims["scope"].(string)
		if !slices.Contains(strings.Fields(scope), need) {
			return echo.ErrForbidden
		}
		return c.String(http.StatusOK, fmt.Sprintf("hello, %s\n", claims["sub"]))
	}
}
