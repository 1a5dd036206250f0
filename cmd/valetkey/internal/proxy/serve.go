package proxy

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/metrics"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
)

// A Service serves the proxy or the authorizer of a file, and reloads the file. It must be closed.
type Service struct {
	load    func(build) (*Proxy, error)
	build   build
	current *web.Current[*Proxy]
	process *web.Process
	grpc    *web.Handover // nil: no gRPC
	metrics *metrics.Observer
	log     *slog.Logger
}

// Open loads a file as [Load] does.
func Open(path string, drivers driver.Set, log *slog.Logger) (*Service, error) {
	return newService(drivers, log, func(b build) (*Proxy, error) { return load(path, b) })
}

// OpenAuthorizer loads a file as [LoadAuthorizer] does.
func OpenAuthorizer(path string, drivers driver.Set, log *slog.Logger) (*Service, error) {
	return newService(drivers, log, func(b build) (*Proxy, error) {
		a, err := loadAuthorizer(path, b)
		if err != nil {
			return nil, err
		}
		return a.Proxy, nil
	})
}

func newService(drivers driver.Set, log *slog.Logger, load func(build) (*Proxy, error)) (*Service, error) {
	s := &Service{load: load, metrics: metrics.New(), log: log}
	s.build = build{log: log, drivers: drivers, observer: s.metrics, carried: carried{memory: new(memory)}}
	p, err := load(s.build)
	if err != nil {
		return nil, err
	}
	s.build.fixed, s.current = p.fixed, web.NewCurrent(p)
	return s, nil
}

// Close stops fetches of keys and calls to issuers, and waits for them. Call it after [Service.Serve] has returned.
func (s *Service) Close() { s.current.Close() }

// ServeHTTP serves a request with the newest configuration.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := s.current.Get()
	defer p.Done()
	if a := p.Value.authorizer; a != nil {
		a.ask.ServeHTTP(w, r)
		endBody(w, r)
		return
	}
	p.Value.ServeHTTP(w, r)
}

// sites returns the sites of the first configuration.
func (s *Service) sites(first *Proxy) (all []web.Site) {
	site := web.Site{Name: "proxy", Addr: first.listen, Handler: s, Limits: first.limits}
	if first.tls != nil {
		site.TLS = s.tls(first.tls)
	}
	if r := first.signals; r != nil && r.value.listen != "" { // last: the first gets the socket of systemd that has no name
		own := site
		own.Name, own.Addr, own.Handler = "signals", r.value.listen, r.value.handler()
		defer func() { all = append(all, own) }()
	}
	a := first.authorizer
	if a == nil {
		return append(all, site)
	}
	if a.http != "" {
		site.Name, site.Addr = "authorize", string(a.http)
		all = append(all, site)
	}
	if a.grpc != "" { // the server terminates TLS itself
		s.grpc = web.NewHandover(s.serverOf())
		all = append(all, web.Site{Name: "ext_authz", Addr: string(a.grpc), Server: s.grpc})
	}
	return all
}

// serverOf returns the server for gRPC of the newest configuration, and the end of its use.
func (s *Service) serverOf() (server web.Server, end func()) {
	p := s.current.Get()
	return p.Value.authorizer.server, p.Done
}

// Serve listens, and serves until ctx is done or the server fails. With Redis or signals, it also watches for revocations. A hangup requests a
// reload. See [web.Process] about the end.
func (s *Service) Serve(ctx context.Context, hangup <-chan os.Signal) error {
	p := s.current.Get()
	first := p.Value
	s.process = &web.Process{
		Log: s.log, Sites: s.sites(first),
		Reload: s.Reload, Hangup: hangup,
		Drain: func() time.Duration { return s.times(func(p *Proxy) time.Duration { return p.drain }) },
		Grace: func() time.Duration { return s.times(func(p *Proxy) time.Duration { return p.grace }) },
	}
	if first.probe != "" {
		s.process.Probe = &web.Site{Name: "probe", Addr: first.probe, Handler: s.probes()}
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	watch, stop := context.WithCancel(context.WithoutCancel(ctx)) // until the last request has ended
	defer cancel()
	defer stop()
	if first.signals != nil {
		watching.Go(func() { first.signals.value.Run(watch) })
	}
	if first.shared != nil || first.signals != nil {
		watching.Go(func() { first.guard.Watch(watch) }) // for the guards of all later configurations too
	}
	p.Done()
	return s.process.Run(ctx)
}

func (s *Service) times(of func(*Proxy) time.Duration) time.Duration {
	p := s.current.Get()
	defer p.Done()
	return of(p.Value)
}

// tls returns the configuration of the listener: each connection gets that of the newest proxy.
func (s *Service) tls(first *tls.Config) *tls.Config {
	cfg := first.Clone()
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		p := s.current.Get()
		defer p.Done()
		return p.Value.tls, nil
	}
	return cfg
}

// Reload loads the file again and uses it for all later requests. If the file has mistakes, or changes what cannot be changed while
// the process runs, the error names each of them, and the old configuration is still in use.
func (s *Service) Reload(ctx context.Context) error {
	old := s.current.Get()
	defer old.Done()
	b := s.build
	b.previous = old.Value
	p, err := s.load(b)
	if err != nil {
		return err
	}
	p.prepare(ctx)
	s.build.fixed = p.fixed
	s.current.Replace(p)
	if s.grpc != nil {
		s.grpc.Replace(s.serverOf())
	}
	return nil
}

// preparations is the number of attempts to fetch the keys of new verifiers, of up to 2 s each, before they get requests.
const preparations = 5

// prepare fetches the keys of new verifiers. A proxy that is not ready after that is used nevertheless, as at a start.
func (p *Proxy) prepare(ctx context.Context) {
	for range preparations {
		if p.guard.Status().State == valetkey.Ready || ctx.Err() != nil {
			return
		}
		probe, err := http.NewRequestWithContext(ctx, http.MethodGet, "/ready", http.NoBody)
		if err != nil {
			return
		}
		p.guard.Readiness().ServeHTTP(discarded{}, probe)
	}
	for _, h := range p.guard.Status().Verifiers {
		if h.State != valetkey.Ready {
			p.log.Warn("reloaded, but a verifier is not ready", "verifier", h.Name, "state", h.State, "err", h.Err)
		}
	}
}

// discarded is a response that is not of interest.
type discarded struct{}

func (discarded) Header() http.Header         { return http.Header{} }
func (discarded) Write(p []byte) (int, error) { return len(p), nil }
func (discarded) WriteHeader(int)             {}

// probes returns the handler for operators. Its responses name issuers and describe their errors.
func (s *Service) probes() http.Handler {
	newest := func(serve func(*Proxy, http.ResponseWriter, *http.Request)) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p := s.current.Get()
			defer p.Done()
			serve(p.Value, w, r)
		})
	}
	return s.process.Probes(
		newest(func(p *Proxy, w http.ResponseWriter, r *http.Request) { p.guard.Readiness().ServeHTTP(w, r) }),
		newest(s.status),
		newest(s.exposition))
}

// A condition is the JSON form of the health of a verifier or of one use of Redis.
type condition struct {
	Name  string         `json:"name"`
	State valetkey.State `json:"state"`
	Since time.Time      `json:"since,omitzero"`
	Error string         `json:"error,omitempty"`
}

func reports(all []valetkey.Health) []condition {
	list := []condition{}
	for _, h := range all {
		list = append(list, reportOf(h))
	}
	return list
}

func reportOf(h valetkey.Health) condition {
	r := condition{Name: h.Name, State: h.State, Since: h.Since}
	if h.Err != nil {
		r.Error = h.Err.Error()
	}
	return r
}

// cache is the JSON form of middleware.CacheStatus.
type cache struct {
	Entries   int    `json:"entries"`
	Bytes     int64  `json:"bytes"`
	Hits      uint64 `json:"hits"`
	Misses    uint64 `json:"misses"`
	Evictions uint64 `json:"evictions"`
}

// audit describes the audit records.
type audit struct {
	Dropped uint64 `json:"dropped"` // since the last reload
}

// revocations is the JSON form of middleware.RevocationsStatus.
type revocations struct {
	Held       int       `json:"held"`
	Overflowed int       `json:"overflowed"`
	Source     condition `json:"source,omitzero"`
}

func (s *Service) status(p *Proxy, w http.ResponseWriter, _ *http.Request) {
	g := p.guard.Status()
	body := struct {
		State      valetkey.State `json:"state"`
		ReportOnly bool           `json:"insecure_report_only,omitempty"`
		Rows       []string       `json:"insecure_report_only_routes,omitempty"`
		web.Status
		Config      web.Source  `json:"config"`
		Verifiers   []condition `json:"verifiers"`
		Redis       []condition `json:"redis,omitempty"`
		Signals     *stream     `json:"signals,omitempty"`
		Cache       cache       `json:"cache"`
		Revocations revocations `json:"revocations"`
		Requests    int         `json:"requests"`
		Audit       *audit      `json:"audit,omitempty"`
	}{
		State: g.State, ReportOnly: g.ReportOnly, Rows: p.access.reportOnly(), Status: s.process.Status(), Config: p.source,
		Verifiers: reports(g.Verifiers), Cache: cache(g.Cache),
		Revocations: revocations{g.Revocations.Held, g.Revocations.Overflowed, reportOf(g.Revocations.Source)}, Requests: g.Requests,
	}
	if p.shared != nil {
		body.Redis = reports(p.shared.Health())
	}
	if p.auditor != nil {
		body.Audit = &audit{p.auditor.Dropped()}
	}
	if p.signals != nil {
		body.Signals = p.signals.value.status()
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(body)
}
