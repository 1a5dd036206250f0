package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/tokencache"
)

// streamInterval is how often the token of a request under way is verified again.
const streamInterval = time.Minute

// streams are the accepted requests under way whose contexts end with their tokens, Config.CancelWithToken.
//
// Each request adds itself, once it is accepted, and takes itself out when its context ends; so a client fills this as far as
// the server serves its requests at the same time, and each costs a small part of what the server keeps for it anyway. There is
// no bound of its own, and nothing is ever dropped: a dropped request would outlive a revocation. A large number makes each
// revocation slower, by a look at every request under way, and no request.
type streams struct {
	guard  *Guard
	shards [64]streamShard // chosen at random, so that requests do not wait for one lock
}

type streamShard struct {
	mu   sync.Mutex
	open map[*stream]struct{}
	_    [48]byte // no two locks in one cache line
}

// A stream is one request under way.
type stream struct {
	streams *streams
	shard   *streamShard
	ctx     context.Context
	cancel  context.CancelCauseFunc
	token   *valetkey.Token // as accepted; its facts are those that a revocation names
	raw     string          // as the request carries it

	mu       sync.Mutex
	deadline time.Time // by the machine's clock, which also runs the timer; zero: unknown
	timer    *time.Timer
	ended    bool
}

var (
	errExpired = &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonExpiredMeanwhile}

	// Of a request under way there is no 503, and it must not go on. The next request with the token gets errMayBeRevoked.
	errEndedUnknown = &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonPerhapsRevokedMeanwhile}
)

// open returns a context that ends with parent or with the token of e, whichever is first. There is an error if the token was
// revoked after it was verified.
func (ss *streams) open(parent context.Context, raw string, e *tokencache.Entry) (context.Context, error) {
	s := &stream{streams: ss, shard: &ss.shards[rand.IntN(len(ss.shards))], token: e.Token, raw: raw}
	s.ctx, s.cancel = context.WithCancelCause(parent)
	s.deadline = ss.guard.endOf(s.token)

	s.shard.mu.Lock()
	if s.shard.open == nil {
		s.shard.open = make(map[*stream]struct{})
	}
	s.shard.open[s] = struct{}{}
	s.shard.mu.Unlock()
	// A revocation that came before this look at it did not find the request among those under way.
	if err := ss.guard.denials.check(s.token); err != nil {
		s.end(err)
		return nil, err
	}
	s.mu.Lock()
	if !s.ended {
		s.timer = time.AfterFunc(s.nextLocked(), s.look)
	}
	s.mu.Unlock()
	context.AfterFunc(s.ctx, func() { s.end(nil) })
	return s.ctx, nil
}

// endOf returns when t can no longer be accepted, by the machine's clock; zero if that is unknown. A verifier that sets no
// Deadline may have accepted t by a leeway after its Expiry, which then says nothing.
func (g *Guard) endOf(t *valetkey.Token) time.Time {
	now, end := g.now(), t.Deadline()
	if end.IsZero() && t.Expiry().After(now) {
		end = t.Expiry()
	}
	if end.IsZero() {
		return end
	}
	return time.Now().Add(end.Sub(now))
}

// nextLocked returns how long it is until the next look is due.
func (s *stream) nextLocked() time.Duration {
	if !s.deadline.IsZero() {
		return max(min(streamInterval, time.Until(s.deadline)), 0)
	}
	return streamInterval
}

// look ends the request if its token has expired or is refused by now, and otherwise looks again later. A failure, which says
// nothing about the token, leaves the request alone until then.
func (s *stream) look() {
	s.mu.Lock()
	expired := !s.deadline.IsZero() && !time.Now().Before(s.deadline)
	s.mu.Unlock()
	if expired {
		s.end(errExpired)
		return
	}
	e, err := s.verify()
	var refusal *valetkey.Error
	if errors.As(err, &refusal) {
		s.end(err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	if err == nil {
		s.deadline = s.streams.guard.endOf(e.Token)
	}
	s.timer.Reset(s.nextLocked())
}

// verify is the cache's Verify for the token of a request under way. No handler is there to recover from a panic.
func (s *stream) verify() (e *tokencache.Entry, err error) {
	g := s.streams.guard
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("middleware: the verifier panicked: %T", v)
			g.log.LogAttrs(s.ctx, slog.LevelError, "the token of a request under way cannot be verified", slog.Any("err", err))
		}
	}()
	e, _, err = g.cache.Verify(s.ctx, s.raw)
	return e, err
}

// end ends the context with cause, if that has not ended, and keeps nothing of the request.
func (s *stream) end(cause error) {
	s.mu.Lock()
	s.ended = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.shard.mu.Lock()
	delete(s.shard.open, s)
	s.shard.mu.Unlock()
	if cause != nil && s.ctx.Err() == nil {
		log := s.streams.guard.log
		log.LogAttrs(s.ctx, slog.LevelDebug, "request ended with its token", slog.Any("err", cause))
	}
	s.cancel(cause)
}

// endDenied ends the requests whose tokens are or may be revoked. Nil streams have none.
func (ss *streams) endDenied() {
	if ss == nil {
		return
	}
	for i := range ss.shards {
		shard := &ss.shards[i]
		denied := make(map[*stream]error)
		shard.mu.Lock()
		for s := range shard.open {
			switch err := ss.guard.denials.check(s.token); err {
			case nil:
			case errMayBeRevoked:
				denied[s] = errEndedUnknown
			default:
				denied[s] = err
			}
		}
		shard.mu.Unlock()
		for s, err := range denied {
			s.end(err)
		}
	}
}

// len returns how many requests are under way.
func (ss *streams) len() (n int) {
	if ss == nil {
		return 0
	}
	for i := range ss.shards {
		ss.shards[i].mu.Lock()
		n += len(ss.shards[i].open)
		ss.shards[i].mu.Unlock()
	}
	return n
}
