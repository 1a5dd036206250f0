package middleware_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

func prefixes(list ...string) (all []netip.Prefix) {
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func TestProxiesMistakes(t *testing.T) {
	for _, c := range []struct {
		name    string
		proxies middleware.Proxies
		from    middleware.ClientCertificate
		want    string
	}{
		{"an invalid prefix", middleware.Proxies{Trusted: []netip.Prefix{{}}, Forwarded: middleware.Forwarded}, middleware.ClientCertificate{}, "middleware: Proxies.Trusted[0]: "},
		{"all addresses", middleware.Proxies{Trusted: prefixes("10.0.0.0/8", "::/0"), Forwarded: middleware.Forwarded}, middleware.ClientCertificate{}, "middleware: Proxies.Trusted[1]: "},
		{"an unknown header", middleware.Proxies{Trusted: prefixes("10.0.0.0/8"), Forwarded: "Via"}, middleware.ClientCertificate{}, "middleware: Proxies.Forwarded: "},
		{"a header without trusted proxies", middleware.Proxies{Forwarded: middleware.XForwarded}, middleware.ClientCertificate{}, "middleware: Proxies.Trusted: "},
		{"a certificate without trusted proxies", middleware.Proxies{}, middleware.ClientCertHeader(), "middleware: Proxies.Trusted: "},
		{"a port in another header", middleware.Proxies{Trusted: prefixes("10.0.0.0/8"), Forwarded: middleware.Forwarded, XForwardedPort: true}, middleware.ClientCertificate{}, "middleware: Proxies.XForwardedPort: "},
		{"a prefix in no header", middleware.Proxies{XForwardedPrefix: true}, middleware.ClientCertificate{}, "middleware: Proxies.XForwardedPrefix: "},
		{"proxies that tell nothing", middleware.Proxies{Trusted: prefixes("10.0.0.0/8")}, middleware.TLSCertificate(), "middleware: Proxies.Forwarded: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Proxies: c.proxies, ClientCertificate: c.from})
			assert.ErrorContains(t, err, c.want)
		})
	}
}

// The server is at http://127.0.0.1:port, and its clients ask for https://api.example.com.
func TestForwarded(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key := iss.ProofKey("ES256")
	token := iss.Token(valetkeytest.BoundTo(key))
	const rfc, x = middleware.Forwarded, middleware.XForwarded
	forwarded := func(lines ...string) http.Header { return http.Header{"Forwarded": lines} }
	xForwarded := func(proto, host string) http.Header {
		return http.Header{"X-Forwarded-Proto": {proto}, "X-Forwarded-Host": {host}}
	}
	chain := func(proto, host, from string) http.Header {
		return http.Header{"X-Forwarded-Proto": {proto}, "X-Forwarded-Host": {host}, "X-Forwarded-For": {from}}
	}
	here, elsewhere := prefixes("127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32"), prefixes("10.0.0.0/8")
	for _, c := range []struct {
		name    string
		proxies []netip.Prefix
		header  middleware.Forwarding
		sent    http.Header
		status  int
	}{
		{"DPOP-20, AUD-08 no proxy: X-Forwarded has no effect", elsewhere, x, xForwarded("https", "api.example.com"), 401},
		{"DPOP-20, AUD-08 no proxy: Forwarded has no effect", elsewhere, rfc, forwarded("proto=https;host=api.example.com"), 401},
		{"DPOP-20, AUD-08 by default no header has an effect", nil, "", http.Header{
			"Forwarded": {"proto=https;host=api.example.com"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"api.example.com"}}, 401},
		{"the other header: X-Forwarded", here, rfc, xForwarded("https", "api.example.com"), 401},
		{"the other header: Forwarded", here, x, forwarded("proto=https;host=api.example.com"), 401},
		{"no header", here, rfc, nil, 401},
		{"another host", here, x, xForwarded("https", "evil.example.com"), 401},
		{"another scheme", here, x, xForwarded("http", "api.example.com"), 401},
		{"the client's own element", here, rfc, forwarded("for=10.0.0.1;proto=https;host=api.example.com, for=192.0.2.1;proto=https;host=other.example.com"), 401},
		{"the client's own line", here, rfc, forwarded("for=10.0.0.1;proto=https;host=api.example.com", "for=192.0.2.1;proto=https;host=other.example.com"), 401},
		{"the client's own element, and a proxy that does not state for whom", here, rfc, forwarded("proto=https;host=api.example.com, proto=https;host=other.example.com"), 401},
		{"the client's own element, and a sender that is hidden", here, rfc, forwarded("proto=https;host=api.example.com, for=_hidden;proto=https;host=other.example.com"), 401},
		{"two values of X-Forwarded-Host", here, x, xForwarded("https", "api.example.com, api.example.com"), 400},
		{"two values of X-Forwarded-Proto", here, x, xForwarded("https,https", "api.example.com"), 400},
		{"two lines of X-Forwarded-Proto", here, x, http.Header{"X-Forwarded-Proto": {"https", "https"}, "X-Forwarded-Host": {"api.example.com"}}, 400},
		{"two lines of X-Forwarded-Host", here, x, http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"api.example.com", "x"}}, 400},
		{"two values and no address that would tell whose they are", here, x, http.Header{"X-Forwarded-Proto": {"https,http"}, "X-Forwarded-Host": {"api.example.com"}}, 400},
		{"a list with an empty value", here, x, chain("https,", "api.example.com", "192.0.2.1, 10.0.0.7"), 400},
		{"the scheme of the client before that of the proxy", here, x, chain("https, http", "api.example.com", "192.0.2.1"), 401},
		{"the host of the client before that of the proxy", here, x, chain("https", "api.example.com, other.example.com", "192.0.2.1"), 401},
		{"the host of the client before those of two proxies", here, x, chain("https", "api.example.com, other.example.com, inner", "192.0.2.1, 10.0.0.7"), 401},
		{"the host of the client, which also claims to be a proxy", here, x, chain("https", "api.example.com, other.example.com", "10.0.0.7, 192.0.2.1"), 401},
		{"the scheme of a WebSocket without TLS", here, x, xForwarded("ws", "api.example.com"), 401},
		{"an invalid scheme in a list", here, x, chain("ftp, http", "api.example.com", "192.0.2.1, 10.0.0.7"), 400},
		{"an invalid scheme", here, x, xForwarded("ftp", "api.example.com"), 400},
		{"a host that ends early", here, x, xForwarded("https", "api.example.com/?"), 400},
		{"a host that begins late", here, x, xForwarded("https", "x@api.example.com"), 400},
		{"Forwarded with an invalid scheme", here, rfc, forwarded("proto=ftp;host=api.example.com"), 400},
		{"Forwarded with a host that ends early", here, rfc, forwarded(`proto=https;host="api.example.com#"`), 400},
		{"Forwarded with a parameter twice", here, rfc, forwarded("proto=https;host=api.example.com;proto=https"), 400},
		{"Forwarded with a parameter alone", here, rfc, forwarded("proto;host=api.example.com"), 400},
		{"Forwarded with an empty value", here, rfc, forwarded("proto=;host=api.example.com"), 400},
		{"Forwarded with a value without a name", here, rfc, forwarded("=https;host=api.example.com"), 400},
		{"Forwarded with an open quote", here, rfc, forwarded(`proto=https;host="api.example.com`), 400},
		{"Forwarded with an open quote before a comma", here, rfc, forwarded(`for="x, for=192.0.2.1;proto=https;host=api.example.com`), 400},
		{"Forwarded with a quote within", here, rfc, forwarded(`proto=https;host="api".example.com"`), 400},
		{"Forwarded with a backslash", here, rfc, forwarded(`proto=https;host="api.\example.com"`), 400},
		{"Forwarded with a space before the value", here, rfc, forwarded(`proto= https;host=api.example.com`), 400},

		{"Forwarded with empty parameters", here, rfc, forwarded("; proto=https;;host=api.example.com; "), 200},
		{"DPOP-20 X-Forwarded from a proxy", here, x, xForwarded("https", "api.example.com"), 200},
		{"DPOP-20 a scheme for each of two proxies", here, x, chain("https,http", "api.example.com", "192.0.2.1, 10.0.0.7"), 200},
		{"DPOP-20 a scheme for each of two proxies, in two lines", here, x, http.Header{"X-Forwarded-Proto": {"https", "http"}, "X-Forwarded-Host": {"api.example.com", "inner"},
			"X-Forwarded-For": {"192.0.2.1", "10.0.0.7:4711"}}, 200},
		{"a scheme and a host for two of three proxies", here, x, chain("https, http", "api.example.com, inner", "192.0.2.1, 10.0.0.7, [2001:db8::7]:80"), 200},
		{"the scheme of the client before those of two proxies", here, x, chain("http, https, http", "api.example.com", "198.51.100.1, 192.0.2.1, 10.0.0.7"), 200},
		{"all senders are proxies", here, x, chain("https, http", "api.example.com", "10.0.0.8, 10.0.0.7"), 200},
		{"the scheme of a WebSocket, as Traefik reports it", here, x, xForwarded("wss", "api.example.com"), 200},
		{"the scheme of a WebSocket in Forwarded", here, rfc, forwarded("proto=WSS;host=api.example.com"), 200},
		{"DPOP-20 Forwarded from a proxy", here, rfc, forwarded("for=192.0.2.1;proto=https;host=api.example.com"), 200},
		{"quotes, other letter case, another order, spaces and unused parameters", here, rfc, forwarded(`HOST="api.example.com:443" ; by=10.0.0.9;Proto=HTTPS; For="[2001:db9::1]:80";secret="a,b;c"`), 200},
		{"the element behind that of the client", here, rfc, forwarded("host=evil.example.com, for=192.0.2.1;proto=https;host=api.example.com"), 200},
		{"through two proxies", here, rfc, forwarded("host=evil.example.com, for=192.0.2.1;proto=https;host=api.example.com, for=10.0.0.7;proto=http;host=inner"), 200},
		{"through three proxies, with ports", here, rfc, forwarded("for=192.0.2.1;proto=https;host=api.example.com", `for="10.0.0.7:80";host=inner,for="[2001:db8::7]:80";host=inner`), 200},
		{"through two proxies, an IPv6 address without a port", here, rfc, forwarded(`for=192.0.2.1;proto=https;host=api.example.com, for="[2001:db8::7]"`), 200},
		{"a proxy is the client", here, rfc, forwarded("for=10.0.0.7;proto=https;host=api.example.com"), 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			guard := newGuard(t, iss, withDPoP(t, iss), func(cfg *middleware.Config) {
				if c.header != "" {
					cfg.URL = nil
				}
				cfg.Proxies = middleware.Proxies{Trusted: c.proxies, Forwarded: c.header}
			})
			got := do(t, "GET", serve(t, guard.Handler(hello))+"/orders", "", func(r *http.Request) {
				for name, lines := range c.sent {
					r.Header[name] = lines
				}
				key.Authorize(r, token, valetkeytest.Claim("htu", "https://api.example.com/orders"))
			})
			assert.Equal(t, c.status, got.status, got.body)
		})
	}
	t.Run("without proofs, no header spoils a request", func(t *testing.T) {
		guard := newGuard(t, iss, withDPoP(t, iss), func(cfg *middleware.Config) {
			cfg.URL, cfg.Proxies = nil, middleware.Proxies{Trusted: here, Forwarded: rfc}
		})
		got := do(t, "GET", serve(t, guard.Handler(hello)), "Bearer "+iss.Token(), header("Forwarded", `"`))
		assert.Equal(t, 200, got.status)
	})
	t.Run("a host that the proxy does not report is none, since the client determines the Host header", func(t *testing.T) {
		for _, forwarded := range []middleware.Forwarding{rfc, x} {
			guard := newGuard(t, iss, withDPoP(t, iss), func(cfg *middleware.Config) {
				cfg.URL, cfg.Proxies = nil, middleware.Proxies{Trusted: here, Forwarded: forwarded}
			})
			for scheme, lines := range map[string][]func(*http.Request){
				"http":  nil,
				"https": {header("Forwarded", "for=192.0.2.1;proto=https"), header("X-Forwarded-Proto", "https")},
			} {
				got := do(t, "GET", serve(t, guard.Handler(hello))+"/orders", "", append(lines, func(r *http.Request) {
					r.Host = "evil.example"
					key.Authorize(r, token, valetkeytest.Claim("htu", scheme+"://evil.example/orders"))
				})...)
				assert.Equal(t, 401, got.status, got.body)
			}
		}
	})
	t.Run("what the proxy does not report is that of the resource", func(t *testing.T) {
		guard := newGuard(t, iss, withDPoP(t, iss), ofResource, func(cfg *middleware.Config) {
			cfg.Proxies = middleware.Proxies{Trusted: here, Forwarded: rfc}
		})
		got := do(t, "GET", serve(t, guard.Handler(hello))+"/orders", "", header("Forwarded", "for=192.0.2.1"), asDPoP(key, token, valetkeytest.Claim("htu", "https://api.example.com/orders")))
		assert.Equal(t, 200, got.status, got.body)
	})
	t.Run("the port of a host that the proxy does not report has no effect", func(t *testing.T) {
		guard := newGuard(t, iss, withDPoP(t, iss), ofResource, func(cfg *middleware.Config) {
			cfg.Proxies = middleware.Proxies{Trusted: here, Forwarded: x, XForwardedPort: true}
		})
		got := do(t, "GET", serve(t, guard.Handler(hello))+"/orders", "", header("X-Forwarded-Port", "8443"), asDPoP(key, token, valetkeytest.Claim("htu", "https://api.example.com/orders")))
		assert.Equal(t, 200, got.status, got.body)
	})
	t.Run("slices of the Config are copied", func(t *testing.T) {
		trusted := prefixes("127.0.0.0/8")
		guard := newGuard(t, iss, withDPoP(t, iss), func(cfg *middleware.Config) {
			cfg.URL, cfg.Proxies = nil, middleware.Proxies{Trusted: trusted, Forwarded: x}
		})
		trusted[0] = prefixes("10.0.0.0/8")[0]
		got := do(t, "GET", serve(t, guard.Handler(hello))+"/orders", "", header("X-Forwarded-Proto", "https"), header("X-Forwarded-Host", "api.example.com"),
			asDPoP(key, token, valetkeytest.Claim("htu", "https://api.example.com/orders")))
		assert.Equal(t, 200, got.status, got.body)
	})
	t.Run("DPOP-20 the URL as configured", func(t *testing.T) {
		guard := newGuard(t, iss, withDPoP(t, iss), func(cfg *middleware.Config) {
			cfg.URL = func(r *http.Request) string { return "https://api.example.com" + r.URL.EscapedPath() }
		})
		api := serve(t, guard.Handler(hello)) + "/orders?page=2"
		assert.Equal(t, 401, do(t, "GET", api, "", asDPoP(key, token)).status)
		assert.Equal(t, 200, do(t, "GET", api, "", asDPoP(key, token, valetkeytest.Claim("htu", "https://api.example.com/orders"))).status)
	})
	t.Run("a host that ends early", func(t *testing.T) {
		guard := newGuard(t, iss, withDPoP(t, iss), func(cfg *middleware.Config) {
			cfg.URL, cfg.Proxies = nil, middleware.Proxies{Trusted: prefixes("192.0.2.1/32"), Forwarded: x}
		})
		r := httptest.NewRequest("GET", "/orders", nil) // from 192.0.2.1
		r.Header.Set("X-Forwarded-Host", "other.example.com/x?")
		key.Authorize(r, token, valetkeytest.Claim("htu", "http://other.example.com/x"))
		err := guard.Decide(r).Err()
		var refusal *valetkey.Error
		require.ErrorAs(t, err, &refusal)
		assert.Equal(t, valetkey.InvalidRequest, refusal.Code)
	})
	t.Run("another form of the request target", func(t *testing.T) {
		guard := newGuard(t, iss, withDPoP(t, iss), ofResource)
		for _, target := range []string{"https://api.example.com/orders?x=1", ""} {
			r := httptest.NewRequest("GET", "https://api.example.com/orders?x=1", nil)
			r.RequestURI = target
			key.Authorize(r, token)
			err := guard.Decide(r).Err()
			assert.NoError(t, err)
		}
	})
}

// A proxy has removed the beginning of the path, and listens on another port than 443.
func TestForwardedPortAndPrefix(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key := iss.ProofKey("ES256")
	token := iss.Token(valetkeytest.BoundTo(key))
	type headers = map[string]string
	for _, c := range []struct {
		name         string
		port, prefix bool // the options
		sent         headers
		htu          string
		status       int
	}{
		{"by default a port has no effect", false, false, headers{"Port": "8443"}, "https://api.example.com:8443/orders", 401},
		{"by default a prefix has no effect", false, false, headers{"Prefix": "/v1"}, "https://api.example.com/v1/orders", 401},
		{"an invalid port", true, false, headers{"Port": "0"}, "https://api.example.com/orders", 400},
		{"a port with a sign", true, false, headers{"Port": "+443"}, "https://api.example.com/orders", 400},
		{"a port that is too large", true, false, headers{"Port": "65536"}, "https://api.example.com/orders", 400},
		{"a port with a path", true, false, headers{"Port": "443/x"}, "https://api.example.com/orders", 400},
		{"ports of unknown proxies", true, false, headers{"Port": "8443, 80"}, "https://api.example.com:8443/orders", 400},
		{"another port", true, false, headers{"Port": "8443"}, "https://api.example.com/orders", 401},
		{"a prefix that is not a path", false, true, headers{"Prefix": "v1"}, "https://api.example.com/v1/orders", 400},
		{"a prefix with dots", false, true, headers{"Prefix": "/v1/.."}, "https://api.example.com/orders", 400},
		{"a prefix with a host", false, true, headers{"Prefix": "//evil.example"}, "https://api.example.com/orders", 400},
		{"a prefix with a query", false, true, headers{"Prefix": "/v1?x"}, "https://api.example.com/v1/orders", 400},
		{"a prefix with a backslash", false, true, headers{"Prefix": `/v1\x`}, "https://api.example.com/orders", 400},
		{"a prefix with a space", false, true, headers{"Prefix": "/v1 x"}, "https://api.example.com/v1%20x/orders", 400},
		{"a prefix beyond ASCII", false, true, headers{"Prefix": "/ü"}, "https://api.example.com/%C3%BC/orders", 400},
		{"prefixes of unknown proxies", false, true, headers{"Prefix": "/a, /b"}, "https://api.example.com/a/b/orders", 400},
		{"more prefixes than proxies", false, true, headers{"Prefix": "/evil, /a", "For": "192.0.2.1"}, "https://api.example.com/a/orders", 400},
		{"without the prefix", false, true, headers{"Prefix": "/v1"}, "https://api.example.com/orders", 401},

		{"a port", true, false, headers{"Port": "8443"}, "https://api.example.com:8443/orders", 200},
		{"the usual port", true, false, headers{"Port": "443"}, "https://api.example.com/orders", 200},
		{"a port of each proxy", true, false, headers{"Port": "8443, 80", "For": "192.0.2.1, 10.0.0.7"}, "https://api.example.com:8443/orders", 200},
		{"a port beside that of the host", true, false, headers{"Host": "api.example.com:8443", "Port": "80"}, "https://api.example.com:8443/orders", 200},
		{"a port of an IPv6 address", true, false, headers{"Host": "[2001:db8::1]", "Port": "8443"}, "https://[2001:db8::1]:8443/orders", 200},
		{"no port", true, false, nil, "https://api.example.com/orders", 200},
		{"a prefix", false, true, headers{"Prefix": "/v1"}, "https://api.example.com/v1/orders", 200},
		{"a prefix with a slash at its end", false, true, headers{"Prefix": "/v1/"}, "https://api.example.com/v1/orders", 200},
		{"a prefix that is the root", false, true, headers{"Prefix": "/"}, "https://api.example.com/orders", 200},
		{"a prefix of each proxy, the outermost first", false, true, headers{"Prefix": "/a, /b/c", "For": "192.0.2.1, 10.0.0.7"}, "https://api.example.com/a/b/c/orders", 200},
		{"a prefix of the outermost of two proxies", false, true, headers{"Prefix": "/a", "For": "192.0.2.1, 10.0.0.7"}, "https://api.example.com/a/orders", 200},
		{"all at once", true, true, headers{"Prefix": "/a", "Port": "8443"}, "https://api.example.com:8443/a/orders", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			guard := newGuard(t, iss, withDPoP(t, iss), func(cfg *middleware.Config) {
				cfg.URL, cfg.Proxies = nil, middleware.Proxies{Trusted: prefixes("127.0.0.0/8", "10.0.0.0/8"), Forwarded: middleware.XForwarded,
					XForwardedPort: c.port, XForwardedPrefix: c.prefix}
			})
			got := do(t, "GET", serve(t, guard.Handler(hello))+"/orders", "", func(r *http.Request) {
				r.Header["X-Forwarded-Proto"], r.Header["X-Forwarded-Host"] = []string{"https"}, []string{"api.example.com"}
				for name, value := range c.sent {
					r.Header["X-Forwarded-"+name] = []string{value}
				}
				key.Authorize(r, token, valetkeytest.Claim("htu", c.htu))
			})
			assert.Equal(t, c.status, got.status, got.body)
		})
	}
}

// ofResource takes the origin of proofs from the Resource.
func ofResource(c *middleware.Config) {
	c.URL, c.Resource = nil, middleware.Resource{ID: "https://api.example.com/v1"}
}

// A server that clients send proofs to, https://evil.example, uses them at the API, whose name it puts into no proof.
func TestHostDeterminesNoURL(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key := iss.ProofKey("ES256")
	token := iss.Token(valetkeytest.BoundTo(key))
	forwarded := func(c *middleware.Config) {
		c.URL, c.Proxies = nil, middleware.Proxies{Trusted: prefixes("10.0.0.0/8"), Forwarded: middleware.XForwarded}
	}
	certificates := func(c *middleware.Config) {
		c.ClientCertificate, c.Proxies = middleware.ClientCertHeader(), middleware.Proxies{Trusted: prefixes("127.0.0.0/8")}
	}
	fromProxy := func(c *middleware.Config) {
		forwarded(c)
		c.Proxies.Trusted = prefixes("127.0.0.0/8")
	}
	for _, c := range []struct {
		name   string
		change []func(*middleware.Config)
		htu    string
		header func(*http.Request)
		status int
		text   string
	}{
		{"DPOP-20 a proof for the host that the client names", []func(*middleware.Config){ofResource}, "https://evil.example/orders", nil, 401, "for another URL"},
		{"DPOP-20 the same over plain HTTP", []func(*middleware.Config){ofResource}, "http://evil.example/orders", nil, 401, "for another URL"},
		{"DPOP-20 a proof past the proxies that report the URL", []func(*middleware.Config){forwarded}, "http://evil.example/orders", nil, 401, "did not come through a proxy"},
		{"DPOP-20 a proof past the proxies, with a resource", []func(*middleware.Config){ofResource, forwarded}, "http://evil.example/orders", nil, 401, "for another URL"},
		{"DPOP-20 a proxy that reports the scheme alone, with a resource", []func(*middleware.Config){ofResource, fromProxy}, "https://evil.example/orders",
			header("X-Forwarded-Proto", "https"), 401, "for another URL"},
		{"DPOP-20 a header of proxies that report certificates alone", []func(*middleware.Config){ofResource, certificates}, "https://evil.example/orders",
			header("Forwarded", "proto=https;host=evil.example"), 401, "for another URL"},
		{"DPOP-20 a proof for the resource, past a header of proxies that report certificates alone", []func(*middleware.Config){ofResource, certificates}, "https://api.example.com/orders",
			header("Forwarded", "proto=https;host=evil.example"), 200, ""},
		{"DPOP-20 a proof for the resource", []func(*middleware.Config){ofResource}, "https://api.example.com/orders", nil, 200, ""},
		{"DPOP-20 a proof for the resource, past the proxies", []func(*middleware.Config){ofResource, forwarded}, "https://api.example.com/orders", nil, 200, ""},
		{"DPOP-20 a proxy that reports another host than that of the resource", []func(*middleware.Config){ofResource, fromProxy}, "https://www.example.com/orders",
			both(header("X-Forwarded-Proto", "https"), header("X-Forwarded-Host", "www.example.com")), 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			guard := newGuard(t, iss, append([]func(*middleware.Config){withDPoP(t, iss)}, c.change...)...)
			got := do(t, "GET", serve(t, guard.Handler(hello))+"/orders", "", func(r *http.Request) {
				r.Host = "evil.example"
				if c.header != nil {
					c.header(r)
				}
				key.Authorize(r, token, valetkeytest.Claim("htu", c.htu))
			})
			assert.Equal(t, c.status, got.status, got.body)
			assert.Contains(t, got.body, c.text)
		})
	}
}

func TestUnixSocket(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key := iss.ProofKey("ES256")
	token := iss.Token(valetkeytest.BoundTo(key))
	for _, c := range []struct {
		name    string
		proxies middleware.Proxies
		status  int
	}{
		{"DPOP-20 untrusted addresses", middleware.Proxies{Trusted: prefixes("127.0.0.0/8"), Forwarded: middleware.XForwarded}, 401},
		{"DPOP-20 they are trusted by name", middleware.Proxies{UnixSocket: true, Forwarded: middleware.XForwarded}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			listener, err := net.Listen("unix", path)
			require.NoError(t, err)
			guard := newGuard(t, iss, withDPoP(t, iss), func(cfg *middleware.Config) { cfg.URL, cfg.Proxies = nil, c.proxies })
			server := &http.Server{Handler: guard.Handler(hello)}
			go server.Serve(listener)
			t.Cleanup(func() { server.Close() })
			client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			}}}
			t.Cleanup(client.CloseIdleConnections)
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://socket/orders", nil)
			require.NoError(t, err)
			r.Header["X-Forwarded-Proto"], r.Header["X-Forwarded-Host"] = []string{"https"}, []string{"api.example.com"}
			key.Authorize(r, token, valetkeytest.Claim("htu", "https://api.example.com/orders"))
			resp, err := client.Do(r)
			require.NoError(t, err)
			resp.Body.Close()
			assert.Equal(t, c.status, resp.StatusCode)
		})
	}
}

// forwardedTo returns a guard behind proxies of this host, a token, and a proof for each of two hosts that can be used again.
func forwardedTo(f *testing.F, header middleware.Forwarding) (guard *middleware.Guard, token string, proofs map[string]string) {
	iss := valetkeytest.NewIssuer(f)
	key := iss.ProofKey("ES256")
	token = iss.Token(valetkeytest.BoundTo(key), valetkeytest.ExpiresIn(24*time.Hour)) // longer than a run of the targets
	start := iss.Now()
	still := func(c *dpop.Config) {
		c.ReplayStore, c.Now = dpop.InsecureAllowReplays{}, func() time.Time { return start }
	}
	guard = newGuard(f, iss, withDPoP(f, iss, still), func(cfg *middleware.Config) {
		cfg.URL, cfg.Proxies = nil, middleware.Proxies{Trusted: prefixes("127.0.0.0/8"), Forwarded: header}
	})
	proofs = map[string]string{}
	for _, host := range []string{"evil.example.com", "api.example.com"} {
		proofs[host] = key.Proof("GET", "https://"+host+"/orders", token)
	}
	return guard, token, proofs
}

// Whatever a client sends of Forwarded, it is never believed once the proxy has added its element, in the line or in one of
// its own.
func FuzzForwarded(f *testing.F) {
	guard, token, proofs := forwardedTo(f, middleware.Forwarded)
	check := func(host string, lines ...string) error {
		r := httptest.NewRequest("GET", "/orders", nil)
		r.RemoteAddr = "127.0.0.1:1"
		r.Header = http.Header{"Forwarded": lines, "Authorization": {"DPoP " + token}, "Dpop": {proofs[host]}}
		err := guard.Decide(r).Err()
		return err
	}
	f.Add("for=127.0.0.1;proto=https;host=evil.example.com")
	f.Add(`for="`)
	f.Add(`for=127.0.0.1;proto=https;host=evil.example.com,for="`)
	f.Add(",;=\"\\")
	f.Fuzz(func(t *testing.T, sent string) {
		for _, added := range []string{`for=192.0.2.1;proto=https;host=api.example.com`, `host="api.example.com";for="[2001:db8::1]:7";proto="https"`} {
			for _, lines := range [][]string{{sent + ", " + added}, {sent, added}} {
				if check("evil.example.com", lines...) == nil {
					t.Fatalf("%q: the client is believed", lines)
				}
				err := check("api.example.com", lines...)
				var refusal *valetkey.Error
				if err == nil {
					continue
				}
				if !assert.ErrorAs(t, err, &refusal) || refusal.Code != valetkey.InvalidRequest {
					t.Fatalf("%q: %v", lines, err)
				}
			}
		}
	})
}

// Whatever a client sends in X-Forwarded headers, a guard uses the values that two trusted proxies have added.
func FuzzXForwarded(f *testing.F) {
	guard, token, proofs := forwardedTo(f, middleware.XForwarded)
	f.Add("evil.example.com", "https", "127.0.0.1")
	f.Add("evil.example.com,evil.example.com", "https, https", "127.0.0.1, 127.0.0.1")
	f.Add(",", "", ",,")
	f.Fuzz(func(t *testing.T, host, proto, from string) {
		for want, proof := range proofs {
			r := httptest.NewRequest("GET", "/orders", nil)
			r.RemoteAddr = "127.0.0.1:1"
			r.Header = http.Header{"Authorization": {"DPoP " + token}, "Dpop": {proof}, "X-Forwarded-Host": {host + ", api.example.com", "inner"},
				"X-Forwarded-Proto": {proto, "https, http"}, "X-Forwarded-For": {from + ",192.0.2.1", "127.0.0.2"}}
			err := guard.Decide(r).Err()
			if want == "evil.example.com" && err == nil {
				t.Fatalf("%q, %q, %q: the client is believed", host, proto, from)
			}
			var refusal *valetkey.Error
			if want == "api.example.com" && err != nil && (!errors.As(err, &refusal) || refusal.Code != valetkey.InvalidRequest) {
				t.Fatalf("%q, %q, %q: %v", host, proto, from, err)
			}
		}
	})
}
