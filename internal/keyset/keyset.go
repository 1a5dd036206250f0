// Package keyset holds the keys of one issuer, which rotate.
//
// A [Set] is a [refresh.Document]. A well-formed, non-empty key set withdraws the held keys that it does not contain as
// usable, even if none remain. An empty or malformed key set counts as an outage and changes nothing. Only a token whose key
// is missing causes a fetch directly, at most once per MinRefetchInterval with one extra, and waits for it for at most 2 s.
package keyset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/refresh"
)

const (
	minFresh   = time.Minute    // lower bound for an issuer's Cache-Control
	maxFresh   = 24 * time.Hour // upper bound
	maxStale   = 24 * time.Hour
	rediscover = 3 // failures in a row after which a discovered URL is looked up again
)

// The defaults of [Config].
const (
	DefaultRefreshInterval    = 10 * time.Minute
	DefaultMinRefetchInterval = 30 * time.Second
	DefaultStaleIfError       = time.Hour
)

// Config configures a [Set].
type Config struct {
	// Issuer is the issuer whose metadata contains the URL, if JWKSURL is empty.
	Issuer string

	// JWKSURL is the URL of the key set. Empty: it is discovered, and discovered again after repeated failures.
	JWKSURL string

	// Discover returns the URL of the key set, if JWKSURL is empty. Nil: the metadata of Issuer contains it.
	Discover func(ctx context.Context) (string, error)

	// Initial holds the keys to use until the first fetch has succeeded, at most for RefreshInterval and StaleIfError. The first
	// fetch begins in the background with the first Verify or Ready. Nil: none.
	Initial []*jose.Key

	// Fetch sends the requests.
	Fetch fetch.Client

	// RefreshInterval is the maximum age of a key set. The next fetch starts ahead of time, after 1/2 to 4/5 of it. It
	// applies if the issuer sends no Cache-Control; a Cache-Control lifetime is bounded to 1 min to 24 h. Zero: 10 min.
	RefreshInterval time.Duration

	// MinRefetchInterval is the minimum time between fetches caused by tokens with unknown keys, with one extra fetch for a
	// key that rotates twice. Zero: 30 s.
	MinRefetchInterval time.Duration

	// Probe is that of refresh.Config: set it if what the keys verify must not wait for a doubled pause.
	Probe bool

	// StaleIfError is how long keys are used past RefreshInterval while the issuer does not answer. Zero: 1 h; negative: not
	// at all; at most 24 h.
	StaleIfError time.Duration

	// MaxKeys is the maximum number of keys; those that follow are dropped. It also bounds the size of the key set, to 1.6 kB
	// for each. Zero: [MaxKeys].
	MaxKeys int

	// Logger logs failed refreshes (Warn), discarded keys (Error), and, once each, keys that are broken or do not belong in the set
	// (Warn) or are for another use (Debug). Nil: slog.Default().
	Logger *slog.Logger

	// Observer receives a [valetkey.KeySetRefreshed] event after each fetch. Nil: none.
	Observer valetkey.Observer
}

// The refusals of [Set.Verify].
var (
	ErrUnknownKey = errors.New("the issuer has no key that fits")
	ErrAmbiguous  = fmt.Errorf("more than %d keys fit, and none is tried", maxTries)
)

// Set is the key set of one issuer. It is safe for concurrent use and must be closed.
type Set struct {
	cfg Config
	doc *refresh.Document[snapshot]
	url atomic.Pointer[string] // of the key set; nil until discovered

	// Used by one fetch at a time.
	failures int // in a row
	report   report
}

// New returns the key set of an issuer. It does no I/O and starts nothing: the first Verify or Ready does. The error lists
// every mistake in cfg.
func New(cfg Config) (*Set, error) {
	var wrong mistakes.List
	wrong.AddIf(strings.Contains(cfg.JWKSURL, KeyIDPlace), "JWKSURL", "cannot contain %s here: a key set is needed", KeyIDPlace)
	wrong.Within("", cfg.complete(DefaultRefreshInterval))
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	s := &Set{cfg: cfg}
	if cfg.JWKSURL != "" {
		s.url.Store(&cfg.JWKSURL)
	}
	var initial refresh.Result[snapshot]
	if len(cfg.Initial) > 0 {
		initial = refresh.Result[snapshot]{Value: &snapshot{parsed: cfg.Initial}, Fresh: cfg.RefreshInterval}
	}
	s.doc = refresh.New(refresh.Config[snapshot]{
		Fetch: s.fetch, Initial: initial, Replace: replace, Withdrawn: ErrWithdrawn,
		StaleIfError: cfg.StaleIfError, MinRefetchInterval: cfg.MinRefetchInterval, Spare: 1, Probe: cfg.Probe,
		Name: "key set", Missing: "no keys of the issuer", Logger: cfg.Logger.With("issuer", cfg.Issuer),
		Observer: cfg.Observer, Event: valetkey.Event{Kind: valetkey.KeySetRefreshed, Issuer: cfg.Issuer},
	})
	return s, nil
}

// complete fills in the defaults of cfg. The error lists every mistake in it.
func (cfg *Config) complete(refreshInterval time.Duration) error {
	var wrong mistakes.List
	if cfg.JWKSURL != "" {
		if err := cfg.Fetch.Allowed(cfg.JWKSURL); err != nil {
			wrong.Add("JWKSURL", "%w", err)
		}
	} else if err := cfg.Fetch.Discoverable(cfg.Issuer); err != nil && cfg.Discover == nil {
		wrong.Add("Issuer", "cannot be discovered: %w", err)
	}
	if cfg.RefreshInterval < 0 || cfg.RefreshInterval > maxFresh {
		wrong.Add("RefreshInterval", "%v is not between 0 and %v", cfg.RefreshInterval, maxFresh)
	}
	if cfg.MinRefetchInterval < 0 {
		wrong.Add("MinRefetchInterval", "%v is negative", cfg.MinRefetchInterval)
	}
	if cfg.StaleIfError > maxStale {
		wrong.Add("StaleIfError", "%v is more than %v", cfg.StaleIfError, maxStale)
	}
	if err := wrong.Err(); err != nil {
		return err
	}
	if cfg.RefreshInterval == 0 {
		cfg.RefreshInterval = refreshInterval
	}
	if cfg.MinRefetchInterval == 0 {
		cfg.MinRefetchInterval = DefaultMinRefetchInterval
	}
	if cfg.StaleIfError == 0 {
		cfg.StaleIfError = DefaultStaleIfError
	}
	if cfg.MaxKeys == 0 {
		cfg.MaxKeys = MaxKeys
	}
	cfg.StaleIfError = max(0, cfg.StaleIfError)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return nil
}

// Static returns a Set whose keys never change.
func Static(keys ...*jose.Key) *Set {
	held := &snapshot{parsed: keys}
	replace(nil, held)
	return &Set{doc: refresh.Static(held, replace)}
}

// Terms restrict the keys that may verify a token. The zero value does not.
type Terms struct {
	// Issuer is the issuer of the token. A key that belongs to another one ([jose.Key.Issuer]) is not used. Empty: every key is.
	Issuer string

	// AllowKeyWithoutID lets a token whose kid no key has be verified with the key without kid, if exactly one of these fits the
	// algorithm.
	AllowKeyWithoutID bool
}

// admits reports whether a key with this issuer may verify the token. {tenantid} in it stands for the ID of a tenant, a UUID.
func (t Terms) admits(issuer string) bool {
	before, after, template := strings.Cut(issuer, "{tenantid}")
	switch {
	case issuer == "" || t.Issuer == "" || issuer == t.Issuer:
		return true
	case !template || len(t.Issuer) != len(before)+uuidLen+len(after):
		return false
	}
	return strings.HasPrefix(t.Issuer, before) && strings.HasSuffix(t.Issuer, after) && isUUID(t.Issuer[len(before):len(before)+uuidLen])
}

const uuidLen = 36

// isUUID reports whether s, of uuidLen bytes, is a UUID (RFC 9562, section 4).
func isUUID(s string) bool {
	for i := range uuidLen {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'):
			return false
		}
	}
	return true
}

// Verify returns the key that c is signed with. It looks keys up by kid and by whether they fit the algorithm and the terms. A key
// without kid also has the name in its x5t. If no key fits or none verifies c, the key set may have rotated: Verify tries once more
// if a fetch that MinRefetchInterval allows, or one in progress, returns other keys.
//
// The error is [ErrUnknownKey], [ErrAmbiguous], [jose.ErrSignature], or [*valetkey.Unavailable] if no keys are held.
func (s *Set) Verify(ctx context.Context, c *jose.Compact, terms Terms) (*Key, error) {
	s.doc.Start()
	held := s.doc.Load()
	var room [maxTries]*Key // on the stack
	tried, mismatch := held.candidates(room[:0], c.Header, terms)
	key, err := try(tried, mismatch, c)
	if err == nil || errors.Is(err, ErrAmbiguous) {
		return key, err
	}
	if held = s.doc.Renew(ctx, held); held == nil {
		return nil, s.doc.Unavailable()
	}
	if again, mismatch := held.candidates(nil, c.Header, terms); !slices.Equal(again, tried) {
		return try(again, mismatch, c)
	}
	return nil, err
}

// Ready returns nil if keys are held. Otherwise it waits for the fetch in progress, or starts the first one, and returns the
// reason for a failure. Between failed fetches it starts none and returns the last error.
func (s *Set) Ready(ctx context.Context) error {
	s.doc.Start()
	return s.doc.Ready(ctx)
}

// Health returns the state of s: ready if keys are held and the last fetch succeeded, or if they are static; degraded if keys are
// held but the last fetch failed or is overdue; down if none are held. It does no I/O.
func (s *Set) Health() valetkey.Health {
	h := s.doc.Status().Health
	h.Name = s.cfg.Issuer
	return h
}

// Status is the state of a key set.
type Status struct {
	URL       string        // of the key set; "" if it is not yet discovered, or static
	Keys      int           // held; zero: tokens get 503
	Age       time.Duration // since the issuer last confirmed them
	Fresh     bool          // Age is within the limit of Cache-Control or Config.RefreshInterval
	Confirmed time.Time     // when the fetch began that last returned them; zero: none has
	LastFetch time.Time     // when the last fetch began, which may be in progress; zero: none has begun
	LastError error         // of the last fetch; nil: it succeeded
}

// Status returns the state of s.
func (s *Set) Status() Status {
	doc := s.doc.Status()
	status := Status{Fresh: doc.Fresh, Confirmed: doc.Start, LastFetch: doc.Begun, LastError: doc.Err}
	if url := s.url.Load(); url != nil {
		status.URL = *url
	}
	if held := s.doc.Load(); held != nil {
		status.Keys, status.Age = len(held.keys), time.Since(doc.Start)
	}
	return status
}

// Close ends fetches and timers, waits for them, and withdraws all keys. It may be called more than once.
func (s *Set) Close() {
	s.doc.Close()
	if c := s.cfg.Fetch.HTTP; c != nil {
		if own, is := c.Transport.(*fetch.TLSFiles); is { // made for this set; others are the caller's
			own.CloseIdleConnections()
		}
	}
}
