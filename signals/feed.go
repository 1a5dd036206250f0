package signals

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
)

const (
	maxLeeway = 5 * time.Minute // of verifiers: a revocation matters for this long after Until

	// maxBatch is the number of revocations that guards apply in one step. Each step scans all cached tokens and requests in progress
	// once, so a flood of events costs a scan for each batch and not for each event.
	maxBatch = 1000

	// maxHeld is the number of revocations that a receiver holds for guards that begin to watch later. The transmitter fills it. When
	// it is full of revocations that are still in force, a receiver without another destination answers 503 and acknowledges nothing.
	// With one, a guard that begins to watch later learns that revocations are missing.
	maxHeld = 1 << 18

	publishers     = 16               // concurrent calls of Publisher
	publishTimeout = 10 * time.Second // of one batch
)

var errFull = errors.New("signals: no room for another revocation: set Publish or Guards, or let a guard watch the receiver")

// A feed passes revocations to their destinations: guards, a publisher and watchers. Revocations that arrive while a batch is being
// applied form the next batch.
type feed struct {
	cfg *Config
	log *slog.Logger
	ctx context.Context // ends with Close

	running sync.WaitGroup

	mu      sync.Mutex  // guards what follows; not held while a batch is applied
	pending []*delivery // bounded by the callers: maxPushes of each handler, and one answer to a poll
	busy    bool        // a goroutine applies batches
	closed  bool

	holding  sync.Mutex // guards what follows; held while watchers apply a batch, so that a new one misses none
	watchers map[*watcher]struct{}
	held     map[selector]valetkey.Revocation
	capacity int
	missing  time.Time // until then, revocations in force may be missing in held
	swept    time.Time // when ended revocations were last removed from held
}

// A delivery is the revocations of one SET on their way.
type delivery struct {
	revocations []valetkey.Revocation
	done        chan struct{} // closed when err is set
	err         error
}

// A selector identifies what a revocation selects.
type selector struct {
	issuer, id, subject, client, session string
}

func selectorOf(r valetkey.Revocation) selector {
	return selector{r.Issuer, r.ID, r.Subject, r.ClientID, r.SessionID}
}

// merge returns a revocation that covers both, which select the same.
func merge(a, b valetkey.Revocation) valetkey.Revocation {
	later := func(a, b time.Time) time.Time {
		if a.Before(b) {
			return b
		}
		return a
	}
	a.Before, a.At, a.Until = later(a.Before, b.Before), later(a.At, b.At), later(a.Until, b.Until)
	return a
}

// deliver applies the revocations of several SETs and waits until each is in force and kept, or ctx is done. The errors are those of
// the SETs, in order. A SET that does not succeed may be in force nevertheless, and applying it again is harmless.
func (f *feed) deliver(ctx context.Context, all ...[]valetkey.Revocation) []error {
	deliveries, errs := make([]*delivery, len(all)), make([]error, len(all))
	for i, revocations := range all {
		deliveries[i] = &delivery{revocations: revocations, done: make(chan struct{})}
	}
	if !f.enqueue(deliveries) {
		return slices.Repeat([]error{errClosed}, len(all))
	}
	for i, d := range deliveries {
		select {
		case <-d.done:
		case <-ctx.Done():
		}
		select {
		case <-d.done: // what has succeeded is acknowledged, also at the end of Run
			errs[i] = d.err
		default:
			errs[i] = context.Cause(ctx)
		}
	}
	return errs
}

// enqueue adds deliveries to the pending ones, and reports whether the feed is open.
func (f *feed) enqueue(deliveries []*delivery) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.pending = append(f.pending, deliveries...)
	if !f.busy {
		f.busy = true
		f.running.Go(f.work)
	}
	return true
}

// work applies batches until none is left.
func (f *feed) work() {
	for {
		f.mu.Lock()
		if len(f.pending) == 0 {
			f.busy = false
			f.mu.Unlock()
			return
		}
		n, size := 0, 0
		for n < len(f.pending) && (n == 0 || size+len(f.pending[n].revocations) <= maxBatch) {
			size += len(f.pending[n].revocations)
			n++
		}
		batch := f.pending[:n:n]
		f.pending = f.pending[n:]
		f.mu.Unlock()
		f.apply(batch)
		for _, d := range batch {
			close(d.done)
		}
	}
}

// apply applies a batch and sets the errors of its deliveries. Guards come first: they are in this process, so the revocations are in
// force even if they cannot be published now.
func (f *feed) apply(batch []*delivery) {
	index := map[selector]int{}
	var all []valetkey.Revocation
	for _, d := range batch {
		for _, r := range d.revocations {
			if at, known := index[selectorOf(r)]; known {
				all[at] = merge(all[at], r)
				continue
			}
			index[selectorOf(r)] = len(all)
			all = append(all, r)
		}
	}
	failed := make([]error, len(all))
	f.keep(all, failed)
	for _, g := range f.cfg.Guards {
		if err := g.Revoke(all...); err != nil {
			f.log.LogAttrs(f.ctx, slog.LevelError, "signals: a guard could not apply a revocation", slog.Any("err", err))
		}
	}
	if f.cfg.Publish != nil {
		f.publish(all, failed)
	}
	for _, d := range batch {
		var errs []error
		for _, r := range d.revocations {
			errs = append(errs, failed[index[selectorOf(r)]])
		}
		d.err = errors.Join(errs...)
	}
}

// keep holds revocations for later watchers and passes them to the present ones.
func (f *feed) keep(all []valetkey.Revocation, failed []error) {
	f.holding.Lock()
	defer f.holding.Unlock()
	now, elsewhere := f.cfg.Now(), len(f.watchers) > 0 || len(f.cfg.Guards) > 0 || f.cfg.Publish != nil
	for i, r := range all {
		key := selectorOf(r)
		if old, known := f.held[key]; known {
			f.held[key] = merge(old, r)
			continue
		}
		if len(f.held) >= f.capacity {
			f.sweep(now)
		}
		switch {
		case len(f.held) < f.capacity:
			f.held[key] = r
		case elsewhere:
			if end := r.Until.Add(maxLeeway); end.After(f.missing) {
				f.missing = end
			}
		default:
			failed[i] = errFull
		}
	}
	for w := range f.watchers {
		w.apply(f, all)
	}
}

// sweep removes revocations that have ended, at most once a minute.
func (f *feed) sweep(now time.Time) {
	if now.Sub(f.swept) < time.Minute {
		return
	}
	f.swept = now
	for key, r := range f.held {
		if !r.Until.Add(maxLeeway).After(now) {
			delete(f.held, key)
		}
	}
}

// publish publishes revocations, several at a time.
func (f *feed) publish(all []valetkey.Revocation, failed []error) {
	ctx, cancel := context.WithTimeout(f.ctx, publishTimeout)
	defer cancel()
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(publishers, len(all)) {
		workers.Go(func() {
			for i := range next {
				if err := f.cfg.Publish.Publish(ctx, all[i]); err != nil {
					failed[i] = fmt.Errorf("signals: publishing a revocation: %w", err)
				}
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	workers.Wait()
}

// close refuses further deliveries and waits for those in progress.
func (f *feed) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.running.Wait()
}

// A watcher is one call of Watch.
type watcher struct {
	do func(...valetkey.Revocation) error
}

func (w *watcher) apply(f *feed, all []valetkey.Revocation) {
	if err := w.do(all...); err != nil {
		f.log.LogAttrs(f.ctx, slog.LevelError, "signals: a watcher could not apply a revocation", slog.Any("err", err))
	}
}

// add calls apply for the held revocations, and then for each further batch until remove is called. It returns the time until which
// revocations may be missing.
func (f *feed) add(apply func(...valetkey.Revocation) error) (w *watcher, missing time.Time) {
	w = &watcher{apply}
	f.holding.Lock()
	defer f.holding.Unlock()
	f.watchers[w] = struct{}{}
	now, chunk := f.cfg.Now(), make([]valetkey.Revocation, 0, maxBatch)
	flush := func() {
		if len(chunk) > 0 {
			w.apply(f, chunk)
			chunk = make([]valetkey.Revocation, 0, maxBatch)
		}
	}
	for _, r := range f.held {
		if !r.Until.Add(maxLeeway).After(now) {
			continue
		}
		if chunk = append(chunk, r); len(chunk) == maxBatch {
			flush()
		}
	}
	flush()
	return w, f.missing
}

func (f *feed) remove(w *watcher) {
	f.holding.Lock()
	defer f.holding.Unlock()
	delete(f.watchers, w)
}
