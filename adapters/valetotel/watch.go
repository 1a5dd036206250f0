package valetotel

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// WatchHealth reports verifier states whenever metrics are collected, until the registration is unregistered. For each name and
// state, the value is 1 if a verifier of that name is in that state, else 0. health must be fast and safe for concurrent use, as
// the Health method of a [valetkey.HealthReporter] is.
func (o *Observer) WatchHealth(health func() []valetkey.Health) (metric.Registration, error) {
	if health == nil {
		return nil, errors.New("valetotel: WatchHealth: the function is nil")
	}
	gauge, err := o.meter.Int64ObservableGauge("valetkey.verifier.state", metric.WithUnit("1"),
		metric.WithDescription("1 for the state that a verifier is in, 0 for the others."))
	if err != nil {
		return nil, fmt.Errorf("valetotel: instruments: %w", err)
	}
	return o.meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		type pair struct {
			name  string
			state valetkey.State
		}
		// Two verifiers can have one name, such as those for an issuer's JWTs and for its opaque tokens. Report the states of
		// both.
		value := map[pair]int64{}
		for _, h := range health() {
			for _, state := range []valetkey.State{valetkey.Ready, valetkey.Degraded, valetkey.Down} {
				value[pair{h.Name, state}] += 0
			}
			if _, known := value[pair{h.Name, h.State}]; known {
				value[pair{h.Name, h.State}] = 1
			}
		}
		for p, v := range value {
			to.ObserveInt64(gauge, v, metric.WithAttributes(
				attribute.String("valetkey.verifier.name", p.name), attribute.String("valetkey.verifier.state", string(p.state))))
		}
		return nil
	}, gauge)
}

// WatchCache reports the cache of a guard under a name, one of a bounded set, whenever metrics are collected, until the registration
// is unregistered. status must be fast and safe for concurrent use:
//
//	observer.WatchCache("tokens", func() middleware.CacheStatus { return guard.Status().Cache })
func (o *Observer) WatchCache(name string, status func() middleware.CacheStatus) (metric.Registration, error) {
	if status == nil {
		return nil, errors.New("valetotel: WatchCache: the function is nil")
	}
	entries, err1 := o.meter.Int64ObservableUpDownCounter("valetkey.cache.entries", metric.WithUnit("{entry}"),
		metric.WithDescription("Entries that a cache holds."))
	size, err2 := o.meter.Int64ObservableUpDownCounter("valetkey.cache.size", metric.WithUnit("By"),
		metric.WithDescription("Memory that a cache takes."))
	lookups, err3 := o.meter.Int64ObservableCounter("valetkey.cache.lookups", metric.WithUnit("{lookup}"),
		metric.WithDescription("Look-ups in a cache."))
	evictions, err4 := o.meter.Int64ObservableCounter("valetkey.cache.evictions", metric.WithUnit("{eviction}"),
		metric.WithDescription("Entries forgotten before their time to make room."))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, fmt.Errorf("valetotel: instruments: %w", err)
	}
	return o.meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		s, name, result := status(), attribute.String("valetkey.cache.name", name), attribute.Key("valetkey.cache.result")
		to.ObserveInt64(entries, int64(s.Entries), metric.WithAttributes(name))
		to.ObserveInt64(size, s.Bytes, metric.WithAttributes(name))
		to.ObserveInt64(lookups, int64(s.Hits), metric.WithAttributes(name, result.String("hit")))
		to.ObserveInt64(lookups, int64(s.Misses), metric.WithAttributes(name, result.String("miss")))
		to.ObserveInt64(evictions, int64(s.Evictions), metric.WithAttributes(name))
		return nil
	}, entries, size, lookups, evictions)
}
