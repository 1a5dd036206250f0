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

func main() {
	guard, err := middleware.New(middleware.Config{Issuer: os.Getenv("ISSUER"), Audience: []string{"https://orders.example.com"}})
	if err != nil {
		log.Fatal(err)
	}
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := valetkey.FromContext(r.Context())
		fmt.Fprintf(w, "%s, %s\n", token.Subject(), token.ACR())
	})
	http.Handle("GET /orders", guard.Handler(answer, scopes.All("orders:read")))
	http.Handle("POST /refunds", guard.Handler(answer, scopes.All("orders:refund"), middleware.ACR("phr")))
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), nil))
}
