// Package valetenvoy answers the external authorization checks of Envoy, and of gateways that are built on Envoy or speak its
// protocol: ext_authz v3 over gRPC.
//
//	decider, err := routes.Table{"GET /orders": scopes.All("orders:read")}.Decider(guard)
//	...
//	authorize, err := valetenvoy.New(valetenvoy.Config{
//		Decider: decider,
//		Callers: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, // where Envoy runs
//	})
//	...
//	server := grpc.NewServer()
//	authorize.Register(server)
//
// The guard decides as it does under net/http, and an answer has the same status, challenge and body. An accepted request reaches the
// upstream with the headers of [middleware.IdentityHeaders] that have a value, and without its credentials.
//
// # What a gateway cannot carry
//
//   - The body of a request is not read, so a token in a form is not found, see [middleware.Form].
//   - The lines of WWW-Authenticate become one, which has the same meaning (RFC 9110, section 11.6.1).
//   - Envoy sends no body with a preflight whose response is empty, and no Content-Type.
//   - Nothing ends a stream or a WebSocket when its token ends: the guard decides once, before it.
//   - A client of gRPC gets the status as a gRPC code, and the reason as its message.
//
// # The configuration of Envoy
//
// Set encode_raw_headers, and neither allowed_headers nor disallowed_headers: without the names of all headers, the spellings under
// which an upstream may read X-Valetkey-Subject cannot be removed. Set failure_mode_allow to false. Set normalize_path and
// merge_slashes, because a path that is not normalized is refused. Set no retry policy for checks with DPoP: a repeated check has a
// used proof.
package valetenvoy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
)

// Config configures a [Server]. Decider is required, and one of Callers, CallerNames and UnixSocket.
//
// Callers are trusted: they decide what a request is, and learn what a token is sufficient for. So a Server needs a listener that clients
// cannot reach, in addition to these fields.
type Config struct {
	_ struct{} // keyed literals only

	// Decider decides on the requests. Required. The URL in proofs (RFC 9449) is that of the Resource.ID of its guard, or of its
	// URL. The Proxies of its guard have no effect, because forwarding headers do not reach it.
	Decider *routes.Decider

	// Callers lists the addresses from which the gateways connect. A list that contains all addresses is a mistake.
	Callers []netip.Prefix

	// CallerNames lists the DNS names and URIs of gateways, of which the certificate of a caller must have one. They are compared
	// exactly. The server must verify the certificate: tls.RequireAndVerifyClientCert with ClientCAs. With Callers, both are
	// required. Empty: no certificate is required.
	CallerNames []string

	// UnixSocket accepts every process that connects through a unix socket. The permissions of the socket file must restrict
	// access to the gateways.
	UnixSocket bool

	// ForwardToken leaves the token that the guard has verified in the request to the upstream. Otherwise it is removed. Proofs and
	// other credentials are always removed.
	ForwardToken bool

	// AllowPreflight passes CORS preflights without credentials to the upstream, which must answer them. They are OPTIONS requests
	// with Origin and Access-Control-Request-Method, which any client can send. A guard with a Preflight answers them instead.
	AllowPreflight bool

	// Logger receives panics, and once a minute a caller that may not ask. The guard logs refusals. Nil: slog.Default().
	Logger *slog.Logger
}

// A Server decides on requests for gateways. It implements the service envoy.service.auth.v3.Authorization. It is safe for concurrent
// use.
//
// It responds to each check with a decision: what cannot be decided is denied with 503 and Retry-After, and what cannot be read with
// 400, so that failure_mode_allow of Envoy passes neither. Only a caller that may not ask gets an error, PERMISSION_DENIED.
type Server struct {
	authv3.UnimplementedAuthorizationServer

	decider        *routes.Decider
	callers        []netip.Prefix
	callerNames    []string
	unixSocket     bool
	forwardToken   bool
	allowPreflight bool
	log            *slog.Logger
	warned         atomic.Int64 // the minute in which a caller was last logged
	health         *health.Server
	credentials    []string // headers that may hold credentials, beyond Authorization and DPoP
	responses      responses
}

// New returns a Server. The error joins every mistake in cfg, each a [valetkey.ConfigError].
func New(cfg Config) (*Server, error) {
	var mistakes []error
	wrong := func(field, problem string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf("valetenvoy: %w", &valetkey.ConfigError{Field: field, Err: fmt.Errorf(problem, args...)}))
	}
	if cfg.Decider == nil {
		wrong("Decider", "required")
	}
	for i, prefix := range cfg.Callers {
		if unmapped(prefix).Bits() <= 0 { // -1 for an invalid prefix
			wrong(fmt.Sprintf("Callers[%d]", i), "%v is not a range of addresses, or is all of them", prefix)
		}
	}
	for i, name := range cfg.CallerNames {
		if strings.TrimSpace(name) == "" {
			wrong(fmt.Sprintf("CallerNames[%d]", i), "is empty")
		}
	}
	if len(cfg.Callers) == 0 && len(cfg.CallerNames) == 0 && !cfg.UnixSocket {
		wrong("Callers", "required: list the addresses from which the gateways connect")
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	s := &Server{
		decider:        cfg.Decider,
		callerNames:    slices.Clone(cfg.CallerNames),
		unixSocket:     cfg.UnixSocket,
		forwardToken:   cfg.ForwardToken,
		allowPreflight: cfg.AllowPreflight,
		log:            cfg.Logger,
		health:         health.NewServer(),
	}
	for _, name := range cfg.Decider.Guard().CredentialHeaders() {
		if name != "Authorization" && name != "Dpop" {
			s.credentials = append(s.credentials, name)
		}
	}
	for _, prefix := range cfg.Callers {
		s.callers = append(s.callers, unmapped(prefix))
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.SetServing(true)
	return s, nil
}

// Register registers the service with r, and the service grpc.health.v1.Health. Health checks are for everyone, because orchestrators
// send them.
//
// Use Register, not the function of the generated code: that responds with an error to a message that is not UTF-8, such as one that
// Envoy sends for a path with other bytes, and with failure_mode_allow an error passes the request (CVE-2023-27488).
func (s *Server) Register(r grpc.ServiceRegistrar) {
	r.RegisterService(&service, s)
	healthpb.RegisterHealthServer(r, s.health)
}

// SetServing sets the status of health checks, which is SERVING at first. Set false before the server stops, so that gateways ask
// another one: checks are still decided.
func (s *Server) SetServing(serving bool) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		status = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", status)
	s.health.SetServingStatus(service.ServiceName, status)
}

// service is the generated description with a handler that decides on every message.
var service = grpc.ServiceDesc{
	ServiceName: authv3.Authorization_ServiceDesc.ServiceName,
	HandlerType: (*authv3.AuthorizationServer)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Check", Handler: handle}},
	Metadata:    authv3.Authorization_ServiceDesc.Metadata,
}

// handle decides on a message. One that cannot be decoded becomes an empty one, which is denied.
func handle(server any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
	s, message := server.(*Server), newEncoded()
	if err := decode(message); err != nil {
		return nil, err
	}
	if intercept == nil {
		d := descriptions.Get().(*description)
		defer d.release()
		return s.decide(ctx, true, func() *description {
			if !d.decode(message.text) {
				*d = description{}
			}
			return d
		})
	}
	in := new(authv3.CheckRequest)
	if err := proto.Unmarshal([]byte(message.text), in); err != nil {
		in = new(authv3.CheckRequest)
	}
	info := &grpc.UnaryServerInfo{Server: s, FullMethod: authv3.Authorization_Check_FullMethodName}
	return intercept(ctx, in, info, func(ctx context.Context, in any) (any, error) { return s.Check(ctx, in.(*authv3.CheckRequest)) })
}

// Check decides on the request that in describes.
func (s *Server) Check(ctx context.Context, in *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	out, err := s.decide(ctx, false, func() *description { return describe(in) })
	if err != nil {
		return nil, err
	}
	return out.(*authv3.CheckResponse), nil
}

// decide returns a CheckResponse or, if encoded is true, perhaps an encoded one as the unknown fields of another message. The error is
// for a caller that may not ask.
func (s *Server) decide(ctx context.Context, encoded bool, describe func() *description) (response proto.Message, err error) {
	if err := s.admit(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if v := recover(); v != nil {
			s.log.LogAttrs(ctx, slog.LevelError, "panic in a check", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
			response, err = denied(middleware.Decision{}, false), nil
		}
	}()
	return s.check(ctx, encoded, describe()), nil
}

func (s *Server) check(ctx context.Context, encoded bool, described *description) proto.Message {
	asked, why := read(described, s.credentials)
	if why != "" {
		return denied(s.reject(ctx, asked, &valetkey.Error{Code: valetkey.InvalidRequest, Reason: why}), asked.grpc)
	}
	d, _ := s.decider.DecideReport(ctx, asked.report)
	if err := d.Err(); err != nil && !(s.allowPreflight && asked.preflight() && noCredentials(err)) {
		return denied(d, asked.grpc)
	}
	if err := ctx.Err(); err != nil { // a gateway that has waited in vain has decided itself
		return denied(s.reject(ctx, asked, err), asked.grpc)
	}
	changes := s.changesFor(asked, d)
	usual := encoded && d.Token() != nil && changes.none()
	if usual {
		if response := s.responses.get(d.Token()); response != nil {
			return response
		}
	}
	identity, err := middleware.IdentityHeaders(d.Token())
	if err != nil {
		return denied(s.reject(ctx, asked, err), asked.grpc)
	}
	response := s.accepted(asked, d, identity, changes)
	if usual {
		if bytes, err := proto.Marshal(response); err == nil {
			message := new(emptypb.Empty)
			message.ProtoReflect().SetUnknown(bytes)
			s.responses.put(d.Token(), message)
			return message
		}
	}
	return response
}

// reject refuses the request with err.
func (s *Server) reject(ctx context.Context, asked request, err error) middleware.Decision {
	return s.decider.Reject(asked.http().WithContext(ctx), err)
}

// http returns the request without its query and body.
func (asked request) http() *http.Request {
	path, _, _ := strings.Cut(asked.report.Target, "?")
	return &http.Request{Method: asked.report.Method, Host: asked.report.Host, URL: &url.URL{Path: path}, Header: asked.report.Header}
}

func noCredentials(err error) bool {
	var refusal *valetkey.Error
	return errors.As(err, &refusal) && refusal.Code == valetkey.NoCredentials
}
