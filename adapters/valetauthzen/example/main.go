package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetauthzen"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

func main() {
	guard, err := middleware.New(middleware.Config{Issuer: os.Getenv("ISSUER"), Audience: []string{"https://orders.example.com"}})
	if err != nil {
		log.Fatal(err)
	}
	pdp, err := valetauthzen.New(valetauthzen.Config{URL: os.Getenv("PDP")})
	if err != nil {
		log.Fatal(err)
	}
	defer pdp.Close()

	var api routes.Mux
	api.HandleFunc("GET /orders/{id}", order, valetkey.AllOf{
		scopes.All("orders:read"),
		pdp.Require(valetauthzen.Rule{Action: "view", ResourceType: "order", ResourceID: "id"}),
	})
	handler, err := api.Guarded(guard)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), handler))
}

func order(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "order %s\n", r.PathValue("id"))
}
