package introspect

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
)

// Health returns the state of v: ready if the last request was answered, or if there was none yet; degraded if the last one
// was not; down if the endpoint is not being asked about any token, or if it rejects this server's requests. It does no I/O.
func (v *Verifier) Health() []valetkey.Health {
	v.mu.Lock()
	defer v.mu.Unlock()
	return []valetkey.Health{v.healthLocked(time.Now())}
}

func (v *Verifier) healthLocked(now time.Time) valetkey.Health {
	h := v.health
	state, err := v.stateLocked(now)
	if state != h.State { // time alone has changed it: the Retry-After has passed
		h.State, h.Since = state, v.breaker.until
	}
	h.Err = err
	return h
}

func (v *Verifier) stateLocked(now time.Time) (valetkey.State, error) {
	switch {
	case v.closed:
		return valetkey.Down, errClosed
	case v.breaker.failures >= maxFailures, now.Before(v.breaker.until):
		return valetkey.Down, v.breaker.cause
	case misconfigured(v.lastErr) && !aboutToken(v.lastErr):
		return valetkey.Down, v.lastErr
	case v.lastErr != nil:
		return valetkey.Degraded, v.lastErr
	}
	return valetkey.Ready, nil
}

// changeLocked runs change on the state of v, and records the time of a change in health.
func (v *Verifier) changeLocked(now time.Time, change func()) {
	v.health = v.healthLocked(now)
	change()
	if state, _ := v.stateLocked(now); state != v.health.State {
		v.health.State, v.health.Since = state, now
	}
}

// name returns the name of v in its health.
func (cfg *Config) name() string { return cmp.Or(cfg.Issuer, fetch.Bare(cfg.URL)) }

// observe reports a question that has ended, unless Close ended it.
func (v *Verifier) observe(ctx context.Context, took time.Duration, answered bool, err error) {
	if v.cfg.Observer == nil || v.ctx.Err() != nil {
		return
	}
	e := valetkey.Event{Kind: valetkey.IssuerAsked, Issuer: v.cfg.Issuer, Status: statusOf(err), Duration: took, Err: err}
	if u, parseErr := url.Parse(v.cfg.URL); e.Issuer == "" && parseErr == nil {
		e.Issuer = u.Host
	}
	if answered { // even if the response is unusable
		e.Status = http.StatusOK
	}
	v.cfg.Observer.Observe(ctx, e)
}
