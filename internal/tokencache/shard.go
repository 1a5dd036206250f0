package tokencache

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	gocache "github.com/patrickmn/go-cache"

	"github.com/valetkey/valetkey/internal/digest"
	"github.com/valetkey/valetkey/internal/flight"
)

// A shard is an independent cache with a share of the bounds.
//
// A new record enters the probation queue. When room is needed, the oldest record of that queue is evicted, unless it has been
// used; then it moves to the protected queue. The oldest record of the protected queue is evicted only when probation is small,
// and gets another round if it has been used. So tokens that are used only once occupy a tenth of the shard and do not displace
// the others. A token that returns soon after its eviction is in the ghost table and is protected at once. This is the idea of
// S3-FIFO (Yang et al., SOSP 2023): a hit moves nothing, and locks nothing while its entry is in the hot set.
type shard struct {
	maxEntries int
	maxBytes   int64

	cache  *Cache
	items  *gocache.Cache // digest.Text() to *record; written only under mu
	hotset hotset

	mu        sync.Mutex // guards the fields below; no foreign code is called under it
	kinds     kinds
	probation queue
	protected queue
	ghosts    [][4]uint32                           // fingerprints of evicted tokens; nil until the first eviction
	flights   flight.Table[digest.Digest, verified] // verifications in progress; no key is also in items
	evictions uint64

	hits, misses atomic.Uint64
	_            [64]byte // keeps the counters of the next shard on another cache line
}

// Bounds on the work of one insertion.
const (
	sweepSteps = 2  // oldest records of each queue that are checked for expiry: more than one, so that sweeping catches up
	roomSteps  = 64 // records examined to make room; a record that needs more is not stored
	chances    = 16 // number of these that may be kept because they were used
)

func (s *shard) init(c *Cache, entries, bytes int64) {
	s.cache, s.maxEntries, s.maxBytes = c, int(entries), bytes
	s.hotset.init(entries, bytes)
	s.kinds.table = make(map[kindKey]*kind)
	s.items = gocache.New(gocache.NoExpiration, 0) // the shard handles expiry: no time.Now per look-up, no goroutine
	s.flights = make(flight.Table[digest.Digest, verified])
}

func (s *shard) get(key *digest.Digest) *record {
	v, _ := s.items.Get(key.Text())
	r, _ := v.(*record)
	return r
}

// look returns the entry of a cached token that is fresh. Otherwise it returns the flight that verifies the token, and whether the
// caller leads it.
func (s *shard) look(key *digest.Digest, now time.Time) (e *Entry, f *verification, leads bool) {
	e = s.hotset.find(key)
	for e == nil || !e.alive(now) {
		if e, f, leads = s.open(key, e, now); f != nil {
			return nil, f, leads
		}
	}
	return e, nil, false
}

// open returns the entry of a cached token and puts it into the hot set; nil if Config.Claims now refuses it. If the token is not
// cached, or only as dead, which open then removes, it returns the flight and whether the caller leads it.
func (s *shard) open(key *digest.Digest, dead *Entry, now time.Time) (e *Entry, f *verification, leads bool) {
	s.mu.Lock()
	r := s.get(key)
	if r != nil && dead != nil && r == dead.record {
		s.remove(r)
		r = nil
	}
	if r != nil {
		e = s.hotset.find(key) // another call may have added it in the meantime
	} else if f = s.flights.Join(*key); f == nil {
		f, leads = s.flights.Start(*key), true
	}
	s.mu.Unlock()
	if e != nil || f != nil {
		return e, f, leads
	}
	e, err := s.cache.entry(r.token())
	if err != nil {
		s.forget(r)
		return nil, nil, false
	}
	e.record = r

	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.hotset.find(key); other != nil { // another call has added it
		return other, nil, false
	}
	r.use() // so that makeRoom is unlikely to evict it
	if place := s.hotset.place(key); s.makeRoom(0, e.size(), now) && s.get(key) == r {
		s.hotset.put(place, e)
	}
	return e, nil, false
}

// land ends f. It caches the entry of f as r, unless r is nil or a purge has removed f from the table.
func (s *shard) land(f *verification, r *record, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flights.Land(f) && r != nil {
		s.insert(r, f.Result.entry, now)
	}
}

// insert stores r, whose token e has, and reports whether there was room.
func (s *shard) insert(r *record, e *Entry, now time.Time) bool {
	s.sweep(&s.probation, now)
	s.sweep(&s.protected, now)
	r.kind = s.kinds.take(e.Token)
	fits := int64(r.bytes)+r.kind.bytes+e.size() <= s.maxBytes // including a later entry in the hot set
	if !fits || !s.makeRoom(1, int64(r.bytes), now) {
		s.kinds.drop(r.kind)
		return false
	}
	if s.isGhost(&r.key) {
		r.state.Or(protected)
	}
	s.items.Set(r.key.Text(), r, gocache.NoExpiration)
	s.queueOf(r).push(r)
	return true
}

func (s *shard) sweep(q *queue, now time.Time) {
	for range sweepSteps {
		if q.oldest != nil && q.oldest.expired(now) {
			s.remove(q.oldest)
		}
	}
}

// makeRoom evicts records until the given number of entries and bytes fits. It returns false if it would need too many steps.
func (s *shard) makeRoom(entries int, bytes int64, now time.Time) bool {
	for step := 0; s.entries()+entries > s.maxEntries || s.bytes()+bytes > s.maxBytes; step++ {
		if step == roomSteps {
			return false
		}
		// Probation gets a tenth, by number and by bytes, so that large tokens that are used only once cannot take more room
		// either.
		q := &s.protected
		if 10*s.probation.entries >= s.entries() || 10*s.probation.bytes >= s.bytes() {
			q = &s.probation
		}
		r := q.oldest
		switch {
		case r.expired(now):
			s.remove(r)
		case step < chances && r.state.Load()&used != 0:
			q.remove(r)
			r.state.Store(protected)
			s.protected.push(r)
		default:
			s.remove(r)
			s.evictions++
			s.addGhost(&r.key)
		}
	}
	return true
}

func (s *shard) entries() int { return s.probation.entries + s.protected.entries }
func (s *shard) bytes() int64 {
	return s.probation.bytes + s.protected.bytes + s.kinds.bytes + s.hotset.size
}

func (s *shard) queueOf(r *record) *queue {
	if r.state.Load()&protected != 0 {
		return &s.protected
	}
	return &s.probation
}

func (s *shard) remove(r *record) {
	s.items.Delete(r.key.Text())
	s.queueOf(r).remove(r)
	s.hotset.remove(r)
	s.kinds.drop(r.kind)
}

// addGhost records key in the ghost table, in a random one of four slots. With one slot per key, two tokens in use that share it
// would overwrite each other forever.
func (s *shard) addGhost(key *digest.Digest) {
	if s.ghosts == nil {
		n := min(s.maxEntries, int(s.maxBytes/512), 1<<14)
		s.ghosts = make([][4]uint32, 1<<bits.Len(uint(n/4)))
	}
	s.ghostsNear(key)[rand.IntN(4)] = fingerprint(key)
}

func (s *shard) isGhost(key *digest.Digest) bool {
	return s.ghosts != nil && slices.Contains(s.ghostsNear(key)[:], fingerprint(key))
}

func (s *shard) ghostsNear(key *digest.Digest) *[4]uint32 {
	return &s.ghosts[binary.LittleEndian.Uint32(key[8:12])&uint32(len(s.ghosts)-1)]
}

func fingerprint(key *digest.Digest) uint32 { return binary.LittleEndian.Uint32(key[12:]) }

// startPurge returns all records and removes the flights from their table, so that their results are not cached.
func (s *shard) startPurge() []*record {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.flights)
	return s.recordsLocked()
}

// records returns all records.
func (s *shard) records() []*record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recordsLocked()
}

func (s *shard) recordsLocked() []*record {
	all := make([]*record, 0, s.entries())
	for _, q := range []*queue{&s.probation, &s.protected} {
		for r := q.oldest; r != nil; r = r.newer {
			all = append(all, r)
		}
	}
	return all
}

// forget removes r and reports whether it was still in the shard.
func (s *shard) forget(r *record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.get(&r.key) != r {
		return false
	}
	s.remove(r)
	return true
}

func (s *shard) addTo(sum *Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum.Entries += s.entries()
	sum.Bytes += s.bytes()
	sum.Hits += s.hits.Load()
	sum.Misses += s.misses.Load()
	sum.Evictions += s.evictions
}
