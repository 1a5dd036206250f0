package middleware_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// A counted verifier accepts every token for an hour, with its text as subject and the first letter as issuer.
type counted struct{ calls atomic.Int64 }

func (v *counted) Verify(_ context.Context, raw string) (*valetkey.Token, error) {
	v.calls.Add(1)
	end := time.Now().Add(time.Hour)
	return valetkey.NewToken(valetkey.TokenFields{Issuer: raw[:1], Subject: raw, Expiry: end, Deadline: end, Freshness: valetkey.Freshness{Until: end}}), nil
}

func TestPreviousHandsOverRevocations(t *testing.T) {
	subject := func(s string) valetkey.Revocation { return valetkey.Revocation{Issuer: s[:1], Subject: s} }
	all := func(*valetkey.Token) bool { return true }
	t.Run("one that was received before", func(t *testing.T) {
		first := guardWith(t, new(counted))
		require.NoError(t, first.Revoke(subject("a1")))
		second := guardWith(t, new(counted), func(c *middleware.Config) { c.Previous = first })
		third := guardWith(t, new(counted), func(c *middleware.Config) { c.Previous = second })
		assert.Equal(t, 401, status(third, "a1"))
		assert.Equal(t, 200, status(third, "a2"))
		assert.Equal(t, 1, third.Status().Revocations.Held)
	})
	t.Run("one that either receives later applies to both, also to cached tokens", func(t *testing.T) {
		first := guardWith(t, new(counted))
		require.Equal(t, 200, status(first, "a1"))
		second := guardWith(t, new(counted), func(c *middleware.Config) { c.Previous, c.KeepCached = first, all })
		for _, g := range []*middleware.Guard{first, second} {
			require.Equal(t, 200, status(g, "a1"))
			require.Equal(t, 200, status(g, "a2"))
		}
		require.NoError(t, second.Revoke(subject("a1")))
		require.NoError(t, first.Revoke(subject("a2")))
		for _, g := range []*middleware.Guard{first, second} {
			assert.Equal(t, 401, status(g, "a1"))
			assert.Equal(t, 401, status(g, "a2"))
		}
	})
	t.Run("a request in progress of Previous ends with its token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			first := guardWith(t, new(counted), cancels)
			second := guardWith(t, new(counted), cancels, func(c *middleware.Config) { c.Previous = first })
			time.AfterFunc(time.Second, func() { assert.NoError(t, second.Revoke(subject("x"))) })
			lasted, cause := waiting(t, first)
			assert.Equal(t, time.Second, lasted)
			assert.Equal(t, valetkey.ReasonRevoked, reasonOf(cause))
		})
	})
	t.Run("a source that has caught up need not catch up again, and one Watch serves all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			publish := make(chan valetkey.Revocation)
			first := guardWith(t, new(counted), func(c *middleware.Config) { c.Revocations.Source = published(publish) })
			require.Equal(t, 503, status(first, "a1"))
			ctx, cancel := context.WithCancel(t.Context())
			go first.Watch(ctx)
			synctest.Wait()
			second := guardWith(t, new(counted), func(c *middleware.Config) { c.Previous = first })
			assert.Equal(t, 200, status(second, "a1"))
			publish <- subject("a1")
			synctest.Wait()
			assert.Equal(t, 401, status(second, "a1"))
			assert.Equal(t, valetkey.Ready, second.Status().Revocations.Source.State)
			cancel()
		})
	})
	t.Run("other settings are a mistake", func(t *testing.T) {
		first := guardWith(t, new(counted))
		_, err := middleware.New(middleware.Config{Verifier: new(counted), Previous: first, Revocations: middleware.Revocations{Keep: time.Hour}})
		assert.ErrorContains(t, err, "Revocations: must not be set with Previous")
		_, err = middleware.New(middleware.Config{Verifier: new(counted), KeepCached: all})
		assert.ErrorContains(t, err, "KeepCached: has no effect without Previous")
	})
}

// published is a source that has caught up at once.
type published chan valetkey.Revocation

func (p published) Watch(ctx context.Context, apply func(...valetkey.Revocation) error, report func(error)) error {
	report(nil)
	for {
		select {
		case r := <-p:
			if err := apply(r); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func reasonOf(err error) valetkey.Reason {
	if refusal, ok := errors.AsType[*valetkey.Error](err); ok {
		return refusal.Reason
	}
	return ""
}

func TestKeepCached(t *testing.T) {
	ofA := func(t *valetkey.Token) bool { return t.Issuer() == "a" }
	next := func(t *testing.T, first *middleware.Guard, change ...func(*middleware.Config)) (*middleware.Guard, *counted) {
		v := new(counted)
		return guardWith(t, v, append(change, func(c *middleware.Config) { c.Previous, c.KeepCached = first, ofA })...), v
	}
	t.Run("the others are verified again", func(t *testing.T) {
		first := guardWith(t, new(counted))
		for _, raw := range []string{"a1", "a2", "b1"} {
			require.Equal(t, 200, status(first, raw))
		}
		second, v := next(t, first)
		for _, raw := range []string{"a1", "a2", "b1"} {
			assert.Equal(t, 200, status(second, raw))
		}
		assert.EqualValues(t, 1, v.calls.Load())
		assert.Equal(t, 3, second.Status().Cache.Entries)
	})
	t.Run("the end of a token's time in the cache does not move", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			first := guardWith(t, new(counted))
			require.Equal(t, 200, status(first, "a1"))
			time.Sleep(3 * time.Minute)
			second, v := next(t, first)
			time.Sleep(2*time.Minute - 1)
			require.Equal(t, 200, status(second, "a1"))
			assert.Zero(t, v.calls.Load())
			time.Sleep(time.Second)
			require.Equal(t, 200, status(second, "a1"))
			assert.EqualValues(t, 1, v.calls.Load())
		})
	})
	t.Run("a lower bound of the new guard applies", func(t *testing.T) {
		first := guardWith(t, new(counted))
		for _, raw := range []string{"a1", "a2", "a3"} {
			require.Equal(t, 200, status(first, raw))
		}
		second, _ := next(t, first, func(c *middleware.Config) { c.Cache.Entries = 2 })
		assert.Equal(t, 2, second.Status().Cache.Entries)
		third, _ := next(t, first, func(c *middleware.Config) { c.Cache.Entries = -1 })
		assert.Zero(t, third.Status().Cache.Entries)
	})
	t.Run("none that is revoked meanwhile", func(t *testing.T) {
		first := guardWith(t, new(counted))
		for _, raw := range []string{"a1", "a2"} {
			require.Equal(t, 200, status(first, raw))
		}
		second := guardWith(t, new(counted), func(c *middleware.Config) {
			c.Previous, c.KeepCached = first, func(token *valetkey.Token) bool {
				if token.Subject() == "a1" {
					assert.NoError(t, first.Revoke(valetkey.Revocation{Issuer: "a", Subject: "a1"}))
				}
				return true
			}
		})
		assert.Equal(t, 1, second.Status().Cache.Entries)
		assert.Equal(t, 401, status(second, "a1"))
		assert.Equal(t, 200, status(second, "a2"))
	})
	t.Run("none if the characters of tokens differ", func(t *testing.T) {
		first := guardWith(t, new(counted), func(c *middleware.Config) { c.Methods = []middleware.BearerMethod{middleware.HeaderToken("X-Token")} })
		require.Equal(t, 200, first.DecideToken(t.Context(), "a1").Status())
		second, _ := next(t, first)
		assert.Zero(t, second.Status().Cache.Entries)
	})
}

// A process may replace its guard any number of times.
func TestReplacedGuardsTakeNoMemory(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g := guardWith(t, new(counted), func(c *middleware.Config) { c.Revocations.Source = make(published) })
	watch(ctx, g)
	require.Eventually(t, func() bool { return status(g, "a1") == 200 }, 20*time.Second, time.Millisecond)
	first := weak.Make(g)
	for range 100 {
		previous := g
		require.Equal(t, 200, status(previous, "a1"))
		g = guardWith(t, new(counted), func(c *middleware.Config) {
			c.Previous, c.KeepCached = previous, func(*valetkey.Token) bool { return true }
		})
	}
	require.Eventually(t, func() bool { runtime.GC(); return first.Value() == nil }, 20*time.Second, time.Millisecond, "Watch or its successors hold the first guard")
	require.Equal(t, 200, status(g, "a1"))
}

func TestARevocationPassesGuardsThatAreNoLongerUsed(t *testing.T) {
	first := guardWith(t, new(counted))
	require.Equal(t, 200, status(first, "a1"))
	ended := func() weak.Pointer[middleware.Guard] {
		return weak.Make(guardWith(t, new(counted), func(c *middleware.Config) { c.Previous = first }))
	}()
	require.Eventually(t, func() bool { runtime.GC(); return ended.Value() == nil }, 20*time.Second, time.Millisecond)
	require.NoError(t, first.Revoke(valetkey.Revocation{Issuer: "a", Subject: "a1"}))
	assert.Equal(t, 401, status(first, "a1"))
}

// watch runs Watch of g.
func watch(ctx context.Context, g *middleware.Guard) {
	go func() { _ = g.Watch(ctx) }()
}
