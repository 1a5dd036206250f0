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

// maxBlamed bounds each of the two lists of tokens that failed. The holder of a token adds one entry, if the endpoint fails
// or returns an unreadable response. When a list is full, an arbitrary token is dropped: the endpoint may be asked about it
// again, and it may count again. That affects no other token.
const maxBlamed = 128

// A breaker decides whether the endpoint may be asked. It opens after maxFailures tokens in a row have failed: the endpoint
// is then not asked for a while, after which one question passes as a probe, and its success closes the breaker. If the
// endpoint sends Retry-After, the breaker complies immediately. The zero value is closed. It has no lock.
//
// A token counts once in a row, however often it fails: a token that makes the endpoint fail must not block other tokens. A
// token whose responses are faulty does not count at all. In both cases, a token with maxFailures failures waits separately,
// for as long as the breaker would, so that it does not provoke the endpoint's rate limit for all.
type breaker struct {
	failures int       // tokens in a row
	until    time.Time // no question before this time
	probing  bool      // a probe is in flight, so the breaker is open
	cause    error     // of the last failure
	epoch    int       // of attempts that count; those that began before the last failure that mattered bring no news
	blamed   blames    // tokens that failed in this row
	faulty   blames    // tokens whose last response was faulty
}

type blames map[digest.Digest]*blame

// A blame is the record of a token that failed.
type blame struct {
	failures int
	until    time.Time // no question about it before this time
}

// An attempt to ask the endpoint is passed to leave when it has ended.
type attempt struct {
	key      digest.Digest
	epoch    int
	relocate bool // the endpoint has failed so often that it may have moved
}

// enter returns an attempt, or how long to wait.
func (b *breaker) enter(key digest.Digest, now time.Time) (a attempt, wait time.Duration) {
	if wait = b.wait(key, now); wait > 0 {
		return attempt{}, wait
	}
	open := b.failures >= maxFailures
	if b.probing {
		return attempt{}, firstRetry
	}
	b.probing = open
	own := b.blamed[key]
	relocate := open || own != nil && own.failures >= maxFailures
	return attempt{key: key, epoch: b.epoch, relocate: relocate}, 0
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
	opened        // or stays open for longer
	mended
)

// leave records the outcome of an attempt.
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
		case !errors.Is(err, errNoKeys): // missing keys are not the fault of any token
			b.faulty.add(a.key, now)
		}
		before := b.failures
		b.failures, b.probing, b.blamed = 0, false, nil
		if before >= maxFailures {
			return mended
		}
		return none
	}
	b.probing = false // of attempts of this epoch, none but the probe can have begun while the breaker was open
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

// add records a failure of a token, and reports whether it is the first one in bs.
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

// backoff returns the wait after the given number of failures beyond the first that causes one.
func backoff(over int) time.Duration { return jitter(min(lastRetry, firstRetry<<min(over, 10))) }

// jitter subtracts up to a fifth, so that servers that failed together do not retry together.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/5+1) }

// patience returns the Retry-After of an error, bounded by maxRetryAfter; zero: none.
func patience(err error) time.Duration {
	if e, ok := errors.AsType[*fetch.Error](err); ok {
		return min(e.RetryAfter, maxRetryAfter)
	}
	return 0
}

// aboutToken reports whether the failure may be due to this one token. The endpoint then counts as available, since the
// holder of such a token must not block other tokens. That applies to the statuses below, and to every fault in the content
// of a response with status 200 and the right media type.
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

// misconfigured reports whether the endpoint rejected the request itself (RFC 7662, section 2.3).
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
