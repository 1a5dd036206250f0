package refresh

import (
	"maps"
	"slices"
	"sync"
)

// A Pool holds the documents of many URLs. It is safe for concurrent use and must be closed, unless all documents are WhileUsed:
// these end by themselves. Their own Close is not called.
type Pool[T any] struct {
	most   int
	config func(url string) Config[T]
	life   *life

	mu     sync.Mutex // guards what follows
	held   map[string]*Document[T]
	turn   uint64 // counts calls of Get
	closed bool
}

// NewPool returns a pool of at most most documents, which config describes. The senders of tokens choose the URLs, within what the
// caller allows: a new one evicts the document that was used least recently, and whoever needs that one waits for another fetch.
func NewPool[T any](most int, config func(url string) Config[T]) *Pool[T] {
	return &Pool[T]{most: most, config: config, life: newLife(), held: map[string]*Document[T]{}}
}

// Get returns the document of url, and notes its use. After Close it is a closed one.
func (p *Pool[T]) Get(url string) *Document[T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.held[url]
	if d == nil {
		d = open(p.config(url), p.life)
		if p.closed {
			d.drop()
			return d
		}
		if len(p.held) >= p.most {
			p.evict()
		}
		p.held[url] = d
	}
	p.turn++
	d.turn = p.turn
	return d
}

// evict drops the document that was used least recently. Of Use only whether it was called since the last fetch is known.
func (p *Pool[T]) evict() {
	var url string
	var oldest *Document[T]
	for u, d := range p.held {
		if oldest == nil || d.olderThan(oldest) {
			url, oldest = u, d
		}
	}
	delete(p.held, url)
	oldest.drop()
}

func (d *Document[T]) olderThan(o *Document[T]) bool {
	if used := d.used.Load(); used != o.used.Load() {
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

// Purge drops all documents: their snapshots are discarded, and Get returns others.
func (p *Pool[T]) Purge() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.held {
		d.drop()
	}
	clear(p.held)
}

// Close purges the pool, ends the fetches in progress and waits for them. It may be called more than once.
func (p *Pool[T]) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Purge()
	p.life.end()
}
