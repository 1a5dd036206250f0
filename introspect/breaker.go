package introspect

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/valetkey/valetkey/internal/fetch"
)

const (
	maxFailures   = 5           // in a row, before the breaker opens
	firstRetry    = time.Second // after it has, doubling
	lastRetry     = time.Minute // up to this
	maxRetryAfter = 5 * time.Minute
)

// A breaker decides whether the endpoint may be asked. After maxFailures failures in a row it is open: nobody is asked for
// a while, then one question is let through as a probe, and its success closes the breaker. An endpoint that asks for
// patience (Retry-After) gets it at once. The zero value is closed. It has no lock.
type breaker struct {
	failures int       // in a row
	until    time.Time // nobody is asked before
	probing  bool      // a probe is in flight
	cause    error     // of the last failure
	epoch    int       // of the attempts that count: those that began before the last failure that mattered say nothing new
}

// enter returns the number of an attempt, to be handed to leave, or how long to wait.
func (b *breaker) enter(now time.Time) (attempt int, wait time.Duration) {
	if now.Before(b.until) {
		return 0, b.until.Sub(now)
	}
	if b.failures >= maxFailures {
		if b.probing {
			return 0, firstRetry
		}
		b.probing = true
	}
	return b.epoch, 0
}

type change int

const (
	none   change = iota
	opened        // or open for longer
	mended
)

// leave takes in how an attempt ended.
func (b *breaker) leave(attempt int, now time.Time, err error) change {
	wait := patience(err)
	if err != nil {
		b.cause = err
	}
	switch {
	case attempt != b.epoch:
		if until := now.Add(wait); wait > 0 && until.After(b.until) {
			b.until = until
		}
		return none
	case err == nil || aboutToken(err):
		before := b.failures
		b.failures, b.probing = 0, false
		if before >= maxFailures {
			return mended
		}
		return none
	}
	b.failures++
	if over := b.failures - maxFailures; over >= 0 {
		wait = max(wait, jitter(min(lastRetry, firstRetry<<min(over, 10))))
	}
	if wait == 0 {
		return none
	}
	b.until, b.probing = now.Add(wait), false
	b.epoch++
	return opened
}

// jitter takes up to a fifth away, so that many who failed together do not try again together.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/5+1) }

// patience returns the Retry-After that came with an error.
func patience(err error) time.Duration {
	if e, ok := errors.AsType[*fetch.Error](err); ok {
		return min(e.RetryAfter, maxRetryAfter)
	}
	return 0
}

// aboutToken reports whether the endpoint may have been upset by this one token: then it is alive, and whoever sends such
// tokens must not keep others from asking.
func aboutToken(err error) bool {
	switch status(err) {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// misconfigured reports whether the endpoint refused the question as such (RFC 7662, section 2.3).
func misconfigured(err error) bool {
	s := status(err)
	return s >= 400 && s < 500 && s != http.StatusRequestTimeout && s != http.StatusTooManyRequests
}

func status(err error) int {
	if e, ok := errors.AsType[*fetch.Error](err); ok {
		return e.Status
	}
	return 0
}
