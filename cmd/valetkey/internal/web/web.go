// Package web serves HTTP, and other protocols beside it, as long-running processes do: with timeouts, probes, reloads, and a
// shutdown that loses no requests.
package web

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10 // bytes; a token has at most 16 KiB
)

// A Site is a handler, or the server of another protocol, and its listener.
type Site struct {
	Name     string       // for the log, and for sockets that systemd passes
	Addr     string       // where to listen, if Listener is nil
	Listener net.Listener // nil: one on Addr
	TLS      *tls.Config  // nil: no TLS
	Handler  http.Handler
	Server   Server // instead of Handler; nil: HTTP
}

// ServeAll serves all sites until ctx is done or one of them fails. It then gives requests in progress [DefaultGrace] to finish.
func ServeAll(ctx context.Context, log *slog.Logger, sites ...Site) error {
	return (&Process{Log: log, Sites: sites}).Run(ctx)
}

// newServer returns a server of HTTP. The duration of a request is not limited, for streams and WebSockets: requests end with the
// context at the latest.
func newServer(requests context.Context, h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		Protocols:         protocols(),
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return requests },
	}
}
