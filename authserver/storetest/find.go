package storetest

import (
	"slices"
	"testing"

	"github.com/valetkey/valetkey/authserver/store"
)

func checkKeys(t *testing.T, s store.Store) {
	alice, bob := store.Key{Name: "owner", Value: "alice"}, store.Key{Name: "owner", Value: "bob"}
	nobody, mail := store.Key{Name: "owner"}, store.Key{Name: "mail", Value: "alice"}
	put(t, s, store.Record{Kind: "client", ID: "both", Keys: []store.Key{alice, bob}})
	put(t, s, store.Record{Kind: "client", ID: "hers", Keys: []store.Key{alice, mail}})
	put(t, s, store.Record{Kind: "client", ID: "nobody's", Keys: []store.Key{nobody}})
	put(t, s, store.Record{Kind: "client", ID: "without"})
	put(t, s, store.Record{Kind: "grant", ID: "other kind", Keys: []store.Key{alice}})

	wantFound(t, s, "client", alice, "", 9, "both", "hers")
	wantFound(t, s, "client", bob, "", 9, "both")
	wantFound(t, s, "client", mail, "", 9, "hers")
	wantFound(t, s, "client", nobody, "", 9, "nobody's")
	wantFound(t, s, "client", store.Key{}, "", 9, "both", "hers", "nobody's", "without")
	wantFound(t, s, "client", store.Key{Name: "owner", Value: "Alice"}, "", 9)
	wantFound(t, s, "client", store.Key{Name: "own", Value: "eralice"}, "", 9)
	wantFound(t, s, "client", store.Key{Value: "alice"}, "", 9)
	wantFound(t, s, "grant", alice, "", 9, "other kind")

	twice := put(t, s, store.Record{Kind: "client", ID: "unsorted", Keys: []store.Key{bob, mail, alice, bob}})
	twice.Keys = []store.Key{mail, alice, bob}
	wantStored(t, s, twice) // the keys sorted and without duplicates
	wantFound(t, s, "client", bob, "", 9, "both", "unsorted")
}

func checkChangedKeys(t *testing.T, s store.Store) {
	a, b, c := store.Key{Name: "k", Value: "a"}, store.Key{Name: "k", Value: "b"}, store.Key{Name: "k", Value: "c"}
	r := put(t, s, store.Record{Kind: "client", ID: "r", Keys: []store.Key{a, b}})
	for _, keys := range [][]store.Key{{b, c}, {a}, nil, {c}, {a, b, c}} {
		r.Keys = keys
		r = put(t, s, r)
		wantStored(t, s, r)
		for _, k := range []store.Key{a, b, c} {
			if slices.Contains(keys, k) {
				wantFound(t, s, "client", k, "", 2, "r")
			} else {
				wantFound(t, s, "client", k, "", 2)
			}
		}
	}
	if err := s.Delete(t.Context(), "client", "r"); err != nil {
		t.Fatal(err)
	}
	for _, k := range []store.Key{a, b, c, {}} {
		wantFound(t, s, "client", k, "", 2)
	}
}

func checkPages(t *testing.T, s store.Store) {
	ids := []string{"\x00", "\x00\x00", "10", "9", "A", "a", "a\x00", "a b", "aa", "b", "z", "\x7f", "ß", "\xff", "\xff\xff"}
	key := store.Key{Name: "owner", Value: "alice"}
	for _, i := range []int{7, 3, 14, 0, 11, 5, 9, 1, 13, 2, 8, 4, 12, 6, 10} {
		put(t, s, store.Record{Kind: "client", ID: ids[i], Keys: []store.Key{key}})
		put(t, s, store.Record{Kind: "client", ID: ids[i] + "~", Keys: []store.Key{{Name: "owner", Value: "bob"}}})
	}
	for limit := 1; limit <= len(ids)+1; limit++ {
		after := ""
		for rest := ids; ; {
			page := rest[:min(limit, len(rest))]
			wantFound(t, s, "client", key, after, limit, page...)
			if len(page) == 0 {
				break
			}
			after, rest = page[len(page)-1], rest[len(page):]
		}
	}
	wantFound(t, s, "client", key, "a\x00\x00", 2, "a b", "aa") // after an ID that does not exist
	wantFound(t, s, "client", store.Key{}, "aa", 3, "aa~", "a~", "b")
}
