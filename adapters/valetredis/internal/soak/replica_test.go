package soak_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetredis"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

// replicaEnv contains the settings of a replica. If it is set, the test binary is that replica.
const replicaEnv = "VALETKEY_SOAK_REPLICA"

// settings are those of a replica. All replicas have the same, apart from their addresses.
type settings struct {
	API, Admin    string   // addresses
	Issuers       []string // of JWTs; the first one also has opaque tokens
	Introspection string
	Redis         string // address
	Key           []byte // of valetredis.Config
	ReportOnly    bool   // a guard that refuses nothing: the negative control
}

func TestMain(m *testing.M) {
	logging.Disable() // the Redis client logs each connection that it does not get
	text, ok := os.LookupEnv(replicaEnv)
	if !ok {
		m.Run()
		return
	}
	var s settings
	err := json.Unmarshal([]byte(text), &s)
	if err == nil {
		err = runReplica(s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "replica:", err)
		os.Exit(1)
	}
	os.Exit(0) // through the race detector, which then reports
}

// A stats is what a replica uses, after two garbage collections.
type stats struct {
	Heap        uint64 // bytes
	Resident    uint64 // bytes of the process, including the tables of the race detector
	Goroutines  int
	Descriptors int
}

// runReplica serves until SIGTERM, or until the process that started it ends.
func runReplica(s settings) error {
	quiet := slog.New(slog.DiscardHandler)
	audience := []string{valetkeytest.DefaultAudience}
	client := redis.NewClient(&redis.Options{Addr: s.Redis, ContextTimeoutEnabled: true, DialerRetries: 1, MaxRetries: -1})
	defer client.Close()
	shared, err := valetredis.New(valetredis.Config{Client: client, Key: s.Key, Timeout: redisTimeout, Logger: quiet})
	if err != nil {
		return err
	}
	var verifiers []valetkey.Verifier
	for _, issuer := range s.Issuers {
		keys, err := jwks.New(jwks.Config{
			Issuer: issuer, Audience: audience, Leeway: leeway, Logger: quiet,
			RefreshInterval: refreshInterval, MinRefetchInterval: minRefetchInterval,
		})
		if err != nil {
			return err
		}
		defer keys.Close()
		verifiers = append(verifiers, keys)
	}
	asks, err := introspect.New(introspect.Config{
		URL: s.Introspection, Issuer: s.Issuers[0], Audience: audience, Leeway: leeway, Logger: quiet,
		Auth:     introspect.BasicAuth(valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret),
		CacheTTL: cacheTTL, Timeout: askTimeout, SharedCache: shared,
	})
	if err != nil {
		return err
	}
	defer asks.Close()
	proofs, err := dpop.New(dpop.Config{ReplayStore: shared})
	if err != nil {
		return err
	}
	guard, err := middleware.New(middleware.Config{
		Verifier: valetkey.First(append(verifiers, asks)...), DPoP: proofs, Logger: quiet,
		URL:             func(r *http.Request) string { return publicURL + r.URL.EscapedPath() },
		Revocations:     middleware.Revocations{Source: shared},
		CancelWithToken: true, InsecureReportOnly: s.ReportOnly,
	})
	if err != nil {
		return err
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var background sync.WaitGroup
	background.Go(func() { _ = guard.Watch(ctx) })
	go func() { // the pipe ends with the process that started this one
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()

	api := http.NewServeMux()
	api.HandleFunc("GET /orders", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	api.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		for tick := time.NewTicker(streamTick); ; {
			fmt.Fprintln(w, "tick")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				tick.Stop()
				if refused := new(valetkey.Error); errors.As(context.Cause(r.Context()), &refused) {
					fmt.Fprintln(w, "end")
				}
				return
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	})
	admin := http.NewServeMux()
	admin.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if guard.Status().Revocations.Source.State == valetkey.Down {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	admin.HandleFunc("POST /revoke", func(w http.ResponseWriter, r *http.Request) {
		if err := guard.Revoke(valetkey.Revocation{Issuer: r.FormValue("issuer"), ID: r.FormValue("id")}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	admin.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(measure()) })

	for addr, handler := range map[string]http.Handler{s.API: guard.Handler(api), s.Admin: admin} {
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
		background.Go(func() { _ = server.Serve(listener) })
		background.Go(func() {
			<-ctx.Done()
			bounded, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			_ = server.Shutdown(bounded)
			_ = server.Close()
		})
	}
	background.Wait()
	return nil
}

func measure() (s stats) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.Heap, s.Goroutines = m.HeapAlloc, runtime.NumGoroutine()
	if open, err := os.ReadDir("/proc/self/fd"); err == nil { // elsewhere than on Linux: zero
		s.Descriptors = len(open)
	}
	if status, err := os.Open("/proc/self/status"); err == nil {
		defer status.Close()
		for lines := bufio.NewScanner(status); lines.Scan(); {
			if value, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
				kib, _ := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
				s.Resident = kib << 10
			}
		}
	}
	return s
}
