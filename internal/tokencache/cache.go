// Package tokencache remembers verified tokens. It is the only place that imports go-cache, which has one lock and no
// bound: here are shards, exact bounds on entries and bytes, eviction, and one flight for simultaneous verifications.
//
// What is remembered is a fact, never a decision, and only for as long as it may be relied on: each use looks again at
// the time and at the condition of [valetkey.Freshness]. Refusals and failures are not remembered, and the text of a token
// is not kept. There is no goroutine, and so nothing to close.
package tokencache

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/digest"
)

// Config bounds a [Cache]. The zero value is good for most.
type Config struct {
	Entries int              // at most so many; zero: 65,536; negative: nothing is remembered, and no flight shared
	Bytes   int64            // at most so many together, see Stats; zero: 64 MiB; negative: nothing fits
	MaxAge  time.Duration    // since the verification began, never extended; zero: 5 min
	Now     func() time.Time // nil: time.Now

	// Claims decodes the claims of each new token, and again when the Entry of a remembered one is made again. Nil: nothing is decoded.
	Claims valetkey.Claims
}

// A Cache answers for a [valetkey.Verifier] and remembers what it accepted. It is safe for concurrent use.
type Cache struct {
	verifier valetkey.Verifier
	maxAge   time.Duration
	now      func() time.Time
	claims   valetkey.Claims // nil: nothing is decoded
	shards   []shard         // a power of two; nil if nothing is remembered
}

// Stats is a reading of a [Cache]. The shards are read one after the other.
type Stats struct {
	Entries   int    // remembered tokens, some of which may have expired
	Bytes     int64  // an estimate of the memory they take, with the map and all
	Hits      uint64 // calls of Verify answered from memory at once
	Misses    uint64 // all others, those that waited for another one's verification too
	Evictions uint64 // tokens forgotten before their time to make room
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

// Verify returns the token raw, and whether it was remembered, or what the verifier says of it. It allocates nothing for
// a remembered one that is among the 16,384 or fewer in use whose entries lie ready, and one entry for another.
//
// Simultaneous calls with one token share a verification: the first asks the verifier, with its own context, and the
// others wait for the answer or for the end of their own context. They take part in a refusal, in a failure unless the
// end of the first one's context was the reason, and in a token that may be reused; otherwise they ask on their own.
func (c *Cache) Verify(ctx context.Context, raw string) (e *Entry, remembered bool, err error) {
	if c.shards == nil {
		e, err = c.ask(ctx, raw)
		return e, false, err
	}
	key := digest.Of(raw)
	s, now := c.shard(&key), c.now()
	if e = s.hotset.find(&key); e == nil {
		e = s.open(&key, now)
	}
	if e == nil || !e.alive(now) {
		s.misses.Add(1)
		e, err = c.miss(ctx, raw, s, key, e, now)
		return e, false, err
	}
	s.hits.Add(1)
	e.record.use()
	return e, true, nil
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

// entry returns an entry of t that is not remembered. It calls foreign code, so never under a lock.
func (c *Cache) entry(t *valetkey.Token) (*Entry, error) {
	e := &Entry{Token: t, cache: c}
	if c.claims != nil {
		var err error
		if e.claims, e.bytes, err = c.claims.Decode(t); err != nil {
			return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonClaims, Err: err}
		}
	}
	return e, nil
}

// Purge forgets the tokens that match, or all if match is nil, and returns how many there were. What is being verified
// meanwhile is not remembered, whether it matches or not, and no later call takes part in it.
//
// It looks at every entry, and holds no lock while match runs.
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

// Stats returns the numbers of now.
func (c *Cache) Stats() Stats {
	var sum Stats
	for i := range c.shards {
		c.shards[i].addTo(&sum)
	}
	return sum
}
