package valetforward_test

import (
	"bufio"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetforward"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

var (
	allDialects = []valetforward.Dialect{
		valetforward.EnvoyHTTP, valetforward.Nginx, valetforward.IngressNginx, valetforward.Traefik, valetforward.Caddy, valetforward.HAProxy,
	}
	loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	table    = routes.Table{
		"GET /public/{$}":     valetkey.Public,
		"GET /optional":       valetkey.Optional,
		"GET /orders":         scopes.All("orders:read"),
		"GET /orders/{id}":    scopes.All("orders:read"),
		"POST /orders":        scopes.All("orders:write"),
		"GET /files/":         scopes.All("orders:read"),
		"GET /socket":         scopes.All("orders:read"),
		"/admin/":             scopes.All("admin"),
		"GET /broken":         valetkey.RequirementFunc(func(valetkey.Access) error { panic("broken") }),
		"GET internal.api/in": scopes.All("admin"),
		"GET /in":             scopes.All("orders:read"),
	}
)

// newGuard returns a guard that accepts bearer tokens, and tokens that are bound to a key or a certificate.
func newGuard(t testing.TB, iss *valetkeytest.Issuer, change ...func(*middleware.Config)) *middleware.Guard {
	t.Helper()
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Now: iss.Now,
		Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	require.NoError(t, keys.Ready(t.Context())) // a request would wait for two seconds only
	proofs, err := dpop.New(dpop.Config{})
	require.NoError(t, err)
	cfg := middleware.Config{
		Verifier: keys, Resource: middleware.Resource{ID: valetkeytest.DefaultAudience, AuthorizationServers: []string{iss.URL}}, DPoP: proofs,
		ClientCertificate: middleware.TLSCertificate(), Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	guard, err := middleware.New(cfg)
	require.NoError(t, err)
	return guard
}

// newHandler returns a Handler for callers on 127.0.0.1.
func newHandler(t testing.TB, guard *middleware.Guard, d valetforward.Dialect, change ...func(*valetforward.Config)) *valetforward.Handler {
	t.Helper()
	decider, err := table.Decider(guard)
	require.NoError(t, err)
	cfg := valetforward.Config{Decider: decider, Dialect: d, Callers: loopback, Logger: slog.New(slog.DiscardHandler)}
	if d == valetforward.EnvoyHTTP {
		cfg.PathPrefix = "/check"
	}
	for _, f := range change {
		f(&cfg)
	}
	h, err := valetforward.New(cfg)
	require.NoError(t, err)
	return h
}

// A request is what a client sends to a gateway.
type request struct {
	method, target string
	lines          []string // header lines
}

func get(target string, lines ...string) request { return request{"GET", target, lines} }

// question returns the bytes with which a gateway that speaks d asks about x, as its source and its manual describe them.
func question(d valetforward.Dialect, x request) string {
	head := func(method, target string, lines ...string) string {
		return method + " " + target + " HTTP/1.1\r\nHost: api.example.com\r\n" + strings.Join(append(lines, x.lines...), "\r\n") + "\r\n\r\n"
	}
	switch d {
	case valetforward.EnvoyHTTP:
		return head(x.method, "/check"+x.target, "x-envoy-internal: true", "x-forwarded-for: 192.0.2.1", "x-envoy-expected-rq-timeout-ms: 200")
	case valetforward.IngressNginx:
		return head("GET", "/check", "X-Original-URL: https://api.example.com"+x.target, "X-Original-Method: "+x.method, "X-Sent-From: nginx-ingress-controller",
			"X-Real-IP: 192.0.2.1", "X-Forwarded-For: 192.0.2.1", "X-Auth-Request-Redirect: "+x.target)
	case valetforward.Traefik:
		return head("GET", "/", "User-Agent: Go-http-client/1.1", "X-Forwarded-Method: "+x.method, "X-Forwarded-Proto: https", "X-Forwarded-Port: 443",
			"X-Forwarded-Host: api.example.com", "X-Forwarded-Uri: "+x.target, "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Server: traefik-0", "X-Real-Ip: 192.0.2.1")
	case valetforward.Caddy:
		return head("GET", "/", "X-Forwarded-Method: "+x.method, "X-Forwarded-Proto: https", "X-Forwarded-Host: api.example.com", "X-Forwarded-Uri: "+x.target,
			"X-Forwarded-For: 192.0.2.1")
	}
	return head("GET", "/", "X-Forwarded-Method: "+x.method, "X-Forwarded-Uri: "+x.target, "X-Forwarded-Proto: https", "X-Forwarded-Host: api.example.com")
}

// service serves h on loopback.
func service(t testing.TB, h http.Handler) (addr string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// ask sends the bytes of a question to addr from the address from, and returns the answer.
func ask(t testing.TB, addr, from, question string) (*http.Response, string) {
	t.Helper()
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	_, err = io.WriteString(conn, question)
	require.NoError(t, err)
	method, _, _ := strings.Cut(question, " ")
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	res.Body.Close()
	return res, string(body)
}

// assertIdentity checks that an answer has each identity header once.
func assertIdentity(t testing.TB, h http.Header, subject, client, scope string) {
	t.Helper()
	for name, want := range map[string]string{"X-Valetkey-Subject": subject, "X-Valetkey-Client": client, "X-Valetkey-Scope": scope} {
		assert.Equal(t, []string{want}, h[name], name)
	}
}

// assertNoIdentity checks that an answer reports no caller.
func assertNoIdentity(t testing.TB, h http.Header) {
	t.Helper()
	for name := range h {
		assert.False(t, middleware.IsIdentityHeader(name), name)
	}
}

func TestHandler(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	token := iss.Token(valetkeytest.Scopes("orders:read"))
	bearer := "Authorization: Bearer " + token
	for _, d := range allDialects {
		addr := service(t, newHandler(t, guard, d))
		for _, c := range []struct {
			name   string
			x      request
			status int
		}{
			{"FWD-02 no token", get("/orders"), 401},
			{"a bad token", get("/orders", "Authorization: Bearer x"), 401},
			{"no row", get("/elsewhere"), 401},
			{"no row, a good token", get("/elsewhere", bearer), 403},
			{"too little scope", request{"POST", "/orders", []string{bearer}}, 403},
			{"two tokens", get("/orders", bearer, bearer), 400},
			{"FWD-12 an identity header", get("/orders", bearer, "X-Valetkey-Subject: root"), 400},
			{"FWD-12 an identity header on a public route", get("/public/", "X-Valetkey-Subject: root"), 400},
			{"FWD-12 an identity header in lower case", get("/orders", bearer, "x-valetkey-scope: admin"), 400},
			{"FWD-12 an identity header with underscores", get("/orders", bearer, "X_Valetkey_Scope: admin"), 400},
			{"FWD-12 an identity header with a dot", get("/orders", bearer, "X-VALETKEY.Scope: admin"), 400},
			{"FWD-12 an identity header that is empty", get("/orders", bearer, "X-Valetkey-Client:"), 400},
			{"FWD-12 an identity header of a later version", get("/orders", bearer, "X-Valetkey-Roles: admin"), 400},
			{"FWD-10 a target that is a URL", get("https://api.example.com/orders", bearer), 400},
			{"FWD-10 a target with a fragment", get("/orders#x", bearer), 400},
			{"FWD-10 a target that begins with no slash", get("orders", bearer), 400},
			{"FWD-10 a target that is a star", request{"OPTIONS", "*", []string{bearer}}, 400},
			{"FWD-11 a method in lower case", request{"get", "/orders", []string{bearer}}, 400},
			{"FWD-11 two methods", request{"GET, POST", "/orders", []string{bearer}}, 400},
			{"CONNECT", request{"CONNECT", "/orders", []string{bearer}}, 400},
			{"a panic in a requirement", get("/broken", bearer), 503},
			{"a preflight", request{"OPTIONS", "/orders", []string{"Origin: https://app.example", "Access-Control-Request-Method: GET"}}, 401},
			{"a name with a line break", get("/orders", "Authorization: Bearer "+iss.Token(valetkeytest.Scopes("orders:read"), valetkeytest.Subject("a\nX-Valetkey-Scope: admin"))), 401},

			{"a good token", get("/orders", bearer), 200},
			{"a good token and a query", get("/orders?x=/../admin/", bearer), 200},
			{"a good token, HEAD", request{"HEAD", "/orders", []string{bearer}}, 200},
		} {
			t.Run(string(d)+"/"+c.name, func(t *testing.T) {
				res, body := ask(t, addr, "127.0.0.1", question(d, c.x))
				assert.Equal(t, c.status, res.StatusCode, body)
				if c.status == 200 {
					assertIdentity(t, res.Header, "alice", "orders-app", "orders:read")
					assert.Empty(t, body)
					assert.Equal(t, "no-store", res.Header.Get("Cache-Control"))
					return
				}
				assertNoIdentity(t, res.Header)
				if c.status == 401 || c.status == 403 {
					assert.Len(t, res.Header["Www-Authenticate"], 1)
				}
			})
		}
		t.Run(string(d)+"/what is unknown is empty", func(t *testing.T) {
			res, _ := ask(t, addr, "127.0.0.1", question(d, get("/public/", "Authorization: Bearer x")))
			assert.Equal(t, 200, res.StatusCode)
			assertIdentity(t, res.Header, "", "", "")
			res, _ = ask(t, addr, "127.0.0.1", question(d, get("/optional", "Authorization: Bearer "+iss.Token(valetkeytest.Subject("Zoë%")))))
			assert.Equal(t, 200, res.StatusCode)
			assertIdentity(t, res.Header, "Zo%C3%AB%25", "orders-app", "")
		})
	}
}

func TestQuestionsThatAreUnclear(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	bearer := "Authorization: Bearer " + iss.Token(valetkeytest.Scopes("orders:read"))
	good := get("/orders", bearer)
	for _, d := range allDialects {
		addr := service(t, newHandler(t, guard, d))
		whole := question(d, good)
		t.Run(string(d)+"/the question itself", func(t *testing.T) {
			res, _ := ask(t, addr, "127.0.0.1", whole)
			assert.Equal(t, 200, res.StatusCode)
		})
		for line := range strings.SplitSeq(whole, "\r\n") {
			name, _, _ := strings.Cut(line, ":")
			switch name {
			case "X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Original-URL", "X-Original-Method":
			default:
				continue
			}
			for _, c := range []struct{ name, lines string }{
				{"missing", ""},
				{"empty", name + ":\r\n"},
				{"twice", line + "\r\n" + line + "\r\n"},
				{"with underscores only", strings.ReplaceAll(name, "-", "_") + line[len(name):] + "\r\n"},
			} {
				t.Run("FWD-08 "+name+" "+c.name+", "+string(d), func(t *testing.T) {
					// The path of the question is that of a public route, so that a fallback to it would pass.
					q := strings.Replace(strings.Replace(whole, line+"\r\n", c.lines, 1), "GET / ", "GET /public/ ", 1)
					require.NotEqual(t, whole, q)
					res, body := ask(t, addr, "127.0.0.1", q)
					assert.Equal(t, 400, res.StatusCode, body)
					assertNoIdentity(t, res.Header)
				})
			}
		}
	}
	t.Run("FWD-08 a path without the prefix of Envoy", func(t *testing.T) {
		addr := service(t, newHandler(t, guard, valetforward.EnvoyHTTP))
		for _, path := range []string{"/public/", "/orders", "/chec/public/", "//check/public/", "/CHECK/public/"} {
			res, _ := ask(t, addr, "127.0.0.1", "GET "+path+" HTTP/1.1\r\nHost: x\r\n"+bearer+"\r\n\r\n")
			assert.Equal(t, 400, res.StatusCode, path)
		}
	})
	t.Run("FWD-10 the URL of ingress-nginx", func(t *testing.T) {
		addr := service(t, newHandler(t, guard, valetforward.IngressNginx))
		for _, c := range []struct {
			url    string
			status int
		}{
			{"/orders", 400}, {"//api.example.com/orders", 400}, {"https:/api.example.com/orders", 400}, {"ftp://api.example.com/orders", 400},
			{"https://api.example.com", 400}, {"https://api.example.com?/orders", 400}, {"https://a@b/orders", 400}, {"https://a b/orders", 400},
			{"https://api.example.com#/orders", 400}, {"https://api.example.com//orders", 400}, {"://api.example.com/orders", 400}, {"http://api.example.com/orders", 200},
			{"https://api.example.com:8443/orders", 200}, {"https:///orders", 400},
		} {
			res, body := ask(t, addr, "127.0.0.1", "GET / HTTP/1.1\r\nHost: x\r\nX-Original-Method: GET\r\nX-Original-URL: "+c.url+"\r\n"+bearer+"\r\n\r\n")
			assert.Equal(t, c.status, res.StatusCode, c.url+" "+body)
		}
	})
}

// The headers of other dialects, and all others in which proxies describe requests, can be a client's.
func TestWhatClientsClaimIsIgnored(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	seen := make(chan http.Header, 1)
	guard := newGuard(t, iss)
	bearer := "Authorization: Bearer " + iss.Token(valetkeytest.Scopes("orders:read"))
	claims := map[string]string{
		"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/public/", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "internal.api",
		"X-Original-URL": "https://internal.api/public/", "X-Original-URI": "/public/", "X-Original-Method": "GET", "X-Envoy-Original-Path": "/public/",
		"X-Rewrite-URL": "/public/", "X-Auth-Request-Redirect": "/public/", "X-Forwarded-Prefix": "/public", "X-Forwarded-Port": "1", "X-Forwarded-For": "127.0.0.1",
		"Forwarded": "for=127.0.0.1;host=internal.api;proto=https", "X-Real-IP": "127.0.0.1",
		"X-Forwarded-Client-Cert": "Hash=00", "X-Forwarded-Tls-Client-Cert": "MA==", "X-Forwarded-User": "root",
		"X_Forwarded_Uri": "/public/", "X.Forwarded.Method": "GET", "x_original_url": "https://api.example.com/public/", "X_Real_IP": "127.0.0.1",
	}
	watched := routes.Table{
		"GET /public/{$}":         valetkey.Public,
		"GET internal.api/orders": valetkey.Public,
		"GET /orders":             valetkey.RequirementFunc(func(a valetkey.Access) error { seen <- a.Request.Header.Clone(); return nil }),
	}
	for _, d := range allDialects {
		decider, err := watched.Decider(guard)
		require.NoError(t, err)
		addr := service(t, newHandler(t, guard, d, func(c *valetforward.Config) { c.Decider = decider }))
		reads := question(d, get("/orders"))
		for name, value := range claims {
			if strings.Contains(reads, name+": ") {
				continue // the gateway replaces the client's value
			}
			t.Run("FWD-09 "+name+", "+string(d), func(t *testing.T) {
				res, _ := ask(t, addr, "127.0.0.1", question(d, get("/orders", name+": "+value)))
				assert.Equal(t, 401, res.StatusCode, "without a token")
				res, body := ask(t, addr, "127.0.0.1", question(d, get("/orders", bearer, name+": "+value, "X-Custom: kept")))
				require.Equal(t, 200, res.StatusCode, body)
				h := <-seen
				assert.Equal(t, "kept", h.Get("X-Custom"))
				for got := range h {
					assert.NotRegexp(t, `(?i)^(x.)?(forwarded|original|real|envoy|rewrite|auth)[^o]`, got)
				}
			})
		}
	}
}

func TestOnlyCallersMayAsk(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	bearer := "Authorization: Bearer " + iss.Token(valetkeytest.Scopes("orders:read"))
	for _, d := range allDialects {
		t.Run("FWD-07 a sender that is not the gateway, "+string(d), func(t *testing.T) {
			addr := service(t, newHandler(t, guard, d))
			for _, x := range []request{get("/orders", bearer), get("/public/"), get("/orders", bearer, "X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "Forwarded: for=127.0.0.1")} {
				res, _ := ask(t, addr, "127.0.0.2", question(d, x))
				assert.Equal(t, 403, res.StatusCode)
				assertNoIdentity(t, res.Header)
				res, _ = ask(t, addr, "127.0.0.1", question(d, x))
				assert.Equal(t, 200, res.StatusCode)
			}
		})
	}
	t.Run("a unix socket", func(t *testing.T) {
		for _, trusted := range []bool{false, true} {
			h := newHandler(t, guard, valetforward.Nginx, func(c *valetforward.Config) { c.UnixSocket = trusted })
			l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
			require.NoError(t, err)
			server := &http.Server{Handler: h}
			go server.Serve(l)
			t.Cleanup(func() { server.Close() })
			conn, err := net.Dial("unix", l.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, question(valetforward.Nginx, get("/orders", bearer)))
			require.NoError(t, err)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			assert.Equal(t, map[bool]int{false: 403, true: 200}[trusted], res.StatusCode)
		}
	})
	t.Run("the log has the address once", func(t *testing.T) {
		var log strings.Builder
		addr := service(t, newHandler(t, guard, valetforward.Nginx, func(c *valetforward.Config) {
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		}))
		for range 3 {
			ask(t, addr, "127.0.0.2", question(valetforward.Nginx, get("/orders", bearer)))
		}
		assert.Equal(t, 1, strings.Count(log.String(), "addr=127.0.0.2:"))
	})
}

func TestPreflights(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	cors := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.WriteHeader(http.StatusNoContent)
	})
	plain := newGuard(t, iss)
	answering := newGuard(t, iss, func(c *middleware.Config) { c.Preflight = cors })
	preflight := []string{"Origin: https://app.example", "Access-Control-Request-Method: GET"}
	allow := func(c *valetforward.Config) { c.AllowPreflight = true }
	for _, d := range allDialects {
		for _, guard := range []*middleware.Guard{plain, answering} {
			strict, lenient := service(t, newHandler(t, guard, d)), service(t, newHandler(t, guard, d, allow))
			for _, x := range []request{
				{"OPTIONS", "/orders", preflight[:1]}, {"OPTIONS", "/orders", preflight[1:]}, {"OPTIONS", "/orders", nil}, {"GET", "/orders", preflight},
				{"OPTIONS", "//orders", preflight}, {"OPTIONS", "/a/..;/admin/", preflight}, {"OPTIONS", "/orders", append(preflight, "X-Valetkey-Subject: root")},
			} {
				for _, addr := range []string{strict, lenient} {
					res, _ := ask(t, addr, "127.0.0.1", question(d, x))
					assert.GreaterOrEqual(t, res.StatusCode, 400, x)
					assertNoIdentity(t, res.Header)
				}
			}
			x := request{"OPTIONS", "/orders", preflight}
			res, _ := ask(t, strict, "127.0.0.1", question(d, x))
			assert.GreaterOrEqual(t, res.StatusCode, 400, "a 204 of the guard would be a pass")
			assert.Empty(t, res.Header.Get("Access-Control-Allow-Origin"))
			res, _ = ask(t, lenient, "127.0.0.1", question(d, x))
			assert.Equal(t, 200, res.StatusCode)
			assertIdentity(t, res.Header, "", "", "")
			assert.Empty(t, res.Header.Get("Retry-After"))
		}
	}
}

// Some gateways remove Upgrade and Connection from their questions, because these are about one connection.
func TestHandshakes(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss, func(c *middleware.Config) {
		c.DPoP = nil
		c.Methods = []middleware.BearerMethod{middleware.Cookie("session", new(http.CrossOriginProtection)), middleware.WebSocketProtocolPair("access_token")}
	})
	token := iss.Token(valetkeytest.Scopes("orders:read"))
	cookie, key := "Cookie: session="+token, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
	for _, d := range allDialects {
		addr := service(t, newHandler(t, guard, d))
		for _, c := range []struct {
			name   string
			lines  []string
			status int
		}{
			{"a page of another origin opens a WebSocket", []string{cookie, key, "Sec-WebSocket-Version: 13", "Origin: https://evil.example"}, 401},
			{"the same over HTTP/2", []string{cookie, "Sec-WebSocket-Version: 13", "Origin: https://evil.example"}, 401},
			{"the same with Upgrade", []string{cookie, key, "Upgrade: websocket", "Origin: https://evil.example"}, 401},
			{"a WebSocket without an origin", []string{cookie, key}, 401},
			{"a page of the own origin opens a WebSocket", []string{cookie, key, "Origin: https://api.example.com"}, 200},
			{"a page of the own origin reads", []string{cookie}, 200},
			{"a token in a subprotocol", []string{"Sec-WebSocket-Protocol: access_token, " + token, key}, 200},
		} {
			t.Run(string(d)+"/"+c.name, func(t *testing.T) {
				res, body := ask(t, addr, "127.0.0.1", question(d, get("/socket", c.lines...)))
				assert.Equal(t, c.status, res.StatusCode, body)
			})
		}
	}
}

func TestBoundTokens(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key := iss.ProofKey("ES256")
	nonces, err := dpop.NewNonces(dpop.NoncesConfig{})
	require.NoError(t, err)
	withNonces := newGuard(t, iss, func(c *middleware.Config) {
		c.DPoP, err = dpop.New(dpop.Config{Nonces: nonces})
		require.NoError(t, err)
	})
	token := iss.Token(valetkeytest.BoundTo(key), valetkeytest.Scopes("orders:read"))
	certificate, other := valetkeytest.ClientCertificate(t), valetkeytest.ClientCertificate(t)
	escaped := func(der []byte) string {
		return "X-Client-Cert: " + url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	}
	certified := "Authorization: Bearer " + iss.Token(valetkeytest.BoundToCertificate(certificate), valetkeytest.Scopes("orders:read"))
	for _, d := range allDialects {
		guard := newGuard(t, iss)
		addr := service(t, newHandler(t, guard, d, func(c *valetforward.Config) { c.ClientCertificate = middleware.PEMHeader("X-Client-Cert") }))
		sent := func(url string, opts ...valetkeytest.Option) request {
			return get("/orders?page=1", "Authorization: DPoP "+token, "DPoP: "+key.Proof("GET", url, token, opts...))
		}
		t.Run("FWD-20 a proof for the host of the gateway's report, "+string(d), func(t *testing.T) {
			res, _ := ask(t, addr, "127.0.0.1", strings.ReplaceAll(question(d, sent("https://evil.example/orders")), "api.example.com", "evil.example"))
			assert.Equal(t, 401, res.StatusCode)
		})
		t.Run("FWD-20 a proof for the path of the question, "+string(d), func(t *testing.T) {
			res, _ := ask(t, addr, "127.0.0.1", question(d, sent("https://api.example.com/")))
			assert.Equal(t, 401, res.StatusCode)
		})
		t.Run("FWD-20 a proof for the public URL, once, "+string(d), func(t *testing.T) {
			q := strings.Replace(question(d, sent("https://api.example.com/orders")), "X-Forwarded-Proto: https", "X-Forwarded-Proto: http", 1)
			res, body := ask(t, addr, "127.0.0.1", q)
			assert.Equal(t, 200, res.StatusCode, body)
			res, _ = ask(t, addr, "127.0.0.1", q)
			assert.Equal(t, 401, res.StatusCode)
		})
		t.Run(string(d)+"/a nonce is in the answers", func(t *testing.T) {
			addr := service(t, newHandler(t, withNonces, d))
			res, _ := ask(t, addr, "127.0.0.1", question(d, sent("https://api.example.com/orders")))
			assert.Equal(t, 401, res.StatusCode)
			nonce := res.Header.Get("DPoP-Nonce")
			require.NotEmpty(t, nonce)
			res, _ = ask(t, addr, "127.0.0.1", question(d, sent("https://api.example.com/orders", valetkeytest.Claim("nonce", nonce))))
			assert.Equal(t, 200, res.StatusCode)
		})
		for _, c := range []struct {
			name   string
			lines  []string
			status int
		}{
			{"no certificate", nil, 401},
			{"another certificate", []string{escaped(other.Certificate[0])}, 401},
			{"two certificates", []string{escaped(certificate.Certificate[0]), escaped(certificate.Certificate[0])}, 400},
			{"no certificate in the header", []string{"X-Client-Cert: x"}, 400},
			{"an invalid certificate", []string{escaped([]byte("x"))}, 400},
			{"a header that is not configured", []string{strings.Replace(escaped(certificate.Certificate[0]), "X-Client-Cert", "X-Other-Cert", 1)}, 401},
			{"the certificate of the token", []string{escaped(certificate.Certificate[0])}, 200},
		} {
			t.Run(string(d)+"/"+c.name, func(t *testing.T) {
				res, body := ask(t, addr, "127.0.0.1", question(d, get("/orders", append(c.lines, certified)...)))
				assert.Equal(t, c.status, res.StatusCode, body)
			})
		}
	}
	t.Run("Envoy removes the token unless it is forwarded", func(t *testing.T) {
		token := iss.Token(valetkeytest.Scopes("orders:read"))
		other := func(c *middleware.Config) {
			c.DPoP, c.Methods = nil, []middleware.BearerMethod{middleware.HeaderToken("X-Token"), middleware.WebSocketProtocolPair("access_token")}
		}
		for _, c := range []struct {
			guard   *middleware.Guard
			line    string
			forward bool
			removed string
		}{
			{newGuard(t, iss), "Authorization: Bearer " + token, false, "dpop, authorization"},
			{newGuard(t, iss), "Authorization: Bearer " + token, true, "dpop"},
			{newGuard(t, iss, other), "X-Token: " + token, false, "dpop, authorization, x-token"},
		} {
			addr := service(t, newHandler(t, c.guard, valetforward.EnvoyHTTP, func(cfg *valetforward.Config) { cfg.ForwardToken = c.forward }))
			res, _ := ask(t, addr, "127.0.0.1", question(valetforward.EnvoyHTTP, get("/orders", c.line)))
			assert.Equal(t, 200, res.StatusCode)
			assert.Equal(t, c.removed, res.Header.Get("X-Envoy-Auth-Headers-To-Remove"))
		}
	})
}

func TestMistakes(t *testing.T) {
	decider, err := table.Decider(newGuard(t, valetkeytest.NewIssuer(t)))
	require.NoError(t, err)
	for _, c := range []struct {
		name string
		cfg  valetforward.Config
		want []string
	}{
		{"nothing", valetforward.Config{}, []string{
			"valetforward: Decider: required, from routes.Table.Decider", "valetforward: Dialect: required: caddy, envoy-http, haproxy, ingress-nginx, nginx, traefik",
			"valetforward: Callers: required: the addresses of the gateway"}},
		{"an invalid Decider", valetforward.Config{Decider: new(routes.Decider), Dialect: "nginx", Callers: loopback}, []string{
			"valetforward: Decider: required, from routes.Table.Decider"}},
		{"another dialect", valetforward.Config{Decider: decider, Dialect: "apache", Callers: loopback}, []string{
			`valetforward: Dialect: "apache" is not supported: use caddy, envoy-http, haproxy, ingress-nginx, nginx, traefik`}},
		{"all addresses", valetforward.Config{Decider: decider, Dialect: "nginx", Callers: []netip.Prefix{loopback[0], netip.MustParsePrefix("::/0"), {}}}, []string{
			"valetforward: Callers[1]: ::/0 is not a range of addresses, or is all of them",
			"valetforward: Callers[2]: invalid Prefix is not a range of addresses, or is all of them"}},
		{"Envoy without a prefix", valetforward.Config{Decider: decider, Dialect: "envoy-http", Callers: loopback}, []string{
			"valetforward: PathPrefix: required: the path_prefix of Envoy's http_service, such as /check"}},
		{"Envoy with a prefix that ends with a slash", valetforward.Config{Decider: decider, Dialect: "envoy-http", PathPrefix: "/check/", Callers: loopback}, []string{
			`valetforward: PathPrefix: "/check/" does not begin with a slash, or ends with one`}},
		{"settings of Envoy", valetforward.Config{Decider: decider, Dialect: "caddy", PathPrefix: "/check", ForwardToken: true, UnixSocket: true}, []string{
			"valetforward: PathPrefix: has an effect on the dialect envoy-http only",
			"valetforward: ForwardToken: has an effect on the dialect envoy-http only: configure the gateway instead"}},
		{"the certificate of the connection", valetforward.Config{Decider: decider, Dialect: "nginx", Callers: loopback, ClientCertificate: middleware.TLSCertificate()}, []string{
			"valetforward: ClientCertificate: TLSCertificate would be the certificate of the gateway: use the header in which the gateway reports that of the client"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := valetforward.New(c.cfg)
			assert.Nil(t, h)
			require.Error(t, err)
			assert.Equal(t, strings.Join(c.want, "\n"), err.Error())
			assert.Len(t, valetkey.ConfigErrors(err), len(c.want))
		})
	}
}

// TestAnswersDoNotShare checks that an answer about a token is the same however often it is given, and whatever becomes of an earlier one.
func TestAnswersDoNotShare(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	h := newHandler(t, newGuard(t, iss), valetforward.EnvoyHTTP)
	const many = 40
	tokens := make([]string, many)
	for i := range tokens {
		tokens[i] = iss.Token(valetkeytest.Subject(fmt.Sprint("user-", i)), valetkeytest.Scopes("orders:read"))
	}
	for range 3 {
		for i, token := range tokens {
			r := httptest.NewRequest("GET", "/check/orders", nil)
			r.RemoteAddr = "127.0.0.1:40000"
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, 200, w.Code)
			assert.Equal(t, []string{fmt.Sprint("user-", i)}, w.Header()["X-Valetkey-Subject"])
			assert.Equal(t, []string{"no-store"}, w.Header()["Cache-Control"])
			assert.Len(t, w.Header()["X-Envoy-Auth-Headers-To-Remove"], 1)
			for name := range w.Header() { // as a handler around this one may do
				w.Header().Add(name, "added")
			}
			w.Header().Set("X-Valetkey-Subject", "root")
		}
	}
}
