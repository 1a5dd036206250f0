package dpop_test

import (
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
)

// keyOf returns the proof of a client that has no other.
func keyOf(n uint64) (key [32]byte) { return sha256.Sum256(binary.LittleEndian.AppendUint64(nil, n)) }

// proofOf returns the nth proof of a client.
func proofOf(client string, n uint64) (key [32]byte) {
	key = sha256.Sum256(binary.LittleEndian.AppendUint64([]byte(client), n))
	holder := sha256.Sum256([]byte(client))
	copy(key[:8], holder[:])
	return key
}

func heap() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func TestMemoryReplays(t *testing.T) {
	t.Run("DPOP-42 who chooses the beginnings of his hashes fills no corner of it", func(t *testing.T) {
		m, until := dpop.NewReplays(0), time.Now().Add(time.Minute)
		for n := range uint64(100_000) { // a tenth of what there is room for
			var key [32]byte
			binary.BigEndian.PutUint64(key[8:], n)
			fresh, err := m.Use(t.Context(), key, until)
			require.NoError(t, err)
			require.True(t, fresh)
		}
	})
	use := func(t *testing.T, m *dpop.MemoryReplays, n uint64, life time.Duration) bool {
		t.Helper()
		fresh, err := m.Use(t.Context(), keyOf(n), time.Now().Add(life))
		require.NoError(t, err)
		return fresh
	}
	t.Run("DPOP-37 DPOP-43 a key is remembered until then, and forgotten soon after", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := dpop.NewReplays(0)
			require.True(t, use(t, m, 1, time.Minute))
			for range 60 {
				require.False(t, use(t, m, 1, time.Minute), "and its life does not slide")
				time.Sleep(time.Second)
			}
			time.Sleep(time.Second)
			require.True(t, use(t, m, 1, time.Minute))
		})
	})
	t.Run("DPOP-43 a key whose time is over is remembered for a moment", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := dpop.NewReplays(0)
			require.True(t, use(t, m, 1, -time.Hour))
			require.False(t, use(t, m, 1, -time.Hour))
		})
	})
	t.Run("DPOP-42 DPOP-44 it holds as many as it should, and then refuses until one has ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := dpop.NewReplays(100)
			for n := range uint64(100) {
				require.True(t, use(t, m, n, time.Minute+time.Duration(n)*time.Second))
			}
			fresh, err := m.Use(t.Context(), keyOf(100), time.Now().Add(time.Minute))
			require.False(t, fresh)
			var full *valetkey.Unavailable
			require.ErrorAs(t, err, &full)
			require.Equal(t, 61*time.Second, full.RetryAfter)
			require.False(t, use(t, m, 7, time.Minute), "what it holds it still knows")

			time.Sleep(full.RetryAfter)
			require.True(t, use(t, m, 100, time.Minute))
			_, err = m.Use(t.Context(), keyOf(101), time.Now().Add(time.Minute))
			require.ErrorAs(t, err, &full, "one has ended, not two")
			require.Equal(t, time.Second, full.RetryAfter)
		})
	})
	t.Run("DPOP-42 one client cannot fill it", func(t *testing.T) {
		for _, room := range []int{100, 1 << 16} {
			synctest.Test(t, func(t *testing.T) {
				m := dpop.NewReplays(room)
				until := time.Now().Add(time.Minute)
				taken, refused := uint64(0), 0
				for n := range uint64(2 * room) {
					fresh, err := m.Use(t.Context(), proofOf("mallory", n), until)
					if err != nil {
						var full *valetkey.Unavailable
						require.ErrorAs(t, err, &full)
						require.False(t, fresh)
						refused++
						continue
					}
					require.True(t, fresh)
					taken++
				}
				require.LessOrEqual(t, taken, uint64(room/4+64), "a quarter")
				require.Positive(t, refused)
				for n := range uint64(room / 8) {
					fresh, err := m.Use(t.Context(), proofOf("alice", n), until)
					require.NoError(t, err)
					require.True(t, fresh)
				}
				fresh, err := m.Use(t.Context(), proofOf("mallory", 0), until)
				require.NoError(t, err)
				require.False(t, fresh, "what is remembered stays remembered")

				time.Sleep(2 * time.Minute)
				fresh, err = m.Use(t.Context(), proofOf("mallory", 0), time.Now().Add(time.Minute))
				require.NoError(t, err, "its share is free again")
				require.True(t, fresh)
			})
		}
	})
	t.Run("DPOP-44 under a steady load it holds what is alive and not much more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := dpop.NewReplays(4 * 70 * 100) // four times what is alive at any time
			n := uint64(0)
			for range 600 {
				for range 100 {
					require.True(t, use(t, m, n, 70*time.Second))
					n++
				}
				time.Sleep(time.Second)
			}
			require.False(t, use(t, m, n-1, 70*time.Second))
		})
	})
	t.Run("after a flood it gives the memory back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := dpop.NewReplays(0)
			before := heap()
			for n := range uint64(1 << 17) {
				require.True(t, use(t, m, n, time.Minute))
			}
			full := heap()
			require.Greater(t, full, before+4<<20)
			time.Sleep(2 * time.Minute)
			for n := range uint64(1 << 13) {
				require.True(t, use(t, m, n, time.Minute))
			}
			require.Less(t, heap(), before+(full-before)/2)
		})
	})
	t.Run("DPOP-41 memory per proof is what the documentation says", func(t *testing.T) {
		const count = 1 << 17
		before := heap()
		m := dpop.NewReplays(2 * count)
		for n := range uint64(count) {
			require.True(t, use(t, m, n, time.Hour))
		}
		each := float64(heap()-before) / count
		t.Logf("%.0f bytes for each", each)
		require.Less(t, each, 75.0)
		runtime.KeepAlive(m)
	})
	t.Run("DPOP-39 of many at once with one key exactly one is fresh", func(t *testing.T) {
		m := dpop.NewReplays(0)
		var fresh atomic.Int64
		var wg sync.WaitGroup
		for i := range 8 * 500 {
			wg.Go(func() {
				ok, err := m.Use(t.Context(), keyOf(uint64(i%500)), time.Now().Add(time.Minute))
				assert.NoError(t, err)
				if ok {
					fresh.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 500, fresh.Load())
	})
}

func BenchmarkMemoryReplays(b *testing.B) {
	m := dpop.NewReplays(1 << 24)
	until := time.Now().Add(time.Second)
	b.ReportAllocs()
	for n := uint64(0); b.Loop(); n++ {
		if n%(1<<12) == 0 {
			until = time.Now().Add(time.Second)
		}
		if fresh, err := m.Use(b.Context(), keyOf(n), until); err != nil || !fresh {
			b.Fatal(fresh, err)
		}
	}
}
