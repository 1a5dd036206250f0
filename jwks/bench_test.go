package jwks_test

import (
	"sync"
	"sync/atomic"
	"testing"
)

func BenchmarkVerify(b *testing.B) {
	accepted := func(b *testing.B, raw string) {
		v := open(b)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Verify(background, raw); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("ES256", func(b *testing.B) { accepted(b, mint(b, es256, nil, good(nil))) })
	b.Run("RS256", func(b *testing.B) { accepted(b, mint(b, rs256, nil, good(nil))) })
	b.Run("EdDSA", func(b *testing.B) { accepted(b, mint(b, ed25519, nil, good(nil))) })
	b.Run("expired", func(b *testing.B) {
		v, raw := open(b), mint(b, es256, nil, good(object{"exp": 1}))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Verify(background, raw); err == nil {
				b.Fatal("accepted")
			}
		}
	})
	b.Run("ES256 while another core sends unknown kids", func(b *testing.B) {
		v := open(b)
		forged := mint(b, es256, object{"kid": "forged"}, good(nil))
		var (
			end   atomic.Bool
			flood sync.WaitGroup
			raw   = mint(b, es256, nil, good(nil))
		)
		flood.Go(func() {
			for !end.Load() {
				_, _ = v.Verify(background, forged)
			}
		})
		for b.Loop() {
			if _, err := v.Verify(background, raw); err != nil {
				b.Fatal(err)
			}
		}
		end.Store(true)
		flood.Wait()
	})
	b.Run("ES256 of a tenant", func(b *testing.B) {
		v, raw := registered(es256, acme).open(b), tokenOf(b, es256, acme)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Verify(background, raw); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("a tenant's token still holds", func(b *testing.B) {
		token, err := registered(es256, acme).open(b).Verify(background, tokenOf(b, es256, acme))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if !token.Freshness().While.Holds() {
				b.Fatal("withdrawn")
			}
		}
	})
}
