package middleware_test

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey/middleware"
)

func TestForwardingHeaders(t *testing.T) {
	const (
		rfc = middleware.Forwarded
		x   = middleware.XForwarded
	)
	of := func(header middleware.Forwarding) middleware.Proxies {
		return middleware.Proxies{Trusted: prefixes("10.0.0.0/8", "fd00::/8"), Forwarded: header}
	}
	full := of(x)
	full.XForwardedPort, full.XForwardedPrefix = true, true
	none := middleware.Proxies{}
	socket := middleware.Proxies{UnixSocket: true, Forwarded: x}
	const stranger, lb = "192.0.2.1:5000", "10.0.0.7:5000"
	forged := []string{"X-Forwarded-For: 198.51.100.9", "X-Forwarded-Host: evil.example.com", "X-Forwarded-Proto: https", "X-Forwarded-Port: 1", "X-Forwarded-Prefix: /evil",
		"Forwarded: for=198.51.100.9;host=evil.example.com;proto=https"}
	rebuilt := []string{"Forwarded: for=192.0.2.1;host=api.example.com;proto=http", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}
	for _, c := range []struct {
		name    string
		proxies middleware.Proxies
		from    string
		host    string
		header  []string
		client  string
		want    []string
	}{
		{"a client that no proxy stands before", none, stranger, "", forged, "192.0.2.1", rebuilt},
		{"a client beside the proxies", full, stranger, "", forged, "192.0.2.1", rebuilt},
		{"a client beside proxies that set Forwarded", of(rfc), stranger, "", forged, "192.0.2.1", rebuilt},
		{"a trusted proxy that is not declared to set any", of(""), lb, "", forged, "10.0.0.7", []string{"Forwarded: for=10.0.0.7;host=api.example.com;proto=http", "X-Forwarded-For: 10.0.0.7",
			"X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
		{"a header that the trusted proxy does not set", of(x), lb, "", []string{"Forwarded: for=198.51.100.9", "X-Forwarded-Port: 1", "X-Forwarded-Prefix: /evil"}, "10.0.0.7", []string{
			"X-Forwarded-For: 10.0.0.7", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
		{"X-Forwarded beside Forwarded", of(rfc), lb, "", []string{"X-Forwarded-For: 198.51.100.9", "X-Forwarded-Host: evil.example.com", "Forwarded: for=192.0.2.1"}, "192.0.2.1", []string{
			"Forwarded: for=192.0.2.1, for=10.0.0.7;host=api.example.com;proto=http"}},
		{"addresses before that of the client", of(x), lb, "", []string{"X-Forwarded-For: 198.51.100.9, 192.0.2.1, 10.0.0.8"}, "192.0.2.1", []string{
			"X-Forwarded-For: 192.0.2.1, 10.0.0.8, 10.0.0.7", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
		{"elements before that of the client", of(rfc), lb, "", []string{"Forwarded: for=198.51.100.9;host=evil.example.com, for=192.0.2.1;proto=https", "Forwarded: for=10.0.0.8"}, "192.0.2.1", []string{
			"Forwarded: for=192.0.2.1;proto=https, for=10.0.0.8, for=10.0.0.7;host=api.example.com;proto=http"}},
		{"a client's values before those of the proxies", full, lb, "", []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: http, https", "X-Forwarded-Host: evil.example.com, shop.example.com"}, "192.0.2.1", []string{
			"X-Forwarded-For: 192.0.2.1, 10.0.0.7", "X-Forwarded-Host: shop.example.com", "X-Forwarded-Port: 443", "X-Forwarded-Proto: https"}},
		{"several values of unknown origin", of(x), lb, "", []string{"X-Forwarded-Proto: http, https"}, "10.0.0.7", []string{
			"X-Forwarded-For: 10.0.0.7", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
		{"an unknown scheme", of(x), lb, "", []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: gopher"}, "192.0.2.1", []string{
			"X-Forwarded-For: 192.0.2.1, 10.0.0.7", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
		{"an invalid host", of(x), lb, "", []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: a/b"}, "192.0.2.1", []string{
			"X-Forwarded-For: 192.0.2.1, 10.0.0.7", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
		{"a host with a space", of(x), lb, "", []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: a b"}, "192.0.2.1", []string{
			"X-Forwarded-For: 192.0.2.1, 10.0.0.7", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
		{"a host with DEL", of(x), lb, "", []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: a\x7f"}, "192.0.2.1", []string{
			"X-Forwarded-For: 192.0.2.1, 10.0.0.7", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
		{"a host beyond ASCII", of(x), lb, "", []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: ä.example"}, "192.0.2.1", []string{
			"X-Forwarded-For: 192.0.2.1, 10.0.0.7", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
		{"a prefix with DEL", full, lb, "", []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-Prefix: /v1\x7f"}, "192.0.2.1", []string{
			"X-Forwarded-For: 192.0.2.1, 10.0.0.7", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
		{"a malformed Forwarded", of(rfc), lb, "", []string{`Forwarded: for="192.0.2.1`}, "10.0.0.7", []string{"Forwarded: for=10.0.0.7;host=api.example.com;proto=http"}},
		{"a Host with a port that is too large", none, stranger, "api.example.com:70000", nil, "192.0.2.1", []string{"Forwarded: for=192.0.2.1;host=\"api.example.com:70000\";proto=http", "X-Forwarded-For: 192.0.2.1",
			"X-Forwarded-Host: api.example.com:70000", "X-Forwarded-Proto: http"}},
		{"a Host with an invalid port", none, stranger, "api.example.com:x", nil, "192.0.2.1", []string{"Forwarded: for=192.0.2.1;host=\"api.example.com:x\";proto=http", "X-Forwarded-For: 192.0.2.1",
			"X-Forwarded-Host: api.example.com:x", "X-Forwarded-Proto: http"}},

		{"a Host with the port 0", none, stranger, "api.example.com:0", nil, "192.0.2.1", []string{"Forwarded: for=192.0.2.1;host=\"api.example.com:0\";proto=http", "X-Forwarded-For: 192.0.2.1",
			"X-Forwarded-Host: api.example.com:0", "X-Forwarded-Proto: http"}},
		{"a Host with two ports", none, stranger, "api.example.com:1:2", nil, "192.0.2.1", []string{"Forwarded: for=192.0.2.1;host=\"api.example.com:1:2\";proto=http", "X-Forwarded-For: 192.0.2.1",
			"X-Forwarded-Host: api.example.com:1:2", "X-Forwarded-Proto: http"}},
		{"an invalid host in Forwarded", of(rfc), lb, "", []string{`Forwarded: for=192.0.2.1;host="a/b"`}, "192.0.2.1", []string{
			"Forwarded: for=192.0.2.1, for=10.0.0.7;host=api.example.com;proto=http"}},

		{"an IPv4 address with a port", of(rfc), lb, "", []string{`Forwarded: for="192.0.2.1:4711"`}, "192.0.2.1", []string{
			`Forwarded: for="192.0.2.1:4711", for=10.0.0.7;host=api.example.com;proto=http`}},
		{"a proxy with an IPv4 address in IPv6", of(x), "[::ffff:10.0.0.7]:5000", "", []string{"X-Forwarded-For: 192.0.2.1, ::ffff:10.0.0.8"}, "192.0.2.1", []string{
			"X-Forwarded-For: 192.0.2.1, ::ffff:10.0.0.8, 10.0.0.7", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
		{"a proxy with an address in a zone", of(x), "[fd00::7%eth0]:5000", "", []string{"X-Forwarded-For: 192.0.2.1"}, "192.0.2.1", []string{
			"X-Forwarded-For: 192.0.2.1, fd00::7", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
		{"all senders are proxies", of(x), lb, "", []string{"X-Forwarded-For: 10.0.0.9, 10.0.0.8"}, "10.0.0.9", []string{
			"X-Forwarded-For: 10.0.0.9, 10.0.0.8, 10.0.0.7", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
		{"the trusted proxies report all", full, lb, "internal", []string{"X-Forwarded-For: 192.0.2.1, 10.0.0.8", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example.com", "X-Forwarded-Port: 8443", "X-Forwarded-Prefix: /a, /b"}, "192.0.2.1", []string{
			"X-Forwarded-For: 192.0.2.1, 10.0.0.8, 10.0.0.7", "X-Forwarded-Host: shop.example.com", "X-Forwarded-Port: 8443", "X-Forwarded-Prefix: /a/b", "X-Forwarded-Proto: https"}},
		{"a port in the host", full, lb, "internal", []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example.com:444", "X-Forwarded-Port: 8443"}, "192.0.2.1", []string{
			"X-Forwarded-For: 192.0.2.1, 10.0.0.7", "X-Forwarded-Host: shop.example.com:444", "X-Forwarded-Port: 444", "X-Forwarded-Proto: https"}},
		{"a WebSocket through Traefik", of(x), lb, "", []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: wss"}, "192.0.2.1", []string{
			"X-Forwarded-For: 192.0.2.1, 10.0.0.7", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 443", "X-Forwarded-Proto: https"}},
		{"addresses of IPv6", of(rfc), "[fd00::7]:5000", "[2001:db8::1]:8080", []string{`Forwarded: for="[2001:db8::9]:1"`}, "2001:db8::9", []string{
			`Forwarded: for="[2001:db8::9]", for="[fd00::7]";host="[2001:db8::1]:8080";proto=http`}},
		{"an IPv4 address in IPv6", none, "[::ffff:192.0.2.1]:5000", "", nil, "192.0.2.1", rebuilt},
		{"a name for the client", of(rfc), lb, "", []string{"Forwarded: for=_hidden"}, "10.0.0.7", []string{"Forwarded: for=_hidden, for=10.0.0.7;host=api.example.com;proto=http"}},
		{"a unix socket", socket, "@", "", []string{"X-Forwarded-For: 192.0.2.1"}, "192.0.2.1", []string{
			"X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
		{"a unix socket that has no name", socket, "", "", []string{"X-Forwarded-For: 192.0.2.1"}, "192.0.2.1", []string{
			"X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
		{"a unix socket that is not trusted", none, "@", "", forged, "invalid IP", []string{"Forwarded: for=unknown;host=api.example.com;proto=http",
			"X-Forwarded-Host: api.example.com", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "http://api.example.com/orders", nil)
			r.RemoteAddr = c.from
			if c.host != "" {
				r.Host = c.host
			}
			for _, line := range c.header {
				name, value, _ := strings.Cut(line, ": ")
				r.Header.Add(name, value)
			}
			var got []string
			header := c.proxies.ForwardingHeaders(r)
			for _, name := range slices.Sorted(maps.Keys(header)) {
				for _, value := range header[name] {
					got = append(got, name+": "+value)
				}
			}
			assert.Equal(t, c.want, got)
			assert.Equal(t, c.client, c.proxies.ClientAddr(r).String())
		})
	}
	t.Run("a request without a Host has no X-Forwarded-Host", func(t *testing.T) {
		r := httptest.NewRequest("GET", "http://api.example.com/orders", nil)
		r.Host = ""
		header := none.ForwardingHeaders(r)
		assert.NotContains(t, header, "X-Forwarded-Host")
		assert.Equal(t, "for=192.0.2.1;proto=http", header.Get("Forwarded"))
	})
	t.Run("TLS", func(t *testing.T) {
		r := httptest.NewRequest("GET", "http://api.example.com/orders", nil)
		r.TLS = &tls.ConnectionState{}
		header := none.ForwardingHeaders(r)
		assert.Equal(t, "https 443 for=192.0.2.1;host=api.example.com;proto=https",
			fmt.Sprintf("%s %s %s", header.Get("X-Forwarded-Proto"), header.Get("X-Forwarded-Port"), header.Get("Forwarded")))
	})
	t.Run("what a reverse proxy sends is what the next one reads", func(t *testing.T) {
		for _, header := range []middleware.Forwarding{rfc, x} {
			first := httptest.NewRequest("GET", "http://shop.example.com:8080/orders", nil)
			first.RemoteAddr = "[2001:db8::9]:1"
			second := httptest.NewRequest("GET", "http://internal/orders", nil)
			second.RemoteAddr, second.Header = lb, http.Header(none.ForwardingHeaders(first))
			third := httptest.NewRequest("GET", "http://deep.internal/orders", nil)
			third.RemoteAddr, third.Header = "10.0.0.8:1", of(header).ForwardingHeaders(second)
			assert.Equal(t, "2001:db8::9", of(header).ClientAddr(third).String(), header)
			if header == x {
				assert.Equal(t, "shop.example.com:8080", third.Header.Get("X-Forwarded-Host"))
				assert.Equal(t, "8080", third.Header.Get("X-Forwarded-Port"))
			}
		}
	})
}
