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
	"github.com/valetkey/valetkey/internal/denylist"
	"github.com/valetkey/valetkey/internal/tokencache"
)

// streamInterval is the interval at which the token of a request in progress is verified again.
const streamInterval = time.Minute

// streams holds the accepted requests in progress whose contexts end with their tokens, see Config.CancelWithToken.
//
// A request is added when it is accepted and removed when it has been served or its context ends. So the number of requests that the server serves at
// the same time bounds the size, and each entry is small compared with the memory that the server uses for the request. There is
// no separate bound, and no entry is ever dropped: a dropped request would outlive a revocation. A large number of requests slows
// down each revocation, which checks all of them, but not the requests.
type streams struct {
	guard  *Guard
	shards [64]streamShard // chosen at random, so that requests do not wait for one lock
}

type streamShard struct {
	mu   sync.Mutex
	open map[*stream]denylist.Prints // of the tokens, so that a revocation need not read each token from memory
	_    [48]byte                    // no two locks in one cache line
}

// A stream is one request in progress.
type stream struct {
	streams *streams
	shard   *streamShard
	ctx     context.Context
	cancel  context.CancelCauseFunc
	token   *valetkey.Token // as accepted; revocations are compared with it
	raw     string          // the text of the token

	mu       sync.Mutex
	deadline time.Time // by the machine's clock, which also runs the timer; zero: unknown
	timer    *time.Timer
	ended    bool
}

var (
	errExpired = &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonExpiredMeanwhile}

	// A request in progress can no longer get 503 and must not continue. The next request with the token gets errMayBeRevoked.
	errEndedUnknown = &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonPerhapsRevokedMeanwhile}
)

// open returns a stream whose context ends with parent or with the token of e, whichever is first. The caller must call end when the
// request has been served, or endWithContext. It returns an error if the token was revoked after it was verified.
func (ss *streams) open(parent context.Context, raw string, e *tokencache.Entry) (*stream, error) {
	s := &stream{streams: ss, shard: &ss.shards[rand.IntN(len(ss.shards))], token: e.Token, raw: raw}
	s.ctx, s.cancel = context.WithCancelCause(parent)
	s.deadline = ss.guard.endOf(s.token)

	prints := denylist.PrintsOf(s.token)
	s.shard.mu.Lock()
	if s.shard.open == nil {
		s.shard.open = make(map[*stream]denylist.Prints)
	}
	s.shard.open[s] = prints
	s.shard.mu.Unlock()
	// A revocation just before the request was added did not see it, so check here.
	if err := ss.guard.denials.check(s.token); err != nil {
		s.end(err)
		return nil, err
	}
	s.mu.Lock()
	if !s.ended {
		s.timer = time.AfterFunc(s.nextLocked(), s.look)
	}
	s.mu.Unlock()
	return s, nil
}

// endWithContext calls end when the context ends, in a goroutine for it.
func (s *stream) endWithContext() { context.AfterFunc(s.ctx, func() { s.end(nil) }) }

// endOf returns the time from which t can no longer be accepted, by the machine's clock; zero if it is unknown. A verifier that
// sets no Deadline may have accepted t within a leeway after its Expiry. In this case, the end is unknown.
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

// nextLocked returns the time until the next check is due.
func (s *stream) nextLocked() time.Duration {
	if !s.deadline.IsZero() {
		return max(min(streamInterval, time.Until(s.deadline)), 0)
	}
	return streamInterval
}

// look ends the request if its token has expired or is refused now. Otherwise it schedules the next check. A failure is not a
// verdict on the token, so the request continues.
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
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended { // now, or while the token was verified
		return
	}
	if err == nil {
		s.deadline = s.streams.guard.endOf(e.Token)
	}
	s.timer.Reset(s.nextLocked())
}

// verify calls the cache's Verify for the token of a request in progress. It recovers from panics, because no handler does so
// here.
func (s *stream) verify() (e *tokencache.Entry, err error) {
	g := s.streams.guard
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("middleware: the verifier panicked: %T", v)
			g.log.LogAttrs(s.ctx, slog.LevelError, "cannot verify the token of a request in progress", slog.Any("err", err))
		}
	}()
	e, _, err = g.cache.Verify(s.ctx, s.raw)
	return e, err
}

// end cancels the context with cause, unless it has already ended, and removes the request.
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

// endDenied ends the requests whose tokens selected selects and that are or may be revoked. ss may be nil.
func (ss *streams) endDenied(selected *denylist.Selection) {
	if ss == nil {
		return
	}
	for i := range ss.shards {
		shard := &ss.shards[i]
		type ending struct {
			s     *stream
			cause error
		}
		var denied []ending
		shard.mu.Lock()
		for s, prints := range shard.open {
			if !selected.May(&prints) || !selected.NamesToken(s.token) {
				continue
			}
			switch err := ss.guard.denials.check(s.token); err {
			case nil:
			case errMayBeRevoked:
				denied = append(denied, ending{s, errEndedUnknown})
			default:
				denied = append(denied, ending{s, err})
			}
		}
		shard.mu.Unlock()
		for _, e := range denied {
			e.s.end(e.cause)
		}
	}
}

// len returns the number of requests in progress. ss may be nil.
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
