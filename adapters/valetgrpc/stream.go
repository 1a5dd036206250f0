package valetgrpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/valetkey/valetkey"
)

var errExpired = &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.NewReason("expired_in_stream", "the token expired while the stream was open")}

// Stream is a [grpc.StreamServerInterceptor]. When the token can no longer be accepted, at its Deadline by the machine's clock, the
// stream's context ends, its SendMsg and RecvMsg return, also one that waits, and the client gets UNAUTHENTICATED once the
// method has returned their error. With [middleware.Config].CancelWithToken of the guard, the same happens when the token is
// revoked. A method that waits for something else has to watch its context.
func (i *Interceptor) Stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	r := request(stream.Context(), info.FullMethod)
	ctx, err := i.check(r)
	if err != nil {
		return err
	}
	token := valetkey.FromContext(ctx)
	if token == nil {
		return handler(service, &guardedStream{stream, ctx})
	}
	if end := endOf(token); !end.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, end, errExpired)
		defer cancel()
	}
	err = handler(service, &guardedStream{stream, ctx})
	if refusal := refusalOf(ctx); err != nil && refusal != nil {
		return refuse(r.Context(), i.guard.Reject(r, refusal))
	}
	return err
}

// endOf returns when t can no longer be accepted; zero if that is unknown. A verifier that sets no Deadline may have accepted t
// by a leeway after its Expiry, which then says nothing.
func endOf(t *valetkey.Token) time.Time {
	if t.Deadline().IsZero() && t.Expiry().After(time.Now()) {
		return t.Expiry()
	}
	return t.Deadline()
}

// refusalOf returns why ctx has ended, if its token was why.
func refusalOf(ctx context.Context) (refusal *valetkey.Error) {
	errors.As(context.Cause(ctx), &refusal)
	return refusal
}

// A guardedStream is a stream that lives no longer than its token.
type guardedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *guardedStream) Context() context.Context { return s.ctx }

func (s *guardedStream) SendMsg(m any) error {
	return s.inTime(func() error { return s.ServerStream.SendMsg(m) })
}

func (s *guardedStream) RecvMsg(m any) error {
	return s.inTime(func() error { return s.ServerStream.RecvMsg(m) })
}

// inTime calls f and does not wait for it past the end of the token. What is left waiting ends with the method, as gRPC
// then ends the stream below.
func (s *guardedStream) inTime(f func() error) error {
	if refusal := refusalOf(s.ctx); refusal != nil {
		return ended(refusal)
	}
	if s.ctx.Done() == s.ServerStream.Context().Done() { // no token ends it
		return f()
	}
	var err error
	var panicked any // by a codec; it belongs to the caller, and to what recovers there
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		err = f()
	}()
	select {
	case <-done:
	case <-s.ctx.Done():
		if refusal := refusalOf(s.ctx); refusal != nil {
			return ended(refusal)
		}
		<-done // the call itself has ended, and f with it
	}
	if panicked != nil {
		panic(panicked)
	}
	return err
}

func ended(refusal *valetkey.Error) error {
	return status.Error(code(refusal.Status()), refusal.Reason.Description())
}
