package valetgrpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetgrpc"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

const service = "/grpc.testing.TestService/"

// methods leaves out CacheableUnaryCall and HalfDuplexCall.
var methods = valetgrpc.Methods{
	service + "UnaryCall":           scopes.All("orders:read"),
	service + "EmptyCall":           valetkey.Public,
	service + "UnimplementedCall":   valetkey.AllOf{scopes.All("orders:read"), scopes.All("admin")},
	service + "FullDuplexCall":      scopes.All("orders:read"),
	service + "StreamingOutputCall": valetkey.Optional,
	service + "StreamingInputCall":  valetkey.AnyToken,
}

// A testService answers with the subject of the token in its context.
type testService struct {
	testpb.UnimplementedTestServiceServer
	returned chan error // receives the error that ended each FullDuplexCall; nil: not observed
}

func who(ctx context.Context) string {
	if token := valetkey.FromContext(ctx); token != nil {
		return token.Subject()
	}
	return "nobody"
}

func (s *testService) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, grpc.SetHeader(ctx, metadata.Pairs("who", who(ctx)))
}

func (s *testService) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if r.ResponseSize < 0 {
		panic("boom")
	}
	return &testpb.SimpleResponse{Username: who(ctx)}, nil
}

func (s *testService) CacheableUnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Username: who(ctx)}, nil
}

func (s *testService) StreamingInputCall(stream testpb.TestService_StreamingInputCallServer) error {
	return stream.SendAndClose(&testpb.StreamingInputCallResponse{})
}

func (s *testService) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	return stream.Send(said(who(stream.Context())))
}

func (s *testService) HalfDuplexCall(testpb.TestService_HalfDuplexCallServer) error { return nil }

// FullDuplexCall answers each message; one that asks for it gets answers until the stream takes no more.
func (s *testService) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) (err error) {
	if s.returned != nil {
		defer func() { s.returned <- err }()
	}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if _, again := stream.Recv(); status.Code(again) != status.Code(err) {
				return fmt.Errorf("%w, and then %w", err, again)
			}
			return err
		}
		for {
			if err := stream.Send(said(who(stream.Context()))); err != nil {
				return err
			}
			if len(r.ResponseParameters) == 0 {
				break
			}
		}
	}
}

func said(text string) *testpb.StreamingOutputCallResponse {
	return &testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: []byte(text)}}
}

// serve serves a testService on loopback.
func serve(t testing.TB, guard *middleware.Guard, s *testService, around ...grpc.ServerOption) testpb.TestServiceClient {
	t.Helper()
	guarded, err := valetgrpc.New(guard, methods)
	require.NoError(t, err)
	return serveWith(t, s, append(around, grpc.ChainUnaryInterceptor(guarded.Unary), grpc.ChainStreamInterceptor(guarded.Stream))...)
}

func serveWith(t testing.TB, s *testService, opts ...grpc.ServerOption) testpb.TestServiceClient {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return serveOn(t, listener, grpc.NewServer(opts...), s, listener.Addr().String())
}

// serveInMemory serves as serve does, without a socket: in a bubble of synctest.
func serveInMemory(t testing.TB, guard *middleware.Guard, s *testService, around ...grpc.ServerOption) testpb.TestServiceClient {
	t.Helper()
	guarded, err := valetgrpc.New(guard, methods)
	require.NoError(t, err)
	listener := bufconn.Listen(64 << 10)
	return serveOn(t, listener, grpc.NewServer(append(around, grpc.ChainStreamInterceptor(guarded.Stream))...), s, "passthrough:///memory",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
}

func serveOn(t testing.TB, listener net.Listener, server *grpc.Server, s *testService, target string, opts ...grpc.DialOption) testpb.TestServiceClient {
	t.Helper()
	testpb.RegisterTestServiceServer(server, s)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; !errors.Is(err, grpc.ErrServerStopped) { // it has stopped before it served
			assert.NoError(t, err)
		}
	})
	conn, err := grpc.NewClient(target, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return testpb.NewTestServiceClient(conn)
}

func newGuard(t testing.TB, v valetkey.Verifier, change ...func(*middleware.Config)) *middleware.Guard {
	t.Helper()
	cfg := middleware.Config{Verifier: v, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	guard, err := middleware.New(cfg)
	require.NoError(t, err)
	return guard
}

const (
	outage = "outage"
	ours   = "what only we may know"
)

// keysOf verifies the tokens of iss, and fails on one that is called outage.
func keysOf(t testing.TB, iss *valetkeytest.Issuer) valetkey.Verifier {
	t.Helper()
	keys, err := jwks.New(jwks.Config{
		Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Now: iss.Now, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	require.NoError(t, keys.Ready(t.Context())) // a request would wait for two seconds only
	return valetkey.VerifierFunc(func(ctx context.Context, raw string) (*valetkey.Token, error) {
		if raw == outage {
			return nil, &valetkey.Unavailable{RetryAfter: 7 * time.Second, Err: errors.New(ours)}
		}
		return keys.Verify(ctx, raw)
	})
}

// with returns a context whose call carries these authorization values.
func with(t testing.TB, authorization ...string) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	for _, value := range authorization {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", value)
	}
	return ctx
}

// A call calls one method and returns its result.
type call func(ctx context.Context, api testpb.TestServiceClient, opts ...grpc.CallOption) (string, error)

func unary(ctx context.Context, api testpb.TestServiceClient, opts ...grpc.CallOption) (string, error) {
	r, err := api.UnaryCall(ctx, &testpb.SimpleRequest{}, opts...)
	return r.GetUsername(), err
}

func unlisted(ctx context.Context, api testpb.TestServiceClient, opts ...grpc.CallOption) (string, error) {
	r, err := api.CacheableUnaryCall(ctx, &testpb.SimpleRequest{}, opts...)
	return r.GetUsername(), err
}

func public(ctx context.Context, api testpb.TestServiceClient, opts ...grpc.CallOption) (string, error) {
	var header metadata.MD
	_, err := api.EmptyCall(ctx, &testpb.Empty{}, append(opts, grpc.Header(&header))...)
	return strings.Join(header["who"], ","), err
}

func two(ctx context.Context, api testpb.TestServiceClient, opts ...grpc.CallOption) (string, error) {
	_, err := api.UnimplementedCall(ctx, &testpb.Empty{}, opts...)
	return "", err
}

func duplex(ctx context.Context, api testpb.TestServiceClient, opts ...grpc.CallOption) (string, error) {
	stream, err := api.FullDuplexCall(ctx, opts...)
	if err != nil {
		return "", err
	}
	if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	r, err := stream.Recv()
	if err != nil {
		return "", err
	}
	if err := stream.CloseSend(); err != nil {
		return "", err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return "", err
	}
	return string(r.GetPayload().GetBody()), nil
}

func unlistedStream(ctx context.Context, api testpb.TestServiceClient, opts ...grpc.CallOption) (string, error) {
	stream, err := api.HalfDuplexCall(ctx, opts...)
	if err != nil {
		return "", err
	}
	if _, err = stream.Recv(); errors.Is(err, io.EOF) {
		return "", nil
	}
	return "", err
}

func anyToken(ctx context.Context, api testpb.TestServiceClient, opts ...grpc.CallOption) (string, error) {
	stream, err := api.StreamingInputCall(ctx, opts...)
	if err != nil {
		return "", err
	}
	_, err = stream.CloseAndRecv()
	return "", err
}

func optional(ctx context.Context, api testpb.TestServiceClient, opts ...grpc.CallOption) (string, error) {
	stream, err := api.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{}, opts...)
	if err != nil {
		return "", err
	}
	r, err := stream.Recv()
	return string(r.GetPayload().GetBody()), err
}

// An exchange is a call and its expected result.
type exchange struct {
	name          string
	call          call
	authorization []string
	code          codes.Code
	challenge     string // how the trailer www-authenticate begins
	answer        string
}

func (x exchange) check(t testing.TB, api testpb.TestServiceClient) error {
	var trailer metadata.MD
	answer, err := x.call(with(t, x.authorization...), api, grpc.Trailer(&trailer))
	challenge := strings.Join(trailer["www-authenticate"], "\n")
	switch {
	case status.Code(err) != x.code:
		return fmt.Errorf("%s: the code is %v, not %v: %w", x.name, status.Code(err), x.code, err)
	case answer != x.answer:
		return fmt.Errorf("%s: the answer is %q, not %q", x.name, answer, x.answer)
	case !strings.HasPrefix(challenge, x.challenge) || (challenge == "") != (x.challenge == ""):
		return fmt.Errorf("%s: the challenge is %s", x.name, challenge)
	case x.code == codes.Unavailable && !slices.Equal(trailer["retry-after"], []string{"7"}):
		return fmt.Errorf("%s: retry-after is %q", x.name, trailer["retry-after"])
	case err != nil && strings.Contains(err.Error(), ours):
		return fmt.Errorf("%s: the client gets: %w", x.name, err)
	}
	return nil
}

func exchanges(iss *valetkeytest.Issuer) []exchange {
	good, other := iss.Token(valetkeytest.Scopes("orders:read")), iss.Token(valetkeytest.Scopes("orders:write"))
	expired := iss.Token(valetkeytest.Expired(), valetkeytest.Scopes("orders:read"))
	const (
		none      = `Bearer realm="api", scope="orders:read"`
		malformed = `Bearer realm="api", error="invalid_request", error_description=`
		invalid   = `Bearer realm="api", error="invalid_token", error_description=`
		scarce    = `Bearer realm="api", error="insufficient_scope", error_description="the token lacks a scope that this request needs"`
	)
	return []exchange{
		{"HTTP-11 no credentials", unary, nil, codes.Unauthenticated, none, ""},
		{"HTTP-11 no credentials, a stream", duplex, nil, codes.Unauthenticated, none, ""},
		{"HTTP-11 another scheme", unary, []string{"Basic eDp5"}, codes.Unauthenticated, none, ""},
		{"HTTP-11 malformed", unary, []string{"Bearer a,b"}, codes.Unauthenticated, malformed, ""},
		{"HTTP-11 two values, both good", unary, []string{"Bearer " + good, "Bearer " + good}, codes.Unauthenticated, malformed, ""},
		{"HTTP-11 two values, a stream", duplex, []string{"Basic eDp5", "Bearer " + good}, codes.Unauthenticated, malformed, ""},
		{"HTTP-11 expired", unary, []string{"Bearer " + expired}, codes.Unauthenticated, invalid + `"the token has expired"`, ""},
		{"HTTP-11 expired, a stream", duplex, []string{"Bearer " + expired}, codes.Unauthenticated, invalid + `"the token has expired"`, ""},
		{"HTTP-11 another scope", unary, []string{"Bearer " + other}, codes.PermissionDenied, scarce + `, scope="orders:read"`, ""},
		{"HTTP-11 another scope, a stream", duplex, []string{"Bearer " + other}, codes.PermissionDenied, scarce + `, scope="orders:read"`, ""},
		{"HTTP-11 one need of two: all scopes are asked for", two, []string{"Bearer " + good}, codes.PermissionDenied, scarce + `, scope="admin orders:read"`, ""},
		{"HTTP-11 nothing can be found out", unary, []string{"Bearer " + outage}, codes.Unavailable, "", ""},
		{"HTTP-11 nothing can be found out, a stream", duplex, []string{"Bearer " + outage}, codes.Unavailable, "", ""},
		{"a method that is not listed, no credentials", unlisted, nil, codes.Unauthenticated, `Bearer realm="api"`, ""},
		{"a method that is not listed", unlisted, []string{"Bearer " + good}, codes.PermissionDenied, scarce, ""},
		{"a stream that is not listed", unlistedStream, []string{"Bearer " + good}, codes.PermissionDenied, scarce, ""},
		{"any token, none", anyToken, nil, codes.Unauthenticated, `Bearer realm="api"`, ""},
		{"optional, expired", optional, []string{"Bearer " + expired}, codes.Unauthenticated, invalid, ""},
		{"optional, two values", optional, []string{"Bearer " + good, "x"}, codes.Unauthenticated, malformed, ""},

		{"a good token", unary, []string{"bearer " + good}, codes.OK, "", "alice"},
		{"a good token, a stream", duplex, []string{"Bearer " + good}, codes.OK, "", "alice"},
		{"any token", anyToken, []string{"Bearer " + iss.Token()}, codes.OK, "", ""},
		{"two needs, up to the method, which is not implemented", two, []string{"Bearer " + iss.Token(valetkeytest.Scopes("orders:read", "admin"))}, codes.Unimplemented, "", ""},
		{"public, no credentials", public, nil, codes.OK, "", "nobody"},
		{"public does not look at a token", public, []string{"Bearer a,b", "x"}, codes.OK, "", "nobody"},
		{"optional, no credentials", optional, nil, codes.OK, "", "nobody"},
		{"optional, a good token", optional, []string{"Bearer " + good}, codes.OK, "", "alice"},
	}
}

func TestCodes(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	var log lockedBuffer
	api := serve(t, newGuard(t, keysOf(t, iss), func(c *middleware.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}), &testService{})
	for _, x := range exchanges(iss) {
		t.Run(x.name, func(t *testing.T) {
			assert.NoError(t, x.check(t, api))
			for _, sent := range x.authorization {
				if token := sent[strings.LastIndex(sent, " ")+1:]; len(token) > 100 {
					assert.NotContains(t, log.String(), token[len(token)-40:])
				}
			}
		})
	}
	assert.Contains(t, log.String(), "path="+service+"UnaryCall status=401", "refusals are logged")

	t.Run("HTTP-04 a panic is the caller's", func(t *testing.T) {
		recovered := make(chan any, 1)
		api := serve(t, newGuard(t, keysOf(t, iss)), &testService{}, grpc.ChainUnaryInterceptor(
			func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (_ any, err error) {
				defer func() {
					if p := recover(); p != nil {
						recovered <- p
						err = status.Error(codes.Internal, "panic")
					}
				}()
				return next(ctx, r)
			}))
		token := "Bearer " + iss.Token(valetkeytest.Scopes("orders:read"))
		_, err := api.UnaryCall(with(t, token), &testpb.SimpleRequest{ResponseSize: -1})
		assert.Equal(t, codes.Internal, status.Code(err))
		assert.Equal(t, "boom", <-recovered)
	})
}

// Each of these is a copy of the interceptors with one mistake, which the exchanges find.
func TestOptionalBehindAnotherGuard(t *testing.T) {
	outer := valetkey.NewContext(t.Context(), valetkey.NewToken(valetkey.TokenFields{Subject: "alice"})) // as another interceptor leaves it
	guarded, err := valetgrpc.New(newGuard(t, valetkey.First()), valetgrpc.Methods{"/a/A": valetkey.Optional})
	require.NoError(t, err)
	t.Run("a unary call without credentials sees no token", func(t *testing.T) {
		seen, err := guarded.Unary(outer, nil, &grpc.UnaryServerInfo{FullMethod: "/a/A"}, func(ctx context.Context, _ any) (any, error) {
			return who(ctx), nil
		})
		require.NoError(t, err)
		assert.Equal(t, "nobody", seen)
	})
	t.Run("a stream without credentials sees no token", func(t *testing.T) {
		seen := ""
		err := guarded.Stream(nil, streamOf{ctx: outer}, &grpc.StreamServerInfo{FullMethod: "/a/A"}, func(_ any, stream grpc.ServerStream) error {
			seen = who(stream.Context())
			return nil
		})
		require.NoError(t, err)
		assert.Equal(t, "nobody", seen)
	})
}

// A streamOf is a stream of which only the context is used.
type streamOf struct {
	grpc.ServerStream
	ctx context.Context
}

func (s streamOf) Context() context.Context { return s.ctx }

func TestBoundTokens(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	const every = 2 * time.Minute
	iss.Advance(time.Until(time.Now().Truncate(every).Add(every))) // where a nonce begins
	nonces, err := dpop.NewNonces(dpop.NoncesConfig{Every: every})
	require.NoError(t, err)
	proofs, err := dpop.New(dpop.Config{Nonces: nonces, Now: iss.Now})
	require.NoError(t, err)
	const base = "https://api.example.com"
	api := serve(t, newGuard(t, keysOf(t, iss), func(c *middleware.Config) {
		c.DPoP, c.Now = proofs, iss.Now
		c.URL = func(r *http.Request) string { return base + r.URL.Path }
	}), &testService{})
	key := iss.ProofKey("ES256")
	token := iss.Token(valetkeytest.BoundTo(key), valetkeytest.Scopes("orders:read"), valetkeytest.ExpiresIn(time.Hour))
	send := func(c call, method, nonce string) (header, trailer metadata.MD, err error) {
		proof := key.Proof("POST", base+service+method, token, valetkeytest.Claim("nonce", nonce))
		ctx := metadata.AppendToOutgoingContext(with(t, "DPoP "+token), "dpop", proof)
		_, err = c(ctx, api, grpc.Header(&header), grpc.Trailer(&trailer))
		return header, trailer, err
	}
	t.Run("as a bearer token: a challenge for each scheme", func(t *testing.T) {
		var trailer metadata.MD
		_, err := unary(with(t, "Bearer "+token), api, grpc.Trailer(&trailer))
		assert.Equal(t, codes.Unauthenticated, status.Code(err))
		require.Len(t, trailer["www-authenticate"], 2)
	})
	var nonce string
	t.Run("a proof without a nonce: the trailer has one", func(t *testing.T) {
		_, trailer, err := send(unary, "UnaryCall", "none")
		assert.Equal(t, codes.Unauthenticated, status.Code(err))
		require.Len(t, trailer["dpop-nonce"], 1)
		nonce = trailer["dpop-nonce"][0]
	})
	t.Run("a proof with it, and with an older one: the header has the next", func(t *testing.T) {
		header, _, err := send(unary, "UnaryCall", nonce)
		require.NoError(t, err)
		assert.Empty(t, header["dpop-nonce"])
		iss.Advance(every)
		for _, c := range []struct {
			call   call
			method string
		}{{unary, "UnaryCall"}, {duplex, "FullDuplexCall"}} {
			header, _, err := send(c.call, c.method, nonce)
			require.NoError(t, err)
			require.Len(t, header["dpop-nonce"], 1, c.method)
			assert.NotEqual(t, nonce, header["dpop-nonce"][0])
		}
	})
}

func TestHeaderToken(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	api := serve(t, newGuard(t, keysOf(t, iss), func(c *middleware.Config) {
		c.Methods = []middleware.BearerMethod{middleware.HeaderToken("Cf-Access-Jwt-Assertion")}
	}), &testService{})
	token := iss.Token(valetkeytest.Scopes("orders:read"))
	for _, c := range []struct {
		name string
		sent []string // keys and values
		code codes.Code
	}{
		{"in authorization", []string{"authorization", "Bearer " + token}, codes.Unauthenticated},
		{"twice", []string{"cf-access-jwt-assertion", token, "cf-access-jwt-assertion", token}, codes.Unauthenticated},
		{"with a scheme", []string{"cf-access-jwt-assertion", "Bearer " + token}, codes.Unauthenticated},
		{"in its key", []string{"cf-access-jwt-assertion", token}, codes.OK},
		{"in its key, and another in authorization", []string{"cf-access-jwt-assertion", token, "authorization", "Bearer x"}, codes.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, call := range []call{unary, duplex} {
				_, err := call(metadata.AppendToOutgoingContext(with(t), c.sent...), api)
				assert.Equal(t, c.code, status.Code(err), err)
			}
		})
	}
}

func TestMistakes(t *testing.T) {
	type (
		unaryFunc  = func(*valetgrpc.Interceptor, context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error)
		streamFunc = func(*valetgrpc.Interceptor, any, grpc.ServerStream, *grpc.StreamServerInfo, grpc.StreamHandler) error
	)
	unary, stream := (*valetgrpc.Interceptor).Unary, (*valetgrpc.Interceptor).Stream
	for _, m := range []struct {
		name   string
		unary  unaryFunc
		stream streamFunc
		found  string
	}{
		{"unary, no return", func(i *valetgrpc.Interceptor, ctx context.Context, r any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if answer, err := unary(i, ctx, r, info, next); err == nil {
				return answer, nil
			}
			return next(ctx, r)
		}, stream, "HTTP-11 no credentials: the code is OK, not Unauthenticated"},
		{"unary, context dropped", func(i *valetgrpc.Interceptor, ctx context.Context, r any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			return unary(i, ctx, r, info, func(_ context.Context, r any) (any, error) { return next(ctx, r) })
		}, stream, `a good token: the answer is "nobody", not "alice"`},
		{"unary, another method's row", func(i *valetgrpc.Interceptor, ctx context.Context, r any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			return unary(i, ctx, r, &grpc.UnaryServerInfo{FullMethod: service + "EmptyCall"}, next)
		}, stream, "a method that is not listed, no credentials: the code is OK, not Unauthenticated"},
		{"unary, the status without its trailer", func(i *valetgrpc.Interceptor, ctx context.Context, r any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			return unary(i, grpc.NewContextWithServerTransportStream(ctx, nil), r, info, next)
		}, stream, "HTTP-11 no credentials: the challenge is"},
		{"stream, no return", unary, func(i *valetgrpc.Interceptor, srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := stream(i, srv, ss, info, next); err == nil {
				return nil
			}
			return next(srv, ss)
		}, "HTTP-11 no credentials, a stream: the code is OK, not Unauthenticated"},
		{"stream, context dropped", unary, func(i *valetgrpc.Interceptor, srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return stream(i, srv, ss, info, func(srv any, _ grpc.ServerStream) error { return next(srv, ss) })
		}, `a good token, a stream: the answer is "nobody", not "alice"`},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			iss := valetkeytest.NewIssuer(t)
			guarded, err := valetgrpc.New(newGuard(t, keysOf(t, iss)), methods)
			require.NoError(t, err)
			api := serveWith(t, &testService{}, grpc.UnaryInterceptor(
				func(ctx context.Context, r any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
					return m.unary(guarded, ctx, r, info, next)
				}), grpc.StreamInterceptor(
				func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
					return m.stream(guarded, srv, ss, info, next)
				}))
			var faults []error
			for _, x := range exchanges(iss) {
				faults = append(faults, x.check(t, api))
			}
			assert.ErrorContains(t, errors.Join(faults...), m.found)
		})
	}
}

func TestEndOfStream(t *testing.T) {
	// expiring accepts any token, which then lives for d; zero: for ever.
	expiring := func(d time.Duration) *middleware.Guard {
		return newGuard(t, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			token := valetkey.TokenFields{Subject: "alice", Scopes: valetkey.NewScopes("orders:read")}
			if d != 0 {
				token.Expiry = time.Now().Add(d)
			}
			return valetkey.NewToken(token), nil
		}))
	}
	open := func(t *testing.T, guard *middleware.Guard, around ...grpc.ServerOption) (testpb.TestService_FullDuplexCallClient, *testService) {
		s := &testService{returned: make(chan error, 1)}
		stream, err := serve(t, guard, s, around...).FullDuplexCall(with(t, "Bearer x"))
		require.NoError(t, err)
		return stream, s
	}
	const life = 5 * time.Minute
	bearer := func(t *testing.T) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer x")
	}
	assertEnded := func(t *testing.T, stream testpb.TestService_FullDuplexCallClient, err error) {
		assert.Equal(t, codes.Unauthenticated, status.Code(err), err)
		assert.Equal(t, []string{`Bearer realm="api", error="invalid_token", error_description="the token expired while the stream was open"`},
			stream.Trailer()["www-authenticate"])
	}

	t.Run("HTTP-03 a stream that waits for its client ends with its token, and leaves nothing behind", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			below := make(chan error, 8)
			s := &testService{returned: make(chan error, 1)}
			stream, err := serveInMemory(t, expiring(life), s, grpc.ChainStreamInterceptor(
				func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
					return next(srv, reporting{stream, below})
				})).FullDuplexCall(bearer(t))
			require.NoError(t, err)
			require.NoError(t, stream.Send(&testpb.StreamingOutputCallRequest{}))
			_, err = stream.Recv()
			require.NoError(t, err)
			require.NoError(t, <-below)

			begun := time.Now()
			_, err = stream.Recv()
			assertEnded(t, stream, err)
			assert.Equal(t, life, time.Since(begun))
			assert.Equal(t, codes.Unauthenticated, status.Code(<-s.returned))
			assert.Error(t, <-below, "the RecvMsg of gRPC itself has returned too")
			assert.Empty(t, below, "and was not called again")
		})
	})
	t.Run("HTTP-03 a stream whose client reads nothing ends with its token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &testService{returned: make(chan error, 1)}
			stream, err := serveInMemory(t, expiring(life), s).FullDuplexCall(bearer(t))
			require.NoError(t, err)
			require.NoError(t, stream.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{}}}))
			begun := time.Now()
			assert.Equal(t, codes.Unauthenticated, status.Code(<-s.returned))
			assert.Equal(t, life, time.Since(begun))
			for {
				if _, err := stream.Recv(); err != nil {
					assertEnded(t, stream, err)
					return
				}
			}
		})
	})
	t.Run("HTTP-03 a stream that waits for its client ends when its token is revoked", func(t *testing.T) {
		guard := newGuard(t, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{Issuer: "as", ID: "7", Scopes: valetkey.NewScopes("orders:read")}), nil
		}), func(c *middleware.Config) { c.CancelWithToken = true })
		stream, s := open(t, guard)
		require.NoError(t, stream.Send(&testpb.StreamingOutputCallRequest{}))
		_, err := stream.Recv()
		require.NoError(t, err)
		require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: "as", ID: "7"}))
		_, err = stream.Recv()
		assert.Equal(t, codes.Unauthenticated, status.Code(err), err)
		assert.Equal(t, []string{`Bearer realm="api", error="invalid_token", error_description="the token has been revoked"`},
			stream.Trailer()["www-authenticate"])
		assert.Equal(t, codes.Unauthenticated, status.Code(<-s.returned))
	})
	t.Run("HTTP-03 a token that is accepted within the leeway has the rest of it", func(t *testing.T) {
		stream, s := open(t, newGuard(t, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{Expiry: time.Now().Add(-time.Second), Deadline: time.Now().Add(time.Hour), Scopes: valetkey.NewScopes("orders:read")}), nil
		})))
		require.NoError(t, stream.Send(&testpb.StreamingOutputCallRequest{}))
		_, err := stream.Recv()
		require.NoError(t, err)
		require.NoError(t, stream.CloseSend())
		_, err = stream.Recv()
		assert.ErrorIs(t, err, io.EOF)
		assert.NoError(t, <-s.returned)
	})
	t.Run("a stream of a longer life ends with its client", func(t *testing.T) {
		for name, life := range map[string]time.Duration{"an hour": time.Hour, "for ever": 0} {
			stream, s := open(t, expiring(life))
			for range 3 {
				require.NoError(t, stream.Send(&testpb.StreamingOutputCallRequest{}))
				r, err := stream.Recv()
				require.NoError(t, err, name)
				assert.Equal(t, "alice", string(r.GetPayload().GetBody()))
			}
			require.NoError(t, stream.CloseSend())
			_, err := stream.Recv()
			assert.ErrorIs(t, err, io.EOF, name)
			assert.NoError(t, <-s.returned)
			assert.Empty(t, stream.Trailer())
		}
	})
	t.Run("a client that goes away ends it as ever", func(t *testing.T) {
		s := &testService{returned: make(chan error, 1)}
		ctx, cancel := context.WithCancel(with(t, "Bearer x"))
		stream, err := serve(t, expiring(time.Hour), s).FullDuplexCall(ctx)
		require.NoError(t, err)
		require.NoError(t, stream.Send(&testpb.StreamingOutputCallRequest{}))
		_, err = stream.Recv()
		require.NoError(t, err)
		cancel()
		assert.Equal(t, codes.Canceled, status.Code(<-s.returned))
	})
	t.Run("a panic below is the method's", func(t *testing.T) {
		recovered := make(chan any, 1)
		stream, s := open(t, expiring(time.Hour), grpc.ChainStreamInterceptor(
			func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
				defer func() {
					recovered <- recover()
					err = status.Error(codes.Internal, "panic")
				}()
				return next(srv, panicking{stream})
			}))
		require.NoError(t, stream.Send(&testpb.StreamingOutputCallRequest{}))
		_, err := stream.Recv()
		assert.Equal(t, codes.Internal, status.Code(err))
		assert.Equal(t, "boom", <-recovered)
		<-s.returned
	})
}

type reporting struct {
	grpc.ServerStream
	returned chan<- error
}

func (s reporting) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	s.returned <- err
	return err
}

type panicking struct{ grpc.ServerStream }

func (panicking) SendMsg(any) error { panic("boom") }

func TestNew(t *testing.T) {
	guard := newGuard(t, valetkey.First())
	_, err := valetgrpc.New(nil, valetgrpc.Methods{
		"orders.v1.Orders/List":   scopes.All("a"),
		"/orders.v1.Orders":       scopes.All("b"),
		"/orders.v1.Orders/":      scopes.All("b"),
		"//List":                  scopes.All("b"),
		"/orders.v1.Orders/a/b":   scopes.All("b"),
		"":                        scopes.All("c"),
		"/orders.v1.Orders/Watch": nil,
	})
	require.Error(t, err)
	mistakes := strings.Split(err.Error(), "\n")
	slices.Sort(mistakes)
	assert.Equal(t, []string{
		`valetgrpc: Methods[""]: not of the form /package.Service/Method`,
		`valetgrpc: Methods["//List"]: not of the form /package.Service/Method`,
		`valetgrpc: Methods["/orders.v1.Orders"]: not of the form /package.Service/Method`,
		`valetgrpc: Methods["/orders.v1.Orders/"]: not of the form /package.Service/Method`,
		`valetgrpc: Methods["/orders.v1.Orders/Watch"]: nil`,
		`valetgrpc: Methods["/orders.v1.Orders/a/b"]: not of the form /package.Service/Method`,
		`valetgrpc: Methods["orders.v1.Orders/List"]: not of the form /package.Service/Method`,
		`valetgrpc: guard: required`,
	}, mistakes)
	for _, m := range valetkey.ConfigErrors(err) {
		assert.True(t, m.Field == "guard" || strings.HasPrefix(m.Field, "Methods["), m.Field)
	}

	t.Run("a table that changes later changes nothing", func(t *testing.T) {
		table := valetgrpc.Methods{service + "UnaryCall": scopes.All("a")}
		guarded, err := valetgrpc.New(guard, table)
		require.NoError(t, err)
		table[service+"UnaryCall"] = valetkey.Public
		_, err = serveWith(t, &testService{}, grpc.UnaryInterceptor(guarded.Unary)).UnaryCall(with(t), &testpb.SimpleRequest{})
		assert.Equal(t, codes.Unauthenticated, status.Code(err))
	})
	t.Run("an empty table refuses all", func(t *testing.T) {
		guarded, err := valetgrpc.New(guard, nil)
		require.NoError(t, err)
		_, err = serveWith(t, &testService{}, grpc.UnaryInterceptor(guarded.Unary)).EmptyCall(with(t), &testpb.Empty{})
		assert.Equal(t, codes.Unauthenticated, status.Code(err))
	})
	t.Run("a requirement of nothing, and an unknown openness, open nothing", func(t *testing.T) {
		accept := newGuard(t, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{}), nil
		}))
		for _, odd := range []valetkey.Requirement{valetkey.AllOf{}, scopes.Requirement{}} {
			guarded, err := valetgrpc.New(accept, valetgrpc.Methods{service + "EmptyCall": odd})
			require.NoError(t, err)
			_, err = serveWith(t, &testService{}, grpc.UnaryInterceptor(guarded.Unary)).EmptyCall(with(t, "Bearer x"), &testpb.Empty{})
			assert.Equal(t, codes.PermissionDenied, status.Code(err), "%#v", odd)
		}
		for _, odd := range []valetkey.Openness{"", "open"} {
			guarded, err := valetgrpc.New(accept, valetgrpc.Methods{service + "EmptyCall": odd})
			require.NoError(t, err)
			_, err = serveWith(t, &testService{}, grpc.UnaryInterceptor(guarded.Unary)).EmptyCall(with(t, "Bearer x"), &testpb.Empty{})
			assert.Equal(t, codes.Unavailable, status.Code(err), "%q", odd)
		}
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
