package middleware_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

// socket accepts WebSocket handshakes (RFC 6455, section 4.2.2) and sends one text frame with the subject of the token.
var socket = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	who := "nobody"
	if token := valetkey.FromContext(r.Context()); token != nil {
		who = token.Subject()
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	conn.Write(append([]byte{0x81, byte(len(who))}, who...))
})

// handshake opens a WebSocket at url as a browser does, and returns the status and what the first frame holds.
func handshake(t *testing.T, url string, lines ...string) (status int, text string) {
	t.Helper()
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	conn, err := net.Dial("tcp", host)
	require.NoError(t, err)
	defer conn.Close()
	request := "GET /" + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, line := range lines {
		request += line + "\r\n"
	}
	_, err = io.WriteString(conn, request+"\r\n")
	require.NoError(t, err)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body.Close()
		return resp.StatusCode, ""
	}
	assert.Equal(t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", resp.Header.Get("Sec-Websocket-Accept"))
	frame, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Greater(t, len(frame), 2)
	return resp.StatusCode, string(frame[2:])
}

func TestTheCheckOfAnOriginLeavesTheRequestAlone(t *testing.T) {
	guard := guardWith(t, valetkey.First(), func(c *middleware.Config) {
		c.Methods = []middleware.BearerMethod{middleware.Cookie("session", http.NewCrossOriginProtection())}
	})
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("Cookie", "session=x")
	require.NoError(t, guard.Decide(r, valetkey.Optional).Err(), "the cookie is ignored")
	assert.Equal(t, http.Header{"Cookie": {"session=x"}}, r.Header)
	assert.Equal(t, "POST", r.Method)
}

func TestCookieOrigin(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	protection := http.NewCrossOriginProtection()
	require.NoError(t, protection.AddTrustedOrigin("https://app.example.com"))
	protection.AddInsecureBypassPattern("/open/")
	protection.AddInsecureBypassPattern("POST /hook")
	guard := newGuard(t, iss, func(c *middleware.Config) {
		c.Methods = []middleware.BearerMethod{middleware.Cookie("session", protection), middleware.WebSocketProtocol("bearer.")}
	})
	token := iss.Token(valetkeytest.Subject("alice"))
	cookie := "Cookie: session=" + token

	mux := http.NewServeMux()
	mux.Handle("/", guard.Handler(socket))
	mux.Handle("/optional", guard.Handler(socket, valetkey.Optional))
	api := serve(t, mux)
	own := "Origin: " + api
	for _, c := range []struct {
		name, path string
		lines      []string
		status     int
		subject    string
	}{
		{"a handshake from another site has no token", "/", []string{cookie, "Origin: https://evil.example"}, 401, ""},
		{"a handshake from a sandboxed page", "/", []string{cookie, "Origin: null"}, 401, ""},
		{"a handshake that the browser calls cross-site", "/", []string{cookie, own, "Sec-Fetch-Site: cross-site"}, 401, ""},
		{"a handshake from another host of the site", "/", []string{cookie, own, "Sec-Fetch-Site: same-site"}, 401, ""},
		{"a handshake without an origin", "/", []string{cookie}, 401, ""},
		{"a handshake at a pattern that bypasses another method", "/hook", []string{cookie, "Origin: https://evil.example"}, 401, ""},
		{"a handshake from another site where a token is optional", "/optional", []string{cookie, "Origin: https://evil.example"}, 101, "nobody"},
		{"a handshake from the own origin", "/", []string{cookie, own}, 101, "alice"},
		{"a handshake that the browser calls same-origin", "/", []string{cookie, "Sec-Fetch-Site: same-origin"}, 101, "alice"},
		{"a handshake from a trusted origin", "/", []string{cookie, "Origin: https://app.example.com"}, 101, "alice"},
		{"a handshake from another site at a bypass pattern", "/open/", []string{cookie, "Origin: https://evil.example"}, 101, "alice"},
		{"a handshake without an origin at a bypass pattern", "/open/", []string{cookie}, 101, "alice"},
		{"a token in the header needs no origin", "/", []string{"Authorization: Bearer " + token, "Origin: https://evil.example"}, 101, "alice"},
		{"a token in the sub-protocol needs no origin", "/", []string{"Sec-WebSocket-Protocol: chat, bearer." + token}, 101, "alice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, subject := handshake(t, api+c.path, c.lines...)
			assert.Equal(t, c.status, status)
			assert.Equal(t, c.subject, subject)
		})
	}

	for _, c := range []struct {
		name, method string
		header       http.Header
		refused      bool
	}{
		{"an extended CONNECT from another site", "CONNECT", http.Header{":protocol": {"websocket"}, "Origin": {"https://evil.example"}}, true},
		{"an extended CONNECT without an origin", "CONNECT", http.Header{":protocol": {"websocket"}}, true},
		{"an extended CONNECT that became a GET", "GET", http.Header{":protocol": {"websocket"}, "Origin": {"https://evil.example"}}, true},
		{"a GET with an upgrade to anything", "GET", http.Header{"Upgrade": {"line"}, "Origin": {"https://evil.example"}}, true},
		{"an OPTIONS with an upgrade", "OPTIONS", http.Header{"Upgrade": {"websocket"}, "Origin": {"https://evil.example"}}, true},
		{"a method in small letters", "get", http.Header{"Origin": {"https://evil.example"}}, true},
		{"a POST without an origin", "POST", http.Header{}, true},
		{"an extended CONNECT from the own origin", "CONNECT", http.Header{":protocol": {"websocket"}, "Origin": {"https://api.example.com"}}, false},
		{"a POST from the own origin", "POST", http.Header{"Origin": {"https://api.example.com"}}, false},
		{"a plain GET from another site", "GET", http.Header{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}}, false},
		{"a plain GET without an origin", "GET", http.Header{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "https://api.example.com/", nil)
			r.Method, r.Header = c.method, c.header
			r.AddCookie(&http.Cookie{Name: "session", Value: token})
			err := guard.Decide(r).Err()
			if !c.refused {
				assert.NoError(t, err)
				return
			}
			var refusal *valetkey.Error
			require.ErrorAs(t, err, &refusal)
			assert.Equal(t, valetkey.NoCredentials, refusal.Code)
		})
	}
}
