package tokencache_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/tokencache"
)

func TestAdopt(t *testing.T) {
	all := func(*valetkey.Token) bool { return true }
	t.Run("a cache that caches nothing takes nothing over", func(t *testing.T) {
		old := newCache(t, tokencache.Config{}, new(verifier))
		old.id("a")
		assert.Zero(t, newCache(t, tokencache.Config{Entries: -1}, new(verifier)).Adopt(old.Cache, all))
	})
	t.Run("a cache without room takes nothing over", func(t *testing.T) {
		old, full := newCache(t, tokencache.Config{}, new(verifier)), newCache(t, tokencache.Config{Bytes: -1}, new(verifier))
		old.id("a")
		assert.Zero(t, full.Adopt(old.Cache, all))
		assert.Zero(t, full.Stats().Bytes)
	})
	t.Run("a token whose condition no longer holds is not taken over", func(t *testing.T) {
		gone := new(condition)
		reuse := func() valetkey.Freshness {
			f := hour()
			f.While = gone
			return f
		}
		old, fresh := newCache(t, tokencache.Config{}, &verifier{reuse: reuse}), newCache(t, tokencache.Config{}, new(verifier))
		old.id("a")
		gone.gone.Store(true)
		assert.Zero(t, fresh.Adopt(old.Cache, all))
	})
	t.Run("a token keeps its condition", func(t *testing.T) {
		gone := new(condition)
		old := newCache(t, tokencache.Config{}, &verifier{reuse: func() valetkey.Freshness { return valetkey.Freshness{Until: hour().Until, While: gone} }})
		fresh := newCache(t, tokencache.Config{}, &verifier{})
		assert.Equal(t, "1", old.id("a"))
		old.id("b")
		assert.Equal(t, 2, fresh.Adopt(old.Cache, all))
		assert.Equal(t, "2", fresh.id("b"), "its token is the one that the old verifier returned")
		gone.gone.Store(true)
		assert.Equal(t, "1", fresh.id("b"), "verified by the new verifier")
	})
	t.Run("a shorter maximum age applies", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			old, fresh := newCache(t, tokencache.Config{}, new(verifier)), newCache(t, tokencache.Config{MaxAge: time.Minute}, new(verifier))
			old.id("x")
			old.id("a")
			assert.Equal(t, 2, fresh.Adopt(old.Cache, all))
			time.Sleep(time.Minute - 1)
			assert.Equal(t, "2", fresh.id("a"))
			time.Sleep(time.Nanosecond)
			assert.Equal(t, "1", fresh.id("a"))
		})
	})
	t.Run("a token that is already cached stays", func(t *testing.T) {
		old, fresh := newCache(t, tokencache.Config{}, new(verifier)), newCache(t, tokencache.Config{}, new(verifier))
		old.id("x")
		old.id("a")
		fresh.id("a")
		assert.Equal(t, 1, fresh.Adopt(old.Cache, all))
		assert.Equal(t, "1", fresh.id("a"))
	})
	t.Run("tokens take memory in both, and release it when a cache ends", func(t *testing.T) {
		old, fresh := newCache(t, tokencache.Config{}, new(verifier)), newCache(t, tokencache.Config{}, new(verifier))
		for _, raw := range []string{"a", "b", "c"} {
			old.id(raw)
		}
		fresh.Adopt(old.Cache, func(t *valetkey.Token) bool { return t.Subject() != "c" })
		assert.Equal(t, 2, fresh.Stats().Entries)
		assert.Equal(t, 2, fresh.Purge(nil))
		assert.Zero(t, fresh.Stats().Bytes)
		assert.Equal(t, 3, old.Stats().Entries)
	})
}
