package web_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
)

// A listener hands out one end of each pipe.
type listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newListener() *listener {
	return &listener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *listener) Addr() net.Addr { return &net.TCPAddr{} }

func TestServe(t *testing.T) {
	for _, c := range []struct {
		name   string
		takes  time.Duration // the request that is under way at the end
		status int           // 0: it gets no answer
		lasts  time.Duration // from the end of the context
	}{
		{"a request that will not end is cut off", time.Hour, 0, 10 * time.Second},
		{"a request under way gets its answer", 3 * time.Second, 200, 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var outlived error
				slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					select {
					case <-time.After(c.takes):
					case <-r.Context().Done():
					}
					outlived = r.Context().Err()
				})
				l := newListener()
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() {
					ended <- web.ServeAll(ctx, slog.New(slog.DiscardHandler), web.Site{Listener: l, Handler: slow})
				}()

				client, server := net.Pipe()
				l.conns <- server
				status := make(chan int)
				go func() {
					fmt.Fprint(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
					res, err := http.ReadResponse(bufio.NewReader(client), nil)
					if err != nil {
						status <- 0
						return
					}
					status <- res.StatusCode
				}()
				synctest.Wait()
				stop()
				told := time.Now()
				if got := <-status; got != c.status {
					t.Errorf("the request got %d", got)
				}
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if lasted := time.Since(told); lasted < c.lasts || lasted > c.lasts+time.Second {
					t.Errorf("the end took %v", lasted)
				}
				synctest.Wait()
				if (outlived == nil) != (c.status == 200) {
					t.Errorf("the context of the request ended with %v", outlived)
				}
			})
		})
	}

	for _, c := range []struct {
		name, sends string
		limits      web.Limits
		waits       time.Duration
	}{
		{"headers that do not come are not waited for", "GET / HTTP/1.1\r\n", web.Limits{}, 10 * time.Second},
		{"nor longer than is configured", "GET / HTTP/1.1\r\n", web.Limits{HeaderTimeout: 3 * time.Second}, 3 * time.Second},
		{"a connection without a request is closed", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", web.Limits{}, 2 * time.Minute},
		{"or earlier if that is configured", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", web.Limits{IdleTimeout: 20 * time.Second}, 20 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListener()
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() {
					ended <- web.ServeAll(ctx, slog.New(slog.DiscardHandler), web.Site{Listener: l, Handler: http.NotFoundHandler(), Limits: c.limits})
				}()
				client, server := net.Pipe()
				l.conns <- server
				fmt.Fprint(client, c.sends)
				begun := time.Now()
				answer, _ := io.ReadAll(client)
				if waited := time.Since(begun); waited != c.waits || strings.HasPrefix(string(answer), "HTTP/1.1 2") {
					t.Errorf("waited %v for %q", waited, answer)
				}
				stop()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}

	t.Run("a listener that fails", func(t *testing.T) {
		l := newListener()
		l.Close()
		err := web.ServeAll(t.Context(), slog.New(slog.DiscardHandler), web.Site{Listener: failing{l}, Handler: http.NotFoundHandler()})
		if err == nil || !strings.Contains(err.Error(), "serve on ") {
			t.Errorf("got %v", err)
		}
	})
}

// failing is a listener that is closed by someone else.
type failing struct{ *listener }

func (failing) Close() error { return nil }

func TestServeAll(t *testing.T) {
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	t.Run("one that fails ends the others", func(t *testing.T) {
		broken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		broken.Close()
		other := newListener()
		err = web.ServeAll(t.Context(), slog.New(slog.DiscardHandler),
			web.Site{Name: "other", Listener: other, Handler: ok}, web.Site{Name: "broken", Listener: broken, Handler: ok})
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
		<-other.closed
	})
	t.Run("all end with the context, which is not an error", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		one, two := newListener(), newListener()
		if err := web.ServeAll(ctx, slog.New(slog.DiscardHandler), web.Site{Listener: one, Handler: ok}, web.Site{Listener: two, Handler: ok}); err != nil {
			t.Error(err)
		}
		<-one.closed
		<-two.closed
	})
}

func TestHTTP2WithoutTLS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	proto := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })
	go func() {
		ended <- web.ServeAll(ctx, slog.New(slog.DiscardHandler), web.Site{Listener: l, Handler: proto})
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	get := func(h2c bool, header http.Header) string {
		transport := &http.Transport{Protocols: new(http.Protocols)}
		defer transport.CloseIdleConnections()
		transport.Protocols.SetHTTP1(!h2c)
		transport.Protocols.SetUnencryptedHTTP2(h2c)
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+l.Addr().String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = header
		res, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return fmt.Sprintf("%d %s", res.StatusCode, body)
	}
	if got := get(true, http.Header{}); got != "200 HTTP/2.0" {
		t.Errorf("HTTP/2 got %q", got)
	}
	upgrade := http.Header{"Connection": {"Upgrade, HTTP2-Settings"}, "Upgrade": {"h2c"}, "Http2-Settings": {"AAMAAABkAAQAAP__"}}
	if got := get(false, upgrade); got != "200 HTTP/1.1" {
		t.Errorf("an upgrade to HTTP/2 got %q", got)
	}
}
