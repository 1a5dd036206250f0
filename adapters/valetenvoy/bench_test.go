package valetenvoy_test

import (
	"context"
	"net"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/valetkey/valetkey/valetkeytest"
)

// usual returns a check as Envoy sends it for a client of an API.
func usual(token string) *authv3.CheckRequest {
	return raw(check("GET", "/orders?page=2&limit=50", bearer(token),
		":authority: api.example.com", ":method: GET", ":path: /orders?page=2&limit=50", ":scheme: https", "accept: application/json",
		"accept-encoding: gzip, deflate, br", "accept-language: en", "cache-control: no-cache", "content-type: application/json",
		"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "user-agent: orders/1.2", "x-forwarded-for: 192.0.2.7",
		"x-forwarded-proto: https", "x-envoy-internal: true", "x-request-id: 8d0f1f0a-5e5a-4a1c-9d2f-0e8a4c1b7a53"))
}

// allowing lets every request through.
type allowing struct {
	authv3.UnimplementedAuthorizationServer
}

func (allowing) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}},
	}, nil
}

// BenchmarkCheck measures a check with a remembered token: the Server alone, and over a connection beside a service that lets every
// request through.
func BenchmarkCheck(b *testing.B) {
	g := newGateway(b, nil)
	in := usual(g.iss.Token(valetkeytest.Scopes("orders:read")))
	require.Equal(b, 200, g.ask(in).status)
	b.Run("alone", func(b *testing.B) {
		ctx := fromLoopback(b)
		b.ReportAllocs()
		for b.Loop() {
			if out, err := g.server.Check(ctx, in); err != nil || out.Status.Code != 0 {
				b.Fatal(out, err)
			}
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	stub := grpc.NewServer()
	authv3.RegisterAuthorizationServer(stub, allowing{})
	go stub.Serve(listener)
	b.Cleanup(stub.Stop)
	message, err := proto.Marshal(in)
	require.NoError(b, err)
	for _, side := range []struct{ name, addr string }{
		{"over gRPC", serve(b, g.server)},
		{"over gRPC, stub", listener.Addr().String()},
	} {
		// The client does not encode and decode, so that most of the time is that of the servers.
		conn := dial(b, side.addr, grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})))
		b.Run(side.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					var received []byte
					if err := conn.Invoke(b.Context(), authv3.Authorization_Check_FullMethodName, message, &received); err != nil || len(received) == 0 {
						b.Error(received, err)
						return
					}
				}
			})
		})
	}
}
