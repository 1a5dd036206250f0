package web_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
)

var quiet = slog.New(slog.DiscardHandler)

// ask sends a request on a new connection of l and returns the response.
func ask(t *testing.T, l *listener, path string) *http.Response {
	t.Helper()
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close() })
	l.conns <- server
	fmt.Fprintf(client, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
	res, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// At the end, a process first reports that it is not ready, and serves on, so that load balancers lose no request.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site, probe := newListener(), newListener()
		p := &web.Process{Log: quiet, Drain: func() time.Duration { return 5 * time.Second }}
		p.Sites = []web.Site{{Name: "site", Listener: site, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}}
		ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
		p.Probe = &web.Site{Name: "probe", Listener: probe, Handler: p.Probes(ok, nil, nil)}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		status := func(l *listener, path string) int { return ask(t, l, path).StatusCode }
		if live, ready := status(probe, "/live"), status(probe, "/ready"); live != 200 || ready != 200 {
			t.Errorf("got %d and %d before", live, ready)
		}
		if ask(t, site, "/").Close {
			t.Error("a connection is not reused before")
		}
		stop()
		synctest.Wait()
		begun := time.Now()
		if live, ready := status(probe, "/live"), status(probe, "/ready"); live != 200 || ready != 503 {
			t.Errorf("got %d and %d", live, ready)
		}
		time.Sleep(5*time.Second - 1)
		if res := ask(t, site, "/"); res.StatusCode != 200 || !res.Close {
			t.Errorf("got %d; close is %v", res.StatusCode, res.Close)
		}
		if got := status(probe, "/ready"); got != 503 {
			t.Errorf("got %d", got)
		}
		<-site.closed
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
		<-probe.closed
	})
}

// A connection that was handed over, as for a WebSocket, has the grace too.
func TestGraceOfHijackedConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener()
		var lasted time.Duration
		begun := make(chan time.Time, 1)
		p := &web.Process{Log: quiet, Grace: func() time.Duration { return 3 * time.Second }}
		p.Sites = []web.Site{{Listener: l, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			at := time.Now()
			begun <- at
			<-r.Context().Done()
			lasted = time.Since(at)
		})}}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		client, server := net.Pipe()
		defer client.Close()
		l.conns <- server
		fmt.Fprint(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		<-begun
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if lasted != 3*time.Second {
			t.Errorf("it lasted %v", lasted)
		}
	})
}

func TestHangup(t *testing.T) {
	hangup := make(chan os.Signal)
	begin, end := make(chan struct{}), make(chan error)
	p := &web.Process{Log: quiet, Sites: []web.Site{{Listener: newListener(), Handler: http.NotFoundHandler()}}, Hangup: hangup}
	p.Reload = func(context.Context) error {
		begin <- struct{}{}
		return <-end
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()

	t.Run("reloads, and signals during a reload cause one more", func(t *testing.T) {
		hangup <- syscall.SIGTERM // any value
		<-begin
		for range 3 {
			hangup <- syscall.SIGTERM
		}
		end <- nil
		<-begin
		end <- errors.New("first mistake\nsecond mistake")
		hangup <- syscall.SIGTERM
		<-begin
		got := p.Status().Reloads
		if got.Done != 1 || got.Failed != 1 || got.Error != "first mistake\nsecond mistake" || got.FailedAt.IsZero() {
			t.Errorf("got %+v", got)
		}
		end <- nil
	})
	t.Run("the end does not wait for a signal, but for a reload in progress", func(t *testing.T) {
		hangup <- syscall.SIGTERM
		<-begin
		stop()
		end <- nil
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A value of a Current counts how often it is closed.
type value struct{ closed atomic.Int64 }

func (v *value) Close() { v.closed.Add(1) }

func TestCurrent(t *testing.T) {
	t.Run("a replaced value is closed once, after its last use", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			one, two := new(value), new(value)
			c := web.NewCurrent(one)
			first, second := c.Get(), c.Get()
			c.Replace(two)
			if got := c.Get(); got.Value != two {
				t.Error("the old value is still in use")
			} else {
				got.Done()
			}
			first.Done()
			synctest.Wait()
			if one.closed.Load() != 0 {
				t.Error("closed while in use")
			}
			second.Done()
			synctest.Wait()
			c.Close()
			if one.closed.Load() != 1 || two.closed.Load() != 1 {
				t.Errorf("closed %d and %d times", one.closed.Load(), two.closed.Load())
			}
		})
	})
	t.Run("no use of a closed value under load", func(t *testing.T) {
		c := web.NewCurrent(new(value))
		done := make(chan struct{})
		var load sync.WaitGroup
		for range 4 {
			load.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					u := c.Get()
					if u.Value.closed.Load() != 0 {
						t.Error("closed before its use")
					}
					u.Done()
				}
			})
		}
		for range 1000 {
			c.Replace(new(value))
		}
		close(done)
		load.Wait()
		c.Close()
	})
}

func TestHandover(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ends := make(chan struct{}, 21)
	server := func(answer string) (web.Server, func()) {
		return &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, answer) })}, func() { ends <- struct{}{} }
	}
	get := func() string {
		res, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			t.Error(err)
			return ""
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return string(text)
	}
	h := web.NewHandover(server("0"))
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(l) }()
	if got := get(); got != "0" {
		t.Errorf("got %q", got)
	}
	var load sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		load.Go(func() {
			for {
				if got := get(); got == "" {
					t.Error("a request is lost")
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range 20 {
		h.Replace(server(fmt.Sprint(i)))
	}
	close(done)
	load.Wait()
	http.DefaultClient.CloseIdleConnections()
	if got := get(); got != "19" {
		t.Errorf("got %q", got)
	}
	if err := h.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	h.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	for range cap(ends) {
		<-ends
	}
}

// pair writes a certificate with a serial number and its key.
func pair(t *testing.T, cert, key string, serial int64) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, secret.Public(), secret)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if file == "" {
			continue
		}
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		changed := time.Now().Add(time.Duration(serial) * time.Hour)
		if err := os.Chtimes(file, changed, changed); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCertificateIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		pair(t, cert, key, 1)
		var log strings.Builder
		c, err := web.ReadCertificate(cert, key, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		serial := func() int64 {
			got, err := c.Get(new(tls.ClientHelloInfo))
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := x509.ParseCertificate(got.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			return leaf.SerialNumber.Int64()
		}
		pair(t, cert, "", 2) // a tool replaces the certificate first
		time.Sleep(time.Minute - 1)
		if got := serial(); got != 1 {
			t.Errorf("got %d before a minute has passed", got)
		}
		for range 3 {
			time.Sleep(time.Minute)
			if got := serial(); got != 1 {
				t.Errorf("got %d without its key", got)
			}
		}
		if n := strings.Count(log.String(), "certificate not replaced"); n != 1 {
			t.Errorf("reported %d times: %s", n, &log)
		}
		pair(t, cert, key, 3)
		time.Sleep(time.Minute)
		if got := serial(); got != 3 {
			t.Errorf("got %d", got)
		}
		if err := os.Remove(cert); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := serial(); got != 3 {
			t.Errorf("got %d after the file has gone", got)
		}
	})
}
