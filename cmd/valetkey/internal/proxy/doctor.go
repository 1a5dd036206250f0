package proxy

import (
	"log/slog"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/doctor"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/signals"
)

// Targets returns the configurations of the verifiers in a file, in the order in which the proxy asks them, its Redis and its receiver of
// signals. It does the same I/O as [Load]. The error joins all mistakes.
func Targets(path string, drivers driver.Set, log *slog.Logger) ([]doctor.Target, error) {
	p, err := Load(path, drivers, log)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return p.Targets(), nil
}

// Targets returns the configurations of the verifiers, in the order in which the proxy asks them, its Redis and its receiver of signals.
func (p *Proxy) Targets() (all []doctor.Target) {
	for _, m := range p.made {
		t := doctor.Target{At: m.at, Keys: m.keys}
		if m.keys == nil {
			t.Introspection = &m.asks
		}
		all = append(all, t)
	}
	if p.shared != nil {
		all = append(all, doctor.Target{At: "redis", Redis: p.shared.examine})
	}
	if p.signals != nil {
		cfg := p.signals.value.cfg
		all = append(all, doctor.Target{At: "signals", Signals: &cfg, Manages: cfg.Delivery != signals.NoStream && !cfg.Stream.Unmanaged})
	}
	return all
}
