package tokencache

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"sync/atomic"

	"github.com/valetkey/valetkey/internal/digest"
)

// A hotset holds the entries of tokens in use, so that a hit neither locks nor allocates. If an entry is removed to make room, it
// is recreated from its record when its token is used next.
type hotset struct {
	sets [][places]atomic.Pointer[Entry] // a power of two; written only under the shard's lock
	size int64                           // of the entries; guarded by that lock
}

const (
	places        = 4   // slots for an entry: with one slot, two tokens in use could displace each other repeatedly
	hotsetEntries = 256 // maximum per hot set; there are at most maxShards hot sets
)

// init sizes the hot set for at most a quarter of the shard.
func (d *hotset) init(entries, bytes int64) {
	sets := max(1, min(entries/4, bytes/4/entryBytes, hotsetEntries)/places)
	d.sets = make([][places]atomic.Pointer[Entry], 1<<(bits.Len64(uint64(sets))-1))
}

func (d *hotset) set(key *digest.Digest) *[places]atomic.Pointer[Entry] {
	return &d.sets[binary.LittleEndian.Uint32(key[4:8])&uint32(len(d.sets)-1)]
}

func (d *hotset) find(key *digest.Digest) *Entry {
	set := d.set(key)
	for i := range set {
		if e := set[i].Load(); e != nil && e.record.key == *key {
			return e
		}
	}
	return nil
}

// place returns a free slot for key. If there is none, it removes another entry.
func (d *hotset) place(key *digest.Digest) *atomic.Pointer[Entry] {
	set := d.set(key)
	for i := range set {
		if set[i].Load() == nil {
			return &set[i]
		}
	}
	p := &set[rand.IntN(places)]
	d.size -= p.Load().size()
	p.Store(nil)
	return p
}

func (d *hotset) put(place *atomic.Pointer[Entry], e *Entry) {
	place.Store(e)
	d.size += e.size()
}

// remove removes the entry of r, if it is here, because an entry without a record in the cache must not be found.
func (d *hotset) remove(r *record) {
	set := d.set(&r.key)
	for i := range set {
		if e := set[i].Load(); e != nil && e.record == r {
			set[i].Store(nil)
			d.size -= e.size()
		}
	}
}
