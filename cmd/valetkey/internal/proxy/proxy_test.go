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
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/valetkey/valetkey/adapters/valetopenapi"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A recorder is an upstream that records the requests it receives.
type recorder struct {
	mu   sync.Mutex
	seen []*http.Request
}

func (u *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.seen = append(u.seen, r)
	u.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Upstream", "was here")
	w.Write(body)
}

// take returns the request that came since the last call, nil if none did.
func (u *recorder) take() *http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	seen := u.seen
	u.seen = nil
	if len(seen) == 0 {
		return nil
	}
	return seen[len(seen)-1]
}

// example returns the configuration that the README shows, at other places.
func example(t *testing.T, issuer, upstream string, change ...string) string {
	t.Helper()
	text, err := os.ReadFile("../../testdata/proxy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	change = append(change,
		"http://127.0.0.1:8888", issuer,
		"http://127.0.0.1:9000", upstream,
		"resource: http://127.0.0.1:8081", "resource: "+valetkeytest.DefaultAudience,
		"audience: http://127.0.0.1:8080", "audience: "+valetkeytest.DefaultAudience)
	return strings.NewReplacer(change...).Replace(string(text))
}

// drivers are those that a proxy uses.
var drivers = driver.Set{OpenAPI: valetopenapi.Routes}

// load loads a configuration. The schema must accept it if the proxy does.
func load(t *testing.T, config string, log *slog.Logger) (*proxy.Proxy, error) {
	t.Helper()
	p, err := loadOnly(t, config, log)
	if err == nil {
		if wrong := conforms(t, config); wrong != nil {
			t.Errorf("the proxy accepts what the schema refuses: %v", wrong)
		}
	}
	return p, err
}

func loadOnly(t *testing.T, config string, log *slog.Logger) (*proxy.Proxy, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "proxy.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return proxy.Load(file, drivers, log)
}

// start serves the configuration and returns the address.
func start(t *testing.T, config string, log *slog.Logger) string {
	t.Helper()
	p, err := load(t, config, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// send sends a request line and header lines as they are, which a client would tidy up.
func send(t *testing.T, addr, line string, header ...string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: api.example.com\r\n%s\r\n", line, strings.Join(append(header, ""), "\r\n"))
	method, _, _ := strings.Cut(line, " ")
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestRefusals(t *testing.T) {
	iss, upstream := valetkeytest.NewIssuer(t), &recorder{}
	server := httptest.NewServer(upstream)
	defer server.Close()
	addr := start(t, example(t, iss.URL, server.URL), slog.New(slog.DiscardHandler))

	bearer := func(opts ...valetkeytest.Option) string { return "Authorization: Bearer " + iss.Token(opts...) }
	reader := bearer(valetkeytest.Scopes("orders:read"))
	files := bearer(valetkeytest.Scopes("files"))
	for _, c := range []struct {
		name      string
		line      string
		header    []string
		status    int
		challenge string // its error and scope
	}{
		{"no token", "GET /orders", nil, 401, " orders:read"},
		{"another scheme", "GET /orders", []string{"Authorization: Basic YTpi"}, 401, " orders:read"},
		{"two tokens", "GET /orders", []string{reader, files}, 400, "invalid_request "},
		{"a token in the header and one in the query", "GET /orders?access_token=x", []string{reader}, 400, "invalid_request "},
		{"an expired token", "GET /orders", []string{bearer(valetkeytest.Expired())}, 401, "invalid_token "},
		{"a token for another API", "GET /orders", []string{bearer(valetkeytest.WrongAudience())}, 401, "invalid_token "},
		{"a token of another issuer", "GET /orders", []string{bearer(valetkeytest.WrongIssuer())}, 401, "invalid_token "},
		{"a forged token", "GET /orders", []string{bearer(valetkeytest.TamperedPayload())}, 401, "invalid_token "},
		{"a subject that splits a header", "GET /whoami", []string{bearer(valetkeytest.Subject("eve\r\nX-Valetkey-Scope: admin"))}, 401, "invalid_token "},
		{"a subject that loses a space on the way", "GET /whoami", []string{bearer(valetkeytest.Subject("alice "))}, 401, "invalid_token "},
		{"a bad token where any good one will do", "GET /whoami", []string{bearer(valetkeytest.Expired())}, 401, "invalid_token "},
		{"too little scope", "GET /orders", []string{files}, 403, "insufficient_scope orders:read"},
		{"one of two scopes", "POST /orders", []string{reader}, 403, "insufficient_scope orders:read orders:write"},
		{"HEAD needs what GET needs", "HEAD /orders", []string{files}, 403, "insufficient_scope orders:read"},

		{"a route that is not in the table, without a token", "GET /admin", nil, 401, " "},
		{"a route that is not in the table", "GET /admin", []string{reader}, 403, "insufficient_scope "},
		{"a method that is not in the table", "DELETE /orders", []string{reader}, 403, "insufficient_scope "},
		{"a method that is not in the table, of a public path", "POST /health", nil, 401, " "},
		{"below a public path", "GET /health/secrets", nil, 401, " "},
		{"another letter case", "GET /HEALTH", nil, 401, " "},
		{"a method in another letter case", "get /health", nil, 400, "invalid_request "},
		{"a method in another letter case, of a row for all methods", "delete /files/x", []string{files}, 400, "invalid_request "},

		{"an encoded slash", "GET /files/..%2forders", []string{files}, 400, "invalid_request "},
		{"an encoded slash, in upper case", "GET /files/a%2Fb", []string{files}, 400, "invalid_request "},
		{"an encoded backslash", "GET /files/..%5corders", []string{files}, 400, "invalid_request "},
		{"a backslash", `GET /files/..\orders`, []string{files}, 400, "invalid_request "},
		{"dot segments, which are left to the client", "GET /files/../orders", []string{files}, 307, ""},
		{"encoded dot segments", "GET /files/%2e%2e/orders", []string{files}, 400, "invalid_request "},
		{"half encoded dot segments", "GET /files/.%2E/orders", []string{files}, 400, "invalid_request "},
		{"a single dot", "GET /files/%2e/orders", []string{files}, 400, "invalid_request "},
		{"dot segments at the end", "GET /files/..", []string{files}, 307, ""},
		{"dot segments with a parameter", "GET /files/..;x=y/orders", []string{files}, 400, "invalid_request "},
		{"encoded dot segments with an encoded parameter", "GET /files/%2e%3Bx/orders", []string{files}, 400, "invalid_request "},
		{"an encoded slash where no route is", "GET /..%2forders", []string{files}, 400, "invalid_request "},
		{"an encoded slash on a public route", "GET /health%2fx", nil, 400, "invalid_request "},
		{"NUL", "GET /health%00", nil, 400, "invalid_request "},
		{"a line break", "GET /health%0d%0aX:y", nil, 400, "invalid_request "},
		{"no path", "GET mailto:health", nil, 400, "invalid_request "},
		{"CONNECT", "CONNECT /health", nil, 400, "invalid_request "},
		{"CONNECT to a host", "CONNECT intern.example.com:443", nil, 400, "invalid_request "},
		{"a clean-up is left to the client", "GET /files//orders", []string{files}, 307, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := send(t, addr, c.line, c.header...)
			if res.StatusCode != c.status {
				t.Errorf("got %s, want %d", res.Status, c.status)
			}
			if r := upstream.take(); r != nil {
				t.Errorf("the upstream got %s %s", r.Method, r.RequestURI)
			}
			if c.status == 307 {
				return
			}
			params := valetkeytest.Challenge(t, res.Header, "Bearer")
			if got := params["error"] + " " + params["scope"]; got != c.challenge || params["realm"] != "orders" ||
				params["resource_metadata"] != valetkeytest.DefaultAudience+"/.well-known/oauth-protected-resource" {
				t.Errorf("got the challenge %q, want %q", params, c.challenge)
			}
		})
	}
}

func TestForwarding(t *testing.T) {
	iss, upstream := valetkeytest.NewIssuer(t), &recorder{}
	server := httptest.NewServer(upstream)
	defer server.Close()
	addr := start(t, example(t, iss.URL, server.URL), slog.New(slog.DiscardHandler))
	forwards := start(t, example(t, iss.URL, server.URL+"/base", "forward_token: false", "forward_token: true"), slog.New(slog.DiscardHandler))

	alice := iss.Token(valetkeytest.Scopes("orders:read"))
	client := iss.Token(valetkeytest.Scopes(), valetkeytest.Claim("scope", nil))
	forged := []string{
		"X-Valetkey-Subject: eve", "X-VALETKEY-SCOPE: admin", "x_valetkey_subject: eve", "X-Valetkey_Client: eve",
		"X.Valetkey.Subject: eve", "X-Valetkey-Admin: yes",
		"X-Forwarded-For: 192.0.2.9", "X_Forwarded_For: 192.0.2.9", "X-Forwarded-User: eve", "X-Forwarded-Client-Cert: Hash=1", "Forwarded: for=192.0.2.9",
	}
	proxies := []string{
		"X-Real-IP: 192.0.2.9", "x_real_ip: 192.0.2.9", "True-Client-IP: 192.0.2.9", "X-Client-IP: 192.0.2.9", "CF-Connecting-IP: 192.0.2.9",
		"Cf_Connecting_Ip: 192.0.2.9", "Fastly-Client-IP: 192.0.2.9", "X-Cluster-Client-IP: 192.0.2.9", "Fly-Client-IP: 192.0.2.9",
		"X-Azure-ClientIP: 192.0.2.9", "X-AppEngine-User-IP: 192.0.2.9", "Client-IP: 192.0.2.9",
		"X-Envoy-External-Address: 192.0.2.9", "X-Envoy-Original-Path: /admin", "X-Original-Method: DELETE", "X-Original_Host: intern",
		"X-Rewrite-Url: /admin", "X.Rewrite.Url: /admin", "X-Remote-User: eve", "Remote-User: eve", "X-Auth-Request-Email: eve@example.com",
	}
	const who = "sub=alice client=orders-app scope="
	for _, c := range []struct {
		name, addr, line, token string
		header                  []string
		uri                     string // as the upstream sees it
		identity                string
	}{
		{"AUD-08 the client's identity headers are not forwarded", addr, "GET /health", "", forged, "/health", "sub= client= scope="},
		{"a token on a public route is not looked at", addr, "GET /health", alice, nil, "/health", "sub= client= scope="},
		{"AUD-08, AUD-10 the token's identity replaces that of the headers, and the token goes no further", addr, "GET /orders", alice, forged, "/orders", who + "orders:read"},
		{"a token without scopes", addr, "GET /whoami", client, forged, "/whoami", who},
		{"the identity is not the client's to remove", addr, "GET /orders", alice,
			[]string{"Connection: X-Valetkey-Subject, X-Valetkey-Client, X-Valetkey-Scope"}, "/orders", who + "orders:read"},
		{"HEAD follows GET", addr, "HEAD /orders", alice, nil, "/orders", who + "orders:read"},
		{"an alternative", addr, "GET /orders/7?x=1&y=%2f", alice, nil, "/orders/7?x=1&y=%2f", who + "orders:read"},
		{"a token in the query goes no further", addr, "GET /health?access_token=" + alice + "&x=1", "", nil, "/health?x=1", "sub= client= scope="},
		{"a token in the query, in other spellings", addr,
			"GET /health?Access_Token=a&access%5Ftoken=b&access.token=c&access_token[]=d&+access_token=e&access_token&x=%41&my_access_token=f&access_token_type=g",
			"", nil, "/health?x=%41&my_access_token=f&access_token_type=g", "sub= client= scope="},
		{"an honest escape stays as it is", addr, "GET /orders/a%20b%3Bc", alice, nil, "/orders/a%20b%3Bc", who + "orders:read"},
		{"the absolute form of the target", addr, "GET http://evil.example.com/orders", alice, nil, "/orders", who + "orders:read"},
		{"the token is passed on if configured", forwards, "GET /orders", alice, forged, "/base/orders", who + "orders:read"},
		{"not on a public route, where it is not verified", forwards, "GET /health", alice, nil, "/base/health", "sub= client= scope="},
		{"nor a password", forwards, "GET /health", "", []string{"Authorization: Basic YTpi"}, "/base/health", "sub= client= scope="},
		{"headers that would replace method or path are dropped", addr, "GET /orders", alice,
			[]string{"X-HTTP-Method-Override: DELETE", "X_Original_URL: /admin", "X-Rewrite-URL: /admin"}, "/orders", who + "orders:read"},
		{"headers that only proxies set are dropped", addr, "GET /orders", alice, proxies, "/orders", who + "orders:read"},
		{"also on a public route", addr, "GET /health", "", proxies, "/health", "sub= client= scope="},
		{"no switch to a protocol that carries requests", addr, "GET /orders", alice,
			[]string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"}, "/orders", who + "orders:read"},
		{"the names of trailers are dropped", addr, "GET /orders", alice,
			[]string{"Transfer-Encoding: chunked", "Trailer: X-Valetkey-Subject", "", "0", "X-Valetkey-Subject: eve"}, "/orders", who + "orders:read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := c.header
			if c.token != "" {
				header = append([]string{"Authorization: Bearer " + c.token}, header...)
			}
			res := send(t, c.addr, c.line, header...)
			r := upstream.take()
			if res.StatusCode != 200 || res.Header.Get("Upstream") == "" || r == nil {
				t.Fatalf("got %s, and the upstream %v", res.Status, r)
			}
			if r.RequestURI != c.uri {
				t.Errorf("the upstream got %s, want %s", r.RequestURI, c.uri)
			}
			identity := fmt.Sprintf("sub=%s client=%s scope=%s", r.Header.Get("X-Valetkey-Subject"), r.Header.Get("X-Valetkey-Client"), r.Header.Get("X-Valetkey-Scope"))
			if identity != c.identity {
				t.Errorf("the upstream got %q, want %q", identity, c.identity)
			}
			var want string
			if c.addr == forwards && c.identity != "sub= client= scope=" {
				want = "Bearer " + c.token
			}
			if got := r.Header.Get("Authorization"); got != want {
				t.Errorf("the upstream got the Authorization %q, want %q", got, want)
			}
			known := map[string]bool{"X-Valetkey-Subject": true, "X-Valetkey-Client": true, "X-Valetkey-Scope": true,
				"X-Request-Id": true, "X-Forwarded-For": true, "X-Forwarded-Host": true, "X-Forwarded-Proto": true, "X-Forwarded-Port": true}
			for name, values := range r.Header {
				if (strings.HasPrefix(name, "X") || strings.Contains(strings.ToLower(name), "client") || strings.Contains(name, "Remote") ||
					strings.Contains(strings.ToLower(name), "connecting")) && !known[name] || name == "Upgrade" || len(values) > 1 || values[0] == "" && name != "User-Agent" {
					t.Errorf("the upstream got %s: %q", name, values)
				}
			}
			if len(r.Trailer) > 0 {
				t.Errorf("the upstream got the trailers %v", r.Trailer)
			}
		})
	}

	t.Run("a body is not read behind its length, where the server may have closed it", func(t *testing.T) {
		p, err := load(t, example(t, iss.URL, server.URL), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		closed := iotest.ErrReader(http.ErrBodyReadAfterClose)
		r := httptest.NewRequest("POST", "http://api.example.com/orders", io.MultiReader(strings.NewReader("pears"), closed))
		r.ContentLength = 5
		r.Header.Set("Authorization", "Bearer "+iss.Token(valetkeytest.Scopes("orders:read", "orders:write")))
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Code != http.StatusOK || w.Body.String() != "pears" {
			t.Errorf("got %d with %q back", w.Code, w.Body)
		}
	})
	t.Run("bodies go both ways", func(t *testing.T) {
		r, err := http.NewRequest("POST", "http://"+addr+"/orders", strings.NewReader(strings.Repeat("pears ", 50_000)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+iss.Token(valetkeytest.Scopes("orders:read", "orders:write")))
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if got, err := io.ReadAll(res.Body); err != nil || len(got) != 300_000 {
			t.Errorf("got %d bytes back: %v", len(got), err)
		}
	})
}

func TestHeadersOfProxies(t *testing.T) {
	iss, upstream := valetkeytest.NewIssuer(t), &recorder{}
	server := httptest.NewServer(upstream)
	defer server.Close()
	addr := start(t, example(t, iss.URL, server.URL), slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		name    string
		headers []string
		reaches bool
	}{
		{"the proxy of an HTTP client (httpoxy)", []string{"Proxy"}, false},
		{"a method, a path or a file", []string{"X-HTTP-Method", "X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL", "X-Script-Name", "X-Matched-Path",
			"X-Now-Route-Matches", "X-Invoke-Path", "X-Middleware-Subrequest", "X-Middleware-Rewrite", "X-Middleware-Override-Headers", "X-Sendfile-Type", "X-Accel-Mapping"}, false},
		{"a certificate", []string{"Client-Cert", "Client-Cert-Chain", "X-Client-Cert", "X-Client-Cert-Chain", "X-Client-Certificate", "X-Client-Verify", "SSL-Client-Cert",
			"SSL-Client-S-DN", "X-SSL-Client-Verify", "X-SSL-Cert", "X-ARR-ClientCertHeader", "WL-Proxy-Client-Cert", "X-Amzn-Mtls-Clientcert", "X-Amzn-Mtls-Clientcert-Subject"}, false},
		{"the scheme", []string{"Front-End-Https", "X-Scheme", "X-Url-Scheme", "X-ARR-SSL", "WL-Proxy-SSL", "CF-Visitor"}, false},
		{"the host", []string{"X-Host", "X-Http-Host-Override", "X-Original-Host"}, false},
		{"the ID of a request", []string{"X-Request-ID"}, false},
		{"an address", []string{"X-Real-IP", "WL-Proxy-Client-IP", "Proxy-Client-IP"}, false},
		{"a user", []string{"Remote-User", "Remote-Groups", "Remote-Email", "Remote-Name", "X-Remote-User", "X-WebAuth-User", "X-WebAuth-Email", "X-WebAuth-Role",
			"X-Authentik-Username", "X-Authentik-Groups", "Tailscale-User-Login", "Tailscale-User-Name", "X-Userinfo", "X-Authenticated-User", "X-Authenticated-Userid",
			"OIDC_CLAIM_sub", "Oidc-Claim-Email", "OIDC_access_token", "X-Amzn-Oidc-Identity"}, false},
		{"a consumer of a gateway", []string{"X-Consumer-ID", "X-Consumer-Custom-ID", "X-Consumer-Username", "X-Consumer-Groups", "X-Credential-Identifier",
			"X-Anonymous-Consumer", "X-Endpoint-Api-Userinfo", "X-Endpoint-Api-Consumer-Number", "X-Apigateway-Api-Userinfo"}, false},

		{"what clients send", []string{"X-Client-Data", "X-Client-Version", "X-Client-Info", "X-Api-Key", "X-Consumer-Key", "X-Requested-With", "X-Csrf-Token", "X-Correlation-Id",
			"X-Amzn-Trace-Id", "X-User-Agent", "X-Middleware-Prefetch", "X-Nextjs-Data", "Idempotency-Key", "Cdn-Loop", "Traceparent"}, true},
		{"what an upstream can verify", []string{"X-Goog-Iap-Jwt-Assertion", "Cf-Access-Jwt-Assertion", "X-Amzn-Oidc-Data"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range c.headers {
				for _, spelling := range []string{name, strings.ToUpper(name), strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", ".")} {
					res := send(t, addr, "GET /health", spelling+": forged")
					r := upstream.take()
					if res.StatusCode != 200 || r == nil {
						t.Errorf("%s: got %s, and the upstream %v", spelling, res.Status, r)
						continue
					}
					reached := ""
					for name, values := range r.Header {
						if strings.Contains(strings.Join(values, ","), "forged") {
							reached = name
						}
					}
					if reached != "" != c.reaches {
						t.Errorf("%s: the upstream got %q", spelling, reached)
					}
				}
			}
		})
	}
}

func TestTokenInQuery(t *testing.T) {
	iss, upstream := valetkeytest.NewIssuer(t), &recorder{}
	server := httptest.NewServer(upstream)
	defer server.Close()
	addr := start(t, example(t, iss.URL, server.URL), slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		name    string
		params  []string
		reaches bool
	}{
		{"plain, escaped and in other letter case", []string{"access_token", "access%5ftoken", "%61ccess_token", "ACCESS_token", "acce%C5%BFs_token"}, false},
		{"in brackets", []string{"[access_token]", "%5Baccess_token%5D", "%5baccess_token%5d", "[[access_token]]", "]access_token", "[]access_token", "[access_token"}, false},
		{"with an index", []string{"access_token[]", "access_token[a]", "access_token[a]b", "access_token[a][b]", "access_token%5B%5D", "access_token][x]", "access_token[",
			"access_token]", "access_token.a", "access_token.", ".access_token"}, false},
		{"ended by a NUL", []string{"access_token%00", "access_token%00x", "access_token[]%00x", "[access_token%00]", "%00access_token", "access.token%00x"}, false},
		{"beside white space", []string{"+access_token", "%20access_token", "access_token%20", "access_token+x", "%09access_token", "access_token%0a", "access_token%0D%0A", "%C2%A0access_token", "+[access_token]"}, false},
		{"with a character that PHP takes for an underscore", []string{"access.token", "access+token", "access[token", "+access.token", "access.token[]", "access.token[a]b", "access+token[a][b"}, false},
		{"behind a semicolon or a bad escape", []string{"x=1;access_token", "x=1&amp;access_token", "access%u005ftoken", "access_token%"}, false},

		{"longer names", []string{"my_access_token", "access_tokens", "access_token_type", "access_token-x", "_access_token", "access_tokenx[]"}, true},
		{"other names", []string{"access-token", "accesstoken", "token", "access", "access[]", "[]", "", "%00", "."}, true},
		{"below another name", []string{"x[access_token]", "x.access_token", "x[]access_token", "x+access_token", "access[token]", "access[token]x", "my.access.token", "access.token.x"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, param := range c.params {
				param += "=forged"
				res := send(t, addr, "GET /health?a=%41&"+param+"&b")
				r := upstream.take()
				if res.StatusCode != 200 || r == nil {
					t.Errorf("%s: got %s, and the upstream %v", param, res.Status, r)
					continue
				}
				if got := strings.Contains(r.RequestURI, "forged"); got != c.reaches {
					t.Errorf("%s: the upstream got %s", param, r.RequestURI)
				}
				if query := r.URL.Query(); query.Get("a") != "A" || !query.Has("b") || c.reaches && r.RequestURI != "/health?a=%41&"+param+"&b" {
					t.Errorf("%s: the other parameters arrived as %s", param, r.RequestURI)
				}
			}
		})
	}
}

func TestStreams(t *testing.T) {
	goOn := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			w.Header().Set("Content-Length", "13")
			fmt.Fprint(w, "first\n")
			w.(http.Flusher).Flush()
			<-goOn
			fmt.Fprint(w, "second\n")
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		line, _ := rw.ReadString('\n')
		fmt.Fprint(conn, "echo "+line)
	}))
	defer upstream.Close()
	release := sync.OnceFunc(func() { close(goOn) })
	defer release()
	iss := valetkeytest.NewIssuer(t)
	addr := start(t, example(t, iss.URL, upstream.URL), slog.New(slog.DiscardHandler))
	bearer := "Authorization: Bearer " + iss.Token()

	t.Run("what the upstream flushes arrives before it ends", func(t *testing.T) {
		res := send(t, addr, "GET /whoami", bearer)
		body := bufio.NewReader(res.Body)
		if line, err := body.ReadString('\n'); line != "first\n" {
			t.Fatal(line, err)
		}
		release()
		if rest, err := io.ReadAll(body); string(rest) != "second\n" {
			t.Fatal(string(rest), err)
		}
	})
	upgrade := []string{"Connection: Upgrade", "Upgrade: websocket"}
	t.Run("a WebSocket needs a token", func(t *testing.T) {
		if res := send(t, addr, "GET /whoami", upgrade...); res.StatusCode != 401 {
			t.Errorf("got %s", res.Status)
		}
	})
	t.Run("a WebSocket passes", func(t *testing.T) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /whoami HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", strings.Join(append(upgrade, bearer), "\r\n"))
		in := bufio.NewReader(conn)
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != 101 {
			t.Fatal(res, err)
		}
		fmt.Fprintln(conn, "hello")
		if line, err := in.ReadString('\n'); line != "echo hello\n" {
			t.Errorf("got %q: %v", line, err)
		}
	})
}

func TestUpstreamDown(t *testing.T) {
	var log bytes.Buffer
	iss := valetkeytest.NewIssuer(t)
	addr := start(t, example(t, iss.URL, "http://"+clitest.FreeAddr(t)), slog.New(slog.NewTextHandler(&log, nil)))
	token := iss.Token()
	res := send(t, addr, "GET /whoami?x=private", "Authorization: Bearer "+token)
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != 502 || string(body) != "Bad Gateway\n" {
		t.Errorf("got %s with %q", res.Status, body)
	}
	text := log.String()
	if !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "path=/whoami") || !strings.Contains(text, "connection refused") {
		t.Errorf("the log contains %q", text)
	}
	if strings.Contains(text, token) || strings.Contains(text, "private") {
		t.Errorf("the log contains too much: %q", text)
	}
}

func TestIssuerDown(t *testing.T) {
	iss, upstream := valetkeytest.NewIssuer(t), &recorder{}
	iss.Metadata.Down()
	server := httptest.NewServer(upstream)
	defer server.Close()
	addr := start(t, example(t, iss.URL, server.URL), slog.New(slog.DiscardHandler))
	res := send(t, addr, "GET /whoami", "Authorization: Bearer "+iss.Token())
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || upstream.take() != nil {
		t.Errorf("got %s", res.Status)
	}
	if res := send(t, addr, "GET /health"); res.StatusCode != 200 {
		t.Errorf("a public route got %s", res.Status)
	}
}

func TestSeveralIssuers(t *testing.T) {
	first, second, upstream := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t), &recorder{}
	server := httptest.NewServer(upstream)
	defer server.Close()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "keys.json"), second.JWKS(), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "proxy.yaml")
	config := fmt.Sprintf(`
listen: 127.0.0.1:0
upstream: %s
resource: %s
verifiers:
  - jwks: {issuer: %q, url: %q, leeway: 0s}
  - jwks: {issuer: %q, audience: ["urn:second"], file: keys.json, profile: lenient, algorithms: ES256}
routes:
  /: "@any"
`, server.URL, valetkeytest.DefaultAudience, first.URL, first.KeySet.URL, second.URL)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := proxy.Load(file, drivers, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, c := range []struct {
		name   string
		token  string
		status int
	}{
		{"the audience of one is not that of the other", second.Token(), 401},
		{"the profile of one is not that of the other", first.Token(valetkeytest.Lenient()), 401},
		{"no leeway is none", first.Token(valetkeytest.ExpiresIn(-time.Second)), 401},
		{"an algorithm that is not named", second.Token(valetkeytest.Audience("urn:second"), valetkeytest.Algorithm("ES384")), 401},
		{"the first issuer, with a route for everything in the table", first.Token(), 200},
		{"the second issuer, from a file", second.Token(valetkeytest.Lenient(), valetkeytest.Audience("urn:second")), 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := httptest.NewRecorder()
			p.ServeHTTP(res, valetkeytest.Request("GET", "/anything", c.token))
			if res.Code != c.status || (upstream.take() != nil) != (c.status == 200) {
				t.Errorf("got %d %s", res.Code, res.Body)
			}
		})
	}
	if second.KeySet.Hits()+second.Metadata.Hits() > 0 {
		t.Error("the issuer whose keys are in a file was asked for them")
	}
}

func TestMaxTokenBytes(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	long := iss.Token(valetkeytest.Scopes("orders:read"), valetkeytest.Claim("groups", strings.Repeat("g", 20<<10)))
	for more, status := range map[string]int{"": 401, "max_token_bytes: 20000": 401, "max_token_bytes: 65536": 200} {
		config, _ := guarded(t, iss, more)
		addr := start(t, config, slog.New(slog.DiscardHandler))
		if res := send(t, addr, "GET /orders", "Authorization: Bearer "+long); res.StatusCode != status {
			t.Errorf("%q: %s", more, res.Status)
		}
	}
}
