package transmitter

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
)

// A lease lets one process at a time deliver a queue, so that its order is kept and receivers get each token once as a rule. A process
// that is suspended for longer than leaseFor may deliver tokens a second time.
//
// The holder renews the record, which changes its version, and another process takes a lease over if it has seen the same version for
// leaseFor by its own monotonic clock. So a process that starts right after a crash waits for up to leaseFor. One that starts later need not
// wait: a record that was renewed more than longAgo before is taken over at once. That is the only comparison of clocks. A process whose clock
// is ahead by more than longAgo takes a lease over from a living holder, once: the lease then seems to be of the future to the other one.
const (
	kindLease = "ssf_lease"
	leaseFor  = 2 * time.Second
	renewal   = 400 * time.Millisecond
	longAgo   = 30 * time.Second
	// maxSightings bounds the leases of others that are remembered: of streams and of clients with logout tokens, also removed ones. When it is
	// reached, all are forgotten, so that queues of processes that have died wait for leaseFor again.
	maxSightings = 10_000

	leaseKept = time.Hour // of the record after the last renewal, by the clocks of the processes or of the store: more than they differ
)

type lease struct {
	Holder  string    `json:"holder"`  // empty: it is free
	Renewed time.Time `json:"renewed"` // by the holder's clock
}

// A sighting is when this process first saw a version of the lease of another one.
type sighting struct {
	version int64
	at      time.Time
}

// abandoned reports whether the holder of a lease has not renewed it for leaseFor.
func (t *Transmitter) abandoned(name string, version int64, renewed time.Time) bool {
	if time.Since(renewed) > longAgo {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.sightings[name]; !ok || s.version != version {
		if len(t.sightings) >= maxSightings {
			clear(t.sightings)
		}
		t.sightings[name] = sighting{version, time.Now()}
		return false
	}
	return time.Since(t.sightings[name].at) >= leaseFor
}

func (t *Transmitter) forget(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.sightings, name)
}

// lease returns a context that ends when the lease is lost, or nil if another process has it.
func (t *Transmitter) lease(ctx context.Context, name string) (leased context.Context, release func(), err error) {
	last, err := t.renew(ctx, name, time.Now())
	if err != nil || last.IsZero() {
		return nil, nil, err
	}
	leased, cancel := context.WithCancel(ctx)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for wait(leased, renewal, nil) {
			switch renewed, err := t.renew(leased, name, last); {
			case !renewed.IsZero():
				last = renewed
			case err == nil, time.Since(last) >= leaseFor-renewal:
				cancel()
			}
		}
	}()
	return leased, func() {
		cancel()
		<-stopped
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if _, err := t.extend(ctx, name, false); err != nil {
			t.failed(ctx, "lease not returned", err, "name", name)
		}
	}, nil
}

// renew makes this process the holder of a lease, and returns when it has begun to: the time from which others may have seen the new version.
// It returns the zero time if another process has the lease, or with an error. last is when the previous call began. If the store has not
// responded before others may take the lease over, that is an error, even if it responds later.
func (t *Transmitter) renew(ctx context.Context, name string, last time.Time) (time.Time, error) {
	begun := time.Now()
	limited, cancel := context.WithDeadline(ctx, last.Add(leaseFor-renewal))
	defer cancel()
	held, err := t.extend(limited, name, true)
	if err == nil {
		err = limited.Err()
	}
	if err != nil || !held {
		return time.Time{}, err
	}
	return begun, nil
}

// extend makes this process the holder of a lease or, if hold is false, frees the lease that it has. It reports whether it has done so.
func (t *Transmitter) extend(ctx context.Context, name string, hold bool) (bool, error) {
	rec, err := t.cfg.Store.Get(ctx, kindLease, name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, err
	}
	var l lease
	if err == nil {
		if err := json.Unmarshal(rec.Value, &l); err != nil {
			return false, err
		}
	}
	if l.Holder != t.holder && (!hold || l.Holder != "" && !t.abandoned(name, rec.Version, l.Renewed)) {
		return false, nil
	}
	t.forget(name)
	l = lease{Renewed: time.Now()}
	if hold {
		l.Holder = t.holder
	}
	value, err := json.Marshal(l)
	if err != nil {
		return false, err
	}
	_, err = t.cfg.Store.Put(ctx, store.Record{
		Kind: kindLease, ID: name, Version: rec.Version, Value: value, Expires: time.Now().Add(leaseKept), MayDrop: true,
	})
	if errors.Is(err, store.ErrConflict) {
		return false, nil
	}
	return err == nil, err
}
