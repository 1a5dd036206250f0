package transmitter

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
)

// A lease lets one process at a time deliver a queue, so that its order is kept and receivers get each token once as a rule. A process
// that dies holds it for at most leaseFor. A process that is suspended for longer may deliver tokens a second time.
const (
	kindLease = "ssf_lease"
	leaseFor  = 2 * time.Second
	renewal   = 400 * time.Millisecond
)

type lease struct {
	Holder string    `json:"holder"`
	Until  time.Time `json:"until"`
}

// lease returns a context that ends when the lease is lost, or nil if another process has it.
func (t *Transmitter) lease(ctx context.Context, name string) (leased context.Context, release func(), err error) {
	if held, err := t.extend(ctx, name, leaseFor); err != nil || !held {
		return nil, nil, err
	}
	leased, cancel := context.WithCancel(ctx)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for last := time.Now(); wait(leased, renewal, nil); {
			switch held, err := t.extend(leased, name, leaseFor); {
			case held && err == nil:
				last = time.Now()
			case err == nil, time.Since(last) > leaseFor-renewal:
				cancel()
			}
		}
	}()
	return leased, func() {
		cancel()
		<-stopped
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if _, err := t.extend(ctx, name, 0); err != nil {
			t.failed(ctx, "lease not returned", err, "name", name)
		}
	}, nil
}

// extend makes this process the holder of a lease for d, and reports whether it is.
func (t *Transmitter) extend(ctx context.Context, name string, d time.Duration) (bool, error) {
	rec, err := t.cfg.Store.Get(ctx, kindLease, name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, err
	}
	now := time.Now()
	if err == nil {
		var l lease
		if err := json.Unmarshal(rec.Value, &l); err != nil {
			return false, err
		}
		// A time far ahead is of a clock that was wrong.
		if l.Holder != t.holder && l.Until.After(now) && l.Until.Before(now.Add(2*leaseFor)) {
			return false, nil
		}
	}
	value, err := json.Marshal(lease{t.holder, now.Add(d)})
	if err != nil {
		return false, err
	}
	_, err = t.cfg.Store.Put(ctx, store.Record{
		Kind: kindLease, ID: name, Version: rec.Version, Value: value, Expires: now.Add(time.Minute), MayDrop: true,
	})
	if errors.Is(err, store.ErrConflict) {
		return false, nil
	}
	return err == nil, err
}
