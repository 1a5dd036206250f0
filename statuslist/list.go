package statuslist

import (
	"context"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/refresh"
)

// recently is how long after the last request that needed it an unavailable list counts in the health.
const recently = 5 * time.Minute

// A list is one status list.
type list = refresh.Document[snapshot]

// describe returns the configuration of the list at uri.
func (v *Verifier) describe(uri string) refresh.Config[snapshot] {
	return refresh.Config[snapshot]{
		Fetch: func(ctx context.Context, _ *snapshot) (result refresh.Result[snapshot], err error) {
			next, err := v.read(ctx, uri)
			if err != nil {
				return result, err
			}
			// The ttl of the list applies, within the configured bounds. The HTTP cache lifetime does not (section 8.2).
			ttl := v.cfg.RefreshInterval
			if next.ttl > 0 {
				ttl = min(max(next.ttl, v.cfg.MinTTL), v.cfg.MaxTTL)
			}
			return refresh.Result[snapshot]{Value: next, Fresh: ttl, Until: next.expiry}, nil
		},
		StaleIfError: v.cfg.StaleIfError, MaxRetryAfter: v.cfg.MaxTTL, WhileUsed: true,
		Name: "status list", Missing: "the status list " + fetch.Bare(uri) + " cannot be had",
		Logger:   v.cfg.Logger.With("uri", fetch.Bare(uri)),
		Observer: v.cfg.Observer, Event: valetkey.Event{Kind: valetkey.StatusListRead, Issuer: v.cfg.Issuer},
	}
}

// usable reports whether s may be used: it is not nil, and its key is still in the issuer's key set. It takes no lock.
func (s *snapshot) usable() bool { return s != nil && s.key.Holds() }

// need returns the list at uri and its snapshot. It waits for the snapshot if there is none.
func (v *Verifier) need(ctx context.Context, uri string) (*list, *snapshot, error) {
	l := v.lists.Get(uri)
	defer l.Use() // after the fetch: a use before it would not count
	held := l.Load()
	if !held.usable() {
		held = l.Renew(ctx, held)
	}
	if !held.usable() {
		return nil, nil, l.Unavailable()
	}
	return l, held, nil
}

// health returns the state of the lists.
func (v *Verifier) health() valetkey.Health {
	h := valetkey.Health{Name: v.cfg.Issuer + " (status lists)", State: valetkey.Ready}
	for _, l := range v.lists.All() {
		s := l.Status()
		switch held := l.Load().usable(); {
		case s.Err == nil:
		case !held && time.Since(s.Asked) < recently:
			h.State, h.Since, h.Err = valetkey.Down, s.Health.Since, s.Err
		case held && h.State == valetkey.Ready:
			h.State, h.Since, h.Err = valetkey.Degraded, s.Health.Since, s.Err
		}
	}
	return h
}
