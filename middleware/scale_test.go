//go:build unix

package middleware_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// many is the number of streams that BenchmarkStreams opens.
const many = 100_000

// A crowd is many streams in progress, ten of each session. A token is "<number of the session>-<number of the stream>".
type crowd struct {
	guard *middleware.Guard
	bytes int64 // memory that the guard takes for each
	ended atomic.Int64
	last  atomic.Int64 // Unix nanoseconds of the last end
	done  sync.WaitGroup
	stop  context.CancelFunc
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// newCrowd opens n streams. Each is a goroutine in a handler that waits for the end of its context.
func newCrowd(tb testing.TB, n int) *crowd {
	v := accepting(func(raw string) (*valetkey.Token, error) {
		var session, stream int
		if _, err := fmt.Sscanf(raw, "%d-%d", &session, &stream); err != nil {
			return nil, &valetkey.Error{Code: valetkey.InvalidToken}
		}
		return valetkey.NewToken(valetkey.TokenFields{Issuer: "i", Subject: fmt.Sprint("user-", session), SessionID: fmt.Sprint("session-", session), ID: raw,
			IssuedAt: time.Now().Add(-time.Minute), Expiry: time.Now().Add(time.Hour), Deadline: time.Now().Add(time.Hour),
			Freshness: valetkey.Freshness{Until: time.Now().Add(time.Hour)}}), nil
	})
	c := &crowd{guard: guardWith(tb, v, cancels)}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	begun := make(chan struct{}, n)
	h := c.guard.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-r.Context().Done()
		c.last.Store(time.Now().UnixNano())
		c.ended.Add(1)
	}), valetkey.AnyToken)
	requests := make([]*http.Request, n)
	for i := range requests {
		requests[i] = httptest.NewRequest("GET", "/", nil).WithContext(ctx)
		requests[i].Header.Set("Authorization", fmt.Sprintf("Bearer %d-%d", i/10, i))
	}
	before := heap()
	for _, r := range requests {
		c.done.Go(func() { h.ServeHTTP(httptest.NewRecorder(), r) })
	}
	for range n {
		<-begun
	}
	c.bytes = (heap() - before) / int64(n)
	return c
}

func (c *crowd) close() {
	c.stop()
	c.done.Wait()
}

// cpu returns the processor time of the process, which a busy machine does not change much.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// revoke revokes, waits until n streams have ended, and returns the processor time of the call, and the time from its start to the
// last end.
func (c *crowd) revoke(tb testing.TB, n int64, rs ...valetkey.Revocation) (call, last time.Duration) {
	want, start, used := c.ended.Load()+n, time.Now(), cpu()
	require.NoError(tb, c.guard.Revoke(rs...))
	call = cpu() - used
	for c.ended.Load() < want {
		time.Sleep(100 * time.Microsecond)
	}
	return call, time.Unix(0, c.last.Load()).Sub(start)
}

func session(i int) valetkey.Revocation {
	return valetkey.Revocation{Issuer: "i", SessionID: fmt.Sprint("session-", i)}
}

// BenchmarkStreams measures how long it takes to end streams among 100,000, and the memory that they take.
//
//	go test -run xxx -bench Streams -benchtime 1x ./middleware
func BenchmarkStreams(b *testing.B) {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	report := func(b *testing.B, call, last time.Duration) {
		b.ReportMetric(ms(call), "cpu-ms/call")
		b.ReportMetric(ms(last), "ms/last-end")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("one session of ten streams", func(b *testing.B) {
		c := newCrowd(b, many)
		defer c.close()
		b.ReportMetric(float64(c.bytes), "B/stream")
		call, last := c.revoke(b, 10, session(7))
		report(b, call, last)
	})
	b.Run("1000 sessions in one call", func(b *testing.B) {
		c := newCrowd(b, many)
		defer c.close()
		var rs []valetkey.Revocation
		for i := range 1000 {
			rs = append(rs, session(i))
		}
		call, last := c.revoke(b, 10_000, rs...)
		report(b, call, last)
	})
	b.Run("100 sessions in a call each", func(b *testing.B) {
		c := newCrowd(b, many)
		defer c.close()
		var worst, total time.Duration
		for i := range 100 {
			call, last := c.revoke(b, 10, session(i))
			worst, total = max(worst, last), total+call
		}
		report(b, total/100, worst)
	})
	b.Run("all", func(b *testing.B) {
		c := newCrowd(b, many)
		defer c.close()
		call, last := c.revoke(b, many, valetkey.Revocation{Issuer: "i", All: true})
		report(b, call, last)
	})
}
