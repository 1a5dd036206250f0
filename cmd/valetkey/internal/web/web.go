// Package web serves HTTP, and other protocols beside it, as long-running processes do: with timeouts, probes, reloads, and a
// shutdown that loses no requests.
package web

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Limits bounds what a client may take of a server before its request reaches the handler. There is no limit for the time of a request,
// because of streams and WebSockets.
type Limits struct {
	HeaderTimeout  time.Duration // for the headers of a request to arrive; zero: 10 s
	IdleTimeout    time.Duration // for a connection without a request; zero: 2 min
	MaxHeaderBytes int           // of all headers of a request; zero: 64 KiB
}

const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	MaxHeaderBytes = 64 << 10 // the default of Limits; a token has at most 16 KiB by default
)

// A Site is a handler, or the server of another protocol, and its listener.
type Site struct {
	Name     string       // for the log, and for sockets that systemd passes
	Addr     string       // where to listen, if Listener is nil
	Listener net.Listener // nil: one on Addr
	TLS      *tls.Config  // nil: no TLS
	Handler  http.Handler
	Limits   Limits // of Handler
	Server   Server // instead of Handler; nil: HTTP
}

// ServeAll serves all sites until ctx is done or one of them fails. It then gives requests in progress [DefaultGrace] to finish.
func ServeAll(ctx context.Context, log *slog.Logger, sites ...Site) error {
	return (&Process{Log: log, Sites: sites}).Run(ctx)
}

// newServer returns a server of HTTP. The duration of a request is not limited, for streams and WebSockets: requests end with the
// context at the latest.
func newServer(requests context.Context, h http.Handler, limits Limits, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: cmp.Or(limits.HeaderTimeout, headerTimeout),
		IdleTimeout:       cmp.Or(limits.IdleTimeout, idleTimeout),
		MaxHeaderBytes:    cmp.Or(limits.MaxHeaderBytes, MaxHeaderBytes),
		Protocols:         protocols(),
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return requests },
	}
}
