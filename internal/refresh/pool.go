package refresh

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Pool holds the documents of many URLs. It is safe for concurrent use and must be closed, unless all documents are
// WhileUsed: these stop by themselves. Do not call Close on the documents.
type Pool[T any] struct {
	most   int
	config func(url string) Config[T]
	life   *life

	mu      sync.Mutex // guards what follows
	held    map[place]*Document[T]
	owned   map[string]int      // number of held documents of each owner
	evicted map[place]time.Time // the credit of evicted documents, see [Document.demand], while it limits fetches
	turn    uint64              // counts calls of Get
	closed  bool
}

// A place identifies a document. Each owner of a URL has a separate document, so that others cannot evict it.
type place struct{ owner, url string }

// NewPool returns a pool of at most most documents, which config describes. The senders of tokens choose the URLs, within the
// limits of the caller. A new document evicts one of the owner that has the most, counting the new one, so that an owner
// cannot evict the documents of another that has fewer. Of these, a document that has not been used for a while is evicted
// first, or else the one that Get returned least recently. A caller that needs the evicted document waits for another fetch,
// which MinRefetchInterval limits as if it had not been evicted.
//
// The pool retains the limits of at most as many evicted documents, and drops the one that ends first. Evicting more
// documents than that within MinRefetchInterval, all of one owner, can therefore cause fetches without that limit.
func NewPool[T any](most int, config func(url string) Config[T]) *Pool[T] {
	return &Pool[T]{
		most: most, config: config, life: newLife(), held: map[place]*Document[T]{}, owned: map[string]int{}, evicted: map[place]time.Time{},
	}
}

// Get returns the document of url and marks it as the most recently requested. All documents of the pool must then have one
// owner. After Close, it returns a closed document.
func (p *Pool[T]) Get(url string) *Document[T] { return p.GetFor("", url) }

// GetFor does the same as Get for a document of owner.
func (p *Pool[T]) GetFor(owner, url string) *Document[T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := place{owner, url}
	d := p.held[at]
	if d == nil {
		d = open(p.config(url), p.life)
		if p.closed {
			d.drop()
			return d
		}
		d.credit = p.evicted[at]
		delete(p.evicted, at)
		p.owned[owner]++
		if len(p.held) >= p.most {
			p.evict()
		}
		p.held[at] = d
	}
	p.turn++
	d.turn = p.turn
	return d
}

// Find returns the document of url and marks it as Get does, or returns nil if the pool does not have it.
func (p *Pool[T]) Find(url string) *Document[T] { return p.FindFor("", url) }

// FindFor does the same as Find for a document of owner.
func (p *Pool[T]) FindFor(owner, url string) *Document[T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.held[place{owner, url}]
	if d != nil {
		p.turn++
		d.turn = p.turn
	}
	return d
}

// evict drops the least recently used document of the owner that has the most.
func (p *Pool[T]) evict() {
	most := 0
	for at := range p.held {
		most = max(most, p.owned[at.owner])
	}
	var gone place
	var oldest *Document[T]
	now := time.Now()
	for at, d := range p.held {
		if p.owned[at.owner] == most && (oldest == nil || d.olderThan(oldest, now)) {
			gone, oldest = at, d
		}
	}
	delete(p.held, gone)
	if p.owned[gone.owner]--; p.owned[gone.owner] == 0 {
		delete(p.owned, gone.owner)
	}
	oldest.drop()
	p.limit(gone, oldest.limited(), now)
}

// limit stores the credit of an evicted document.
func (p *Pool[T]) limit(gone place, credit, now time.Time) {
	if !credit.After(now) {
		return
	}
	if len(p.evicted) >= p.most {
		var first place
		for at, end := range p.evicted {
			if !end.After(now) {
				delete(p.evicted, at)
			} else if first == (place{}) || end.Before(p.evicted[first]) {
				first = at
			}
		}
		if len(p.evicted) >= p.most {
			delete(p.evicted, first)
		}
	}
	p.evicted[gone] = credit
}

// usedRecently is how long a document counts as used after its use was recorded. A fetch resets that record, and fetches are
// frequent while they fail.
const usedRecently = 10 * time.Minute

func (d *Document[T]) olderThan(o *Document[T], now time.Time) bool {
	recently := func(d *Document[T]) bool {
		return d.used.Load() || now.UnixNano()-d.usedAt.Load() < int64(usedRecently)
	}
	if used := recently(d); used != recently(o) {
		return !used
	}
	return d.turn < o.turn
}

// All returns the documents of the pool.
func (p *Pool[T]) All() []*Document[T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.held))
}

// Purge drops all documents: their snapshots are discarded, and Get returns new documents.
func (p *Pool[T]) Purge() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.held {
		d.drop()
	}
	clear(p.held)
	clear(p.owned)
}

// Close purges the pool, ends the fetches in progress and waits for them. It may be called more than once.
func (p *Pool[T]) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Purge()
	p.life.end()
}
