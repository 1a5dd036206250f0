package valetotel_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetotel"
	"github.com/valetkey/valetkey/middleware"
)

const issuer = "https://as.example.com"

// A rig is an Observer on the real SDK, and the data that the SDK received.
type rig struct {
	*valetotel.Observer
	tracer trace.Tracer
	reader *sdkmetric.ManualReader
	spans  *tracetest.SpanRecorder
}

func newRig(t *testing.T) rig {
	t.Helper()
	r := rig{reader: sdkmetric.NewManualReader(), spans: tracetest.NewSpanRecorder()}
	traces := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r.spans))
	r.tracer = traces.Tracer("test")
	var err error
	r.Observer, err = valetotel.New(valetotel.Config{
		MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(r.reader)),
		TracerProvider: traces,
	})
	require.NoError(t, err)
	return r
}

func (r rig) collect(t *testing.T) []metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, r.reader.Collect(context.Background(), &all))
	if len(all.ScopeMetrics) == 0 {
		return nil
	}
	require.Len(t, all.ScopeMetrics, 1)
	assert.Equal(t, "github.com/valetkey/valetkey/adapters/valetotel", all.ScopeMetrics[0].Scope.Name)
	return all.ScopeMetrics[0].Metrics
}

// lines are the metrics, a line for each: name, kind, unit, attributes without their common prefix, value.
func (r rig) lines(t *testing.T) (lines []string) {
	t.Helper()
	for _, m := range r.collect(t) {
		line := func(kind string, attrs attribute.Set, format string, args ...any) {
			labels := strings.ReplaceAll(attrs.Encoded(attribute.DefaultEncoder()), "valetkey.", "")
			lines = append(lines, fmt.Sprintf("%s %s %s{%s} ", strings.TrimPrefix(m.Name, "valetkey."), kind, m.Unit, labels)+
				fmt.Sprintf(format, args...))
		}
		assert.NotEmpty(t, m.Description)
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			kind := "sum"
			if data.IsMonotonic {
				kind = "counter"
			}
			for _, p := range data.DataPoints {
				line(kind, p.Attributes, "%d", p.Value)
			}
		case metricdata.Gauge[int64]:
			for _, p := range data.DataPoints {
				line("gauge", p.Attributes, "%d", p.Value)
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				bucket := slices.Index(p.BucketCounts, p.Count)
				require.GreaterOrEqual(t, bucket, 0, "all in one bucket")
				line("histogram", p.Attributes, "%d of %g in bucket %d of %d", p.Count, p.Sum, bucket, len(p.BucketCounts))
			}
		default:
			t.Errorf("%s: a %T", m.Name, data)
		}
	}
	slices.Sort(lines)
	return lines
}

type slow struct{}

func (slow) Error() string { return "no answer in time" }
func (slow) Timeout() bool { return true }

var refused = &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonExpired, Err: errors.New("exp")}

func TestMetrics(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name  string
		event valetkey.Event
		want  []string
	}{
		{"a request without credentials", valetkey.Event{Kind: valetkey.RequestDecided, Status: 401, Err: &valetkey.Error{}}, []string{
			"request.decided counter {request}{remembered=false,status=401} 1",
			"request.duration histogram s{status=401} 1 of 0 in bucket 0 of 15"}},
		{"a refused request", valetkey.Event{Kind: valetkey.RequestDecided, Status: 401, Reason: refused.Reason, Duration: ms / 5, Err: refused}, []string{
			"request.decided counter {request}{reason=expired,remembered=false,status=401} 1",
			"request.duration histogram s{status=401} 1 of 0.0002 in bucket 5 of 15"}},
		{"a request that failed", valetkey.Event{Kind: valetkey.RequestDecided, Status: 503, Duration: 5 * time.Second, Err: slow{}}, []string{
			"request.decided counter {request}{remembered=false,status=503} 1",
			"request.duration histogram s{status=503} 1 of 5 in bucket 13 of 15"}},
		{"a request let through from memory", valetkey.Event{Kind: valetkey.RequestDecided, Issuer: issuer, Status: 200, Remembered: true, Duration: time.Microsecond}, []string{
			"request.decided counter {request}{issuer=https://as.example.com,remembered=true,status=200} 1",
			"request.duration histogram s{issuer=https://as.example.com,status=200} 1 of 1e-06 in bucket 0 of 15"}},
		{"a key set out of reach", valetkey.Event{Kind: valetkey.KeySetRefreshed, Issuer: issuer, Err: &net.OpError{Op: "dial", Err: errors.New("refused")}}, []string{
			"key_set.refresh.duration histogram s{error.type=_OTHER,issuer=https://as.example.com} 1 of 0 in bucket 0 of 15",
			"key_set.refreshed counter {refresh}{error.type=_OTHER,issuer=https://as.example.com} 1"}},
		{"a key set that comes too slowly", valetkey.Event{Kind: valetkey.KeySetRefreshed, Issuer: issuer, Status: 200, Duration: 5 * time.Second, Err: fmt.Errorf("read: %w", slow{})}, []string{
			"key_set.refresh.duration histogram s{error.type=timeout,http.response.status_code=200,issuer=https://as.example.com} 1 of 5 in bucket 11 of 15",
			"key_set.refreshed counter {refresh}{error.type=timeout,http.response.status_code=200,issuer=https://as.example.com} 1"}},
		{"a key set that has not changed", valetkey.Event{Kind: valetkey.KeySetRefreshed, Issuer: issuer, Status: 304, Duration: 20 * ms}, []string{
			"key_set.refresh.duration histogram s{http.response.status_code=304,issuer=https://as.example.com} 1 of 0.02 in bucket 2 of 15",
			"key_set.refreshed counter {refresh}{http.response.status_code=304,issuer=https://as.example.com} 1"}},
		{"a status list", valetkey.Event{Kind: valetkey.StatusListRead, Issuer: issuer, Status: 200, Duration: 20 * ms}, []string{
			"status_list.read counter {read}{http.response.status_code=200,issuer=https://as.example.com} 1",
			"status_list.read.duration histogram s{http.response.status_code=200,issuer=https://as.example.com} 1 of 0.02 in bucket 2 of 15"}},
		{"an issuer that is busy", valetkey.Event{Kind: valetkey.IssuerAsked, Issuer: issuer, Status: 429, Duration: 2 * ms, Err: slow{}}, []string{
			"issuer.ask.duration histogram s{error.type=429,http.response.status_code=429,issuer=https://as.example.com} 1 of 0.002 in bucket 0 of 15",
			"issuer.asked counter {call}{error.type=429,http.response.status_code=429,issuer=https://as.example.com} 1"}},
		{"an issuer whose caller gave up", valetkey.Event{Kind: valetkey.IssuerAsked, Issuer: issuer, Err: context.DeadlineExceeded}, []string{
			"issuer.ask.duration histogram s{error.type=timeout,issuer=https://as.example.com} 1 of 0 in bucket 0 of 15",
			"issuer.asked counter {call}{error.type=timeout,issuer=https://as.example.com} 1"}},
		{"an invalid status", valetkey.Event{Kind: valetkey.IssuerAsked, Issuer: issuer, Status: 999, Err: errors.New("999")}, []string{
			"issuer.ask.duration histogram s{error.type=_OTHER,issuer=https://as.example.com} 1 of 0 in bucket 0 of 15",
			"issuer.asked counter {call}{error.type=_OTHER,issuer=https://as.example.com} 1"}},
		{"an issuer that answered", valetkey.Event{Kind: valetkey.IssuerAsked, Issuer: issuer, Status: 200, Duration: 11 * time.Second}, []string{
			"issuer.ask.duration histogram s{http.response.status_code=200,issuer=https://as.example.com} 1 of 11 in bucket 14 of 15",
			"issuer.asked counter {call}{http.response.status_code=200,issuer=https://as.example.com} 1"}},
		{"a kind that is not known yet", valetkey.Event{Kind: "proof_checked", Issuer: issuer, Status: 200, Reason: "x", Err: slow{}}, []string{
			"event.other counter {event}{} 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.Observe(t.Context(), c.event)
			assert.Equal(t, c.want, r.lines(t))
		})
	}
}

// status returns the status of a span.
func status(s sdktrace.ReadOnlySpan) string {
	return strings.TrimSuffix(s.Status().Code.String()+": "+s.Status().Description, ": ")
}

func labels(s sdktrace.ReadOnlySpan) string {
	set := attribute.NewSet(s.Attributes()...)
	return set.Encoded(attribute.DefaultEncoder())
}

func TestSpansOfCalls(t *testing.T) {
	for _, c := range []struct {
		name               string
		event              valetkey.Event
		span, status, want string
	}{
		{"a refresh that failed", valetkey.Event{Kind: valetkey.KeySetRefreshed, Issuer: issuer, Err: errors.New("connection refused")},
			"valetkey.key_set.refresh", "Error: connection refused", "error.type=_OTHER,valetkey.issuer=https://as.example.com"},
		{"an error status without an error", valetkey.Event{Kind: valetkey.IssuerAsked, Status: 500},
			"valetkey.issuer.ask", "Error", "error.type=500,http.response.status_code=500"},
		{"a text too long, cut within a letter", valetkey.Event{Kind: valetkey.IssuerAsked, Err: errors.New("x" + strings.Repeat("é", 600))},
			"valetkey.issuer.ask", "Error: x" + strings.Repeat("é", 511), "error.type=_OTHER"},
		{"a text that is not UTF-8", valetkey.Event{Kind: valetkey.IssuerAsked, Err: errors.New("a\xffb")},
			"valetkey.issuer.ask", "Error: ab", "error.type=_OTHER"},
		{"a refresh", valetkey.Event{Kind: valetkey.KeySetRefreshed, Issuer: issuer, Status: 200},
			"valetkey.key_set.refresh", "Unset", "http.response.status_code=200,valetkey.issuer=https://as.example.com"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				c.event.Duration = 250 * time.Millisecond
				ctx, parent := r.tracer.Start(t.Context(), "parent")
				time.Sleep(c.event.Duration)
				r.Observe(ctx, c.event)
				spans := r.spans.Ended()
				require.Len(t, spans, 1)
				s := spans[0]
				assert.Equal(t, c.span, s.Name())
				assert.Equal(t, trace.SpanKindClient, s.SpanKind())
				assert.Equal(t, parent.SpanContext(), s.Parent())
				assert.Equal(t, c.event.Duration, s.EndTime().Sub(s.StartTime()))
				assert.True(t, time.Now().Equal(s.EndTime()))
				assert.Equal(t, c.status, status(s))
				assert.Equal(t, c.want, labels(s))
			})
		})
	}
	t.Run("without a span in the context it is a root", func(t *testing.T) {
		r := newRig(t)
		r.Observe(t.Context(), valetkey.Event{Kind: valetkey.KeySetRefreshed, Duration: time.Second})
		require.Len(t, r.spans.Ended(), 1)
		s := r.spans.Ended()[0]
		assert.False(t, s.Parent().IsValid())
		assert.Equal(t, time.Second, s.EndTime().Sub(s.StartTime()), "to the nanosecond, though the clock goes on")
	})
}

func TestSpanOfRequest(t *testing.T) {
	for _, c := range []struct {
		name  string
		event valetkey.Event
		want  string
	}{
		{"refused", valetkey.Event{Status: 401, Reason: refused.Reason, Err: refused},
			"valetkey.cause=invalid_token: the token has expired: exp,valetkey.reason=expired,valetkey.remembered=false,valetkey.status=401"},
		{"failed", valetkey.Event{Status: 503, Err: slow{}},
			"valetkey.cause=no answer in time,valetkey.remembered=false,valetkey.status=503"},
		{"let through", valetkey.Event{Status: 200, Issuer: issuer, Remembered: true},
			"valetkey.issuer=https://as.example.com,valetkey.remembered=true,valetkey.status=200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			ctx, span := r.tracer.Start(t.Context(), "GET /orders")
			c.event.Kind = valetkey.RequestDecided
			r.Observe(ctx, c.event)
			assert.Empty(t, r.spans.Ended(), "the request's span is not ended")
			span.End()
			spans := r.spans.Ended()
			require.Len(t, spans, 1, "and there is no other")
			assert.Equal(t, c.want, labels(spans[0]))
			assert.Equal(t, codes.Unset, spans[0].Status().Code, "the status is the HTTP server's to set")
		})
	}
	t.Run("none in the context, none made", func(t *testing.T) {
		r := newRig(t)
		r.Observe(t.Context(), valetkey.Event{Kind: valetkey.RequestDecided, Status: 200})
		assert.Empty(t, r.spans.Started())
	})
}

// TestAttributes holds the promise of the package comment: these attributes and no others, and in a metric no text of an
// error.
func TestAttributes(t *testing.T) {
	r := newRig(t)
	secret := errors.New("text of an error")
	for _, kind := range []valetkey.EventKind{valetkey.RequestDecided, valetkey.KeySetRefreshed, valetkey.IssuerAsked, "other"} {
		for _, status := range []int{-1, 0, 200, 304, 401, 503, 600} {
			for _, err := range []error{nil, secret, fmt.Errorf("%w: %w", secret, slow{})} {
				ctx, span := r.tracer.Start(t.Context(), "request")
				r.Observe(ctx, valetkey.Event{Kind: kind, Issuer: issuer, Status: status, Reason: "r", Remembered: true, Duration: 1, Err: err})
				span.End()
			}
		}
	}
	_, err := r.WatchHealth(func() []valetkey.Health { return []valetkey.Health{{Name: issuer, State: valetkey.Down, Err: secret}} })
	require.NoError(t, err)
	_, err = r.WatchCache("tokens", func() middleware.CacheStatus { return middleware.CacheStatus{} })
	require.NoError(t, err)

	lines := strings.Join(r.lines(t), "\n")
	assert.NotContains(t, lines, secret.Error())

	inMetrics, inSpans := map[string]bool{}, map[string]bool{}
	add := func(keys map[string]bool, attrs []attribute.KeyValue) {
		for _, a := range attrs {
			keys[string(a.Key)] = true
		}
	}
	for _, m := range r.collect(t) {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				add(inMetrics, p.Attributes.ToSlice())
				for _, e := range p.Exemplars {
					add(inMetrics, e.FilteredAttributes)
				}
			}
		case metricdata.Gauge[int64]:
			for _, p := range data.DataPoints {
				add(inMetrics, p.Attributes.ToSlice())
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				add(inMetrics, p.Attributes.ToSlice())
				for _, e := range p.Exemplars {
					add(inMetrics, e.FilteredAttributes)
				}
			}
		}
	}
	for _, s := range r.spans.Ended() {
		add(inSpans, s.Attributes())
		assert.Empty(t, s.Events())
		assert.Empty(t, s.Links())
	}
	assert.Equal(t, []string{"error.type", "http.response.status_code", "valetkey.cache.name", "valetkey.cache.result",
		"valetkey.issuer", "valetkey.reason", "valetkey.remembered", "valetkey.status", "valetkey.verifier.name",
		"valetkey.verifier.state"}, slices.Sorted(maps.Keys(inMetrics)))
	assert.Equal(t, []string{"error.type", "http.response.status_code", "valetkey.cause",
		"valetkey.issuer", "valetkey.reason", "valetkey.remembered", "valetkey.status"}, slices.Sorted(maps.Keys(inSpans)))
}

func TestConcurrency(t *testing.T) {
	r := newRig(t)
	events := []valetkey.Event{
		{Kind: valetkey.RequestDecided, Issuer: issuer, Status: 200, Remembered: true},
		{Kind: valetkey.KeySetRefreshed, Issuer: issuer, Status: 200},
		{Kind: valetkey.IssuerAsked, Issuer: issuer, Status: 200},
		{Kind: "other"},
	}
	ctx, span := r.tracer.Start(t.Context(), "request")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i := range 400 {
				r.Observe(ctx, events[i%len(events)])
			}
		})
		group.Go(func() {
			stop, err := r.WatchHealth(func() []valetkey.Health { return []valetkey.Health{{Name: "as", State: valetkey.Ready}} })
			assert.NoError(t, err)
			assert.NoError(t, r.reader.Collect(ctx, new(metricdata.ResourceMetrics)))
			assert.NoError(t, stop.Unregister())
		})
	}
	group.Wait()
	span.End()
	assert.Equal(t, []string{
		"event.other counter {event}{} 800",
		"issuer.ask.duration histogram s{http.response.status_code=200,issuer=https://as.example.com} 800 of 0 in bucket 0 of 15",
		"issuer.asked counter {call}{http.response.status_code=200,issuer=https://as.example.com} 800",
		"key_set.refresh.duration histogram s{http.response.status_code=200,issuer=https://as.example.com} 800 of 0 in bucket 0 of 15",
		"key_set.refreshed counter {refresh}{http.response.status_code=200,issuer=https://as.example.com} 800",
		"request.decided counter {request}{issuer=https://as.example.com,remembered=true,status=200} 800",
		"request.duration histogram s{issuer=https://as.example.com,status=200} 800 of 0 in bucket 0 of 15",
	}, r.lines(t))
	assert.Len(t, r.spans.Ended(), 1600+1)
}

// refusing is a provider whose instruments all fail.
type refusing struct{ noop.MeterProvider }

func (refusing) Meter(string, ...metric.MeterOption) metric.Meter { return refusingMeter{} }

type refusingMeter struct{ noop.Meter }

func (refusingMeter) Int64Counter(name string, _ ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return nil, fmt.Errorf("no %s", name)
}

func (refusingMeter) Float64Histogram(name string, _ ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return nil, fmt.Errorf("no %s", name)
}

// watchless is a provider that refuses only the instruments of the watches.
type watchless struct{ noop.MeterProvider }

func (watchless) Meter(string, ...metric.MeterOption) metric.Meter { return watchlessMeter{} }

type watchlessMeter struct{ noop.Meter }

func (watchlessMeter) Int64ObservableGauge(name string, _ ...metric.Int64ObservableGaugeOption) (metric.Int64ObservableGauge, error) {
	return nil, fmt.Errorf("no %s", name)
}

func (watchlessMeter) Int64ObservableCounter(name string, _ ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	return nil, fmt.Errorf("no %s", name)
}

func TestNew(t *testing.T) {
	t.Run("names every instrument that the provider refuses", func(t *testing.T) {
		o, err := valetotel.New(valetotel.Config{MeterProvider: refusing{}})
		assert.Nil(t, o)
		for _, name := range []string{"request.decided", "request.duration", "key_set.refreshed", "key_set.refresh.duration",
			"issuer.asked", "issuer.ask.duration", "event.other"} {
			assert.ErrorContains(t, err, "no valetkey."+name)
		}
	})
	t.Run("the watches name theirs", func(t *testing.T) {
		o, err := valetotel.New(valetotel.Config{MeterProvider: watchless{}})
		require.NoError(t, err)
		_, err = o.WatchHealth(func() []valetkey.Health { return nil })
		assert.ErrorContains(t, err, "no valetkey.verifier.state")
		_, err = o.WatchCache("tokens", func() middleware.CacheStatus { return middleware.CacheStatus{} })
		assert.ErrorContains(t, err, "no valetkey.cache.lookups")
		assert.ErrorContains(t, err, "no valetkey.cache.evictions")
	})
	t.Run("takes the global providers", func(t *testing.T) {
		meters, tracers := otel.GetMeterProvider(), otel.GetTracerProvider()
		t.Cleanup(func() { otel.SetMeterProvider(meters); otel.SetTracerProvider(tracers) })
		r := rig{reader: sdkmetric.NewManualReader(), spans: tracetest.NewSpanRecorder()}
		otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(r.reader)))
		otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r.spans)))
		o, err := valetotel.New(valetotel.Config{})
		require.NoError(t, err)
		o.Observe(t.Context(), valetkey.Event{Kind: valetkey.IssuerAsked, Status: 200})
		assert.Contains(t, r.lines(t), "issuer.asked counter {call}{http.response.status_code=200} 1")
		assert.Len(t, r.spans.Ended(), 1)
	})
}

func BenchmarkObserve(b *testing.B) {
	o, err := valetotel.New(valetotel.Config{
		MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())),
	})
	require.NoError(b, err)
	e := valetkey.Event{Kind: valetkey.RequestDecided, Issuer: issuer, Status: 200, Remembered: true, Duration: time.Microsecond}
	b.ReportAllocs()
	for b.Loop() {
		o.Observe(b.Context(), e)
	}
}
