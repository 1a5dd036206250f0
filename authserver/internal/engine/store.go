package engine

import (
	"container/list"
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"
)

// store keeps grants and opaque tokens in memory: the latter under a digest, so that it holds no token that works.
type store struct {
	grants *memory[goidc.Grant]
	tokens *memory[goidc.Token]
	end    func(*goidc.Grant) time.Time
}

func newStore(limit int, end func(*goidc.Grant) time.Time) *store {
	return &store{newMemory[goidc.Grant](limit), newMemory[goidc.Token](limit), end}
}

func (s *store) SaveGrant(_ context.Context, g *goidc.Grant) error {
	s.grants.put(g.ID, *g, s.end(g))
	return nil
}

func (s *store) Grant(_ context.Context, id string) (*goidc.Grant, error) {
	g, ok := s.grants.get(id)
	if !ok {
		return nil, goidc.ErrNotFound
	}
	return &g, nil
}

func (s *store) SaveToken(_ context.Context, t *goidc.Token) error {
	kept := *t
	kept.ID = ""
	s.tokens.put(digest(t.ID), kept, time.Unix(int64(t.ExpiresAt), 0))
	return nil
}

func (s *store) Token(_ context.Context, id string) (*goidc.Token, error) {
	t, ok := s.tokens.get(digest(id))
	if !ok {
		return nil, goidc.ErrNotFound
	}
	t.ID = id
	return &t, nil
}

func digest(token string) string {
	d := sha256.Sum256([]byte(token))
	return string(d[:])
}

// memory keeps values until they expire, and no more than limit of them: the oldest gives way to the newest. It is safe
// for concurrent use.
type memory[V any] struct {
	limit int

	mu    sync.Mutex
	items map[string]*item[V]
	order *list.List // of keys, the oldest first
}

type item[V any] struct {
	value V
	end   time.Time
}

func newMemory[V any](limit int) *memory[V] {
	return &memory[V]{limit: limit, items: map[string]*item[V]{}, order: list.New()}
}

// put adds a value, or replaces the one of this key, whose end stays.
func (m *memory[V]) put(key string, v V, end time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if it := m.items[key]; it != nil {
		it.value = v
		return
	}
	now := time.Now()
	for e := m.order.Front(); e != nil; e = m.order.Front() {
		oldest := e.Value.(string)
		if len(m.items) < m.limit && now.Before(m.items[oldest].end) {
			break
		}
		delete(m.items, oldest)
		m.order.Remove(e)
	}
	m.items[key] = &item[V]{v, end}
	m.order.PushBack(key)
}

func (m *memory[V]) get(key string) (v V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	it := m.items[key]
	if it == nil || !time.Now().Before(it.end) {
		return v, false
	}
	return it.value, true
}
