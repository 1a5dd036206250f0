package tokencache_test

import (
	"context"
	"flag"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/tokencache"
)

// lean answers as a verifier of JWT access tokens does (RFC 9068): four scopes, 350 bytes of claims, each string its own.
type lean struct{ n atomic.Int64 }

var leanEnd = time.Now().Add(time.Hour)

func (v *lean) Verify(context.Context, string) (*valetkey.Token, error) {
	n := v.n.Add(1)
	t := valetkey.NewToken(valetkey.TokenFields{
		Issuer:    "https://as.example.com/realms/main",
		Subject:   fmt.Sprintf("6f2c1c0e-5b0a-4d3a-9a51-%012x", n),
		ClientID:  strings.Clone("orders-web-client"),
		ID:        fmt.Sprintf("%032x", n),
		Audience:  valetkey.ListOf(strings.Clone("https://api.example.com/orders")),
		Scopes:    valetkey.NewScopes(strings.Fields("orders:read orders:write profile:read invoices:read")...),
		IssuedAt:  leanEnd.Add(-time.Hour),
		Expiry:    leanEnd,
		Freshness: valetkey.Freshness{Until: leanEnd},
	})
	f := t.Fields()
	f.Raw = fmt.Sprintf(`{"iss":%q,"sub":%q,"client_id":%q,"aud":%q,"jti":%q,"scope":"orders:read orders:write profile:read invoices:read","iat":1700000000,"exp":1700003600,"auth_time":1700000000}`,
		t.Issuer(), t.Subject(), t.ClientID(), t.Audience().At(0), t.ID())
	return valetkey.NewToken(f), nil
}

// raws returns n tokens of so many bytes that differ at the end, as signatures do.
func raws(n, size int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = strings.Repeat("e", size-12) + fmt.Sprintf("%012d", i)
	}
	return all
}

// heap returns the bytes that are reachable. What pools and cleanups of other tests hold takes more than one collection.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	for last := uint64(math.MaxUint64); ; last = m.HeapAlloc {
		runtime.GC()
		if runtime.ReadMemStats(&m); m.HeapAlloc+4<<10 >= last {
			return int64(m.HeapAlloc)
		}
	}
}

// fill returns a cache of n tokens and what it costs. Each comes so many times.
func fill(tb testing.TB, n, times int, v valetkey.Verifier) (c *tokencache.Cache, bytes int64) {
	before := heap()
	c = tokencache.New(tokencache.Config{Entries: 2 * n, Bytes: 1 << 40, MaxAge: time.Hour}, v)
	for range times {
		for i := range n {
			if _, _, err := c.Verify(tb.Context(), fmt.Sprint(i)); err != nil {
				tb.Fatal(err)
			}
		}
	}
	return c, heap() - before
}

var full = flag.Bool("full", false, "run TestBytes with 100,000 tokens and TestFlood with up to 1,000,000")

// The number that is held against Config.Bytes is what the memory really costs.
func TestBytes(t *testing.T) {
	n := int64(10_000)
	if *full {
		n = 100_000
	}
	changed := func(change func(t *valetkey.TokenFields)) valetkey.Verifier {
		v := new(lean)
		return valetkey.VerifierFunc(func(ctx context.Context, raw string) (*valetkey.Token, error) {
			t, err := v.Verify(ctx, raw)
			f := t.Fields()
			change(&f)
			return valetkey.NewToken(f), err
		})
	}
	for _, c := range []struct {
		name     string
		times    int
		verifier valetkey.Verifier
	}{
		{"of tokens that came once", 1, new(lean)},
		{"of tokens in use", 2, new(lean)},
		{"of tokens each of another kind", 1, changed(func(t *valetkey.TokenFields) { t.Audience = valetkey.ListOf(append(t.Audience.Slice(), t.ID)...) })},
		{"of tokens with strings that are not in the claims", 1, changed(func(t *valetkey.TokenFields) { t.Subject += "'" })},
		{"of bound tokens", 1, changed(func(t *valetkey.TokenFields) {
			t.Binding = valetkey.Binding{JWKThumbprint: t.ID, CertificateThumbprint: t.ID + "-", Unknown: valetkey.ListOf(t.ID)}
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			memory, held := fill(t, int(n), c.times, c.verifier)
			said := memory.Stats().Bytes
			t.Logf("said %d, held %d bytes an entry", said/n, held/n)
			if ratio := float64(said) / float64(held); ratio < 0.9 || ratio > 1.15 {
				t.Errorf("said %d, held %d bytes an entry", said/n, held/n)
			}
			runtime.KeepAlive(memory)
		})
	}
}

func BenchmarkMemory(b *testing.B) {
	const n = 1_000_000
	for b.Loop() {
		c, held := fill(b, n, 1, new(lean))
		start := time.Now()
		runtime.GC()
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms/GC")
		b.ReportMetric(float64(held)/n, "B/entry")
		b.ReportMetric(float64(c.Stats().Bytes)/n, "said-B/entry")
	}
}

func BenchmarkHit(b *testing.B) {
	for _, size := range []int{681, 937} {
		tokens := raws(1024, size)
		c := tokencache.New(tokencache.Config{MaxAge: time.Hour}, new(lean))
		for _, raw := range tokens {
			if _, _, err := c.Verify(b.Context(), raw); err != nil {
				b.Fatal(err)
			}
		}
		ctx := b.Context()
		b.Run(fmt.Sprintf("serial/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.Verify(ctx, tokens[i%1024])
			}
		})
		b.Run(fmt.Sprintf("parallel/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					c.Verify(ctx, tokens[i%1024])
				}
			})
		})
		b.Run(fmt.Sprintf("parallel, one token/%d", size), func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c.Verify(ctx, tokens[0])
				}
			})
		})
	}
}

// The verifier costs nothing here, so this is what a miss adds to a verification, with an eviction each.
func BenchmarkInsertAtCapacity(b *testing.B) {
	for _, entries := range []int{1 << 10, 1 << 16, 1 << 20} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) {
			token, _ := new(lean).Verify(b.Context(), "")
			c := tokencache.New(tokencache.Config{Entries: entries, Bytes: 1 << 40}, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) { return token, nil }))
			n := 0
			for ; n < entries+entries/8; n++ {
				c.Verify(b.Context(), fmt.Sprint(n))
			}
			b.ReportAllocs()
			for b.Loop() {
				c.Verify(b.Context(), fmt.Sprint(n))
				n++
			}
		})
	}
}
