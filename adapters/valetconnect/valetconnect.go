// Package valetconnect guards the procedures of Connect services with access tokens.
//
//	guarded, err := valetconnect.New(guard, valetconnect.Procedures{
//		"/orders.v1.Orders/List":  scopes.All("orders:read"),
//		"/orders.v1.Orders/Watch": scopes.All("orders:read"),
//		"/ping.v1.Ping/Ping":      valetkey.Public,
//	})
//	...
//	mux.Handle("/", guarded(services))
//
// Procedures read the token with valetkey.FromContext(ctx).
//
// A guard alone responds in plain HTTP. A Connect client reduces such a response to a code, and a 400 to an internal error. This
// package writes refusals in the caller's protocol: Connect, gRPC or gRPC-Web. The code is unauthenticated, permission_denied or,
// for a failure of the server, unavailable. The metadata carries the challenge (www-authenticate) or the delay (retry-after).
//
// With [middleware.Config].CancelWithToken, the context of a procedure ends with its token, and calls that wait for the client
// return: Receive immediately, and Send one second later.
package valetconnect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// Procedures maps the full name of a procedure, "/orders.v1.Orders/List", to its requirement. The name is also the path of the
// request. A value is [valetkey.Public], [valetkey.Optional], [valetkey.AnyToken] or a requirement on the token. A request for a
// procedure or any other path that is not listed is refused as if it needed a scope that no token has.
type Procedures map[string]valetkey.Requirement

// New returns middleware that guards the listed procedures. It keeps a copy of procedures. Pass the options of the services'
// handlers as opts: they determine how the protocol of a request is recognized. The error joins one [valetkey.ConfigError] for
// each mistake in procedures.
func New(g *middleware.Guard, procedures Procedures, opts ...connect.HandlerOption) (func(http.Handler) http.Handler, error) {
	var mistakes []error
	mistake := func(field, problem string) {
		mistakes = append(mistakes, fmt.Errorf("valetconnect: %w", &valetkey.ConfigError{Field: field, Err: errors.New(problem)}))
	}
	if g == nil {
		mistake("guard", "required")
	}
	for procedure, need := range procedures {
		service, name, _ := strings.Cut(strings.TrimPrefix(procedure, "/"), "/")
		if !strings.HasPrefix(procedure, "/") || service == "" || name == "" || strings.Contains(name, "/") {
			mistake(fmt.Sprintf("Procedures[%q]", procedure), "not of the form /package.Service/Procedure")
		}
		if need == nil {
			mistake(fmt.Sprintf("Procedures[%q]", procedure), "nil")
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	for _, need := range procedures {
		g.Declare(need)
	}
	guarded := guarded{g, maps.Clone(procedures), connect.NewErrorWriter(opts...)}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { guarded.serve(w, r, next) })
	}, nil
}

type guarded struct {
	guard      *middleware.Guard
	procedures Procedures
	errors     *connect.ErrorWriter
}

func (g guarded) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	need, listed := g.procedures[r.URL.Path]
	if !listed {
		need = scopes.Requirement{}
	}
	d := g.guard.Decide(r, need)
	if d.Err() != nil && g.errors.IsSupported(r) {
		g.refuse(w, r, d)
		return
	}
	if r, ok := d.Apply(w, r); ok {
		defer endWithToken(r.Context(), w)()
		next.ServeHTTP(w, r)
	}
}

// endWithToken makes calls that wait for the client return after the token has ended ctx, which happens only with
// Config.CancelWithToken of the guard. Reads return immediately. Writes return after lastWords, so that the procedure can still
// send an error. Call done when the procedure has returned.
func endWithToken(ctx context.Context, w http.ResponseWriter) (done func()) {
	control := http.NewResponseController(w)
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		var refusal *valetkey.Error
		if errors.As(context.Cause(ctx), &refusal) { // fails if the writer does not support deadlines
			_ = control.SetReadDeadline(time.Unix(1, 0))
			_ = control.SetWriteDeadline(time.Now().Add(lastWords))
		}
	})
	return func() {
		if !stop() {
			<-over
			_ = control.SetWriteDeadline(time.Time{}) // the connection may serve another request
		}
	}
}

// lastWords is how long a procedure can still write after its token has ended.
const lastWords = time.Second

// refuse writes a refusal in the caller's protocol.
func (g guarded) refuse(w http.ResponseWriter, r *http.Request, d middleware.Decision) {
	message := http.StatusText(d.Status())
	var refusal *valetkey.Error
	if errors.As(d.Err(), &refusal) && refusal.Reason.Description() != "" {
		message += ": " + refusal.Reason.Description()
	}
	// Headers in every protocol: net/http sends no challenge in a trailer, and clients find headers in the metadata of the error.
	for name, values := range d.Header() {
		if !strings.HasPrefix(name, "Content-") {
			w.Header()[name] = values
		}
	}
	_ = g.errors.Write(w, r, connect.NewError(code(d.Status()), errors.New(message))) // fails only if the connection does
}

// code returns the Connect code for an HTTP status. A malformed token is unauthenticated, not invalid_argument: that code is
// about the message, and clients respond to unauthenticated by fetching another token. The challenge distinguishes the two cases.
func code(status int) connect.Code {
	switch status {
	case http.StatusForbidden:
		return connect.CodePermissionDenied
	case http.StatusServiceUnavailable:
		return connect.CodeUnavailable
	default:
		return connect.CodeUnauthenticated
	}
}
