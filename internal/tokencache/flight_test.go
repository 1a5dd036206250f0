package tokencache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/tokencache"
)

// slow answers after a second, or at once when the caller's context ends.
type slow struct {
	verifier
	answer func(call int64) (*valetkey.Token, error) // nil: accepts
}

func (v *slow) Verify(ctx context.Context, raw string) (*valetkey.Token, error) {
	token, err := v.verifier.Verify(ctx, raw)
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return nil, fmt.Errorf("asking the issuer: %w", ctx.Err())
	}
	if v.answer != nil {
		return v.answer(v.calls.Load())
	}
	return token, err
}

func TestFlight(t *testing.T) {
	refusal := &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.NewReason("test_expired", "expired")}
	failure := errors.New("out of reach")

	// together runs n calls with one token at the same time, the first of them with ctx.
	together := func(t *testing.T, ctx context.Context, memory cache, n int) (entries []*tokencache.Entry, errs []error) {
		entries, errs = make([]*tokencache.Entry, n), make([]error, n)
		var wg sync.WaitGroup
		wg.Go(func() { entries[0], _, errs[0] = memory.Verify(ctx, "a") })
		synctest.Wait()
		for i := 1; i < n; i++ {
			wg.Go(func() { entries[i], _, errs[i] = memory.Verify(t.Context(), "a") })
		}
		wg.Wait()
		return entries, errs
	}

	for _, c := range []struct {
		name   string
		reuse  valetkey.Freshness
		answer func(call int64) (*valetkey.Token, error)
		calls  int64
		err    error
	}{
		{"a refusal is shared", valetkey.Freshness{}, func(int64) (*valetkey.Token, error) { return nil, refusal }, 1, refusal},
		{"a failure is shared", valetkey.Freshness{}, func(int64) (*valetkey.Token, error) { return nil, failure }, 1, failure},
		{"a token that may not be reused is not shared", valetkey.Freshness{}, nil, 1000, nil},
		{"a token whose condition does not hold is not shared", valetkey.Freshness{Until: time.Now().AddDate(100, 0, 0), While: gone()}, nil, 1000, nil},
		{"a token is shared", valetkey.Freshness{Until: time.Now().AddDate(100, 0, 0)}, nil, 1, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := &slow{answer: c.answer}
				v.reuse = func() valetkey.Freshness { return c.reuse }
				memory := newCache(t, tokencache.Config{}, v)
				_, errs := together(t, t.Context(), memory, 1000)
				for _, err := range errs {
					require.Equal(t, c.err, err)
				}
				assert.Equal(t, c.calls, v.calls.Load())
				if c.err != nil {
					_, _, err := memory.Verify(t.Context(), "a")
					assert.Equal(t, c.err, err)
					assert.Equal(t, c.calls+1, v.calls.Load(), "VCACHE-02 VCACHE-12 it is forgotten at once")
				}
			})
		})
	}

	t.Run("another takes over when the leader leaves without an answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := new(slow)
			memory := newCache(t, tokencache.Config{}, v)
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			entries, errs := together(t, ctx, memory, 100)
			assert.ErrorIs(t, errs[0], context.DeadlineExceeded)
			for i := 1; i < 100; i++ {
				require.NoError(t, errs[i])
				require.Equal(t, "2", entries[i].Token.ID())
			}
		})
	})
	t.Run("a refusal counts even if the leader has left meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			calls := 0
			memory := newCache(t, tokencache.Config{}, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
				calls++
				time.Sleep(time.Second)
				cancel()
				return nil, refusal
			}))
			_, errs := together(t, ctx, memory, 10)
			for _, err := range errs {
				require.Equal(t, error(refusal), err)
			}
			assert.Equal(t, 1, calls)
		})
	})
	t.Run("a waiting caller leaves with its context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := new(slow)
			memory := newCache(t, tokencache.Config{}, v)
			var wg sync.WaitGroup
			wg.Go(func() { assert.Equal(t, "1", memory.id("a")) })
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			start := time.Now()
			_, _, err := memory.Verify(ctx, "a")
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Equal(t, time.Millisecond, time.Since(start))
			wg.Wait()
			assert.Equal(t, "1", memory.id("a"))
		})
	})
	t.Run("a panic reaches the leader, and the others get a failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			memory := newCache(t, tokencache.Config{}, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
				time.Sleep(time.Second)
				panic("broken")
			}))
			var wg sync.WaitGroup
			wg.Go(func() {
				assert.PanicsWithValue(t, "broken", func() { memory.Verify(t.Context(), "a") })
			})
			synctest.Wait()
			wg.Go(func() {
				_, _, err := memory.Verify(t.Context(), "a")
				assert.ErrorContains(t, err, "panicked")
			})
			wg.Wait()
			assert.Panics(t, func() { memory.Verify(t.Context(), "a") }, "the next one asks again")
		})
	})
	t.Run("one token does not wait for another", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := new(slow)
			memory := newCache(t, tokencache.Config{Entries: 1}, v) // one shard
			start := time.Now()
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() { memory.id(fmt.Sprint(i)) })
			}
			wg.Wait()
			assert.Equal(t, time.Second, time.Since(start))
		})
	})
	t.Run("nothing remembered, nothing shared", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := new(slow)
			together(t, t.Context(), newCache(t, tokencache.Config{Entries: -1}, v), 10)
			assert.Equal(t, int64(10), v.calls.Load())
		})
	})
	t.Run("calls are counted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			memory := newCache(t, tokencache.Config{}, new(slow))
			together(t, t.Context(), memory, 10)
			memory.id("a")
			stats := memory.Stats()
			assert.Equal(t, uint64(10), stats.Misses)
			assert.Equal(t, uint64(1), stats.Hits)
			assert.Equal(t, 1, stats.Entries)
		})
	})
}

func gone() valetkey.Condition {
	c := new(condition)
	c.gone.Store(true)
	return c
}

// Many at once on few entries: whoever gets a token gets his own, and the bounds hold at every look.
func TestConcurrency(t *testing.T) {
	const entries = 40
	var key condition
	v := &verifier{reuse: func() valetkey.Freshness {
		return valetkey.Freshness{Until: time.Now().Add(time.Duration(rand.IntN(2_000_000))), While: &key}
	}}
	memory := newCache(t, tokencache.Config{Entries: entries, Bytes: 20_000}, v)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5_000 {
				raw := fmt.Sprint(rand.IntN(100))
				ctx, cancel := context.WithCancel(t.Context())
				e, _, err := memory.Verify(ctx, raw)
				cancel()
				if !assert.NoError(t, err) || !assert.Equal(t, raw, e.Token.Subject()) {
					return
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 200 {
			memory.Purge(func(token *valetkey.Token) bool { return token.Subject()[0] == '1'+byte(i%9) })
			key.gone.Store(i%2 == 0)
			s := memory.Stats()
			assert.LessOrEqual(t, s.Entries, entries)
			assert.LessOrEqual(t, s.Bytes, int64(20_000))
		}
	})
	wg.Wait()
	s := memory.Stats()
	assert.Equal(t, uint64(8*5_000), s.Hits+s.Misses)
	assert.Equal(t, s.Entries, memory.Purge(nil))
	assert.Zero(t, memory.Stats().Bytes)
}
