package valetenvoy_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetenvoy"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// table has a row of each kind.
var table = routes.Table{
	"GET /orders":            scopes.All("orders:read"),
	"POST /orders":           scopes.All("orders:write"),
	"GET /admin":             scopes.All("admin"),
	"GET /me":                valetkey.AnyToken,
	"GET /catalog":           valetkey.Optional,
	"GET /healthz":           valetkey.Public,
	"/files/":                valetkey.AnyToken,
	"GET /panics":            valetkey.RequirementFunc(func(valetkey.Access) error { panic("secret") }),
	"POST /orders.v1.O/List": scopes.All("orders:read"),
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// A gateway asks a Server over a connection, as Envoy does.
type gateway struct {
	t      testing.TB
	client authv3.AuthorizationClient
	iss    *valetkeytest.Issuer
	server *valetenvoy.Server
	guard  *middleware.Guard
}

// newGateway starts a Server for the table. change may be nil.
func newGateway(t testing.TB, change func(*middleware.Config, *valetenvoy.Config)) *gateway {
	t.Helper()
	return newGatewayFor(t, table, change)
}

func newGatewayFor(t testing.TB, table routes.Table, change func(*middleware.Config, *valetenvoy.Config)) *gateway {
	t.Helper()
	iss, quiet := valetkeytest.NewIssuer(t), slog.New(slog.DiscardHandler)
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Now: iss.Now, Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	require.NoError(t, keys.Ready(t.Context())) // a request would wait for two seconds only
	guarded, cfg := middleware.Config{Verifier: keys, Now: iss.Now, Logger: quiet}, valetenvoy.Config{Callers: loopback, Logger: quiet}
	if change != nil {
		change(&guarded, &cfg)
	}
	guard, err := middleware.New(guarded)
	require.NoError(t, err)
	cfg.Decider, err = table.Decider(guard)
	require.NoError(t, err)
	server, err := valetenvoy.New(cfg)
	require.NoError(t, err)
	return &gateway{t, authv3.NewAuthorizationClient(dial(t, serve(t, server))), iss, server, guard}
}

// serve returns the address of a gRPC server on loopback.
func serve(t testing.TB, s *valetenvoy.Server, options ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(options...)
	s.Register(server)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func dial(t testing.TB, addr string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)...)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ask returns the answer to the request.
func (g *gateway) ask(in *authv3.CheckRequest) answer {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	out, err := g.client.Check(ctx, in)
	require.NoError(g.t, err)
	return answerOf(g.t, out)
}

// An answer is a CheckResponse as Envoy understands it.
type answer struct {
	code     codes.Code
	status   int         // 200: let through
	denial   http.Header // with the response to the client
	body     string
	set      map[string]string // headers of the request to the upstream
	remove   []string
	response http.Header // added to the response of the upstream
	query    []string
	metadata map[string]any
}

// answerOf checks the form of every response.
func answerOf(t testing.TB, out *authv3.CheckResponse) answer {
	t.Helper()
	a := answer{code: codes.Code(out.GetStatus().GetCode()), denial: http.Header{}, set: map[string]string{}, response: http.Header{}}
	require.NoError(t, out.Validate())
	if out.DynamicMetadata != nil {
		a.metadata = out.DynamicMetadata.AsMap()
	}
	if a.code == codes.OK {
		ok := out.GetOkResponse()
		require.NotNil(t, ok, "beside OK, a denied response would not count")
		a.status = 200
		for _, h := range ok.Headers {
			//lint:ignore SA1019 versions of Envoy that do not read AppendAction read this field
			older := h.Append
			require.NotNil(t, older)
			require.False(t, older.Value)
			require.Equal(t, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD, h.AppendAction)
			require.NotContains(t, a.set, h.Header.Key)
			a.set[h.Header.Key] = h.Header.Value
		}
		for _, h := range ok.ResponseHeadersToAdd {
			a.response.Add(h.Header.Key, h.Header.Value)
		}
		a.remove, a.query = ok.HeadersToRemove, ok.QueryParametersToRemove
		for _, name := range a.remove {
			require.NotContains(t, a.set, name, "Envoy would remove what it has set")
			require.Equal(t, strings.ToLower(name), name)
			require.NotContains(t, name, ":")
		}
		return a
	}
	denied := out.GetDeniedResponse()
	require.NotNil(t, denied)
	a.status, a.body = int(denied.GetStatus().GetCode()), denied.Body
	for _, h := range denied.Headers {
		a.denial.Add(h.Header.Key, h.Header.Value)
	}
	require.LessOrEqual(t, len(a.denial.Values("WWW-Authenticate")), 1, "one line")
	return a
}

// check returns a check with the headers, each "name: value".
func check(method, path string, headers ...string) *authv3.CheckRequest {
	h := &authv3.AttributeContext_HttpRequest{Method: method, Path: path, Host: "api.example.com", Scheme: "https", Protocol: "HTTP/2", Headers: map[string]string{}}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		h.Headers[name] = value
	}
	return of(h)
}

func of(h *authv3.AttributeContext_HttpRequest) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: h}}}
}

// raw moves the headers to header_map, as with encode_raw_headers, and adds lines.
func raw(in *authv3.CheckRequest, more ...string) *authv3.CheckRequest {
	h := in.Attributes.Request.Http
	h.HeaderMap = &corev3.HeaderMap{}
	for name, value := range h.Headers {
		more = append(more, name+": "+value)
	}
	for _, line := range more {
		name, value, _ := strings.Cut(line, ": ")
		h.HeaderMap.Headers = append(h.HeaderMap.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
	}
	h.Headers = nil
	return in
}

func bearer(token string) string { return "authorization: Bearer " + token }

func TestAccepted(t *testing.T) {
	g := newGateway(t, nil)
	good := g.iss.Token(valetkeytest.Subject("alice"), valetkeytest.Claim("client_id", "app"), valetkeytest.Scopes("orders:read"))
	alice := map[string]string{"x-valetkey-subject": "alice", "x-valetkey-client": "app", "x-valetkey-scope": "orders:read"}
	credentials := []string{"authorization", "dpop"}
	for _, c := range []struct {
		name   string
		in     *authv3.CheckRequest
		set    map[string]string
		remove []string
	}{
		{"EXT-01 a good token in headers", check("GET", "/orders", bearer(good)), alice, credentials},
		{"EXT-02 a good token in header_map only", raw(check("GET", "/orders", bearer(good))), alice, credentials},
		{"EXT-03 the same headers in both forms", both(check("GET", "/orders", bearer(good), "accept: a")), alice, credentials},
		{"EXT-04 the method is that of the field", check("GET", "/orders", bearer(good), ":method: POST", ":path: /admin", ":authority: other.example"), alice, credentials},
		{"EXT-13 a query that reads like a path", check("GET", "/orders?x=/../admin", bearer(good)), alice, credentials},
		{"a query with a fragment, encoded", check("GET", "/orders?x=%23/admin", bearer(good)), alice, credentials},
		{"EXT-18 a public row", check("GET", "/healthz", "x-valetkey-subject: mallory"), nil,
			[]string{"x-valetkey-client", "x-valetkey-scope", "x-valetkey-subject", "authorization", "dpop"}},
		{"EXT-18 a public row and a good token", check("GET", "/healthz", bearer(good)), nil,
			[]string{"x-valetkey-client", "x-valetkey-scope", "x-valetkey-subject", "authorization", "dpop"}},
		{"an optional row without a token", check("GET", "/catalog"), nil, []string{"x-valetkey-client", "x-valetkey-scope", "x-valetkey-subject", "authorization", "dpop"}},
		{"an optional row with credentials of another scheme", check("GET", "/catalog", `authorization: Digest username="a, b", realm="c d",nonce="e"`), nil,
			[]string{"x-valetkey-client", "x-valetkey-scope", "x-valetkey-subject", "authorization", "dpop"}},
		{"EXT-19 a client's identity header", check("GET", "/orders", bearer(good), "x-valetkey-subject: mallory", "X-Valetkey-Client: mallory"), alice, credentials},
		{"EXT-20 spellings of identity headers", check("GET", "/orders", bearer(good), "x_valetkey_scope: admin", "X-VALETKEY.Scope: admin", "x-valetkey-role: admin"), alice,
			append([]string{"x_valetkey_scope", "x-valetkey.scope", "x-valetkey-role"}, credentials...)},
		{"a header in many lines", raw(check("GET", "/orders", bearer(good)), slices.Repeat([]string{"accept: a"}, 1<<14)...), alice, credentials},
		{"EXT-20 spellings of identity headers in header_map", raw(check("GET", "/orders", bearer(good)), "x_valetkey_scope: admin", "x_valetkey_scope: write", "X-VALETKEY.Scope: admin"), alice,
			append([]string{"x_valetkey_scope", "x-valetkey.scope"}, credentials...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := g.ask(c.in)
			require.Equal(t, codes.OK, got.code, got)
			if c.set == nil {
				c.set = map[string]string{}
			}
			assert.Equal(t, c.set, got.set)
			assert.ElementsMatch(t, c.remove, got.remove)
			assert.Empty(t, got.query)
		})
	}
	t.Run("a token without scopes", func(t *testing.T) {
		got := g.ask(check("GET", "/me", bearer(g.iss.Token(valetkeytest.Subject("é%"))), "x-valetkey-scope: admin"))
		assert.Equal(t, map[string]string{"x-valetkey-subject": "%C3%A9%25", "x-valetkey-client": valetkeytest.DefaultClientID}, got.set)
		assert.Equal(t, []string{"x-valetkey-scope", "authorization", "dpop"}, got.remove)
	})
	t.Run("a remembered token gets the same response", func(t *testing.T) {
		var answers []answer
		for range 3 {
			answers = append(answers, g.ask(check("GET", "/orders", bearer(good))))
			g.ask(check("GET", "/orders", bearer(g.iss.Token(valetkeytest.Subject("bob"), valetkeytest.Scopes("orders:read")))))
			g.ask(check("GET", "/orders?access_token[]=x", bearer(good), "x_valetkey_scope: admin"))
		}
		direct, err := g.server.Check(fromLoopback(t), check("GET", "/orders", bearer(good)))
		require.NoError(t, err)
		assert.Equal(t, answerOf(t, direct), answers[0])
		assert.Equal(t, answers[0], answers[1])
		assert.Equal(t, answers[0], answers[2])
	})
	t.Run("metadata for logs and rate limits", func(t *testing.T) {
		got := g.ask(check("GET", "/orders", bearer(good)))
		assert.Equal(t, "alice", got.metadata["subject"])
		assert.Equal(t, "app", got.metadata["client"])
		assert.Equal(t, "orders:read", got.metadata["scope"])
		assert.Equal(t, g.iss.URL, got.metadata["issuer"])
		assert.Greater(t, got.metadata["exp"], float64(g.iss.Now().Unix()))
		assert.Nil(t, g.ask(check("GET", "/healthz", bearer(good))).metadata)
	})
}

func spellings(n int) (headers []string) {
	for i := range n {
		headers = append(headers, fmt.Sprintf("x-valetkey-%d: a", i))
	}
	return headers
}

// both reports the headers in both forms.
func both(in *authv3.CheckRequest) *authv3.CheckRequest {
	headers := in.Attributes.Request.Http.Headers
	raw(in).Attributes.Request.Http.Headers = headers
	return in
}

func TestDenied(t *testing.T) {
	outage := errors.New("the issuer is out of reach")
	g := newGateway(t, func(cfg *middleware.Config, _ *valetenvoy.Config) {
		keys := cfg.Verifier
		cfg.Verifier = valetkey.VerifierFunc(func(ctx context.Context, raw string) (*valetkey.Token, error) {
			if raw == "outage" {
				return nil, &valetkey.Unavailable{RetryAfter: 7 * time.Second, Err: outage}
			}
			return keys.Verify(ctx, raw)
		})
	})
	good := g.iss.Token(valetkeytest.Scopes("orders:read"))
	different := both(check("GET", "/orders", bearer(good)))
	different.Attributes.Request.Http.Headers["accept"] = "b"
	twoValues := raw(check("GET", "/orders", bearer(good)))
	twoValues.Attributes.Request.Http.HeaderMap.Headers[0].Value = "Bearer other"
	fragment := check("GET", "/orders", bearer(good))
	fragment.Attributes.Request.Http.Fragment = "x"
	query := check("GET", "/orders", bearer(good))
	query.Attributes.Request.Http.Query = "x=1"
	for _, c := range []struct {
		name   string
		in     *authv3.CheckRequest
		status int
		code   codes.Code
		says   string // in the challenge
	}{
		{"EXT-03 two different sets of headers", different, 400, codes.InvalidArgument, `error="invalid_request"`},
		{"EXT-03 two different values of one header", twoValues, 400, codes.InvalidArgument, `error="invalid_request"`},
		{"EXT-04 the method of the field is not that of the header", check("POST", "/orders", bearer(good), ":method: GET"), 403, codes.PermissionDenied, `scope="orders:write"`},
		{"EXT-05 two authorization entries in header_map", raw(check("GET", "/orders", bearer(good)), "Authorization: Basic eDp5"), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"EXT-06 two joined tokens", check("GET", "/orders", "authorization: Bearer a,Bearer b"), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"EXT-06 a joined token behind other credentials", check("GET", "/orders", "authorization: Basic eDp5,Bearer "+good), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"EXT-06 a joined token before other credentials", check("GET", "/orders", bearer(good)+",Basic eDp5"), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"EXT-06 a token joined to an empty line", check("GET", "/orders", "authorization: ,Bearer "+good), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"EXT-06 an empty line joined to a token", check("GET", "/orders", bearer(good)+","), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"EXT-07 no token", check("GET", "/orders"), 401, codes.Unauthenticated, `Bearer realm="api", scope="orders:read"`},
		{"EXT-08 too little scope", check("POST", "/orders", bearer(good)), 403, codes.PermissionDenied, `error="insufficient_scope"`},
		{"EXT-12 an empty message", &authv3.CheckRequest{}, 400, codes.InvalidArgument, `error="invalid_request"`},
		{"EXT-12 no HTTP request", of(nil), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"EXT-12 an empty HTTP request", of(&authv3.AttributeContext_HttpRequest{}), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"a query beside that of the path", query, 400, codes.InvalidArgument, `error="invalid_request"`},
		{"a fragment in the path", fragment, 400, codes.InvalidArgument, `error="invalid_request"`},
		{"EXT-15 the path of a row without its slash", check("GET", "/files", bearer(good)), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"EXT-16 a star", check("OPTIONS", "*", bearer(good)), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"EXT-16 CONNECT", check("CONNECT", "/orders", bearer(good)), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"EXT-16 CONNECT without a path", check("CONNECT", "", bearer(good)), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"EXT-17 no row, no token", check("GET", "/other"), 401, codes.Unauthenticated, "Bearer"},
		{"EXT-17 no row, a good token", check("GET", "/other", bearer(good)), 403, codes.PermissionDenied, `error="insufficient_scope"`},
		{"EXT-17 no row for the method", check("DELETE", "/healthz", bearer(good)), 403, codes.PermissionDenied, `error="insufficient_scope"`},
		{"a header that names no header", check("GET", "/healthz", "a b: c"), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"a line break in a header", check("GET", "/healthz", "a: b\r\nx-valetkey-subject: c"), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"headers of more than a megabyte", check("GET", "/healthz", "a: "+strings.Repeat("b", 1<<20)), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"spellings without end of identity headers", raw(check("GET", "/healthz"), spellings(65)...), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"headers without end", raw(check("GET", "/healthz"), slices.Repeat([]string{"a: "}, 1<<15)...), 400, codes.InvalidArgument, `error="invalid_request"`},
		{"a Connection header that names an identity header", check("GET", "/orders", bearer(good), "connection: close, X_Valetkey_Subject"), 400, codes.InvalidArgument, `error="invalid_request"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := g.ask(c.in)
			assert.Equal(t, c.code, got.code)
			assert.Equal(t, c.status, got.status)
			assert.Contains(t, got.denial.Get("WWW-Authenticate"), c.says)
			assert.Equal(t, "no-store", got.denial.Get("Cache-Control"))
			assert.Empty(t, got.denial.Get("Location"))
			assert.NotEmpty(t, got.body)
			assert.NotContains(t, fmt.Sprint(got), good)
		})
	}
	t.Run("EXT-09 the issuer is down", func(t *testing.T) {
		got := g.ask(check("GET", "/orders", bearer("outage")))
		assert.Equal(t, codes.Unavailable, got.code)
		assert.Equal(t, 503, got.status)
		assert.Equal(t, "7", got.denial.Get("Retry-After"))
		assert.NotContains(t, fmt.Sprint(got), outage.Error())
	})
	t.Run("EXT-10 a requirement panics", func(t *testing.T) {
		got := g.ask(check("GET", "/panics", bearer(good)))
		assert.Equal(t, codes.Unavailable, got.code)
		assert.Equal(t, 503, got.status)
		assert.NotEmpty(t, got.denial.Get("Retry-After"))
		assert.NotContains(t, fmt.Sprint(got), "secret")
	})
	t.Run("EXT-26 a subject with a line break", func(t *testing.T) {
		got := g.ask(check("GET", "/me", bearer(g.iss.Token(valetkeytest.Subject("alice\r\nx-valetkey-scope: admin")))))
		assert.Equal(t, codes.Unauthenticated, got.code)
		assert.Equal(t, 401, got.status)
		assert.Contains(t, got.denial.Get("WWW-Authenticate"), `error="invalid_token"`)
	})
}

// The body of a refusal panics, which is the last code that the guard runs.
func TestPanics(t *testing.T) {
	g := newGateway(t, func(cfg *middleware.Config, _ *valetenvoy.Config) {
		cfg.ErrorBody = func(context.Context, int, *valetkey.Error) (string, []byte) { panic("secret") }
	})
	got := g.ask(check("GET", "/orders"))
	t.Run("EXT-10 a refusal panics", func(t *testing.T) {
		assert.Equal(t, codes.Unavailable, got.code)
		assert.Equal(t, 503, got.status)
		assert.NotEmpty(t, got.denial.Get("Retry-After"))
	})
}

func TestForwardToken(t *testing.T) {
	const assertion = "Cf-Access-Jwt-Assertion"
	cookie := func(cfg *middleware.Config) {
		cfg.Methods = []middleware.BearerMethod{middleware.Query(), middleware.Cookie("session", http.NewCrossOriginProtection()), middleware.WebSocketProtocol("bearer.")}
	}
	replaced := func(cfg *middleware.Config) {
		cfg.Methods = []middleware.BearerMethod{middleware.HeaderToken(assertion)}
	}
	for _, c := range []struct {
		name    string
		forward bool
		methods func(*middleware.Config)
		path    string
		headers []string // TOKEN is the token
		set     map[string]string
		removed []string // with the dpop of every response
		query   []string
	}{
		{"EXT-21 the token is removed", false, nil, "/me", []string{"authorization: Bearer TOKEN", "dpop: x"}, nil, []string{"authorization"}, nil},
		{"EXT-21 the token is forwarded, a proof is not", true, nil, "/me", []string{"authorization: Bearer TOKEN", "dpop: x"}, nil, nil, nil},
		{"a token that was not verified is not forwarded", true, nil, "/healthz", []string{"authorization: Bearer TOKEN"}, nil, []string{"authorization"}, nil},
		{"a token in a query", false, cookie, "/me?access_token=TOKEN&x=1", nil, nil, []string{"authorization"}, []string{"access_token"}},
		{"a token in a query is forwarded", true, cookie, "/me?access_token=TOKEN&x=1", []string{"authorization: Basic eDp5"}, nil, []string{"authorization"}, nil},
		{"tokens in a query under other names", false, nil, "/healthz?Access%5FToken=a&x=1&access.token[]=b&my_access_token=c&access_token_type=d", nil, nil, []string{"authorization"}, []string{"Access%5FToken", "access.token[]"}},
		{"a token in a cookie", false, cookie, "/me", []string{"cookie: a=1; session=TOKEN; b=2"}, map[string]string{"cookie": "a=1; b=2"}, []string{"authorization"}, nil},
		{"a token in the only cookie", false, cookie, "/me", []string{"cookie: session=TOKEN"}, nil, []string{"authorization", "cookie"}, nil},
		{"a token in a cookie is forwarded", true, cookie, "/me", []string{"cookie: session=TOKEN", "authorization: Basic eDp5"}, nil, []string{"authorization"}, nil},
		{"a token in a subprotocol", false, cookie, "/me", []string{"upgrade: websocket", "connection: upgrade", "sec-websocket-protocol: chat, bearer.TOKEN"}, map[string]string{"sec-websocket-protocol": "chat"}, []string{"authorization"}, nil},
		{"a token in another header", false, replaced, "/me", []string{"cf-access-jwt-assertion: TOKEN"}, nil, []string{"authorization", "cf-access-jwt-assertion"}, nil},
		{"a token in another header, and other spellings of it", false, replaced, "/me", []string{"cf-access-jwt-assertion: TOKEN", "cf_access_jwt_assertion: x", "Cf-Access-Jwt.Assertion: y", "cf-access-jwt: z"}, nil,
			[]string{"authorization", "cf-access-jwt-assertion", "cf_access_jwt_assertion", "cf-access-jwt.assertion"}, nil},
		{"other spellings of a forwarded token", true, replaced, "/me", []string{"cf-access-jwt-assertion: TOKEN", "cf_access_jwt_assertion: x"}, nil, []string{"authorization", "cf_access_jwt_assertion"}, nil},
		{"another spelling of a subprotocol", false, cookie, "/me?access_token=TOKEN", []string{"sec_websocket_protocol: bearer.x"}, nil, []string{"authorization", "sec_websocket_protocol"}, []string{"access_token"}},
		{"a token in another header is forwarded alone", true, replaced, "/me", []string{"cf-access-jwt-assertion: TOKEN", "authorization: Bearer x"}, nil, []string{"authorization"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGateway(t, func(guarded *middleware.Config, cfg *valetenvoy.Config) {
				if c.methods != nil {
					c.methods(guarded)
				}
				cfg.ForwardToken = c.forward
			})
			token := g.iss.Token()
			headers := slices.Clone(c.headers)
			for i := range headers {
				headers[i] = strings.ReplaceAll(headers[i], "TOKEN", token)
			}
			for _, in := range []*authv3.CheckRequest{
				check("GET", strings.ReplaceAll(c.path, "TOKEN", token), headers...), raw(check("GET", strings.ReplaceAll(c.path, "TOKEN", token), headers...)),
			} {
				got := g.ask(in)
				require.Equal(t, 200, got.status, got)
				assert.ElementsMatch(t, append([]string{"dpop"}, c.removed...), slices.DeleteFunc(got.remove, func(name string) bool { return strings.HasPrefix(name, "x-valetkey-") }))
				for name := range got.set {
					if strings.HasPrefix(name, "x-valetkey-") {
						delete(got.set, name)
					}
				}
				if c.set == nil {
					c.set = map[string]string{}
				}
				assert.Equal(t, c.set, got.set)
				assert.Equal(t, c.query, got.query)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	_, err := valetenvoy.New(valetenvoy.Config{})
	mistakes := valetkey.ConfigErrors(err)
	require.Len(t, mistakes, 2)
	assert.Equal(t, "Decider", mistakes[0].Field)
	assert.Equal(t, "Callers", mistakes[1].Field)
	_, err = valetenvoy.New(valetenvoy.Config{Callers: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"), {}, netip.MustParsePrefix("::ffff:0:0/96")}, CallerNames: []string{" "}})
	var fields []string
	for _, m := range valetkey.ConfigErrors(err) {
		fields = append(fields, m.Field)
	}
	assert.Equal(t, []string{"Decider", "Callers[0]", "Callers[1]", "Callers[2]", "Callers[3]", "CallerNames[0]"}, fields)
	assert.ErrorContains(t, err, "0.0.0.0/0 is not a range of addresses, or is all of them")
}
