package statuslist

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
)

const (
	maxWait    = 2 * time.Second // of one request, for a fetch
	firstRetry = time.Second     // after a failure, doubling
	lastRetry  = time.Minute     // up to this
	recently   = 5 * time.Minute // a list that nobody asked for in so long is no concern of the health
)

// A list is one status list: a snapshot behind an atomic pointer, and the timers that renew it and give it up.
type list struct {
	v       *Verifier
	uri     string
	current atomic.Pointer[snapshot] // nil: none that may be relied on
	used    atomic.Bool              // since the last fetch
	turn    uint64                   // of its last use by Verify; guarded by v.mu

	mu       sync.Mutex // guards what follows; never held during I/O
	dropped  bool
	flight   chan struct{} // closed when the fetch in progress has ended; nil: none is
	failures int           // in a row
	retry    time.Time     // no fetch before, after a failure
	err      error         // of the last fetch
	since    time.Time     // of err
	needed   time.Time     // when a request last had to ask for it
	refresh  *time.Timer
	expiry   *time.Timer
}

var errClosed = errors.New("statuslist: the verifier is closed")

// list returns the list of a URI, a new one if need be, for which the least recently used one gives way.
func (v *Verifier) list(uri string) (*list, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, errClosed
	}
	v.turn++
	if l := v.lists[uri]; l != nil {
		l.turn = v.turn
		return l, nil
	}
	if len(v.lists) >= v.cfg.MaxLists {
		var oldest *list
		for _, l := range v.lists {
			if oldest == nil || l.olderThan(oldest) {
				oldest = l
			}
		}
		delete(v.lists, oldest.uri)
		defer oldest.drop()
	}
	l := &list{v: v, uri: uri, turn: v.turn}
	v.lists[uri] = l
	return l, nil
}

// olderThan compares when lists were last used; by remembered tokens, only whether they were since the last fetch is known.
func (l *list) olderThan(o *list) bool {
	if used := l.used.Load(); used != o.used.Load() {
		return !used
	}
	return l.turn < o.turn
}

// use marks l as used. A mark that is there already is not written again, for the sake of the other cores.
func (l *list) use() {
	if !l.used.Load() {
		l.used.Store(true)
	}
}

// held returns the snapshot that may be relied on: its key is still in the issuer's set. Nil: there is none. It takes no lock.
func (l *list) held() *snapshot {
	if held := l.current.Load(); held != nil && held.key.Holds() {
		return held
	}
	return nil
}

// need returns the snapshot, for which it waits if there is none.
func (l *list) need(ctx context.Context) (*snapshot, error) {
	defer l.use() // after the fetch, so that it counts
	if held := l.held(); held != nil {
		return held, nil
	}
	if flight := l.demand(); flight != nil {
		limit := time.NewTimer(maxWait)
		defer limit.Stop()
		select {
		case <-flight:
		case <-ctx.Done():
		case <-limit.C:
		}
	}
	if held := l.held(); held != nil {
		return held, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.err
	if err == nil {
		err = errors.New("no answer yet")
	}
	return nil, &valetkey.Unavailable{
		RetryAfter: max(time.Second, time.Until(l.retry)),
		Err:        fmt.Errorf("the status list %s cannot be had: %w", fetch.Bare(l.uri), err),
	}
}

// demand returns the fetch that will bring a snapshot, beginning one if it may; nil: none will.
func (l *list) demand() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.needed = now
	if l.flight == nil && !l.dropped && !now.Before(l.retry) {
		l.begin()
	}
	return l.flight
}

// begin starts a fetch. It is detached from whoever asks for it.
func (l *list) begin() {
	flight, start := make(chan struct{}), time.Now()
	l.flight = flight
	l.used.Store(false)
	l.v.fetching.Go(func() {
		next, err := l.v.read(l.v.ctx, l.uri)
		l.land(next, start, err)
		close(flight)
		l.observe(time.Since(start), err)
	})
}

// land takes the result of a fetch in.
func (l *list) land(next *snapshot, start time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flight = nil
	if l.dropped {
		return
	}
	now := time.Now()
	if err != nil {
		l.failures++
		wait := min(lastRetry, firstRetry<<min(l.failures-1, 10))
		if e, ok := errors.AsType[*fetch.Error](err); ok {
			wait = max(wait, min(e.RetryAfter, l.v.cfg.MaxTTL))
		}
		l.err, l.since, l.retry = err, now, now.Add(wait)
		l.v.cfg.Logger.Warn("status list: the fetch did not succeed", "uri", fetch.Bare(l.uri), "retry_in", wait, "error", err)
		if l.held() != nil {
			l.used.Store(true) // it is still relied on
			l.schedule(wait)
		}
		return
	}
	l.failures, l.err, l.retry = 0, nil, time.Time{}
	// The list's own word counts, within our bounds, and not that of HTTP caches (section 8.2).
	ttl := l.v.cfg.Fresh
	if next.ttl > 0 {
		ttl = min(max(next.ttl, l.v.cfg.MinTTL), l.v.cfg.MaxTTL)
	}
	end := start.Add(ttl + l.v.cfg.StaleLimit)
	if !next.expiry.IsZero() && next.expiry.Before(end) {
		end = next.expiry
	}
	l.current.Store(next)
	l.schedule(ttl/2 + rand.N(ttl*3/10+1)) // spread, so that many who fetch do not go in step
	stop(l.expiry)
	l.expiry = time.AfterFunc(time.Until(end), l.expire)
}

// schedule sets the time of the next fetch, which is not made if nobody used the list meanwhile.
func (l *list) schedule(wait time.Duration) {
	stop(l.refresh)
	l.refresh = time.AfterFunc(wait, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.dropped && l.flight == nil && l.used.Load() {
			l.begin()
		}
	})
}

// expire gives up a snapshot that is too old.
func (l *list) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current.Store(nil)
	stop(l.refresh)
}

// drop ends the list: what relies on it asks for another.
func (l *list) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped = true
	l.current.Store(nil)
	stop(l.refresh)
	stop(l.expiry)
}

func stop(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}

// worsen makes h no better than l is.
func (l *list) worsen(h *valetkey.Health) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.err == nil:
	case l.held() == nil && time.Since(l.needed) < recently:
		h.State, h.Since, h.Err = valetkey.Down, l.since, l.err
	case l.held() != nil && h.State == valetkey.Ready:
		h.State, h.Since, h.Err = valetkey.Degraded, l.since, l.err
	}
}

// observe tells of a fetch that has ended, unless it was Close that ended it.
func (l *list) observe(took time.Duration, err error) {
	if l.v.cfg.Observer == nil || l.v.ctx.Err() != nil {
		return
	}
	status := http.StatusOK // there is an answer, even if it is of no use
	if e, ok := errors.AsType[*fetch.Error](err); ok {
		status = e.Status
	}
	l.v.cfg.Observer.Observe(l.v.ctx, valetkey.Event{
		Kind: valetkey.StatusListRead, Issuer: l.v.cfg.Issuer, Status: status, Duration: took, Err: err,
	})
}
