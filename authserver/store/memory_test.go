package store_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/authserver/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Test(t, func(testing.TB) store.Store { return store.NewMemory(0) })
}

func TestMemoryIsBounded(t *testing.T) {
	storetest.TestBounded(t, func(_ testing.TB, limit int) store.Store { return store.NewMemory(limit) })
}

func TestMemoryExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.NewMemory(0)
		_, err := s.Put(t.Context(), store.Record{Kind: "code", ID: "c", Expires: time.Now().Add(90*time.Second + 300*time.Millisecond)})
		require.NoError(t, err)

		time.Sleep(90*time.Second - 1)
		r, err := s.Get(t.Context(), "code", "c")
		require.NoError(t, err)
		require.Equal(t, time.Now().Add(1).UTC(), r.Expires, "the end is a whole second")

		time.Sleep(time.Nanosecond)
		_, err = s.Get(t.Context(), "code", "c")
		require.ErrorIs(t, err, store.ErrNotFound)
		n, err := s.Sweep(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
}

func TestMemoryLimit(t *testing.T) {
	never := time.Time{}
	soon, late := time.Now().Add(time.Minute), time.Now().Add(time.Hour)
	past := time.Now().Add(-time.Minute)
	type puts []store.Record
	drop := func(id string, end time.Time) store.Record { return store.Record{ID: id, Expires: end, MayDrop: true} }
	owned := func(owner, id string) store.Record {
		return store.Record{ID: id, Expires: late, MayDrop: true, Owner: owner}
	}
	for _, c := range []struct {
		name string
		puts puts
		err  bool // of the last
		want []string
	}{
		{"one more than what never expires is refused", puts{{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "d"}}, true, []string{"a", "b", "c"}},
		{"so is one that would expire", puts{{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "d", Expires: soon}}, true, []string{"a", "b", "c"}},
		{"so is one more than what must be kept until it expires", puts{{ID: "a", Expires: late}, {ID: "b", Expires: soon}, {ID: "c", Expires: soon}, {ID: "d"}}, true, []string{"a", "b", "c"}},
		{"the oldest that may be dropped goes, not the next to expire", puts{{ID: "a"}, drop("b", late), drop("c", soon), {ID: "d"}}, false, []string{"a", "c", "d"}},
		{"of several owners the one that has most gives way, though others are older", puts{owned("other", "a"), owned("evil", "b"), owned("evil", "c"), owned("evil", "d"), owned("evil", "e")}, false, []string{"a", "d", "e"}},
		{"also for a record of another owner", puts{owned("evil", "a"), owned("other", "b"), owned("other", "c"), owned("new", "d")}, false, []string{"a", "c", "d"}},
		{"of owners that have as many, the oldest goes", puts{owned("x", "a"), owned("y", "b"), owned("z", "c"), owned("new", "d")}, false, []string{"b", "c", "d"}},
		{"the last Put decides whose it is", puts{owned("x", "a"), owned("x", "b"), owned("y", "c"), owned("y", "b"), owned("y", "d")}, false, []string{"a", "b", "d"}},
		{"records that must be kept do not give way, whoever owns them", puts{{ID: "a", Owner: "evil", Expires: late}, {ID: "b", Owner: "evil", Expires: late}, owned("other", "c"), owned("other", "d")}, false, []string{"a", "b", "d"}},
		{"what was written again is not old", puts{drop("a", late), drop("b", late), {ID: "c"}, drop("a", late), {ID: "d"}}, false, []string{"a", "c", "d"}},
		{"what has expired goes first", puts{drop("a", late), {ID: "b", Expires: past}, {ID: "c"}, {ID: "d"}}, false, []string{"a", "c", "d"}},
		{"writing again needs no room", puts{{ID: "a", Expires: late}, {ID: "b", Expires: never}, {ID: "c"}, {ID: "b"}}, false, []string{"a", "b", "c"}},
		{"another kind has separate room", puts{{ID: "a"}, {ID: "b"}, {ID: "c"}, {Kind: "other", ID: "d"}}, false, []string{"a", "b", "c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := store.NewMemory(3)
			versions := map[string]int64{}
			for i, r := range c.puts {
				if r.Kind == "" {
					r.Kind = "kind"
				}
				r.Version = versions[r.ID]
				version, err := s.Put(t.Context(), r)
				require.Equal(t, c.err && i == len(c.puts)-1, err != nil, "%v", err)
				versions[r.ID] = version
			}
			found, err := s.Find(t.Context(), "kind", store.Key{}, "", 9)
			require.NoError(t, err)
			var ids []string
			for _, r := range found {
				ids = append(ids, r.ID)
			}
			require.Equal(t, c.want, ids)
		})
	}
}

func TestErrorsNameNoID(t *testing.T) {
	const secret = "id-that-nobody-logs"
	s := store.NewMemory(1)
	ctx := t.Context()
	_, absent := s.Get(ctx, "code", secret)
	_, conflict := s.Put(ctx, store.Record{Kind: "code", ID: secret, Version: 7})
	_, invalid := s.Put(ctx, store.Record{Kind: "code", ID: secret, Keys: []store.Key{{Name: "!", Value: secret}}})
	_, err := s.Put(ctx, store.Record{Kind: "code", ID: "c"})
	require.NoError(t, err)
	_, full := s.Put(ctx, store.Record{Kind: "code", ID: secret})
	for _, err := range []error{absent, conflict, invalid, full} {
		require.Error(t, err)
		require.NotContains(t, err.Error(), secret)
	}
}

func TestValidateNamesEveryMistake(t *testing.T) {
	r := store.Record{
		Kind: "K", Version: -1, Value: make([]byte, 1<<20+1), Owner: string(make([]byte, 513)),
		Keys: append(make([]store.Key, 16), store.Key{Name: "k", Value: fmt.Sprintf("%0513d", 0)}),
	}
	err := r.Validate()
	for _, field := range []string{"Kind:", "ID:", "Version:", "Keys:", "Keys[0].Name:", "Keys[16].Value:", "Value:", "Owner:"} {
		require.ErrorContains(t, err, field)
	}
}

func BenchmarkMemory(b *testing.B) {
	storetest.Bench(b, func(testing.TB) store.Store { return store.NewMemory(1 << 30) })
}
