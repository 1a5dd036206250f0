package denylist

import (
	"encoding/binary"
	"time"

	"github.com/valetkey/valetkey/internal/digest"
)

// An overflow holds the denials that exceed the limits, in Bloom filters: one for each time window in which denials end, and one
// for denials that end later. A filter is cleared when all its denials have ended, so the overflow is temporary.
//
// The filters never grow. A filter with 500,000 denials matches one in 2,500 of the other IDs. With more denials it matches more,
// up to all. Each match is a token that gets 503 instead of 200.
type overflow struct {
	filters [windows + 1]filter
}

type filter struct {
	bits []uint64 // nil until needed
	n    int      // number of denials
	end  minute   // the end of the last denial
}

const (
	windows    = 4
	window     = 8 * 60  // minutes
	filterBits = 8 << 20 // 1 MiB
	hashes     = 8
)

func (o *overflow) put(key digest.Digest, end minute, now time.Time) {
	f, last := &o.filters[windows], end
	if w := (uint64(end) + window - 1) / window; w <= uint64(now.Unix()/60/window)+windows {
		f, last = &o.filters[w%windows], minute(w*window)
	}
	if f.n > 0 && f.end.over(now) {
		clear(f.bits)
		f.n, f.end = 0, 0
	}
	if f.bits == nil {
		f.bits = make([]uint64, filterBits/64)
	}
	if last > f.end {
		f.end = last
	}
	if !f.has(key) {
		f.n++
	}
	for i := range uint64(hashes) {
		b := f.bit(&key, i)
		f.bits[b/64] |= 1 << (b % 64)
	}
}

func (f *filter) bit(key *digest.Digest, i uint64) uint64 {
	first, step := binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:])|1
	return (first + i*step) % filterBits
}

func (f *filter) has(key digest.Digest) bool {
	for i := range uint64(hashes) {
		if b := f.bit(&key, i); f.bits[b/64]&(1<<(b%64)) == 0 {
			return false
		}
	}
	return true
}

// get reports whether key may be in a filter, and when that filter ends.
func (o *overflow) get(key digest.Digest, now time.Time) (end minute, ok bool) {
	for i := range o.filters {
		if f := &o.filters[i]; f.n > 0 && !f.end.over(now) && f.has(key) {
			end, ok = max(end, f.end), true
		}
	}
	return end, ok
}

// len returns the approximate number of denials in force.
func (o *overflow) len(now time.Time) (n int) {
	for i := range o.filters {
		if f := &o.filters[i]; !f.end.over(now) {
			n += f.n
		}
	}
	return n
}
