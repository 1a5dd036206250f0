// A consumer of the core.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

func newAPI(guard *middleware.Guard) http.Handler {
	return guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "the orders of ", valetkey.FromContext(r.Context()).Subject())
	}), scopes.All("orders:read"))
}

func main() {
	guard, err := middleware.New(middleware.Config{Issuer: os.Getenv("ISSUER"), Audience: []string{"https://api.example.com"}})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), newAPI(guard)))
}
