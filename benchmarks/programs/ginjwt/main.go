// Command ginjwt is examples/orders on gin-jwt v3, which does not fetch keys, for its size.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"

	ginjwt "github.com/appleboy/gin-jwt/v3"
	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt/v5"

	"github.com/valetkey/valetkey/benchmarks/programs/internal/publickey"
)

func main() {
	key, err := publickey.Read(os.Getenv("KEY"))
	if err != nil {
		log.Fatal(err)
	}
	mw, err := ginjwt.New(&ginjwt.GinJWTMiddleware{
		Key:          []byte("unused"),
		KeyFunc:      func(*jwt.Token) (any, error) { return key, nil },
		ParseOptions: []jwt.ParserOption{jwt.WithValidMethods([]string{"ES256"}), jwt.WithIssuer(os.Getenv("ISSUER")), jwt.WithAudience("https://orders.example.com")},
	})
	if err != nil {
		log.Fatal(err)
	}
	e := gin.New()
	e.Use(mw.MiddlewareFunc())
	e.GET("/orders", scoped("orders:read"))
	e.POST("/orders", scoped("orders:write"))
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), e))
}

func scoped(need string) gin.HandlerFunc {
	return func(c *gin.Context) {
		claims := ginjwt.ExtractClaims(c)
		scope, _ := claims["scope"].(string)
		if !slices.Contains(strings.Fields(scope), need) {
			c.AbortWithStatus(http.StatusForbidden)
			return
		}
		c.String(http.StatusOK, fmt.Sprintf("hello, %s\n", claims["sub"]))
	}
}
