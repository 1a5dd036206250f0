package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/metrics"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
)

// A process serves an authorization server whose file can be read again. The store and the listeners belong to it.
type process struct {
	settings   Settings
	log        *slog.Logger
	store      store.Store
	closeStore func() error // nil: no store has been opened
	current    *web.Current[*generation]
	web        *web.Process
	background context.Context // of all generations
}

// A generation is the server of one configuration, with its background work.
type generation struct {
	document *document
	server   *authserver.Server
	loaded   time.Time
	cancel   context.CancelFunc
	running  sync.WaitGroup
	log      *slog.Logger
}

// start begins the background work, which goes on until Close.
func (p *process) start(d *document, s *authserver.Server) *generation {
	g := &generation{document: d, server: s, loaded: time.Now(), log: p.log}
	ctx, cancel := context.WithCancel(p.background)
	g.cancel = cancel
	g.running.Go(func() { s.Run(ctx) })
	return g
}

// Close ends the background work, and the connections to directories.
func (g *generation) Close() {
	g.cancel()
	g.running.Wait()
	if err := g.document.close(); err != nil {
		g.log.Warn("a directory was not closed", "err", err)
	}
}

func (p *process) serve(ctx context.Context, d *document, hangup <-chan os.Signal, out io.Writer) error {
	addr := cmp.Or(p.settings.Addr, d.Listen, defaultAddr) // the flag overrides the file
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return errors.Join(fmt.Errorf("%q is not an address such as %s", addr, defaultAddr), d.close())
	}
	if fields := d.DemoSecrets(); len(fields) > 0 && !onLoopback(addr) {
		return errors.Join(fmt.Errorf("%s is not on loopback, but the demo secrets in %s are public", addr, d.FieldName(strings.Join(fields, ", "))), d.close())
	}
	p.web = &web.Process{
		Log: p.log, Sites: []web.Site{{Name: "server", Addr: addr, Handler: http.HandlerFunc(p.serveHTTP)}}, Hangup: hangup,
		Drain: func() time.Duration { return p.times(func(d *document) time.Duration { return d.drain() }) },
		Grace: func() time.Duration { return p.times(func(d *document) time.Duration { return d.grace() }) },
	}
	if p.settings.Config != "" {
		p.web.Reload = p.reload
	}
	if d.Probe != "" {
		p.web.Probe = &web.Site{Name: "probe", Addr: d.Probe, Handler: p.probes()}
	}
	if err := p.web.Listen(); err != nil {
		return errors.Join(err, d.close())
	}
	defer p.web.Close()
	if p.settings.Config == "" {
		d.Issuer = "http://" + p.web.Addr().String()
	}
	if err := p.openStore(ctx, d); err != nil {
		return errors.Join(err, d.close())
	}
	s, err := authserver.New(ctx, d.Config)
	if err != nil {
		return errors.Join(err, d.close())
	}
	d.introduce(out)

	background, cancel := context.WithCancel(ctx)
	defer cancel()
	p.background = background
	p.current = web.NewCurrent(p.start(d, s))
	defer p.current.Close()
	if len(rotateSignals) > 0 {
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, rotateSignals...) // before the log line about listening: an early signal must not be lost
		defer signal.Stop(asked)
		var rotating sync.WaitGroup
		defer rotating.Wait()
		defer cancel()
		rotating.Go(func() { p.rotateOnSignal(background, asked) })
	}
	return p.web.Run(ctx)
}

// openStore opens the store of the process. In memory, too, it outlives a configuration.
func (p *process) openStore(ctx context.Context, d *document) (err error) {
	opened := len(d.closers)
	if d.Store, err = d.open(ctx, true); err != nil {
		return err
	}
	if d.Store == nil {
		d.Store = store.NewMemory(d.MaxTokens)
		d.Seal = make([]byte, sealSize)
		rand.Read(d.Seal)
	}
	for _, end := range d.closers[opened:] {
		p.closeStore = end
	}
	d.closers = d.closers[:opened]
	p.store = d.Store
	return nil
}

// close closes the store.
func (p *process) close() error {
	if p.closeStore == nil {
		return nil
	}
	return p.closeStore()
}

func (p *process) serveHTTP(w http.ResponseWriter, r *http.Request) {
	g := p.current.Get()
	defer g.Done()
	g.Value.server.ServeHTTP(w, r)
}

func (p *process) times(of func(*document) time.Duration) time.Duration {
	g := p.current.Get()
	defer g.Done()
	return of(g.Value.document)
}

// reload reads the file again and serves all later requests with it. Everything that a server keeps is in the store, so this is as if a
// replica with the new file took over, except that counters of failed attempts begin again.
func (p *process) reload(ctx context.Context) error {
	old := p.current.Get()
	defer old.Done()
	d, err := loadNext(p.settings, old.Value.document)
	if err != nil {
		return err
	}
	d.Audit, d.Store = p.settings.Audit, p.store
	if d.words == inMemory {
		d.Seal = old.Value.document.Seal
	} else if d.beside != "" {
		if d.Seal, err = sealAt(d.beside); err != nil {
			return errors.Join(fmt.Errorf("the seal of the signing keys: %w", err), d.close())
		}
	}
	s, err := authserver.New(ctx, d.Config)
	if err != nil {
		return errors.Join(err, d.close())
	}
	p.current.Replace(p.start(d, s))
	return nil
}

func (p *process) rotateOnSignal(ctx context.Context, asked <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
			g := p.current.Get()
			if err := g.Value.server.RotateKeys(ctx, false); err != nil {
				p.log.ErrorContext(ctx, "signing keys not rotated", "error", err)
			}
			g.Done()
		}
	}
}

// probes returns the handler for operators.
func (p *process) probes() http.Handler {
	const limit = 2 * time.Second
	state := func(ctx context.Context) valetkey.State {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		if err := p.store.Ping(ctx); err != nil {
			p.log.WarnContext(ctx, "not ready: the store does not answer", "error", err)
			return valetkey.Down
		}
		return valetkey.Ready
	}
	respond := func(w http.ResponseWriter, s valetkey.State, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if s == valetkey.Down {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		json.NewEncoder(w).Encode(body)
	}
	ready := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := state(r.Context())
		respond(w, s, struct {
			State valetkey.State `json:"state"`
		}{s})
	})
	status := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g := p.current.Get()
		defer g.Done()
		respond(w, "", struct {
			State valetkey.State `json:"state"`
			web.Status
			Config web.Source `json:"config"`
		}{state(r.Context()), p.web.Status(), g.Value.document.source(g.Value.loaded)})
	})
	exposition := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g := p.current.Get()
		defer g.Done()
		w.Header().Set("Content-Type", metrics.ContentType)
		w.Header().Set("Cache-Control", "no-store")
		m := metrics.NewWriter(w)
		up := 0.0
		if state(r.Context()) == valetkey.Ready {
			up = 1
		}
		m.Gauge("valetkey_store_up", "1 while the store answers.", up)
		m.Process(p.web.Status(), g.Value.loaded)
		_ = m.Flush() // the client has gone
	})
	return p.web.Probes(ready, status, exposition)
}
