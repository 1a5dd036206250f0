package keyset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/refresh"
)

// KeyIDPlace is where the kid of a token belongs in the URL of a [ByID].
const KeyIDPlace = "{kid}"

// DefaultKeyInterval is the default of Config.RefreshInterval for a [ByID]: the key that belongs to a kid does not change.
const DefaultKeyInterval = 24 * time.Hour

const (
	// maxByID is the maximum number of kids for which a key, or that there is none, is held. Anyone who sends tokens can fill it, by
	// at most newKeys kids per MinRefetchInterval. When it is full, a new kid displaces one that has not verified a token recently;
	// so it hurts a key only if that many others are in use, and the next token of the key then waits for another fetch.
	maxByID = 100

	// newKeys is how many fetches tokens can cause per MinRefetchInterval, and how many of them at once. Anyone can use them up with
	// tokens of made-up kids. Then tokens whose key is not held are refused, or get 503 if no key is held. It hurts those with a new
	// key, until the sender stops or one of their tokens gets a turn; keys that are held are not affected.
	newKeys = 10

	maxKeyBody = 64 << 10 // bytes of the answer with one key
	maxURLID   = 128      // bytes of a kid that becomes part of a URL
)

var (
	errNotInURL = errors.New("only a kid of at most 128 letters, digits, '-', '_' and '.' is looked up")
	errTooFast  = errors.New("too many tokens with unknown keys have been sent, so this kid is not looked up yet")
	errClosed   = errors.New("closed")
)

// ByID holds the keys of an issuer that publishes each key at a URL that contains its kid. A key is fetched with the first token that
// names it. It is safe for concurrent use and must be closed.
//
// Each kid is a [refresh.Document], so a key in use is fetched again ahead of time and kept for StaleIfError while the issuer does not
// answer. The issuer withdraws a key with the status 404 or 410.
type ByID struct {
	cfg    Config
	pool   *refresh.Pool[single]
	budget budget
	keys   atomic.Int64 // held

	mu     sync.Mutex
	health valetkey.Health
}

// A single is the answer for one kid.
type single struct {
	key *Key  // nil: there is none
	err error // why there is none
}

// NewByID returns the keys of an issuer. Of cfg, JWKSURL is required and contains [KeyIDPlace]; Initial and MaxKeys do not apply. The
// error lists every mistake in cfg.
func NewByID(cfg Config) (*ByID, error) {
	var wrong mistakes.List
	before, after, has := strings.Cut(cfg.JWKSURL, KeyIDPlace)
	if u, err := url.Parse(before); !has || err != nil || u.Path == "" || u.RawQuery != "" || strings.ContainsAny(before+after, "{}?#") {
		wrong.Add("JWKSURL", "needs %s once, in its path, and no query", KeyIDPlace)
	}
	wrong.Within("", cfg.complete(DefaultKeyInterval))
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	cfg.Fetch.MaxBody, cfg.Fetch.Accept = maxKeyBody, "*/*"
	k := &ByID{cfg: cfg, health: valetkey.Health{State: valetkey.Ready, Since: time.Now()}}
	k.budget.step = cfg.MinRefetchInterval / newKeys
	k.pool = refresh.NewPool(maxByID, k.describe)
	return k, nil
}

// describe returns the configuration of the document of one kid.
func (k *ByID) describe(id string) refresh.Config[single] {
	return refresh.Config[single]{
		Fetch:   func(ctx context.Context, held *single) (refresh.Result[single], error) { return k.fetch(ctx, id, held) },
		Replace: k.replace, StaleIfError: k.cfg.StaleIfError, WhileUsed: true,
		MinRefetchInterval: k.cfg.MinRefetchInterval, Spare: 1, Allow: k.budget.take,
		Name: "key", Missing: "no key of the issuer", Logger: k.cfg.Logger.With("issuer", k.cfg.Issuer, "kid", id),
		Observer: k.cfg.Observer, Event: valetkey.Event{Kind: valetkey.KeySetRefreshed, Issuer: k.cfg.Issuer},
	}
}

// replace runs before next replaces held. A key that was set aside because it was not used can come back.
func (k *ByID) replace(held, next *single) {
	before, after := held.keyOrNil(), next.keyOrNil()
	if before == after {
		return
	}
	if before != nil {
		k.keys.Add(-1)
		before.withdrawn.Store(true)
	}
	if after != nil {
		k.keys.Add(1)
		after.withdrawn.Store(false)
	}
}

func (s *single) keyOrNil() *Key {
	if s == nil {
		return nil
	}
	return s.key
}

// Verify does the same as [Set.Verify]. A token without kid has no key. While keys are held, a token whose key cannot be fetched has
// none either.
func (k *ByID) Verify(ctx context.Context, c *jose.Compact, terms Terms) (*Key, error) {
	id := c.Header.KeyID
	if !inURL(id) {
		return nil, fmt.Errorf("%w: %w", ErrUnknownKey, errNotInURL)
	}
	doc := k.pool.Find(id)
	if doc == nil {
		if wait := k.budget.wait(); wait > 0 { // otherwise kids that are not looked up would displace those that are
			return nil, k.missing(&valetkey.Unavailable{RetryAfter: max(time.Second, wait), Err: errTooFast})
		}
		doc = k.pool.Get(id)
	}
	held := doc.Load()
	if held == nil {
		held = doc.Renew(ctx, nil)
	}
	switch {
	case held == nil:
		return nil, k.missing(doc.Unavailable())
	case held.key == nil:
		return nil, fmt.Errorf("%w: %w", ErrUnknownKey, held.err)
	case !held.key.Fits(c.Header.Algorithm) || !terms.admits(held.key.Issuer()):
		return nil, ErrUnknownKey
	case held.key.Verify(c) != nil:
		return nil, jose.ErrSignature
	}
	doc.Use()
	return held.key, nil
}

// missing returns the error for a token whose key is not held for the reason in failure. While other keys are held, tokens with made-up
// kids must not cause 503.
func (k *ByID) missing(failure error) error {
	if k.keys.Load() > 0 {
		return fmt.Errorf("%w: %w", ErrUnknownKey, errors.Unwrap(failure))
	}
	return failure
}

// inURL reports whether a kid may become part of a URL.
func inURL(id string) bool {
	if id == "" || len(id) > maxURLID || id[0] == '.' || strings.Contains(id, "..") {
		return false
	}
	return !strings.ContainsFunc(id, func(c rune) bool {
		return !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.')
	})
}

// fetch gets the key with a kid. That the issuer has none is a result, not a failure: otherwise made-up kids would look like an outage.
func (k *ByID) fetch(ctx context.Context, id string, held *single) (result refresh.Result[single], err error) {
	known := held.keyOrNil() != nil
	answer, err := k.cfg.Fetch.Get(ctx, strings.Replace(k.cfg.JWKSURL, KeyIDPlace, id, 1), "")
	if e, ok := errors.AsType[*fetch.Error](err); ok && absent(e.Status, known) {
		k.outcome(nil)
		return refresh.Result[single]{Value: &single{err: err}, Fresh: k.cfg.MinRefetchInterval, Status: e.Status}, nil
	}
	if err != nil {
		k.outcome(err)
		return result, err
	}
	key, err := parseOne(id, answer.Body)
	if err != nil {
		err = fmt.Errorf("the answer for this kid: %w", err)
		if known {
			k.outcome(err)
			return result, err
		}
		k.outcome(nil)
		return refresh.Result[single]{Value: &single{err: err}, Fresh: k.cfg.MinRefetchInterval}, nil
	}
	k.outcome(nil)
	next := &single{key: &Key{Key: key}}
	if known && identity(held.key.Key) == identity(key) {
		next.key = held.key
	}
	return refresh.Result[single]{Value: next, Fresh: k.cfg.lifetime(answer)}, nil
}

// absent reports whether the status means that there is no key. Object stores such as Amazon S3 send 403 if there is no object and
// the client must not list them; for a key that is known, it is a failure.
func absent(status int, known bool) bool {
	switch status {
	case http.StatusNotFound, http.StatusGone:
		return true
	case http.StatusBadRequest, http.StatusForbidden:
		return !known
	}
	return false
}

// parseOne parses a key in PEM, or a JWK whose kid is id.
func parseOne(id string, body []byte) (*jose.Key, error) {
	if body = bytes.TrimSpace(body); !bytes.HasPrefix(body, []byte("{")) {
		return jose.ParsePEM(id, body)
	}
	key, err := jose.ParseKey(body)
	if err == nil && key.ID() != id {
		return nil, errors.New("it has another kid")
	}
	return key, err
}

// outcome records the outcome of a fetch.
func (k *ByID) outcome(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.health.State == valetkey.Down { // closed
		return
	}
	state := valetkey.Ready
	if err != nil {
		state = valetkey.Degraded
	}
	if k.health.State != state {
		k.health.Since = time.Now()
	}
	k.health.State, k.health.Err = state, err
}

// Ready returns nil, except after Close: which keys to fetch is not known before the first token.
func (k *ByID) Ready(context.Context) error {
	if h := k.Health(); h.State == valetkey.Down {
		return h.Err
	}
	return nil
}

// Health returns the state of k: ready before the first fetch and if the last one got an answer, otherwise degraded. It is not down
// even if no key is held: without tokens, which a process that is not ready does not get, there would never be another fetch.
func (k *ByID) Health() valetkey.Health {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.health
	h.Name = k.cfg.Issuer
	return h
}

// Close ends fetches and timers, waits for them, and withdraws all keys. It may be called more than once.
func (k *ByID) Close() {
	k.mu.Lock()
	if k.health.State != valetkey.Down {
		k.health = valetkey.Health{State: valetkey.Down, Since: time.Now(), Err: errClosed}
	}
	k.mu.Unlock()
	k.pool.Close()
}

// A budget allows newKeys events at once and one per step in the long run.
type budget struct {
	step time.Duration
	mu   sync.Mutex
	used time.Time // up to which all steps are used up
}

// wait returns how long it takes until take would succeed.
func (b *budget) wait() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waitAt(time.Now())
}

func (b *budget) waitAt(now time.Time) time.Duration {
	return max(0, b.used.Add(-(newKeys-1)*b.step).Sub(now))
}

// take uses up one step, if there is one.
func (b *budget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.waitAt(now) > 0 {
		return false
	}
	if b.used.Before(now) {
		b.used = now
	}
	b.used = b.used.Add(b.step)
	return true
}
