package main

import (
	"cmp"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/go-chi/chi/v5"
	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

func main() {
	guard, err := middleware.New(middleware.Config{
		Issuer:   cmp.Or(os.Getenv("ISSUER"), "http://127.0.0.1:8888"),
		Audience: []string{"http://127.0.0.1:8080"},
	})
	if err != nil {
		log.Fatal(err)
	}
	table := routes.Table{
		"GET /healthz": valetkey.Public,
		"GET /orders":  scopes.All("orders:read"),
		"POST /orders": scopes.All("orders:write"),
	}
	hello := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, valetkey.FromContext(r.Context()).Subject())
	}
	router := chi.NewRouter()
	router.Get("/healthz", func(http.ResponseWriter, *http.Request) {})
	router.With(guard.Require(table["GET /orders"])).Get("/orders", hello)
	router.With(guard.Require(table["POST /orders"])).Post("/orders", hello)
	if err := chi.Walk(router, func(method, path string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		return table.Covers(routes.Chi, routes.Route{Method: method, Path: path})
	}); err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"), router))
}
