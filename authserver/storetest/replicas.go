package storetest

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/valetkey/valetkey/authserver/store"
)

// Replicas returns a store that distributes its calls to the given stores in turn. They must share a database, so that the
// result passes [Test] like each of them.
func Replicas(of ...store.Store) store.Store {
	return &replicas{of: of}
}

type replicas struct {
	of    []store.Store
	calls atomic.Uint64
}

func (s *replicas) next() store.Store {
	return s.of[s.calls.Add(1)%uint64(len(s.of))]
}

func (s *replicas) Get(ctx context.Context, kind, id string) (store.Record, error) {
	return s.next().Get(ctx, kind, id)
}

func (s *replicas) Put(ctx context.Context, r store.Record) (int64, error) {
	return s.next().Put(ctx, r)
}

func (s *replicas) Delete(ctx context.Context, kind, id string) error {
	return s.next().Delete(ctx, kind, id)
}

func (s *replicas) Find(ctx context.Context, kind string, key store.Key, after string, limit int) ([]store.Record, error) {
	return s.next().Find(ctx, kind, key, after, limit)
}

func (s *replicas) Sweep(ctx context.Context) (int, error) {
	return s.next().Sweep(ctx)
}

func (s *replicas) Ping(ctx context.Context) error {
	return s.next().Ping(ctx)
}

func (s *replicas) Close() error {
	var errs []error
	for _, one := range s.of {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}
