// Package keys holds the keys that the authorization server signs with, in the store, so that all replicas have the same.
//
// A key is next, active, retiring and gone, in this order. It stands in the key set before it signs, for as long as somebody
// may remember a set without it; and after it has signed, until the last token that it signed has expired. So no verifier
// that knows a set of ours, however old it may be, meets a token that it cannot verify. There is always a next key: a rotation
// only makes it the active one.
package keys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
)

// Config is what a Ring is made of.
type Config struct {
	_ struct{} // keyed literals only

	// Algorithms are those that there are signing keys for: ES256, RS256, EdDSA, or another of package jose. Required. The
	// keys of one that is no longer listed stay in the key set for the time of Retire.
	Algorithms []string

	// Seal is the secret that private keys are encrypted under before they are stored: 32 random bytes or more. Required
	// unless InsecureUnsealed is set.
	Seal []byte

	// SealPrevious opens keys that were sealed under the Seal before this one. They are sealed anew when they are read.
	SealPrevious []byte

	// InsecureUnsealed allows private keys to be stored in clear text if Seal is empty: who reads the store, or a copy of it,
	// makes tokens. It is for a store that is memory.
	InsecureUnsealed bool

	// Publish is how long a key stands in the key set before it signs: at least as long as others may keep the set, the
	// max-age that it is served with. Zero: 10 min.
	Publish time.Duration

	// Retire is how long a key stays in the key set after it has signed: at least the longest lifetime of a token. Zero: 25 h.
	Retire time.Duration

	// Rotate is how long a key signs. Zero: until [Ring.Rotate] is called.
	Rotate time.Duration

	// Logger is told of what Run could not do. Nil: slog.Default().
	Logger *slog.Logger
}

const (
	defaultPublish = 10 * time.Minute
	defaultRetire  = 25 * time.Hour
	maxReload      = 30 * time.Second
	minReload      = time.Second
	maxRetiring    = 200 // that fit into a record
)

// A Ring is the keys of an authorization server. It is safe for concurrent use, and only Rotate, RotateNow, Reload and
// Run do I/O or take a lock.
type Ring struct {
	cfg    Config
	store  store.Store
	seal   *seal // nil: unsealed
	before *seal // nil: none
	reload time.Duration

	mu    sync.Mutex // of those who replace state
	state atomic.Pointer[state]
}

// Open reads the keys from the store and makes those that are missing: the first of an algorithm is active at once. The
// error names every mistake in cfg, or says that keys are sealed under another secret, and then wraps [ErrSeal].
func Open(ctx context.Context, s store.Store, cfg Config) (*Ring, error) {
	if cfg.Publish == 0 {
		cfg.Publish = defaultPublish
	}
	if cfg.Retire == 0 {
		cfg.Retire = defaultRetire
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	cfg.Algorithms = slices.Clone(cfg.Algorithms)
	r := &Ring{cfg: cfg, store: s, reload: min(max(cfg.Publish/4, minReload), maxReload)}
	r.state.Store(&state{})
	var err error
	if r.seal, err = newSeal(cfg.Seal); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	if r.before, err = newSeal(cfg.SealPrevious); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	if err := r.Reload(ctx); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return r, nil
}

func (cfg *Config) validate() error {
	var errs []error
	mistake := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(cfg.Algorithms) == 0 {
		mistake("Algorithms: at least one is required")
	}
	for i, alg := range cfg.Algorithms {
		if !slices.Contains(jose.Algorithms(), alg) {
			mistake("Algorithms[%d]: %q is not one of %v", i, alg, jose.Algorithms())
		}
	}
	if len(cfg.Seal) == 0 && !cfg.InsecureUnsealed {
		mistake("Seal: required, or InsecureUnsealed")
	}
	if len(cfg.Seal) > 0 && len(cfg.Seal) < minSeal {
		mistake("Seal: %d bytes, fewer than %d", len(cfg.Seal), minSeal)
	}
	if len(cfg.SealPrevious) > 0 && len(cfg.SealPrevious) < minSeal {
		mistake("SealPrevious: %d bytes, fewer than %d", len(cfg.SealPrevious), minSeal)
	}
	if cfg.Publish < 0 {
		mistake("Publish: %v is negative", cfg.Publish)
	}
	if cfg.Retire < 0 {
		mistake("Retire: %v is negative", cfg.Retire)
	}
	if cfg.Rotate < 0 || cfg.Rotate > 0 && cfg.Rotate < cfg.Publish {
		mistake("Rotate: %v is shorter than Publish, %v", cfg.Rotate, cfg.Publish)
	}
	if cfg.Rotate > 0 && cfg.Retire/cfg.Rotate > maxRetiring {
		mistake("Rotate: at %v, more than %d keys would be retiring", cfg.Rotate, maxRetiring)
	}
	return errors.Join(errs...)
}

// A state is all that is known of the store. It is immutable.
type state struct {
	records map[string]*record // by algorithm
	set     []byte
}

// Signing returns the active key of one of [Config.Algorithms].
func (r *Ring) Signing(alg string) (*jose.PrivateKey, error) {
	rec := r.state.Load().records[alg]
	if rec == nil || !rec.Ended.IsZero() {
		return nil, fmt.Errorf("keys: %q is not one of %v", alg, r.cfg.Algorithms)
	}
	return rec.Keys[rec.signing(time.Now())].private, nil
}

// KeySet returns the JWK Set (RFC 7517, section 5) of the public keys: next, active and retiring ones. It must not be
// modified, nor kept by anybody for longer than [Config.Publish].
func (r *Ring) KeySet() []byte { return r.state.Load().set }

// Keys returns the keys in the key set, the active ones first.
func (r *Ring) Keys() []*jose.PrivateKey {
	var active, others []*jose.PrivateKey
	now, records := time.Now(), r.state.Load().records
	for _, alg := range slices.Sorted(maps.Keys(records)) {
		rec := records[alg]
		signing := rec.signing(now)
		for i, k := range rec.Keys {
			if i == signing && rec.Ended.IsZero() {
				active = append(active, k.private)
			} else {
				others = append(others, k.private)
			}
		}
	}
	return append(active, others...)
}

// Info is what may be told of a key.
type Info struct {
	ID        string // kid
	Algorithm string
	State     string    // next, active, retiring
	Published time.Time // when it came into the key set
	Active    time.Time // when it began to sign, or will; zero: that is not decided
	Gone      time.Time // when it leaves the key set; zero: that is not decided
}

// List returns the keys in the key set, by algorithm, the oldest of each first.
func (r *Ring) List() []Info {
	var list []Info
	now, records := time.Now(), r.state.Load().records
	for _, alg := range slices.Sorted(maps.Keys(records)) {
		rec := records[alg]
		signing := rec.signing(now)
		for i, k := range rec.Keys {
			info := Info{ID: k.ID, Algorithm: alg, State: "active", Published: k.Published, Active: k.Active, Gone: r.gone(rec, i)}
			switch {
			case i > signing:
				info.State = "next"
			case i < signing || !rec.Ended.IsZero():
				info.State = "retiring"
			}
			list = append(list, info)
		}
	}
	return list
}

// Rotate makes the next key of the algorithm the active one: at once if it has been published for long enough, or else as
// soon as it has. If that is decided already, nothing happens; of several calls at the same time, here or in other
// replicas, one rotates.
func (r *Ring) Rotate(ctx context.Context, alg string) error { return r.rotate(ctx, alg, r.lead()) }

// RotateNow makes the next key sign at once, however young it is: for an active one that must not be used any more. Tokens
// that it signs are refused by those who remember an older key set and do not ask again. The old key stays in the key set,
// or the tokens that it signed would be dead.
func (r *Ring) RotateNow(ctx context.Context, alg string) error { return r.rotate(ctx, alg, 0) }

func (r *Ring) rotate(ctx context.Context, alg string, lead time.Duration) error {
	if !slices.Contains(r.cfg.Algorithms, alg) {
		return fmt.Errorf("keys: %q is not one of %v", alg, r.cfg.Algorithms)
	}
	next := ""
	err := r.update(ctx, alg, func(rec *record, now time.Time) bool {
		last := rec.Keys[len(rec.Keys)-1].ID
		next = cmp.Or(next, last)
		return last == next && rec.promote(now, lead) // or else somebody has rotated meanwhile
	})
	if err != nil {
		return fmt.Errorf("keys: rotate %s: %w", alg, err)
	}
	return nil
}

// Run rotates by schedule and learns what other replicas do, until ctx ends. While the store does not answer, the keys that
// are known stay in use.
func (r *Ring) Run(ctx context.Context) {
	tick := time.NewTicker(r.reload)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := r.Reload(ctx); err != nil && ctx.Err() == nil {
				r.cfg.Logger.ErrorContext(ctx, "signing keys not read", "error", err)
			}
		}
	}
}

// Reload reads the keys from the store, as Run does again and again, and does what is due: rotates by schedule, makes a next
// key, removes those that are gone.
func (r *Ring) Reload(ctx context.Context) error {
	records, err := r.store.Find(ctx, kind, store.Key{}, "", 100)
	if err != nil {
		return fmt.Errorf("read the signing keys: %w", err)
	}
	algs := slices.Clone(r.cfg.Algorithms)
	for _, rec := range records { // of algorithms that are no longer listed, too
		algs = append(algs, rec.ID)
	}
	slices.Sort(algs)
	var errs []error
	for _, alg := range slices.Compact(algs) {
		if err := r.update(ctx, alg, r.schedule); err != nil {
			errs = append(errs, fmt.Errorf("read the signing keys for %s: %w", alg, err))
		}
	}
	return errors.Join(errs...)
}

// schedule rotates once the active key has signed for Config.Rotate.
func (r *Ring) schedule(rec *record, now time.Time) bool {
	since := rec.Keys[rec.signing(now)].Active
	return r.cfg.Rotate > 0 && !now.Before(since.Add(r.cfg.Rotate)) && rec.promote(now, r.lead())
}

// lead is how old a key is before it signs. All replicas publish it within r.reload of the first; the second one is for
// their clocks.
func (r *Ring) lead() time.Duration { return r.cfg.Publish + 2*r.reload }
