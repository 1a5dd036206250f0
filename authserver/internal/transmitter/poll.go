package transmitter

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/strictjson"
)

const (
	defaultEvents = 100
	mostEvents    = 1000
	longPoll      = 25 * time.Second       // less than proxies wait for a response
	pollEvery     = 250 * time.Millisecond // for events that another process adds
	maxPolls      = 4                      // waiting requests of a stream in this process, so that a receiver cannot hold any number of connections
	mostAcks      = 5000                   // what fits into a request
)

// A waiting is the state of the requests that wait for events of a stream.
type waiting struct {
	n    int
	news chan struct{} // closed when there are events
}

// announce wakes those that wait for events of a stream.
func (t *Transmitter) announce(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.waiting[s.ID]; w != nil {
		close(w.news)
		w.news = make(chan struct{})
	}
	if s.Method == push {
		if r := t.running[s.ID]; r != nil {
			wake(r.news)
		}
		wake(t.pushes)
	}
}

// poll implements RFC 8936, section 2.
func (t *Transmitter) poll(c *call) (int, any, error) {
	s, err := t.own(c, c.PathValue("id"))
	if err != nil {
		return 0, nil, err
	}
	if s.Method != poll {
		return 0, nil, errNoStream
	}
	m, err := c.members()
	if err != nil {
		return 0, nil, err
	}
	limit, immediately, err := pollMembers(m)
	if err != nil {
		return 0, nil, err
	}
	if err := t.acknowledge(c.Context(), s, m); err != nil {
		return 0, nil, err
	}
	if limit == 0 { // section 2.4: only acknowledges
		return http.StatusOK, object{"sets": object{}}, nil
	}
	items, more, err := t.available(c.Context(), s, limit)
	if err == nil && len(items) == 0 && !immediately {
		items, more, err = t.await(c.Context(), s, limit)
	}
	if err != nil {
		return 0, nil, err
	}
	sets, err := t.signAll(items)
	if err != nil {
		return 0, nil, err
	}
	answer := object{"sets": sets}
	if more {
		answer["moreAvailable"] = true
	}
	return http.StatusOK, answer, nil
}

// signAll returns signed tokens by jti. It uses all processors, because a signature takes a millisecond.
func (t *Transmitter) signAll(items []item) (map[string]string, error) {
	var (
		mu      sync.Mutex
		errs    error
		sets    = make(map[string]string, len(items))
		workers sync.WaitGroup
		size    = (len(items) + runtime.GOMAXPROCS(0)) / runtime.GOMAXPROCS(0)
	)
	for part := range slices.Chunk(items, size) {
		workers.Go(func() {
			for _, i := range part {
				set, err := t.sign(i.Claims)
				mu.Lock()
				sets[i.ID], errs = set, errors.Join(errs, err)
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return sets, errs
}

// pollMembers reads the members of section 2.2.
func pollMembers(m map[string]strictjson.Value) (limit int, immediately bool, err error) {
	limit = defaultEvents
	if v, there := m["maxEvents"]; there {
		n, ok := v.Number()
		if !ok || n < 0 || n != float64(int64(n)) {
			return 0, false, invalid("maxEvents: not a number of events")
		}
		limit = int(min(n, mostEvents))
	}
	if v, there := m["returnImmediately"]; there {
		is, ok := v.Bool()
		if !ok {
			return 0, false, invalid("returnImmediately: neither true nor false")
		}
		immediately = is
	}
	return limit, immediately, nil
}

// acknowledge removes the tokens that the receiver has, and gives up those that it refuses (section 2.2). Tokens that are not in the
// queue were acknowledged before.
func (t *Transmitter) acknowledge(ctx context.Context, s *stream, m map[string]strictjson.Value) error {
	var acks []string
	if v, there := m["ack"]; there {
		list, ok := v.Strings()
		if !ok || len(list) > mostAcks {
			return invalid("ack: not an array of at most %d jti", mostAcks)
		}
		acks = list
	}
	refused := map[string]string{}
	if v, there := m["setErrs"]; there {
		errs, err := objectOf(v)
		if err != nil {
			return invalid("setErrs: not an object")
		}
		for jti, v := range errs {
			about, err := objectOf(v)
			if err != nil {
				return invalid("setErrs: a member is not an object")
			}
			code, err := text(about, "err")
			if err != nil {
				return err
			}
			refused[jti] = code
		}
	}
	for _, jti := range acks {
		if isJTI(jti) {
			if err := t.dequeue(ctx, s.ID, jti); err != nil {
				return err
			}
		}
	}
	for jti, code := range refused {
		if !isJTI(jti) {
			continue
		}
		i, found, err := t.one(ctx, s, jti)
		if err != nil {
			return err
		}
		if found {
			if err := t.giveUp(ctx, s, i, "refused by the receiver: "+printable(code)); err != nil {
				return err
			}
		}
	}
	return nil
}

// available returns the tokens that may be delivered now, and whether there are more.
func (t *Transmitter) available(ctx context.Context, s *stream, limit int) (items []item, more bool, err error) {
	items, err = t.queued(ctx, s.ID, "", limit+1)
	if err != nil {
		return nil, false, err
	}
	if s.Status != enabled { // only tokens about the stream, which come first
		for n, i := range items {
			if !i.control() {
				items = items[:n]
				break
			}
		}
	}
	if len(items) > limit {
		return items[:limit], true, nil
	}
	return items, false, nil
}

// await waits for tokens: section 2.4, long polling.
func (t *Transmitter) await(ctx context.Context, s *stream, limit int) (items []item, more bool, err error) {
	t.mu.Lock()
	w := t.waiting[s.ID]
	if w == nil {
		w = &waiting{news: make(chan struct{})}
		t.waiting[s.ID] = w
	}
	full := w.n >= maxPolls
	if !full {
		w.n++
	}
	t.mu.Unlock()
	if full {
		return nil, false, &refusal{http.StatusTooManyRequests, "too many requests wait for events of this stream", time.Second}
	}
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if w.n--; w.n == 0 && t.waiting[s.ID] == w {
			delete(t.waiting, s.ID)
		}
	}()
	t.mu.Lock()
	life := t.life
	t.mu.Unlock()
	if life != nil {
		ended, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(life, cancel)()
		ctx = ended
	}
	for end := time.Now().Add(longPoll); ; {
		t.mu.Lock()
		news := w.news
		t.mu.Unlock()
		if s, err = t.stream(ctx, s.ID); err != nil && ctx.Err() == nil { // it may have been paused, or deleted
			return nil, false, err
		}
		if err == nil {
			items, more, err = t.available(ctx, s, limit)
		}
		if ctx.Err() != nil { // the receiver or the process is going
			return nil, false, nil
		}
		if err != nil || len(items) > 0 || time.Now().After(end) {
			return items, more, err
		}
		if !wait(ctx, pollEvery, news) {
			return nil, false, nil
		}
	}
}
