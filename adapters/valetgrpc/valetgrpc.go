// Package valetgrpc guards the methods of a gRPC server with access tokens.
//
//	guarded, err := valetgrpc.New(guard, valetgrpc.Methods{
//		"/orders.v1.Orders/List":       scopes.All("orders:read"),
//		"/orders.v1.Orders/Watch":      scopes.All("orders:read"),
//		"/grpc.health.v1.Health/Check": valetkey.Public,
//	})
//	...
//	server := grpc.NewServer(grpc.UnaryInterceptor(guarded.Unary), grpc.StreamInterceptor(guarded.Stream))
//
// Once the services are registered, [Methods.Covers] finds methods without a requirement.
//
// A token comes in the metadata key authorization, in the form of the HTTP header, or in the key that replaces it, see
// [middleware.HeaderToken]. Methods read it with
// valetkey.FromContext(ctx). A refusal has the code UNAUTHENTICATED, PERMISSION_DENIED or, for a failure of the server,
// UNAVAILABLE. The trailer carries the challenge (www-authenticate) or the delay (retry-after).
package valetgrpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// An Interceptor passes calls with a sufficient token to their methods and refuses all others. It is safe for concurrent use.
type Interceptor struct {
	guard   *middleware.Guard
	methods Methods
}

// New returns an Interceptor. It keeps a copy of methods. The error joins one [valetkey.ConfigError] for each mistake in methods.
func New(g *middleware.Guard, methods Methods) (*Interceptor, error) {
	var mistakes []error
	if g == nil {
		mistakes = append(mistakes, mistake("guard", "required"))
	}
	for method, need := range methods {
		service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
		if method[:min(1, len(method))] != "/" || service == "" || name == "" || strings.Contains(name, "/") {
			mistakes = append(mistakes, mistake(fmt.Sprintf("Methods[%q]", method), "not of the form /package.Service/Method"))
		}
		if need == nil {
			mistakes = append(mistakes, mistake(fmt.Sprintf("Methods[%q]", method), "nil"))
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	g.Declare(slices.Collect(maps.Values(methods))...)
	return &Interceptor{g, maps.Clone(methods)}, nil
}

// Unary is a [grpc.UnaryServerInterceptor].
func (i *Interceptor) Unary(ctx context.Context, message any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, err := i.check(request(ctx, info.FullMethod))
	if err != nil {
		return nil, err
	}
	return handler(ctx, message)
}

// check returns the context of r with its token, or the status of the refusal as an error.
func (i *Interceptor) check(r *http.Request) (context.Context, error) {
	need, listed := i.methods[r.URL.Path]
	if !listed {
		need = scopes.Requirement{}
	}
	d := i.guard.Decide(r, need)
	if d.Err() != nil {
		return nil, refuse(r.Context(), d)
	}
	if nonce := d.Header().Get("DPoP-Nonce"); nonce != "" { // RFC 9449, section 8.2
		_ = grpc.SetHeader(r.Context(), metadata.Pairs("DPoP-Nonce", nonce)) // fails as SetTrailer does below
	}
	return d.Context(r.Context()), nil
}

// refuse sets the trailers of a refusal and returns its status.
func refuse(ctx context.Context, d middleware.Decision) error {
	trailer := metadata.MD{}
	for _, name := range []string{"WWW-Authenticate", "Retry-After", "DPoP-Nonce"} {
		if values := d.Header()[http.CanonicalHeaderKey(name)]; len(values) > 0 {
			trailer.Set(name, values...)
		}
	}
	// SetTrailer fails only without a transport to carry the trailer. The status alone must then suffice.
	_ = grpc.SetTrailer(ctx, trailer)

	message := http.StatusText(d.Status())
	var refusal *valetkey.Error
	if errors.As(d.Err(), &refusal) && refusal.Reason.Description() != "" {
		message += ": " + refusal.Reason.Description()
	}
	return status.Error(code(d.Status()), message)
}

// code returns the gRPC code for an HTTP status. A malformed token is UNAUTHENTICATED, not INVALID_ARGUMENT: that code is about
// the message, and clients respond to UNAUTHENTICATED by fetching another token. The challenge distinguishes the two cases.
func code(status int) codes.Code {
	switch status {
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	default:
		return codes.Unauthenticated
	}
}

// request returns the call as an HTTP request.
func request(ctx context.Context, method string) *http.Request {
	r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: method}, Header: http.Header{}, Body: http.NoBody}
	md, _ := metadata.FromIncomingContext(ctx)
	for name, values := range md {
		if name == ":authority" && len(values) == 1 {
			r.Host = values[0]
		}
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	if p, ok := peer.FromContext(ctx); ok {
		if p.Addr != nil {
			r.RemoteAddr = p.Addr.String()
		}
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			r.TLS = &info.State
		}
	}
	return r.WithContext(ctx)
}
