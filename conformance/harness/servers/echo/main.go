// Command echo is the server of the conformance suite on echo v5, with adapters/valetecho.
package main

import (
	"net/http"

	"github.com/labstack/echo/v5"

	"github.com/valetkey/valetkey/adapters/valetecho"
	"github.com/valetkey/valetkey/conformance/harness/internal/api"
)

func main() {
	api.Main(func(a *api.API) http.Handler {
		e := echo.New()
		for path := range a.Routes {
			e.Any(path, echo.WrapHandler(http.HandlerFunc(api.Identity)), valetecho.Require(a.Guard, a.Needs(path)...))
		}
		path, metadata := a.Guard.Metadata()
		e.Any(path, echo.WrapHandler(metadata))
		return e
	})
}
