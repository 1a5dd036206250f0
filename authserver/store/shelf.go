package store

import (
	"container/heap"
	"container/list"
	"time"
)

// A shelf has the records of one kind.
type shelf struct {
	records map[string]*entry
	index   index
	ends    ends
	ages    *list.List // of the entries that may be dropped, the longest unwritten first
}

// An entry is a record on a shelf.
type entry struct {
	Record
	end int           // its place in ends, if it expires
	age *list.Element // nil: it must be kept
}

func newShelf() *shelf {
	return &shelf{records: map[string]*entry{}, ages: list.New()}
}

// live returns the record, or nil if there is none that has not expired.
func (s *shelf) live(id string, now time.Time) *entry {
	if e := s.records[id]; e != nil && !e.expired(now) {
		return e
	}
	return nil
}

func (s *shelf) add(r Record) {
	drop := r.MayDrop && !r.Expires.IsZero()
	r.MayDrop = false // which is not stored
	e := &entry{Record: r}
	s.records[r.ID] = e
	s.index.add(place{id: r.ID}, e)
	for _, k := range r.Keys {
		s.index.add(place{k, r.ID}, e)
	}
	if !r.Expires.IsZero() {
		heap.Push(&s.ends, e)
	}
	if drop {
		e.age = s.ages.PushBack(e)
	}
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
	if e.age != nil {
		s.ages.Remove(e.age)
	}
}

// sweep removes the records that have expired.
func (s *shelf) sweep(now time.Time) (n int) {
	for ; len(s.ends) > 0 && s.ends[0].expired(now); n++ {
		s.remove(s.ends[0])
	}
	return n
}

// shrink makes room for one more record where limit is the most, and reports whether it could.
func (s *shelf) shrink(limit int, now time.Time) bool {
	if len(s.records) < limit {
		return true
	}
	if s.sweep(now) > 0 {
		return true
	}
	oldest := s.ages.Front()
	if oldest == nil {
		return false
	}
	s.remove(oldest.Value.(*entry))
	return true
}

// ends is a heap of the entries that expire, the next to do so on top.
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
