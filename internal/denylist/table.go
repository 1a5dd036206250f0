package denylist

import (
	"encoding/binary"
	"math/bits"
	"time"

	"github.com/valetkey/valetkey/internal/digest"
)

// A table holds the digests of token IDs with the minute in which each ends, in slots of 20 bytes. Open addressing takes half the
// memory of a Go map. The table grows segment by segment, so that an insertion moves at most one segment.
type table struct {
	segments []segment
	n        int   // entries, including ended ones
	bytes    int64 // of all slots
	max      int64
}

type segment struct {
	slots    []slot
	n        int
	earliest minute // no entry ends before this
}

type slot struct {
	key digest.Digest
	end minute // zero: the slot is free
}

const (
	slotBytes   = 20
	maxSegments = 256
	minSegment  = 64 << 10 // bytes
	minSlots    = 16
)

func (t *table) init(bytes int64) {
	t.max = bytes
	t.segments = make([]segment, min(max(bytes/minSegment, 1), maxSegments))
}

func (t *table) segment(key *digest.Digest) *segment {
	i, _ := bits.Mul64(binary.LittleEndian.Uint64(key[:8]), uint64(len(t.segments)))
	return &t.segments[i]
}

// find returns the slot of key, or a free one.
func (s *segment) find(key *digest.Digest) *slot {
	i, _ := bits.Mul64(binary.LittleEndian.Uint64(key[8:]), uint64(len(s.slots)))
	for ; ; i++ {
		if i >= uint64(len(s.slots)) {
			i = 0
		}
		if at := &s.slots[i]; at.end == 0 || at.key == *key {
			return at
		}
	}
}

func (t *table) get(key digest.Digest) (end minute, ok bool) {
	s := t.segment(&key)
	if s.n == 0 {
		return 0, false
	}
	at := s.find(&key)
	return at.end, at.end != 0
}

// put adds key until end. An existing entry keeps the later end. put returns false if there is no room.
func (t *table) put(key digest.Digest, end minute, now time.Time) bool {
	s := t.segment(&key)
	if s.n > 0 {
		if at := s.find(&key); at.end != 0 {
			at.end = max(at.end, end)
			return true
		}
	}
	if s.full() && !t.makeRoom(s, now) {
		return false
	}
	if s.n == 0 || end < s.earliest {
		s.earliest = end
	}
	*s.find(&key) = slot{key, end}
	s.n++
	t.n++
	return true
}

// full reports whether one more entry would leave less than an eighth of the slots free, which would slow down searches.
func (s *segment) full() bool { return 8*(s.n+1) > 7*len(s.slots) }

// makeRoom removes the ended entries of s, or grows s. It returns false if there is no room. It scans for ended entries at most
// once a minute. It grows s by a quarter, so that the amortized cost of the moves is constant.
func (t *table) makeRoom(s *segment, now time.Time) bool {
	if s.n > 0 && s.earliest.over(now) {
		live := 0
		for i := range s.slots {
			if end := s.slots[i].end; end != 0 && !end.over(now) {
				live++
			}
		}
		t.rebuild(s, min(max(live*3/2, minSlots), len(s.slots)), now)
		if !s.full() {
			return true
		}
	}
	size := max(len(s.slots)*5/4, minSlots)
	if t.bytes+int64(size-len(s.slots))*slotBytes > t.max {
		return false
	}
	t.rebuild(s, size, now)
	return true
}

// rebuild moves the entries that have not ended into size slots.
func (t *table) rebuild(s *segment, size int, now time.Time) {
	old := s.slots
	t.n -= s.n
	t.bytes += int64(size-len(old)) * slotBytes
	*s = segment{slots: make([]slot, size), earliest: forever}
	for i := range old {
		if at := &old[i]; at.end != 0 && !at.end.over(now) {
			*s.find(&at.key) = *at
			s.n++
			s.earliest = min(s.earliest, at.end)
		}
	}
	t.n += s.n
}
