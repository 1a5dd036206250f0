package proxy_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestTokenHeader(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	token := iss.Token(valetkeytest.Scopes("orders:read"))
	const name = "Cf-Access-Jwt-Assertion"
	public := "\"GET /orders\": orders:read, \"GET /health\": \"@public\""

	for _, forward := range []bool{false, true} {
		t.Run(fmt.Sprintf("forward_token %v", forward), func(t *testing.T) {
			config, upstream := guarded(t, iss, fmt.Sprintf("token_header: %s\ntrusted_origins: https://app.example.com\nforward_token: %v", strings.ToLower(name), forward))
			config = strings.Replace(config, "\"GET /orders\": orders:read", public, 1)
			addr := start(t, config, slog.New(slog.DiscardHandler))
			for _, c := range []struct {
				name, line string
				header     []string
				status     int
				forwards   bool // with forward_token
			}{
				{"no token", "GET /orders", nil, 401, false},
				{"a token in Authorization", "GET /orders", []string{"Authorization: Bearer " + token}, 401, false},
				{"a token in another spelling of the header", "GET /orders", []string{"Cf_Access_Jwt_Assertion: " + token}, 401, false},
				{"two lines", "GET /orders", []string{name + ": " + token, name + ": " + token}, 400, false},
				{"a handshake from a page of another site", "GET /orders", []string{name + ": " + token, "Upgrade: websocket", "Connection: Upgrade", "Origin: https://evil.example"}, 401, false},
				{"a public route", "GET /health", []string{name + ": " + token, "Cf_Access_Jwt_Assertion: forged", "Authorization: Bearer " + token}, 200, false},
				{"a token", "GET /orders", []string{name + ": " + token}, 200, true},
				{"a token that the client wants to be dropped", "GET /orders", []string{name + ": " + token, "Connection: " + name}, 200, true},
				{"a token, another spelling and Authorization", "GET /orders", []string{name + ": " + token, "Cf_Access_Jwt_Assertion: forged", "Authorization: Basic eDp5"}, 200, true},
				{"a handshake from a trusted origin", "GET /orders", []string{name + ": " + token, "Upgrade: websocket", "Connection: Upgrade", "Origin: https://app.example.com"}, 200, true},
			} {
				t.Run(c.name, func(t *testing.T) {
					res := send(t, addr, c.line, c.header...)
					assert.Equal(t, c.status, res.StatusCode)
					got := upstream.take()
					require.Equal(t, c.status == 200, got != nil)
					if got == nil {
						return
					}
					var want []string
					if c.forwards && forward {
						want = []string{token}
					}
					assert.Equal(t, want, got.Header[name])
					assert.NotContains(t, got.Header, "Authorization")
					assert.NotContains(t, fmt.Sprint(got.Header), "forged")
				})
			}
		})
	}
	t.Run("a header whose name the proxy drops otherwise", func(t *testing.T) {
		config, upstream := guarded(t, iss, "token_header: X-Forwarded-Access-Token\nforward_token: true")
		addr := start(t, config, slog.New(slog.DiscardHandler))
		assert.Equal(t, 200, send(t, addr, "GET /orders", "X-Forwarded-Access-Token: "+token).StatusCode)
		assert.Equal(t, []string{token}, upstream.take().Header["X-Forwarded-Access-Token"])
	})
	t.Run("valetkey inspect sends the token in the header", func(t *testing.T) {
		config, _ := guarded(t, iss, "token_header: "+name)
		out := rehearse(t, config, proxy.Request{Token: token, URL: &url.URL{Path: "/orders"}})
		assert.True(t, out.Passed, "%v", out.Refusal)
	})
}

// sockets is an upstream that selects a subprotocol as the common packages do: one that it knows and the client offers.
type sockets struct {
	own  []string
	seen chan http.Header
}

func (s sockets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.seen <- r.Header.Clone()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	selected := ""
	for _, own := range s.own {
		for offer := range strings.SplitSeq(r.Header.Get("Sec-Websocket-Protocol"), ",") {
			if selected == "" && strings.TrimSpace(offer) == own {
				selected = "Sec-WebSocket-Protocol: " + own + "\r\n"
			}
		}
	}
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s\r\n", selected)
}

func TestWebSocketToken(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	token := iss.Token(valetkeytest.Scopes("orders:read"))
	encoded := "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token))
	upstream := sockets{[]string{"v4.channel.k8s.io", "access_token"}, make(chan http.Header, 1)}
	server := httptest.NewServer(upstream)
	defer server.Close()
	for _, c := range []struct {
		name, more, offers string
		status             int
		selected, received string // the subprotocol in the response, and those that the upstream receives
	}{
		{"by default", "", "access_token, " + token, 401, "", ""},
		{"a pair", "websocket_token: {pair: access_token}", "access_token, " + token, 101, "access_token", "access_token"},
		{"a pair among others", "websocket_token: {pair: access_token}", "chat, access_token, " + token + ", v4.channel.k8s.io", 101, "v4.channel.k8s.io", "chat, access_token, v4.channel.k8s.io"},
		{"Kubernetes", "websocket_token: {base64url_prefix: base64url.bearer.authorization.k8s.io.}", "v4.channel.k8s.io, " + encoded, 101, "v4.channel.k8s.io", "v4.channel.k8s.io"},
		{"a prefix", "websocket_token: {prefix: bearer.}", "bearer." + token + ", chat", 101, "", "chat"},
		{"a pair that is forwarded", "websocket_token: {pair: access_token}\nforward_token: true", "access_token, " + token, 101, "access_token", "access_token, " + token},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, _ := guarded(t, iss, c.more)
			config = strings.Replace(config, "upstream: ", "upstream: "+server.URL+" # ", 1)
			addr := start(t, config, slog.New(slog.DiscardHandler))
			conn, err := net.Dial("tcp", addr)
			require.NoError(t, err)
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(soon))
			fmt.Fprintf(conn, "GET /orders HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Basic eDp5\r\nSec-WebSocket-Protocol: %s\r\n\r\n", c.offers)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			require.Equal(t, c.status, res.StatusCode)
			assert.Equal(t, c.selected, res.Header.Get("Sec-Websocket-Protocol"))
			if c.status == 101 {
				got := <-upstream.seen
				assert.Equal(t, c.received, got.Get("Sec-Websocket-Protocol"))
				assert.NotContains(t, got, "Authorization")
			}
		})
	}
	t.Run("on a public route the upstream receives no token, because it was not verified", func(t *testing.T) {
		config, plain := guarded(t, iss, "websocket_token: {pair: access_token}\nforward_token: true")
		addr := start(t, strings.Replace(config, "orders:read", "\"@public\"", 1), slog.New(slog.DiscardHandler))
		send(t, addr, "GET /orders", "Sec-WebSocket-Protocol: access_token, "+token, "Sec_WebSocket_Protocol: access_token, "+token)
		got := plain.take().Header
		assert.Equal(t, []string{"access_token"}, got["Sec-Websocket-Protocol"])
		assert.NotContains(t, fmt.Sprint(got), token, "in another spelling")
	})
}

func TestAllowEncodedSlash(t *testing.T) {
	iss, upstream := valetkeytest.NewIssuer(t), &recorder{}
	server := httptest.NewServer(upstream)
	defer server.Close()
	config := example(t, iss.URL, server.URL)
	strict := start(t, config, slog.New(slog.DiscardHandler))
	config += "\nallow_encoded_slash: [\"GET /orders/{id}\"]\n"
	allowing := start(t, config, slog.New(slog.DiscardHandler))
	token := iss.Token(valetkeytest.Scopes("orders:read", "files"))
	for _, c := range []struct {
		name, addr, path string
		status           int
	}{
		{"by default", strict, "/orders/2026%2F7", 400},
		{"another route", allowing, "/files/a%2Fb", 400},
		{"a dot segment", allowing, "/orders/2026%2F..%2F7", 400},
		{"an empty part", allowing, "/orders/2026%2F", 400},
		{"the route", allowing, "/orders/2026%2F7", 200},
		{"the route, without a slash", allowing, "/orders/7", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := send(t, c.addr, "GET "+c.path, "Authorization: Bearer "+token)
			assert.Equal(t, c.status, res.StatusCode)
			got := upstream.take()
			require.Equal(t, c.status == 200, got != nil)
			if got != nil {
				assert.Equal(t, c.path, got.RequestURI, "the upstream gets the path as sent")
			}
		})
	}
	t.Run("valetkey inspect", func(t *testing.T) {
		path := &url.URL{Path: "/orders/2026/7", RawPath: "/orders/2026%2F7"}
		assert.True(t, rehearse(t, config, proxy.Request{Token: token, URL: path}).Passed)
		assert.True(t, rehearse(t, config, proxy.Request{Token: token}).Passed, "without a route")
	})
}
