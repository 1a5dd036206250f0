package tokencache

import (
	"context"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/digest"
)

func TestSize(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the classes are those of 64 bits")
	}
	if size := unsafe.Sizeof(valetkey.Token{}); size > 416 {
		t.Errorf("a Token is %d bytes, more than its size class", size)
	}
	if size := unsafe.Sizeof(record{}); size > 176 {
		t.Errorf("a record is %d bytes, more than its size class", size)
	}
}

// A token comes back from its record as it was, and the record counts the memory that it takes.
func TestRecord(t *testing.T) {
	recordOf := func(f valetkey.TokenFields) *record {
		r := newRecord(digest.Of("a"), &f, f.Freshness.Until)
		ks := kinds{table: map[kindKey]*kind{}}
		r.kind = ks.take(valetkey.NewToken(f))
		return r
	}
	first, second := strings.Repeat("y", 500), strings.Repeat("z", 500)
	raw := first + `{"sub":"alice","client_id":"app","jti":"7","long":"` + second + `"}`
	plain := valetkey.TokenFields{Raw: raw, Freshness: valetkey.Freshness{Until: time.Unix(1_800_000_000, 0)}}
	long := strings.Repeat("x", 1000)
	for name, c := range map[string]struct {
		change func(f *valetkey.TokenFields)
		least  int // bytes more than a token without it
	}{
		"nothing":                                      {func(f *valetkey.TokenFields) {}, 0},
		"strings that the claims contain":              {func(f *valetkey.TokenFields) { f.Subject, f.ClientID, f.ID = "alice", "app", "7" }, 0},
		"a string that they do not contain":            {func(f *valetkey.TokenFields) { f.SessionID = long }, 1000},
		"times":                                        {func(f *valetkey.TokenFields) { f.IssuedAt, f.Expiry = time.Unix(1, 0), time.Unix(2, 0) }, 0},
		"a key that it is bound to":                    {func(f *valetkey.TokenFields) { f.Binding.JWKThumbprint = long }, 1000 + int(unsafe.Sizeof(rare{}))},
		"a long string that the claims begin with":     {func(f *valetkey.TokenFields) { f.Subject = first }, 0},
		"a long string that the claims contain":        {func(f *valetkey.TokenFields) { f.Subject = second }, 0},
		"a key that the claims begin with":             {func(f *valetkey.TokenFields) { f.Binding.JWKThumbprint = first }, int(unsafe.Sizeof(rare{}))},
		"a key that the claims contain":                {func(f *valetkey.TokenFields) { f.Binding.JWKThumbprint = second }, int(unsafe.Sizeof(rare{}))},
		"a certificate that it is bound to":            {func(f *valetkey.TokenFields) { f.Binding.CertificateThumbprint = long }, 1000 + int(unsafe.Sizeof(rare{}))},
		"ways in which it is bound that are not known": {func(f *valetkey.TokenFields) { f.Binding.Unknown = valetkey.ListOf(long, "", "") }, 1000 + 3*16 + int(unsafe.Sizeof(rare{}))},
		"an actor":                {func(f *valetkey.TokenFields) { f.Actor = &valetkey.Actor{Subject: long} }, 1000 + int(unsafe.Sizeof(rare{})+unsafe.Sizeof(valetkey.Actor{}))},
		"an actor without a name": {func(f *valetkey.TokenFields) { f.Actor = &valetkey.Actor{} }, int(unsafe.Sizeof(rare{}) + unsafe.Sizeof(valetkey.Actor{}))},
	} {
		t.Run(name, func(t *testing.T) {
			f := plain
			c.change(&f)
			r := recordOf(f)
			require.Equal(t, f, r.token().Fields())
			more := int(r.bytes) - int(recordOf(plain).bytes)
			assert.GreaterOrEqual(t, more, c.least)
			assert.LessOrEqual(t, more, c.least+c.least/4+32, "and not much more than it takes")
			assert.Equal(t, f.Actor != nil || !f.Binding.IsZero(), r.rare != nil)
		})
	}
}

func TestQueue(t *testing.T) {
	var q queue
	a, b, c := &record{bytes: 1}, &record{bytes: 2}, &record{bytes: 4}
	holds := func(want ...*record) {
		t.Helper()
		var bytes int64
		r := q.oldest
		for i, w := range want {
			require.True(t, r == w, "the record at %d", i)
			bytes += int64(w.bytes)
			r = r.newer
		}
		require.Nil(t, r)
		r = q.newest
		for i := range want {
			require.True(t, r == want[len(want)-1-i])
			r = r.older
		}
		require.Nil(t, r)
		assert.Equal(t, len(want), q.entries)
		assert.Equal(t, bytes, q.bytes)
	}
	for _, gone := range []*record{a, b, c} {
		q = queue{}
		var rest []*record
		for _, r := range []*record{a, b, c} {
			q.push(r)
			if r != gone {
				rest = append(rest, r)
			}
		}
		holds(a, b, c)
		q.remove(gone)
		holds(rest...)
		assert.Nil(t, gone.older, "a record that a request still holds keeps no other")
		assert.Nil(t, gone.newer)
		q.push(gone)
		holds(append(rest, gone)...)
		for _, r := range []*record{a, b, c} {
			q.remove(r)
		}
		holds()
	}
}

func TestHotset(t *testing.T) {
	var d hotset
	d.init(1<<16, 1<<30)
	var entries []*Entry
	for i := range 6 { // of one set, which has room for four
		key := digest.Digest{0: byte(i)}
		entries = append(entries, &Entry{record: &record{key: key}, bytes: 100 * i})
	}
	held := func() (n int) {
		var size int64
		for _, e := range entries {
			if found := d.find(&e.record.key); found != nil {
				require.True(t, found == e)
				n++
				size += e.size()
			}
		}
		assert.Equal(t, size, d.size)
		return n
	}
	for i, e := range entries {
		place := d.place(&e.record.key)
		assert.Equal(t, min(i, places-1), held(), "there is room for it")
		d.put(place, e)
		assert.Equal(t, min(i+1, places), held())
	}
	d.remove(&record{key: entries[5].record.key})
	assert.Equal(t, places, held(), "the entry of another record of the same token stays")
	for _, e := range entries {
		d.remove(e.record)
		assert.Nil(t, d.find(&e.record.key))
		held()
	}
	assert.Zero(t, d.size)
}

func TestKinds(t *testing.T) {
	ks := kinds{table: map[kindKey]*kind{}}
	token := func(issuer string) *valetkey.Token { return valetkey.NewToken(valetkey.TokenFields{Issuer: issuer}) }
	a, b := ks.take(token("a")), ks.take(token("b"))
	require.True(t, a == ks.take(token("a")), "stored once")
	require.False(t, a == b)
	ks.drop(b)
	ks.drop(a)
	assert.Len(t, ks.table, 1)
	assert.Equal(t, a.bytes, ks.bytes)
	ks.drop(a)
	assert.Empty(t, ks.table)
	assert.Zero(t, ks.bytes)
}

// The shares of the shards add up to the whole.
func TestShares(t *testing.T) {
	for _, c := range []struct {
		entries int
		bytes   int64
		shards  int
	}{
		{511, 0, 1}, {512, 0, 2}, {513, 0, 2}, {1 << 16, 1<<21 - 1, 1}, {1 << 16, 1 << 21, 2}, {0, 0, 64}, {1 << 30, 1 << 40, 64}, {1001, 3<<20 + 1, 2}, {1030, 5<<20 + 3, 4},
	} {
		cache := New(Config{Entries: c.entries, Bytes: c.bytes}, nil)
		require.Len(t, cache.shards, c.shards, c)
		var entries int
		var bytes int64
		for i := range cache.shards {
			s := &cache.shards[i]
			entries, bytes = entries+s.maxEntries, bytes+s.maxBytes
			assert.InDelta(t, s.maxEntries, cache.shards[0].maxEntries, 1)
			assert.InDelta(t, s.maxBytes, cache.shards[0].maxBytes, 1)
		}
		if c.entries != 0 {
			assert.Equal(t, c.entries, entries)
		}
		if c.bytes != 0 {
			assert.Equal(t, c.bytes, bytes)
		}
	}
}

func TestAdoptKeepsProtection(t *testing.T) {
	verifier := valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
		return valetkey.NewToken(valetkey.TokenFields{Freshness: valetkey.Freshness{Until: time.Now().Add(time.Hour)}}), nil
	})
	old, c := New(Config{Entries: 100}, verifier), New(Config{Entries: 100}, verifier)
	for _, raw := range []string{"once", "often"} {
		_, _, err := old.Verify(t.Context(), raw)
		require.NoError(t, err)
	}
	key := digest.Of("often")
	s := &old.shards[0]
	r := s.get(&key)
	s.probation.remove(r) // as makeRoom does
	r.state.Store(protected)
	s.protected.push(r)
	require.Equal(t, 2, c.Adopt(old, func(*valetkey.Token) bool { return true }))
	require.Equal(t, 1, c.shards[0].protected.entries)
	require.True(t, c.shards[0].protected.oldest.key == key)
}

func TestExpiredRecordsLeaveTheProtectedQueue(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	c := New(Config{Entries: 100, Now: func() time.Time { return now }}, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
		return valetkey.NewToken(valetkey.TokenFields{Freshness: valetkey.Freshness{Until: now.Add(time.Minute)}}), nil
	}))
	verify := func(raw string) {
		_, _, err := c.Verify(t.Context(), raw)
		require.NoError(t, err)
	}
	s := &c.shards[0]
	for _, raw := range []string{"a", "b", "c", "d"} {
		verify(raw)
		key := digest.Of(raw)
		r := s.get(&key)
		s.probation.remove(r) // as makeRoom does
		r.state.Store(protected)
		s.protected.push(r)
	}
	now = now.Add(time.Minute)
	for n, raw := range []string{"new", "newer"} {
		verify(raw)
		require.Equal(t, 4-(n+1)*sweepSteps, s.protected.entries, "an insertion removes a few")
	}
	require.Equal(t, 2, c.Stats().Entries)
}

func TestHitsCountAsUse(t *testing.T) {
	c := New(Config{Entries: 100}, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
		return valetkey.NewToken(valetkey.TokenFields{Freshness: valetkey.Freshness{Until: time.Now().Add(time.Hour)}}), nil
	}))
	key := digest.Of("a")
	for n := range 5 {
		_, remembered, err := c.Verify(t.Context(), "a")
		require.NoError(t, err)
		require.Equal(t, n > 0, remembered)
		r := c.shards[0].get(&key)
		require.Equal(t, n > 0, r.state.Load()&used != 0, "eviction spares it")
		r.state.And(^uint32(used)) // as makeRoom does
	}
}

// What makeRoom evicts, and what it spares.
func TestMakeRoom(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	fresh, old := now.Add(time.Hour).UnixMicro(), now.UnixMicro()
	// shardOf returns a full shard with so many records of so many bytes in the two queues; the first ones are the oldest.
	shardOf := func(probation, guarded []*record) (s *shard, all []*record) {
		c := New(Config{Entries: len(probation) + len(guarded)}, nil)
		s = &c.shards[0]
		all = append(probation, guarded...)
		for i, r := range all {
			r.key, r.kind = digest.Of(string(rune('a'+i))), &kind{tokens: 1}
			if i >= len(probation) {
				r.state.Or(protected)
			}
			s.items.Set(r.key.Text(), r, -1)
			s.queueOf(r).push(r)
		}
		return s, all
	}
	records := func(n int, bytes uint32, state uint32, end int64) (all []*record) {
		all = make([]*record, n)
		for i := range all {
			all[i] = new(record)
			all[i].bytes, all[i].moments[until] = bytes, end
			all[i].state.Store(state)
		}
		return all
	}
	gone := func(s *shard, all []*record) (numbers []int) {
		for i, r := range all {
			if s.get(&r.key) == nil {
				numbers = append(numbers, i)
			}
		}
		return numbers
	}
	t.Run("of a tenth of the entries, the oldest is evicted", func(t *testing.T) {
		s, all := shardOf(records(1, 10, 0, fresh), records(9, 10, 0, fresh))
		s.hotset.size = 1 // so that it is less than a tenth of the bytes
		require.True(t, s.makeRoom(1, 10, now))
		require.Equal(t, []int{0}, gone(s, all))
		require.Equal(t, uint64(1), s.evictions)
		require.True(t, s.isGhost(&all[0].key))
	})
	t.Run("of a tenth of the bytes too", func(t *testing.T) {
		s, all := shardOf(records(1, 11, 0, fresh), records(11, 9, 0, fresh))
		require.True(t, s.makeRoom(1, 10, now))
		require.Equal(t, []int{0}, gone(s, all))
	})
	t.Run("of less than a tenth, none is", func(t *testing.T) {
		s, all := shardOf(records(1, 10, 0, fresh), records(10, 10, 0, fresh))
		require.True(t, s.makeRoom(1, 10, now))
		require.Equal(t, []int{1}, gone(s, all))
	})
	t.Run("a record that has expired is removed even if it was used, and is not an eviction", func(t *testing.T) {
		s, all := shardOf(append(records(1, 10, used, old), records(3, 10, 0, fresh)...), nil)
		require.True(t, s.makeRoom(1, 10, now))
		require.Equal(t, []int{0}, gone(s, all))
		require.Zero(t, s.evictions)
		require.False(t, s.ghosts != nil && s.isGhost(&all[0].key))
	})
	t.Run("of records that were used, sixteen are kept, and then the oldest is evicted", func(t *testing.T) {
		s, all := shardOf(records(20, 10, used, fresh), nil)
		require.True(t, s.makeRoom(1, 10, now))
		require.Equal(t, []int{chances}, gone(s, all))
		require.Equal(t, chances, s.protected.entries)
	})
}

// The record of an entry that is recreated is not evicted to make room for the entry.
func TestRecreatedEntryStays(t *testing.T) {
	calls := 0
	verifier := valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
		calls++
		return valetkey.NewToken(valetkey.TokenFields{Subject: raw, Freshness: valetkey.Freshness{Until: time.Now().Add(time.Hour)}}), nil
	})
	c := New(Config{Bytes: 20_000}, verifier)
	verify := func(raw string) {
		_, _, err := c.Verify(t.Context(), raw)
		require.NoError(t, err)
	}
	n := 0
	for ; c.Stats().Bytes+entryBytes <= 20_000; n++ {
		verify(string(rune('a' + n)))
	}
	require.Zero(t, c.Stats().Evictions)
	verify("a")
	require.NotZero(t, c.Stats().Evictions, "there was no room for the entry")
	verify("a")
	require.Equal(t, n, calls)
}
