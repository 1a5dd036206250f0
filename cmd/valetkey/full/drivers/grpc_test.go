package drivers_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/valetkey/valetkey/cmd/valetkey/full/drivers"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A service is a gRPC server with unary calls, and streams in one direction and in both. It records the metadata of calls, and the
// ends of streams with their method.
type service struct {
	addr  string
	seen  chan metadata.MD
	ended chan string
}

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{seen: make(chan metadata.MD, 100), ended: make(chan string, 100)}
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		s.seen <- md
		grpc.SetHeader(ctx, metadata.Pairs("x-served", "1", "dpop-nonce", "upstream's"))
		grpc.SetTrailer(ctx, metadata.Pairs("x-count", "7", "x-raw-bin", "\x00\xff", "dpop-nonce", "upstream's", "x-valetkey-subject", "eve"))
		return handler(ctx, req)
	}
	stream := func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		err := handler(srv, ss)
		s.ended <- info.FullMethod
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(unary), grpc.StreamInterceptor(stream))
	states := health.NewServer()
	states.SetServingStatus("orders", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(server, states)
	reflection.RegisterV1(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	s.addr = l.Addr().String()
	return s
}

// guardedService serves a proxy before upstream and returns a connection to it.
func guardedService(t *testing.T, iss *valetkeytest.Issuer, upstream string) *grpc.ClientConn {
	t.Helper()
	file := filepath.Join(t.TempDir(), "proxy.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
listen: 127.0.0.1:0
upstream: h2c://%s
resource: %s
verifiers: [jwks: {issuer: %q, leeway: 0s}]
routes:
  "POST /grpc.health.v1.Health/Check": orders:read
  "POST /grpc.health.v1.Health/Watch": "@any"
  "POST /grpc.reflection.v1.ServerReflection/": "@any"
`, upstream, valetkeytest.DefaultAudience, iss.URL), 0o600))
	log := new(journal)
	p, err := proxy.Open(file, drivers.All(), slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Serve(ctx, nil) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
		p.Close()
	})
	listening := regexp.MustCompile(`listening on ([0-9.:]+)"`)
	require.Eventually(t, func() bool { return listening.MatchString(log.String()) }, soon, time.Millisecond, log)
	conn, err := grpc.NewClient(listening.FindStringSubmatch(log.String())[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// as returns a context that ends with the test at the latest, with a token and other metadata.
func as(t *testing.T, token string, more ...string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	t.Cleanup(cancel)
	if token != "" {
		more = append(more, "authorization", "Bearer "+token)
	}
	return metadata.AppendToOutgoingContext(ctx, more...)
}

func TestGRPCThroughTheProxy(t *testing.T) {
	iss, upstream := valetkeytest.NewIssuer(t), newService(t)
	conn := guardedService(t, iss, upstream.addr)
	client := healthpb.NewHealthClient(conn)
	token := iss.Token(valetkeytest.Scopes("orders:read"))

	for _, c := range []struct {
		name, token string
		more        []string
		code        codes.Code
		challenge   string
	}{
		{"no token", "", nil, codes.Unauthenticated, `Bearer realm="api"`},
		{"an expired token", iss.Token(valetkeytest.Expired()), nil, codes.Unauthenticated, `error="invalid_token"`},
		{"two tokens", token, []string{"authorization", "Bearer x"}, codes.Unauthenticated, `error="invalid_request"`},
		{"too little scope", iss.Token(valetkeytest.Scopes("files")), nil, codes.PermissionDenied, `error="insufficient_scope"`},
	} {
		t.Run(c.name+" is refused, and the client can read the challenge", func(t *testing.T) {
			var trailer metadata.MD
			_, err := client.Check(as(t, c.token, c.more...), &healthpb.HealthCheckRequest{Service: "orders"}, grpc.Trailer(&trailer))
			assert.Equal(t, c.code, status.Code(err), err)
			assert.Contains(t, strings.Join(trailer["www-authenticate"], ""), c.challenge)
			assert.Empty(t, upstream.seen)
		})
	}
	t.Run("a stream is refused", func(t *testing.T) {
		stream, err := client.Watch(as(t, ""), &healthpb.HealthCheckRequest{})
		require.NoError(t, err)
		_, err = stream.Recv()
		assert.Equal(t, codes.Unauthenticated, status.Code(err), err)
	})
	t.Run("a method without a row is refused", func(t *testing.T) {
		err := conn.Invoke(as(t, token), "/grpc.health.v1.Health/List", &healthpb.HealthListRequest{}, &healthpb.HealthListResponse{})
		assert.Equal(t, codes.PermissionDenied, status.Code(err), err)
	})
	t.Run("an issuer that is down is UNAVAILABLE, with a delay", func(t *testing.T) {
		down := valetkeytest.NewIssuer(t)
		down.Metadata.Down()
		var trailer metadata.MD
		_, err := healthpb.NewHealthClient(guardedService(t, down, upstream.addr)).Check(as(t, down.Token()), &healthpb.HealthCheckRequest{}, grpc.Trailer(&trailer))
		assert.Equal(t, codes.Unavailable, status.Code(err), err)
		assert.NotEmpty(t, trailer["retry-after"])
	})
	t.Run("an upstream that is down is UNAVAILABLE", func(t *testing.T) {
		_, err := healthpb.NewHealthClient(guardedService(t, iss, clitest.FreeAddr(t))).Check(as(t, token), &healthpb.HealthCheckRequest{})
		assert.Equal(t, codes.Unavailable, status.Code(err), err)
	})

	t.Run("a call passes with its metadata, headers and trailers", func(t *testing.T) {
		var header, trailer metadata.MD
		res, err := client.Check(as(t, token, "x-mine", "1", "x-mine-bin", "\x00\x01", "x-valetkey-scope", "admin"), &healthpb.HealthCheckRequest{Service: "orders"},
			grpc.Header(&header), grpc.Trailer(&trailer))
		require.NoError(t, err)
		assert.Equal(t, healthpb.HealthCheckResponse_SERVING, res.Status)
		assert.Equal(t, []string{"1"}, header["x-served"])
		assert.Equal(t, []string{"7"}, trailer["x-count"])
		assert.Equal(t, []string{"\x00\xff"}, trailer["x-raw-bin"])
		assert.Empty(t, header["dpop-nonce"])
		assert.Empty(t, trailer["dpop-nonce"])
		assert.Empty(t, trailer["x-valetkey-subject"])
		seen := <-upstream.seen
		assert.Equal(t, []string{"1"}, seen["x-mine"])
		assert.Equal(t, []string{"\x00\x01"}, seen["x-mine-bin"])
		assert.Equal(t, []string{"alice"}, seen["x-valetkey-subject"])
		assert.Equal(t, []string{"orders:read"}, seen["x-valetkey-scope"])
		assert.Empty(t, seen["authorization"])
	})
	t.Run("an error of the service passes with its message", func(t *testing.T) {
		_, err := client.Check(as(t, token), &healthpb.HealthCheckRequest{Service: "other"})
		assert.Equal(t, codes.NotFound, status.Code(err))
		assert.Equal(t, "unknown service", status.Convert(err).Message())
	})
	t.Run("a stream in both directions takes turns", func(t *testing.T) {
		stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(as(t, token))
		require.NoError(t, err)
		for range 3 {
			require.NoError(t, stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}))
			res, err := stream.Recv()
			require.NoError(t, err)
			assert.Len(t, res.GetListServicesResponse().GetService(), 2)
		}
		require.NoError(t, stream.CloseSend())
		_, err = stream.Recv()
		assert.EqualError(t, err, "EOF")
		assert.Equal(t, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", <-upstream.ended)
	})
	t.Run("a client that cancels ends the stream at the service", func(t *testing.T) {
		ctx, cancel := context.WithCancel(as(t, token))
		stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{Service: "orders"})
		require.NoError(t, err)
		_, err = stream.Recv()
		require.NoError(t, err)
		cancel()
		assert.Equal(t, "/grpc.health.v1.Health/Watch", <-upstream.ended)
	})
	t.Run("a deadline passes", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(as(t, token), 3*time.Second)
		defer cancel()
		stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{Service: "orders"})
		require.NoError(t, err)
		_, err = stream.Recv()
		require.NoError(t, err)
		for err == nil {
			_, err = stream.Recv()
		}
		assert.Equal(t, codes.DeadlineExceeded, status.Code(err), err)
		assert.Equal(t, "/grpc.health.v1.Health/Watch", <-upstream.ended)
	})
	t.Run("a stream ends with its token, as UNAUTHENTICATED", func(t *testing.T) {
		brief := iss.Token(valetkeytest.ExpiresIn(6 * time.Second)) // the leeway is none
		one, err := client.Watch(as(t, brief), &healthpb.HealthCheckRequest{Service: "orders"})
		require.NoError(t, err)
		two, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(as(t, brief))
		require.NoError(t, err)
		_, err = one.Recv()
		require.NoError(t, err)
		_, err = one.Recv()
		assert.Equal(t, codes.Unauthenticated, status.Code(err), err)
		_, err = two.Recv() // of which nothing has come yet
		assert.Equal(t, codes.Unauthenticated, status.Code(err), err)
		assert.ElementsMatch(t, []string{"/grpc.health.v1.Health/Watch", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"}, []string{<-upstream.ended, <-upstream.ended})
	})
}
