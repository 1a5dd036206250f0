package main

import (
	"cmp"
	"context"
	"log"
	"net/http"
	"os"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetconnect"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

func hello(ctx context.Context, _ *connect.Request[emptypb.Empty]) (*connect.Response[wrapperspb.StringValue], error) {
	return connect.NewResponse(wrapperspb.String(valetkey.FromContext(ctx).Subject())), nil
}

func main() {
	guard, err := middleware.New(middleware.Config{
		Issuer:   cmp.Or(os.Getenv("ISSUER"), "http://127.0.0.1:8888"),
		Audience: []string{"http://127.0.0.1:8080"},
	})
	if err != nil {
		log.Fatal(err)
	}
	needs := valetconnect.Procedures{"/orders.v1.Orders/List": scopes.All("orders:read"), "/orders.v1.Orders/Place": scopes.All("orders:write")}
	guarded, err := valetconnect.New(guard, needs)
	if err != nil {
		log.Fatal(err)
	}
	services := http.NewServeMux()
	for procedure := range needs {
		services.Handle(procedure, connect.NewUnaryHandler(procedure, hello))
	}
	log.Fatal(http.ListenAndServe(cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"), guarded(services)))
}
