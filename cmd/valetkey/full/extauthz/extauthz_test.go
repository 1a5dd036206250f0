package extauthz_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/valetkey/valetkey/cmd/valetkey/full/drivers"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/valetkeytest"
)

// soon is the time limit for events that must happen, generous enough for a slow machine.
const soon = 2 * time.Minute

// A journal collects logs.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// A service is valetkey authorize with a file.
type service struct {
	grpc, http string // addresses; "": not served
	stop       func() // begins and waits for the end
}

func start(t *testing.T, files map[string]string) *service {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	log := new(journal)
	a, err := proxy.OpenAuthorizer(filepath.Join(dir, "authorize.yaml"), drivers.All(), slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, err)
	t.Cleanup(a.Close)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Serve(ctx, nil) }()
	s := &service{stop: sync.OnceFunc(func() { cancel(); assert.NoError(t, <-ended) })}
	t.Cleanup(s.stop)
	sites := map[string]*string{"ext_authz": &s.grpc}
	if strings.Contains(files["authorize.yaml"], "listen_http") {
		sites["authorize"] = &s.http
	}
	for site, addr := range sites {
		line := regexp.MustCompile(`msg="listening on ([0-9.:]+)" site=` + site)
		require.Eventually(t, func() bool {
			if m := line.FindStringSubmatch(log.String()); m != nil {
				*addr = m[1]
			}
			return *addr != ""
		}, soon, time.Millisecond, site)
	}
	return s
}

func dial(t *testing.T, addr string, c credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(c))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// check is what Envoy sends with encode_raw_headers.
func check(method, path string, header ...string) *authv3.CheckRequest {
	in := &authv3.AttributeContext_HttpRequest{Method: method, Path: path, Host: "api.example.com", Scheme: "https", HeaderMap: &corev3.HeaderMap{}}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		in.HeaderMap.Headers = append(in.HeaderMap.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:  &authv3.AttributeContext_Peer{},
		Request: &authv3.AttributeContext_Request{Http: in},
	}}
}

const config = `listen_grpc: 127.0.0.1:0
callers: [127.0.0.1]
resource: https://api.example.com
verifiers: [jwks: {issuer: "ISSUER"}]
routes: {"GET /orders": "orders:read"}
`

func TestAuthorizeOverGRPC(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	certificate := valetkeytest.ClientCertificate(t)
	s := start(t, map[string]string{"authorize.yaml": strings.Replace(config, "ISSUER", iss.URL, 1) + "mtls: {}\nlisten_http: 127.0.0.1:0\ndialect: caddy\n"})
	conn := dial(t, s.grpc, insecure.NewCredentials())
	client := authv3.NewAuthorizationClient(conn)
	read := valetkeytest.Scopes("orders:read")
	bearer := "authorization: Bearer " + iss.Token(read)
	certified := check("GET", "/orders", "authorization: Bearer "+iss.Token(read, valetkeytest.BoundToCertificate(certificate)))
	shown := check("GET", "/orders", "authorization: Bearer "+iss.Token(read, valetkeytest.BoundToCertificate(certificate)))
	shown.Attributes.Source.Certificate = url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})))
	for _, c := range []struct {
		name string
		in   *authv3.CheckRequest
		code codes.Code
	}{
		{"no token", check("GET", "/orders"), codes.Unauthenticated},
		{"no row", check("DELETE", "/orders", bearer), codes.PermissionDenied},
		{"an unclear path", check("GET", "/x/..%2forders", bearer), codes.InvalidArgument},
		{"no certificate", certified, codes.Unauthenticated},
		{"a good token", check("GET", "/orders", bearer), codes.OK},
		{"its certificate, as Envoy reports it", shown, codes.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := client.Check(t.Context(), c.in)
			require.NoError(t, err)
			assert.Equal(t, c.code, codes.Code(out.GetStatus().GetCode()))
		})
	}
	t.Run("both listeners decide alike", func(t *testing.T) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.http, nil)
		require.NoError(t, err)
		r.Header = http.Header{"Authorization": {strings.TrimPrefix(bearer, "authorization: ")}, "X-Forwarded-Method": {"GET"}, "X-Forwarded-Uri": {"/orders"},
			"X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"api.example.com"}}
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		res.Body.Close()
		assert.Equal(t, 200, res.StatusCode)
		assert.Equal(t, "alice", res.Header.Get("X-Valetkey-Subject"))
	})
	t.Run("it ends while a client watches its health", func(t *testing.T) {
		watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "envoy.service.auth.v3.Authorization"})
		require.NoError(t, err)
		first, err := watch.Recv()
		require.NoError(t, err)
		assert.Equal(t, healthpb.HealthCheckResponse_SERVING, first.Status)
		go s.stop()
		second, err := watch.Recv()
		require.NoError(t, err)
		assert.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, second.Status)
	})
}

func TestAuthorizeRequiresTheCertificateOfTheGateway(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	s := start(t, map[string]string{
		"authorize.yaml": strings.Replace(config, "ISSUER", iss.URL, 1) + "tls: {cert_file: cert.pem, key_file: key.pem}\ncallers_ca_file: cert.pem\n",
		"cert.pem":       certificate, "key.pem": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(certificate))
	own := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	for _, c := range []struct {
		name   string
		shows  []tls.Certificate
		answer codes.Code
	}{
		{"no certificate", nil, codes.Unavailable},
		{"a certificate of another authority", []tls.Certificate{valetkeytest.ClientCertificate(t)}, codes.Unavailable},
		{"its own", []tls.Certificate{own}, codes.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dial(t, s.grpc, credentials.NewTLS(&tls.Config{RootCAs: roots, Certificates: c.shows}))
			out, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), check("GET", "/orders"))
			assert.Equal(t, c.answer, status.Code(err))
			if err == nil {
				assert.Equal(t, codes.Unauthenticated, codes.Code(out.GetStatus().GetCode()))
			}
		})
	}
}

// TestExampleInFull removes the comment signs from the options in the example.
func TestExampleInFull(t *testing.T) {
	text, err := os.ReadFile("../../testdata/authorize.yaml")
	require.NoError(t, err)
	full := regexp.MustCompile(`(?m)^# ([a-z_]+: )`).ReplaceAllString(string(text), "$1")
	full = strings.Replace(full, "dialect: nginx", "dialect: envoy-http", 1)
	require.Contains(t, full, "\nlisten_grpc: ")
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "authorize.yaml"), []byte(full), 0o600))
	_, err = proxy.LoadAuthorizer(filepath.Join(dir, "authorize.yaml"), drivers.All(), slog.New(slog.DiscardHandler))
	var missing []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		missing = append(missing, regexp.MustCompile(`[a-z.-]+: no such file or directory$`).FindString(line))
	}
	assert.Equal(t, []string{"authorize.crt: no such file or directory", "gateway-ca.pem: no such file or directory"}, missing, "only files are missing")
}
