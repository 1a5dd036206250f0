package keyset_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
)

// A token costs as much with a set of 3,000 keys as with one of 3.
func BenchmarkVerify(b *testing.B) {
	last := key(b, "ES256", "last")
	forged := key(b, "RS256", "k1")
	for _, n := range []int{3, 3000} {
		parsed, _, err := keyset.Parse(many(n-1), n)
		require.NoError(b, err)
		s := keyset.Static(append(parsed, last.Public())...)
		for name, c := range map[string]*jose.Compact{
			"known kid":         signed(b, last, nil),
			"unknown kid":       signed(b, last, map[string]any{"kid": "unknown"}),
			"kid of other alg":  signed(b, last, map[string]any{"kid": "k0"}),
			"no kid, other alg": signed(b, forged, map[string]any{"kid": nil, "alg": "RS999"}),
		} {
			b.Run(fmt.Sprintf("%d keys/%s", n, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_, _ = s.Verify(background, c, keyset.Terms{})
				}
			})
		}
	}
}

// Parsing is linear in the number of keys: the time per key is the same.
func BenchmarkParse(b *testing.B) {
	for _, n := range []int{3, 3000} {
		set := many(n)
		b.Run(fmt.Sprintf("%d keys", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				keys, _, _ := keyset.Parse(set, n)
				keyset.Static(keys...)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/key")
		})
	}
}
