package extauthz_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/valetkey/valetkey/cmd/valetkey/full/drivers"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/valetkeytest"
)

// Gateways keep their connections for a long time. A reload asks them to reconnect, and no check is lost.
func TestReloadOverGRPC(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	text := strings.Replace(config, "ISSUER", iss.URL, 1)
	file := filepath.Join(t.TempDir(), "authorize.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	log := new(journal)
	a, err := proxy.OpenAuthorizer(file, drivers.All(), slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Serve(ctx, nil) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ended)
		a.Close()
	})
	line := regexp.MustCompile(`msg="listening on ([0-9.:]+)" site=ext_authz`)
	require.Eventually(t, func() bool { return line.MatchString(log.String()) }, soon, time.Millisecond)
	conn := dial(t, line.FindStringSubmatch(log.String())[1], insecure.NewCredentials())
	client := authv3.NewAuthorizationClient(conn)
	bearer := "authorization: Bearer " + iss.Token(valetkeytest.Scopes("orders:read"))
	code := func(path string) codes.Code {
		out, err := client.Check(t.Context(), check("GET", path, bearer))
		if !assert.NoError(t, err) {
			return codes.Unknown
		}
		return codes.Code(out.GetStatus().GetCode())
	}
	require.Equal(t, codes.OK, code("/orders"))

	done := make(chan struct{})
	var load sync.WaitGroup
	var served atomic.Int64
	for range 2 {
		load.Go(func() {
			for {
				if got := code("/orders"); got != codes.OK {
					t.Errorf("got %v", got)
					return
				}
				served.Add(1)
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	const more = `routes: {"GET /orders": "orders:read", "GET /invoices": "@any"}`
	for i := range 20 {
		want, changed := codes.PermissionDenied, text
		if i%2 == 0 {
			want, changed = codes.OK, strings.Replace(text, `routes: {"GET /orders": "orders:read"}`, more, 1)
		}
		require.NoError(t, os.WriteFile(file, []byte(changed), 0o600))
		before := served.Load()
		require.NoError(t, a.Reload(t.Context()))
		require.Eventually(t, func() bool { return code("/invoices") == want && served.Load() > before }, soon, time.Millisecond)
		health, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		require.NoError(t, err)
		require.Equal(t, healthpb.HealthCheckResponse_SERVING, health.Status)
	}
	close(done)
	load.Wait()
}
