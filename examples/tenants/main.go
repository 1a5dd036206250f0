package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

func main() {
	guard, err := middleware.New(middleware.Config{Issuer: os.Getenv("ISSUER"), Audience: []string{"https://orders.example.com"}})
	if err != nil {
		log.Fatal(err)
	}
	ownTenant := claims.EqualPathValue("tenant_id", "tenant") // the claim tenant_id, and {tenant} in the path
	var api routes.Mux
	api.HandleFunc("GET /tenants/{tenant}/orders", orders, valetkey.AllOf{scopes.All("orders:read"), ownTenant})
	api.HandleFunc("DELETE /tenants/{tenant}", orders, valetkey.AllOf{
		scopes.All("tenants:delete"),
		valetkey.AnyOf{ownTenant, claims.Contains("groups", "operators")},
	})
	handler, err := api.Guarded(guard)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), handler))
}

func orders(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "the orders of %s\n", r.PathValue("tenant"))
}
