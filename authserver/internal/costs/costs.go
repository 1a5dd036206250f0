// Package costs counts what requests cause in a store, for tests of who may cause how much.
package costs

import (
	"context"
	"sync"

	"github.com/valetkey/valetkey/authserver/store"
)

// A Cost is what has been asked of a store.
type Cost struct {
	Reads  int // Get and Find
	Writes int // Put and Delete, also those that failed
	Bytes  int // of the ids, keys and values that were put
}

// A Counter counts what is asked of the store behind it. It is safe for concurrent use.
type Counter struct {
	store.Store

	mu        sync.Mutex
	cost      Cost
	beforePut func(store.Record)
}

// Of returns the cost of what do does. No other request may be under way.
func (c *Counter) Of(do func()) Cost {
	c.mu.Lock()
	c.cost = Cost{}
	c.mu.Unlock()
	do()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cost
}

// BeforePut has f called before each Put; nil: nothing is called.
func (c *Counter) BeforePut(f func(store.Record)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beforePut = f
}

func (c *Counter) add(more Cost) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cost.Reads += more.Reads
	c.cost.Writes += more.Writes
	c.cost.Bytes += more.Bytes
}

// Get implements [store.Store].
func (c *Counter) Get(ctx context.Context, kind, id string) (store.Record, error) {
	c.add(Cost{Reads: 1})
	return c.Store.Get(ctx, kind, id)
}

// Find implements [store.Store].
func (c *Counter) Find(ctx context.Context, kind string, key store.Key, after string, limit int) ([]store.Record, error) {
	c.add(Cost{Reads: 1})
	return c.Store.Find(ctx, kind, key, after, limit)
}

// Put implements [store.Store].
func (c *Counter) Put(ctx context.Context, r store.Record) (int64, error) {
	size := len(r.ID) + len(r.Value)
	for _, k := range r.Keys {
		size += len(k.Value)
	}
	c.add(Cost{Writes: 1, Bytes: size})
	c.mu.Lock()
	before := c.beforePut
	c.mu.Unlock()
	if before != nil {
		before(r)
	}
	return c.Store.Put(ctx, r)
}

// Delete implements [store.Store].
func (c *Counter) Delete(ctx context.Context, kind, id string) error {
	c.add(Cost{Writes: 1})
	return c.Store.Delete(ctx, kind, id)
}
