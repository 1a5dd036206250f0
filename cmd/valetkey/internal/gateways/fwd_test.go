package gateways_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/adapters/valetforward"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	table "github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

var read = valetkeytest.Scopes("orders:read")

// identity returns the values of the identity headers, in any spelling, that the upstream received.
func identity(r *http.Request) map[string]string {
	all := map[string]string{}
	for name, values := range r.Header {
		if middleware.IsIdentityHeader(name) {
			all[name] = strings.Join(values, " and ")
		}
	}
	return all
}

var alice = map[string]string{"X-Valetkey-Subject": "alice", "X-Valetkey-Client": "orders-app", "X-Valetkey-Scope": "orders:read"}

func TestNginx(t *testing.T) {
	g := find(t, "nginx")
	s := start(t, g, setup{})
	bearer := "Authorization: Bearer " + s.iss.Token(read)
	t.Run("FWD-02 no token", func(t *testing.T) {
		res := send(t, s.addr, get("/orders"))
		assert.Equal(t, 401, res.StatusCode)
		require.Len(t, res.Header["Www-Authenticate"], 1)
		all, err := valetkeytest.Challenges(res.Header)
		require.NoError(t, err)
		require.Len(t, all, 2)
		assert.Equal(t, "Bearer", all[0].Scheme)
		assert.Equal(t, "DPoP", all[1].Scheme)
	})
	t.Run("FWD-03 too little scope", func(t *testing.T) {
		res := send(t, s.addr, request{"POST", "/orders", []string{bearer}, "x"})
		assert.Equal(t, 403, res.StatusCode)
		require.Len(t, res.Header["Www-Authenticate"], 1)
		challenge := valetkeytest.Challenge(t, res.Header, "Bearer")
		assert.Equal(t, "insufficient_scope", challenge["error"])
		assert.Equal(t, "orders:write", challenge["scope"])
	})
	t.Run("FWD-04 a malformed request", func(t *testing.T) {
		assert.Equal(t, 400, send(t, s.addr, get("/orders", "Authorization: Bearer")).StatusCode)
		plain := start(t, g, setup{gateway: func(config string) string {
			without := strings.Replace(config, "error_page 403 500 = @valetkey;", "", 1)
			require.NotEqual(t, config, without)
			return without
		}})
		assert.Equal(t, 500, send(t, plain.addr, get("/orders", "Authorization: Bearer")).StatusCode)
		assert.Empty(t, plain.upstream.take())
	})
	t.Run("FWD-05 the issuer is down", func(t *testing.T) {
		down := start(t, g, setup{before: func(iss *valetkeytest.Issuer) { iss.Metadata.Down(); iss.KeySet.Down() }})
		res := send(t, down.addr, get("/orders", "Authorization: Bearer "+down.iss.Token(read)))
		assert.Equal(t, 503, res.StatusCode)
		assert.NotEmpty(t, res.Header.Get("Retry-After"))
		assert.Empty(t, down.upstream.take())
	})
	t.Run("FWD-06 a method that is not reported", func(t *testing.T) {
		without := start(t, g, setup{gateway: func(config string) string {
			changed := strings.Replace(config, "proxy_set_header X-Forwarded-Method $request_method;", "", 1)
			require.NotEqual(t, config, changed)
			return changed
		}})
		writer := "Authorization: Bearer " + without.iss.Token(valetkeytest.Scopes("orders:write"))
		assert.Equal(t, 400, send(t, without.addr, request{"POST", "/orders", []string{writer}, "x"}).StatusCode)
		assert.Equal(t, 400, send(t, without.addr, request{"POST", "/orders", []string{writer, "X_Forwarded_Method: POST"}, "x"}).StatusCode)
		assert.Empty(t, without.upstream.take())
		writer = "Authorization: Bearer " + s.iss.Token(valetkeytest.Scopes("orders:write"))
		assert.Equal(t, 200, send(t, s.addr, request{"POST", "/orders", []string{writer}, "x"}).StatusCode)
		s.upstream.take()
	})
	t.Run("a location that is added later", func(t *testing.T) {
		added := start(t, g, setup{gateway: func(config string) string {
			pass := regexp.MustCompile(`proxy_pass http://127\S+;`).FindString(config)
			require.NotEmpty(t, pass)
			return strings.Replace(config, "location / {", "location /orders { "+pass+" }\nlocation / {", 1)
		}})
		assert.Equal(t, 401, send(t, added.addr, get("/orders")).StatusCode)
		assert.Equal(t, 400, send(t, added.addr, get("/orders", "X-Valetkey-Subject: root")).StatusCode)
		assert.Empty(t, added.upstream.take())
		assert.Equal(t, 200, send(t, added.addr, get("/orders", "Authorization: Bearer "+added.iss.Token(read))).StatusCode)
	})
	t.Run("FWD-01 a good token", func(t *testing.T) {
		res := send(t, s.addr, get("/orders", bearer))
		assert.Equal(t, 200, res.StatusCode)
		seen := s.upstream.take()
		require.Len(t, seen, 1)
		assert.Equal(t, alice, identity(seen[0]))
	})
}

func TestEveryGateway(t *testing.T) {
	each(t, func(t *testing.T, g gateway) {
		s := start(t, g, setup{})
		key := s.iss.ProofKey("ES256")
		bound := s.iss.Token(read, valetkeytest.BoundTo(key))
		bearer := "Authorization: Bearer " + s.iss.Token(read)
		proved := func(url string) []string {
			return []string{"Authorization: DPoP " + bound, "DPoP: " + key.Proof("GET", url, bound)}
		}
		refused := func(t *testing.T, status int, x request) response {
			t.Helper()
			res := send(t, s.addr, x)
			assert.Equal(t, status, res.StatusCode, "%v %s", x, res.body)
			assert.Empty(t, s.upstream.take(), "%v", x)
			return res
		}
		t.Run("no token", func(t *testing.T) {
			res := refused(t, 401, get("/orders"))
			assert.Len(t, res.Header["Www-Authenticate"], 1)
			assert.Equal(t, "orders:read", valetkeytest.Challenge(t, res.Header, "Bearer")["scope"])
			assert.Equal(t, "orders:read", valetkeytest.Challenge(t, res.Header, "DPoP")["scope"])
		})
		t.Run("too little scope", func(t *testing.T) {
			res := refused(t, 403, request{"POST", "/orders", []string{bearer}, "x"})
			assert.Equal(t, "insufficient_scope", valetkeytest.Challenge(t, res.Header, "Bearer")["error"])
		})
		t.Run("FWD-07 a direct question", func(t *testing.T) {
			// The example lists the gateway, which is this host. A sender with another address gets 403 whatever it sends.
			conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", s.service)
			require.NoError(t, err)
			defer conn.Close()
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\n%s\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Uri: /public/\r\nX-Forwarded-Proto: https\r\n"+
				"X-Forwarded-Host: x\r\nX-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n\r\n", bearer)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			assert.Equal(t, 403, res.StatusCode)
			assert.Empty(t, res.Header.Get("X-Valetkey-Subject"))
		})
		t.Run("FWD-12 an identity header of the client", func(t *testing.T) {
			for _, name := range []string{"X-Valetkey-Subject", "x-valetkey-scope", "X-VALETKEY-CLIENT", "X-Valetkey-Roles"} {
				refused(t, 400, get("/orders", bearer, name+": root"))
				refused(t, 400, get("/public/", name+": root"))
			}
			for _, name := range []string{"X_Valetkey_Scope", "X-Valetkey_Scope", "X-VALETKEY.Scope", "x_valetkey_subject"} { // nginx drops them
				res := send(t, s.addr, get("/orders", bearer, name+": root"))
				seen := s.upstream.take()
				if res.StatusCode == 400 {
					assert.Empty(t, seen)
					continue
				}
				require.Len(t, seen, 1, name)
				assert.Equal(t, alice, identity(seen[0]), name)
			}
		})
		t.Run("FWD-20 proofs", func(t *testing.T) {
			refused(t, 401, get("/orders", proved("http://"+s.addr+"/orders")...))
			refused(t, 401, get("/orders", proved("https://evil.example/orders")...))
			refused(t, 401, get("/orders", append(proved("https://evil.example/orders"), "X-Forwarded-Host: evil.example")...))
			refused(t, 401, get("/orders", append([]string{"Host: evil.example"}, proved("https://evil.example/orders")...)...))
			good := get("/orders?page=1", proved("https://api.example.com/orders")...)
			res := send(t, s.addr, good)
			assert.Equal(t, 200, res.StatusCode, res.body)
			seen := s.upstream.take()
			require.Len(t, seen, 1)
			assert.Equal(t, "/orders?page=1", seen[0].RequestURI)
			assert.Empty(t, seen[0].Header.Get("DPoP"))
			refused(t, 401, good)
		})
		t.Run("a good token", func(t *testing.T) {
			res := send(t, s.addr, get("/orders/a%20b?x=%2F..%2F", bearer))
			assert.Equal(t, 200, res.StatusCode)
			seen := s.upstream.take()
			require.Len(t, seen, 1)
			assert.Equal(t, alice, identity(seen[0]))
			assert.Equal(t, "/orders/a%20b?x=%2F..%2F", seen[0].RequestURI)
			assert.Empty(t, seen[0].Header.Get("Authorization"))
		})
		t.Run("a request with a body", func(t *testing.T) {
			writer := "Authorization: Bearer " + s.iss.Token(valetkeytest.Scopes("orders:write"))
			body := strings.Repeat("x", 100<<10)
			res := send(t, s.addr, request{"POST", "/orders", []string{writer}, body})
			assert.Equal(t, 200, res.StatusCode)
			assert.Equal(t, "upstream "+body, res.body)
			s.upstream.take()
		})
		t.Run("what is unknown is missing or empty", func(t *testing.T) {
			res := send(t, s.addr, get("/public/", bearer))
			assert.Equal(t, 200, res.StatusCode)
			seen := s.upstream.take()
			require.Len(t, seen, 1)
			for name, value := range identity(seen[0]) {
				assert.Empty(t, value, name)
			}
			assert.Empty(t, seen[0].Header.Get("Authorization"))
		})
		t.Run("FWD-13 a token without scopes", func(t *testing.T) {
			res := send(t, s.addr, get("/any", "Authorization: Bearer "+s.iss.Token()))
			assert.Equal(t, 200, res.StatusCode)
			seen := s.upstream.take()
			require.Len(t, seen, 1)
			got := identity(seen[0])
			assert.Equal(t, "alice", got["X-Valetkey-Subject"])
			assert.Empty(t, got["X-Valetkey-Scope"])
		})
		t.Run("FWD-14 Connection names an identity header", func(t *testing.T) {
			res := send(t, s.addr, get("/orders", bearer, "Connection: close, X-Valetkey-Subject"))
			seen := s.upstream.take()
			if res.StatusCode != 200 {
				assert.Empty(t, seen)
				return
			}
			require.Len(t, seen, 1)
			assert.Contains(t, []string{"", "alice"}, identity(seen[0])["X-Valetkey-Subject"])
		})
		t.Run("FWD-19 a WebSocket", func(t *testing.T) {
			before := s.decisions(t)
			conn, err := net.Dial("tcp", s.addr)
			require.NoError(t, err)
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(soon))
			fmt.Fprintf(conn, "GET /socket HTTP/1.1\r\nHost: api.example.com\r\n%s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", bearer)
			back := bufio.NewReader(conn)
			res, err := http.ReadResponse(back, nil)
			require.NoError(t, err)
			require.Equal(t, 101, res.StatusCode)
			for range 3 {
				io.WriteString(conn, "frame\n")
				line, err := back.ReadString('\n')
				require.NoError(t, err)
				assert.Equal(t, "back: frame\n", line)
			}
			assert.Equal(t, before+1, s.decisions(t))
			seen := s.upstream.take()
			require.Len(t, seen, 1)
			assert.Equal(t, alice, identity(seen[0]))
		})
		t.Run("the metadata", func(t *testing.T) {
			res := refused(t, 200, get("/.well-known/oauth-protected-resource"))
			assert.Equal(t, "application/json", res.Header.Get("Content-Type"))
			assert.Contains(t, res.body, s.iss.URL)
			for _, line := range []string{"X-Forwarded-Uri: /public/", "X-Forwarded-Method: GET"} {
				refused(t, 400, get("/.well-known/oauth-protected-resource", line))
			}
			refused(t, 404, get("/.well-known/oauth-protected-resource/mcp")) // where clients of MCP look first
			for _, path := range []string{
				"/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource-x", "/x/../.well-known/oauth-protected-resource",
				"/.well-known//oauth-protected-resource", "/.Well-Known/oauth-protected-resource", "/.well-known/oauth-protected-resource/../../orders",
			} {
				for _, question := range [][]string{
					{"X-Forwarded-Method: GET", "X-Forwarded-Uri: /orders", "X-Forwarded-Proto: https", "X-Forwarded-Host: api.example.com", bearer},
					{"X-Original-Method: GET", "X-Original-URL: https://api.example.com/orders", bearer},
				} {
					res := send(t, s.addr, get(path, question...))
					assert.Empty(t, res.Header["X-Valetkey-Subject"], "a client asks at %s", path)
				}
			}
			s.upstream.take() // what a gateway reads as a request for the API
		})
		t.Run("FWD-17, FWD-18 the service is stopped", func(t *testing.T) {
			s.stop()
			want := map[string]int{"nginx": 503, "caddy": 502, "haproxy": 503}[g.name]
			refused(t, want, get("/orders", bearer))
			refused(t, want, get("/public/"))
		})
	})
}

// A nonce must reach the client with a refusal, and with the response to an accepted request where the gateway can carry that.
func TestNonces(t *testing.T) {
	each(t, func(t *testing.T, g gateway) {
		s := start(t, g, setup{file: func(config string) string { return strings.Replace(config, "dpop: {}", "dpop: {nonce: 'on'}", 1) }})
		key := s.iss.ProofKey("ES256")
		bound := s.iss.Token(read, valetkeytest.BoundTo(key))
		sent := func(opts ...valetkeytest.Option) response {
			return send(t, s.addr, get("/orders", "Authorization: DPoP "+bound, "DPoP: "+key.Proof("GET", "https://api.example.com/orders", bound, opts...)))
		}
		res := sent()
		assert.Equal(t, 401, res.StatusCode)
		nonce := res.Header.Get("DPoP-Nonce")
		require.NotEmpty(t, nonce)
		assert.Equal(t, "use_dpop_nonce", valetkeytest.Challenge(t, res.Header, "DPoP")["error"])
		assert.Equal(t, 200, sent(valetkeytest.Claim("nonce", nonce)).StatusCode)
	})
}

func TestCaddyAppendsTheQuery(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client()})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	quiet := slog.New(slog.DiscardHandler)
	guard, err := middleware.New(middleware.Config{Verifier: keys, Methods: []middleware.BearerMethod{middleware.Query()}, Logger: quiet})
	require.NoError(t, err)
	decider, err := table.Table{"GET /orders": scopes.All("orders:read")}.Decider(guard)
	require.NoError(t, err)
	handler, err := valetforward.New(valetforward.Config{Decider: decider, Dialect: valetforward.Caddy,
		Callers: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Logger: quiet})
	require.NoError(t, err)
	var asked []string
	s := start(t, find(t, "caddy"), setup{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.RequestURI)
		handler.ServeHTTP(w, r)
	})})
	token := iss.Token(read)
	t.Run("FWD-15 a token in the query", func(t *testing.T) {
		assert.Equal(t, 200, send(t, s.addr, get("/orders?access_token="+token)).StatusCode)
		assert.Equal(t, 400, send(t, s.addr, get("/orders?access_token="+token+"&access_token="+token)).StatusCode)
		assert.Equal(t, 401, send(t, s.addr, get("/orders?x="+token)).StatusCode)
		assert.Equal(t, "/?access_token="+token, asked[0], "Caddy appends the query, which has no effect")
	})
}

// TestTokenInSubprotocol shows that the service finds a token in a WebSocket handshake behind every gateway.
func TestTokenInSubprotocol(t *testing.T) {
	each(t, func(t *testing.T, g gateway) {
		s := start(t, g, setup{file: func(config string) string { return config + "websocket_token: {pair: access_token}\n" }})
		conn, err := net.Dial("tcp", s.addr)
		require.NoError(t, err)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(soon))
		fmt.Fprintf(conn, "GET /socket HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: access_token, %s\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", s.iss.Token(read))
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		seen := s.upstream.take()
		assert.Equal(t, 101, res.StatusCode)
		require.Len(t, seen, 1)
		assert.Equal(t, alice, identity(seen[0]))
	})
}
