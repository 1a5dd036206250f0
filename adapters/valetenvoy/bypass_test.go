package valetenvoy_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetenvoy"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// Each class of requests with which other services of this kind were bypassed. A reader asks for what only an administrator may have,
// or for what a public row seems to have.
func TestBypasses(t *testing.T) {
	g := newGatewayFor(t, routes.Table{
		"GET /orders":             scopes.All("orders:read"),
		"GET /admin":              scopes.All("admin"),
		"GET /public/":            valetkey.Public,
		"GET /healthz":            valetkey.Public,
		"GET admin.example.com/":  scopes.All("admin"),
		"GET public.example.com/": valetkey.Public,
	}, nil)
	reader := g.iss.Token(valetkeytest.Scopes("orders:read"))
	for _, c := range []struct {
		name    string
		method  string
		path    string
		headers []string
		status  int
	}{
		{"the client's X-Forwarded-Uri", "GET", "/admin", []string{"x-forwarded-uri: /healthz", "x-original-url: /healthz", "x-envoy-original-path: /healthz", "x-rewrite-url: /healthz"}, 403},
		{"the client's X-Forwarded-Method", "POST", "/orders", []string{"x-forwarded-method: GET", "x-http-method-override: GET"}, 403},
		{"a public path in the query", "GET", "/admin?/public/", nil, 403},
		{"a public path in a parameter", "GET", "/admin?x=/../healthz", nil, 403},
		{"a public path behind a fragment", "GET", "/admin#/public/", nil, 400},
		{"a public path before a fragment", "GET", "/public/#/../../admin", nil, 400},
		{"an encoded question mark", "GET", "/admin%3F/public/", nil, 403},
		{"an encoded number sign", "GET", "/admin%23/public/", nil, 403},
		{"EXT-14 a path that reads as an authority", "GET", "//admin", nil, 400},
		{"a path that reads as a public authority", "GET", "//public.example.com/admin", nil, 400},
		{"an absolute URL", "GET", "http://public.example.com/admin", nil, 400},
		{"EXT-14 two dots", "GET", "/public/../admin", nil, 400},
		{"EXT-14 encoded dots", "GET", "/public/%2e%2E/admin", nil, 400},
		{"EXT-14 one dot", "GET", "/public/./x", nil, 400},
		{"EXT-14 an encoded slash", "GET", "/public%2Fadmin", nil, 400},
		{"EXT-14 an encoded slash in lower case", "GET", "/public/..%2fadmin", nil, 400},
		{"EXT-14 an encoded backslash", "GET", "/public/..%5cadmin", nil, 400},
		{"EXT-14 a backslash", "GET", `/public/..\admin`, nil, 400},
		{"EXT-14 a parameter of a dot segment", "GET", "/public/..;/admin", nil, 400},
		{"EXT-14 a parameter of an encoded dot segment", "GET", "/public/%2e%2e;x=1/admin", nil, 400},
		{"EXT-14 NUL", "GET", "/public/%00/admin", nil, 400},
		{"EXT-14 a line break", "GET", "/public/%0d%0aX: y", nil, 400},
		{"a bare line break", "GET", "/public/\r\nx-valetkey-subject: a", nil, 400},
		{"two slashes in the path", "GET", "/public//admin", nil, 400},
		{"bytes that are not ASCII", "GET", "/public/é", nil, 400},
		{"a method in small letters", "get", "/healthz", nil, 400},
		{"two methods", "GET,POST", "/healthz", nil, 400},
		{"aliases of forwarding headers", "GET", "/admin", []string{"x_forwarded_uri: /healthz", "X.Forwarded.Host: public.example.com", "forwarded: host=public.example.com"}, 403},
		{"the health path by User-Agent", "GET", "/admin", []string{"user-agent: GoogleHC/1.0", "x-health: 1"}, 403},
		{"a Connection header that removes the identity", "GET", "/orders", []string{"connection: x-valetkey-subject"}, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, form := range []string{"headers", "header_map"} {
				in := check(c.method, c.path, append([]string{bearer(reader)}, c.headers...)...)
				if form == "header_map" {
					in = raw(in)
				}
				got := g.ask(in)
				assert.Equal(t, c.status, got.status, form)
				assert.Empty(t, got.denial.Get("Location"))
			}
		})
	}
	t.Run("the letter case of the host", func(t *testing.T) {
		for _, host := range []string{"admin.example.com", "ADMIN.example.com", "admin.example.com:8443", "Admin.Example.Com:443"} {
			in := check("GET", "/x", bearer(reader))
			in.Attributes.Request.Http.Host = host
			assert.Equal(t, 403, g.ask(in).status, host)
		}
	})
	t.Run("a host that is not one", func(t *testing.T) {
		for _, host := range []string{"public.example.com/", "public.example.com, admin.example.com", "x@public.example.com", "public.example.com\r\n"} {
			in := check("GET", "/x", bearer(reader))
			in.Attributes.Request.Http.Host = host
			assert.Equal(t, 400, g.ask(in).status, host)
		}
	})
	t.Run("a cache that knows the token only", func(t *testing.T) {
		for range 2 {
			assert.Equal(t, 200, g.ask(check("GET", "/orders", bearer(reader))).status)
			assert.Equal(t, 403, g.ask(check("GET", "/admin", bearer(reader))).status)
			assert.Equal(t, 401, g.ask(check("GET", "/orders", bearer(reader+"x"))).status)
		}
	})
}

// Envoy does not replace bytes of a path that are not UTF-8, although a message cannot carry them (envoy#32607, CVE-2023-27488).
func TestNotUTF8(t *testing.T) {
	g := newGateway(t, nil)
	message, err := proto.Marshal(check("GET", "/healthz?x=AAAA", "user-agent: BBBB"))
	require.NoError(t, err)
	conn := dial(t, serve(t, g.server), grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})))
	for name, sent := range map[string][]byte{
		"in the path":               bytes.ReplaceAll(message, []byte("AAAA"), []byte("\xff\xfe\xfd\xc0")),
		"a message that is cut off": message[:len(message)-1],
		"another message":           []byte("\x0a\x03abc"),
		"in a header":               bytes.ReplaceAll(message, []byte("BBBB"), []byte("\xff\xfe\xfd\xc0")),
	} {
		t.Run(name, func(t *testing.T) {
			var received []byte
			require.NoError(t, conn.Invoke(t.Context(), authv3.Authorization_Check_FullMethodName, sent, &received), "an error would pass with failure_mode_allow")
			out := new(authv3.CheckResponse)
			require.NoError(t, proto.Unmarshal(received, out))
			assert.Equal(t, 400, answerOf(t, out).status)
		})
	}
	t.Run("with an interceptor", func(t *testing.T) {
		var seen []string
		intercept := func(ctx context.Context, in any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			seen = append(seen, info.FullMethod)
			return next(ctx, in)
		}
		conn := dial(t, serve(t, g.server, grpc.UnaryInterceptor(intercept)), grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})))
		var received []byte
		require.NoError(t, conn.Invoke(t.Context(), authv3.Authorization_Check_FullMethodName, bytes.ReplaceAll(message, []byte("AAAA"), []byte("\xff\xfe\xfd\xc0")), &received))
		assert.Equal(t, []string{authv3.Authorization_Check_FullMethodName}, seen)
	})
}

// A bytesCodec sends messages that are already encoded.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }

func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(data)
	return nil
}

// A client of gRPC behind Envoy gets the status in the headers and the body as its message.
func TestGRPCClients(t *testing.T) {
	g := newGateway(t, func(cfg *middleware.Config, _ *valetenvoy.Config) { cfg.ErrorBody = middleware.ProblemJSON })
	weak := g.iss.Token()
	for _, contentType := range []string{"application/grpc", "application/grpc+proto", "Application/gRPC; charset=x"} {
		for _, c := range []struct {
			token  string
			status int
			code   string
			body   string
		}{
			{"", 401, "16", "Unauthorized"},
			{"a,b", 400, "16", "Bad Request: "},
			{weak, 403, "7", "Forbidden: "},
		} {
			in := check("POST", "/orders.v1.O/List", "content-type: "+contentType)
			if c.token != "" {
				in.Attributes.Request.Http.Headers["authorization"] = "Bearer " + c.token
			}
			got := g.ask(in)
			assert.Equal(t, c.status, got.status)
			assert.Equal(t, c.code, got.denial.Get("grpc-status"))
			assert.Contains(t, got.body, c.body)
			assert.NotContains(t, got.body, "{")
			assert.Empty(t, got.denial.Get("Content-Type"))
			assert.NotEmpty(t, got.denial.Get("WWW-Authenticate"))
		}
	}
	for _, contentType := range []string{"application/json", "application/grpc-web", "application/grpcx"} {
		got := g.ask(check("POST", "/orders.v1.O/List", "content-type: "+contentType))
		assert.Empty(t, got.denial.Get("grpc-status"), contentType)
		assert.Equal(t, "application/problem+json", got.denial.Get("Content-Type"))
		assert.Contains(t, fmt.Sprint(got.body), "{")
	}
}
