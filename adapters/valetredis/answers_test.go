package valetredis_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetredis"
)

func TestAnswers(t *testing.T) {
	var (
		s     = startServer(t)
		raw   = s.raw()
		ctx   = t.Context()
		key   = randomKey()
		a, _  = newRedis(t, newClient(t, s.addr, nil), key, nil)
		b, bl = newRedis(t, newClient(t, s.addr, nil), key, nil)
	)
	// names returns those of the answers in redis.
	names := func(t *testing.T) []string {
		t.Helper()
		all, err := raw.Keys(ctx, "valetkey:answer:*").Result()
		require.NoError(t, err)
		return all
	}
	empty := func(t *testing.T) { require.NoError(t, raw.FlushAll(ctx).Err()) }
	absent := func(t *testing.T, r *valetredis.Redis, key string) {
		t.Helper()
		value, err := r.Get(ctx, key)
		require.NoError(t, err)
		require.Nil(t, value)
	}
	present := func(t *testing.T, r *valetredis.Redis, key, want string) {
		t.Helper()
		value, err := r.Get(ctx, key)
		require.NoError(t, err)
		require.Equal(t, want, string(value))
	}

	t.Run("what was never set is absent", func(t *testing.T) {
		absent(t, a, "k")
	})
	t.Run("a value too large is not kept", func(t *testing.T) {
		empty(t)
		require.ErrorContains(t, a.Set(ctx, "k", make([]byte, (64<<10)+1), time.Minute), "65537 bytes")
		require.Empty(t, names(t))
	})
	t.Run("a value without a lifetime is not kept", func(t *testing.T) {
		empty(t)
		for _, lifetime := range []time.Duration{-time.Hour, 0, time.Microsecond} {
			require.NoError(t, a.Set(ctx, "k", []byte("v"), lifetime))
		}
		require.Empty(t, names(t))
	})
	t.Run("under another key it is absent", func(t *testing.T) {
		empty(t)
		require.NoError(t, a.Set(ctx, "k", []byte("v"), time.Minute))
		other, log := newRedis(t, newClient(t, s.addr, nil), randomKey(), func(cfg *valetredis.Config) { cfg.PreviousKeys = [][]byte{key} })
		absent(t, other, "k")
		assert.Empty(t, log.String())
	})
	t.Run("under another prefix it is absent", func(t *testing.T) {
		empty(t)
		require.NoError(t, a.Set(ctx, "k", []byte("v"), time.Minute))
		other, _ := newRedis(t, newClient(t, s.addr, nil), key, func(cfg *valetredis.Config) { cfg.Prefix = "other:" })
		absent(t, other, "k")
	})
	t.Run("whoever writes to redis cannot exchange answers, and one log line reports it", func(t *testing.T) {
		empty(t)
		require.NoError(t, a.Set(ctx, "revoked", []byte("no"), time.Minute))
		victim := names(t)[0]
		require.NoError(t, a.Set(ctx, "admin", []byte("yes"), time.Minute))
		for _, name := range names(t) {
			if name != victim {
				require.NoError(t, raw.Copy(ctx, name, victim, 0, true).Err())
			}
		}
		for range 10 {
			absent(t, b, "revoked")
		}
		present(t, b, "admin", "yes")
		assert.Equal(t, 1, bl.count("one is ignored"), bl)
	})
	t.Run("a value of another writer is not read beyond the limit", func(t *testing.T) {
		empty(t)
		require.NoError(t, a.Set(ctx, "k", []byte("v"), time.Minute))
		require.NoError(t, raw.Append(ctx, names(t)[0], strings.Repeat("x", 10<<20)).Err())
		before := s.stat("stats", "total_net_output_bytes:")
		absent(t, a, "k")
		assert.Less(t, s.stat("stats", "total_net_output_bytes:")-before, 1<<20)
	})
	for _, c := range []struct {
		name   string
		change func(sealed string) string
	}{
		{"a bit changed", func(s string) string { return s[:20] + string([]byte{s[20] ^ 1}) + s[21:] }},
		{"the end cut off", func(s string) string { return s[:len(s)-1] }},
		{"something behind it", func(s string) string { return s + "x" }},
		{"shorter than a nonce", func(s string) string { return s[:5] }},
	} {
		t.Run("changed in redis it is absent: "+c.name, func(t *testing.T) {
			empty(t)
			require.NoError(t, a.Set(ctx, "k", []byte("a value"), time.Minute))
			name := names(t)[0]
			sealed, err := raw.Get(ctx, name).Result()
			require.NoError(t, err)
			require.NoError(t, raw.Set(ctx, name, c.change(sealed), time.Minute).Err())
			absent(t, a, "k")
			require.NoError(t, raw.Set(ctx, name, sealed, time.Minute).Err())
			present(t, a, "k", "a value")
		})
	}
	t.Run("whoever writes to redis cannot make an answer last", func(t *testing.T) {
		empty(t)
		require.NoError(t, a.Set(ctx, "k", []byte("v"), 2*time.Second))
		persisted, err := raw.Persist(ctx, names(t)[0]).Result()
		require.NoError(t, err)
		require.True(t, persisted)
		eventually(t, "it ends", func() bool { value, err := a.Get(ctx, "k"); return err == nil && value == nil })
		require.Len(t, names(t), 1, "redis still has it")
	})
	t.Run("redis forgets it after its lifetime", func(t *testing.T) {
		empty(t)
		require.NoError(t, a.Set(ctx, "k", []byte("v"), time.Minute))
		left, err := raw.PTTL(ctx, names(t)[0]).Result()
		require.NoError(t, err)
		assert.Greater(t, left, 30*time.Second)
		assert.LessOrEqual(t, left, time.Minute)
	})
	t.Run("neither key nor value can be read in redis", func(t *testing.T) {
		empty(t)
		require.NoError(t, a.Set(ctx, "the-key", []byte("the-value"), time.Minute))
		name := names(t)[0]
		sealed, err := raw.Get(ctx, name).Result()
		require.NoError(t, err)
		assert.NotContains(t, name+sealed, "the-key")
		assert.NotContains(t, name+sealed, "the-value")
		assert.Len(t, name, len("valetkey:answer:")+43)
	})
	t.Run("one sets and another gets", func(t *testing.T) {
		empty(t)
		large := strings.Repeat("v", (64 << 10))
		require.NoError(t, a.Set(ctx, "k", []byte("first"), time.Minute))
		present(t, b, "k", "first")
		require.NoError(t, b.Set(ctx, "k", []byte(large), time.Minute))
		present(t, a, "k", large)
		require.NoError(t, b.Set(ctx, "k", nil, time.Minute))
		value, err := a.Get(ctx, "k")
		require.NoError(t, err)
		require.NotNil(t, value, "empty is not absent")
		require.Empty(t, value)
	})
}

func TestAnswersWhenRedisGoesAndComesBack(t *testing.T) {
	s := startServer(t)
	r, log := newRedis(t, newClient(t, s.addr, nil), randomKey(), func(cfg *valetredis.Config) { cfg.Timeout = 500 * time.Millisecond })
	ctx := context.Background()
	eventually(t, "an answer is kept", func() bool { return r.Set(ctx, "k", []byte("v"), time.Minute) == nil })
	require.NoError(t, s.raw().Save(ctx).Err())

	last := time.Now() // before the last call that reached for redis
	s.kill()
	for range 3 {
		_, err := r.Get(ctx, "k")
		require.Error(t, err)
	}
	health := r.Health()[0]
	assert.Equal(t, valetkey.Degraded, health.State)
	require.Error(t, health.Err)
	probes, stopped := 0, 0
	eventually(t, "a probe is let through now and then", func() bool {
		begun := time.Now()
		if _, err := r.Get(ctx, "k"); strings.Contains(err.Error(), "not asked for a while") {
			stopped++
		} else {
			// A probe is due two thirds of a second after the last one at the earliest.
			assert.True(t, stopped > 0 || time.Since(last) > 600*time.Millisecond, "not one after the other")
			probes, stopped, last = probes+1, 0, begun
		}
		return probes == 3
	})

	s.start()
	eventually(t, "the answer is found again", func() bool {
		value, err := r.Get(ctx, "k")
		return err == nil && string(value) == "v"
	})
	again := r.Health()[0]
	assert.Equal(t, valetkey.Ready, again.State)
	assert.NoError(t, again.Err)
	assert.True(t, again.Since.After(health.Since))
	assert.Equal(t, 1, log.count("redis does not answer"), log)
	assert.Equal(t, 1, log.count("redis answers again"), log)
}
