package refresh_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/refresh"
)

func TestPool(t *testing.T) {
	// A document of the pool is its URL. A fetch takes a second.
	play := func(name string, f func(t *testing.T, p *refresh.Pool[string], fetches map[string]int)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fetches := map[string]int{}
				p := refresh.NewPool(2, func(url string) refresh.Config[string] {
					return refresh.Config[string]{
						Fetch: func(ctx context.Context, _ *string) (result refresh.Result[string], err error) {
							fetches[url]++
							select {
							case <-time.After(time.Second):
								return refresh.Result[string]{Value: &url, Fresh: time.Minute}, nil
							case <-ctx.Done():
								return result, ctx.Err()
							}
						},
						WhileUsed: true, MinRefetchInterval: 20 * time.Second, Name: "document", Missing: "no document", Logger: slog.New(slog.DiscardHandler),
					}
				})
				defer p.Close()
				f(t, p, fetches)
			})
		})
	}
	play("documents are distinguished by URL, and each is fetched once", func(t *testing.T, p *refresh.Pool[string], fetches map[string]int) {
		for _, url := range []string{"a", "b", "a", "b"} {
			require.NoError(t, p.Get(url).Ready(background))
			assert.Equal(t, url, *p.Get(url).Load())
		}
		assert.Equal(t, map[string]int{"a": 1, "b": 1}, fetches)
		assert.ElementsMatch(t, []*refresh.Document[string]{p.Get("a"), p.Get("b")}, p.All())
	})
	play("a new one evicts the one that was not used since its last fetch", func(t *testing.T, p *refresh.Pool[string], _ map[string]int) {
		a, b := p.Get("a"), p.Get("b")
		require.NoError(t, a.Ready(background))
		require.NoError(t, b.Ready(background))
		a.Use()
		require.NoError(t, p.Get("c").Ready(background))
		assert.NotNil(t, a.Load())
		assert.Nil(t, b.Load())
		assert.NotSame(t, b, p.Get("b"))
	})
	play("Find returns only what the pool has, and counts as Get", func(t *testing.T, p *refresh.Pool[string], _ map[string]int) {
		assert.Nil(t, p.Find("a"))
		assert.Empty(t, p.All())
		a, b := p.Get("a"), p.Get("b")
		assert.Same(t, a, p.Find("a"))
		p.Get("c")
		assert.Same(t, a, p.Find("a"))
		assert.Nil(t, p.Find("b"))
		assert.NotSame(t, b, p.Get("b"))
	})
	play("of those that were all used, or all not, the one that Get returned least recently", func(t *testing.T, p *refresh.Pool[string], _ map[string]int) {
		a, b := p.Get("a"), p.Get("b")
		p.Get("a")
		p.Get("c")
		assert.Same(t, a, p.Get("a"))
		assert.NotSame(t, b, p.Get("b"))
	})
	play("a new one evicts one of the owner that has most, however recently that was used", func(t *testing.T, p *refresh.Pool[string], _ map[string]int) {
		honest := p.GetFor("honest", "a")
		require.NoError(t, honest.Ready(background))
		for _, url := range []string{"a", "b", "c", "d"} {
			d := p.GetFor("greedy", url)
			require.NoError(t, d.Ready(background))
			d.Use()
		}
		assert.NotNil(t, honest.Load())
		assert.Same(t, honest, p.GetFor("honest", "a"))
	})
	play("one that was used is not evicted for one that is fetched in vain, though a fetch has begun since", func(t *testing.T, p *refresh.Pool[string], _ map[string]int) {
		a := p.Get("a")
		require.NoError(t, a.Ready(background))
		a.Use()
		time.Sleep(time.Minute + time.Second) // it was fetched again
		b := p.Get("b")
		p.Get("c")
		assert.Same(t, a, p.Get("a"))
		assert.NotSame(t, b, p.Get("b"))
	})
	play("an eviction does not lift the limit of fetches", func(t *testing.T, p *refresh.Pool[string], fetches map[string]int) {
		require.NoError(t, p.Get("a").Ready(background))
		p.Get("b")
		p.Get("c") // in a's place
		assert.Nil(t, p.Get("a").Renew(background, nil))
		assert.Equal(t, 1, fetches["a"])
		time.Sleep(30 * time.Second)
		assert.NotNil(t, p.Get("a").Renew(background, nil))
		assert.Equal(t, 2, fetches["a"])
	})
	play("what is purged during its fetch brings nothing, and the next Get fetches again", func(t *testing.T, p *refresh.Pool[string], fetches map[string]int) {
		a := p.Get("a")
		go a.Ready(background)
		synctest.Wait()
		p.Purge()
		time.Sleep(time.Minute)
		assert.Nil(t, a.Load())
		assert.ErrorContains(t, a.Ready(background), "no document: closed")
		assert.Equal(t, map[string]int{"a": 1}, fetches)
		assert.NoError(t, p.Get("a").Ready(background))
	})
	play("Close ends the fetches, those of purged documents too, and then no document is fetched", func(t *testing.T, p *refresh.Pool[string], fetches map[string]int) {
		for _, url := range []string{"a", "b"} {
			go p.Get(url).Ready(background)
			synctest.Wait()
			p.Purge()
		}
		assert.Zero(t, took(p.Close))
		assert.Zero(t, took(func() { assert.ErrorContains(t, p.Get("a").Ready(background), "no document: closed") }))
		assert.Equal(t, map[string]int{"a": 1, "b": 1}, fetches)
		assert.Empty(t, p.All())
		p.Close()
	})
}
