package proxy

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
)

// Serve listens, and serves until ctx is done or the server fails. With Redis, it also watches for revocations.
func (p *Proxy) Serve(ctx context.Context) error {
	sites := []web.Site{{Name: "proxy", Handler: p}}
	addrs := []string{p.listen}
	if p.probe != "" {
		sites, addrs = append(sites, web.Site{Name: "probe", Handler: p.probes()}), append(addrs, p.probe)
	}
	for i, addr := range addrs {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return fmt.Errorf("the %s: %w", sites[i].Name, err)
		}
		defer l.Close()
		if i == 0 && p.tls != nil {
			l = tls.NewListener(l, p.tls)
		}
		sites[i].Listener = l
	}

	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if p.shared != nil {
		watching.Go(func() { p.guard.Watch(ctx) }) // until ctx is done
	}
	return web.ServeAll(ctx, p.log, sites...)
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
