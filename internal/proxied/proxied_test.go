// Package proxied_test tests guards behind a real reverse proxy with a real client: nginx terminates TLS, and a client based
// on oauth4webapi proves possession of its key.
package proxied_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

// nginxAddress is the address that nginx connects from. It differs from 127.0.0.1, so that the test itself is not a trusted
// proxy.
const nginxAddress = "127.0.0.2"

const nginxConf = `
daemon off;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log stderr error;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen 127.0.0.1:%[2]d ssl;
		ssl_certificate %[1]s/cert.pem;
		ssl_certificate_key %[1]s/key.pem;
		ssl_verify_client optional_no_ca;
		location / {
			proxy_bind %[3]s;
			proxy_pass http://%[4]s;
			proxy_set_header X-Forwarded-Proto $scheme;
			proxy_set_header X-Forwarded-Host $http_host;
			proxy_set_header X-Client-Cert $ssl_client_escaped_cert;
		}
	}
}
`

// site is an API behind nginx.
type site struct {
	iss     *valetkeytest.Issuer
	url     string // of nginx
	direct  string // of the API itself
	ca      string // a file
	roots   *x509.CertPool
	mu      sync.Mutex
	lastOne http.Header // of the last accepted request
}

func start(t *testing.T) *site {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("there is no nginx to stand before the API")
	}
	s := &site{iss: valetkeytest.NewIssuer(t)}
	mux := http.NewServeMux()
	nonces, err := dpop.NewNonces(dpop.NoncesConfig{})
	require.NoError(t, err)
	mux.Handle("/nonce/", s.guard(t, dpop.Config{Nonces: nonces}).Handler(http.HandlerFunc(s.hello)))
	mux.Handle("/", s.guard(t, dpop.Config{}).Handler(http.HandlerFunc(s.hello)))
	api := httptest.NewServer(mux)
	t.Cleanup(api.Close)
	s.direct = api.URL

	dir := t.TempDir()
	s.certificate(t, dir)
	port := freePort(t)
	conf := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(conf, fmt.Appendf(nil, nginxConf, dir, port, nginxAddress, api.Listener.Addr()), 0o600))
	require.NoError(t, os.Chmod(dir, 0o755)) // its worker is another user
	server := exec.Command(nginx, "-p", dir, "-c", conf, "-e", "stderr")
	var log strings.Builder
	server.Stdout, server.Stderr = &log, &log
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		server.Process.Signal(syscall.SIGTERM)
		server.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	s.url = fmt.Sprintf("https://localhost:%d", port)
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, time.Minute, 10*time.Millisecond, "nginx does not listen")
	return s
}

func (s *site) guard(t *testing.T, cfg dpop.Config) *middleware.Guard {
	t.Helper()
	keys, err := jwks.New(jwks.Config{Issuer: s.iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: s.iss.Client()})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	proofs, err := dpop.New(cfg)
	require.NoError(t, err)
	guard, err := middleware.New(middleware.Config{
		Verifier: keys, DPoP: proofs, SenderConstrained: true,
		ClientCertificate: middleware.PEMHeader("X-Client-Cert"),
		Proxies:           middleware.Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix(nginxAddress + "/32")}, Forwarded: middleware.XForwarded},
		Logger:            slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	return guard
}

func (s *site) hello(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.lastOne = r.Header.Clone()
	s.mu.Unlock()
	fmt.Fprintf(w, "hello %s", valetkey.FromContext(r.Context()).Subject())
}

func (s *site) last() http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastOne
}

// certificate creates a self-signed certificate for nginx.
func (s *site) certificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	s.ca = filepath.Join(dir, "cert.pem")
	require.NoError(t, os.WriteFile(s.ca, cert, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	s.roots = x509.NewCertPool()
	require.True(t, s.roots.AppendCertsFromPEM(cert))
}

// freePort returns a port of loopback on which nothing listens. It is below those that the system gives to outgoing connections and to
// listeners that ask for any port, so that none of them takes it before nginx does.
func freePort(t *testing.T) int {
	t.Helper()
	for {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+mathrand.N(20_000))); err == nil {
			defer l.Close()
			return l.Addr().(*net.TCPAddr).Port
		}
	}
}

// get sends a request with these header fields, through nginx if the URL is its.
func (s *site) get(t *testing.T, url string, header http.Header, certificates ...tls.Certificate) *http.Response {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: s.roots, Certificates: certificates},
	}}
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	require.NoError(t, err)
	r.Header = header
	res, err := client.Do(r)
	require.NoError(t, err)
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return res
}

func TestDPoPBehindNginx(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("there is no node to run npm/client.js")
	}
	if _, err := os.Stat("npm/node_modules/oauth4webapi/package.json"); err != nil {
		t.Skip("oauth4webapi is not installed: npm ci --prefix internal/proxied/npm")
	}
	s := start(t)
	answers := s.npmClient(t, s.url+"/orders%20of/7?page=2", s.url+"/nonce/orders")
	t.Run("DPOP-20 a real client is let through", func(t *testing.T) {
		require.Len(t, answers, 2)
		assert.Equal(t, "200 hello alice", answers[0])
	})
	t.Run("DPOP-21 it learns the nonce and comes again", func(t *testing.T) {
		assert.Equal(t, "200 hello alice", answers[1])
	})
	t.Run("DPOP-37 its very request sent once more is refused", func(t *testing.T) {
		seen := s.last()
		require.NotEmpty(t, seen.Get("DPoP"))
		res := s.get(t, s.url+"/nonce/orders", http.Header{"Authorization": seen["Authorization"], "DPoP": seen["Dpop"]})
		assert.Equal(t, 401, res.StatusCode)
		assert.Equal(t, "invalid_dpop_proof", valetkeytest.Challenge(t, res.Header, "DPoP")["error"])
	})
	t.Run("DPOP-20, AUD-08 headers about the URL are ignored if a request bypasses the proxy", func(t *testing.T) {
		key := s.iss.ProofKey("ES256")
		token := s.iss.Token(valetkeytest.BoundTo(key))
		send := func(url string) *http.Response {
			return s.get(t, url+"/orders", http.Header{
				"Authorization": {"DPoP " + token}, "DPoP": {key.Proof("GET", s.url+"/orders", token)},
				"X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {strings.TrimPrefix(s.url, "https://")},
			})
		}
		res := send(s.direct)
		assert.Equal(t, 401, res.StatusCode)
		assert.Equal(t, "invalid_dpop_proof", valetkeytest.Challenge(t, res.Header, "DPoP")["error"])
		assert.Equal(t, 200, send(s.url).StatusCode)
	})
	t.Run("DPOP-20 what a client sends about itself does not pass the proxy", func(t *testing.T) {
		key := s.iss.ProofKey("ES256")
		token := s.iss.Token(valetkeytest.BoundTo(key))
		res := s.get(t, s.url+"/orders", http.Header{
			"Authorization": {"DPoP " + token}, "DPoP": {key.Proof("GET", "https://victim.example.com/orders", token)},
			"X-Forwarded-Host": {"victim.example.com"},
		})
		assert.Equal(t, 401, res.StatusCode)
	})
}

// npmClient runs npm/client.js, which requests the URLs in turn.
func (s *site) npmClient(t *testing.T, urls ...string) (answers []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	client := exec.CommandContext(ctx, "node", append([]string{"npm/client.js"}, urls...)...)
	client.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+s.ca)
	var log strings.Builder
	client.Stderr = &log
	in, err := client.StdinPipe()
	require.NoError(t, err)
	out, err := client.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, client.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan(), "the client printed no thumbprint: %s", &log)
	token := s.iss.Token(valetkeytest.Claim("cnf", map[string]string{"jkt": lines.Text()}))
	fmt.Fprintln(in, token)
	for lines.Scan() {
		answers = append(answers, lines.Text())
	}
	require.NoError(t, client.Wait(), log.String())
	return answers
}

func TestCertificateBehindNginx(t *testing.T) {
	s := start(t)
	mine, other := valetkeytest.ClientCertificate(t), valetkeytest.ClientCertificate(t)
	bearer := http.Header{"Authorization": {"Bearer " + s.iss.Token(valetkeytest.BoundToCertificate(mine))}}
	escaped := url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: mine.Certificate[0]})))
	forged := bearer.Clone()
	forged.Set("X-Client-Cert", escaped)
	for _, c := range []struct {
		name   string
		url    string
		header http.Header
		certs  []tls.Certificate
		status int
	}{
		{"MTLS-03 no certificate", s.url, bearer, nil, 401},
		{"MTLS-02 another certificate", s.url, bearer, []tls.Certificate{other}, 401},
		{"MTLS-10 the client sets the header itself, and nginx takes it away", s.url, forged, nil, 401},
		{"MTLS-10 the client sets the header itself, and goes around nginx", s.direct, forged, nil, 401},
		{"MTLS-01, MTLS-07 its own certificate, which is self-signed", s.url, bearer, []tls.Certificate{mine}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.status, s.get(t, c.url+"/orders", c.header.Clone(), c.certs...).StatusCode)
		})
	}
}
