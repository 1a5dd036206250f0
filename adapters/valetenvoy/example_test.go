package valetenvoy_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetenvoy"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

// A service that Envoy asks, and two requests that Envoy asks about.
func ExampleNew() {
	guard, err := middleware.New(middleware.Config{Verifier: words}) // in production, one from jwks.New
	if err != nil {
		log.Fatal(err)
	}
	decider, err := routes.Table{
		"GET /orders":  scopes.All("orders:read"),
		"GET /healthz": valetkey.Public,
	}.Decider(guard)
	if err != nil {
		log.Fatal(err)
	}
	authorize, err := valetenvoy.New(valetenvoy.Config{
		Decider: decider,
		Callers: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, // where Envoy runs
	})
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	authorize.Register(server)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go server.Serve(listener)
	defer server.GracefulStop() // after SetServing(false), and the time in which gateways notice it

	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	envoy := authv3.NewAuthorizationClient(conn)
	for _, authorization := range []string{"", "Bearer valet"} {
		out, err := envoy.Check(context.Background(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Method: "GET", Scheme: "https", Host: "api.example.com", Path: "/orders?page=2", Headers: map[string]string{"authorization": authorization},
			}},
		}})
		if err != nil {
			log.Fatal(err)
		}
		if denied := out.GetDeniedResponse(); denied != nil {
			fmt.Println(denied.Status.Code, denied.Body)
		}
		for _, h := range out.GetOkResponse().GetHeaders() {
			fmt.Println(h.Header.Key, h.Header.Value)
		}
	}
	healthy, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(healthy.GetStatus(), err)
	// Output:
	// Unauthorized Unauthorized
	//
	// x-valetkey-scope orders:read
	// x-valetkey-subject valet
	// SERVING <nil>
}
