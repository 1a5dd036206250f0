//go:build !race

package tokencache_test

// What the race detector disturbs (it makes sync.Pool drop what it is given) or only slows down.

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/tokencache"
)

func TestHitAllocatesNothing(t *testing.T) {
	memory := newCache(t, tokencache.Config{}, new(verifier))
	raw, ctx := raws(1, 937)[0], t.Context()
	memory.id(raw)
	if n := testing.AllocsPerRun(1000, func() { memory.Verify(ctx, raw) }); n != 0 {
		t.Errorf("%v allocations on a hit", n)
	}
	if misses := memory.Stats().Misses; misses != 1 {
		t.Errorf("%d misses", misses)
	}
}

// Tokens in use stay while a flood of good tokens that come only once passes through.
func TestFlood(t *testing.T) {
	for _, c := range []struct {
		name          string
		entries, used int
		every         int // one use of a token in use for so many one-time tokens
		size          int // bytes of claims of a one-time token
		cfg           tokencache.Config
	}{
		{"each used once per 1,000 others", 1_000_000, 1000, 1, 0, tokencache.Config{Entries: 5000}},
		{"each used once per 4,000 others", 1_000_000, 1000, 4, 0, tokencache.Config{Entries: 5000}},
		{"each used once per 600 others, each as large as 35 of those in use", 400_000, 600, 1, 16 << 10, tokencache.Config{Bytes: 1 << 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls, claims := 0, string(make([]byte, c.size))
			end := time.Now().Add(time.Hour)
			memory := newCache(t, c.cfg, valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
				token := valetkey.TokenFields{Freshness: valetkey.Freshness{Until: end}}
				if raw[0] == 'u' {
					calls++
				} else {
					token.Raw = claims
				}
				return valetkey.NewToken(token), nil
			}))
			names := make([]string, c.used)
			for i := range names {
				names[i] = fmt.Sprint("used", i)
			}
			if !*full {
				c.entries /= 10
			}
			uses := 0
			for i := range c.entries {
				_, _, err := memory.Verify(t.Context(), fmt.Sprint("flood", i))
				require.NoError(t, err)
				if i%c.every == 0 {
					_, _, err = memory.Verify(t.Context(), names[uses%c.used])
					require.NoError(t, err)
					if uses++; uses == 3*c.used { // the cache knows by now which tokens are in use
						calls = 0
					}
				}
			}
			uses -= 3 * c.used
			rate := 1 - float64(calls)/float64(uses)
			t.Logf("hit rate %.4f of %d uses", rate, uses)
			assert.GreaterOrEqual(t, rate, 0.99)
		})
	}
}
