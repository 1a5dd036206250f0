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

// Stream is a [grpc.StreamServerInterceptor]. It ends the stream when the token can no longer be accepted, which is at its
// Deadline by the machine's clock: the context of the stream ends, and SendMsg and RecvMsg return, including calls that are
// blocked. The client receives UNAUTHENTICATED once the method has returned their error. With [middleware.Config].CancelWithToken
// of the guard, the stream also ends when the token is revoked. A method that waits for something else must watch the context.
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

// endOf returns the time after which t can no longer be accepted, or the zero time if that is unknown. A verifier that sets no
// Deadline may have accepted t within a leeway after its Expiry, so an Expiry in the past is ignored.
func endOf(t *valetkey.Token) time.Time {
	if t.Deadline().IsZero() && t.Expiry().After(time.Now()) {
		return t.Expiry()
	}
	return t.Deadline()
}

// refusalOf returns the refusal that ended ctx, or nil if its token did not end it.
func refusalOf(ctx context.Context) (refusal *valetkey.Error) {
	errors.As(context.Cause(ctx), &refusal)
	return refusal
}

// A guardedStream is a stream that ends no later than its token.
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

// inTime calls f but stops waiting for it when the token ends. A call that is still blocked returns when the method returns,
// because gRPC then ends the underlying stream.
func (s *guardedStream) inTime(f func() error) error {
	if refusal := refusalOf(s.ctx); refusal != nil {
		return ended(refusal)
	}
	if s.ctx.Done() == s.ServerStream.Context().Done() { // no token ends it
		return f()
	}
	var err error
	var panicked any // by a codec; re-panics in the caller, whose recovery handles it
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
		<-done // the call itself has ended, so f returns
	}
	if panicked != nil {
		panic(panicked)
	}
	return err
}

func ended(refusal *valetkey.Error) error {
	return status.Error(code(refusal.Status()), refusal.Reason.Description())
}
