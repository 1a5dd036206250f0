package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
)

// DefaultDrain suffices for load balancers that probe every second or two.
const DefaultDrain = 5 * time.Second

// DefaultGrace is how long requests in progress have to finish at shutdown.
const DefaultGrace = 10 * time.Second

// A Server serves the connections of a listener, as an [http.Server] does.
type Server interface {
	Serve(l net.Listener) error         // until Shutdown or Close; its error is then ignored
	Shutdown(ctx context.Context) error // stops accepting connections, and waits for requests in progress until ctx is done
	Close() error                       // ends all connections
}

// A servingSetter is a Server with health checks of its protocol.
type servingSetter interface{ SetServing(serving bool) }

// A Process serves the sites of one command, and obeys its operator: signals, a service manager, probes. Set the fields before
// [Process.Run] and do not change them after that.
type Process struct {
	Log   *slog.Logger
	Sites []Site

	// Probe is the site for operators; see [Process.Probes]. It serves until the other sites have ended. Nil: none.
	Probe *Site

	// Reload reads the configuration again and puts it into use. After an error, the old one must still be in use. Calls do not
	// overlap. Hangup requests one. Nil: requests are logged and ignored.
	Reload func(context.Context) error
	Hangup <-chan os.Signal

	// Drain returns how long the sites continue to serve after the context of Run is done, while the process already reports that
	// it is not ready. A load balancer notices that within this time, and sends no more requests. Nil: 0.
	Drain func() time.Duration

	// Grace returns how long requests in progress, streams and WebSockets then have to finish. Nil: [DefaultGrace].
	Grace func() time.Duration

	state state
	sites []*runningSite // with the probe; nil: Listen has not been called
}

// Listen opens the listeners of all sites, so that [Process.Addr] is known and Run does not do so. Call Run or Close after that.
func (p *Process) Listen() (err error) {
	sites := p.Sites
	if p.Probe != nil {
		sites = append(sites[:len(sites):len(sites)], *p.Probe)
	}
	p.sites, err = p.open(sites)
	return err
}

// Addr returns the address of the first site.
func (p *Process) Addr() net.Addr { return p.sites[0].listener.Addr() }

// Close closes the listeners. Run does so too.
func (p *Process) Close() {
	for _, s := range p.sites {
		s.listener.Close()
	}
}

// ballast is a number of bytes that are allocated and never touched, so they are not resident memory. A process that remembers few tokens
// has a heap of 4 MB, which the collector would collect every 2,000 requests. With the ballast it waits for 16 MB of garbage, which is what
// the resident memory grows by; that raises the throughput by about a tenth. A large heap notices no difference, in contrast to a larger GOGC.
const ballast = 12 << 20

// Run serves until ctx is done or a site fails. It returns nil if it ended because of ctx.
//
// Sockets that systemd passes (LISTEN_FDS) are used instead of listening: a socket with FileDescriptorName= is for the site of that
// name, and one without a name is for the first of Sites. A socket for no site is an error. If systemd asks for it, Run reports when
// it is ready, reloads and stops (NOTIFY_SOCKET), and that it is alive (WATCHDOG_USEC).
func (p *Process) Run(ctx context.Context) error {
	defer runtime.KeepAlive(make([]byte, ballast))
	if p.sites == nil {
		if err := p.Listen(); err != nil {
			return err
		}
	}
	running := p.sites
	// Requests outlive ctx by the time to drain and the grace at most. That includes WebSockets, which http.Server does not track.
	requests, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	failed := make(chan error, len(running))
	for _, s := range running {
		s.start(requests, &p.state, p.Log, failed)
	}
	p.state.begin()
	manager := newManager(p.Log)
	manager.tell(ready)

	err := p.control(ctx, manager, failed)
	manager.tell(stopping)
	if err == nil {
		err = p.drain(failed)
	}
	p.shutdown(requests, running)
	return err
}

// control handles reloads until ctx is done or a site fails.
func (p *Process) control(ctx context.Context, manager *manager, failed <-chan error) error {
	reloading, cancel := context.WithCancel(ctx)
	var reload sync.WaitGroup
	defer reload.Wait()
	defer cancel()
	var ended chan struct{} // of the reload in progress; nil: none
	pending := false        // another reload has been requested since it began
	alive := manager.alive()
	defer alive.Stop()
	begin := func() {
		ended = make(chan struct{})
		reload.Go(func() { defer close(ended); p.reload(reloading, manager) })
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-alive.C:
			manager.tell(watchdog)
		case <-p.Hangup:
			switch {
			case p.Reload == nil:
				p.Log.Warn("SIGHUP ignored: there is no configuration file to read again")
			case ended != nil:
				pending = true
			default:
				begin()
			}
		case <-ended:
			if ended = nil; pending {
				pending = false
				begin()
			}
		}
	}
}

func (p *Process) reload(ctx context.Context, manager *manager) {
	manager.tell(reloadBegun())
	err := p.Reload(ctx)
	if ctx.Err() != nil { // the process ends
		return
	}
	p.state.reloaded(err)
	if err == nil {
		p.Log.InfoContext(ctx, "configuration reloaded")
		manager.tell(ready)
		return
	}
	for _, mistake := range parts(err) {
		p.Log.ErrorContext(ctx, "configuration not reloaded: the old one is still in use", "mistake", mistake)
	}
	manager.tell(reloadFailed)
}

// parts returns the errors that err joins.
func parts(err error) (all []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	for _, e := range joined.Unwrap() {
		all = append(all, parts(e)...)
	}
	return all
}

// drain reports that the process is not ready, and waits until the load balancers have had time to notice.
func (p *Process) drain(failed <-chan error) error {
	p.state.draining.Store(true)
	for _, s := range p.Sites {
		if health, ok := s.Server.(servingSetter); ok {
			health.SetServing(false)
		}
	}
	wait := time.Duration(0)
	if p.Drain != nil {
		wait = p.Drain()
	}
	if wait <= 0 {
		return nil
	}
	p.Log.Info("shutting down: not ready, still serving", "for", wait)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case err := <-failed:
		return err
	}
}

// shutdown ends all sites, the probe last.
func (p *Process) shutdown(requests context.Context, running []*runningSite) {
	grace := DefaultGrace
	if p.Grace != nil {
		grace = p.Grace()
	}
	wait, cancel := context.WithTimeout(requests, grace)
	defer cancel()
	var ending sync.WaitGroup
	for _, s := range running[:len(p.Sites)] {
		ending.Go(func() { s.shutdown(wait, p.Log) })
	}
	ending.Wait()
	for _, s := range running[len(p.Sites):] {
		s.shutdown(wait, p.Log)
	}
}

// open returns the sites with their listeners.
func (p *Process) open(sites []Site) (all []*runningSite, err error) {
	given, err := activated(sites)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, l := range given { // those that no site has taken
			l.Close()
		}
		if err != nil {
			for _, s := range all {
				s.listener.Close()
			}
		}
	}()
	for _, s := range sites {
		l := s.Listener
		switch {
		case l != nil:
		case given[s.Name] != nil:
			l = given[s.Name]
			delete(given, s.Name)
		default:
			if l, err = net.Listen("tcp", s.Addr); err != nil {
				return all, fmt.Errorf("the %s: %w", s.Name, err)
			}
		}
		if s.TLS != nil {
			l = tls.NewListener(l, s.TLS)
		}
		all = append(all, &runningSite{Site: s, listener: l})
	}
	return all, nil
}

// activated returns the sockets that systemd passes to this process, by the name of the site.
func activated(sites []Site) (map[string]net.Listener, error) {
	all := map[string]net.Listener{}
	var wrong error
	for _, f := range activation.Files(true) {
		name := f.Name()
		if name == "unknown" || strings.HasPrefix(name, "LISTEN_FD_") || strings.HasSuffix(name, ".socket") { // the default is the name of the unit
			name = sites[0].Name
		}
		l, err := net.FileListener(f)
		f.Close()
		switch {
		case err != nil:
			wrong = errors.Join(wrong, fmt.Errorf("the socket %q of LISTEN_FDS: %w", f.Name(), err))
			continue
		case all[name] != nil:
			err = fmt.Errorf("LISTEN_FDS has two sockets for the %s", name)
		case !isSite(sites, name):
			err = fmt.Errorf("LISTEN_FDS has a socket %q, which is not the name of a site (%s)", name, names(sites))
		default:
			all[name] = l
			continue
		}
		l.Close()
		wrong = errors.Join(wrong, err)
	}
	if wrong != nil {
		for _, l := range all {
			l.Close()
		}
		return nil, wrong
	}
	return all, nil
}

func isSite(sites []Site, name string) bool {
	for _, s := range sites {
		if s.Name == name {
			return true
		}
	}
	return false
}

func names(sites []Site) string {
	var all []string
	for _, s := range sites {
		all = append(all, s.Name)
	}
	return strings.Join(all, ", ")
}

// A runningSite is a site with its listener and server.
type runningSite struct {
	Site
	listener net.Listener
	server   Server
	active   active
}

func (s *runningSite) start(requests context.Context, state *state, log *slog.Logger, failed chan<- error) {
	log = log.With("site", s.Name)
	if s.server = s.Server; s.server == nil {
		s.server = newServer(requests, s.active.count(state.closing(s.Handler)), s.Limits, log)
	}
	log.Info("listening on " + s.listener.Addr().String())
	go func() {
		if err := s.server.Serve(s.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("serve on %s: %w", s.listener.Addr(), err)
		}
	}()
}

// shutdown waits for requests in progress until wait is done.
func (s *runningSite) shutdown(wait context.Context, log *slog.Logger) {
	err := s.server.Shutdown(wait)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	if err == nil { // connections that an http.Server has handed over, such as WebSockets, are still open
		err = s.active.wait(wait)
	}
	if err != nil {
		log.Warn("requests in progress were cut off", "site", s.Name, "addr", s.listener.Addr().String(), "err", err)
	}
	s.server.Close()
	s.listener.Close() // a server that has never served does not know it
}

// active counts the requests of a site.
type active struct {
	n    atomic.Int64
	none chan struct{} // receives when n has become 0
}

func (a *active) count(next http.Handler) http.Handler {
	a.none = make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.n.Add(1)
		defer func() {
			if a.n.Add(-1) == 0 {
				select {
				case a.none <- struct{}{}:
				default:
				}
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// wait waits until there is no request, or for ctx.
func (a *active) wait(ctx context.Context) error {
	for a.n.Load() > 0 {
		select {
		case <-a.none:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
