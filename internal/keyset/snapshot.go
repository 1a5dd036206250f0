package keyset

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/refresh"
	"github.com/valetkey/valetkey/internal/strictjson"
)

// The maximum number of keys of one set; those that follow are dropped. The publisher fills a set, and the set is parsed again
// with each refresh: 5,000 keys take about 0.2 s and 10 MB.
const (
	MaxKeys        = 5000    // of a configured issuer, whose own tokens alone wait for it
	MaxForeignKeys = 100     // of a party that is not configured by name, such as a tenant or a client: there are many
	MaxBody        = 8 << 20 // bytes of a set of MaxKeys: 1.6 kB for each, enough for one with its certificate
)

const maxTries = 4 // keys tried on one token

// A snapshot holds the keys at one time. It is immutable.
type snapshot struct {
	parsed   []*jose.Key
	keys     []*Key // of parsed; this and what follows is filled in by replace
	byID     map[string][]*Key
	byAlg    map[string][]*Key // for tokens without kid: of each algorithm, the first keys that fit, up to one too many to try
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

// candidates returns the keys that may have signed a token with header h. Several keys may share a kid. It uses the capacity of fit,
// which has no elements.
func (s *snapshot) candidates(fit []*Key, h jose.Header) []*Key {
	switch {
	case s == nil:
		return nil
	case !h.HasKeyID:
		return s.byAlg[h.Algorithm]
	}
	for _, key := range s.byID[h.KeyID] {
		if key.Fits(h.Algorithm) {
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
	s.byID, s.byAlg = map[string][]*Key{}, map[string][]*Key{}
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
		s.byID[key.ID()] = append(s.byID[key.ID()], key)
		for _, alg := range key.Algorithms() {
			if fit := s.byAlg[alg]; len(fit) <= maxTries {
				s.byAlg[alg] = append(fit, key)
			}
		}
	}
}

// identity returns the identity of a key: its kid, its material, and the algorithms that it may verify.
func identity(key *jose.Key) string {
	return strings.Join(append(key.Algorithms(), key.Thumbprint(), key.ID()), " ")
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
		next.parsed, dropped, err = Parse(answer.Body, s.cfg.MaxKeys)
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

// ErrWithdrawn is the error of [Parse] for a well-formed, non-empty JWK Set without a usable key: each key is of an unknown
// type, for encryption, private or shared. Such a set is a statement of its issuer, so the keys held so far are withdrawn. An
// empty or malformed set is not: that is how an outage or a failed deployment looks.
var ErrWithdrawn = errors.New("it has no usable key")

// Parse parses a JWK Set (RFC 7517, section 5) of at most limit keys, key by key. It skips keys that are malformed, of an
// unknown type or not for verifying, drops and reports private and shared keys, and returns the rest. It is an error if none
// remains: [ErrWithdrawn] if at least one key is well-formed, that is, an object with unique names and a kty.
func Parse(data []byte, limit int) (keys []*jose.Key, dropped []Dropped, err error) {
	list, err := elements(data, limit+1)
	if err != nil {
		return nil, nil, err
	}
	if len(list) > limit {
		list = list[:limit]
		dropped = append(dropped, Dropped{Err: fmt.Errorf("the set has more than %d keys", limit)})
	}
	stated := false
	for _, jwk := range list {
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

// elements returns the first keys of a JWK Set, at most limit. It does not split up the rest: 8 MiB of "1,1,1" would take some
// hundred.
func elements(data []byte, limit int) (list []json.RawMessage, err error) {
	var set map[string]json.RawMessage // not a struct, whose member names would match in any letter case
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, errors.New("it is not a JSON object")
	}
	keys := json.NewDecoder(bytes.NewReader(set["keys"]))
	if start, err := keys.Token(); err != nil || start != json.Delim('[') {
		return nil, errors.New(`it has no array "keys"`)
	}
	for len(list) < limit && keys.More() {
		var jwk json.RawMessage
		if err := keys.Decode(&jwk); err != nil {
			return nil, err
		}
		list = append(list, jwk)
	}
	return list, nil
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
