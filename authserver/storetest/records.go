package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
)

func checkLimits(t *testing.T, s store.Store) {
	keys := make([]store.Key, 17)
	for i := range keys {
		keys[i] = store.Key{Name: "scope", Value: fmt.Sprint(i)}
	}
	for _, r := range []store.Record{
		{},
		{ID: "kind missing"},
		{Kind: strings.Repeat("k", 33), ID: "kind too long"},
		{Kind: "Grant", ID: "kind with a capital"},
		{Kind: "grant\x00", ID: "kind with a zero byte"},
		{Kind: "id_missing"},
		{Kind: "grant", ID: strings.Repeat("i", 513)},
		{Kind: "grant", ID: "version negative", Version: -1},
		{Kind: "grant", ID: "too many keys", Keys: keys},
		{Kind: "grant", ID: "key without a name", Keys: []store.Key{{Value: "shop"}}},
		{Kind: "grant", ID: "key's name with a digit", Keys: []store.Key{{Name: "client2", Value: "shop"}}},
		{Kind: "grant", ID: "key too long", Keys: []store.Key{{Name: "client", Value: strings.Repeat("v", 513)}}},
		{Kind: "grant", ID: "value too large", Value: make([]byte, 1<<20+1)},
	} {
		_, err := s.Put(t.Context(), r)
		if err == nil || errors.Is(err, store.ErrConflict) {
			t.Errorf("%.40q %.40q: %v, want a refusal", r.Kind, r.ID, err)
		}
		wantNone(t, s, "grant", r.ID)
	}
	if _, err := s.Find(t.Context(), "grant", store.Key{}, "", 0); err == nil {
		t.Error("find of at most none: no error")
	}
	wantFound(t, s, "grant", store.Key{}, "", 100)
}

func checkFull(t *testing.T, s store.Store) {
	var every [256]byte
	for i := range every {
		every[i] = byte(i)
	}
	bytes := string(every[:])
	full := store.Record{
		Kind:    "abcdefghijklmnopqrstuvwxyz_abcde",
		ID:      bytes + bytes,
		Expires: ahead(100 * 365 * 24 * time.Hour),
		Value:   []byte(strings.Repeat(bytes, 1<<12)),
	}
	for i := range 15 {
		full.Keys = append(full.Keys, store.Key{Name: full.Kind, Value: string(every[i:i+1]) + bytes + bytes[1:]})
	}
	full.Keys = append(full.Keys, store.Key{Name: "z", Value: ""})
	full = put(t, s, full)
	wantStored(t, s, full)
	for _, k := range full.Keys {
		wantFound(t, s, full.Kind, k, "", 2, full.ID)
	}
	wantFound(t, s, full.Kind, store.Key{}, "", 2, full.ID)

	least := put(t, s, store.Record{Kind: "_", ID: "\x00"})
	wantStored(t, s, least)
	least.Value = []byte{0}
	wantStored(t, s, put(t, s, least))
}

func checkAbsent(t *testing.T, s store.Store) {
	put(t, s, store.Record{Kind: "user", ID: "alice"})
	for _, id := range []string{"", "alic", "alice\x00", "Alice", "alice ", "\xff", "\x00", strings.Repeat("a", 1000), "'; --"} {
		wantNone(t, s, "user", id)
		if err := s.Delete(t.Context(), "user", id); err != nil {
			t.Errorf("delete %q: %v", id, err)
		}
		wantFound(t, s, "user", store.Key{Name: "name", Value: id}, "", 1)
	}
	wantNone(t, s, "use", "alice")
	wantFound(t, s, "use", store.Key{}, "", 1)
	if err := s.Delete(t.Context(), "use", "alice"); err != nil {
		t.Error(err)
	}
	wantFound(t, s, "user", store.Key{}, "", 2, "alice")
}

func checkVersions(t *testing.T, s store.Store) {
	r := store.Record{Kind: "grant", ID: "g", Value: []byte("one"), Expires: ahead(time.Hour)}
	wantConflict(t, s, store.Record{Kind: "grant", ID: "g", Version: 1})
	wantNone(t, s, "grant", "g")

	first := put(t, s, r)
	wantConflict(t, s, r)
	wantConflict(t, s, store.Record{Kind: "grant", ID: "g", Version: first.Version + 1})

	second := first
	second.Value, second.Expires, second.MayDrop = []byte("two"), time.Time{}, true
	second = put(t, s, second)
	second.MayDrop = false // it is not stored
	wantConflict(t, s, first)
	wantStored(t, s, second)

	other := r
	other.Kind = "token"
	other = put(t, s, other)
	wantStored(t, s, other)
	wantStored(t, s, second)
}

func checkRecreated(t *testing.T, s store.Store) {
	r := store.Record{Kind: "code", ID: "c", Keys: []store.Key{{Name: "client", Value: "shop"}}}
	first := put(t, s, r)
	if err := s.Delete(t.Context(), "code", "c"); err != nil {
		t.Fatal(err)
	}
	wantNone(t, s, "code", "c")
	wantFound(t, s, "code", r.Keys[0], "", 1)
	wantConflict(t, s, first)
	again := put(t, s, r)
	wantConflict(t, s, first)
	wantStored(t, s, again)
}

func checkConflict(t *testing.T, s store.Store) {
	shop, bank := store.Key{Name: "client", Value: "shop"}, store.Key{Name: "client", Value: "bank"}
	kept := put(t, s, store.Record{Kind: "grant", ID: "g", Keys: []store.Key{shop}, Expires: ahead(time.Hour), Value: []byte("kept")})
	for _, version := range []int64{0, kept.Version + 1, 1<<63 - 1} {
		wantConflict(t, s, store.Record{Kind: "grant", ID: "g", Version: version, Keys: []store.Key{bank}, Value: []byte("lost")})
	}
	wantStored(t, s, kept)
	wantFound(t, s, "grant", shop, "", 1, "g")
	wantFound(t, s, "grant", bank, "", 1)
}

func checkOwnership(t *testing.T, s store.Store) {
	given := store.Record{Kind: "user", ID: "alice", Keys: []store.Key{{Name: "mail", Value: "a@example.com"}}, Value: []byte("alice")}
	version := put(t, s, given).Version
	given.Value[0], given.Keys[0].Value = 'X', "x"
	for range 2 {
		got, err := s.Get(t.Context(), "user", "alice")
		if err != nil {
			t.Fatal(err)
		}
		want := store.Record{
			Kind: "user", ID: "alice", Version: version,
			Keys: []store.Key{{Name: "mail", Value: "a@example.com"}}, Value: []byte("alice"),
		}
		if !equal(got, want) {
			t.Fatalf("got  %v\nwant %v", got, want)
		}
		found, err := s.Find(t.Context(), "user", want.Keys[0], "", 1)
		if err != nil || len(found) != 1 || !equal(found[0], want) {
			t.Fatalf("found %v, %v\nwant  %v", found, err, want)
		}
		for _, r := range []store.Record{got, found[0]} {
			r.Value[0], r.Keys[0].Value = 'Y', "y"
		}
	}
}

func checkExpired(t *testing.T, s store.Store) {
	shop, bank := store.Key{Name: "client", Value: "shop"}, store.Key{Name: "client", Value: "bank"}
	expired := put(t, s, store.Record{Kind: "token", ID: "t", Keys: []store.Key{shop}, Expires: ago(2 * time.Second)})
	wantNone(t, s, "token", "t")
	wantFound(t, s, "token", shop, "", 1)
	wantFound(t, s, "token", store.Key{}, "", 1)
	wantConflict(t, s, expired) // it counts as swept

	live := put(t, s, store.Record{Kind: "token", ID: "t", Keys: []store.Key{bank}, Expires: ahead(time.Hour)})
	wantConflict(t, s, expired)
	wantStored(t, s, live)
	wantFound(t, s, "token", shop, "", 1)
	wantFound(t, s, "token", bank, "", 1, "t")

	live.Expires = time.Unix(-1, 0) // long ago, not "never"
	put(t, s, live)
	wantNone(t, s, "token", "t")
	if err := s.Delete(t.Context(), "token", "t"); err != nil {
		t.Error(err)
	}
	if n, err := s.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
}

func checkSweep(t *testing.T, s store.Store) {
	gone := store.Key{Name: "client", Value: "gone"}
	const expired = 1100 // more than a batch of any store in this module
	for i := range expired {
		put(t, s, store.Record{Kind: "token", ID: fmt.Sprint(i), Keys: []store.Key{gone}, Expires: ago(time.Minute)})
	}
	live := put(t, s, store.Record{Kind: "token", ID: "live", Keys: []store.Key{gone}, Expires: ahead(time.Hour)})
	forever := put(t, s, store.Record{Kind: "token", ID: "forever", Keys: []store.Key{gone}})
	for _, want := range []int{expired, 0} {
		if n, err := s.Sweep(t.Context()); n != want || err != nil {
			t.Errorf("swept %d, %v; want %d", n, err, want)
		}
	}
	wantStored(t, s, live)
	wantStored(t, s, forever)
	wantFound(t, s, "token", gone, "", 10, "forever", "live")
	for i := range expired {
		put(t, s, store.Record{Kind: "token", ID: fmt.Sprint(i)})
		if i == 10 {
			break
		}
	}
	wantFound(t, s, "token", gone, "", 10, "forever", "live")
}
