package introspect

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/valetkey/valetkey/internal/digest"
	"github.com/valetkey/valetkey/internal/fetch"
)

const (
	maxFailures   = 5           // in a row, before the breaker opens
	firstRetry    = time.Second // after it has, doubling
	lastRetry     = time.Minute // up to this
	maxRetryAfter = 5 * time.Minute
)

// maxBlamed bounds each of the two lists of tokens that failed. A holder of a token adds one entry, if the endpoint fails or
// gives an answer that cannot be read. When a list is full, one token is forgotten: it may be asked about, and count, anew.
// That hurts no other token.
const maxBlamed = 128

// A breaker decides whether the endpoint may be asked. After maxFailures tokens in a row that failed it is open: the endpoint
// is not asked for a while, then one question is let through as a probe, and its success closes the breaker. An endpoint
// that asks for patience (Retry-After) gets it at once. The zero value is closed. It has no lock.
//
// A token counts once in a row, however often it fails: one that makes the endpoint fail must not keep others from asking.
// One whose answers are at fault does not count at all. Either, after maxFailures failures, waits by itself, for as long as
// the breaker would, so that it does not use up the patience of the endpoint for all.
type breaker struct {
	failures int       // tokens in a row
	until    time.Time // the endpoint is not asked before
	probing  bool      // a probe is in flight
	cause    error     // of the last failure
	epoch    int       // of the attempts that count: those that began before the last failure that mattered say nothing new
	blamed   blames    // tokens that failed in this row
	faulty   blames    // tokens whose last answer was at fault
}

type blames map[digest.Digest]*blame

// A blame is what is known of a token that failed.
type blame struct {
	failures int
	until    time.Time // it is not asked about before
}

// An attempt to ask the endpoint is handed to leave when it has ended.
type attempt struct {
	key      digest.Digest
	epoch    int
	probe    bool
	relocate bool // the endpoint has failed so often that it may have moved
}

// enter returns an attempt, or how long to wait.
func (b *breaker) enter(key digest.Digest, now time.Time) (a attempt, wait time.Duration) {
	if wait = b.wait(key, now); wait > 0 {
		return attempt{}, wait
	}
	open := b.failures >= maxFailures
	if open && b.probing {
		return attempt{}, firstRetry
	}
	b.probing = open
	own := b.blamed[key]
	relocate := open || own != nil && own.failures >= maxFailures
	return attempt{key: key, epoch: b.epoch, probe: open, relocate: relocate}, 0
}

// wait returns how long the endpoint is not asked about the token of key.
func (b *breaker) wait(key digest.Digest, now time.Time) time.Duration {
	until := b.until
	for _, own := range []*blame{b.blamed[key], b.faulty[key]} {
		if own != nil && own.until.After(until) {
			until = own.until
		}
	}
	return max(0, until.Sub(now))
}

type change int

const (
	none   change = iota
	opened        // or open for longer
	mended
)

// leave takes in how an attempt ended.
func (b *breaker) leave(a attempt, now time.Time, err error) change {
	wait := patience(err)
	if err != nil {
		b.cause = err
	}
	switch {
	case a.epoch != b.epoch:
		if until := now.Add(wait); wait > 0 && until.After(b.until) {
			b.until = until
		}
		return none
	case err == nil || aboutToken(err):
		switch {
		case err == nil:
			delete(b.faulty, a.key)
		case !errors.Is(err, errNoKeys): // which is not the fault of any token
			b.faulty.add(a.key, now)
		}
		before := b.failures
		b.failures, b.probing, b.blamed = 0, false, nil
		if before >= maxFailures {
			return mended
		}
		return none
	}
	if a.probe {
		b.probing = false
	}
	if b.blamed.add(a.key, now) {
		b.failures++
		if over := b.failures - maxFailures; over >= 0 {
			wait = max(wait, backoff(over))
		}
	}
	if wait == 0 {
		return none
	}
	b.until = now.Add(wait)
	b.epoch++
	return opened
}

// add takes a failure of a token in, and reports whether it is the first one here.
func (bs *blames) add(key digest.Digest, now time.Time) (first bool) {
	own := (*bs)[key]
	if own == nil {
		if *bs == nil {
			*bs = blames{}
		}
		if len(*bs) >= maxBlamed {
			for other := range *bs {
				delete(*bs, other)
				break
			}
		}
		own = new(blame)
		(*bs)[key] = own
	}
	own.failures++
	if over := own.failures - maxFailures; over >= 0 {
		own.until = now.Add(backoff(over))
	}
	return own.failures == 1
}

// backoff returns the wait after so many failures beyond the first that causes one.
func backoff(over int) time.Duration { return jitter(min(lastRetry, firstRetry<<min(over, 10))) }

// jitter takes up to a fifth away, so that many who failed together do not try again together.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/5+1) }

// patience returns the Retry-After that came with an error.
func patience(err error) time.Duration {
	if e, ok := errors.AsType[*fetch.Error](err); ok {
		return min(e.RetryAfter, maxRetryAfter)
	}
	return 0
}

// aboutToken reports whether this one token may be what the endpoint, or its answer, fails on: then the endpoint is alive,
// and the holder of such a token must not keep others from asking. That is so of the statuses below, and of every fault
// within an answer with status 200 and the right media type.
func aboutToken(err error) bool {
	if errors.Is(err, errAnswer) || errors.Is(err, errNoKeys) {
		return true
	}
	if e, ok := errors.AsType[*fetch.Error](err); ok && e.Content {
		return true
	}
	switch statusOf(err) {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// misconfigured reports whether the endpoint refused the question as such (RFC 7662, section 2.3).
func misconfigured(err error) bool {
	s := statusOf(err)
	return s >= 400 && s < 500 && s != http.StatusRequestTimeout && s != http.StatusTooManyRequests
}

func statusOf(err error) int {
	if e, ok := errors.AsType[*fetch.Error](err); ok {
		return e.Status
	}
	return 0
}
