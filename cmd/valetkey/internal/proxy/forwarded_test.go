package proxy_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

// TestForwardingHeaders sends the headers as clients and proxies do. middleware has a test of each value.
func TestForwardingHeaders(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	const (
		clientOnly = "trusted_proxies: [10.0.0.0/8]\nforwarded_header: X-Forwarded\nforwarded_port: true\nforwarded_prefix: true"
		trusted    = "trusted_proxies: [127.0.0.1]\n"
	)
	xForwarded := []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: shop.example.com", "X-Forwarded-Proto: https", "X-Forwarded-Port: 8443", "X-Forwarded-Prefix: /shop"}
	forwarded := []string{"Forwarded: for=192.0.2.1;host=shop.example.com;proto=https"}
	rebuilt := map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "api.example.com", "X-Forwarded-Proto": "http", "X-Forwarded-Port": "80",
		"Forwarded": "for=127.0.0.1;host=api.example.com;proto=http"}
	var aliases []string
	for _, line := range append(xForwarded, forwarded...) {
		name, value, _ := strings.Cut(line, ":")
		if dot := strings.ReplaceAll(name, "-", "."); dot != name {
			aliases = append(aliases, strings.ReplaceAll(name, "-", "_")+":"+value, dot+":"+value)
		}
	}
	for _, c := range []struct {
		name, more string
		header     []string
		want       map[string]string
	}{
		{"without trusted proxies", "", append(xForwarded, forwarded...), rebuilt},
		{"from a client beside the proxies", clientOnly, append(xForwarded, forwarded...), rebuilt},
		{"aliases from a client", clientOnly, aliases, rebuilt},
		{"aliases from a trusted proxy", trusted + "forwarded_header: Forwarded", aliases, map[string]string{"Forwarded": rebuilt["Forwarded"]}},
		{"from a proxy that is trusted for a certificate only", trusted + "mtls: {header: X-Cert}", append(xForwarded, forwarded...), rebuilt},
		{"removed by Connection", trusted + "forwarded_header: Forwarded", append([]string{"Connection: Forwarded"}, forwarded...), map[string]string{
			"Forwarded": "for=192.0.2.1;host=shop.example.com;proto=https, " + rebuilt["Forwarded"]}},

		{"X-Forwarded from a trusted proxy", trusted + "forwarded_header: X-Forwarded", append(xForwarded, forwarded...), map[string]string{
			"X-Forwarded-For": "192.0.2.1, 127.0.0.1", "X-Forwarded-Host": "shop.example.com", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "443"}},
		{"with the port and the prefix", trusted + "forwarded_header: X-Forwarded\nforwarded_port: true\nforwarded_prefix: true", xForwarded, map[string]string{
			"X-Forwarded-For": "192.0.2.1, 127.0.0.1", "X-Forwarded-Host": "shop.example.com", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "8443", "X-Forwarded-Prefix": "/shop"}},
		{"Forwarded from a trusted proxy", trusted + "forwarded_header: Forwarded", append(xForwarded, forwarded...), map[string]string{
			"Forwarded": "for=192.0.2.1;host=shop.example.com;proto=https, " + rebuilt["Forwarded"]}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, upstream := guarded(t, iss, c.more)
			addr := start(t, config, slog.New(slog.DiscardHandler))
			res := send(t, addr, "GET /orders", append(c.header, "Authorization: Bearer "+iss.Token(valetkeytest.Scopes("orders:read")))...)
			require.Equal(t, 200, res.StatusCode)
			got := map[string]string{}
			for name, values := range upstream.take().Header {
				if folded := strings.ToUpper(name); strings.Contains(folded, "FORWARDED") {
					got[name] = strings.Join(values, "|")
				}
			}
			assert.Equal(t, c.want, got)
		})
	}
	t.Run("a prefix that this proxy removes", func(t *testing.T) {
		for more, want := range map[string]string{"": "/v1", trusted + "forwarded_header: X-Forwarded\nforwarded_prefix: true": "/shop/v1"} {
			config, upstream := guarded(t, iss, more)
			config = strings.NewReplacer("GET /orders", "GET /v1/orders", "upstream: ", "upstreams: [{prefix: /v1, strip_prefix: true, url: ", "\nresource:", "}]\nresource:").Replace(config)
			addr := start(t, config, slog.New(slog.DiscardHandler))
			res := send(t, addr, "GET /v1/orders", append(xForwarded, "Authorization: Bearer "+iss.Token(valetkeytest.Scopes("orders:read")))...)
			require.Equal(t, 200, res.StatusCode)
			r := upstream.take()
			assert.Equal(t, "/orders", r.RequestURI)
			assert.Equal(t, []string{want}, r.Header["X-Forwarded-Prefix"])
		}
	})
}
