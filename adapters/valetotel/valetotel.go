// Package valetotel records the events of guards and verifiers as OpenTelemetry metrics and spans.
//
//	sight, err := valetotel.New(valetotel.Config{})
//
// An [Observer] is a [valetkey.Observer]. Verifier states and cache statistics are read when metrics are collected; see
// [Observer.WatchHealth] and [Observer.WatchCache].
//
// # Metrics
//
//	valetkey.request.decided           counter    {request}   issuer, status, reason, remembered
//	valetkey.request.duration          histogram  s           issuer, status
//	valetkey.key_set.refreshed         counter    {refresh}   issuer, http.response.status_code, error.type
//	valetkey.key_set.refresh.duration  histogram  s           issuer, http.response.status_code, error.type
//	valetkey.status_list.read          counter    {read}      issuer, http.response.status_code, error.type
//	valetkey.status_list.read.duration histogram  s           issuer, http.response.status_code, error.type
//	valetkey.issuer.asked              counter    {call}      issuer, http.response.status_code, error.type
//	valetkey.issuer.ask.duration       histogram  s           issuer, http.response.status_code, error.type
//	valetkey.event.other               counter    {event}     no attributes; events of unknown kinds
//	valetkey.verifier.state            gauge      1           verifier.name, verifier.state
//	valetkey.cache.entries             sum        {entry}     cache.name
//	valetkey.cache.size                sum        By          cache.name
//	valetkey.cache.lookups             counter    {lookup}    cache.name, cache.result: hit, miss
//	valetkey.cache.evictions           counter    {eviction}  cache.name
//
// Attribute names start with "valetkey." too, except for the two from the semantic conventions. An attribute without a value is
// omitted: the issuer of a refused request, and error.type after a success. status is the status of the guard's decision: 200 if
// the guard accepted the request, regardless of the handler's response. error.type is the status if that is 400 or more, else
// "timeout" or "_OTHER". Each attribute has a bounded set of values, except for the issuer where tokens of any tenant are accepted
// (jwks.Config.Issuer with a claim in braces, and no rule about the tenants): set the cardinality limit of the SDK then.
//
// # Spans
//
// The package creates the spans "valetkey.key_set.refresh", "valetkey.status_list.read" and "valetkey.issuer.ask". They are
// children of the span in the context and have the attributes of their metrics. A decided request gets no span: its attributes
// are those of valetkey.request.decided and are set on the span in its context. The text of an error is at most 1 KiB long. It is
// the status description of a created span, or the attribute valetkey.cause of a request's span. No metric contains it. Tokens
// appear in neither metrics nor spans, as [valetkey.Event] promises.
package valetotel

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/valetkey/valetkey"
)

const scope = "github.com/valetkey/valetkey/adapters/valetotel"

// Config holds the providers for metrics and spans. The zero value uses the global providers.
type Config struct {
	_ struct{} // keyed literals only

	MeterProvider  metric.MeterProvider // nil: the global provider
	TracerProvider trace.TracerProvider // nil: the global provider
}

// An Observer records events as metrics and spans. Create one with [New]. It is safe for concurrent use.
type Observer struct {
	meter  metric.Meter
	tracer trace.Tracer

	decided  metric.Int64Counter
	duration metric.Float64Histogram
	refresh  exchange
	list     exchange
	ask      exchange
	other    metric.Int64Counter
}

var _ valetkey.Observer = (*Observer)(nil)

// An exchange holds the instruments for one kind of call to an issuer.
type exchange struct {
	span     string
	count    metric.Int64Counter
	duration metric.Float64Histogram
}

// Bucket boundaries of the histograms, in seconds. A decision about a remembered token takes microseconds; a new token needs a
// signature check or a call. The boundaries for calls are those of http.client.request.duration in the semantic conventions.
var (
	decisionBounds = []float64{1e-6, 5e-6, 1e-5, 5e-5, 1e-4, 5e-4, .001, .005, .01, .05, .1, .5, 1, 5}
	callBounds     = []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}
)

// New returns an Observer. It returns an error if a provider fails to create an instrument.
func New(cfg Config) (*Observer, error) {
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = otel.GetMeterProvider()
	}
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = otel.GetTracerProvider()
	}
	o := &Observer{meter: cfg.MeterProvider.Meter(scope), tracer: cfg.TracerProvider.Tracer(scope)}

	var errs []error
	counter := func(name, unit, description string) metric.Int64Counter {
		c, err := o.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return c
	}
	seconds := func(name, description string, bounds []float64) metric.Float64Histogram {
		h, err := o.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description),
			metric.WithExplicitBucketBoundaries(bounds...))
		errs = append(errs, err)
		return h
	}
	o.decided = counter("valetkey.request.decided", "{request}", "Requests let through or refused.")
	o.duration = seconds("valetkey.request.duration", "Time to decide about a request.", decisionBounds)
	o.refresh = exchange{
		span:     "valetkey.key_set.refresh",
		count:    counter("valetkey.key_set.refreshed", "{refresh}", "Fetches of an issuer's key set."),
		duration: seconds("valetkey.key_set.refresh.duration", "Time to fetch an issuer's key set.", callBounds),
	}
	o.list = exchange{
		span:     "valetkey.status_list.read",
		count:    counter("valetkey.status_list.read", "{read}", "Fetches of a status list."),
		duration: seconds("valetkey.status_list.read.duration", "Time to fetch a status list.", callBounds),
	}
	o.ask = exchange{
		span:     "valetkey.issuer.ask",
		count:    counter("valetkey.issuer.asked", "{call}", "Questions to an issuer about a token."),
		duration: seconds("valetkey.issuer.ask.duration", "Time to ask an issuer about a token.", callBounds),
	}
	o.other = counter("valetkey.event.other", "{event}", "Events of kinds that are not known here.")
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("valetotel: instruments: %w", err)
	}
	return o, nil
}

// Observe records e. It does no I/O itself.
func (o *Observer) Observe(ctx context.Context, e valetkey.Event) {
	switch e.Kind {
	case valetkey.RequestDecided:
		o.request(ctx, e)
	case valetkey.KeySetRefreshed:
		o.call(ctx, o.refresh, e)
	case valetkey.StatusListRead:
		o.call(ctx, o.list, e)
	case valetkey.IssuerAsked:
		o.call(ctx, o.ask, e)
	default:
		o.other.Add(ctx, 1)
	}
}

func (o *Observer) request(ctx context.Context, e valetkey.Event) {
	attrs := make([]attribute.KeyValue, 0, 5)
	attrs = append(attrs, attribute.Int("valetkey.status", e.Status))
	attrs = appendText(attrs, "valetkey.issuer", e.Issuer)
	o.duration.Record(ctx, e.Duration.Seconds(), metric.WithAttributeSet(attribute.NewSet(attrs...)))

	attrs = append(attrs, attribute.Bool("valetkey.remembered", e.Remembered))
	attrs = appendText(attrs, "valetkey.reason", string(e.Reason))
	o.decided.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(attrs...)))

	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(appendText(attrs, "valetkey.cause", cause(e.Err))...)
	}
}

func (o *Observer) call(ctx context.Context, x exchange, e valetkey.Event) {
	end, failure := time.Now(), errorType(e)
	attrs := appendText(nil, "valetkey.issuer", e.Issuer)
	attrs = appendText(attrs, "error.type", failure)
	if answered(e.Status) {
		attrs = append(attrs, attribute.Int("http.response.status_code", e.Status))
	}
	set := metric.WithAttributeSet(attribute.NewSet(attrs...))
	x.count.Add(ctx, 1, set)
	x.duration.Record(ctx, e.Duration.Seconds(), set)

	_, span := o.tracer.Start(ctx, x.span, trace.WithTimestamp(end.Add(-e.Duration)),
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attrs...))
	if failure != "" {
		span.SetStatus(codes.Error, cause(e.Err))
	}
	span.End(trace.WithTimestamp(end))
}

// appendText appends an attribute unless value is empty.
func appendText(attrs []attribute.KeyValue, key attribute.Key, value string) []attribute.KeyValue {
	if value == "" {
		return attrs
	}
	return append(attrs, key.String(value))
}

// answered reports whether status is a valid HTTP status (RFC 9110, section 15). The HTTP client accepts any three digits.
func answered(status int) bool { return 100 <= status && status <= 599 }

// errorType returns the value of error.type in the semantic conventions, or "" for a success.
func errorType(e valetkey.Event) string {
	var timeout interface{ Timeout() bool }
	switch {
	case answered(e.Status) && e.Status >= http.StatusBadRequest:
		return strconv.Itoa(e.Status)
	case e.Err == nil:
		return ""
	case errors.As(e.Err, &timeout) && timeout.Timeout():
		return "timeout"
	default:
		return "_OTHER"
	}
}

// cause returns the text of err as valid UTF-8 of at most 1 KiB. Exporters drop a whole batch because of one invalid string.
func cause(err error) string {
	if err == nil {
		return ""
	}
	s := err.Error()
	return strings.ToValidUTF8(s[:min(len(s), 1<<10)], "")
}
