package valetotel_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

func TestWatchHealth(t *testing.T) {
	r := newRig(t)
	_, err := r.WatchHealth(nil)
	require.ErrorContains(t, err, "WatchHealth: the function is nil")

	var now []valetkey.Health
	stop, err := r.WatchHealth(func() []valetkey.Health { return now })
	require.NoError(t, err)
	for _, c := range []struct {
		name string
		now  []valetkey.Health
		want []string
	}{
		{"nobody", nil, nil},
		{"a state that is not known is none of the others", []valetkey.Health{{Name: "as", State: "odd"}}, []string{
			"verifier.state gauge 1{verifier.name=as,verifier.state=degraded} 0",
			"verifier.state gauge 1{verifier.name=as,verifier.state=down} 0",
			"verifier.state gauge 1{verifier.name=as,verifier.state=ready} 0"}},
		{"of two with one name none hides the other", []valetkey.Health{{Name: "as", State: valetkey.Down}, {Name: "as", State: valetkey.Ready}}, []string{
			"verifier.state gauge 1{verifier.name=as,verifier.state=degraded} 0",
			"verifier.state gauge 1{verifier.name=as,verifier.state=down} 1",
			"verifier.state gauge 1{verifier.name=as,verifier.state=ready} 1"}},
		{"two names", []valetkey.Health{{Name: "a", State: valetkey.Degraded}, {Name: "b", State: valetkey.Ready}}, []string{
			"verifier.state gauge 1{verifier.name=a,verifier.state=degraded} 1",
			"verifier.state gauge 1{verifier.name=a,verifier.state=down} 0",
			"verifier.state gauge 1{verifier.name=a,verifier.state=ready} 0",
			"verifier.state gauge 1{verifier.name=b,verifier.state=degraded} 0",
			"verifier.state gauge 1{verifier.name=b,verifier.state=down} 0",
			"verifier.state gauge 1{verifier.name=b,verifier.state=ready} 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			now = c.now
			assert.Equal(t, c.want, r.lines(t))
		})
	}
	require.NoError(t, stop.Unregister())
	assert.Empty(t, r.lines(t))
}

func TestWatchCache(t *testing.T) {
	r := newRig(t)
	_, err := r.WatchCache("tokens", nil)
	require.ErrorContains(t, err, "WatchCache: the function is nil")

	now := middleware.CacheStatus{Entries: 3, Bytes: 4096, Hits: 10, Misses: 4, Evictions: 1}
	stop, err := r.WatchCache("tokens", func() middleware.CacheStatus { return now })
	require.NoError(t, err)
	other, err := r.WatchCache("of another guard", func() middleware.CacheStatus { return middleware.CacheStatus{} })
	require.NoError(t, err)
	want := []string{
		"cache.entries sum {entry}{cache.name=of another guard} 0",
		"cache.entries sum {entry}{cache.name=tokens} 3",
		"cache.evictions counter {eviction}{cache.name=of another guard} 0",
		"cache.evictions counter {eviction}{cache.name=tokens} 1",
		"cache.lookups counter {lookup}{cache.name=of another guard,cache.result=hit} 0",
		"cache.lookups counter {lookup}{cache.name=of another guard,cache.result=miss} 0",
		"cache.lookups counter {lookup}{cache.name=tokens,cache.result=hit} 10",
		"cache.lookups counter {lookup}{cache.name=tokens,cache.result=miss} 4",
		"cache.size sum By{cache.name=of another guard} 0",
		"cache.size sum By{cache.name=tokens} 4096",
	}
	assert.Equal(t, want, r.lines(t))
	now.Entries, now.Hits = 2, 11
	want[1], want[6] = "cache.entries sum {entry}{cache.name=tokens} 2", "cache.lookups counter {lookup}{cache.name=tokens,cache.result=hit} 11"
	assert.Equal(t, want, r.lines(t), "the numbers of now, not added to earlier ones")

	require.NoError(t, stop.Unregister())
	require.NoError(t, other.Unregister())
	assert.Empty(t, r.lines(t))
}
