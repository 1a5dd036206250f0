package introspect_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/introspect"
)

// BenchmarkVerify asks a real endpoint on loopback, whose own work is part of it.
func BenchmarkVerify(b *testing.B) {
	s := server(b, func(r *http.Request) (int, string) {
		if r.PostForm.Get("token") == "refused" {
			return 200, `{"active":false}`
		}
		return 200, `{"active":true,"aud":"api","sub":"alice","client_id":"app","scope":"orders:read orders:write"}`
	})
	s.Start()
	v, err := introspect.New(introspect.Config{URL: s.URL, Audience: []string{"api"}, Auth: basic, Logger: quiet})
	require.NoError(b, err)
	b.Cleanup(v.Close)

	b.Run("one after the other", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := v.Verify(b.Context(), fmt.Sprint("a", i)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("32 at a time", func(b *testing.B) {
		var n atomic.Int64
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := v.Verify(b.Context(), fmt.Sprint("b", n.Add(1))); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("a remembered refusal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Verify(b.Context(), "refused"); err == nil {
				b.Fatal("accepted")
			}
		}
	})
}
