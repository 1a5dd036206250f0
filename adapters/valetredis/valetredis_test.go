package valetredis_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetredis"
)

func TestNew(t *testing.T) {
	good := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true})
	defer good.Close()
	careless := redis.NewClient(&redis.Options{})
	defer careless.Close()
	cluster := redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true})
	defer cluster.Close()
	sentinels := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "orders", SentinelAddrs: []string{"127.0.0.1:1"}, ContextTimeoutEnabled: true})
	defer sentinels.Close()
	lagging := redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, RouteByLatency: true})
	defer lagging.Close()
	wrapped := struct{ redis.UniversalClient }{good}
	ring := redis.NewRing(&redis.RingOptions{ContextTimeoutEnabled: true})
	defer ring.Close()
	key := randomKey()
	for _, c := range []struct {
		name    string
		cfg     valetredis.Config
		mistake string // "": none
	}{
		{"no client", valetredis.Config{Key: key}, "Client: missing"},
		{"a nil client", valetredis.Config{Client: (*redis.Client)(nil), Key: key}, "Client: it does not keep to deadlines"},
		{"a client that waits past a deadline", valetredis.Config{Client: careless, Key: key}, "Client: it does not keep to deadlines: set ContextTimeoutEnabled"},
		{"a ring", valetredis.Config{Client: ring, Key: key}, "Client: a redis.Ring would lose revocations"},
		{"no key", valetredis.Config{Client: good}, "Key: 0 bytes, not 32"},
		{"a key too short", valetredis.Config{Client: good, Key: key[1:]}, "Key: 31 bytes, not 32"},
		{"a previous key too long", valetredis.Config{Client: good, Key: key, PreviousKeys: [][]byte{key, append(key[:32:32], 0)}}, "PreviousKeys[1]: 33 bytes, not 32"},
		{"a negative timeout", valetredis.Config{Client: good, Key: key, Timeout: -1}, "Timeout: -1ns is negative"},
		{"a negative time to keep", valetredis.Config{Client: good, Key: key, Keep: -time.Hour}, "Keep: -1h0m0s is negative"},
		{"a cluster that is read from replicas", valetredis.Config{Client: lagging, Key: key}, "Client: it reads from replicas, which lag: unset ReadOnly, RouteByLatency and RouteRandomly"},
		{"a negative number of replicas", valetredis.Config{Client: good, Key: key, MinReplicas: -1}, "MinReplicas: -1 is negative"},
		{"replicas that need not confirm", valetredis.Config{Client: cluster, Key: key, MinReplicas: 2, AllowUnreplicated: true}, "AllowUnreplicated: cannot be combined with MinReplicas"},
		{"replicas behind a client whose connections are unknown", valetredis.Config{Client: wrapped, Key: key, MinReplicas: 1}, "MinReplicas: requires a *redis.Client or a *redis.ClusterClient"},
		{"a client of sentinels", valetredis.Config{Client: sentinels, Key: key, AllowUnreplicated: true}, ""},
		{"a client of the program", valetredis.Config{Client: wrapped, Key: key}, ""},
		{"a client and a key", valetredis.Config{Client: good, Key: key}, ""},
		{"a client of a cluster", valetredis.Config{Client: cluster, Key: key, PreviousKeys: [][]byte{randomKey()}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := valetredis.New(c.cfg)
			if c.mistake != "" {
				require.ErrorContains(t, err, c.mistake)
				return
			}
			require.NoError(t, err)
			health := r.Health()
			require.Len(t, health, 1, "no guard follows yet")
			assert.Equal(t, valetkey.Ready, health[0].State)
		})
	}
	t.Run("all mistakes at once", func(t *testing.T) {
		_, err := valetredis.New(valetredis.Config{Key: key[:5], PreviousKeys: [][]byte{nil}, Timeout: -1, Keep: -1})
		var fields []string
		for _, m := range valetkey.ConfigErrors(err) {
			fields = append(fields, m.Field)
			require.ErrorContains(t, err, "valetredis: "+m.Error())
		}
		require.Equal(t, []string{"Client", "Key", "PreviousKeys[0]", "Timeout", "Keep"}, fields)
		require.NotContains(t, err.Error(), string(key[:5]))
	})
}

func TestSilentRedis(t *testing.T) {
	const timeout = 50 * time.Millisecond // the default
	// within allows for a machine that has other things to do; without our deadlines it would be the patience of the client.
	within := func(t *testing.T, what string, call func()) (took time.Duration) {
		t.Helper()
		begun := time.Now()
		call()
		took = time.Since(begun)
		require.Less(t, took, timeout+bound, what)
		return took
	}
	for _, c := range []struct {
		name string
		addr func(t testing.TB) string
	}{
		{"no listener", freeAddr},
		{"a listener that never answers", func(t testing.TB) string { _, addr := startSilent(t, "127.0.0.1:0"); return addr }},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := redis.NewClient(&redis.Options{Addr: c.addr(t), ContextTimeoutEnabled: true, ReadTimeout: patience})
			t.Cleanup(func() { client.Close() })
			r, log := newRedis(t, client, randomKey(), func(cfg *valetredis.Config) { cfg.Timeout = 0 })
			within(t, "Get", func() {
				value, err := r.Get(t.Context(), "the-key-of-a-token")
				require.ErrorContains(t, err, "valetredis: looking up an answer: ")
				require.Nil(t, value)
				require.NotContains(t, err.Error(), "the-key-of-a-token")
			})
			assert.Equal(t, valetkey.Ready, r.Health()[0].State, "one failure may be chance")
			within(t, "Set", func() {
				err := r.Set(t.Context(), "the-key-of-a-token", []byte("the-value"), time.Minute)
				require.ErrorContains(t, err, "valetredis: keeping an answer: ")
				require.NotContains(t, err.Error(), "the-value")
			})
			_, err := r.Get(t.Context(), "k")
			require.Error(t, err)
			assert.Equal(t, valetkey.Degraded, r.Health()[0].State)
			require.Error(t, r.Health()[0].Err)

			asked := 0
			took := within(t, "1,000 calls while the breaker is open", func() {
				for range 1000 {
					_, err := r.Get(t.Context(), "k")
					require.Error(t, err)
					if !strings.Contains(err.Error(), "not asked for a while") {
						asked++
					}
				}
			})
			require.LessOrEqual(t, asked, 2+int(took/(600*time.Millisecond)), "probes")
			within(t, "Publish", func() {
				require.ErrorContains(t, r.Publish(t.Context(), valetkey.Revocation{Issuer: "i", ID: "1"}), "publishing a revocation")
			})
			assert.Equal(t, 1, log.count("redis: answers: redis does not answer"), log)
			assert.NotContains(t, log.String(), "the-")
		})
	}
	t.Run("a caller who leaves is not taken for a failure of redis", func(t *testing.T) {
		_, addr := startSilent(t, "127.0.0.1:0")
		r, log := newRedis(t, newClient(t, addr, nil), randomKey(), nil)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for range 10 {
			_, err := r.Get(gone, "k")
			require.ErrorIs(t, err, context.Canceled)
		}
		assert.Equal(t, valetkey.Ready, r.Health()[0].State)
		assert.Empty(t, log.String())
	})
}

func BenchmarkGet(b *testing.B) {
	b.Run("redis is there", func(b *testing.B) {
		r, _ := newRedis(b, newClient(b, startServer(b).addr, nil), randomKey(), nil)
		require.NoError(b, r.Set(b.Context(), "k", make([]byte, 1000), time.Hour))
		for b.Loop() {
			if value, err := r.Get(b.Context(), "k"); err != nil || value == nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("redis is gone", func(b *testing.B) {
		r, _ := newRedis(b, newClient(b, freeAddr(b), nil), randomKey(), func(cfg *valetredis.Config) { cfg.Timeout = 0 })
		for b.Loop() {
			if _, err := r.Get(b.Context(), "k"); err == nil {
				b.Fatal("there is a redis")
			}
		}
	})
}

func BenchmarkUse(b *testing.B) {
	for _, n := range []int{0, 1} {
		b.Run(fmt.Sprint("confirmed by ", n), func(b *testing.B) {
			primary := startServer(b)
			startServer(b, primary.replicaOf()...)
			r, _ := newRedis(b, newClient(b, primary.addr, nil), randomKey(), withReplicas(n))
			use := func() error {
				_, err := r.Use(b.Context(), [32]byte(randomKey()), time.Now().Add(time.Minute))
				return err
			}
			eventually(b, "the replica is there", func() bool { return use() == nil })
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if err := use(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
