// Command nethttp is a resource server with net/http and the guard of this module, for the conformance suite:
//
//	valetkey conform --profile bearer,rfc9068,introspection,metadata,dpop,step-up,mcp \
//		--start "nethttp --issuer {issuer} --audience {audience} --listen {listen} --introspection {introspection}"
package main

import (
	"net/http"

	"github.com/valetkey/valetkey/conformance/harness/internal/api"
)

func main() { api.Main(handler) }

func handler(a *api.API) http.Handler {
	mux := http.NewServeMux()
	for path := range a.Routes {
		mux.Handle(path, a.Guard.Handler(http.HandlerFunc(api.Identity), a.Needs(path)...))
	}
	mux.Handle(a.Guard.Metadata())
	return mux
}
