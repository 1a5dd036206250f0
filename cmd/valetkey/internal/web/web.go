// Package web serves HTTP with timeouts and graceful shutdown.
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10         // bytes; a token has at most 16 KiB
	grace         = 10 * time.Second // for requests in progress at shutdown
)

// A Site is a handler and its listener.
type Site struct {
	Name     string // for the log
	Listener net.Listener
	Handler  http.Handler
}

// ServeAll serves all sites until ctx is done or one of them fails. It serves each as [Serve] does.
func ServeAll(ctx context.Context, log *slog.Logger, sites ...Site) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error)
	for _, s := range sites {
		go func() {
			err := Serve(ctx, s.Listener, s.Handler, log.With("site", s.Name))
			cancel()
			ended <- err
		}()
	}
	var errs []error
	for range sites {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// Serve serves h on l until ctx is done. It then gives requests in progress 10 seconds to finish, and closes l. It returns nil if
// it ended because of ctx. The duration of a request is not limited, for streams and WebSockets.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	// Requests outlive ctx by grace at most. That includes WebSockets, which http.Server no longer tracks.
	requests, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		Protocols:         protocols(),
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return requests },
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	log.InfoContext(ctx, "listening on "+l.Addr().String())

	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	wait, cancel := context.WithTimeout(requests, grace)
	defer cancel()
	if err := server.Shutdown(wait); err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.WarnContext(ctx, "requests in progress were cut off", "addr", l.Addr().String(), "err", err)
		server.Close()
	}
	return nil
}
