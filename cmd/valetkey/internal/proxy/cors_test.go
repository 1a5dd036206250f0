package proxy_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

const page = "https://app.example.com"

// preflight returns the headers of the preflight for a request with a token.
func preflight(origin, method string, headers ...string) []string {
	return []string{"Origin: " + origin, "Access-Control-Request-Method: " + method,
		"Access-Control-Request-Headers: " + strings.Join(append([]string{"authorization"}, headers...), ",")}
}

func TestCORSPreflights(t *testing.T) {
	iss, upstream := valetkeytest.NewIssuer(t), &recorder{}
	server := httptest.NewServer(upstream)
	defer server.Close()
	addr := func(more string) string {
		return start(t, example(t, iss.URL, server.URL)+more, slog.New(slog.DiscardHandler))
	}
	listed := addr("cors: {origins: ['" + page + "', 'https://*.example.org']}")
	narrow := addr("cors: {origins: '" + page + "', methods: [POST], headers: [X-Tenant], credentials: true, max_age: 10m}")
	all := addr("cors: {origins: '*', max_age: 0s}")
	without := addr("")
	for _, c := range []struct {
		name, addr, path string
		header           []string
		status           int
		want             string // "origin methods headers credentials max-age"
	}{
		{"without cors, a preflight is a request without a token", without, "/orders", preflight(page, "GET"), 401, ""},
		{"a path without a row", listed, "/admin", preflight(page, "GET"), 401, ""},
		{"a method without a row", listed, "/orders", preflight(page, "DELETE"), 401, ""},
		{"a method without a row, of a public path", listed, "/health", preflight(page, "POST"), 401, ""},
		{"the method OPTIONS, which has no row", listed, "/orders", preflight(page, "OPTIONS"), 401, ""},
		{"an ambiguous path without a row", listed, "/..%5corders", preflight(page, "GET"), 400, ""},
		{"another origin", listed, "/orders", preflight("https://evil.example.com", "GET"), 403, ""},
		{"another scheme", listed, "/orders", preflight("http://app.example.com", "GET"), 403, ""},
		{"another port", listed, "/orders", preflight(page+":8443", "GET"), 403, ""},
		{"a page in a sandbox", listed, "/orders", preflight("null", "GET"), 403, ""},
		{"no origin, so it is not a preflight", listed, "/orders", []string{"Access-Control-Request-Method: GET"}, 401, ""},
		{"a header that is not listed", listed, "/orders", preflight(page, "GET", "x-tenant"), 403, ""},
		{"a method that is not listed, though it has a row", narrow, "/files/x", preflight(page, "DELETE"), 403, ""},

		{"an allowed origin", listed, "/orders", preflight(page, "GET"), 204, page + "||authorization||"},
		{"a method that needs permission", listed, "/files/x", preflight(page, "DELETE"), 204, page + "|*|authorization||"},
		{"HEAD has the row of GET", listed, "/orders", preflight(page, "HEAD"), 204, page + "||authorization||"},
		{"a path that is redirected", listed, "/files", preflight(page, "GET"), 204, page + "||authorization||"},
		{"a subdomain of a pattern", listed, "/orders", preflight("https://a.b.example.org", "POST", "content-type"), 204, "https://a.b.example.org||authorization,content-type||"},
		{"an ambiguous path, so that the script can read the refusal", listed, "/files/..%5corders", preflight(page, "GET"), 204, page + "||authorization||"},
		{"a public route", listed, "/health", preflight(page, "GET"), 204, page + "||authorization||"},
		{"a listed header, and credentials", narrow, "/orders", preflight(page, "POST", "x-tenant"), 204, page + "||authorization,x-tenant|true|600"},
		{"all origins", all, "/orders", preflight("http://localhost:5173", "POST"), 204, "*||authorization||0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := send(t, c.addr, "OPTIONS "+c.path, c.header...)
			assert.Equal(t, c.status, res.StatusCode)
			var got string
			if res.StatusCode == 204 {
				var all []string
				for _, name := range []string{"Allow-Origin", "Allow-Methods", "Allow-Headers", "Allow-Credentials", "Max-Age"} {
					all = append(all, res.Header.Get("Access-Control-"+name))
				}
				got = strings.Join(all, "|")
			} else {
				assert.Empty(t, res.Header.Get("Access-Control-Allow-Origin"))
			}
			assert.Equal(t, c.want, got)
			assert.Nil(t, upstream.take(), "the upstream got a request")
		})
	}
	t.Run("the refusal of an unknown path is that of any request to it", func(t *testing.T) {
		known := send(t, listed, "OPTIONS /admin", preflight(page, "GET")...)
		plain := send(t, listed, "OPTIONS /admin")
		for _, name := range []string{"Date", "X-Request-ID"} {
			known.Header.Del(name)
			plain.Header.Del(name)
		}
		plain.Header.Del("Vary")
		assert.Equal(t, plain.Header, known.Header)
	})
	t.Run("an OpenAPI document has rows too", func(t *testing.T) {
		config, _, _ := strings.Cut(good, "routes:")
		p, err := loadWith(t, config+"openapi: openapi.yaml\ncors: {origins: '"+page+"'}", document)
		require.NoError(t, err)
		defer p.Close()
		for line, status := range map[string]int{"GET /orders/7": 204, "DELETE /orders/7": 401, "GET /admin": 401} {
			method, path, _ := strings.Cut(line, " ")
			r := httptest.NewRequest("OPTIONS", path, nil)
			r.Header.Set("Origin", page)
			r.Header.Set("Access-Control-Request-Method", method)
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			assert.Equal(t, status, w.Code, line)
		}
	})
	t.Run("a host in another spelling has the rows of the host", func(t *testing.T) {
		config := strings.Replace(good, `"GET /orders"`, `"GET api.example.com/orders"`, 1)
		p, err := load(t, config+"cors: {origins: '"+page+"'}", slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		defer p.Close()
		for host, status := range map[string]int{"other.example.com": 401, "api.example.com": 204, "API.example.com:8443": 204, "api.example.com.": 204} {
			r := httptest.NewRequest("OPTIONS", "/orders", nil)
			r.Host = host
			r.Header.Set("Origin", page)
			r.Header.Set("Access-Control-Request-Method", "GET")
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			assert.Equal(t, status, w.Code, host)
		}
	})
}

// TestCORSResponses asserts that scripts can read every response.
func TestCORSResponses(t *testing.T) {
	iss, down := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t)
	down.Metadata.Down()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/abort") {
			panic(http.ErrAbortHandler)
		}
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Add("Access-Control-Allow-Origin", "https://evil.example.com")
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Access-Control-Expose-Headers", "X-Internal")
		h.Set("Vary", "Accept")
		h.Set("X-Total-Count", "7")
	}))
	defer upstream.Close()
	config := example(t, iss.URL, upstream.URL) + "cors: {origins: '" + page + "', expose_headers: [X-Total-Count]}\ndpop: {nonce: on}\n"
	config = strings.Replace(config, "verifiers:", "verifiers:\n  - jwks: {issuer: "+down.URL+"}", 1)
	addr := start(t, config, slog.New(slog.DiscardHandler))
	token := func(scopes ...string) string {
		return "Authorization: Bearer " + iss.Token(valetkeytest.Scopes(scopes...))
	}
	key := iss.ProofKey("ES256")
	proof := newRequest(t, "http://"+addr+"/whoami")
	key.Authorize(proof, iss.Token(valetkeytest.BoundTo(key)), valetkeytest.Claim("htu", valetkeytest.DefaultAudience+"/whoami"))
	dpop := []string{"Authorization: " + proof.Header.Get("Authorization"), "DPoP: " + proof.Header.Get("Dpop")}

	for _, c := range []struct {
		name, line string
		header     []string
		status     int
	}{
		{"an ambiguous path", "GET /files/..%5corders", nil, 400},
		{"an encoded slash", "GET /files/..%2forders", nil, 400},
		{"two tokens", "GET /orders", []string{token(), token()}, 400},
		{"no token", "GET /orders", nil, 401},
		{"a route that does not exist", "GET /admin", nil, 401},
		{"too little scope", "GET /orders", []string{token("files")}, 403},
		{"an identity that no header carries", "GET /whoami", []string{"Authorization: Bearer " + iss.Token(valetkeytest.Subject("alice "))}, 401},
		{"a proof without a nonce", "GET /whoami", dpop, 401},
		{"a redirect", "GET /files//x", []string{token("files")}, 307},
		{"an upstream that fails", "GET /files/abort", []string{token("files")}, 502},
		{"an issuer that fails", "GET /whoami", []string{"Authorization: Bearer " + down.Token()}, 503},
		{"the response of the upstream", "GET /orders", []string{token("orders:read")}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, origin := range []string{page, "https://evil.example.com"} {
				res := send(t, addr, c.line, append([]string{"Origin: " + origin}, c.header...)...)
				require.Equal(t, c.status, res.StatusCode)
				var want []string
				if origin == page {
					want = []string{page}
					assert.ElementsMatch(t, strings.Split("dpop-nonce,retry-after,www-authenticate,x-request-id,x-total-count", ","),
						strings.Split(strings.Join(res.Header["Access-Control-Expose-Headers"], ","), ","))
				} else {
					assert.Empty(t, res.Header["Access-Control-Expose-Headers"])
				}
				assert.Equal(t, want, res.Header["Access-Control-Allow-Origin"])
				assert.Empty(t, res.Header["Access-Control-Allow-Credentials"])
				assert.Contains(t, res.Header["Vary"], "Origin")
				if c.status == 200 {
					assert.Contains(t, res.Header["Vary"], "Accept")
				}
				if c.status == 401 {
					assert.NotEmpty(t, res.Header["Www-Authenticate"])
				}
				if len(c.header) == 2 && c.status == 401 {
					assert.NotEmpty(t, res.Header.Get("DPoP-Nonce"))
				}
			}
		})
	}
	t.Run("without cors, the headers of the upstream pass", func(t *testing.T) {
		addr := start(t, example(t, iss.URL, upstream.URL), slog.New(slog.DiscardHandler))
		res := send(t, addr, "GET /health", "Origin: "+page)
		assert.Len(t, res.Header["Access-Control-Allow-Origin"], 2)
	})
}

func TestCORSMistakes(t *testing.T) {
	for _, c := range []struct {
		name, section string
		want          []string
	}{
		{"no origins", "{}", []string{"6: cors.origins: required"}},
		{"an empty list of origins", "{origins: []}", []string{"6: cors.origins: is empty"}},
		{"credentials for all origins", "\n  origins: '*'\n  credentials: true", []string{"8: cors.credentials: cannot be true for all origins: list the origins"}},
		{"credentials for pages without TLS", "\n  origins: [https://app.example.com, http://app.example.com, http://localhost:5173]\n  credentials: true", []string{
			`7: cors.origins[1]: "http://app.example.com" is not https, which credentials require except on loopback`}},
		{"credentials and all response headers", "{origins: https://app.example.com, credentials: true, expose_headers: '*'}", []string{
			`6: cors.expose_headers: "*" cannot be combined with credentials: list the headers`}},
		{"invalid values", "\n  origins:\n  - app.example.com\n  - https://app.example.com/\n  - 'null'\n  - https://*.github.io\n  methods: [GET, 'GET POST', TRACE]\n  headers: [Cookie, 'a b']\n  expose_headers: [Set-Cookie]\n  max_age: 25h", []string{
			`8: cors.origins[0]: "app.example.com" is not an origin such as https://app.example.com or https://*.example.com`,
			`9: cors.origins[1]: "https://app.example.com/" is not an origin such as https://app.example.com or https://*.example.com`,
			`10: cors.origins[2]: "null" is not an origin such as https://app.example.com or https://*.example.com`,
			`11: cors.origins[3]: "https://*.github.io" contains the sites of strangers: anyone can register a name below it`,
			`12: cors.methods[1]: "GET POST" is not a method that a page can send`,
			`12: cors.methods[2]: "TRACE" is not a method that a page can send`,
			`13: cors.headers[0]: "Cookie" is not a header that a page can set`,
			`13: cors.headers[1]: "a b" is not a header that a page can set`,
			`14: cors.expose_headers[0]: "Set-Cookie" is not a header that a page can read`,
			`15: cors.max_age: is more than 24h`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, good+"cors: "+c.section, slog.New(slog.DiscardHandler))
			assert.ElementsMatch(t, c.want, mistakes(err))
		})
	}
}
