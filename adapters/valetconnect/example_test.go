package valetconnect_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetconnect"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// demo accepts one token, the word valet.
var demo = valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
	if raw != "valet" {
		return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonInactive}
	}
	return valetkey.NewToken(valetkey.TokenFields{Subject: "alice", Scopes: valetkey.NewScopes("orders:read")}), nil
})

func ExampleNew() {
	guard, err := middleware.New(middleware.Config{Verifier: demo}) // in production, one from jwks.New
	if err != nil {
		log.Fatal(err)
	}
	guarded, err := valetconnect.New(guard, valetconnect.Procedures{
		"/orders.v1.Orders/List":   scopes.All("orders:read"),
		"/orders.v1.Orders/Cancel": scopes.All("orders:write"),
	})
	if err != nil {
		log.Fatal(err)
	}
	services := http.NewServeMux() // in production, the handlers that protoc-gen-connect-go generates
	for _, name := range []string{"/orders.v1.Orders/List", "/orders.v1.Orders/Cancel"} {
		services.Handle(name, connect.NewUnaryHandler(name, func(ctx context.Context, _ *connect.Request[emptypb.Empty]) (*connect.Response[wrapperspb.StringValue], error) {
			return connect.NewResponse(wrapperspb.String("the orders of " + valetkey.FromContext(ctx).Subject())), nil
		}))
	}
	server := httptest.NewServer(guarded(services))
	defer server.Close()

	for _, name := range []string{"/orders.v1.Orders/List", "/orders.v1.Orders/Cancel"} {
		client := connect.NewClient[emptypb.Empty, wrapperspb.StringValue](server.Client(), server.URL+name)
		request := connect.NewRequest(&emptypb.Empty{})
		request.Header().Set("Authorization", "Bearer valet")
		response, err := client.CallUnary(context.Background(), request)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(response.Msg.GetValue())
	}
	// Output:
	// the orders of alice
	// permission_denied: Forbidden: the token lacks a scope that this request needs
}
