package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

func main() {
	guard, err := middleware.New(middleware.Config{Issuer: os.Getenv("ISSUER"), Audience: []string{os.Getenv("AUDIENCE")}})
	if err != nil {
		log.Fatal(err)
	}
	starting, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := guard.Ready(starting); err != nil { // a wrong issuer is reported here, not as a 401 for each token
		log.Fatal(err)
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello, %s\n", valetkey.FromContext(r.Context()).Subject())
	})
	http.Handle("GET /orders", guard.Handler(hello, scopes.All("orders:read")))
	http.Handle("POST /orders", guard.Handler(hello, scopes.All("orders:write")))
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), nil))
}
