package signals

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/fetch"
)

const (
	firstRetry      = time.Second
	lastRetry       = time.Minute
	maxRetryAfter   = 5 * time.Minute
	statusInterval  = 5 * time.Minute
	minStatus       = 10 * time.Second // an inactivity_timeout must not cause more requests
	settleInterval  = time.Second
	saveInterval    = time.Minute
	shutdownTimeout = 2 * time.Second
)

// A StateStore keeps a small text across restarts. Load returns nil if there is none. Replicas that share a stream should share a store:
// what one of them has received then proves to all that the stream delivers, so it is not a gap for any of them.
// The text is a JSON object.
type StateStore interface {
	Load(ctx context.Context) ([]byte, error)
	Save(ctx context.Context, state []byte) error
}

// FileState returns a StateStore in a file. Each receiver needs its own.
func FileState(path string) StateStore { return fileState(path) }

type fileState string

func (f fileState) Load(context.Context) ([]byte, error) {
	data, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// Save replaces the file as a whole, so that a crash leaves the old state or the new one.
func (f fileState) Save(_ context.Context, state []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(string(f)), filepath.Base(string(f))+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // after the rename there is none
	_, err = temp.Write(state)
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), string(f))
}

// A savedState is the state across restarts.
type savedState struct {
	Transmitter string    `json:"transmitter"`
	StreamID    string    `json:"stream_id,omitempty"`
	Contact     time.Time `json:"contact"`        // the last one
	Proof       time.Time `json:"proof,omitzero"` // the last verification event
}

// Run sets up the stream and keeps it: it finds or creates the stream, polls it with [Poll], verifies it, watches its status, and carries
// out [Config].Gaps. After a failure it tries again: every second in the first minute, then after an eighth of the time that the failure
// has lasted, up to 1 min; or as the transmitter asks for, up to 5 min. It returns when ctx is done or the receiver is closed. Run it once per receiver, also with [Push].
//
// Run acknowledges a SET only if its revocations are in force and, with Config.Publish, published. A SET that is refused for good is
// reported to the transmitter with a code (RFC 8936, section 2.4.4).
func (r *Receiver) Run(ctx context.Context) error {
	if !r.running.CompareAndSwap(false, true) {
		return errors.New("signals: Run is running already")
	}
	defer r.running.Store(false)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(r.feed.ctx, cancel)
	defer stop()
	if r.cfg.Delivery == NoStream {
		<-ctx.Done()
		return r.ended(ctx)
	}
	known := r.restore(ctx)
	var failing backoff
	for ctx.Err() == nil {
		begun := time.Now()
		err := r.session(ctx, &known)
		if ctx.Err() != nil {
			break
		}
		if time.Since(begun) > lastRetry { // it was set up for a while
			failing = backoff{}
		}
		r.stream.change(func() { r.stream.setup = err })
		pause := failing.next(err)
		r.log.LogAttrs(ctx, slog.LevelError, "signals: the stream is not set up", slog.String("transmitter", r.cfg.Transmitter),
			slog.Duration("retry_in", pause), slog.Any("err", err))
		sleep(ctx, pause)
	}
	saving, cancelSaving := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancelSaving()
	r.save(saving, known)
	r.stream.change(func() { r.stream.setup, r.stream.behind = errNotRunning, r.cfg.Delivery == Poll })
	return r.ended(ctx)
}

func (r *Receiver) ended(ctx context.Context) error {
	if r.feed.ctx.Err() != nil {
		return errClosed
	}
	return ctx.Err()
}

// restore loads the state of an earlier process.
func (r *Receiver) restore(ctx context.Context) (known savedState) {
	known.Transmitter = r.cfg.Transmitter
	if r.cfg.State == nil {
		r.startGap("the time of the last contact is not kept across restarts, see Config.State")
		return known
	}
	saved, _, err := r.load(ctx)
	switch {
	case err != nil:
		r.log.LogAttrs(ctx, slog.LevelError, "signals: the saved state cannot be read", slog.Any("err", err))
		r.startGap("the saved state cannot be read")
	case saved.Transmitter != r.cfg.Transmitter:
		r.startGap("there is no record of an earlier contact")
	case saved.Contact.After(r.cfg.Now().Add(maxLeeway)):
		r.startGap("the time of the last contact is in the future, so a clock was wrong")
		known.StreamID = saved.StreamID
	default:
		r.stream.change(func() {
			if r.stream.lastContact.IsZero() {
				r.stream.lastContact = saved.Contact
			}
		})
		return saved
	}
	return known
}

// startGap records that it is unknown what happened before the start. To report it in the health would make every first start
// Degraded, so only a policy that acts on it does so.
func (r *Receiver) startGap(reason string) {
	if r.cfg.Gaps == ReportGaps {
		r.log.LogAttrs(r.feed.ctx, slog.LevelInfo, "signals: whether events were lost before the start is unknown", slog.String("reason", reason))
		return
	}
	r.stream.change(func() { r.stream.gapLocked(time.Time{}, reason) })
}

var errUnreadable = errors.New("it is not a state of this package")

// load returns the stored state, and all of its members; the zero value if there is none. The error wraps errUnreadable if the store has
// answered.
func (r *Receiver) load(ctx context.Context) (saved savedState, members map[string]json.RawMessage, err error) {
	data, err := r.cfg.State.Load(ctx)
	switch {
	case err != nil:
		return savedState{}, nil, err
	case data == nil:
		return savedState{}, nil, nil
	}
	if err := errors.Join(json.Unmarshal(data, &members), json.Unmarshal(data, &saved)); err != nil {
		return savedState{}, nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return saved, members, nil
}

// save stores the state, after it has learned from it what other replicas have received. It replaces a state that it cannot read. Of one
// that a newer version of this package has written it keeps the members that it does not know: replicas are not upgraded all at once.
func (r *Receiver) save(ctx context.Context, known savedState) {
	if r.cfg.State == nil {
		return
	}
	failed := func(err error) {
		if n := r.failures.Permit(); n > 0 {
			r.log.LogAttrs(ctx, slog.LevelError, "signals: the state cannot be saved", slog.Any("err", err), slog.Int("failures", n))
		}
	}
	stored, members, err := r.load(ctx)
	if err != nil && !errors.Is(err, errUnreadable) { // what others have stored is not replaced unseen
		failed(err)
		return
	}
	if stored.Transmitter != r.cfg.Transmitter {
		members = nil
	}
	if stored.Transmitter == r.cfg.Transmitter && stored.StreamID == known.StreamID {
		r.stream.learn(stored)
	}
	r.stream.mu.Lock()
	known.Contact, known.Proof = r.stream.lastContact, r.stream.lastProof
	r.stream.mu.Unlock()
	if known.Contact.IsZero() {
		return
	}
	if err := r.cfg.State.Save(ctx, known.encode(members)); err != nil {
		failed(err)
		return
	}
	r.stream.mu.Lock()
	defer r.stream.mu.Unlock()
	if r.stream.lastProof.Equal(known.Proof) { // no later one has arrived meanwhile
		r.stream.unsaved = false
	}
}

// encode returns the state as JSON, with the members of a stored one that it does not have itself.
func (s savedState) encode(members map[string]json.RawMessage) []byte {
	for _, optional := range []string{"stream_id", "proof"} { // which s may not have
		delete(members, optional)
	}
	own, _ := json.Marshal(s) // of texts and times, which does not fail
	_ = json.Unmarshal(own, &members)
	all, _ := json.Marshal(members)
	return all
}

// session sets up the stream and keeps it until ctx is done or the stream must be set up again, and returns the reason.
func (r *Receiver) session(ctx context.Context, known *savedState) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m, s, err := r.setUp(ctx, known)
	if err != nil {
		return err
	}
	pollURL := r.cfg.Stream.PollURL
	if s != nil {
		pollURL = s.endpoint
	}
	var work sync.WaitGroup
	defer work.Wait()
	begin := func(f func(context.Context) error) {
		work.Go(func() { cancel(f(ctx)) }) // f returns nil only if ctx is done
	}
	begin(func(ctx context.Context) error {
		return r.repeat(ctx, settleInterval, func(ctx context.Context) error {
			if r.stream.proofUnsaved() {
				r.save(ctx, *known)
			}
			return r.stream.settle(ctx)
		})
	})
	begin(func(ctx context.Context) error {
		return r.repeat(ctx, saveInterval, func(ctx context.Context) error { r.save(ctx, *known); return nil })
	})
	if r.cfg.Delivery == Poll {
		begin(func(ctx context.Context) error { return r.poll(ctx, pollURL) })
	}
	if s != nil && r.verifies(m) {
		begin(func(ctx context.Context) error {
			return r.repeat(ctx, r.verifyInterval(s), func(ctx context.Context) error {
				r.save(ctx, *known) // another replica may have received the last event
				return r.verify(ctx, m, s.id)
			})
		})
	}
	if s != nil && m.status != "" {
		interval := statusInterval
		if s.inactivity > 0 { // SSF 1.0, section 8.1.1: a request before its end keeps the stream
			interval = max(min(interval, s.inactivity/2), minStatus)
		}
		begin(func(ctx context.Context) error {
			sleep(ctx, interval) // setUp has read it
			return r.repeat(ctx, interval, func(ctx context.Context) error { return r.readStatus(ctx, m, s.id) })
		})
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// setUp discovers the transmitter and opens the stream. Both results are nil for an unmanaged stream.
func (r *Receiver) setUp(ctx context.Context, known *savedState) (*metadata, *streamConfig, error) {
	if err := r.keys.Ready(ctx); err != nil {
		return nil, nil, err
	}
	if r.cfg.Stream.Unmanaged {
		r.stream.change(func() { r.stream.setup = nil })
		return nil, nil, nil
	}
	m, err := r.discover(ctx)
	if err != nil {
		return nil, nil, err
	}
	s, created, err := r.open(ctx, m, known.StreamID)
	if err != nil {
		return nil, nil, err
	}
	lost := known.StreamID != "" && s.id != known.StreamID
	known.StreamID = s.id
	r.log.LogAttrs(ctx, slog.LevelInfo, "signals: the stream is set up", slog.String("transmitter", r.cfg.Transmitter), slog.String("stream", s.id),
		slog.Bool("created", created), slog.Any("delivered", s.delivered))
	if len(s.missing) > 0 {
		r.log.LogAttrs(ctx, slog.LevelWarn, "signals: the transmitter does not deliver all events that are on", slog.Any("missing", s.missing))
	}
	r.stream.change(func() {
		r.stream.managed, r.stream.verifiable = s, r.verifies(m)
		if lost {
			r.stream.gapLocked(r.stream.lastContact, "the stream was gone, and there is another one now")
		}
	})
	if m.status != "" {
		if err := r.readStatus(ctx, m, s.id); err != nil {
			return nil, nil, err
		}
	}
	r.save(ctx, *known)
	r.stream.change(func() { r.stream.setup, r.stream.reach = nil, nil })
	return m, s, nil
}

// repeat calls f now and at intervals, until ctx is done or the stream is gone. Other errors are logged, and f is tried again.
func (r *Receiver) repeat(ctx context.Context, interval time.Duration, f func(context.Context) error) error {
	var failing backoff
	for ctx.Err() == nil {
		err := f(ctx)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errGone):
			return err
		case err != nil:
			if n := r.failures.Permit(); n > 0 {
				r.log.LogAttrs(ctx, slog.LevelError, "signals: a request about the stream failed", slog.Any("err", err), slog.Int("failures", n))
			}
			sleep(ctx, min(failing.next(err), max(interval, firstRetry)))
		default:
			failing = backoff{}
			sleep(ctx, interval+rand.N(interval/10+1)) // longer, never shorter: the transmitter may require an interval
		}
	}
	return nil
}

// A backoff determines the times between attempts, from the first failure on. The zero value is that of an attempt that succeeded.
//
// A transmitter that is away comes back, and the events that wait there have to be applied within a second of that. So for probing it is
// asked every second, about as often as one that does not wait for events, and after that each time an eighth more of the outage has
// passed, up to lastRetry: an event is then late by at most an eighth of the outage. A request that is refused will be refused again: the
// time between attempts doubles.
type backoff struct {
	since time.Time     // the first failure, or the end of the time that the transmitter has asked for
	wait  time.Duration // after a refusal
}

const probing = time.Minute

// probe returns when to try again what something else prevents: the transmitter is away, or the publisher is.
func (b *backoff) probe() time.Duration {
	if b.since.IsZero() {
		b.since, b.wait = time.Now(), firstRetry
	}
	return jitter(min(max((time.Since(b.since)-probing)/8, firstRetry), lastRetry))
}

// next returns when to try again after an error: as the transmitter asks for, or as determined here.
func (b *backoff) next(err error) time.Duration {
	if b.since.IsZero() {
		b.since, b.wait = time.Now(), firstRetry
	}
	status, asked, answered := -1, time.Duration(0), false // status 0: no answer
	if e, is := errors.AsType[*apiError](err); is {
		status, asked, answered = e.status, e.retryAfter, true
	}
	if e, is := errors.AsType[*fetch.Error](err); is && !answered {
		status, asked = e.Status, e.RetryAfter
	}
	if asked = min(asked, maxRetryAfter); asked > 0 {
		b.since = time.Now().Add(asked)
		return asked + rand.N(asked/10+time.Second) // not before, and not all at the same time
	}
	if status == 0 || status >= http.StatusInternalServerError {
		return b.probe()
	}
	defer func() { b.wait = min(2*b.wait, lastRetry) }()
	return jitter(b.wait)
}

// jitter subtracts up to a tenth, so that replicas do not stay in step.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/10+1) }

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
