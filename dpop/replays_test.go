package dpop_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
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
	"github.com/valetkey/valetkey/valetkeytest"
)

// keyOf returns the proof of a client that has no other.
func keyOf(n uint64) (key [32]byte) { return sha256.Sum256(binary.LittleEndian.AppendUint64(nil, n)) }

// heap returns the bytes that are reachable. What pools and cleanups of other tests hold takes more than one collection.
func heap() uint64 {
	var stats runtime.MemStats
	for last := uint64(math.MaxUint64); ; last = stats.HeapAlloc {
		runtime.GC()
		if runtime.ReadMemStats(&stats); stats.HeapAlloc+4<<10 >= last {
			return stats.HeapAlloc
		}
	}
}

func TestMemoryReplays(t *testing.T) {
	t.Run("DPOP-42 hashes with chosen beginnings do not fill one part of it", func(t *testing.T) {
		m, until := dpop.NewReplayStore(0), time.Now().Add(time.Minute)
		for n := range uint64(100_000) { // a tenth of what there is room for
			var key [32]byte
			binary.BigEndian.PutUint64(key[8:], n)
			fresh, err := m.Use(t.Context(), key, until)
			require.NoError(t, err)
			require.True(t, fresh)
		}
	})
	use := func(t *testing.T, m *dpop.MemoryReplayStore, n uint64, life time.Duration) bool {
		t.Helper()
		fresh, err := m.Use(t.Context(), keyOf(n), time.Now().Add(life))
		require.NoError(t, err)
		return fresh
	}
	t.Run("DPOP-37 DPOP-43 a key is remembered until then, and forgotten soon after", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := dpop.NewReplayStore(0)
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
			m := dpop.NewReplayStore(0)
			require.True(t, use(t, m, 1, -time.Hour))
			require.False(t, use(t, m, 1, -time.Hour))
		})
	})
	t.Run("DPOP-42 DPOP-44 it holds as many as it should, and then refuses until one has ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := dpop.NewReplayStore(100)
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
	t.Run("DPOP-44 under a steady load it holds what is alive and not much more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := dpop.NewReplayStore(4 * 70 * 100) // four times what is alive at any time
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
			m := dpop.NewReplayStore(0)
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
			runtime.KeepAlive(m)
		})
	})
	t.Run("DPOP-41 memory per proof is as documented", func(t *testing.T) {
		const count = 1 << 17
		before := heap()
		m := dpop.NewReplayStore(2 * count)
		for n := range uint64(count) {
			require.True(t, use(t, m, n, time.Hour))
		}
		each := float64(heap()-before) / count
		t.Logf("%.0f bytes for each", each)
		require.Less(t, each, 75.0)
		runtime.KeepAlive(m)
	})
	t.Run("DPOP-39 of many at once with one key exactly one is fresh", func(t *testing.T) {
		m := dpop.NewReplayStore(0)
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

// Shares of a small memory, where one user has room for 22 proofs: then a third of what is free beyond the reserve of 12 is less.
func TestSharesOverTime(t *testing.T) {
	in := func(name string, f func(t *testing.T, use func(n int, client, user string) (accepted int))) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := dpop.NewReplayStore(100)
				proof := uint64(0)
				f(t, func(n int, client, user string) (accepted int) {
					for range n {
						proof++
						fresh, err := m.UseBy(keyOf(proof), client, user, time.Now().Add(time.Minute))
						require.Equal(t, err == nil, fresh)
						if fresh {
							accepted++
						}
					}
					return accepted
				})
			})
		})
	}
	in("DPOP-42 a share is free again as far as its proofs have ended", func(t *testing.T, use func(int, string, string) int) {
		require.Equal(t, 11, use(11, "app", "mallory"))
		time.Sleep(40 * time.Second)
		require.Equal(t, 11, use(100, "app", "mallory"))
		time.Sleep(40 * time.Second)
		require.Equal(t, 11, use(100, "app", "mallory"))
		time.Sleep(2 * time.Minute)
		require.Equal(t, 22, use(100, "app", "mallory"))
	})
	in("DPOP-42 names that are the same one after the other are not the same", func(t *testing.T, use func(int, string, string) int) {
		require.Equal(t, 22, use(100, "app", "mallory"))
		require.Equal(t, 10, use(10, "appm", "allory"))
		require.Equal(t, 0, use(1, "app", "mallory"))
	})
	t.Run("DPOP-42 a proof that is used again after its end takes its place only once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := dpop.NewReplayStore(100)
			_, err := m.UseBy(keyOf(0), "another", "bob", time.Now().Add(365*24*time.Hour)) // so that the memory is never empty
			require.NoError(t, err)
			for range 1000 {
				fresh, err := m.UseBy(keyOf(1), "app", "alice", time.Now().Add(time.Minute))
				require.NoError(t, err)
				require.True(t, fresh)
				time.Sleep(2 * time.Minute)
			}
			for n := range uint64(20) {
				fresh, err := m.UseBy(keyOf(2+n), "app", "alice", time.Now().Add(time.Minute))
				require.NoError(t, err)
				require.True(t, fresh)
			}
		})
	})
	t.Run("DPOP-42 clients that have gone take no memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := dpop.NewReplayStore(1000)
			client := 0
			use := func(n int, life time.Duration) {
				for range n {
					client++
					fresh, err := m.UseBy(keyOf(uint64(client)), fmt.Sprint("client", client), "alice", time.Now().Add(life))
					require.NoError(t, err)
					require.True(t, fresh)
				}
			}
			use(1, 24*time.Hour) // so that the memory is never empty
			use(100, time.Minute)
			before := heap()
			for range 200 {
				time.Sleep(2 * time.Minute)
				use(100, time.Minute)
			}
			require.Less(t, heap(), before+200<<10)
			runtime.KeepAlive(m)
		})
	})
}

// A sender makes proofs, each with a new key if fresh is set.
type sender struct {
	t                    *testing.T
	proofs               *dpop.Verifier
	iss                  *valetkeytest.Issuer
	issuer, client, user string
	key                  *valetkeytest.ProofKey
	accepted, full       int
}

// send uses up n proofs, of a new key for every tenth.
func (s *sender) send(n int) *sender {
	s.t.Helper()
	for i := range n {
		if i%10 == 0 || s.key == nil {
			s.key = s.iss.ProofKey("ES256")
		}
		r := request(s.key)
		r.Issuer, r.ClientID, r.Subject = s.issuer, s.client, s.user
		_, err := s.proofs.Verify(s.t.Context(), r)
		full := new(valetkey.Unavailable)
		if err == nil {
			s.accepted++
		} else {
			require.ErrorAs(s.t, err, &full)
			require.Positive(s.t, full.RetryAfter)
			s.full++
		}
	}
	return s
}

func TestSharesOfTheMemoryOfProofs(t *testing.T) {
	const room = 400
	for _, c := range []struct {
		name   string
		memory func() dpop.ReplayStore
	}{
		{"in this process", func() dpop.ReplayStore { return dpop.NewReplayStore(room) }},
		{"in a memory without a bound that replicas share", func() dpop.ReplayStore { return dpop.NewReplayStore(room).Before(new(boundless)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t)
			// No proof ends before the test does.
			still := func(name string, f func(t *testing.T)) {
				t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
			}
			senders := func(t *testing.T) func(issuer, client, user string) *sender {
				proofs := newVerifier(t, dpop.Config{ReplayStore: c.memory()})
				return func(issuer, client, user string) *sender {
					return &sender{t: t, proofs: proofs, iss: iss, issuer: issuer, client: client, user: user}
				}
			}
			still("DPOP-42 one user of a client cannot fill it, with however many keys", func(t *testing.T) {
				of := senders(t)
				mallory := of("i", "app", "mallory").send(room)
				require.InDelta(t, room/4, mallory.accepted, room/25)
				require.Equal(t, room/8, of("i", "app", "alice").send(room/8).accepted)
				require.Equal(t, room/8, of("i", "other", "mallory").send(room/8).accepted, "that the issuer gives another client's users names does not matter")
			})
			still("DPOP-42 one client cannot fill it, with however many users and keys", func(t *testing.T) {
				of := senders(t)
				taken := 0
				for n := range room {
					taken += of("i", "mallory", fmt.Sprint(n)).send(1).accepted
				}
				require.InDelta(t, room/2, taken, room/12)
				require.Equal(t, room/16, of("i", "app", "alice").send(room/16).accepted)
				require.Equal(t, room/16, of("another", "mallory", "alice").send(room/16).accepted, "a client of this name at another issuer")
			})
			still("DPOP-42 nor can one without a user, nor a user without a client", func(t *testing.T) {
				of := senders(t)
				require.InDelta(t, room/4, of("i", "", "mallory").send(room/2).accepted, room/25)
				taken := of("i", "app", "").send(room).accepted
				require.Less(t, taken, room/2)
				require.Equal(t, 10, of("i", "other", "").send(10).accepted)
			})
			still("DPOP-42 forty clients leave room for others", func(t *testing.T) {
				of := senders(t)
				for n := range 40 {
					for user := range 20 {
						of("i", fmt.Sprint("mallory", n), fmt.Sprint(user)).send(3)
					}
				}
				for n := range 10 {
					require.Equal(t, 1, of("i", fmt.Sprint("app", n), "alice").send(1).accepted)
				}
			})
			still("DPOP-42 what is remembered stays remembered when a share is used up", func(t *testing.T) {
				proofs := newVerifier(t, dpop.Config{ReplayStore: c.memory()})
				first := request(iss.ProofKey("ES256"))
				first.ClientID, first.Subject = "app", "mallory"
				_, err := proofs.Verify(t.Context(), first)
				require.NoError(t, err)
				mallory := &sender{t: t, proofs: proofs, iss: iss, client: "app", user: "mallory"}
				require.Positive(t, mallory.send(room).full)
				_, err = proofs.Verify(t.Context(), first)
				requireRefusal(t, err, valetkey.InvalidProof, "used before")
				first.ClientID = "another"
				_, err = proofs.Verify(t.Context(), first)
				requireRefusal(t, err, valetkey.InvalidProof, "used before")
			})
		})
	}
	t.Run("DPOP-44 a proof is not used when the shared memory fails", func(t *testing.T) {
		shared := new(boundless)
		proofs := newVerifier(t, dpop.Config{ReplayStore: shared})
		r := request(valetkeytest.NewIssuer(t).ProofKey("ES256"))
		shared.fails = true
		_, err := proofs.Verify(t.Context(), r)
		require.ErrorIs(t, err, errGone)
		shared.fails = false
		_, err = proofs.Verify(t.Context(), r)
		require.NoError(t, err)
		asked := shared.asked.Load()
		_, err = proofs.Verify(t.Context(), r)
		requireRefusal(t, err, valetkey.InvalidProof, "used before")
		require.Equal(t, asked, shared.asked.Load(), "this process knows it")
	})
	t.Run("a share is free again when its proofs have ended", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		synctest.Test(t, func(t *testing.T) {
			proofs := newVerifier(t, dpop.Config{ReplayStore: dpop.NewReplayStore(room)})
			mallory := &sender{t: t, proofs: proofs, iss: iss, client: "app", user: "mallory"}
			taken := mallory.send(room / 2).accepted
			require.Less(t, taken, room/2)
			time.Sleep(2 * time.Minute)
			mallory.accepted = 0
			require.Equal(t, taken, mallory.send(room/2).accepted)
		})
	})
}

var errGone = errors.New("gone")

// A boundless memory is one that replicas share.
type boundless struct {
	used  sync.Map
	fails bool
	asked atomic.Int64
}

func (b *boundless) Use(_ context.Context, key [32]byte, _ time.Time) (bool, error) {
	b.asked.Add(1)
	if b.fails {
		return false, errGone
	}
	_, known := b.used.LoadOrStore(key, true)
	return !known, nil
}

func BenchmarkMemoryReplays(b *testing.B) {
	m := dpop.NewReplayStore(1 << 24)
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
