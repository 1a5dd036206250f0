package valetenvoy_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetenvoy"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestDeadline(t *testing.T) {
	began := make(chan struct{}, 2)
	g := newGatewayFor(t, routes.Table{"GET /slow": valetkey.RequirementFunc(func(a valetkey.Access) error {
		began <- struct{}{}
		<-a.Request.Context().Done()
		return nil // too late
	})}, nil)
	in := check("GET", "/slow", bearer(g.iss.Token()))
	t.Run("EXT-11 the gateway has stopped waiting", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-began; cancel() }()
		_, err := g.client.Check(ctx, in)
		assert.Equal(t, codes.Canceled, status.Code(err))
	})
	t.Run("EXT-11 a decision after the deadline is not OK", func(t *testing.T) {
		ctx, cancel := context.WithCancel(fromLoopback(t))
		go func() { <-began; cancel() }()
		out, err := g.server.Check(ctx, in)
		require.NoError(t, err)
		got := answerOf(t, out)
		assert.Equal(t, codes.Unavailable, got.code)
		assert.Equal(t, 503, got.status)
	})
}

// fromLoopback returns a context as a server has it for a caller on this host.
func fromLoopback(t testing.TB) context.Context {
	return peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}})
}

func TestPreflights(t *testing.T) {
	preflight := []string{"origin: https://app.example.com", "access-control-request-method: GET", "x-valetkey-subject: mallory"}
	answered := func(cfg *middleware.Config, _ *valetenvoy.Config) {
		cfg.Preflight = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
			w.Header()["Vary"] = []string{"Origin", "Access-Control-Request-Method"}
			w.WriteHeader(http.StatusNoContent)
		})
	}
	allowed := func(_ *middleware.Config, cfg *valetenvoy.Config) { cfg.AllowPreflight = true }
	t.Run("EXT-27 without an option, a preflight needs a token", func(t *testing.T) {
		assert.Equal(t, 401, newGateway(t, nil).ask(check("OPTIONS", "/orders", preflight...)).status)
	})
	t.Run("EXT-27 Preflight of the guard answers it", func(t *testing.T) {
		got := newGatewayFor(t, routes.Table{"/orders": valetkey.AnyToken}, answered).ask(check("OPTIONS", "/orders", preflight...))
		assert.Equal(t, 204, got.status)
		assert.Equal(t, codes.PermissionDenied, got.code, "OK would let it through")
		assert.Equal(t, "https://app.example.com", got.denial.Get("Access-Control-Allow-Origin"))
		assert.Equal(t, []string{"Origin, Access-Control-Request-Method"}, got.denial.Values("Vary"))
	})
	t.Run("AllowPreflight", func(t *testing.T) {
		g := newGateway(t, allowed)
		for _, c := range []struct {
			name string
			in   *authv3.CheckRequest
			want int
		}{
			{"no preflight", check("OPTIONS", "/orders", preflight[0]), 401},
			{"a method other than OPTIONS", check("GET", "/orders", preflight...), 401},
			{"a bad token", check("OPTIONS", "/orders", append(preflight, "authorization: Bearer x")...), 401},
			{"a path that is not clean", check("OPTIONS", "/files/../orders", preflight...), 400},
			{"EXT-27 AllowPreflight passes it", check("OPTIONS", "/orders", preflight...), 200},
		} {
			t.Run(c.name, func(t *testing.T) {
				got := g.ask(c.in)
				assert.Equal(t, c.want, got.status)
				if c.want == 200 {
					assert.Empty(t, got.set)
					assert.Contains(t, got.remove, "x-valetkey-subject")
					assert.Empty(t, got.response, "the headers of a refusal are not for the response of the upstream")
				}
			})
		}
	})
}

func TestRevocation(t *testing.T) {
	g := newGateway(t, nil)
	token, other := g.iss.Token(valetkeytest.Subject("alice")), g.iss.Token(valetkeytest.Subject("bob"))
	require.Equal(t, 200, g.ask(check("GET", "/me", bearer(token))).status)
	require.NoError(t, g.guard.Revoke(valetkey.Revocation{Issuer: g.iss.URL, Subject: "alice", Before: g.iss.Now().Add(time.Minute)}))
	t.Run("EXT-28 a token is revoked", func(t *testing.T) {
		got := g.ask(check("GET", "/me", bearer(token)))
		assert.Equal(t, 401, got.status)
		assert.Contains(t, got.denial.Get("WWW-Authenticate"), `error="invalid_token"`)
		assert.Equal(t, 200, g.ask(check("GET", "/me", bearer(other))).status)
	})
}

func TestHealth(t *testing.T) {
	g := newGateway(t, nil)
	conn := dial(t, serve(t, g.server))
	client := healthpb.NewHealthClient(conn)
	for _, name := range []string{"", "envoy.service.auth.v3.Authorization"} {
		t.Run("EXT-29 of "+name, func(t *testing.T) {
			for _, serving := range []bool{true, false, true} {
				g.server.SetServing(serving)
				out, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
				require.NoError(t, err)
				want := healthpb.HealthCheckResponse_NOT_SERVING
				if serving {
					want = healthpb.HealthCheckResponse_SERVING
				}
				assert.Equal(t, want, out.Status)
				assert.Equal(t, 200, g.ask(check("GET", "/healthz")).status, "it still decides")
			}
		})
	}
}

func TestCallers(t *testing.T) {
	own := []netip.Prefix{netip.MustParsePrefix("::ffff:127.0.0.0/104")}
	foreign := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	spiffe, _ := url.Parse("spiffe://example.com/envoy")
	named, other := selfSigned(t, "envoy.example.com", spiffe), selfSigned(t, "other.example.com", nil)
	pool := x509.NewCertPool()
	for _, c := range []tls.Certificate{named, other} {
		pool.AddCert(c.Leaf)
	}
	mutual := func(c ...tls.Certificate) grpc.DialOption {
		return grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: c}))
	}
	serverTLS := func(auth tls.ClientAuthType) grpc.ServerOption {
		return grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{selfSigned(t, "localhost", nil)}, ClientAuth: auth, ClientCAs: pool}))
	}
	plain := grpc.EmptyDialOption{}
	for _, c := range []struct {
		name    string
		cfg     valetenvoy.Config
		server  grpc.ServerOption
		dial    grpc.DialOption
		allowed bool
	}{
		{"EXT-30 an address outside the list", valetenvoy.Config{Callers: foreign}, nil, plain, false},
		{"EXT-30 a network where only unix sockets are allowed", valetenvoy.Config{UnixSocket: true}, nil, plain, false},
		{"EXT-30 no certificate where a name is required", valetenvoy.Config{Callers: own, CallerNames: []string{"envoy.example.com"}}, nil, plain, false},
		{"EXT-30 another name", valetenvoy.Config{CallerNames: []string{"envoy.example.com"}}, serverTLS(tls.RequireAndVerifyClientCert), mutual(other), false},
		{"EXT-30 a certificate that is not verified", valetenvoy.Config{CallerNames: []string{"envoy.example.com"}}, serverTLS(tls.RequireAnyClientCert), mutual(named), false},
		{"EXT-30 the name at another address", valetenvoy.Config{Callers: foreign, CallerNames: []string{"envoy.example.com"}}, serverTLS(tls.RequireAndVerifyClientCert), mutual(named), false},
		{"an address in the list", valetenvoy.Config{Callers: own}, nil, plain, true},
		{"the name", valetenvoy.Config{CallerNames: []string{"x", "envoy.example.com"}}, serverTLS(tls.RequireAndVerifyClientCert), mutual(named), true},
		{"the URI at an address in the list", valetenvoy.Config{Callers: own, CallerNames: []string{"spiffe://example.com/envoy"}}, serverTLS(tls.RequireAndVerifyClientCert), mutual(named), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			var options []grpc.ServerOption
			if c.server != nil {
				options = append(options, c.server)
			}
			g := newGateway(t, func(_ *middleware.Config, cfg *valetenvoy.Config) {
				*cfg = c.cfg
				cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			})
			addr := serve(t, g.server, options...)
			conn := dial(t, addr, c.dial)
			for range 3 {
				out, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), check("GET", "/healthz"))
				if c.allowed {
					require.NoError(t, err)
					assert.Equal(t, 200, answerOf(t, out).status)
					continue
				}
				assert.Equal(t, codes.PermissionDenied, status.Code(err))
				assert.Nil(t, out)
			}
			if c.allowed {
				assert.Empty(t, log.String())
			} else {
				assert.LessOrEqual(t, strings.Count(log.String(), "caller=127.0.0.1:"), 2, "one line a minute")
				assert.Contains(t, log.String(), "check of an unknown caller refused")
			}
			_, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
			assert.NoError(t, err, "anyone may ask for the health")
		})
	}
	for _, allowed := range []bool{false, true} {
		t.Run(fmt.Sprintf("a unix socket, allowed %v", allowed), func(t *testing.T) {
			g := newGateway(t, func(_ *middleware.Config, cfg *valetenvoy.Config) { cfg.UnixSocket = allowed })
			socket := filepath.Join(t.TempDir(), "authorize.sock")
			listener, err := net.Listen("unix", socket)
			require.NoError(t, err)
			server := grpc.NewServer()
			g.server.Register(server)
			go server.Serve(listener)
			t.Cleanup(server.Stop)
			_, err = authv3.NewAuthorizationClient(dial(t, "unix:"+socket)).Check(t.Context(), check("GET", "/healthz"))
			if allowed {
				assert.NoError(t, err)
			} else {
				assert.Equal(t, codes.PermissionDenied, status.Code(err))
			}
		})
	}
	t.Run("EXT-30 a call without a connection", func(t *testing.T) {
		_, err := newGateway(t, nil).server.Check(t.Context(), check("GET", "/healthz"))
		assert.Equal(t, codes.PermissionDenied, status.Code(err))
	})
}

// selfSigned returns a certificate that is its own authority.
func selfSigned(t testing.TB, name string, uri *url.URL) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if uri != nil {
		template.URIs = []*url.URL{uri}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
