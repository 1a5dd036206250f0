package faults_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

// askTimeout is that of one question to the introspection endpoint. What a guard waits for keys cannot be configured.
const askTimeout = 200 * time.Millisecond

// A world is an API behind a guard, the issuer it trusts, an impostor, and the network between them.
type world struct {
	issuer   *valetkeytest.Issuer
	impostor *valetkeytest.Issuer // answers in the issuer's place where the network leads there
	endpoint *valetkeytest.Endpoint
	network  *network
	api      string // its URL
}

// newWorld returns a world in which all is well. The endpoint that verifier uses is the one to go wrong.
func newWorld(t *testing.T, verifier func(*testing.T, *world) valetkey.Verifier) *world {
	t.Helper()
	w := &world{issuer: valetkeytest.NewIssuer(t, valetkeytest.TLS()), impostor: valetkeytest.NewIssuer(t)}
	w.network = &network{Transport: w.issuer.Client().Transport.(*http.Transport).Clone()}
	w.network.leads(new(net.Dialer).DialContext)
	w.network.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return (*w.network.dial.Load())(ctx, network, addr)
	}
	t.Cleanup(w.network.CloseIdleConnections)
	guard, err := middleware.New(middleware.Config{Verifier: verifier(t, w), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	server := httptest.NewServer(guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, valetkey.FromContext(r.Context()).Subject())
	})))
	t.Cleanup(server.Close)
	w.api = server.URL
	return w
}

func byKeys(t *testing.T, w *world) valetkey.Verifier {
	t.Helper()
	w.endpoint = w.issuer.KeySet
	v, err := jwks.New(jwks.Config{
		Issuer: w.issuer.URL, JWKSURL: w.issuer.KeySet.URL, Audience: []string{valetkeytest.DefaultAudience},
		Client: &http.Client{Transport: w.network}, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return v
}

func byAsking(t *testing.T, w *world) valetkey.Verifier {
	t.Helper()
	w.endpoint = w.issuer.Introspection
	v, err := introspect.New(introspect.Config{
		Issuer: w.issuer.URL, URL: w.issuer.Introspection.URL, Audience: []string{valetkeytest.DefaultAudience},
		Auth:    introspect.BasicAuth(valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret),
		Timeout: askTimeout, Client: &http.Client{Transport: w.network}, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return v
}

// A network is how the guard reaches the issuer. It counts the calls, and can lead elsewhere.
type network struct {
	*http.Transport
	calls atomic.Int64
	dial  atomic.Pointer[dialer]
}

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	n.calls.Add(1)
	return n.Transport.RoundTrip(r)
}

// leads makes new connections those of d, and closes the others.
func (n *network) leads(d dialer) {
	n.dial.Store(&d)
	n.CloseIdleConnections()
}

// toNobody connects to a port without a listener: the kernel refuses.
func toNobody(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:1")
}

// toNoName looks a name up, at a name server that is out of reach.
func toNoName(ctx context.Context, network, _ string) (net.Conn, error) {
	gone := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no route to the name server")
	}}
	return (&net.Dialer{Resolver: gone}).DialContext(ctx, network, "issuer.invalid:443")
}

// toImpostor connects to a TLS server whose certificate names the issuer's address and is signed by an unknown authority. What
// it answers is the impostor's.
func (w *world) toImpostor(t *testing.T) dialer {
	t.Helper()
	target, err := url.Parse(w.impostor.URL)
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(target))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that hang up are the point
	server.StartTLS()
	t.Cleanup(server.Close)
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
