// Command echojwt is a server of the conformance suite on echo-jwt with golang-jwt.
package main

import (
	"net/http"

	"github.com/golang-jwt/jwt/v5"
	echojwt "github.com/labstack/echo-jwt/v5"
	"github.com/labstack/echo/v5"

	"github.com/valetkey/valetkey/conformance/harness/servers/internal/peer"
)

func main() {
	// Issuer and audience are options of the parser, which ParseTokenFunc is for.
	parser, keys := jwt.NewParser(peer.Options()...), peer.Keys()
	e := echo.New()
	e.Use(echojwt.WithConfig(echojwt.Config{
		ParseTokenFunc: func(_ *echo.Context, raw string) (any, error) { return parser.Parse(raw, keys) },
	}))
	e.Any(peer.Any, func(c *echo.Context) error {
		token, err := echo.ContextGet[*jwt.Token](c, "user")
		if err != nil {
			return echo.ErrUnauthorized.Wrap(err)
		}
		return c.JSON(http.StatusOK, peer.Identity(token.Claims.(jwt.MapClaims)))
	})
	peer.Serve(e)
}
