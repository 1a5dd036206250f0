package valetfiber_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/gofiber/fiber/v3"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetfiber"
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
	app := fiber.New(fiber.Config{ReadBufferSize: 32 << 10}) // tokens are long
	app.Get("/orders", valetfiber.Require(guard, scopes.All("orders:read")), func(c fiber.Ctx) error {
		return c.SendString("the orders of " + valetkey.FromContext(c.Context()).Subject() + "\n")
	})
	app.Delete("/orders", valetfiber.Require(guard, scopes.All("admin")), func(c fiber.Ctx) error {
		return c.SendStatus(http.StatusNoContent)
	})

	for _, method := range []string{"GET", "DELETE"} {
		request := httptest.NewRequest(method, "/orders", nil)
		request.Header.Set("Authorization", "Bearer valet")
		response, err := app.Test(request, fiber.TestConfig{}) // without a limit
		if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d %s", response.StatusCode, body)
	}
	// Output:
	// 200 the orders of alice
	// 403 Forbidden: the token lacks a scope that this request needs
}
