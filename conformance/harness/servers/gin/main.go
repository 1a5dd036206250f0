// Command gin is the server of the conformance suite on gin, with adapters/valetgin.
package main

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/valetkey/valetkey/adapters/valetgin"
	"github.com/valetkey/valetkey/conformance/harness/internal/api"
)

func main() {
	api.Main(func(a *api.API) http.Handler {
		gin.SetMode(gin.ReleaseMode)
		router := gin.New()
		for path := range a.Routes {
			router.Any(path, valetgin.Require(a.Guard, a.Needs(path)...), gin.WrapF(api.Identity))
		}
		path, metadata := a.Guard.Metadata()
		router.Any(path, gin.WrapH(metadata))
		return router
	})
}
