package proxy

import (
	"context"
	"fmt"
	"net/http"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/metrics"
)

// observers writes the access log, and counts for the metrics. It needs every decision.
type observers struct {
	*accessLog
	metrics valetkey.Observer
}

// ObservesAccepted implements [valetkey.RefusalObserver].
func (observers) ObservesAccepted() bool { return true }

// Observe implements [valetkey.Observer].
func (o observers) Observe(ctx context.Context, e valetkey.Event) {
	o.metrics.Observe(ctx, e)
	o.accessLog.Observe(ctx, e)
}

// observer returns the observer of the guard. Without a probe, the metrics are not served, and accepted requests need not be observed.
func (p *Proxy) observer(f *file) valetkey.Observer {
	if f.observer == nil || f.Probe == "" {
		return &p.access
	}
	return observers{&p.access, f.observer}
}

// exposition responds with the metrics of the process. The counters of the cache and of the audit records begin again with each reload.
func (s *Service) exposition(p *Proxy, w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", metrics.ContentType)
	w.Header().Set("Cache-Control", "no-store")
	m := metrics.NewWriter(w)
	s.metrics.WriteTo(m)

	g := p.guard.Status()
	m.Describe("valetkey_verifier_state", "gauge", "1 for the current state of each verifier.")
	named := map[string]int{}
	for _, h := range g.Verifiers {
		// Two verifiers of one issuer have one name, and a series that occurs twice has an unknown value.
		name := h.Name
		if named[name]++; named[name] > 1 {
			name = fmt.Sprintf("%s (%d)", name, named[name])
		}
		state(m, "valetkey_verifier_state", h, "verifier", name)
	}
	if h := g.Revocations.Source; h.State != "" {
		m.Describe("valetkey_revocation_source_state", "gauge", "1 for the current state of the source of revocations.")
		state(m, "valetkey_revocation_source_state", h)
	}
	if p.signals != nil {
		p.signals.value.expose(m)
	}
	m.Gauge("valetkey_revocations", "Revocations in force.", float64(g.Revocations.Held))
	m.Gauge("valetkey_revocations_overflowed", "Revocations that did not fit in memory: tokens that match them get 503.", float64(g.Revocations.Overflowed))
	m.Gauge("valetkey_cache_entries", "Cached tokens.", float64(g.Cache.Entries))
	m.Gauge("valetkey_cache_bytes", "Estimated memory of the cached tokens.", float64(g.Cache.Bytes))
	m.Counter("valetkey_cache_evictions_total", "Tokens evicted to make room.", float64(g.Cache.Evictions))
	m.Gauge("valetkey_requests_in_progress", "Requests in progress with a token; 0 with cancel_with_token: false.", float64(g.Requests))

	if p.auditor != nil {
		m.Counter("valetkey_audit_dropped_total", "Audit records that were dropped.", float64(p.auditor.Dropped()))
	}

	m.Process(s.process.Status(), p.source.Loaded)
	_ = m.Flush() // the client has gone
}

func state(m *metrics.Writer, name string, h valetkey.Health, labels ...string) {
	for _, s := range []valetkey.State{valetkey.Ready, valetkey.Degraded, valetkey.Down} {
		value := 0.0
		if h.State == s {
			value = 1
		}
		m.Sample(name, value, append(labels[:len(labels):len(labels)], "state", string(s))...)
	}
}
