// Package storetest tests implementations of [store.Store].
//
//	func TestStore(t *testing.T) {
//		storetest.Test(t, func(t testing.TB) store.Store {
//			s, err := Open(filepath.Join(t.TempDir(), "test.db"))
//			if err != nil {
//				t.Fatal(err)
//			}
//			return s
//		})
//	}
package storetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
)

// Test checks the contract of the stores that open returns. Each must be empty; Test closes it. Run it with -race.
func Test(t *testing.T, open func(t testing.TB) store.Store) {
	for _, c := range []struct {
		name  string
		check func(t *testing.T, s store.Store)
	}{
		{"a record beyond a limit is refused", checkLimits},
		{"a record at the limits is kept as it is", checkFull},
		{"what is not there is not found", checkAbsent},
		{"a record is replaced with the version read only", checkVersions},
		{"a version never comes back", checkRecreated},
		{"a conflict changes nothing", checkConflict},
		{"a record belongs to the caller", checkOwnership},
		{"an expired record is none", checkExpired},
		{"Sweep removes what has expired, and only that", checkSweep},
		{"Find goes by each key of a record", checkKeys},
		{"Find follows the keys that a record has now", checkChangedKeys},
		{"Find goes by the bytes of ids, page by page", checkPages},
		{"of 8 writers of one version one succeeds, 200 times", checkReplacing},
		{"of 8 writers of a new record one succeeds, 200 times", checkCreating},
		{"readers see whole records while writers write", checkReaders},
		{"an ended context ends every call", checkContext},
		{"a closed store errs", checkClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			defer s.Close()
			c.check(t, s)
		})
	}
}

func put(t testing.TB, s store.Store, r store.Record) store.Record {
	t.Helper()
	version, err := s.Put(t.Context(), r)
	if err != nil {
		t.Fatalf("put %s %q: %v", r.Kind, r.ID, err)
	}
	if version <= 0 || version == r.Version {
		t.Fatalf("put %s %q: version %d after %d", r.Kind, r.ID, version, r.Version)
	}
	r.Version = version
	return r
}

// wantConflict calls Put with a record that must be refused.
func wantConflict(t testing.TB, s store.Store, r store.Record) {
	t.Helper()
	if _, err := s.Put(t.Context(), r); !errors.Is(err, store.ErrConflict) {
		t.Errorf("put with version %d: %v, want a conflict", r.Version, err)
	}
}

// wantStored compares the stored record with want, whose keys must be sorted.
func wantStored(t testing.TB, s store.Store, want store.Record) {
	t.Helper()
	got, err := s.Get(t.Context(), want.Kind, want.ID)
	if err != nil {
		t.Fatalf("get %s %q: %v", want.Kind, want.ID, err)
	}
	if !equal(got, want) {
		t.Errorf("got  %.300v\nwant %.300v", got, want)
	}
}

func wantNone(t testing.TB, s store.Store, kind, id string) {
	t.Helper()
	if _, err := s.Get(t.Context(), kind, id); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get %s %q: %v, want not found", kind, id, err)
	}
}

// wantFound compares the IDs that Find returns.
func wantFound(t testing.TB, s store.Store, kind string, key store.Key, after string, limit int, want ...string) {
	t.Helper()
	found, err := s.Find(t.Context(), kind, key, after, limit)
	if err != nil {
		t.Fatalf("find %s %q: %v", kind, key, err)
	}
	ids := make([]string, len(found))
	for i, r := range found {
		ids[i] = r.ID
		wantStored(t, s, r)
	}
	if !slices.Equal(ids, want) {
		t.Errorf("find %s %q after %q, at most %d: %q, want %q", kind, key, after, limit, ids, want)
	}
}

func equal(a, b store.Record) bool {
	return a.Kind == b.Kind && a.ID == b.ID && a.Version == b.Version && slices.Equal(a.Keys, b.Keys) &&
		a.MayDrop == b.MayDrop && a.Expires.Equal(b.Expires) && a.Expires.IsZero() == b.Expires.IsZero() && string(a.Value) == string(b.Value)
}

// ago and ahead return times in whole seconds, which every store preserves.
func ago(d time.Duration) time.Time { return time.Now().Add(-d).Truncate(time.Second) }

func ahead(d time.Duration) time.Time { return time.Now().Add(d).Truncate(time.Second) }

func checkContext(t *testing.T, s store.Store) {
	kept := put(t, s, store.Record{Kind: "user", ID: "alice"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for method, err := range callAll(ctx, s, kept) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", method, err)
		}
	}
	wantStored(t, s, kept)
}

func checkClosed(t *testing.T, s store.Store) {
	kept := put(t, s, store.Record{Kind: "user", ID: "alice"})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for method, err := range callAll(t.Context(), s, kept) {
		if err == nil || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: %v, want an outage", method, err)
		}
	}
}

func callAll(ctx context.Context, s store.Store, r store.Record) map[string]error {
	errs := map[string]error{}
	_, errs["Get"] = s.Get(ctx, r.Kind, r.ID)
	_, errs["Put"] = s.Put(ctx, r)
	_, errs["Put of a new record"] = s.Put(ctx, store.Record{Kind: r.Kind, ID: "new"})
	errs["Delete"] = s.Delete(ctx, r.Kind, r.ID)
	_, errs["Find"] = s.Find(ctx, r.Kind, store.Key{}, "", 1)
	_, errs["Find of a key"] = s.Find(ctx, r.Kind, store.Key{Name: "a", Value: "b"}, "", 1)
	_, errs["Sweep"] = s.Sweep(ctx)
	errs["Ping"] = s.Ping(ctx)
	return errs
}
