package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
)

const (
	rounds  = 200
	writers = 8
)

func checkReplacing(t *testing.T, s store.Store) {
	r := put(t, s, store.Record{Kind: "code", ID: "c", Keys: []store.Key{{Name: "writer", Value: "none"}}})
	for range rounds {
		winner := race(t, s, r)
		wantStored(t, s, winner)
		wantFound(t, s, "code", r.Keys[0], "", 1)
		wantFound(t, s, "code", winner.Keys[0], "", 1, "c")
		r = winner
	}
}

func checkCreating(t *testing.T, s store.Store) {
	for i := range rounds {
		r := store.Record{Kind: "jti", ID: fmt.Sprint(i), Expires: ago(0)}
		if i%2 == 0 {
			put(t, s, r) // replaces one that has expired
		}
		r.Expires = ahead(time.Hour)
		wantStored(t, s, race(t, s, r))
	}
}

// race lets several writers replace r, and returns the record of the one that succeeded.
func race(t *testing.T, s store.Store, r store.Record) (winner store.Record) {
	t.Helper()
	var (
		wg    sync.WaitGroup
		won   atomic.Int32
		start = make(chan struct{})
	)
	for i := range writers {
		mine := r
		mine.Keys = []store.Key{{Name: "writer", Value: fmt.Sprint(i, " after ", r.Version)}}
		wg.Go(func() {
			<-start
			version, err := s.Put(t.Context(), mine)
			switch {
			case errors.Is(err, store.ErrConflict):
			case err != nil:
				t.Errorf("a writer: %v", err)
			case won.Add(1) == 1:
				winner = mine
				winner.Version = version
			}
		})
	}
	close(start)
	wg.Wait()
	if n := won.Load(); n != 1 {
		t.Fatalf("%d of %d writers succeeded", n, writers)
	}
	return winner
}

// checkReaders ensures that the key, the value and the version of a record change together.
func checkReaders(t *testing.T, s store.Store) {
	const changes = 50
	var wg sync.WaitGroup
	var done atomic.Int32
	for i := range writers / 2 {
		id := fmt.Sprint("counter ", i)
		wg.Go(func() {
			defer done.Add(1)
			r := store.Record{Kind: "web", ID: id}
			for n := range changes {
				r.Value = fmt.Appendf(nil, "%s %d", id, n)
				r.Keys = []store.Key{{Name: "value", Value: string(r.Value)}}
				version, err := s.Put(t.Context(), r)
				if err != nil {
					t.Errorf("put: %v", err)
					return
				}
				r.Version = version
			}
		})
		wg.Go(func() {
			var last int64
			for done.Load() < writers/2 {
				r, err := s.Get(t.Context(), "web", id)
				if errors.Is(err, store.ErrNotFound) && last == 0 {
					continue
				}
				if err != nil {
					t.Errorf("get: %v", err)
					return
				}
				if r.Version < last || len(r.Keys) != 1 || r.Keys[0].Value != string(r.Value) {
					t.Errorf("half a record, or an old one: version %d after %d, keys %q, value %q", r.Version, last, r.Keys, r.Value)
					return
				}
				last = r.Version
			}
		})
	}
	wg.Go(func() {
		for done.Load() < writers/2 {
			found, err := s.Find(t.Context(), "web", store.Key{}, "", writers)
			if err != nil {
				t.Errorf("find: %v", err)
				return
			}
			for _, r := range found {
				if len(r.Keys) != 1 || r.Keys[0].Value != string(r.Value) {
					t.Errorf("found half a record: keys %q, value %q", r.Keys, r.Value)
					return
				}
			}
			if _, err := s.Sweep(t.Context()); err != nil {
				t.Errorf("sweep: %v", err)
			}
		}
	})
	wg.Wait()
}
