package transmitter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
)

const (
	rescan     = 2 * time.Second // for queues that another process has filled or left
	lanes      = 4               // requests to one receiver at a time, for different subjects
	pushPage   = 100
	firstRetry = time.Second
	lastRetry  = time.Minute
	probing    = time.Minute     // in which a receiver that fails is tried every firstRetry
	mostRetry  = 5 * time.Minute // that a receiver can request
	downAfter  = 3               // failures without a success, after which a round ends
	maxReply   = 64 << 10        // bytes of a response that are read
)

// A pushRunning is the delivery to a stream that is in progress in this process.
type pushRunning struct{ news chan struct{} }

// pushAll delivers the queues of all push streams. A stream that fails holds up no other.
func (t *Transmitter) pushAll(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		streams, err := t.streams(ctx)
		if err != nil {
			t.failed(ctx, "streams not read", err)
		}
		for _, s := range streams {
			if s.Method != push || !t.begin(s.ID) {
				continue
			}
			due, err := t.due(ctx, s)
			if err != nil {
				t.failed(ctx, "queue not read", err, "stream", s.ID)
			}
			if !due {
				t.finish(s.ID)
				continue
			}
			t.run(ctx, s.ID, &all)
		}
		if !wait(ctx, rescan, t.pushes) {
			return
		}
	}
}

// due reports whether a stream has a token that may be delivered.
func (t *Transmitter) due(ctx context.Context, s *stream) (bool, error) {
	if may, err := t.mayReceive(ctx, s.Client); !may || err != nil {
		return false, err
	}
	items, _, err := t.available(ctx, s, 1)
	return len(items) > 0, err
}

// mayReceive reports whether a client still exists and has a scope of the API. A receiver that is polled needs a token for each request,
// but a push needs none, so a stream must not outlive the right to it. The events of such a stream wait, because a replica with a newer
// configuration may know the client.
func (t *Transmitter) mayReceive(ctx context.Context, id string) (bool, error) {
	c, err := t.cfg.Clients.About(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find the client of a stream: %w", err)
	}
	return contains(c.Scopes, ScopeRead) || contains(c.Scopes, ScopeManage), nil
}

// begin reports whether this process is not delivering to a stream or a client, and from now on it is, until finish.
func (t *Transmitter) begin(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running[name] != nil {
		return false
	}
	t.running[name] = &pushRunning{make(chan struct{}, 1)}
	return true
}

func (t *Transmitter) finish(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.running, name)
}

func (t *Transmitter) run(ctx context.Context, id string, all *sync.WaitGroup) {
	t.mu.Lock()
	r := t.running[id]
	t.mu.Unlock()
	all.Go(func() {
		defer func() {
			t.finish(id)
			wake(t.pushes) // for a token that has come meanwhile
		}()
		if err := t.pushStream(ctx, id, r); err != nil {
			t.failed(ctx, "delivery interrupted", err, "stream", id)
			wait(ctx, firstRetry, nil)
		}
	})
}

// pushStream delivers the queue of a stream until it is empty, while no other process does so.
func (t *Transmitter) pushStream(ctx context.Context, id string, r *pushRunning) error {
	leased, release, err := t.lease(ctx, id)
	if err != nil || leased == nil {
		wait(ctx, firstRetry, nil) // another process delivers it
		return err
	}
	defer release()
	var failing time.Time // since when; zero: it is not
	warned := false
	for {
		s, err := t.stream(leased, id)
		if errors.Is(err, store.ErrNotFound) || err == nil && s.Method != push {
			return nil
		}
		if err != nil {
			return err
		}
		due, err := t.due(leased, s)
		if err != nil || !due {
			return err
		}
		res, err := t.round(leased, s)
		if err != nil {
			return err
		}
		if res.failed == "" {
			if warned {
				t.cfg.Logger.InfoContext(ctx, "signals delivered again", "stream", id, "client", s.Client)
			}
			failing, warned = time.Time{}, false
			continue
		}
		if !warned {
			t.cfg.Logger.WarnContext(ctx, "signals not delivered: trying again", "stream", id, "client", s.Client, "error", res.failed)
			warned = true
		}
		if res.sent > 0 || failing.IsZero() {
			failing = time.Now()
		}
		changed, goOn := t.pause(leased, s, max(backoff(time.Since(failing)), res.retryAfter), r.news)
		if !goOn {
			return leased.Err()
		}
		if changed {
			failing = time.Time{}
		}
	}
}

// backoff returns the time until the next attempt when all have failed for so long. A receiver that comes back gets what waited soon: within
// a second of an outage of a minute, and late by an eighth of a longer one. Receivers that come back must not be met by all streams at the
// same time.
func backoff(outage time.Duration) time.Duration {
	d := min(max((outage-probing)/8, firstRetry), lastRetry)
	return d/2 + rand.N(d/2+1)
}

// pause waits before another attempt, or until the stream is changed or its receiver has called, by any process. Events that arrive
// meanwhile do not end it.
func (t *Transmitter) pause(ctx context.Context, s *stream, d time.Duration, news <-chan struct{}) (changed, goOn bool) {
	for end := time.Now().Add(d); ; {
		left := time.Until(end)
		if left <= 0 {
			return false, ctx.Err() == nil
		}
		if !wait(ctx, min(left, pollEvery), news) {
			return false, false
		}
		now, err := t.stream(ctx, s.ID)
		if err != nil || now.version != s.version {
			return true, ctx.Err() == nil
		}
	}
}

// calledEvery is the shortest time between two records that a receiver has called, each of which costs an attempt.
const calledEvery = time.Second

// called notes that the receiver of a push stream has used its API. It is up, so what waits for it is delivered now, by the process that
// delivers the stream. It returns the stream as it is then. A failure only delays the delivery.
func (t *Transmitter) called(ctx context.Context, s *stream) *stream {
	if ago := time.Since(s.Called); s.Method != push || s.Status == disabled || ago >= 0 && ago < calledEvery {
		return s
	}
	due, err := t.due(ctx, s)
	if err == nil && due {
		var now *stream
		if now, err = t.change(ctx, s.ID, func(s *stream) error { s.Called = time.Now().UTC(); return nil }); err == nil {
			t.announce(now)
			return now
		}
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrConflict) {
		t.failed(ctx, "call of a receiver not noted", err, "stream", s.ID)
	}
	return s
}

// A result is the outcome of a round.
type result struct {
	sent       int
	failed     string        // why tokens remain; empty: none does
	retryAfter time.Duration // as the receiver requests
}

// round delivers the queue of a stream once. Tokens of a subject are delivered one after the other; after a failure, the others of the
// subject wait for the next round, and those of other subjects go on.
func (t *Transmitter) round(ctx context.Context, s *stream) (result, error) {
	var (
		mu      sync.Mutex
		total   result
		fails   int
		outage  error
		stalled = map[string]bool{} // subjects
	)
	for after := ""; ; {
		items, err := t.queued(ctx, s.ID, after, pushPage)
		if err != nil || len(items) == 0 {
			return total, err
		}
		bySubject, order := map[string][]item{}, []string{}
		for _, i := range items {
			if i.control() { // before all others
				reply, err := t.deliver(ctx, s, i)
				if err != nil {
					return total, err
				}
				if reply.again != "" {
					total.failed, total.retryAfter = reply.again, reply.retryAfter
					return total, nil
				}
				total.sent++
				continue
			}
			if stalled[i.Subject] || s.Status != enabled {
				continue
			}
			if bySubject[i.Subject] == nil && i.Subject != aboutItself {
				order = append(order, i.Subject)
			}
			bySubject[i.Subject] = append(bySubject[i.Subject], i)
		}
		if len(bySubject) == 0 { // nothing of this page can be delivered now
			after = items[len(items)-1].ID
			continue
		}
		after = "" // another process may have added a token before these, which must not be left behind
		down := func() bool {
			mu.Lock()
			defer mu.Unlock()
			return outage != nil || total.sent == 0 && fails >= downAfter || ctx.Err() != nil
		}
		deliverAll := func(subject string) {
			for _, i := range bySubject[subject] {
				if down() {
					return
				}
				reply, err := t.deliver(ctx, s, i)
				mu.Lock()
				switch {
				case err != nil:
					outage = errors.Join(outage, err)
				case reply.again != "":
					fails++
					stalled[subject] = true
					total.failed, total.retryAfter = reply.again, max(total.retryAfter, reply.retryAfter)
				default:
					total.sent++
				}
				stop := stalled[subject]
				mu.Unlock()
				if stop {
					return
				}
			}
		}
		work := make(chan string)
		var workers sync.WaitGroup
		for range min(lanes, len(order)) {
			workers.Go(func() {
				for subject := range work {
					deliverAll(subject)
				}
			})
		}
		for _, subject := range order {
			work <- subject
		}
		close(work)
		workers.Wait()
		deliverAll(aboutItself) // a proof that the stream delivers also proves that the tokens before it were delivered, unless they were refused
		if outage != nil || ctx.Err() != nil {
			return total, errors.Join(outage, ctx.Err())
		}
		if down() {
			return total, nil
		}
		if s, err = t.stream(ctx, s.ID); err != nil { // it may have been paused or moved
			if errors.Is(err, store.ErrNotFound) {
				return result{}, nil
			}
			return total, err
		}
		if s.Method != push {
			return result{}, nil
		}
	}
}

// A reply is what became of a token.
type reply struct {
	again      string // why it is to be sent again; empty: it is not
	retryAfter time.Duration
}

// deliver sends a token (RFC 8935, section 2). The error is a failure of this server.
func (t *Transmitter) deliver(ctx context.Context, s *stream, i item) (reply, error) {
	set, err := t.sign(i.Claims)
	if err != nil {
		return reply{}, err
	}
	header := http.Header{"Content-Type": {"application/secevent+jwt"}, "Accept": {"application/json"}}
	if s.Authorization != nil { // SSF 1.0, section 6.1.1
		value, err := t.cfg.Keys.Reveal(s.Authorization, s.ID)
		if err != nil {
			return reply{}, err
		}
		header.Set("Authorization", value)
	}
	status, got, body, err := t.post(ctx, t.http, s.Endpoint, header, set)
	switch {
	case ctx.Err() != nil:
		return reply{}, ctx.Err()
	case err != nil:
		return reply{again: err.Error()}, nil
	case status >= 200 && status <= 299: // section 2.2: 202
		return reply{}, t.dequeue(ctx, s.ID, i.ID)
	case status == http.StatusBadRequest:
		code := errorCode(body)
		// Section 2.4. A receiver that lacks our key, or that has changed its credentials, will accept the token once that is mended.
		if code == "invalid_key" || code == "authentication_failed" || code == "access_denied" {
			return reply{again: "refused with " + code}, nil
		}
		return reply{}, t.giveUp(ctx, s, i, "refused by the receiver: "+code)
	default:
		return reply{again: fmt.Sprintf("status %d", status), retryAfter: retryAfter(got, mostRetry)}, nil
	}
}

// post sends a request to a receiver and returns the start of the response.
func (t *Transmitter) post(ctx context.Context, by *http.Client, url string, header http.Header, body string) (int, http.Header, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, nil, errors.New("the endpoint is not a URL")
	}
	if err := t.checkEndpoint(url); err != nil { // the configuration may have changed since it was registered
		return 0, nil, nil, fmt.Errorf("the endpoint %w", err)
	}
	r.Header = header
	res, err := by.Do(r)
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxReply))
	return res.StatusCode, res.Header, text, err
}

// errorCode returns the err of a response (section 2.3), or "unknown".
func errorCode(body []byte) string {
	var e struct {
		Code string `json:"err"`
	}
	if json.Unmarshal(body, &e) != nil || e.Code == "" {
		return "unknown"
	}
	return printable(e.Code)
}

// printable returns the start of a text of a receiver as it can be logged.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 100)]
}

func isJTI(s string) bool {
	return len(s) > 0 && len(s) <= 100 && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// one returns a token of a queue.
func (t *Transmitter) one(ctx context.Context, s *stream, jti string) (i item, found bool, err error) {
	rec, err := t.cfg.Store.Get(ctx, queueOf(s.ID), jti)
	if errors.Is(err, store.ErrNotFound) {
		return item{}, false, nil
	}
	if err == nil {
		err = json.Unmarshal(rec.Value, &i)
	}
	i.ID = jti
	return i, err == nil, err
}
