// Package demo runs an authorization server and an API that it issues tokens for, and tells how requests to it end.
package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
	"github.com/valetkey/valetkey/jwks"
)

// A Place is where a demonstration runs: two URLs without a path.
type Place struct{ Issuer, API string }

// A Demo is a demonstration that is ready to be served. [Demo.Serve] must be called, which ends it.
type Demo struct {
	Place
	as, api parts
	keys    *jwks.Verifier
	log     *slog.Logger
}

type parts struct {
	listener net.Listener
	handler  http.Handler
}

// Start listens on both addresses, whose ports may be 0. Issuer and audience are what the addresses turn out to be.
func Start(asAddr, apiAddr string, log *slog.Logger) (_ *Demo, err error) {
	d := &Demo{log: log}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.as.listener, err = net.Listen("tcp", asAddr); err != nil {
		return nil, fmt.Errorf("the authorization server: %w", err)
	}
	if d.api.listener, err = net.Listen("tcp", apiAddr); err != nil {
		return nil, fmt.Errorf("the orders API: %w", err)
	}
	d.Place = Place{"http://" + d.as.listener.Addr().String(), "http://" + d.api.listener.Addr().String()}

	if d.as.handler, err = authserver.New(d.config()); err != nil {
		return nil, err
	}
	d.api.handler, d.keys, err = guardedOrders(d.Issuer, d.API, log)
	return d, err
}

// config is authserver.Demo moved to the place.
func (d *Demo) config() authserver.Config {
	cfg := authserver.Demo()
	cfg.Issuer, cfg.Logger = d.Issuer, d.log
	cfg.APIs[0].Audience = d.API
	for i := range cfg.Clients {
		if len(cfg.Clients[i].Introspects) > 0 {
			cfg.Clients[i].Introspects = []string{d.API}
		}
	}
	return cfg
}

// Serve serves both until ctx is done or one of them fails.
func (d *Demo) Serve(ctx context.Context) error {
	defer d.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error)
	for _, p := range []parts{d.as, d.api} {
		go func() {
			err := web.Serve(ctx, p.listener, p.handler, d.log)
			cancel()
			ended <- err
		}()
	}
	return errors.Join(<-ended, <-ended)
}

func (d *Demo) close() {
	for _, p := range []parts{d.as, d.api} {
		if p.listener != nil {
			p.listener.Close()
		}
	}
	if d.keys != nil {
		d.keys.Close()
	}
}
