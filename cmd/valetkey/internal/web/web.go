// Package web serves HTTP until it is told to stop.
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
	grace         = 10 * time.Second // for requests under way when the end comes
)

// A Site is a handler and where it is served.
type Site struct {
	Name     string // for the log
	Listener net.Listener
	Handler  http.Handler
}

// ServeAll serves all sites until ctx is done or one of them fails, each as [Serve] does.
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

// Serve serves h on l until ctx is done, then lets the requests under way finish for a while, and closes l. It returns
// nil if ctx was the reason to end. There is no limit on the time of a whole request: streams and WebSockets may last.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	// Requests outlive ctx by the grace and no longer, WebSockets too, which the server does not know any more.
	requests, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
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
		log.WarnContext(ctx, "requests under way were cut off", "addr", l.Addr().String(), "err", err)
		server.Close()
	}
	return nil
}
