// Package keys keeps the signing keys of the authorization server in the store, so that all replicas have the same ones.
//
// A key is next, active, retiring and gone, in this order. It is in the key set before it signs, for as long as verifiers may
// cache a set without it. After it has stopped signing, it remains until the last token that it signed has expired. So a
// verifier with a cached key set of any age never meets a token that it cannot verify. There is always a next key; a rotation
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

// Config configures a Ring.
type Config struct {
	_ struct{} // keyed literals only

	// Algorithms are the algorithms that signing keys are needed for: ES256, RS256, EdDSA, or another one of package jose.
	// Required. The keys of an algorithm that is removed remain in the key set for the duration of Retire.
	Algorithms []string

	// Seal is the secret that private keys are encrypted under in the store: at least 32 random bytes. Required unless
	// InsecureUnsealed is set.
	Seal []byte

	// SealPrevious decrypts keys that were encrypted under the preceding Seal. They are encrypted again when they are read.
	SealPrevious []byte

	// InsecureUnsealed allows private keys in clear text in the store if Seal is empty. Anyone who can read the store, or a copy
	// of it, can then forge tokens. It is meant for a store in memory.
	InsecureUnsealed bool

	// Publish is how long a key is in the key set before it signs. It must be at least as long as verifiers may cache the set,
	// which is the max-age that it is served with. Zero: 10 min.
	Publish time.Duration

	// Retire is how long a key remains in the key set after it has stopped signing. It must be at least the longest lifetime of
	// a token. Zero: 25 h.
	Retire time.Duration

	// Rotate is how long a key signs. Zero: until [Ring.Rotate] is called.
	Rotate time.Duration

	// Logger receives the failures of Run. Nil: slog.Default().
	Logger *slog.Logger
}

const (
	defaultPublish = 10 * time.Minute
	defaultRetire  = 25 * time.Hour
	maxReload      = 30 * time.Second
	minReload      = time.Second
	maxRetiring    = 200 // as many as fit into a record
)

// A Ring is the set of keys of an authorization server. It is safe for concurrent use. Only Rotate, RotateNow, Reload and Run do
// I/O or take a lock.
type Ring struct {
	cfg    Config
	store  store.Store
	seal   *seal // nil: unsealed
	before *seal // nil: none
	reload time.Duration

	mu    sync.Mutex // held to replace state
	state atomic.Pointer[state]
}

// Open reads the keys from the store and creates those that are missing. The first key of an algorithm is active immediately.
// The error lists every mistake in cfg, or wraps [ErrSeal] if keys are encrypted under another secret.
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

// A state is everything that is known of the store. It is immutable.
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

// KeySet returns the JWK Set (RFC 7517, section 5) of the public keys: next, active and retiring ones. It must not be modified,
// and must not be cached for longer than [Config.Publish].
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

// Info describes the public properties of a key.
type Info struct {
	ID        string // kid
	Algorithm string
	State     string    // next, active, retiring
	Published time.Time // when it was added to the key set
	Active    time.Time // when it began or will begin to sign; zero: not yet decided
	Gone      time.Time // when it leaves the key set; zero: not yet decided
}

// List returns the keys in the key set, grouped by algorithm, oldest first.
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

// Rotate makes the next key of the algorithm the active one, as soon as it has been published long enough. If a rotation is
// already decided, nothing happens. Of several concurrent calls, here or in other replicas, one rotates.
func (r *Ring) Rotate(ctx context.Context, alg string) error { return r.rotate(ctx, alg, r.lead()) }

// RotateNow makes the next key sign immediately, regardless of its age. Use it if the active key must no longer be used.
// Verifiers with an older key set that do not refetch it refuse tokens signed by the new key. The old key remains in the key
// set, because without it its tokens would become invalid.
func (r *Ring) RotateNow(ctx context.Context, alg string) error { return r.rotate(ctx, alg, 0) }

func (r *Ring) rotate(ctx context.Context, alg string, lead time.Duration) error {
	if !slices.Contains(r.cfg.Algorithms, alg) {
		return fmt.Errorf("keys: %q is not one of %v", alg, r.cfg.Algorithms)
	}
	next := ""
	err := r.update(ctx, alg, func(rec *record, now time.Time) bool {
		last := rec.Keys[len(rec.Keys)-1].ID
		next = cmp.Or(next, last)
		return last == next && rec.promote(now, lead) // otherwise another caller has rotated meanwhile
	})
	if err != nil {
		return fmt.Errorf("keys: rotate %s: %w", alg, err)
	}
	return nil
}

// Run rotates by schedule and picks up changes by other replicas, until ctx ends. While the store is not available, the known
// keys remain in use.
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

// Reload reads the keys from the store, as Run does repeatedly, and performs what is due: it rotates by schedule, creates a next
// key, and removes keys that are gone.
func (r *Ring) Reload(ctx context.Context) error {
	records, err := r.store.Find(ctx, kind, store.Key{}, "", 100)
	if err != nil {
		return fmt.Errorf("read the signing keys: %w", err)
	}
	algs := slices.Clone(r.cfg.Algorithms)
	for _, rec := range records { // including algorithms that are no longer configured
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

// lead returns how old a key must be before it signs. All replicas publish it within r.reload of the first; the second r.reload
// allows for differences between their clocks.
func (r *Ring) lead() time.Duration { return r.cfg.Publish + 2*r.reload }
