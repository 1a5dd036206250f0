package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/valetkeytest"
)

// streaming is an upstream of streams that end with their client only. It reports on ended, by path, when one has ended.
func streaming(ended chan string) http.Handler {
	mux := http.NewServeMux()
	flush := func(w http.ResponseWriter) { http.NewResponseController(w).Flush() }
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "data: first\n\n")
		flush(w)
		<-r.Context().Done()
		ended <- r.URL.Path
	})
	mux.HandleFunc("/flood", func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				ended <- r.URL.Path
				return
			}
		}
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		ended <- "begun"
		io.Copy(io.Discard, r.Body)
		ended <- r.URL.Path
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		ended <- "begun"
		<-r.Context().Done()
		ended <- r.URL.Path
	})
	socket := func(flood bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst\n")
			for flood {
				if _, err := conn.Write(make([]byte, 1<<16)); err != nil {
					break
				}
			}
			io.Copy(io.Discard, rw)
			ended <- r.URL.Path
		}
	}
	mux.HandleFunc("/socket", socket(false))
	mux.HandleFunc("/socket/flood", socket(true))
	return mux
}

// brief is the life of a token whose request must have begun before its end, on a machine with other work. The leeway is none.
const brief = 6 * time.Second

func TestStreamsEndWithTheirToken(t *testing.T) {
	const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
	for _, c := range []struct {
		name, line, header string
		first              string // what comes before the token ends
		silent             bool   // the client reads no more before the end is known upstream
	}{
		{"events", "GET /events", "", "data: first\n", false},
		{"an answer that the client does not read", "GET /flood", "", "", true},
		{"an upload", "POST /upload", "Transfer-Encoding: chunked\r\n", "", false},
		{"a WebSocket", "GET /socket", upgrade, "first\n", false},
		{"a WebSocket that the client does not read", "GET /socket/flood", upgrade, "first\n", true},
	} {
		for _, how := range []string{"revoked", "expired"} {
			t.Run("HTTP-03 "+c.name+" ends at both sides when the token is "+how, func(t *testing.T) {
				t.Parallel()
				ended := make(chan string, 2)
				iss := valetkeytest.NewIssuer(t)
				upstream := httptest.NewServer(streaming(ended))
				defer upstream.CloseClientConnections()
				p, server := opened(t, iss, upstream.URL, "")
				life := valetkeytest.ExpiresIn(time.Hour)
				if how == "expired" {
					life = valetkeytest.ExpiresIn(brief)
				}
				conn, in := dial(t, server, c.line, iss.Token(life, valetkeytest.Claim("jti", "7")), c.header)
				switch {
				case c.name == "an upload":
					require.Equal(t, "begun", within(t, ended))
				case c.first != "":
					for line := ""; line != c.first; {
						var err error
						line, err = in.ReadString('\n')
						require.NoError(t, err)
					}
				default:
					_, err := in.Peek(1)
					require.NoError(t, err)
				}
				if how == "revoked" {
					require.NoError(t, p.Revoke(valetkey.Revocation{Issuer: iss.URL, ID: "7"}))
				}
				if c.silent {
					within(t, ended)
				}
				conn.SetReadDeadline(time.Now().Add(soon))
				_, err := io.Copy(io.Discard, in)
				if netErr, ok := err.(net.Error); ok && netErr.Timeout() {
					t.Fatal("the client's side goes on")
				}
				if !c.silent {
					within(t, ended)
				}
			})
		}
	}
	t.Run("HTTP-03 a client that waits for the upstream gets the reason", func(t *testing.T) {
		ended := make(chan string, 2)
		iss := valetkeytest.NewIssuer(t)
		upstream := httptest.NewServer(streaming(ended))
		defer upstream.CloseClientConnections()
		p, server := opened(t, iss, upstream.URL, "")
		_, in := dial(t, server, "GET /slow", iss.Token(valetkeytest.Claim("jti", "7")), "")
		require.Equal(t, "begun", within(t, ended))
		require.NoError(t, p.Revoke(valetkey.Revocation{Issuer: iss.URL, ID: "7"}))
		res, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		assert.Equal(t, 401, res.StatusCode)
		assert.Equal(t, "invalid_token", challengeError(t, res, "Bearer"))
		within(t, ended)
	})
	t.Run("HTTP-03 after that response, the connection serves the next request, or ends if there is a body", func(t *testing.T) {
		for name, header := range map[string]string{"without a body": "", "with a body": "Content-Length: 4\r\n"} {
			ended := make(chan string, 2)
			iss := valetkeytest.NewIssuer(t)
			upstream := httptest.NewServer(streaming(ended))
			p, server := opened(t, iss, upstream.URL, "")
			conn, in := dial(t, server, "POST /slow", iss.Token(valetkeytest.Claim("jti", "7")), header)
			if header != "" {
				fmt.Fprint(conn, "body")
			}
			require.Equal(t, "begun", within(t, ended), name)
			require.NoError(t, p.Revoke(valetkey.Revocation{Issuer: iss.URL, ID: "7"}))
			res, err := http.ReadResponse(in, nil)
			require.NoError(t, err)
			require.Equal(t, 401, res.StatusCode)
			_, err = io.Copy(io.Discard, res.Body)
			require.NoError(t, err)
			if header != "" {
				assert.True(t, res.Close, name)
				upstream.CloseClientConnections()
				continue
			}
			within(t, ended)
			fmt.Fprintf(conn, "GET /none HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer %s\r\n\r\n", iss.Token())
			res, err = http.ReadResponse(in, nil)
			require.NoError(t, err)
			assert.Equal(t, 404, res.StatusCode, "of the upstream, %s", name)
			upstream.CloseClientConnections()
		}
	})
	t.Run("HTTP-03 with cancel_with_token: false, a stream goes on", func(t *testing.T) {
		ended := make(chan string, 2)
		iss := valetkeytest.NewIssuer(t)
		upstream := httptest.NewServer(streaming(ended))
		defer upstream.CloseClientConnections()
		p, server := opened(t, iss, upstream.URL, "cancel_with_token: false\n")
		conn, in := dial(t, server, "GET /socket", iss.Token(valetkeytest.Claim("jti", "7")), upgrade)
		for line := ""; line != "first\n"; {
			var err error
			line, err = in.ReadString('\n')
			require.NoError(t, err)
		}
		assert.Zero(t, p.Requests())
		require.NoError(t, p.Revoke(valetkey.Revocation{Issuer: iss.URL, ID: "7"}))
		assert.Empty(t, ended)
		conn.Close()
		within(t, ended)
	})
}

// opened serves a proxy for every path and any token.
func opened(t *testing.T, iss *valetkeytest.Issuer, upstream, more string) (revoker, string) {
	t.Helper()
	p, err := load(t, fmt.Sprintf("listen: 127.0.0.1:0\nupstream: %s\nresource: %s\nverifiers: [jwks: {issuer: %q, leeway: 0s}]\nroutes: {/: \"@any\"}\n%s",
		upstream, valetkeytest.DefaultAudience, iss.URL, more), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(p.Close)
	require.NoError(t, p.Ready(t.Context()))
	server := httptest.NewServer(p)
	t.Cleanup(server.CloseClientConnections)
	return p, server.Listener.Addr().String()
}

type revoker interface {
	Revoke(...valetkey.Revocation) error
	Requests() int
}

// dial sends the head of a request, and no body.
func dial(t *testing.T, addr, line, token, header string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(soon))
	fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer %s\r\n%s\r\n", line, token, header)
	return conn, bufio.NewReader(conn)
}

// within returns the next value of ended, which must arrive soon.
func within(t *testing.T, ended chan string) string {
	t.Helper()
	select {
	case what := <-ended:
		return what
	case <-time.After(soon):
		require.FailNow(t, "the upstream's side goes on")
		return ""
	}
}

func TestInterimResponses(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["X-Request-Id"], w.Header()["Dpop-Nonce"], w.Header()["Link"] = []string{"upstream"}, []string{"upstream"}, []string{"</style.css>"}
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Cache-Control", "max-age=60")
	}))
	defer upstream.Close()
	config, _ := guarded(t, iss, "token_header: X-Token")
	config = strings.Replace(config, "upstream: ", "upstream: "+upstream.URL+" # ", 1)
	addr := start(t, config, slog.New(slog.DiscardHandler))
	r := newRequest(t, "http://"+addr+"/orders", "X-Token", iss.Token(valetkeytest.Scopes("orders:read")))
	var interim []textproto.MIMEHeader
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		interim = append(interim, h)
		return nil
	}}))
	res := do(t, http.DefaultClient, r)
	require.Equal(t, 200, res.StatusCode)
	require.Len(t, interim, 2)
	for _, h := range interim {
		assert.Equal(t, res.Header["X-Request-Id"], h["X-Request-Id"])
		assert.NotContains(t, h, "Dpop-Nonce")
		assert.Equal(t, []string{"</style.css>"}, h["Link"])
	}
	assert.Equal(t, []string{"private", "max-age=60"}, res.Header["Cache-Control"], "the headers of the proxy, then those of the upstream")
}
