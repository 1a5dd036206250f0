package store

import (
	"container/heap"
	"container/list"
	"time"
)

// A shelf holds the records of one kind.
type shelf struct {
	records map[string]*entry
	index   index
	ends    ends
	owners  map[string]*owner // of entries that may be dropped
	most    owners            // the same owners, as a heap
}

// An owner has entries that may be dropped.
type owner struct {
	name  string
	ages  *list.List // least recently written first; not empty
	place int        // index in most
}

// An entry is a record on a shelf.
type entry struct {
	Record
	end int           // its index in ends, if it expires
	age *list.Element // in the ages of its owner; nil: it must be kept
	of  *owner
}

func newShelf() *shelf {
	return &shelf{records: map[string]*entry{}, owners: map[string]*owner{}}
}

// live returns the record, or nil if there is none or it has expired.
func (s *shelf) live(id string, now time.Time) *entry {
	if e := s.records[id]; e != nil && !e.expired(now) {
		return e
	}
	return nil
}

func (s *shelf) add(r Record) {
	drop, name := r.MayDrop && !r.Expires.IsZero(), r.Owner
	r.MayDrop, r.Owner = false, "" // not stored
	e := &entry{Record: r}
	s.records[r.ID] = e
	s.index.add(place{id: r.ID}, e)
	for _, k := range r.Keys {
		s.index.add(place{k, r.ID}, e)
	}
	if !r.Expires.IsZero() {
		heap.Push(&s.ends, e)
	}
	if !drop {
		return
	}
	e.of = s.owners[name]
	if e.of == nil {
		e.of = &owner{name: name, ages: list.New()}
		s.owners[name] = e.of
		e.age = e.of.ages.PushBack(e)
		heap.Push(&s.most, e.of)
		return
	}
	e.age = e.of.ages.PushBack(e)
	heap.Fix(&s.most, e.of.place)
}

func (s *shelf) remove(e *entry) {
	delete(s.records, e.ID)
	s.index.remove(place{id: e.ID})
	for _, k := range e.Keys {
		s.index.remove(place{k, e.ID})
	}
	if !e.Expires.IsZero() {
		heap.Remove(&s.ends, e.end)
	}
	if e.age == nil {
		return
	}
	if e.of.ages.Len() == 1 { // before it is empty: the heap compares entries
		heap.Remove(&s.most, e.of.place)
		delete(s.owners, e.of.name)
		return
	}
	e.of.ages.Remove(e.age)
	heap.Fix(&s.most, e.of.place)
}

// sweep removes expired records.
func (s *shelf) sweep(now time.Time) (n int) {
	for ; len(s.ends) > 0 && s.ends[0].expired(now); n++ {
		s.remove(s.ends[0])
	}
	return n
}

// shrink makes room for one more record under the limit, and reports whether it succeeded.
func (s *shelf) shrink(limit int, now time.Time) bool {
	if len(s.records) < limit {
		return true
	}
	if s.sweep(now) > 0 {
		return true
	}
	if len(s.most) == 0 {
		return false
	}
	s.remove(s.most[0].oldest())
	return true
}

func (o *owner) oldest() *entry { return o.ages.Front().Value.(*entry) }

// owners is a heap with the owner that has the most entries on top. Of several, it is the one whose oldest entry is the oldest.
type owners []*owner

func (h owners) Len() int { return len(h) }

func (h owners) Less(i, j int) bool {
	if a, b := h[i].ages.Len(), h[j].ages.Len(); a != b {
		return a > b
	}
	return h[i].oldest().Version < h[j].oldest().Version
}

func (h owners) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *owners) Push(o any) {
	o.(*owner).place = len(*h)
	*h = append(*h, o.(*owner))
}

func (h *owners) Pop() any {
	last := len(*h) - 1
	o := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return o
}

// ends is a heap of the entries that expire, with the next one to expire on top.
type ends []*entry

func (h ends) Len() int           { return len(h) }
func (h ends) Less(i, j int) bool { return h[i].Expires.Before(h[j].Expires) }

func (h ends) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].end, h[j].end = i, j
}

func (h *ends) Push(e any) {
	e.(*entry).end = len(*h)
	*h = append(*h, e.(*entry))
}

func (h *ends) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
