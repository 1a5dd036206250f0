package main

import (
	"cmp"
	"errors"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetgrpc"
	"github.com/valetkey/valetkey/middleware"
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
	methods := valetgrpc.Methods{
		"/orders.v1.Orders/About": valetkey.Public,
		"/orders.v1.Orders/List":  scopes.All("orders:read"),
		"/orders.v1.Orders/Place": scopes.All("orders:write"),
	}
	guarded, err := valetgrpc.New(guard, methods)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(guarded.Unary), grpc.StreamInterceptor(guarded.Stream))
	server.RegisterService(&ordersService, orders{})
	listener, err := net.Listen("tcp", cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"))
	if err := errors.Join(err, methods.Covers(server)); err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(listener))
}
