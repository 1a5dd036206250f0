package login_test

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/login"
)

func limiter(t testing.TB, rate login.Rate, size int) *login.Limiter {
	t.Helper()
	l, err := login.NewLimiter(rate, size)
	require.NoError(t, err)
	return l
}

// wait returns the RetryAfter of the refusal; zero: it was allowed.
func wait(t testing.TB, err error) time.Duration {
	t.Helper()
	if err == nil {
		return 0
	}
	var tooMany *login.TooMany
	require.ErrorAs(t, err, &tooMany)
	require.Positive(t, tooMany.RetryAfter)
	return tooMany.RetryAfter
}

func TestLimiter(t *testing.T) {
	t.Run("a burst is allowed, and then one each time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := limiter(t, login.Rate{Burst: 3, Every: time.Minute}, 0)
			for range 3 {
				require.NoError(t, l.Allow("alice"))
			}
			for range 100 {
				require.Equal(t, time.Minute, wait(t, l.Allow("alice")), "a refused attempt counts nothing")
			}
			require.NoError(t, l.Allow("bob"), "another key")

			time.Sleep(time.Minute - 1)
			require.Equal(t, time.Duration(1), wait(t, l.Allow("alice")))
			time.Sleep(time.Nanosecond)
			require.NoError(t, l.Allow("alice"), "as was said")
			require.Equal(t, time.Minute, wait(t, l.Allow("alice")))

			time.Sleep(24 * time.Hour)
			for range 3 {
				require.NoError(t, l.Allow("alice"))
			}
			require.Error(t, l.Allow("alice"), "a day of rest earns one burst, not more")
		})
	})
	t.Run("a restored attempt is allowed again, and no others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := limiter(t, login.Rate{Burst: 3, Every: time.Minute}, 0)
			l.Restore("alice")
			for range 100 {
				require.NoError(t, l.Allow("alice"))
				l.Restore("alice")
			}
			for range 3 {
				require.NoError(t, l.Allow("alice"))
			}
			l.Restore("bob")
			require.Error(t, l.Allow("alice"))
		})
	})
	t.Run("a flood of keys frees no limited one", func(t *testing.T) {
		l := limiter(t, login.Rate{Burst: 5, Every: time.Hour}, 100)
		for range 5 {
			require.NoError(t, l.Allow("alice"))
		}
		for i := range 200 {
			require.NoError(t, l.Allow(strconv.Itoa(i)), "and they do not hinder each other at once")
		}
		require.Error(t, l.Allow("alice"))
	})
	t.Run("an attacker who fills the table makes new keys wait, and frees none", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := limiter(t, login.Rate{Burst: 5, Every: time.Hour}, 10)
			for range 5 {
				require.NoError(t, l.Allow("alice"))
			}
			allowed := 0
			for i := range 1000 {
				if l.Allow(strconv.Itoa(i)) == nil {
					allowed++
				}
			}
			assert.Equal(t, 9*5, allowed, "what the other buckets hold")
			require.Error(t, l.Allow("alice"))
			require.Error(t, l.Allow("a newcomer"))
			time.Sleep(time.Hour)
			require.NoError(t, l.Allow("a newcomer"))
		})
	})
	t.Run("an invalid rate is refused", func(t *testing.T) {
		for _, rate := range []login.Rate{{}, {Burst: 1}, {Every: 1}, {Burst: -1, Every: 1}, {Burst: 1, Every: -1}, {Burst: 1 << 40, Every: time.Hour}} {
			_, err := login.NewLimiter(rate, -1)
			require.ErrorContains(t, err, "rate: ")
			require.ErrorContains(t, err, "size: ")
		}
	})
}

// FuzzLimiter asserts that a small table never allows an attempt that a table with room for all keys would refuse.
func FuzzLimiter(f *testing.F) {
	f.Add([]byte("aaaabcdefabcdefaaaa"))
	f.Add([]byte{1, 1, 200, 1, 2, 3, 4, 5, 250, 1, 1, 1})
	f.Add([]byte{128, 129, 130, 131, 0, 4, 176, 177, 0, 0, 5, 178, 5, 0})
	f.Fuzz(func(t *testing.T, steps []byte) {
		synctest.Test(t, func(t *testing.T) {
			rate := login.Rate{Burst: 3, Every: time.Minute}
			small, large := limiter(t, rate, 4), limiter(t, rate, 0)
			var pending []string // attempts that are still to be restored
			for _, step := range steps {
				if step >= 192 {
					time.Sleep(time.Duration(step-191) * time.Second)
				}
				key := strconv.Itoa(int(step % 16))
				allowed := small.Allow(key) == nil
				if allowed && large.Allow(key) != nil {
					t.Fatalf("key %s was allowed too often", key)
				}
				if allowed && step >= 128 {
					pending = append(pending, key)
				}
				if step%64 >= 48 && len(pending) > 0 { // of an earlier attempt, perhaps after its key was displaced
					small.Restore(pending[0])
					large.Restore(pending[0])
					pending = pending[1:]
				}
			}
		})
	})
}

func BenchmarkLimiterUnderFlood(b *testing.B) {
	l := limiter(b, login.Rate{Burst: 10, Every: time.Minute}, 0)
	keys := make([]string, 1<<18) // four times the table
	for i := range keys {
		keys[i] = "192.0.2." + strconv.Itoa(i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_ = l.Allow(keys[i%len(keys)])
	}
}
