package proxy_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

func TestMistakesInUpstreams(t *testing.T) {
	const head = "listen: 127.0.0.1:0\nresource: https://api.example.com\nverifiers: [jwks: {issuer: 'https://as.example.com'}]\n"
	for _, c := range []struct {
		name, upstreams, routes string
		want                    []string // "line: text" of each mistake
	}{
		{"both forms", "upstream: http://a\nupstreams: [url: 'http://b']", "/: '@any'", []string{"5: upstreams: cannot be combined with upstream"}},
		{"an empty list", "upstreams: []", "/: '@any'", []string{"4: upstreams: is empty"}},
		{"no URL", "upstreams: [prefix: /a]", "/: '@any'", []string{"4: upstreams[0].url: required"}},
		{"a URL of another scheme", "upstreams: [url: 'ftp://a']", "/: '@any'", []string{"4: upstreams[0].url: is not an http, https or h2c URL"}},
		{"a prefix that a server may read in another way", "upstreams:\n- {url: 'http://a', prefix: a}\n- {url: 'http://a', prefix: /a/}\n- {url: 'http://a', prefix: /a/../b}\n" +
			"- {url: 'http://a', prefix: //a}\n- {url: 'http://a', prefix: /a%2fb}\n- {url: 'http://a', prefix: '/{a}'}\n- {url: 'http://a', prefix: '/a;b'}\n- {url: 'http://a', prefix: /}\n" +
			"- {url: 'http://a', prefix: '/a\\b'}\n- {url: 'http://a', prefix: '/a b'}", "/: '@any'", []string{
			`5: upstreams[0].prefix: "a" is not a path such as /api: it must begin with a slash and not end with one, and have no wildcards and no escapes`,
			`6: upstreams[1].prefix: "/a/" is not a path such as /api: it must begin with a slash and not end with one, and have no wildcards and no escapes`,
			`7: upstreams[2].prefix: "/a/../b" is not a path such as /api: it must begin with a slash and not end with one, and have no wildcards and no escapes`,
			`8: upstreams[3].prefix: "//a" is not a path such as /api: it must begin with a slash and not end with one, and have no wildcards and no escapes`,
			`9: upstreams[4].prefix: "/a%2fb" is not a path such as /api: it must begin with a slash and not end with one, and have no wildcards and no escapes`,
			`10: upstreams[5].prefix: "/{a}" is not a path such as /api: it must begin with a slash and not end with one, and have no wildcards and no escapes`,
			`11: upstreams[6].prefix: "/a;b" is not a path such as /api: it must begin with a slash and not end with one, and have no wildcards and no escapes`,
			`12: upstreams[7].prefix: "/" is not a path such as /api: it must begin with a slash and not end with one, and have no wildcards and no escapes`,
			`13: upstreams[8].prefix: "/a\\b" is not a path such as /api: it must begin with a slash and not end with one, and have no wildcards and no escapes`,
			`14: upstreams[9].prefix: "/a b" is not a path such as /api: it must begin with a slash and not end with one, and have no wildcards and no escapes`}},
		{"a host with a port", "upstreams: [{url: 'http://a', host: 'a.example.com:443'}]", "/: '@any'", []string{
			`4: upstreams[0].host: "a.example.com:443" is not a host name without a port`}},
		{"an invalid prefix to strip", "upstreams: [{url: 'http://a', strip_prefix: true}]", "/: '@any'", []string{"4: upstreams[0].strip_prefix: requires prefix"}},
		{"two for the same paths", "upstreams:\n- {url: 'http://a', host: a.example.com}\n- {url: 'http://b', host: A.example.com}", "a.example.com/: '@any'", []string{
			"6: upstreams[1]: upstreams[0] has the same host and prefix"}},
		{"TLS without TLS", "upstreams:\n- {url: 'http://a', ca_file: nowhere}\n- {url: 'h2c://a', prefix: /a, tls_timeout: 1s}", "/: '@any'", []string{
			"5: upstreams[0]: ca_file, cert_file, key_file and tls_timeout have no effect without an https URL",
			"6: upstreams[1]: ca_file, cert_file, key_file and tls_timeout have no effect without an https URL"}},
		{"invalid files", "upstreams:\n- {url: 'https://a', ca_file: nowhere}\n- {url: 'https://a', prefix: /a, cert_file: x}\n- {url: 'https://a', prefix: /b, key_file: x}\n" +
			"- {url: 'https://a', prefix: /c, ca_file: proxy.yaml}\n- {url: 'https://a', prefix: /d, cert_file: proxy.yaml, key_file: proxy.yaml}", "/: '@any'", []string{
			"5: upstreams[0].ca_file: open DIR/nowhere: no such file or directory",
			"6: upstreams[1].key_file: required with cert_file",
			"7: upstreams[2].cert_file: required with key_file",
			"8: upstreams[3].ca_file: has no certificate in PEM",
			"9: upstreams[4].cert_file: tls: failed to find any PEM data in certificate input"}},
		{"invalid times", "upstreams: [{url: 'https://a', connect_timeout: 0s, tls_timeout: -1s, response_header_timeout: x, idle_timeout: 0s}]", "/: '@any'", []string{
			`4: upstreams[0].connect_timeout: "0s" is not a positive duration`,
			`4: upstreams[0].tls_timeout: "-1s" is not a duration such as 30s`,
			`4: upstreams[0].response_header_timeout: "x" is not a duration such as 30s`,
			`4: upstreams[0].idle_timeout: "0s" is not a positive duration`}},

		{"a route without an upstream", "upstreams: [{url: 'http://a', prefix: /a}]", "GET /a/: '@any'\n  GET /b: '@any'\n  GET /ab: '@any'\n  GET /{x}: '@any'", []string{
			`7: routes["GET /b"]: "GET /b" leads to no upstream: add one without host whose prefix begins its path, or one without prefix`,
			`8: routes["GET /ab"]: "GET /ab" leads to no upstream: add one without host whose prefix begins its path, or one without prefix`,
			`9: routes["GET /{x}"]: "GET /{x}" leads to no upstream: add one without host whose prefix begins its path, or one without prefix`}},
		{"a route for all hosts, and upstreams of one", "upstreams: [{url: 'http://a', host: a.example.com}]", "a.example.com/: '@any'\n  GET /b: '@any'", []string{
			`7: routes["GET /b"]: "GET /b" leads to no upstream: add one without host whose prefix begins its path, or one without prefix`}},
		{"an upstream without a route", "upstreams:\n- url: http://a\n- {url: 'http://b', prefix: /b}", "/: '@any'", []string{
			"6: upstreams[1]: no row of the routes leads to it: a row belongs to the upstream with its host and the longest prefix of its path before the first wildcard"}},
		{"an upstream of a host without a route", "upstreams:\n- url: http://a\n- {url: 'http://b', host: b.example.com}", "/: '@any'", []string{
			"6: upstreams[1]: no row of the routes leads to it: a row belongs to the upstream with its host and the longest prefix of its path before the first wildcard"}},
		{"a wider row that takes requests from an upstream", "upstreams:\n- url: http://a\n- {url: 'http://b', prefix: /b/c}", "/: '@any'\n  GET /b/c/d: '@any'\n  GET /b/c/: '@any'", []string{
			`6: upstreams[1]: the row "/", which leads to upstreams[0], serves other requests for this upstream: add the row "/b/c/"`}},
		{"a wider row of one method", "upstreams:\n- url: http://a\n- {url: 'http://b', prefix: /b}", "GET /: '@any'\n  POST /b: '@any'", []string{
			`6: upstreams[1]: the row "GET /", which leads to upstreams[0], serves other requests for this upstream: add the row "GET /b/"`}},
		{"a wider row with a wildcard", "upstreams:\n- url: http://a\n- {url: 'http://b', prefix: /b/c}", "'/{x}/': '@any'\n  GET /b/c/d: '@any'", []string{
			`6: upstreams[1]: the row "/{x}/", which leads to upstreams[0], serves other requests for this upstream: add the row "/b/c/"`}},
		{"a wider row for all hosts", "upstreams:\n- url: http://a\n- {url: 'http://b', host: b.example.com}", "/: '@any'\n  GET b.example.com/d: '@any'", []string{
			`6: upstreams[1]: the row "/", which leads to upstreams[0], serves other requests for this upstream: add the row "b.example.com/"`}},
		{"a row of nothing but the prefix that is stripped", "upstreams: [{url: 'http://a', prefix: /a, strip_prefix: true}]", "GET /a: '@any'\n  GET /a/: orders", []string{
			`6: routes["GET /a"]: "GET /a" has no path without the prefix of upstreams[0], which has strip_prefix: end it in /{$}`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, head+c.upstreams+"\nroutes:\n  "+c.routes+"\n", slog.New(slog.DiscardHandler))
			require.Error(t, err)
			assert.Equal(t, c.want, mistakes(err))
		})
	}
	for _, c := range []struct{ name, upstreams, routes string }{
		{"a row for all that a wider one would take", "upstreams:\n- url: http://a\n- {url: 'http://b', prefix: /b}", "/: '@public'\n  /b/: '@any'\n  GET /b/c: orders"},
		{"wildcards behind the prefix", "upstreams: [{url: 'http://b', prefix: /b, strip_prefix: true}]", "'GET /b/{id}': '@any'"},
		{"a row of nothing but the prefix, and a path of the upstream", "upstreams: [{url: 'http://a/base', prefix: /a, strip_prefix: true}]", "GET /a: '@any'"},
		{"no time for a response", "upstreams: [{url: 'http://a', response_header_timeout: 0s}]", "/: '@any'"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := load(t, head+c.upstreams+"\nroutes:\n  "+c.routes+"\n", slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			p.Close()
		})
	}
}

// named is an upstream that answers with its name and the target that it received.
func named(t *testing.T, name string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", name, r.Method, r.RequestURI)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestSeveralUpstreams(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	addr := start(t, fmt.Sprintf(`
listen: 127.0.0.1:0
resource: %s
verifiers: [jwks: {issuer: %q}]
upstreams:
- {url: %q}
- {url: %q, prefix: /api, strip_prefix: true}
- {url: "%s/base/", prefix: /api/v2, strip_prefix: true}
- {url: %q, prefix: /apis}
- {url: %q, host: Admin.example.com}
- {url: %q, prefix: /never/seen, host: admin.example.com, strip_prefix: true}
routes:
  /: "@any"
  /api/: "@any"
  "GET /api/{name}": "@any"
  /api/v2/: "@any"
  "GET /api/v2": "@any"
  "GET /api/v2/{name}/x": "@any"
  /apis/: "@any"
  admin.example.com/: admin
  admin.example.com/never/seen/: admin
allow_encoded_slash: ["GET /api/{name}", "GET /api/v2/{name}/x"]
`, valetkeytest.DefaultAudience, iss.URL, named(t, "site"), named(t, "api"), named(t, "v2"), named(t, "apis"), named(t, "admin"), named(t, "deep")), slog.New(slog.DiscardHandler))
	all, weak := "Authorization: Bearer "+iss.Token(valetkeytest.Scopes("admin")), "Authorization: Bearer "+iss.Token(valetkeytest.Scopes("orders"))
	const admin = "Host: admin.example.com"
	for _, c := range []struct {
		name, line string
		header     []string
		want       string // status, or the answer of the upstream
	}{
		{"a prefix is not text: a longer first segment is another path", "GET /apix", []string{weak}, "site GET /apix"},
		{"nor does another letter case match", "GET /API/x", []string{weak}, "site GET /API/x"},
		{"the longest prefix decides, which is removed", "GET /api/v2/x?a=/api", []string{all}, "v2 GET /base/x?a=/api"},
		{"by whole segments", "GET /api/v20", []string{all}, "api GET /v20"},
		{"one prefix is the start of another", "GET /apis/x", []string{all}, "apis GET /apis/x"},
		{"an escaped letter is the letter", "GET /%61pi/v%32/x%20y", []string{all}, "v2 GET /base/x%20y"},
		{"the final slash stays", "GET /api/x/", []string{all}, "api GET /x/"},
		{"nothing behind the prefix but the slash", "GET /api/", []string{all}, "api GET /"},
		{"nothing behind the prefix, and a path of the upstream", "GET /api/v2", []string{all}, "v2 GET /base/"},
		{"an encoded slash stays one", "GET /api/a%2Fb", []string{all}, "api GET /a%2Fb"},
		{"an encoded slash is not an end of a prefix", "GET /api/v2%2Fadmin", []string{all}, "api GET /v2%2Fadmin"},
		{"nor elsewhere", "GET /api/v2/a%2Fv2%2Fb/x", []string{all}, "v2 GET /base/a%2Fv2%2Fb/x"},
		{"an encoded slash at the start would make //", "GET /api/%2Fevil.example.com", []string{all}, "400"},
		{"an encoded slash at the start of two", "GET /api/%2F%2Fevil.example.com", []string{all}, "400"},
		{"two slashes", "GET /api//evil.example.com/x", []string{all}, "307"},
		{"dot segments", "GET /api/v2/../x", []string{all}, "307"},
		{"dot segments that leave the prefix", "GET /api/%2e%2e/x", []string{all}, "400"},
		{"dot segments beside an encoded slash", "GET /api/..%2Fx", []string{all}, "400"},
		{"dot segments with a parameter", "GET /api/..;/x", []string{all}, "400"},
		{"a backslash", `GET /api/\evil.example.com`, []string{all}, "400"},
		{"a host", "GET /x", []string{all, admin}, "admin GET /x"},
		{"a host needs what its row does", "GET /x", []string{weak, admin}, "403"},
		{"a host in another letter case, with a port", "GET /x", []string{all, "Host: ADMIN.example.com:8080"}, "admin GET /x"},
		{"a host in another letter case needs the same", "GET /x", []string{weak, "Host: ADMIN.example.com:8080"}, "403"},
		{"a host with a dot at the end needs the same", "GET /x", []string{weak, "Host: admin.example.com."}, "403"},
		{"a host in the absolute form", "GET http://admin.example.com/x", []string{weak}, "403"},
		{"a prefix of a host", "GET /never/seen/x", []string{all, admin}, "deep GET /x"},
		{"the prefix of a host is not that of the others", "GET /never/seen/x", []string{weak}, "site GET /never/seen/x"},
		{"the prefixes of all hosts are not those of a host with an upstream for all paths", "GET /api/x", []string{all, admin}, "admin GET /api/x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := "Host: api.example.com"
			var header []string
			for _, h := range c.header {
				if strings.HasPrefix(h, "Host:") {
					host = h
				} else {
					header = append(header, h)
				}
			}
			conn, err := net.Dial("tcp", addr)
			require.NoError(t, err)
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(soon))
			fmt.Fprintf(conn, "%s HTTP/1.1\r\n%s\r\n%s\r\n", c.line, host, strings.Join(append(header, ""), "\r\n"))
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			got := fmt.Sprint(res.StatusCode)
			if res.StatusCode == 200 {
				body, _ := io.ReadAll(res.Body)
				got = string(body)
			}
			assert.Equal(t, c.want, got)
		})
	}
}

func TestWildcardAtThePlaceOfAPrefix(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	addr := start(t, fmt.Sprintf(`
listen: 127.0.0.1:0
resource: %s
verifiers: [jwks: {issuer: %q}]
upstreams: [{url: %q}, {url: %q, prefix: /api}]
routes: {"GET /{tenant}/orders": "@any", "GET /api/orders": admin, "GET /api/keys": admin, "GET /{tenant}/{x}": "@any"}
`, valetkeytest.DefaultAudience, iss.URL, named(t, "tenants"), named(t, "api")), slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		name, line, scope string
		status            int
		want              string
	}{
		{"the row of the prefix decides", "GET /api/orders", "x", 403, ""},
		{"and leads to its upstream", "GET /api/orders", "admin", 200, "api GET /api/orders"},
		{"a row with a wildcard stays with its upstream, whatever the wildcard is", "GET /api/users", "x", 200, "tenants GET /api/users"},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := send(t, addr, c.line, "Authorization: Bearer "+iss.Token(valetkeytest.Scopes(c.scope)))
			assert.Equal(t, c.status, res.StatusCode)
			if c.status == 200 {
				body, err := io.ReadAll(res.Body)
				require.NoError(t, err)
				assert.Equal(t, c.want, string(body))
			}
		})
	}
}

// TestNoRetryOfUnsafeMethods counts how often an upstream receives a request if it closes the kept connection without an answer.
func TestNoRetryOfUnsafeMethods(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	var received atomic.Int32 // but for the first on each connection
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for first := true; ; first = false {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if !first && r.Header.Get("Break") != "" {
						if r.Header.Get("Idempotency-Key")+r.Header.Get("X-Idempotency-Key") != "" || r.Method == "GET" {
							received.Add(1)
						}
						return
					}
					fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			}()
		}
	}()
	iss := valetkeytest.NewIssuer(t)
	p, server := opened(t, iss, "http://"+l.Addr().String(), "")
	_ = p
	bearer := iss.Token()
	do := func(method string, header ...string) int {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+server+"/x", nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+bearer)
		for _, h := range header {
			r.Header.Set(h, "1")
		}
		res, err := http.DefaultTransport.RoundTrip(r)
		require.NoError(t, err)
		res.Body.Close()
		return res.StatusCode
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		for _, key := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
			t.Run(method+" with "+key+" is sent once", func(t *testing.T) {
				require.Equal(t, 200, do("GET")) // now a connection is kept
				received.Store(0)
				assert.Equal(t, 502, do(method, key, "Break"))
				assert.EqualValues(t, 1, received.Load())
			})
		}
	}
	t.Run("GET is sent again, on a new connection", func(t *testing.T) {
		require.Equal(t, 200, do("GET"))
		received.Store(0)
		assert.Equal(t, 200, do("GET", "Break"))
		assert.EqualValues(t, 1, received.Load())
	})
}

func TestUpstreamTimeouts(t *testing.T) {
	goOn := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, "first\n")
		http.NewResponseController(w).Flush()
		<-goOn
		fmt.Fprint(w, "second\n")
	}))
	defer upstream.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // it accepts connections, and no TLS
	require.NoError(t, err)
	defer silent.Close()
	iss := valetkeytest.NewIssuer(t)
	addr := start(t, fmt.Sprintf(`
listen: 127.0.0.1:0
resource: %s
verifiers: [jwks: {issuer: %q}]
upstreams:
- {url: %q, response_header_timeout: 50ms}
- {url: "https://%s", prefix: /tls, tls_timeout: 50ms}
routes: {/: "@any", /tls/: "@any"}
`, valetkeytest.DefaultAudience, iss.URL, upstream.URL, silent.Addr()), slog.New(slog.DiscardHandler))
	bearer := "Authorization: Bearer " + iss.Token()
	for name, line := range map[string]string{"a response that does not begin": "GET /late", "a TLS handshake that does not end": "GET /tls/x"} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, 504, send(t, addr, line, bearer).StatusCode)
		})
	}
	t.Run("a response that has begun may last", func(t *testing.T) {
		res := send(t, addr, "GET /stream", bearer)
		in := bufio.NewReader(res.Body)
		line, err := in.ReadString('\n')
		require.Equal(t, "first\n", line, err)
		assert.Equal(t, 504, send(t, addr, "GET /late", bearer).StatusCode) // as long as the timeout
		close(goOn)
		line, err = in.ReadString('\n')
		assert.Equal(t, "second\n", line, err)
	})
}

func TestIdleConnectionsToAnUpstreamAreClosed(t *testing.T) {
	states := make(chan string, 10)
	upstream := httptest.NewUnstartedServer(&recorder{})
	upstream.Config.ConnState = func(_ net.Conn, state http.ConnState) { states <- state.String() }
	upstream.Start()
	defer upstream.Close()
	iss := valetkeytest.NewIssuer(t)
	addr := start(t, fmt.Sprintf("listen: 127.0.0.1:0\nresource: %s\nverifiers: [jwks: {issuer: %q}]\nupstreams: [{url: %q, idle_timeout: 50ms}]\nroutes: {/: '@any'}\n",
		valetkeytest.DefaultAudience, iss.URL, upstream.URL), slog.New(slog.DiscardHandler))
	assert.Equal(t, 200, send(t, addr, "GET /x", "Authorization: Bearer "+iss.Token()).StatusCode)
	for _, want := range []string{"new", "active", "idle", "closed"} {
		assert.Equal(t, want, within(t, states))
	}
}

func TestUpstreamTLS(t *testing.T) {
	dir := t.TempDir()
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s, %d certificates", r.Proto, len(r.TLS.PeerCertificates))
	}))
	own, err := tls.X509KeyPair([]byte(certificatePEM), []byte(keyPEM))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(certificatePEM))
	upstream.TLS = &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequestClientCert, ClientCAs: roots}
	upstream.EnableHTTP2 = true
	upstream.StartTLS()
	defer upstream.Close()
	other := httptest.NewTLSServer(nil)
	other.Close()
	foreign := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Certificate().Raw})
	for name, text := range map[string]string{"ca.pem": certificatePEM, "proxy.crt": certificatePEM, "proxy.key": keyPEM, "other.pem": string(foreign)} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	iss := valetkeytest.NewIssuer(t)
	for _, c := range []struct {
		name, files string
		status      int
		answer      string
	}{
		{"a certificate of another authority", "ca_file: DIR/other.pem", 502, "Bad Gateway\n"},
		{"the authority", "ca_file: DIR/ca.pem", 200, "HTTP/2.0, 0 certificates"},
		{"the authority, and a certificate", "ca_file: DIR/ca.pem, cert_file: DIR/proxy.crt, key_file: DIR/proxy.key", 200, "HTTP/2.0, 1 certificates"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := start(t, fmt.Sprintf("listen: 127.0.0.1:0\nresource: %s\nverifiers: [jwks: {issuer: %q}]\nupstreams: [{url: %q, %s}]\nroutes: {/: '@any'}\n",
				valetkeytest.DefaultAudience, iss.URL, upstream.URL, strings.ReplaceAll(c.files, "DIR", dir)), slog.New(slog.DiscardHandler))
			res := send(t, addr, "GET /x", "Authorization: Bearer "+iss.Token())
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			assert.Equal(t, c.status, res.StatusCode)
			assert.Equal(t, c.answer, string(body))
		})
	}
}
