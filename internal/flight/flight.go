// Package flight lets concurrent calls that need the same result share the work for it (single flight).
package flight

// A Table holds the flights that calls may join. Its owner guards it with a lock and bounds it; [Flight.Done] needs no lock. Deleting
// a flight from the table keeps later calls from joining it, and does not end it.
type Table[K comparable, R any] map[K]*Flight[K, R]

// A Flight is work in progress. Its owner does it in whatever goroutine and context suit it.
type Flight[K comparable, R any] struct {
	// Result is set by the owner before it lands the flight. It must not be read before Done is closed.
	Result R

	key  K
	done chan struct{} // nil while no call has joined
}

// Join returns the flight for key, so that the caller can wait for it, or nil if there is none.
func (t Table[K, R]) Join(key K) *Flight[K, R] {
	f := t[key]
	if f != nil && f.done == nil {
		f.done = make(chan struct{})
	}
	return f
}

// Start adds a flight for key, which must have none. The owner must land it, whatever happens.
func (t Table[K, R]) Start(key K) *Flight[K, R] {
	f := &Flight[K, R]{key: key}
	t[key] = f
	return f
}

// Has reports whether calls may still join f.
func (t Table[K, R]) Has(f *Flight[K, R]) bool { return t[f.key] == f }

// Land ends f, and reports whether calls could join it until now.
func (t Table[K, R]) Land(f *Flight[K, R]) (current bool) {
	if current = t.Has(f); current {
		delete(t, f.key)
	}
	if f.done != nil {
		close(f.done)
	}
	return current
}

// Done returns a channel that is closed when f has landed. Only calls that have joined f may use it.
func (f *Flight[K, R]) Done() <-chan struct{} { return f.done }
