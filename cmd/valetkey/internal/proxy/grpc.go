package proxy

import (
	"context"
	"net/http"
	"strconv"
	"strings"
)

// isGRPC reports whether r is a call of gRPC over HTTP/2. A call of gRPC-Web is not: its clients read the HTTP status.
func isGRPC(r *http.Request) bool {
	kind := r.Header.Get("Content-Type")
	rest, ok := strings.CutPrefix(kind, "application/grpc")
	return ok && r.ProtoMajor == 2 && r.Method == http.MethodPost && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// grpcRefusals is the response to a call of gRPC that the proxy answers itself: a refusal, or the failure of the upstream. It writes
// the status as a client of gRPC reads it, in a response that is nothing but headers ("Trailers-Only" in the protocol of gRPC over
// HTTP/2). Of another HTTP status than 200, the client libraries would report no header, so that a client could not read the challenge
// or the DPoP nonce. Both are in the metadata of the trailer.
type grpcRefusals struct {
	http.ResponseWriter
	passes bool // the response is that of the upstream, which passes unchanged
	done   bool
}

type grpcKey struct{}

// refusingGRPC returns the response to r with refusals for gRPC, and r with a reference to it.
func refusingGRPC(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request) {
	g := &grpcRefusals{ResponseWriter: w}
	return g, r.WithContext(context.WithValue(r.Context(), grpcKey{}, g))
}

// Unwrap supports http.ResponseController.
func (g *grpcRefusals) Unwrap() http.ResponseWriter { return g.ResponseWriter }

// WriteHeader writes the gRPC status for an HTTP status.
func (g *grpcRefusals) WriteHeader(status int) {
	switch {
	case g.passes:
		g.ResponseWriter.WriteHeader(status)
		return
	case g.done:
		return
	}
	g.done = true
	h := g.Header()
	h.Del("Content-Length")
	h.Del("X-Content-Type-Options")
	h.Set("Content-Type", "application/grpc")
	setGRPCStatus(h, "", status)
	g.ResponseWriter.WriteHeader(http.StatusOK)
}

// Write discards the body, which a client of gRPC would take for a message.
func (g *grpcRefusals) Write(p []byte) (int, error) {
	if g.passes {
		return g.ResponseWriter.Write(p)
	}
	g.WriteHeader(http.StatusOK)
	return len(p), nil
}

// forwardGRPC lets the response of the upstream pass. The result must be deferred: if the token has ended the response, it ends that
// with a status for the client in place of an aborted stream.
func (e *exchange) forwardGRPC() func() {
	e.grpc, _ = e.request.Context().Value(grpcKey{}).(*grpcRefusals)
	if e.grpc == nil {
		return func() {}
	}
	e.grpc.passes = true
	return func() {
		if !e.begun || e.refusal() == nil {
			return
		}
		switch v := recover(); v {
		case nil: // the response is complete
		case http.ErrAbortHandler: // how httputil.ReverseProxy ends one that it cannot complete
			setGRPCStatus(e.Header(), http.TrailerPrefix, http.StatusUnauthorized)
		default:
			panic(v)
		}
	}
}

func setGRPCStatus(h http.Header, prefix string, status int) {
	h.Set(prefix+"Grpc-Status", strconv.Itoa(grpcCode(status)))
	h.Set(prefix+"Grpc-Message", http.StatusText(status))
}

// grpcCode returns the gRPC code for an HTTP status. As in valetgrpc, a request that has a malformed token or two of them is
// UNAUTHENTICATED, which makes clients get another token.
func grpcCode(status int) int {
	switch status {
	case http.StatusBadRequest, http.StatusUnauthorized:
		return 16 // UNAUTHENTICATED
	case http.StatusForbidden:
		return 7 // PERMISSION_DENIED
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return 12 // UNIMPLEMENTED
	case http.StatusRequestEntityTooLarge:
		return 8 // RESOURCE_EXHAUSTED
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return 14 // UNAVAILABLE
	default:
		return 2 // UNKNOWN
	}
}
