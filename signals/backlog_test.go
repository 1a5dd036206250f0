package signals_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/signals"
)

// BenchmarkBacklog measures how a receiver works off 50,000 SETs that wait at its transmitter, one of each session, and what that does
// to the requests of the guard that it feeds.
//
//	go test -run xxx -bench Backlog -benchtime 1x ./signals
func BenchmarkBacklog(b *testing.B) {
	const waiting, tokens = 50_000, 1000
	a, tr := newAPI(b), newTransmitter(b)
	for i := range waiting {
		jti := fmt.Sprint("set-", i)
		tr.enqueue(jti, tr.set(claim("jti", jti), event(signals.SessionRevoked, M{}), claim("sub_id", session(user(a.iss.URL, fmt.Sprint("user-", i)), fmt.Sprint("s-", i)))))
	}
	var texts []string
	for i := range tokens {
		texts = append(texts, a.token("bystander", fmt.Sprint("b-", i)))
	}
	var peak atomic.Uint64
	// requests sends requests until done, and returns the 50th and 99th percentile of their time.
	requests := func(done func() bool) (p50, p99 time.Duration) {
		var took []time.Duration
		for i := 0; !done(); i++ {
			begun := time.Now()
			if code := a.get(texts[i%tokens]); code != 200 {
				b.Fatalf("status %d", code)
			}
			took = append(took, time.Since(begun))
			if i%1000 == 0 {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak.Store(max(peak.Load(), m.HeapAlloc))
			}
			time.Sleep(100 * time.Microsecond)
		}
		slices.Sort(took)
		return took[len(took)/2], took[len(took)*99/100]
	}
	for _, text := range texts {
		require.Equal(b, 200, a.get(text))
	}
	runtime.GC()
	calm50, calm99 := requests(func() func() bool {
		end := time.Now().Add(3 * time.Second)
		return func() bool { return time.Now().After(end) }
	}())
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before := m.HeapAlloc
	peak.Store(0)
	r := newReceiver(b, tr.config(managed(signals.Poll), a.of))
	begun := time.Now()
	run(b, r)
	busy50, busy99 := requests(func() bool { return health(r).State == valetkey.Ready })
	took := time.Since(begun)
	require.Equal(b, uint64(waiting), r.Status().Outcomes["applied"])
	require.Equal(b, 401, a.get(a.token("user-7", "s-7")))
	b.ReportMetric(took.Seconds(), "s/backlog")
	b.ReportMetric(float64(peak.Load()-before)/(1<<20), "MB/peak-growth")
	for name, d := range map[string]time.Duration{"us/p50-calm": calm50, "us/p99-calm": calm99, "us/p50-busy": busy50, "us/p99-busy": busy99} {
		b.ReportMetric(float64(d.Nanoseconds())/1000, name)
	}
	b.ReportMetric(0, "ns/op")
}
