package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Memory is a [Store] in memory; its records are lost when the process ends. It copies the records that it receives and returns.
// The time that its methods take grows with the logarithm of the number of records.
type Memory struct {
	limit int

	mu      sync.RWMutex
	shelves map[string]*shelf // by kind
	version int64             // the last one assigned to any record; none is reused
	closed  bool
}

const defaultLimit = 100_000

// NewMemory returns an empty store that holds at most limit records of each kind. Zero: 100,000.
//
// Clients fill it with grants and tokens, and users by logging in. If a kind is full, Put removes expired records. If there are
// none, it removes a record with MayDrop: of the [Record].Owner that has most of them, the one that was least recently written.
// A client that fills a kind thus displaces its own records, and those of others only down to the number that it has itself.
// Each of n clients keeps limit/n records, however many the others write. If no record may be removed, Put returns [ErrFull]: a
// client that can fill a kind with records that must be kept blocks others that need one, until records expire.
func NewMemory(limit int) *Memory {
	if limit <= 0 {
		limit = defaultLimit
	}
	return &Memory{limit: limit, shelves: map[string]*shelf{}}
}

// usable returns an error if the store is closed or ctx has ended. The caller holds the lock.
func (m *Memory) usable(ctx context.Context) error {
	if m.closed {
		return errors.New("store: closed")
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// Get implements [Store].
func (m *Memory) Get(ctx context.Context, kind, id string) (Record, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.usable(ctx); err != nil {
		return Record{}, err
	}
	if s := m.shelves[kind]; s != nil {
		if e := s.live(id, time.Now()); e != nil {
			return e.clone(), nil
		}
	}
	return Record{}, fmt.Errorf("store: get %s: %w", kind, ErrNotFound)
}

// Put implements [Store].
func (m *Memory) Put(ctx context.Context, r Record) (version int64, err error) {
	if err := r.Validate(); err != nil {
		return 0, err
	}
	r = r.clone()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return 0, err
	}
	s := m.shelves[r.Kind]
	if s == nil {
		s = newShelf()
		m.shelves[r.Kind] = s
	}
	now := time.Now()
	var current int64
	if e := s.live(r.ID, now); e != nil {
		current = e.Version
	}
	if r.Version != current {
		return 0, fmt.Errorf("store: put %s: %w", r.Kind, ErrConflict)
	}
	if old := s.records[r.ID]; old != nil {
		s.remove(old)
	} else if !s.shrink(m.limit, now) {
		return 0, fmt.Errorf("store: put %s: %w: there are %d, none of which may be dropped", r.Kind, ErrFull, m.limit)
	}
	m.version++
	r.Version = m.version
	s.add(r)
	return r.Version, nil
}

// Delete implements [Store].
func (m *Memory) Delete(ctx context.Context, kind, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return err
	}
	if s := m.shelves[kind]; s != nil && s.records[id] != nil {
		s.remove(s.records[id])
	}
	return nil
}

// Find implements [Store].
func (m *Memory) Find(ctx context.Context, kind string, key Key, after string, limit int) ([]Record, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.usable(ctx); err != nil {
		return nil, err
	}
	if limit <= 0 {
		return nil, fmt.Errorf("store: find %s: the limit %d is not positive", kind, limit)
	}
	s := m.shelves[kind]
	if s == nil {
		return nil, nil
	}
	now := time.Now()
	var found []Record
	for n := s.index.after(place{key, after}); n != nil && n.key == key && len(found) < limit; n = n.next[0] {
		if !n.entry.expired(now) {
			found = append(found, n.entry.clone())
		}
	}
	return found, nil
}

// Sweep implements [Store].
func (m *Memory) Sweep(ctx context.Context) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return 0, err
	}
	now := time.Now()
	swept := 0
	for _, s := range m.shelves {
		swept += s.sweep(now)
	}
	return swept, nil
}

// Ping implements [Store].
func (m *Memory) Ping(ctx context.Context) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.usable(ctx)
}

// Close discards all records.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	clear(m.shelves)
	return nil
}

var _ Store = (*Memory)(nil)
