package valetconnect_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetconnect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

const service = "/orders.v1.Orders/"

// procedures leaves out Forgotten, which the service has.
var procedures = valetconnect.Procedures{
	service + "List":   scopes.All("orders:read"),
	service + "Watch":  scopes.All("orders:read"),
	service + "Cancel": valetkey.AllOf{scopes.All("orders:read"), scopes.All("orders:write")},
	service + "Ping":   valetkey.Public,
	service + "Hello":  valetkey.Optional,
	service + "Me":     valetkey.AnyToken,
}

type (
	empty = emptypb.Empty
	text  = wrapperspb.StringValue
)

// A place is a real Connect server on loopback.
type place struct {
	web   *httptest.Server
	iss   *valetkeytest.Issuer
	calls atomic.Int32
	log   lockedBuffer
}

const outage = "outage" // a token that the verifier fails to look at

func open(t testing.TB) *place {
	t.Helper()
	p := &place{iss: valetkeytest.NewIssuer(t)}
	keys, err := jwks.New(jwks.Config{Issuer: p.iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: p.iss.Client(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	require.NoError(t, keys.Ready(t.Context())) // a request would wait for two seconds only
	guard, err := middleware.New(middleware.Config{
		Verifier: valetkey.VerifierFunc(func(ctx context.Context, raw string) (*valetkey.Token, error) {
			if raw == outage {
				return nil, &valetkey.Unavailable{RetryAfter: 7 * time.Second, Err: errors.New("dial tcp 10.0.0.7: secret detail")}
			}
			return keys.Verify(ctx, raw)
		}),
		Logger: slog.New(slog.NewTextHandler(&p.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	require.NoError(t, err)
	guarded, err := valetconnect.New(guard, procedures)
	require.NoError(t, err)

	who := func(ctx context.Context) *text {
		p.calls.Add(1)
		if token := valetkey.FromContext(ctx); token != nil {
			return wrapperspb.String(token.Subject())
		}
		return wrapperspb.String("nobody")
	}
	mux := http.NewServeMux()
	for _, name := range []string{"List", "Cancel", "Ping", "Hello", "Me", "Forgotten"} {
		mux.Handle(service+name, connect.NewUnaryHandler(service+name, func(ctx context.Context, _ *connect.Request[empty]) (*connect.Response[text], error) {
			return connect.NewResponse(who(ctx)), nil
		}, connect.WithIdempotency(connect.IdempotencyNoSideEffects)))
	}
	mux.Handle(service+"Watch", connect.NewServerStreamHandler(service+"Watch", func(ctx context.Context, _ *connect.Request[empty], s *connect.ServerStream[text]) error {
		return errors.Join(s.Send(who(ctx)), s.Send(wrapperspb.String("again")))
	}))
	p.web = httptest.NewUnstartedServer(guarded(mux))
	p.web.EnableHTTP2 = true // gRPC
	p.web.StartTLS()
	t.Cleanup(p.web.Close)
	return p
}

// call calls a procedure and returns its response.
func (p *place) call(t testing.TB, name string, authorization []string, opts ...connect.ClientOption) (string, error) {
	client := connect.NewClient[empty, text](p.web.Client(), p.web.URL+service+name, opts...)
	request := connect.NewRequest(&empty{})
	request.Header()["Authorization"] = authorization
	if name != "Watch" {
		response, err := client.CallUnary(t.Context(), request)
		if err != nil {
			return "", err
		}
		return response.Msg.GetValue(), nil
	}
	stream, err := client.CallServerStream(t.Context(), request)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	var said []string
	for stream.Receive() {
		said = append(said, stream.Msg().GetValue())
	}
	return strings.Join(said, ", "), stream.Err()
}

func TestProcedures(t *testing.T) {
	p := open(t)
	reader := p.iss.Token(valetkeytest.Scopes("orders:read"))
	for protocol, opts := range map[string][]connect.ClientOption{
		"Connect":            nil,
		"Connect, JSON":      {connect.WithProtoJSON()},
		"Connect, GET":       {connect.WithHTTPGet(), connect.WithIdempotency(connect.IdempotencyNoSideEffects)},
		"gRPC":               {connect.WithGRPC()},
		"gRPC, compressed":   {connect.WithGRPC(), connect.WithSendGzip()},
		"gRPC-Web":           {connect.WithGRPCWeb()},
		"gRPC-Web, and JSON": {connect.WithGRPCWeb(), connect.WithProtoJSON()},
	} {
		for _, c := range []struct {
			name          string
			procedure     string
			authorization []string
			code          connect.Code
			message       string // or what the procedure answers, with code 0
			challenge     map[string]string
		}{
			{"HTTP-11 no credentials", "List", nil, connect.CodeUnauthenticated, "Unauthorized", map[string]string{"scope": "orders:read"}},
			{"HTTP-11 no credentials for a stream", "Watch", nil, connect.CodeUnauthenticated, "Unauthorized", map[string]string{"scope": "orders:read"}},
			{"HTTP-11 an expired token", "List", []string{"Bearer " + p.iss.Token(valetkeytest.Expired())}, connect.CodeUnauthenticated, "Unauthorized: the token has expired", map[string]string{"error": "invalid_token"}},
			{"HTTP-11 an expired token for a stream", "Watch", []string{"Bearer " + p.iss.Token(valetkeytest.Expired())}, connect.CodeUnauthenticated, "Unauthorized: the token has expired", map[string]string{"error": "invalid_token"}},
			{"HTTP-11 two tokens", "List", []string{"Bearer " + reader, "Bearer " + reader}, connect.CodeUnauthenticated, "Bad Request: the request carries more than one Authorization header", map[string]string{"error": "invalid_request"}},
			{"HTTP-11 the wrong scope", "Cancel", []string{"Bearer " + reader}, connect.CodePermissionDenied, "Forbidden: the token lacks a scope that this request needs", map[string]string{"error": "insufficient_scope", "scope": "orders:read orders:write"}},
			{"HTTP-11 the wrong scope for a stream", "Watch", []string{"Bearer " + p.iss.Token()}, connect.CodePermissionDenied, "Forbidden: the token lacks a scope that this request needs", map[string]string{"error": "insufficient_scope", "scope": "orders:read"}},
			{"a procedure that is not listed", "Forgotten", []string{"Bearer " + reader}, connect.CodePermissionDenied, "Forbidden: the token lacks a scope that this request needs", map[string]string{"error": "insufficient_scope"}},
			{"a bad token where none is needed", "Hello", []string{"Bearer " + p.iss.Token(valetkeytest.TamperedSignature())}, connect.CodeUnauthenticated, "Unauthorized: the signature of the token is wrong", map[string]string{"error": "invalid_token"}},
			{"HTTP-11 a failure of ours", "List", []string{"Bearer " + outage}, connect.CodeUnavailable, "Service Unavailable", nil},
			{"HTTP-11 a failure of ours before a stream", "Watch", []string{"Bearer " + outage}, connect.CodeUnavailable, "Service Unavailable", nil},
			{"the right scope", "List", []string{"Bearer " + reader}, 0, "alice", nil},
			{"a stream", "Watch", []string{"Bearer " + reader}, 0, "alice, again", nil},
			{"any token", "Me", []string{"Bearer " + p.iss.Token()}, 0, "alice", nil},
			{"an optional token", "Hello", []string{"Bearer " + p.iss.Token()}, 0, "alice", nil},
			{"no token where none is needed", "Hello", nil, 0, "nobody", nil},
			{"no token is looked at", "Ping", []string{"Bearer junk"}, 0, "nobody", nil},
		} {
			t.Run(c.name+", "+protocol, func(t *testing.T) {
				p.calls.Store(0)
				said, err := p.call(t, c.procedure, c.authorization, opts...)
				if c.code == 0 {
					require.NoError(t, err)
					assert.Equal(t, c.message, said)
					assert.EqualValues(t, 1, p.calls.Load())
					return
				}
				var refused *connect.Error
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, c.code, refused.Code())
				assert.Equal(t, c.message, refused.Message())
				assert.True(t, connect.IsWireError(err), "the client made the code of an HTTP status")
				assert.Zero(t, p.calls.Load())
				if c.code == connect.CodeUnavailable {
					assert.Equal(t, "7", refused.Meta().Get("Retry-After"))
					assert.Empty(t, refused.Meta().Get("WWW-Authenticate"))
					return
				}
				challenge := valetkeytest.Challenge(t, refused.Meta(), "Bearer")
				delete(challenge, "realm")
				delete(challenge, "error_description")
				if c.challenge == nil {
					c.challenge = map[string]string{}
				}
				assert.Equal(t, c.challenge, challenge)
			})
		}
	}
	t.Run("no token is logged", func(t *testing.T) {
		assert.Contains(t, p.log.String(), "request refused")
		assert.NotContains(t, p.log.String(), reader)
	})
	t.Run("a request that is not a call gets the guard's own answer", func(t *testing.T) {
		response, err := p.web.Client().Post(p.web.URL+service+"List", "text/plain", nil)
		require.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		assert.Equal(t, "Unauthorized\n", string(body))
		assert.Equal(t, 401, response.StatusCode)
	})
	t.Run("a refusal is not for caches", func(t *testing.T) {
		for _, contentType := range []string{"application/proto", "application/connect+proto", "application/grpc", "application/grpc-web"} {
			response, err := p.web.Client().Post(p.web.URL+service+"List", contentType, nil)
			require.NoError(t, err)
			response.Body.Close()
			assert.Equal(t, "no-store", response.Header.Get("Cache-Control"), contentType)
		}
	})
	t.Run("a path that only resembles a procedure is refused", func(t *testing.T) {
		for _, path := range []string{service + "List/", "/" + service + "Ping", service + "ping", "/x/.." + service + "Ping", service + "Pin%67/"} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest("POST", path, nil)
			p.web.Config.Handler.ServeHTTP(w, r)
			assert.Equal(t, 401, w.Code, path)
		}
	})
}

func TestOptionalBehindAnotherGuard(t *testing.T) {
	guard, err := middleware.New(middleware.Config{Verifier: valetkey.First()})
	require.NoError(t, err)
	guarded, err := valetconnect.New(guard, procedures)
	require.NoError(t, err)
	api := guarded(connect.NewUnaryHandler(service+"Hello", func(ctx context.Context, _ *connect.Request[empty]) (*connect.Response[text], error) {
		return connect.NewResponse(wrapperspb.String(fmt.Sprint(valetkey.FromContext(ctx) != nil))), nil
	}))
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // as another guard leaves it
		api.ServeHTTP(w, r.WithContext(valetkey.NewContext(r.Context(), valetkey.NewToken(valetkey.TokenFields{Subject: "alice"}))))
	}))
	defer web.Close()
	response, err := connect.NewClient[empty, text](web.Client(), web.URL+service+"Hello").CallUnary(t.Context(), connect.NewRequest(&empty{}))
	require.NoError(t, err)
	assert.Equal(t, "false", response.Msg.GetValue(), "there is a token")
}

func TestStreamsEndWithTheirToken(t *testing.T) {
	guard, err := middleware.New(middleware.Config{
		Verifier: valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{Issuer: "as", ID: raw}), nil
		}),
		CancelWithToken: true, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	guarded, err := valetconnect.New(guard, valetconnect.Procedures{service + "Chat": valetkey.AnyToken, service + "Flood": valetkey.AnyToken})
	require.NoError(t, err)
	returned := make(chan error, 1)
	mux := http.NewServeMux()
	mux.Handle(service+"Chat", connect.NewBidiStreamHandler(service+"Chat", func(ctx context.Context, s *connect.BidiStream[text, text]) (err error) {
		defer func() { returned <- err }()
		for {
			m, err := s.Receive()
			if err != nil {
				return err
			}
			if err := s.Send(m); err != nil {
				return err
			}
		}
	}))
	mux.Handle(service+"Flood", connect.NewServerStreamHandler(service+"Flood", func(_ context.Context, _ *connect.Request[text], s *connect.ServerStream[text]) error {
		more := wrapperspb.String(strings.Repeat("x", 1<<16))
		for {
			if err := s.Send(more); err != nil {
				returned <- err
				return err
			}
		}
	}))
	web := httptest.NewUnstartedServer(guarded(mux))
	web.EnableHTTP2 = true
	web.StartTLS()
	defer web.Close()

	for id, opts := range map[string][]connect.ClientOption{"Connect": nil, "gRPC": {connect.WithGRPC()}} {
		client := func(name string) *connect.Client[text, text] {
			return connect.NewClient[text, text](web.Client(), web.URL+service+name, opts...)
		}
		t.Run("a procedure that waits for its caller, "+id, func(t *testing.T) {
			stream := client("Chat").CallBidiStream(t.Context())
			stream.RequestHeader().Set("Authorization", "Bearer "+id)
			require.NoError(t, stream.Send(wrapperspb.String("hello")))
			m, err := stream.Receive()
			require.NoError(t, err)
			assert.Equal(t, "hello", m.GetValue())
			require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: "as", ID: id}))
			assert.Error(t, <-returned)
			_, err = stream.Receive()
			assert.Error(t, err)
			assert.NotErrorIs(t, err, io.EOF)
		})
		t.Run("a procedure whose caller reads nothing, "+id, func(t *testing.T) {
			request := connect.NewRequest(wrapperspb.String(""))
			request.Header().Set("Authorization", "Bearer flood."+id)
			stream, err := client("Flood").CallServerStream(t.Context(), request)
			require.NoError(t, err)
			require.True(t, stream.Receive())
			require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: "as", ID: "flood." + id}))
			assert.Error(t, <-returned)
			for stream.Receive() {
			}
			assert.Error(t, stream.Err())
			stream.Close()
		})
	}
}

func TestConfiguration(t *testing.T) {
	guard, err := middleware.New(middleware.Config{Verifier: valetkey.First()})
	require.NoError(t, err)
	for _, c := range []struct {
		name       string
		guard      *middleware.Guard
		procedures valetconnect.Procedures
		mistake    string
	}{
		{"no guard", nil, nil, "guard: required"},
		{"nil", guard, valetconnect.Procedures{"/a/b": nil}, `Procedures["/a/b"]: nil`},
		{"no slash", guard, valetconnect.Procedures{"a/b": valetkey.AnyToken}, `Procedures["a/b"]: not of the form`},
		{"no procedure", guard, valetconnect.Procedures{"/a/": valetkey.AnyToken}, "not of the form"},
		{"a service alone", guard, valetconnect.Procedures{"/a": valetkey.AnyToken}, "not of the form"},
		{"too deep", guard, valetconnect.Procedures{"/a/b/c": valetkey.AnyToken}, "not of the form"},
		{"nothing", guard, valetconnect.Procedures{"": valetkey.AnyToken}, "not of the form"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := valetconnect.New(c.guard, c.procedures)
			require.ErrorContains(t, err, c.mistake)
		})
	}
	t.Run("all mistakes at once", func(t *testing.T) {
		_, err := valetconnect.New(nil, valetconnect.Procedures{"a": nil})
		var fields []string
		for _, m := range valetkey.ConfigErrors(err) {
			fields = append(fields, m.Field)
			assert.ErrorContains(t, err, "valetconnect: "+m.Error())
		}
		assert.Equal(t, []string{"guard", `Procedures["a"]`, `Procedures["a"]`}, fields)
	})
	t.Run("a table is copied", func(t *testing.T) {
		table := valetconnect.Procedures{"/a/b": scopes.All("x")}
		guarded, err := valetconnect.New(guard, table)
		require.NoError(t, err)
		table["/a/b"] = valetkey.Public
		w := httptest.NewRecorder()
		guarded(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest("POST", "/a/b", nil))
		assert.Equal(t, 401, w.Code)
	})
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
