package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
)

// TestBounded checks the contract of [store.ErrFull] and MayDrop for a store with room for limit records of a kind. A store
// whose size is limited only by its disk or its server needs only [Test].
func TestBounded(t *testing.T, open func(t testing.TB, limit int) store.Store) {
	const limit = 50
	run := func(name string, check func(t *testing.T, s store.Store)) {
		t.Run(name, func(t *testing.T) {
			s := open(t, limit)
			defer s.Close()
			check(t, s)
		})
	}
	fill := func(t *testing.T, s store.Store, r store.Record) (all []store.Record) {
		for i := range limit {
			r.ID = fmt.Sprintf("%s-%02d", r.Kind, i)
			kept := put(t, s, r)
			kept.MayDrop = false
			all = append(all, kept)
		}
		return all
	}
	full := func(t *testing.T, s store.Store, r store.Record) {
		t.Helper()
		if _, err := s.Put(t.Context(), r); !errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrConflict) {
			t.Errorf("put %s %q: %v, want that there is no room", r.Kind, r.ID, err)
		}
		wantNone(t, s, r.Kind, r.ID)
	}
	for name, end := range map[string]time.Time{"that expire": ahead(time.Hour), "that never expire": {}} {
		run("no record without MayDrop gives way, of those "+name, func(t *testing.T, s store.Store) {
			kept := fill(t, s, store.Record{Kind: "jti", Expires: end})
			full(t, s, store.Record{Kind: "jti", ID: "new", Expires: ahead(time.Hour)})
			full(t, s, store.Record{Kind: "jti", ID: "new"})
			full(t, s, store.Record{Kind: "jti", ID: "new", Expires: ahead(time.Hour), MayDrop: true})
			for _, r := range kept {
				wantStored(t, s, r)
			}
			put(t, s, store.Record{Kind: "proof", ID: "new"}) // another kind has room
			kept[7].Value = []byte("again")                   // and replacing a record needs none
			wantStored(t, s, put(t, s, kept[7]))
			if err := s.Delete(t.Context(), "jti", kept[3].ID); err != nil {
				t.Fatal(err)
			}
			put(t, s, store.Record{Kind: "jti", ID: "new"})
		})
	}
	run("a record with MayDrop gives way, and no other", func(t *testing.T, s store.Store) {
		for i := range limit - 1 {
			put(t, s, store.Record{Kind: "grant", ID: fmt.Sprint(i), Expires: ahead(time.Hour)})
		}
		for i := range 10 {
			put(t, s, store.Record{Kind: "grant", ID: fmt.Sprint("drop", i), Expires: ahead(time.Hour), MayDrop: true})
		}
		wantNone(t, s, "grant", "drop8")
		put(t, s, store.Record{Kind: "grant", ID: "last", Expires: ahead(time.Hour)})
		wantNone(t, s, "grant", "drop9")
		full(t, s, store.Record{Kind: "grant", ID: "more", MayDrop: true})
		for i := range limit - 1 {
			if _, err := s.Get(t.Context(), "grant", fmt.Sprint(i)); err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
	})
	run("the owner with most records gives way, and no other", func(t *testing.T, s store.Store) {
		owned := func(owner string, n int) (all []string) {
			for i := range n {
				all = append(all, fmt.Sprint(owner, i))
				put(t, s, store.Record{Kind: "grant", ID: all[i], Expires: ahead(time.Hour), MayDrop: true, Owner: owner})
			}
			return all
		}
		honest := owned("honest", 10)
		owned("greedy", 3*limit)
		for _, id := range append(honest, owned("late", 10)...) {
			if _, err := s.Get(t.Context(), "grant", id); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
		if got, err := s.Find(t.Context(), "grant", store.Key{}, "", limit+1); err != nil || len(got) != limit || got[0].Owner != "" {
			t.Errorf("%d records, %v; want %d without their owners", len(got), err, limit)
		}
	})
	run("MayDrop has no effect on a record that never expires", func(t *testing.T, s store.Store) {
		fill(t, s, store.Record{Kind: "user", MayDrop: true})
		full(t, s, store.Record{Kind: "user", ID: "new", MayDrop: true})
	})
	run("the last Put decides whether a record may be dropped", func(t *testing.T, s store.Store) {
		all := fill(t, s, store.Record{Kind: "web", Expires: ahead(time.Hour), MayDrop: true})
		for _, r := range all {
			put(t, s, r)
		}
		full(t, s, store.Record{Kind: "web", ID: "new", MayDrop: true})
	})
	run("there is room once a record has expired", func(t *testing.T, s store.Store) {
		for i := range limit {
			put(t, s, store.Record{Kind: "jti", ID: fmt.Sprint(i), Expires: ago(time.Second)})
		}
		put(t, s, store.Record{Kind: "jti", ID: "new"})
	})
}
