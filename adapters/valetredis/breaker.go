package valetredis

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
)

// probeEvery is the interval between attempts to reach an unavailable Redis.
const probeEvery = time.Second

// A breaker opens after limit failures in a row. While it is open, it admits one call per probeEvery as a probe. A successful
// probe closes it. It logs each change once.
type breaker struct {
	name  string
	limit int
	log   *slog.Logger
	down  string         // of the log line when it opens
	up    string         // when it closes
	odd   rateLimitedLog // limits log lines about values that cannot be opened

	mu       sync.Mutex // guards the fields below; never held during I/O
	failures int        // in a row
	err      error      // of the last call; nil: it succeeded
	lacks    error      // what Redis lacks although it responds; nil: nothing
	probe    time.Time  // time of the next one
	since    time.Time  // start of the current state; zero: never used
}

// enter returns an error if the breaker is open and no probe is due.
func (b *breaker) enter() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < b.limit {
		return nil
	}
	now := time.Now()
	if now.Before(b.probe) {
		return fmt.Errorf("redis is not asked for a while, since: %w", b.err)
	}
	b.probe = now.Add(jitter(probeEvery))
	return nil
}

// leave records the result of a call.
func (b *breaker) leave(err error) {
	opened, closed := b.count(err)
	switch {
	case opened:
		b.log.Warn(b.name+": "+b.down, "error", err)
	case closed:
		b.log.Info(b.name + ": " + b.up)
	}
}

func (b *breaker) count(err error) (opened, closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, open := time.Now(), b.failures >= b.limit
	b.err = err
	if err == nil {
		b.failures = 0
	} else {
		b.failures++
	}
	opened, closed = !open && b.failures >= b.limit, open && err == nil
	if opened {
		b.probe = now.Add(jitter(probeEvery))
	}
	if opened || closed || b.since.IsZero() {
		b.since = now
	}
	return opened, closed
}

// lack records what Redis lacks although it responds, and logs when that begins and ends.
func (b *breaker) lack(err error) {
	b.mu.Lock()
	begun, ended := b.lacks == nil && err != nil, b.lacks != nil && err == nil
	if b.lacks = err; begun || ended {
		b.since = time.Now()
	}
	b.mu.Unlock()
	switch {
	case begun:
		b.log.Error(b.name+": some are missing", "error", err)
	case ended:
		b.log.Info(b.name + ": none is missing any longer")
	}
}

func (b *breaker) health() valetkey.Health {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := valetkey.Health{Name: b.name, State: valetkey.Ready, Since: b.since}
	switch {
	case b.failures >= b.limit:
		h.State, h.Err = valetkey.Degraded, b.err
	case b.lacks != nil:
		h.State, h.Err = valetkey.Degraded, b.lacks
	}
	return h
}
