package tokencache

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"sync/atomic"

	"github.com/valetkey/valetkey/internal/digest"
)

// A hotset is where the entries of tokens in use lie ready, so that a hit neither locks nor allocates. One that is taken
// off to make place is made again from its record when its token comes next.
type hotset struct {
	sets [][places]atomic.Pointer[Entry] // a power of two; written under the shard's lock only
	size int64                           // of the entries; guarded by that lock
}

const (
	places        = 4   // where one entry may lie: with a single one, two tokens in use would take it from each other
	hotsetEntries = 256 // the most in one hot set, of which there are maxShards
)

// init makes a hot set for a quarter of the shard at most.
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

// place returns a free place for key, and takes another entry off if there is none.
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

// remove takes the entry of r off, if it lies here: one that is forgotten must not be found.
func (d *hotset) remove(r *record) {
	set := d.set(&r.key)
	for i := range set {
		if e := set[i].Load(); e != nil && e.record == r {
			set[i].Store(nil)
			d.size -= e.size()
		}
	}
}
