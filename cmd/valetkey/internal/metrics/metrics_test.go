package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/metrics"
)

func written(t *testing.T, o *metrics.Observer) string {
	t.Helper()
	var text strings.Builder
	w := metrics.NewWriter(&text)
	o.WriteTo(w)
	require.NoError(t, w.Flush())
	return text.String()
}

func TestCounters(t *testing.T) {
	o := metrics.New()
	const iss = "https://as.example.com/\"a\\b\nc"
	for _, e := range []valetkey.Event{
		{Kind: valetkey.RequestDecided, Issuer: iss, Status: 200, Remembered: true, Duration: 10 * time.Microsecond},
		{Kind: valetkey.RequestDecided, Issuer: iss, Status: 200, Remembered: true, Duration: 11 * time.Microsecond},
		{Kind: valetkey.RequestDecided, Status: 401, Reason: valetkey.ReasonExpired, Duration: time.Minute, Err: errors.New("a cause")},
		{Kind: valetkey.KeySetRefreshed, Issuer: "https://as.example.com", Status: 0, Err: errors.New("a cause")},
		{Kind: "of_a_later_version", Issuer: iss},
	} {
		o.Observe(t.Context(), e)
	}
	text := written(t, o)
	for _, line := range []string{
		`valetkey_requests_total{issuer="https://as.example.com/\"a\\b\nc",status="200",reason="",cached="true"} 2`,
		`valetkey_requests_total{issuer="",status="401",reason="expired",cached="false"} 1`,
		`valetkey_key_set_refreshes_total{issuer="https://as.example.com",status="0"} 1`,
		`valetkey_decision_duration_seconds_bucket{le="1e-05"} 1`,
		`valetkey_decision_duration_seconds_bucket{le="5e-05"} 2`,
		`valetkey_decision_duration_seconds_bucket{le="10"} 2`,
		`valetkey_decision_duration_seconds_bucket{le="+Inf"} 3`,
		`valetkey_decision_duration_seconds_sum 60.000021`,
		`valetkey_decision_duration_seconds_count 3`,
		"# TYPE valetkey_requests_total counter",
		"# TYPE valetkey_decision_duration_seconds histogram",
	} {
		assert.Contains(t, text, line+"\n")
	}
	assert.NotContains(t, text, "a cause")
	assert.NotContains(t, text, "of_a_later_version")
}

func TestWriterEscapes(t *testing.T) {
	var text strings.Builder
	w := metrics.NewWriter(&text)
	w.Describe("a", "gauge", "a \\ and\na \"quote\"")
	w.Sample("a", 1, "b", "x\xff\\\"\n")
	require.NoError(t, w.Flush())
	assert.Equal(t, "# HELP a a \\\\ and\\na \"quote\"\n# TYPE a gauge\na{b=\"x\ufffd\\\\\\\"\\n\"} 1\n", text.String())
}

// A tenant can choose its issuer, but not how much memory the counters take.
func TestSeriesAreBounded(t *testing.T) {
	o := metrics.New()
	for i := range 3000 {
		o.Observe(t.Context(), valetkey.Event{Kind: valetkey.RequestDecided, Issuer: fmt.Sprintf("https://%d.example.com", i), Status: 200})
	}
	text := written(t, o)
	assert.Equal(t, 1025, strings.Count(text, "valetkey_requests_total{"))
	assert.Contains(t, text, `valetkey_requests_total{issuer="other",status="200",reason="",cached="false"} 1976`)
}

func TestObserveIsSafeForConcurrentUse(t *testing.T) {
	o := metrics.New()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 1000 {
				o.Observe(context.Background(), valetkey.Event{Kind: valetkey.RequestDecided, Issuer: fmt.Sprint(i % 4), Status: 200})
			}
		})
	}
	all.Wait()
	assert.Equal(t, 4, strings.Count(written(t, o), "} 2000\n"))
}

func TestObserveDoesNotAllocate(t *testing.T) {
	o := metrics.New()
	e := valetkey.Event{Kind: valetkey.RequestDecided, Issuer: "https://as.example.com", Status: 200, Duration: time.Millisecond}
	ctx := t.Context()
	assert.Zero(t, testing.AllocsPerRun(100, func() { o.Observe(ctx, e) }))
}
