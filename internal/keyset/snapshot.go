package keyset

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/refresh"
)

const maxTries = 4 // keys tried on one token

// A snapshot holds the keys at one time. It is immutable.
type snapshot struct {
	parsed   []*jose.Key
	keys     []*Key // of parsed; this and what follows is filled in by replace
	byID     map[string][]*Key
	byAlg    map[string][]*Key // for tokens without kid: of each algorithm, the first keys that fit, up to one too many to try
	unnamed  map[string][]*Key // for tokens with an unknown kid: of each algorithm, the first keys without kid, up to one too many
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

// candidates returns the keys that may have signed a token with header h. Several keys may share a kid. mismatch is the issuer of a
// key that would be one if the token were of that issuer. It uses the capacity of room, which has no elements.
func (s *snapshot) candidates(room []*Key, h jose.Header, terms Terms) (fit []*Key, mismatch string) {
	fit = room
	if s == nil {
		return fit, ""
	}
	keys := s.byAlg[h.Algorithm]
	if h.HasKeyID {
		keys = s.byID[h.KeyID]
		if len(keys) == 0 && terms.AllowKeyWithoutID && len(s.unnamed[h.Algorithm]) == 1 {
			keys = s.unnamed[h.Algorithm]
		}
	}
	for _, key := range keys {
		switch {
		case !key.Fits(h.Algorithm):
		case !terms.admits(key.Issuer()):
			mismatch = key.Issuer()
		default:
			fit = append(fit, key)
		}
	}
	return fit, mismatch
}

// try returns the key that c is signed with.
func try(keys []*Key, mismatch string, c *jose.Compact) (*Key, error) {
	switch {
	case len(keys) == 0 && mismatch != "":
		return nil, fmt.Errorf("%w: the one with this kid is for tokens of the issuer %.200q only", ErrUnknownKey, mismatch)
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
	ended := map[string]*Key{}
	if held != nil {
		for _, key := range held.keys {
			ended[identity(key.Key)] = key
		}
	}
	if next != nil {
		next.adopt(ended)
	}
	for _, key := range ended {
		key.withdrawn.Store(true)
	}
}

// adopt fills in the keys of s without duplicates. It takes the *Key of a key that is among held out of held and uses it.
func (s *snapshot) adopt(held map[string]*Key) {
	s.byID, s.byAlg, s.unnamed = map[string][]*Key{}, map[string][]*Key{}, map[string][]*Key{}
	seen := make(map[string]bool, len(s.parsed))
	for _, parsed := range s.parsed {
		id := identity(parsed)
		if seen[id] {
			continue
		}
		seen[id] = true
		key := held[id]
		if key == nil {
			key = &Key{Key: parsed}
		}
		delete(held, id)
		s.keys = append(s.keys, key)
		name := cmp.Or(key.ID(), key.CertificateThumbprint())
		s.byID[name] = append(s.byID[name], key)
		for _, alg := range key.Algorithms() {
			if fit := s.byAlg[alg]; len(fit) <= maxTries {
				s.byAlg[alg] = append(fit, key)
			}
			if fit := s.unnamed[alg]; key.ID() == "" && len(fit) < 2 {
				s.unnamed[alg] = append(fit, key)
			}
		}
	}
}

// identity returns the identity of a key: its names, its issuer, its material, and the algorithms that it may verify.
func identity(key *jose.Key) string {
	return fmt.Sprintf("%q", append(key.Algorithms(), key.Thumbprint(), key.ID(), key.CertificateThumbprint(), key.Issuer()))
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
	get.MaxBody = MaxBody / MaxKeys * s.cfg.MaxKeys
	get.Accept = "application/jwk-set+json, application/json;q=0.9, */*;q=0.1" // RFC 7517, section 8.5.2
	answer, err := get.Get(ctx, url, etag)
	if err != nil {
		return result, err
	}
	next := &snapshot{url: url, etag: answer.ETag, lifetime: s.cfg.lifetime(answer)}
	if answer.NotModified { // RFC 9111, section 4.3.4: headers that a 304 does not contain stay unchanged
		result.Status = http.StatusNotModified
		next.parsed, next.etag = held.parsed, cmp.Or(answer.ETag, etag)
		if answer.MaxAge < 0 {
			next.lifetime = held.lifetime
		}
	} else {
		var dropped []Dropped
		next.parsed, dropped, err = Parse(answer.Body, s.cfg.MaxKeys)
		s.report.log(s.cfg.Logger.With("issuer", s.cfg.Issuer), dropped)
		if err != nil {
			return result, fmt.Errorf("key set at %s: %w", fetch.Bare(url), err)
		}
	}
	result.Value, result.Fresh = next, next.lifetime
	return result, nil
}

// lifetime returns how long the keys of an answer are used without another one.
func (cfg *Config) lifetime(answer *fetch.Answer) time.Duration {
	if answer.MaxAge < 0 {
		return cfg.RefreshInterval
	}
	return min(max(answer.MaxAge, min(minFresh, cfg.RefreshInterval)), maxFresh)
}

// locate returns the URL of the key set.
func (s *Set) locate(ctx context.Context) (string, error) {
	if url := s.url.Load(); url != nil {
		return *url, nil
	}
	discover := s.cfg.Discover
	if discover == nil {
		discover = func(ctx context.Context) (string, error) { return s.cfg.Fetch.Discover(ctx, s.cfg.Issuer, "jwks_uri") }
	}
	url, err := discover(ctx)
	if err != nil {
		return "", err
	}
	s.url.Store(&url)
	return url, nil
}
