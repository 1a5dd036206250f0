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
)

// A shard is a cache of its own with a share of the bounds.
//
// A new entry stands in the probation queue. When room is needed, the oldest there is forgotten unless it was used since;
// then it moves to the protected queue, whose own oldest is forgotten only once probation is small, and gets another
// round if it was used. So tokens that come only once pass through a tenth of the shard and leave the rest alone. One
// that comes back soon after it was forgotten, which the ghost table knows, is protected at once. This is the idea of
// S3-FIFO (Yang et al., SOSP 2023): a hit moves nothing and locks nothing but go-cache's own reader lock.
type shard struct {
	maxEntries int
	maxBytes   int64

	items *gocache.Cache // digest.text() to *Entry; written under mu only

	mu        sync.Mutex // guards what follows; no foreign code is called under it
	probation queue
	protected queue
	ghosts    [][4]uint32        // fingerprints of evicted tokens; nil until the first
	flights   map[digest]*flight // verifications under way; no key stands in items too
	evictions uint64

	hits, misses atomic.Uint64
	_            [64]byte // the neighbour's counters are on another cache line
}

// Bounds on the work of one insertion.
const (
	sweepSteps = 2  // the oldest of each queue that are looked at for expiry: more than one, so sweeping catches up
	roomSteps  = 64 // entries looked at to make room; an entry that needs more is not stored
	chances    = 16 // of these, so many may be spared because they were used
)

func (s *shard) init(entries, bytes int64) {
	s.maxEntries, s.maxBytes = int(entries), bytes
	s.items = gocache.New(gocache.NoExpiration, 0) // expiry is ours: no time.Now per look-up, no goroutine
	s.flights = make(map[digest]*flight)
}

func (s *shard) get(key *digest) *Entry {
	v, _ := s.items.Get(key.text())
	e, _ := v.(*Entry)
	return e
}

// join returns the flight for key, and whether the caller leads it. It removes the entry that the caller has found dead,
// if there was one; if there is another one by now, the flight is nil.
func (s *shard) join(key digest, dead *Entry) (f *flight, leads bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e := s.get(&key); {
	case e == nil:
	case e == dead:
		s.remove(e)
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

// land ends f. Its entry is stored if keep is true and no purge has taken f out of the table.
func (s *shard) land(key digest, f *flight, keep bool, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flights[key] == f {
		delete(s.flights, key)
		if keep {
			s.insert(f.entry, now)
		}
	}
	if f.done != nil { // nobody comes to wait any more: f is in no table
		close(f.done)
	}
}

func (s *shard) insert(e *Entry, now time.Time) {
	s.sweep(&s.probation, now)
	s.sweep(&s.protected, now)
	if !s.makeRoom(int64(e.bytes), now) {
		return
	}
	if s.isGhost(&e.key) {
		e.state.Or(protected)
	}
	s.items.Set(e.key.text(), e, gocache.NoExpiration)
	s.queueOf(e).push(e)
}

func (s *shard) sweep(q *queue, now time.Time) {
	for range sweepSteps {
		if q.oldest != nil && q.oldest.expired(now) {
			s.remove(q.oldest)
		}
	}
}

// makeRoom reports whether an entry of so many bytes fits, and evicts others for it.
func (s *shard) makeRoom(bytes int64, now time.Time) bool {
	if bytes > s.maxBytes {
		return false
	}
	for step := 0; s.entries() == s.maxEntries || s.bytes()+bytes > s.maxBytes; step++ {
		if step == roomSteps {
			return false
		}
		// Probation has a tenth, by number and by bytes: large tokens that come only once must not do what many cannot.
		q := &s.protected
		if 10*s.probation.entries >= s.entries() || 10*s.probation.bytes >= s.bytes() {
			q = &s.probation
		}
		e := q.oldest
		switch {
		case e.expired(now):
			s.remove(e)
		case step < chances && e.state.Load()&used != 0:
			q.remove(e)
			e.state.Store(protected)
			s.protected.push(e)
		default:
			s.remove(e)
			s.evictions++
			s.addGhost(&e.key)
		}
	}
	return true
}

func (s *shard) entries() int { return s.probation.entries + s.protected.entries }
func (s *shard) bytes() int64 { return s.probation.bytes + s.protected.bytes }

func (s *shard) queueOf(e *Entry) *queue {
	if e.state.Load()&protected != 0 {
		return &s.protected
	}
	return &s.probation
}

func (s *shard) remove(e *Entry) {
	s.items.Delete(e.key.text())
	s.queueOf(e).remove(e)
}

// addGhost notes key in the ghost table, at one of four places. At random: with one place for each key, two tokens in
// use that share it would wipe each other out for ever.
func (s *shard) addGhost(key *digest) {
	if s.ghosts == nil {
		n := min(s.maxEntries, int(s.maxBytes/512), 1<<14)
		s.ghosts = make([][4]uint32, 1<<bits.Len(uint(n/4)))
	}
	s.ghostsNear(key)[rand.IntN(4)] = fingerprint(key)
}

func (s *shard) isGhost(key *digest) bool {
	return s.ghosts != nil && slices.Contains(s.ghostsNear(key)[:], fingerprint(key))
}

func (s *shard) ghostsNear(key *digest) *[4]uint32 {
	return &s.ghosts[binary.LittleEndian.Uint32(key[8:12])&uint32(len(s.ghosts)-1)]
}

func fingerprint(key *digest) uint32 { return binary.LittleEndian.Uint32(key[12:]) }

// startPurge returns all entries and takes the flights out of their table: they end without being stored.
func (s *shard) startPurge() []*Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights = make(map[digest]*flight)
	all := make([]*Entry, 0, s.entries())
	for _, q := range []*queue{&s.probation, &s.protected} {
		for e := q.oldest; e != nil; e = e.newer {
			all = append(all, e)
		}
	}
	return all
}

// forget removes e if it is still there, and reports whether it was.
func (s *shard) forget(e *Entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.get(&e.key) != e {
		return false
	}
	s.remove(e)
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
