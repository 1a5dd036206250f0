package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestMaxBodyBytes(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	var seen *http.Request
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			seen = r
		}
		w.Write(body)
	}))
	defer upstream.Close()
	var log bytes.Buffer
	at := func(more string) string {
		return start(t, example(t, iss.URL, upstream.URL)+"cors: {origins: '"+page+"'}\n"+more, slog.New(slog.NewTextHandler(&log, nil)))
	}
	limited, unlimited := at("max_body_bytes: 1000"), at("max_body_bytes: 0")
	files := "Authorization: Bearer " + iss.Token(valetkeytest.Scopes("files"))
	for _, c := range []struct {
		name, addr string
		header     []string // and body
		status     int
	}{
		{"a length above the limit, of a stranger", limited, []string{"Content-Length: 1001", "", strings.Repeat("x", 1001)}, 401},
		{"a length above the limit", limited, []string{files, "Content-Length: 1001", "", strings.Repeat("x", 1001)}, 413},
		{"a length above the limit that waits for permission", limited, []string{files, "Content-Length: 1001", "Expect: 100-continue"}, 413},
		{"chunks above the limit", limited, []string{files, "Transfer-Encoding: chunked", "", "3e9", strings.Repeat("x", 1001), "0", ""}, 413},

		{"a length at the limit", limited, []string{files, "Content-Length: 1000", "", strings.Repeat("x", 1000)}, 200},
		{"chunks at the limit", limited, []string{files, "Transfer-Encoding: chunked", "", "3e8", strings.Repeat("x", 1000), "0", ""}, 200},
		{"without a limit", unlimited, []string{files, "Content-Length: 100000", "", strings.Repeat("x", 100000)}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			log.Reset()
			seen = nil
			res := send(t, c.addr, "POST /files/x", append([]string{"Origin: " + page}, c.header...)...)
			assert.Equal(t, c.status, res.StatusCode)
			assert.Equal(t, page, res.Header.Get("Access-Control-Allow-Origin"))
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			switch c.status {
			case 413:
				assert.Equal(t, "Request Entity Too Large\n", string(body))
				assert.Empty(t, res.Header["Www-Authenticate"])
				assert.Contains(t, log.String(), "status=413 reason=body_too_large client=127.0.0.1")
				assert.NotContains(t, log.String(), "ERROR")
				assert.Nil(t, seen, "the upstream got a whole body")
			case 200:
				assert.Len(t, body, len(strings.Trim(fmt.Sprint(c.header[3:]), "[]0e38 ")))
			}
		})
	}
	t.Run("a WebSocket is not a body", func(t *testing.T) {
		socket := httptest.NewServer(sockets{seen: make(chan http.Header, 1)})
		defer socket.Close()
		addr := start(t, strings.Replace(example(t, iss.URL, socket.URL), "http://127.0.0.1:9000", socket.URL, 1)+"max_body_bytes: 1", slog.New(slog.DiscardHandler))
		res := send(t, addr, "GET /whoami", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Authorization: Bearer "+iss.Token())
		assert.Equal(t, 101, res.StatusCode)
	})
	t.Run("a negative limit", func(t *testing.T) {
		_, err := load(t, good+"max_body_bytes: -1", slog.New(slog.DiscardHandler))
		assert.Equal(t, []string{"6: max_body_bytes: -1 is negative"}, mistakes(err))
	})
}

// A pipes is a listener for connections in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func TestARequestThatNoUpstreamReceivesWithoutItsBody(t *testing.T) {
	for _, c := range []struct {
		name, line string
		header     string
		status     int
	}{
		{"a refusal", "POST /orders", "", 401},
		{"the metadata of the resource", "GET /.well-known/oauth-protected-resource", "", 200},
		{"a preflight", "OPTIONS /orders", "Origin: " + page + "\r\nAccess-Control-Request-Method: GET\r\n", 204},
		{"a redirect to the clean path", "POST //orders", "", 307},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, err := load(t, good+"cors: {origins: '"+page+"'}\n", slog.New(slog.DiscardHandler))
				require.NoError(t, err)
				defer p.Close()
				l, server := make(pipes), &http.Server{Handler: p}
				go server.Serve(l)
				defer server.Close()
				client, conn := net.Pipe()
				l <- conn
				client.SetDeadline(time.Now().Add(time.Hour))
				began := time.Now()
				fmt.Fprintf(client, "%s HTTP/1.1\r\nHost: x\r\n%sContent-Length: 10\r\n\r\n", c.line, c.header)
				res, err := http.ReadResponse(bufio.NewReader(client), nil)
				require.NoError(t, err)
				assert.Equal(t, c.status, res.StatusCode)
				assert.Equal(t, 5*time.Second, time.Since(began))
				_, err = io.Copy(io.Discard, client)
				assert.NoError(t, err, "the connection stays open")
			})
		})
	}
}

func TestHeaderLimits(t *testing.T) {
	for config, want := range map[string][]string{
		"max_header_bytes: 0":                             {"6: max_header_bytes: 0 is not between 4096 and 1048576"},
		"max_header_bytes: 2000000":                       {"6: max_header_bytes: 2000000 is not between 4096 and 1048576"},
		"max_header_bytes: 20000\nmax_token_bytes: 30000": {"6: max_header_bytes: 20000 is less than the 30000 bytes that a token may have: set max_token_bytes too"},
		"header_timeout: 0s":                              {`6: header_timeout: "0s" is not a positive duration`},
		"idle_timeout: forever":                           {`6: idle_timeout: "forever" is not a duration such as 30s`},
	} {
		_, err := load(t, good+config, slog.New(slog.DiscardHandler))
		assert.Equal(t, want, mistakes(err), config)
	}
	iss := valetkeytest.NewIssuer(t)
	for more, status := range map[string]int{"max_header_bytes: 20000": 431, "": 200, "max_token_bytes: 65536": 200, "max_header_bytes: 200000": 200} {
		config, _ := guarded(t, iss, more)
		addr, _ := serve(t, strings.Replace(config, "listen: 127.0.0.1:0", "listen: "+clitest.FreeAddr(t), 1))
		res := send(t, addr, "GET /orders", "Authorization: Bearer "+iss.Token(valetkeytest.Scopes("orders:read")), "X-Filler: "+strings.Repeat("x", 30000))
		assert.Equal(t, status, res.StatusCode, more)
	}
}
