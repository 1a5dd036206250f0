// Package demo runs an authorization server and an API that accepts its tokens, and shows requests to try.
package demo

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
	"github.com/valetkey/valetkey/introspect"
)

// A Place holds the two URLs of a demonstration, without paths.
type Place struct{ Issuer, API string }

// vault returns the audience of the vault. The audience of the orders is API.
func (p Place) vault() string { return p.API + "/vault" }

const readyTimeout = 30 * time.Second

// A Demo is a demonstration that is ready to be served. Call [Demo.Serve], which also releases its resources.
type Demo struct {
	Place
	as, api web.Site
	server  *authserver.Server
	orders  *ordersAPI
	opaque  *introspect.Verifier
	log     *slog.Logger
}

// Start listens on both addresses, whose ports may be 0. The issuer and the audiences are derived from the actual addresses.
func Start(asAddr, apiAddr string, log *slog.Logger) (_ *Demo, err error) {
	d := &Demo{as: web.Site{Name: "authorization server"}, api: web.Site{Name: "API"}, log: log}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.as.Listener, err = net.Listen("tcp", asAddr); err != nil {
		return nil, fmt.Errorf("the authorization server: %w", err)
	}
	if d.api.Listener, err = net.Listen("tcp", apiAddr); err != nil {
		return nil, fmt.Errorf("the orders API: %w", err)
	}
	d.Place = Place{"http://" + d.as.Listener.Addr().String(), "http://" + d.api.Listener.Addr().String()}

	if d.server, err = authserver.New(context.Background(), d.config()); err != nil {
		return nil, err
	}
	d.as.Handler = d.server
	mux := http.NewServeMux()
	d.api.Handler = mux
	if d.orders, err = newOrdersAPI(mux, d.Place, log); err != nil {
		return nil, err
	}
	if d.opaque, err = guardVault(mux, d.Issuer, d.vault(), log); err != nil {
		return nil, err
	}
	return d, nil
}

// config returns authserver.Demo with the URLs of the place, with the vault as a second API, with signals, which the orders API
// receives, and with a first-party application for users.
func (d *Demo) config() authserver.Config {
	cfg := authserver.Demo()
	cfg.Issuer, cfg.Logger = d.Issuer, d.log
	cfg.APIs[0].Audience, cfg.APIs[0].TryURL = d.API, d.API+"/orders"
	cfg.Signals.Enabled = true
	for i := range cfg.Clients {
		if cfg.Clients[i].ID == ordersID {
			cfg.Clients[i].Introspects, cfg.Clients[i].Scopes = []string{d.API}, []string{"ssf.read", "ssf.manage"}
		}
	}
	cfg.APIs = append(cfg.APIs, authserver.API{
		Audience: d.vault(),
		Tokens:   authserver.Opaque,
		Scopes:   []authserver.Scope{{Name: "vault:open", Description: "Look into your vault", Descriptions: map[string]string{"de": "In Ihren Tresor sehen"}}},
	})
	cfg.Clients = append(cfg.Clients,
		authserver.Client{ID: keeper, Secret: secret(keeper), Scopes: []string{"vault:open"}},
		authserver.Client{ID: vaultAPI, Secret: secret(vaultAPI), Introspects: []string{d.vault()}},
		authserver.Client{ID: shop, Secret: secret(shop), Name: "Shop", Scopes: []string{"orders:read"}, RedirectURIs: []string{callback}, Trusted: true})
	return cfg
}

// Ready waits until the API serves requests with a token. It must have caught up with the signals of the authorization server before
// it does, so [Demo.Serve] must run. Ready returns the reason after 30 s, or when ctx is done.
func (d *Demo) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := d.orders.ready(ctx); err != nil {
		return fmt.Errorf("the orders API is not ready: %w", err)
	}
	return nil
}

// Serve serves the authorization server and the API until ctx is done or one of them fails.
func (d *Demo) Serve(ctx context.Context) error {
	defer d.close()
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { d.server.Run(ctx) })
	running.Go(func() { d.orders.run(ctx) })
	defer running.Wait()
	defer cancel()
	return web.ServeAll(ctx, d.log, d.as, d.api)
}

func (d *Demo) close() {
	for _, s := range []web.Site{d.as, d.api} {
		if s.Listener != nil {
			s.Listener.Close()
		}
	}
	if d.orders != nil {
		d.orders.close()
	}
	if d.opaque != nil {
		d.opaque.Close()
	}
}
