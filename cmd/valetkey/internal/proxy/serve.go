package proxy

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
)

// Serve listens, and serves until ctx is done or the server fails. With Redis, it also watches for revocations.
func (p *Proxy) Serve(ctx context.Context) error {
	return p.serve(ctx, listening{name: "proxy", addr: p.listen, handler: p, tls: p.tls})
}

// A listening is a handler or a server, and its address.
type listening struct {
	name, addr string
	handler    http.Handler
	server     driver.Server // instead of handler
	tls        *tls.Config   // nil: none
}

func (p *Proxy) serve(ctx context.Context, all ...listening) error {
	if p.probe != "" {
		all = append(all, listening{name: "probe", addr: p.probe, handler: p.probes()})
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var sites []web.Site
	var others []func() error
	for _, s := range all {
		l, err := net.Listen("tcp", s.addr)
		if err != nil {
			return fmt.Errorf("the %s: %w", s.name, err)
		}
		defer l.Close()
		if s.server != nil {
			others = append(others, func() error { return serveOther(ctx, s.server, l, p.log.With("site", s.name)) })
			continue
		}
		if s.tls != nil {
			l = tls.NewListener(l, s.tls)
		}
		sites = append(sites, web.Site{Name: s.name, Listener: l, Handler: s.handler})
	}

	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	if p.shared != nil {
		watching.Go(func() { p.guard.Watch(ctx) }) // until ctx is done
	}
	if len(sites) > 0 {
		others = append(others, func() error { return web.ServeAll(ctx, p.log, sites...) })
	}
	ended := make(chan error)
	for _, serve := range others {
		go func() {
			err := serve()
			cancel()
			ended <- err
		}()
	}
	var errs []error
	for range others {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// serveOther serves until ctx is done. Requests in progress then have 10 seconds to finish.
func serveOther(ctx context.Context, s driver.Server, l net.Listener, log *slog.Logger) error {
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	log.InfoContext(ctx, "listening on "+l.Addr().String())
	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if s.Shutdown(wait) != nil {
		s.Close()
	}
	return nil
}

// probes returns the handler for operators. Its responses name issuers and describe their errors.
func (p *Proxy) probes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /ready", p.guard.Readiness())
	mux.HandleFunc("GET /status", p.status)
	return mux
}

// A part is the JSON form of the health of a verifier or of one use of Redis.
type part struct {
	Name  string         `json:"name"`
	State valetkey.State `json:"state"`
	Since time.Time      `json:"since,omitzero"`
	Error string         `json:"error,omitempty"`
}

func parts(all []valetkey.Health) []part {
	list := []part{}
	for _, h := range all {
		list = append(list, partOf(h))
	}
	return list
}

func partOf(h valetkey.Health) part {
	p := part{Name: h.Name, State: h.State, Since: h.Since}
	if h.Err != nil {
		p.Error = h.Err.Error()
	}
	return p
}

// cache is the JSON form of middleware.CacheStatus.
type cache struct {
	Entries   int    `json:"entries"`
	Bytes     int64  `json:"bytes"`
	Hits      uint64 `json:"hits"`
	Misses    uint64 `json:"misses"`
	Evictions uint64 `json:"evictions"`
}

// revocations is the JSON form of middleware.RevocationsStatus.
type revocations struct {
	Held       int  `json:"held"`
	Overflowed int  `json:"overflowed"`
	Source     part `json:"source,omitzero"`
}

func (p *Proxy) status(w http.ResponseWriter, _ *http.Request) {
	s := p.guard.Status()
	body := struct {
		State       valetkey.State `json:"state"`
		Verifiers   []part         `json:"verifiers"`
		Redis       []part         `json:"redis,omitempty"`
		Cache       cache          `json:"cache"`
		Revocations revocations    `json:"revocations"`
		Requests    int            `json:"requests"`
	}{State: s.State, Verifiers: parts(s.Verifiers), Cache: cache(s.Cache), Revocations: revocations{s.Revocations.Held, s.Revocations.Overflowed, partOf(s.Revocations.Source)}, Requests: s.Requests}
	if p.shared != nil {
		body.Redis = parts(p.shared.Health())
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(body)
}
