package proxy_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/valetkeytest"
)

// withHTTP2 serves h over HTTP/1.1 and HTTP/2, both without TLS, and returns its URL.
func withHTTP2(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// clientOf returns a transport of one version of HTTP, without TLS.
func clientOf(t *testing.T, version int) *http.Transport {
	t.Helper()
	client := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	client.Protocols.SetHTTP1(version == 1)
	client.Protocols.SetUnencryptedHTTP2(version == 2)
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// asH2C returns the URL of an upstream for an HTTP version.
func asH2C(url string, version int) string {
	if version == 2 {
		return strings.Replace(url, "http://", "h2c://", 1)
	}
	return url
}

func TestTrailers(t *testing.T) {
	// It answers with the trailers that it received, and with those that it likes, announced and not.
	upstream := withHTTP2(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Announced, Dpop-Nonce")
		fmt.Fprintf(w, "%s te=%s announced=%d\n", r.Proto, r.Header.Get("Te"), len(r.Trailer))
		io.Copy(io.Discard, r.Body)
		var names []string
		for name := range r.Trailer {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(w, "%s=%s\n", name, r.Trailer.Get(name))
		}
		for _, name := range []string{"X-Announced", "Dpop-Nonce", http.TrailerPrefix + "X-Later", http.TrailerPrefix + "X-Valetkey-Subject",
			http.TrailerPrefix + "X_Forwarded_For", http.TrailerPrefix + "Access-Control-Allow-Origin", http.TrailerPrefix + "Set-Cookie"} {
			w.Header().Set(name, "upstream")
		}
	}))
	iss := valetkeytest.NewIssuer(t)
	for _, versions := range [][2]int{{1, 1}, {1, 2}, {2, 1}, {2, 2}} {
		t.Run(fmt.Sprintf("HTTP-13 from a client of HTTP %d to an upstream of HTTP %d", versions[0], versions[1]), func(t *testing.T) {
			p, err := load(t, fmt.Sprintf("listen: 127.0.0.1:0\nupstream: %s\nresource: %s\nverifiers: [jwks: {issuer: %q}]\nroutes: {/: '@any'}\ntoken_header: X-Token\n",
				asH2C(upstream, versions[1]), valetkeytest.DefaultAudience, iss.URL), slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			t.Cleanup(p.Close)
			body, send := io.Pipe()
			r, err := http.NewRequestWithContext(t.Context(), "POST", withHTTP2(t, p)+"/x", body)
			require.NoError(t, err)
			r.Header.Set("X-Token", iss.Token())
			r.Header.Set("Te", "trailers")
			r.Trailer = http.Header{"X-Checksum": nil, "Grpc-Status": nil, "Never-Sent": nil}
			forged := []string{"X-Valetkey-Subject", "X_valetkey_scope", "X-Token", "X_token", "Dpop", "Client-Cert", "X-Forwarded-For", "Forwarded",
				"Content-Security-Policy", "Cookie", "Sec-Websocket-Protocol", "Idempotency-Key"}
			if versions[0] == 1 { // the server of HTTP/2 refuses them itself
				forged = append(forged, "Authorization", "Content-Type", "Host", "If-Match")
			}
			for _, name := range forged {
				r.Trailer[name] = nil
			}
			go func() {
				io.WriteString(send, "pears")
				for name := range r.Trailer {
					if name != "Never-Sent" {
						r.Trailer.Set(name, "client")
					}
				}
				for _, name := range forged {
					r.Trailer[name] = []string{"client"}
				}
				send.Close()
			}()
			res, err := clientOf(t, versions[0]).RoundTrip(r)
			require.NoError(t, err)
			defer res.Body.Close()
			got, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			lines := strings.Split(strings.TrimSpace(string(got)), "\n")
			assert.Equal(t, fmt.Sprintf("HTTP/%d.%d te=trailers announced=3", versions[1], 2-versions[1]), lines[0])
			assert.Subset(t, []string{"Grpc-Status=client", "X-Checksum=client", "Never-Sent="}, lines[1:])
			assert.Subset(t, lines[1:], []string{"Grpc-Status=client", "X-Checksum=client"})
			for name, values := range res.Trailer {
				assert.Contains(t, []string{"X-Announced", "X-Later"}, name)
				assert.Equal(t, []string{"upstream"}, values)
			}
			assert.Len(t, res.Trailer, 2)
		})
	}
}

// TestStreamsEndWithTheirTokenOverHTTP2 does what TestStreamsEndWithTheirToken does, with several streams on a connection.
func TestStreamsEndWithTheirTokenOverHTTP2(t *testing.T) {
	for _, c := range []struct{ name, method, path string }{
		{"events", "GET", "/events"},
		{"an answer that the client does not read", "GET", "/flood"},
		{"an upload", "POST", "/upload"},
	} {
		for _, how := range []string{"revoked", "expired"} {
			for _, version := range []int{1, 2} {
				t.Run(fmt.Sprintf("HTTP-03 %s, to an upstream of HTTP %d, ends at both sides when the token is %s", c.name, version, how), func(t *testing.T) {
					t.Parallel()
					ended := make(chan string, 4)
					iss := valetkeytest.NewIssuer(t)
					p, err := load(t, fmt.Sprintf("listen: 127.0.0.1:0\nupstream: %s\nresource: %s\nverifiers: [jwks: {issuer: %q, leeway: 0s}]\nroutes: {/: '@any'}\n",
						asH2C(withHTTP2(t, streaming(ended)), version), valetkeytest.DefaultAudience, iss.URL), slog.New(slog.DiscardHandler))
					require.NoError(t, err)
					t.Cleanup(p.Close)
					require.NoError(t, p.Ready(t.Context()))
					url, client := withHTTP2(t, p), clientOf(t, 2)
					begin := func(method, path string, life time.Duration, id string) (*http.Response, error) {
						body, _ := io.Pipe() // it sends nothing
						r, err := http.NewRequestWithContext(t.Context(), method, url+path, body)
						require.NoError(t, err)
						if method == "GET" {
							r.Body = nil
						}
						r.Header.Set("Authorization", "Bearer "+iss.Token(valetkeytest.ExpiresIn(life), valetkeytest.Claim("jti", id)))
						return client.RoundTrip(r)
					}
					other, err := begin("GET", "/events", time.Hour, "8")
					require.NoError(t, err)
					require.Equal(t, 200, other.StatusCode)
					read := bufio.NewReader(other.Body)
					_, err = read.ReadString('\n')
					require.NoError(t, err)

					life := time.Hour
					if how == "expired" {
						life = brief
					}
					closed := make(chan error, 1)
					go func() {
						res, err := begin(c.method, c.path, life, "7")
						if err != nil {
							closed <- err
							return
						}
						if c.path == "/flood" {
							ended <- "begun"
							<-t.Context().Done() // it reads nothing
							return
						}
						if c.path == "/events" {
							ended <- "begun"
						}
						_, err = io.Copy(io.Discard, res.Body)
						closed <- err
					}()
					require.Equal(t, "begun", within(t, ended))
					if how == "revoked" {
						require.NoError(t, p.Revoke(valetkey.Revocation{Issuer: iss.URL, ID: "7"}))
					}
					require.Equal(t, c.path, within(t, ended))
					if c.path != "/flood" {
						select {
						case <-closed:
						case <-time.After(soon):
							t.Fatal("the client's side goes on")
						}
					}
					assert.Equal(t, 1, p.Requests(), "the other stream of the connection goes on")
				})
			}
		}
	}
}

func TestConnectOverHTTP2(t *testing.T) {
	iss, upstream := valetkeytest.NewIssuer(t), &recorder{}
	server := httptest.NewServer(upstream)
	defer server.Close()
	p, err := load(t, fmt.Sprintf("listen: 127.0.0.1:0\nupstream: %s\nresource: %s\nverifiers: [jwks: {issuer: %q}]\nroutes: {/: '@any'}\n",
		server.URL, valetkeytest.DefaultAudience, iss.URL), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer p.Close()
	url := withHTTP2(t, p)
	t.Run("a tunnel is refused", func(t *testing.T) {
		r, err := http.NewRequestWithContext(t.Context(), "CONNECT", url+"/x", nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+iss.Token())
		res, err := clientOf(t, 2).RoundTrip(r)
		require.NoError(t, err)
		res.Body.Close()
		assert.Equal(t, 400, res.StatusCode)
	})
	t.Run("a WebSocket (RFC 8441) is not offered", func(t *testing.T) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		require.NoError(t, err)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(soon))
		fmt.Fprintf(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		head := make([]byte, 9)
		_, err = io.ReadFull(conn, head)
		require.NoError(t, err)
		require.EqualValues(t, 4, head[3], "the first frame is SETTINGS")
		settings := make([]byte, binary.BigEndian.Uint16(head[1:]))
		_, err = io.ReadFull(conn, settings)
		require.NoError(t, err)
		require.NotEmpty(t, settings)
		for setting := range slices.Chunk(settings, 6) {
			assert.NotEqualValues(t, 8, binary.BigEndian.Uint16(setting), "SETTINGS_ENABLE_CONNECT_PROTOCOL")
		}
	})
	assert.Nil(t, upstream.take())
}

func TestUpgradeToAnUpstreamOfHTTP2(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	_, addr := opened(t, iss, asH2C(withHTTP2(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s upgrade=%q", r.Proto, r.Header.Get("Upgrade"))
	})), 2), "")
	res := send(t, addr, "GET /x", "Authorization: Bearer "+iss.Token(), "Connection: Upgrade", "Upgrade: websocket")
	body, _ := io.ReadAll(res.Body)
	assert.Equal(t, `200 HTTP/2.0 upgrade=""`, fmt.Sprint(res.StatusCode, " ", string(body)))
}

func TestCallsOfGRPCMayWaitForHeaders(t *testing.T) {
	begun, goOn := make(chan string, 4), make(chan struct{})
	upstream := withHTTP2(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- r.Header.Get("Content-Type")
		select {
		case <-goOn:
		case <-r.Context().Done():
		}
	}))
	iss := valetkeytest.NewIssuer(t)
	p, err := load(t, fmt.Sprintf("listen: 127.0.0.1:0\nupstreams: [{url: %q, response_header_timeout: 50ms}]\nresource: %s\nverifiers: [jwks: {issuer: %q}]\nroutes: {/: '@any'}\n",
		asH2C(upstream, 2), valetkeytest.DefaultAudience, iss.URL), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer p.Close()
	url, client, token := withHTTP2(t, p), clientOf(t, 2), iss.Token()
	post := func(kind string) int {
		r, err := http.NewRequestWithContext(t.Context(), "POST", url+"/x", nil)
		if err != nil {
			return 0
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", kind)
		res, err := client.RoundTrip(r)
		if err != nil {
			return 0
		}
		res.Body.Close()
		return res.StatusCode
	}
	calls := make(chan int, 2)
	for _, kind := range []string{"application/grpc", "application/grpc+proto"} {
		go func() { calls <- post(kind) }()
		require.Equal(t, kind, within(t, begun))
	}
	for _, kind := range []string{"text/plain", "application/grpc-web"} { // later, and with the timeout
		assert.Equal(t, 504, post(kind), kind)
	}
	close(goOn)
	assert.Equal(t, 200, <-calls)
	assert.Equal(t, 200, <-calls)
}

// TestNoRetryOverHTTP2 counts the requests that an upstream of HTTP/2 receives if it resets each.
func TestNoRetryOverHTTP2(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	var received atomic.Int32
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				if _, err := in.Discard(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); err != nil {
					return
				}
				conn.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // SETTINGS, empty
				for {
					head := make([]byte, 9)
					if _, err := io.ReadFull(in, head); err != nil {
						return
					}
					in.Discard(int(binary.BigEndian.Uint32(append([]byte{0}, head[:3]...))))
					if head[3] != 1 { // HEADERS
						continue
					}
					received.Add(1)
					reset := append([]byte{0, 0, 4, 3, 0}, head[5:]...)
					conn.Write(append(reset, 0, 0, 0, 1)) // RST_STREAM, PROTOCOL_ERROR
				}
			}()
		}
	}()
	iss := valetkeytest.NewIssuer(t)
	_, addr := opened(t, iss, "h2c://"+l.Addr().String(), "")
	for _, method := range []string{"POST", "DELETE"} {
		received.Store(0)
		res := send(t, addr, method+" /x", "Authorization: Bearer "+iss.Token(), "Idempotency-Key: 1", "Content-Length: 0")
		assert.Equal(t, 502, res.StatusCode)
		assert.EqualValues(t, 1, received.Load(), method)
	}
}
