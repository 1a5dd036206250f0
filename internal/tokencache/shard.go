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

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/digest"
)

// A shard is a cache of its own with a share of the bounds.
//
// A new entry stands in the probation queue. When room is needed, the oldest there is forgotten unless it was used since;
// then it moves to the protected queue, whose own oldest is forgotten only once probation is small, and gets another
// round if it was used. So tokens that come only once pass through a tenth of the shard and leave the rest alone. One
// that comes back soon after it was forgotten, which the ghost table knows, is protected at once. This is the idea of
// S3-FIFO (Yang et al., SOSP 2023): a hit moves nothing, and locks nothing while its entry lies in the hot set.
type shard struct {
	maxEntries int
	maxBytes   int64

	cache  *Cache
	items  *gocache.Cache // digest.Text() to *record; written under mu only
	hotset hotset

	mu        sync.Mutex // guards what follows; no foreign code is called under it
	kinds     kinds
	probation queue
	protected queue
	ghosts    [][4]uint32               // fingerprints of evicted tokens; nil until the first
	flights   map[digest.Digest]*flight // verifications under way; no key stands in items too
	evictions uint64

	hits, misses atomic.Uint64
	_            [64]byte // the neighbour's counters are on another cache line
}

// Bounds on the work of one insertion.
const (
	sweepSteps = 2  // the oldest of each queue that are looked at for expiry: more than one, so sweeping catches up
	roomSteps  = 64 // records looked at to make room; one that needs more is not stored
	chances    = 16 // of these, so many may be spared because they were used
)

func (s *shard) init(c *Cache, entries, bytes int64) {
	s.cache, s.maxEntries, s.maxBytes = c, int(entries), bytes
	s.hotset.init(entries, bytes)
	s.kinds.table = make(map[kindKey]*kind)
	s.items = gocache.New(gocache.NoExpiration, 0) // expiry is ours: no time.Now per look-up, no goroutine
	s.flights = make(map[digest.Digest]*flight)
}

func (s *shard) get(key *digest.Digest) *record {
	v, _ := s.items.Get(key.Text())
	r, _ := v.(*record)
	return r
}

// open returns the entry of a remembered token and puts it into the hot set; nil if it is not remembered, or Config.Claims refuses it
// by now.
func (s *shard) open(key *digest.Digest, now time.Time) *Entry {
	s.mu.Lock()
	e, r := s.hotset.find(key), s.get(key)
	s.mu.Unlock()
	if e != nil || r == nil { // e: by now
		return e
	}
	e, err := s.cache.entry(r.token())
	if err != nil {
		s.forget(r)
		return nil
	}
	e.record = r

	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.hotset.find(key); other != nil { // others came with the token, too
		return other
	}
	r.use() // and so it is hardly the one that makes room for itself
	if place := s.hotset.place(key); s.makeRoom(0, e.size(), now) && s.get(key) == r {
		s.hotset.put(place, e)
	}
	return e
}

// join returns the flight for key, and whether the caller leads it. It removes the record that the caller has found dead,
// if there was one; if there is another one by now, the flight is nil.
func (s *shard) join(key digest.Digest, dead *Entry) (f *flight, leads bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r := s.get(&key); {
	case r == nil:
	case dead != nil && r == dead.record:
		s.remove(r)
	default:
		return nil, false
	}
	if f = s.flights[key]; f != nil {
		if f.done == nil {
			f.done = make(chan struct{})
		}
		return f, false
	}
	f = new(flight)
	s.flights[key] = f
	return f, true
}

// land ends f. Its entry is remembered as r, unless that is nil or a purge has taken f out of the table.
func (s *shard) land(key digest.Digest, f *flight, r *record, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flights[key] == f {
		delete(s.flights, key)
		if r != nil {
			s.insert(r, f.entry, now)
		}
	}
	if r != nil && f.entry.record == nil { // those who wait for f may rely on it no longer than on a remembered one
		fields := f.entry.Token.Fields()
		fields.Freshness.Until = r.at(until)
		f.entry.Token = valetkey.NewToken(fields)
	}
	if f.done != nil { // nobody comes to wait any more: f is in no table
		close(f.done)
	}
}

// insert stores r, if there is room, and makes e its entry.
func (s *shard) insert(r *record, e *Entry, now time.Time) {
	s.sweep(&s.probation, now)
	s.sweep(&s.protected, now)
	r.kind = s.kinds.take(e.Token)
	fits := int64(r.bytes)+r.kind.bytes+e.size() <= s.maxBytes // also in the hot set, later
	if !fits || !s.makeRoom(1, int64(r.bytes), now) {
		s.kinds.drop(r.kind)
		return
	}
	if s.isGhost(&r.key) {
		r.state.Or(protected)
	}
	s.items.Set(r.key.Text(), r, gocache.NoExpiration)
	s.queueOf(r).push(r)
	e.Token, e.record = r.token(), r
}

func (s *shard) sweep(q *queue, now time.Time) {
	for range sweepSteps {
		if q.oldest != nil && q.oldest.expired(now) {
			s.remove(q.oldest)
		}
	}
}

// makeRoom reports whether so much more fits, and evicts for it.
func (s *shard) makeRoom(entries int, bytes int64, now time.Time) bool {
	for step := 0; s.entries()+entries > s.maxEntries || s.bytes()+bytes > s.maxBytes; step++ {
		if step == roomSteps {
			return false
		}
		// Probation has a tenth, by number and by bytes: large tokens that come only once must not do what many cannot.
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

// addGhost notes key in the ghost table, at one of four places. At random: with one place for each key, two tokens in
// use that share it would wipe each other out for ever.
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

// startPurge returns all records and takes the flights out of their table: they end without being stored.
func (s *shard) startPurge() []*record {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights = make(map[digest.Digest]*flight)
	all := make([]*record, 0, s.entries())
	for _, q := range []*queue{&s.probation, &s.protected} {
		for r := q.oldest; r != nil; r = r.newer {
			all = append(all, r)
		}
	}
	return all
}

// forget removes r if it is still there, and reports whether it was.
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
