package web

import (
	"sync"
	"sync/atomic"
)

// Current holds the configuration in use. Each request uses the newest one when it begins, and keeps it until it ends. A replaced
// configuration is closed when its last request has ended. All methods are safe for concurrent use.
type Current[T interface{ Close() }] struct {
	newest atomic.Pointer[Use[T]]

	mu      sync.Mutex // guards what follows
	closing int        // calls of Close of a configuration
	closed  sync.Cond  // one of them has returned
}

// A Use is a configuration that is in use.
type Use[T interface{ Close() }] struct {
	Value   T
	current *Current[T]
	users   atomic.Int64 // requests, and 1 while it is the newest; it does not rise from 0 again
}

// NewCurrent returns a Current that begins with value.
func NewCurrent[T interface{ Close() }](value T) *Current[T] {
	c := new(Current[T])
	c.closed.L = &c.mu
	c.newest.Store(c.use(value))
	return c
}

func (c *Current[T]) use(value T) *Use[T] {
	u := &Use[T]{Value: value, current: c}
	u.users.Store(1)
	return u
}

// Get returns the newest configuration. The caller must call its Done. It does not allocate.
func (c *Current[T]) Get() *Use[T] {
	for {
		u := c.newest.Load()
		for n := u.users.Load(); n > 0; n = u.users.Load() {
			if u.users.CompareAndSwap(n, n+1) {
				return u
			}
		}
		// It was replaced and closed between the two loads.
	}
}

// Done ends a use of the configuration.
func (u *Use[T]) Done() {
	if u.users.Add(-1) > 0 {
		return
	}
	c := u.current
	c.mu.Lock()
	c.closing++
	c.mu.Unlock()
	go func() { // not on the way of a request: closing may wait for calls to issuers
		u.Value.Close()
		c.mu.Lock()
		c.closing--
		c.mu.Unlock()
		c.closed.Broadcast()
	}()
}

// Replace puts next into use for all later requests.
func (c *Current[T]) Replace(next T) { c.newest.Swap(c.use(next)).Done() }

// Close closes the newest configuration, unless a request that has been cut off still uses it, and waits until no configuration is
// being closed. No further request may begin.
func (c *Current[T]) Close() {
	c.newest.Load().Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.closing > 0 {
		c.closed.Wait()
	}
}
