package store

import (
	"cmp"
	"math/bits"
	"math/rand/v2"
)

// An index is the ordered set of the places of the records of a kind. It is a skip list: the time to add, remove and seek grows
// with the logarithm of its size. The zero value is empty.
type index struct {
	head [maxHeight]*node // the first node of each height
}

// A place is where a record is found: under each of its keys, and under the empty key.
type place struct {
	key Key
	id  string
}

type node struct {
	place
	entry *entry
	next  []*node // at each height that the node has
}

const maxHeight = 20 // enough for a million places, as each height has half the nodes of the one below

func (p place) compare(o place) int {
	return cmp.Or(compareKeys(p.key, o.key), cmp.Compare(p.id, o.id))
}

// before returns, for each height, the first node that is not before p, and the slice that holds the pointer to it.
func (x *index) before(p place) (links [maxHeight]*node, pointers [maxHeight][]*node) {
	at := x.head[:]
	for h := maxHeight - 1; h >= 0; h-- {
		for at[h] != nil && at[h].compare(p) < 0 {
			at = at[h].next
		}
		links[h], pointers[h] = at[h], at
	}
	return links, pointers
}

// add inserts e at p, which must be vacant.
func (x *index) add(p place, e *entry) {
	height := min(1+bits.TrailingZeros64(rand.Uint64()), maxHeight)
	next, pointers := x.before(p)
	n := &node{place: p, entry: e, next: make([]*node, height)}
	for h := range height {
		n.next[h] = next[h]
		pointers[h][h] = n
	}
}

func (x *index) remove(p place) {
	found, pointers := x.before(p)
	for h, n := range found {
		if n != nil && n.compare(p) == 0 {
			pointers[h][h] = n.next[h]
		}
	}
}

// after returns the first node after p, or nil.
func (x *index) after(p place) *node {
	p.id += "\x00" // the smallest string that is greater
	links, _ := x.before(p)
	return links[0]
}
