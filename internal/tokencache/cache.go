// Package tokencache caches verified tokens. It is the only package that imports go-cache, which has one lock and no bounds. It
// adds shards, exact bounds on entries and bytes, eviction, and one flight for simultaneous verifications of a token.
//
// The cache holds facts, never decisions, and only while they are fresh: each use checks the time and the condition of
// [valetkey.Freshness] again. It does not cache refusals and failures, and it does not store the text of a token. It starts no
// goroutine, so it does not need to be closed.
package tokencache

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/digest"
)

// Config bounds a [Cache]. The zero value suits most applications.
type Config struct {
	Entries int              // maximum number of entries; zero: 65,536; negative: nothing is cached and no flight is shared
	Bytes   int64            // maximum memory, see Stats; zero: 64 MiB; negative: nothing fits
	MaxAge  time.Duration    // since the start of the verification, never extended; zero: 5 min
	Now     func() time.Time // nil: time.Now

	// Claims decodes the claims of each new token, and again when the Entry of a cached token is recreated. Nil: nothing is
	// decoded.
	Claims valetkey.Claims
}

// A Cache verifies tokens with a [valetkey.Verifier] and caches those that it accepts. It is safe for concurrent use.
type Cache struct {
	verifier valetkey.Verifier
	maxAge   time.Duration
	now      func() time.Time
	claims   valetkey.Claims // nil: nothing is decoded
	shards   []shard         // a power of two; nil if nothing is cached
}

// Stats holds the statistics of a [Cache]. The shards are read one after the other, so the numbers are not a consistent snapshot.
type Stats struct {
	Entries   int    // cached tokens, including expired ones
	Bytes     int64  // estimated memory that they take, including the map
	Hits      uint64 // calls of Verify that returned a cached token
	Misses    uint64 // all other calls, including those that waited for the verification of another call
	Evictions uint64 // tokens that were removed early to make room
}

const (
	maxShards       = 64
	minShardEntries = 256
	minShardBytes   = 1 << 20
)

// New returns a Cache for verifier, which must not be nil.
func New(cfg Config, verifier valetkey.Verifier) *Cache {
	c := &Cache{
		verifier: verifier,
		maxAge:   cmp.Or(cfg.MaxAge, 5*time.Minute),
		now:      cfg.Now,
		claims:   cfg.Claims,
	}
	if c.now == nil {
		c.now = time.Now
	}
	if cfg.Entries < 0 {
		return c
	}
	entries, bytes := int64(cmp.Or(cfg.Entries, 1<<16)), cmp.Or(cfg.Bytes, 64<<20)
	n := int64(1)
	for n < maxShards && entries >= 2*n*minShardEntries && bytes >= 2*n*minShardBytes {
		n *= 2
	}
	c.shards = make([]shard, n)
	for i := range c.shards {
		// The shares add up to the whole exactly: the first entries%n shards get one more.
		c.shards[i].init(c, share(entries, n, int64(i)), share(bytes, n, int64(i)))
	}
	return c
}

func share(whole, n, i int64) int64 {
	if i < whole%n {
		return whole/n + 1
	}
	return whole / n
}

func (c *Cache) shard(key *digest.Digest) *shard {
	return &c.shards[binary.LittleEndian.Uint64(key[:8])&uint64(len(c.shards)-1)]
}

// Verify returns the entry of the token raw and whether it was cached, or the error of the verifier. It does not allocate if the
// token is cached and its entry is in the hot set, which holds at most 16,384 entries. For any other cached token it allocates
// one entry.
//
// Simultaneous calls with the same token share a verification: the first call asks the verifier, with its own context, and the
// others wait for the result or for the end of their own context. They share a refusal, a token that is fresh, and a failure
// unless the end of the first call's context caused it. Otherwise they ask the verifier themselves.
func (c *Cache) Verify(ctx context.Context, raw string) (e *Entry, remembered bool, err error) {
	if c.shards == nil {
		e, err = c.ask(ctx, raw)
		return e, false, err
	}
	key := digest.Of(raw)
	s, now := c.shard(&key), c.now()
	e, f, leads := s.look(&key, now)
	if f == nil {
		s.hits.Add(1)
		e.record.use()
		return e, true, nil
	}
	s.misses.Add(1)
	for !leads {
		select {
		case <-f.Done():
		case <-ctx.Done():
			return nil, false, fmt.Errorf("tokencache: waiting for the verification of the same token: %w", ctx.Err())
		}
		switch result := f.Result; {
		case result.abandoned:
		case result.err != nil:
			return nil, false, result.err
		case result.entry.alive(c.now()):
			return result.entry, false, nil
		default: // a result that is not fresh is for the leader only
			e, err = c.ask(ctx, raw)
			return e, false, err
		}
		now = c.now()
		if e, f, leads = s.look(&key, now); f == nil {
			return e, false, nil
		}
	}
	e, err = c.lead(ctx, raw, s, key, f, now)
	return e, false, err
}

var errNoAnswer = errors.New("tokencache: the verifier returned neither a token nor an error")

func (c *Cache) ask(ctx context.Context, raw string) (*Entry, error) {
	t, err := c.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, errNoAnswer
	}
	return c.entry(t)
}

// entry returns a new entry of t that is not cached. It calls foreign code, so the caller must hold no lock.
func (c *Cache) entry(t *valetkey.Token) (*Entry, error) {
	e := &Entry{cache: c}
	e.set(t)
	if c.claims != nil {
		var err error
		if e.claims, e.bytes, err = c.claims.Decode(t); err != nil {
			return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonClaims, Err: err}
		}
	}
	return e, nil
}

// Purge removes the tokens that match, or all if match is nil, and returns the number removed. The result of a verification in
// progress is not cached, whether it matches or not, and no later call shares it.
//
// Purge scans every entry, and holds no lock while match runs.
func (c *Cache) Purge(match func(*valetkey.Token) bool) int {
	purged := 0
	for i := range c.shards {
		s := &c.shards[i]
		for _, r := range s.startPurge() {
			if (match == nil || match(r.token())) && s.forget(r) {
				purged++
			}
		}
	}
	return purged
}

// PurgeNamed does the same as Purge for tokens whose iss, jti, sub, client_id and sid names selects. It is faster, because it builds
// no token for the others.
func (c *Cache) PurgeNamed(names func(issuer, id, subject, client, session string) bool, match func(*valetkey.Token) bool) int {
	purged := 0
	for i := range c.shards {
		s := &c.shards[i]
		for _, r := range s.startPurge() {
			if names(r.kind.issuer, r.cut(r.id), r.cut(r.subject), r.cut(r.clientID), r.cut(r.sessionID)) && match(r.token()) && s.forget(r) {
				purged++
			}
		}
	}
	return purged
}

// Stats returns the current statistics.
func (c *Cache) Stats() Stats {
	var sum Stats
	for i := range c.shards {
		c.shards[i].addTo(&sum)
	}
	return sum
}
