package keyset

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/refresh"
	"github.com/valetkey/valetkey/internal/strictjson"
)

const (
	maxKeys  = 100 // of one set; those that follow are dropped
	maxTries = 4   // keys tried on one token
)

// A snapshot holds the keys at one time. It is immutable.
type snapshot struct {
	parsed   []*jose.Key
	keys     []*Key // of parsed, filled in by replace
	url      string
	etag     string
	lifetime time.Duration
}

// Key is a key of the key set. It stays the same value over all refreshes for as long as the issuer keeps the key with the
// same kid, material and purpose.
type Key struct {
	*jose.Key
	withdrawn atomic.Bool
}

// Holds reports whether the key is still in its issuer's key set. It implements [valetkey.Condition].
func (k *Key) Holds() bool { return !k.withdrawn.Load() }

// candidates returns the keys that may have signed a token with header h. Several keys may share a kid.
func (s *snapshot) candidates(h jose.Header) []*Key {
	if s == nil {
		return nil
	}
	var fit []*Key
	for _, key := range s.keys {
		if (!h.HasKeyID || key.ID() == h.KeyID) && key.Fits(h.Algorithm) {
			fit = append(fit, key)
		}
	}
	return fit
}

// try returns the key that c is signed with.
func try(keys []*Key, c *jose.Compact) (*Key, error) {
	switch {
	case len(keys) == 0:
		return nil, ErrUnknownKey
	case len(keys) > maxTries: // otherwise each forged token would cost a check with every key
		return nil, ErrAmbiguous
	}
	for _, key := range keys {
		if key.Verify(c) == nil {
			return key, nil
		}
	}
	return nil, jose.ErrSignature
}

// replace runs before next replaces held. It fills in the keys of next, and withdraws the held keys that next does not
// contain.
func replace(held, next *snapshot) {
	if next != nil {
		next.keys = adopt(held, next.parsed)
	}
	if held == nil {
		return
	}
	for _, key := range held.keys {
		if next == nil || !slices.Contains(next.keys, key) {
			key.withdrawn.Store(true)
		}
	}
}

// adopt returns keys without duplicates. For a key that old also contains, it returns the same *Key.
func adopt(old *snapshot, keys []*jose.Key) []*Key {
	known := map[string]*Key{}
	if old != nil {
		for _, key := range old.keys {
			known[identity(key.Key)] = key
		}
	}
	var adopted []*Key
	seen := map[string]bool{}
	for _, key := range keys {
		id := identity(key)
		if seen[id] {
			continue
		}
		seen[id] = true
		if known[id] == nil {
			known[id] = &Key{Key: key}
		}
		adopted = append(adopted, known[id])
	}
	return adopted
}

// identity returns the identity of a key: its kid, its material, and the algorithms that it may verify.
func identity(key *jose.Key) string {
	id := key.Thumbprint() + " " + key.ID()
	for _, alg := range jose.Algorithms() {
		if key.Fits(alg) {
			id = alg + " " + id
		}
	}
	return id
}

// fetch gets the key set. After repeated failures, it discards the discovered URL, which is then looked up again.
func (s *Set) fetch(ctx context.Context, held *snapshot) (refresh.Result[snapshot], error) {
	result, err := s.get(ctx, held)
	if err == nil {
		s.failures = 0
		return result, nil
	}
	s.failures++
	if s.cfg.JWKSURL == "" && s.failures%rediscover == 0 {
		s.url.Store(nil)
	}
	return result, err
}

func (s *Set) get(ctx context.Context, held *snapshot) (result refresh.Result[snapshot], err error) {
	url, err := s.locate(ctx)
	if err != nil {
		return result, err
	}
	etag := ""
	if held != nil && held.url == url {
		etag = held.etag
	}
	get := s.cfg.Fetch
	get.Accept = "application/jwk-set+json, application/json;q=0.9, */*;q=0.1" // RFC 7517, section 8.5.2
	answer, err := get.Get(ctx, url, etag)
	if err != nil {
		return result, err
	}
	next := &snapshot{url: url, etag: answer.ETag, lifetime: min(max(answer.MaxAge, min(minFresh, s.cfg.RefreshInterval)), maxFresh)}
	if answer.NotModified { // RFC 9111, section 4.3.4: headers that a 304 does not contain stay unchanged
		result.Status = http.StatusNotModified
		next.parsed, next.etag = held.parsed, cmp.Or(answer.ETag, etag)
		if answer.MaxAge < 0 {
			next.lifetime = held.lifetime
		}
	} else {
		if answer.MaxAge < 0 {
			next.lifetime = s.cfg.RefreshInterval
		}
		var dropped []Dropped
		next.parsed, dropped, err = Parse(answer.Body)
		s.warn(dropped)
		if err != nil {
			return result, fmt.Errorf("key set at %s: %w", fetch.Bare(url), err)
		}
	}
	result.Value, result.Fresh = next, next.lifetime
	return result, nil
}

// locate returns the URL of the key set.
func (s *Set) locate(ctx context.Context) (string, error) {
	if url := s.url.Load(); url != nil {
		return *url, nil
	}
	url, err := s.cfg.Fetch.Discover(ctx, s.cfg.Issuer, "jwks_uri")
	if err != nil {
		return "", err
	}
	s.url.Store(&url)
	return url, nil
}

// warn logs each dropped key once for as long as the issuer sends it.
func (s *Set) warn(dropped []Dropped) {
	warned := map[string]bool{}
	for _, d := range dropped {
		if !warned[d.ID] && !s.warned[d.ID] {
			s.cfg.Logger.Warn("key set: a key is dropped", "issuer", s.cfg.Issuer, "kid", d.ID, "error", d.Err)
		}
		warned[d.ID] = true
	}
	s.warned = warned
}

// Dropped is a key that does not belong in an issuer's public key set.
type Dropped struct {
	ID  string // kid as sent, truncated
	Err error  // jose.ErrPrivate, jose.ErrSymmetric or too many
}

var errTooMany = fmt.Errorf("the set has more than %d keys", maxKeys)

// ErrWithdrawn is the error of [Parse] for a well-formed, non-empty JWK Set without a usable key: each key is of an unknown
// type, for encryption, private or shared. Such a set is a statement of its issuer, so the keys held so far are withdrawn. An
// empty or malformed set is not: that is how an outage or a failed deployment looks.
var ErrWithdrawn = errors.New("it has no usable key")

// Parse parses a JWK Set (RFC 7517, section 5) key by key. It skips keys that are malformed, of an unknown type or not for
// verifying, drops and reports private and shared keys, and returns the rest. It is an error if none remains: [ErrWithdrawn]
// if at least one key is well-formed, that is, an object with unique names and a kty.
func Parse(data []byte) (keys []*jose.Key, dropped []Dropped, err error) {
	var set map[string]json.RawMessage // not a struct, whose member names would match in any letter case
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, nil, errors.New("it is not a JSON object")
	}
	var list []json.RawMessage
	if err := json.Unmarshal(set["keys"], &list); err != nil {
		return nil, nil, errors.New(`it has no array "keys"`)
	}
	stated := false
	for _, jwk := range list {
		if len(keys) == maxKeys {
			dropped = append(dropped, Dropped{Err: errTooMany})
			break
		}
		key, err := jose.ParseKey(jwk)
		switch {
		case err == nil:
			keys = append(keys, key)
		case errors.Is(err, jose.ErrPrivate), errors.Is(err, jose.ErrSymmetric):
			dropped = append(dropped, Dropped{ID: keyID(jwk), Err: err})
		}
		stated = stated || err == nil || isKey(jwk)
	}
	switch {
	case len(keys) == 0 && stated:
		return nil, dropped, fmt.Errorf("%w among %d", ErrWithdrawn, len(list))
	case len(keys) == 0:
		return nil, dropped, fmt.Errorf("it has no usable key among %d", len(list))
	}
	return keys, dropped, nil
}

// isKey reports whether jwk is well-formed: an object with unique names and a kty (RFC 7517, sections 4 and 4.1).
func isKey(jwk []byte) bool {
	kty := ""
	err := strictjson.Object(jwk, func(name string, v strictjson.Value) error {
		if name == "kty" {
			kty, _ = v.Text()
		}
		return nil
	})
	return err == nil && kty != ""
}

// keyID returns the kid of a key that is not used, for the log.
func keyID(jwk []byte) string {
	var key struct {
		KeyID string `json:"kid"`
	}
	if json.Unmarshal(jwk, &key) != nil {
		return ""
	}
	return key.KeyID[:min(len(key.KeyID), 100)]
}
