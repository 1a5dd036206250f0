package storetest

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
)

// Bench measures the store that open returns with 10,000 records of 500 bytes and two keys each. The store must have room for
// all records.
func Bench(b *testing.B, open func(t testing.TB) store.Store) {
	const records = 10_000
	s := open(b)
	defer s.Close()
	owner := func(i int) store.Key { return store.Key{Name: "owner", Value: fmt.Sprint(i % (records / 10))} }
	record := func(i int) store.Record {
		return store.Record{
			Kind:    "grant",
			ID:      store.Digest(fmt.Sprint(i)),
			Keys:    []store.Key{owner(i), {Name: "token", Value: store.Digest(fmt.Sprint(-i))}},
			Expires: ahead(time.Hour),
			Value:   make([]byte, 500),
		}
	}
	stored := make([]store.Record, records)
	for i := range stored {
		stored[i] = put(b, s, record(i))
	}
	b.ResetTimer()
	next := records
	b.Run("Get", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := s.Get(b.Context(), "grant", stored[i%records].ID); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Find of 10", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			found, err := s.Find(b.Context(), "grant", owner(i), "", 100)
			if err != nil || len(found) < 10 {
				b.Fatal(len(found), err)
			}
		}
	})
	b.Run("Put again", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			stored[i%records] = put(b, s, stored[i%records])
		}
	})
	b.Run("Put new", func(b *testing.B) {
		for b.Loop() {
			put(b, s, record(next))
			next++
		}
	})
	b.Run("Put new in parallel", func(b *testing.B) {
		var n atomic.Int64
		n.Store(int64(next))
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Put(b.Context(), record(int(n.Add(1)))); err != nil {
					b.Error(err)
				}
			}
		})
		next = int(n.Load()) + 1
	})
}
