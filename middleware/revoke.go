package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
)

const (
	maxRevocations  = 100_000 // held at a time
	revocationsLast = 24 * time.Hour
)

// Revoke makes tokens hold no longer, though they verify: those remembered are forgotten at once, and the revocation is
// held against what is verified until Revocation.Until. With [Config].CancelWithToken, the requests under way with such a
// token end. It looks at every remembered token, so revoke several at once
// where there are many. It is for this process only; see [Guard.Follow].
//
// The error names every revocation that is malformed, or that there is no room for among 100,000 held; the others apply.
func (g *Guard) Revoke(rs ...valetkey.Revocation) error {
	errs := make([]error, 0, len(rs))
	now := g.now()
	for i, r := range rs {
		if err := g.revoked.add(r, now); err != nil {
			errs = append(errs, fmt.Errorf("middleware: revocation %d: %w", i, err))
		}
	}
	g.cache.Purge(func(t *valetkey.Token) bool { return g.revoked.covers(t, now) })
	g.streams.endDenied()
	return errors.Join(errs...)
}

// Follow applies the revocations of source until ctx is done, and follows again when source gives up. Run it in a
// goroutine of its own. What source finds out takes effect at once.
func (g *Guard) Follow(ctx context.Context, source valetkey.Revocations) error {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := source.Follow(ctx, func(r valetkey.Revocation) error { return g.Revoke(r) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		g.log.LogAttrs(ctx, slog.LevelError, "revocations are not followed", slog.Duration("again_in", wait), slog.Any("err", err))
		select {
		case <-time.After(wait - rand.N(wait/10)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A denylist holds revocations by what they name, never by the text of a token: one token has several spellings
// (an ECDSA signature has two), and its text is nobody's to keep.
type denylist struct {
	mu   sync.RWMutex
	held map[revocation]span
}

// A revocation is what a valetkey.Revocation names.
type revocation struct {
	issuer string
	kind   kind
	value  string
}

type kind byte

const (
	byID kind = iota
	bySubject
	byClient
	byIssuer
)

// A span says which of the named tokens are meant, by the time of issue, and until when it matters.
type span struct {
	before time.Time // zero: all
	until  time.Time
}

var errFull = fmt.Errorf("%d are held already", maxRevocations)

func (d *denylist) add(r valetkey.Revocation, now time.Time) error {
	key, err := named(r)
	if err != nil {
		return err
	}
	s := span{before: r.Before, until: r.Until}
	switch {
	case key.kind == byID:
		s.before = time.Time{}
	case s.before.IsZero():
		s.before = now
	}
	if s.until.IsZero() {
		s.until = now.Add(revocationsLast)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	old, known := d.held[key]
	if !known && len(d.held) >= maxRevocations {
		d.sweepLocked(now)
		if len(d.held) >= maxRevocations {
			return errFull
		}
	}
	if known { // the wider of both
		s.before, s.until = later(s.before, old.before), later(s.until, old.until)
	}
	if d.held == nil {
		d.held = make(map[revocation]span)
	}
	d.held[key] = s
	return nil
}

func named(r valetkey.Revocation) (key revocation, err error) {
	if r.Issuer == "" {
		return key, errors.New("Issuer: required")
	}
	count := 0
	for _, n := range []struct {
		kind  kind
		value string
		given bool
	}{
		{byID, r.ID, r.ID != ""},
		{bySubject, r.Subject, r.Subject != ""},
		{byClient, r.ClientID, r.ClientID != ""},
		{byIssuer, "", r.All},
	} {
		if n.given {
			key = revocation{r.Issuer, n.kind, n.value}
			count++
		}
	}
	if count != 1 {
		return key, errors.New("exactly one of ID, Subject, ClientID and All is required")
	}
	return key, nil
}

func (d *denylist) sweepLocked(now time.Time) {
	for key, s := range d.held {
		if !now.Before(s.until) {
			delete(d.held, key)
		}
	}
}

// covers reports whether t is revoked.
func (d *denylist) covers(t *valetkey.Token, now time.Time) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if len(d.held) == 0 {
		return false
	}
	for _, key := range [...]revocation{
		{t.Issuer, byID, t.ID}, {t.Issuer, bySubject, t.Subject}, {t.Issuer, byClient, t.ClientID}, {t.Issuer, byIssuer, ""},
	} {
		s, held := d.held[key]
		if held && now.Before(s.until) && (s.before.IsZero() || t.IssuedAt.Before(s.before)) {
			return true
		}
	}
	return false
}

func (d *denylist) len(now time.Time) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweepLocked(now)
	return len(d.held)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
