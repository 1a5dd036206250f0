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
// Procedures find the token with valetkey.FromContext(ctx). A guard alone would answer in plain HTTP, of which a caller makes
// a code and nothing else, and of a 400 an internal error. Here a refusal is in the caller's protocol, Connect, gRPC or
// gRPC-Web, with the code unauthenticated, permission_denied or, for a failure of ours, unavailable, and with the challenge
// or the wait in its metadata: www-authenticate, retry-after.
//
// With [middleware.Config].CancelWithToken of the guard, a procedure's context ends with its token, and what waits for its caller
// returns: Receive at once, and Send a second later.
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

// Procedures says what each procedure needs, by its full name, "/orders.v1.Orders/List", which is also the path that the
// handler sees. A value is [valetkey.Public], [valetkey.Optional], [valetkey.AnyToken], or what a token must meet. A
// procedure that is not listed is refused, as if it needed a scope that nobody has, and so is any other path.
type Procedures map[string]valetkey.Requirement

// New returns middleware with a copy of procedures. The options should be those of the services' handlers: they say how a
// protocol is told. The error names every mistake in procedures.
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

// endWithToken makes what waits for the caller return once the token has ended ctx, which Config.CancelWithToken of the guard
// makes it do: reads at once, and writes a moment later, in which the procedure can say why. Its result is called when the
// procedure has returned.
func endWithToken(ctx context.Context, w http.ResponseWriter) (done func()) {
	control := http.NewResponseController(w)
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		var refusal *valetkey.Error
		if errors.As(context.Cause(ctx), &refusal) { // it fails for a writer that knows no deadlines
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

// lastWords is how long a procedure whose token has ended can still write.
const lastWords = time.Second

// refuse writes a refusal in the caller's protocol.
func (g guarded) refuse(w http.ResponseWriter, r *http.Request, d middleware.Decision) {
	message := http.StatusText(d.Status())
	var refusal *valetkey.Error
	if errors.As(d.Err(), &refusal) && refusal.Reason.Description() != "" {
		message += ": " + refusal.Reason.Description()
	}
	// As headers in every protocol: net/http sends no challenge in a trailer, and callers find both in the metadata of the error.
	for name, values := range d.Header() {
		if !strings.HasPrefix(name, "Content-") {
			w.Header()[name] = values
		}
	}
	_ = g.errors.Write(w, r, connect.NewError(code(d.Status()), errors.New(message))) // it fails with the connection
}

// code returns the code for an HTTP status. A malformed token is unauthenticated: invalid_argument is about the message, and
// callers that get unauthenticated fetch another token, which is what helps. The challenge tells them apart.
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
