// Command ginjwt is a server of the conformance suite on gin-jwt with golang-jwt.
package main

import (
	"log"
	"net/http"

	ginjwt "github.com/appleboy/gin-jwt/v3"
	"github.com/gin-gonic/gin"

	"github.com/valetkey/valetkey/conformance/harness/servers/internal/peer"
)

func main() {
	guard, err := ginjwt.New(&ginjwt.GinJWTMiddleware{
		Realm:        "api",
		Key:          []byte("not used, because KeyFunc is set"),
		KeyFunc:      peer.Keys(),
		ParseOptions: peer.Options(),
		IdentityKey:  "sub",
	})
	if err != nil {
		log.Fatal(err)
	}
	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.Use(gin.Recovery(), guard.MiddlewareFunc())
	router.Any(peer.Any, func(c *gin.Context) { c.JSON(http.StatusOK, peer.Identity(ginjwt.ExtractClaims(c))) })
	peer.Serve(router)
}
