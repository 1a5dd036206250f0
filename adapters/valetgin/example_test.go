package valetgin_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/gin-gonic/gin"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetgin"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// demo accepts one token, the word valet.
var demo = valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
	if raw != "valet" {
		return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonInactive}
	}
	return valetkey.NewToken(valetkey.TokenFields{Subject: "alice", Scopes: valetkey.NewScopes("orders:read")}), nil
})

func ExampleRequire() {
	guard, err := middleware.New(middleware.Config{Verifier: demo}) // in production, one from jwks.New
	if err != nil {
		log.Fatal(err)
	}
	router := gin.New()
	router.GET("/orders", valetgin.Require(guard, scopes.All("orders:read")), func(c *gin.Context) {
		c.String(http.StatusOK, "the orders of %s\n", valetkey.FromContext(c.Request.Context()).Subject())
	})
	router.DELETE("/orders", valetgin.Require(guard, scopes.All("admin")), func(c *gin.Context) {
		c.Status(http.StatusNoContent)
	})

	for _, method := range []string{"GET", "DELETE"} {
		request := httptest.NewRequest(method, "/orders", nil)
		request.Header.Set("Authorization", "Bearer valet")
		response := httptest.NewRecorder()
		router.ServeHTTP(response, request)
		fmt.Print(response.Code, " ", response.Body)
	}
	// Output:
	// 200 the orders of alice
	// 403 Forbidden: the token lacks a scope that this request needs
}
