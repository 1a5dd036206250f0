package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

func main() {
	audit, err := middleware.Audit(slog.NewJSONHandler(os.Stdout, nil), middleware.AuditOptions{})
	if err != nil {
		log.Fatal(err)
	}
	guard, err := middleware.New(middleware.Config{
		Issuer:   os.Getenv("ISSUER"),
		Audience: []string{"https://orders.example.com"},
		Observer: audit,
	})
	if err != nil {
		log.Fatal(err)
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello, %s\n", valetkey.FromContext(r.Context()).Subject())
	})
	http.Handle("GET /orders", guard.Handler(hello, scopes.All("orders:read")))
	server := &http.Server{Addr: os.Getenv("ADDR")}
	stopped, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	go server.ListenAndServe()
	<-stopped.Done()

	ending, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	server.Shutdown(ending)
	audit.Close(ending) // writes the records that wait
}
