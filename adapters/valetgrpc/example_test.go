package valetgrpc_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetgrpc"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// demo accepts one token, the word valet.
var demo = valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
	if raw != "valet" {
		return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonInactive}
	}
	return valetkey.NewToken(valetkey.TokenFields{Subject: "alice", Scopes: valetkey.NewScopes("health:read")}), nil
})

func ExampleNew() {
	guard, err := middleware.New(middleware.Config{Verifier: demo}) // in production, one from jwks.New
	if err != nil {
		log.Fatal(err)
	}
	guarded, err := valetgrpc.New(guard, valetgrpc.Methods{
		"/grpc.health.v1.Health/Check": scopes.All("health:read"),
		"/grpc.health.v1.Health/Watch": scopes.All("health:watch"),
	})
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(guarded.Unary), grpc.StreamInterceptor(guarded.Stream))
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go server.Serve(listener)
	defer server.Stop()

	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	client := healthpb.NewHealthClient(conn)
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer valet")

	checked, err := client.Check(ctx, &healthpb.HealthCheckRequest{})
	fmt.Println("Check:", checked.GetStatus(), status.Code(err))
	_, err = client.List(ctx, &healthpb.HealthListRequest{}) // not listed in Methods
	fmt.Println("List:", status.Code(err))
	var trailer metadata.MD
	_, err = client.Check(context.Background(), &healthpb.HealthCheckRequest{}, grpc.Trailer(&trailer))
	fmt.Println("Check:", status.Code(err), trailer["www-authenticate"])
	// Output:
	// Check: SERVING OK
	// List: PermissionDenied
	// Check: Unauthenticated [Bearer realm="api", scope="health:read"]
}
