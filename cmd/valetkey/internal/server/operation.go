package server

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
)

// Check reports every mistake in a configuration. Online, it also opens the store, without creating one, and waits for it.
func Check(ctx context.Context, set Settings, online bool) error {
	d, err := load(set)
	if err != nil {
		return err
	}
	if !online || d.words == inMemory {
		return d.close()
	}
	opened, err := d.open(ctx, false)
	if err == nil {
		err = opened.Ping(ctx)
	}
	return errors.Join(err, d.close())
}

// checkProcess checks the fields about the process, and that a reload leaves those alone that it cannot change: sockets and the store
// belong to the process, and clients and APIs know the issuer.
func (d *document) checkProcess() {
	if d.Given("probe") {
		if _, _, err := net.SplitHostPort(d.Probe); err != nil {
			d.Mistake("probe", "%q is not an address such as 127.0.0.1:8082", d.Probe)
		}
	}
	for field, value := range map[string]time.Duration{"drain": d.Drain, "grace": d.Grace} {
		if value < 0 {
			d.Mistake(field, "%v is negative", value)
		}
	}
}

// checkFixed adds a mistake for each field that differs from the configuration that this one replaces.
func (d *document) checkFixed() {
	old := d.previous
	if old == nil {
		return
	}
	for _, field := range []struct {
		name    string
		changed bool
	}{
		{"listen", d.Listen != old.Listen}, {"probe", d.Probe != old.Probe}, {"issuer", d.Issuer != old.Issuer},
		{"store", d.words != old.words}, {"max_tokens", d.MaxTokens != old.MaxTokens && d.words == inMemory},
	} {
		if field.changed {
			d.Mistake(field.name, "cannot be changed by a reload: restart to apply it")
		}
	}
}

// drain returns how long the server serves on while it reports that it is not ready. Without a probe, nothing notices that.
func (d *document) drain() time.Duration {
	if !d.Given("drain") && d.Probe != "" {
		return web.DefaultDrain
	}
	return d.Drain
}

func (d *document) grace() time.Duration {
	if !d.Given("grace") {
		return web.DefaultGrace
	}
	return d.Grace
}

func (d *document) source(loaded time.Time) web.Source {
	return web.Source{SHA256: d.digest, Loaded: loaded}
}
