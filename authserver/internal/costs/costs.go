// Package costs counts the store operations that requests cause, for tests of who may cause how many.
package costs

import (
	"context"
	"sync"

	"github.com/valetkey/valetkey/authserver/store"
)

// A Cost is a number of store operations.
type Cost struct {
	Reads  int // Get and Find
	Writes int // Put and Delete, including those that failed
	Bytes  int // of the IDs, keys and values passed to Put
}

// A Counter counts the operations on the store behind it. It is safe for concurrent use.
type Counter struct {
	store.Store

	mu        sync.Mutex
	cost      Cost
	beforePut func(store.Record)
}

// Of returns the cost of do. No other request may be in progress.
func (c *Counter) Of(do func()) Cost {
	c.mu.Lock()
	c.cost = Cost{}
	c.mu.Unlock()
	do()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cost
}

// BeforePut registers f to be called before each Put. Nil removes it.
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
