// Command chi is the server of the conformance suite on chi, which needs no adapter.
package main

import (
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/valetkey/valetkey/conformance/harness/internal/api"
)

func main() {
	api.Main(func(a *api.API) http.Handler {
		router := chi.NewRouter()
		for path := range a.Routes {
			router.With(a.Guard.Require(a.Needs(path)...)).HandleFunc(path, api.Identity)
		}
		path, metadata := a.Guard.Metadata()
		router.Handle(path, metadata)
		return router
	})
}
