package proxy

import (
	"log/slog"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/doctor"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

// Targets returns the configurations of the verifiers in a file, in the order in which the proxy asks them. It does the same I/O as
// [Load]. The error joins all mistakes.
func Targets(path string, drivers driver.Set, log *slog.Logger) ([]doctor.Target, error) {
	re := &rehearsal{}
	p, err := load(path, build{log: log, drivers: drivers, rehearsal: re})
	if err != nil {
		return nil, err
	}
	p.Close()
	var all []doctor.Target
	for _, m := range re.made {
		t := doctor.Target{At: m.at, Keys: m.keys}
		if m.keys == nil {
			t.Introspection = &m.asks
		}
		all = append(all, t)
	}
	return all, nil
}
