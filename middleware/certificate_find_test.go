package middleware_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestFindCertificate(t *testing.T) {
	own := valetkeytest.ClientCertificate(t).Certificate[0]
	proxies := middleware.Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}} // as httptest.NewRequest has it
	told := httptest.NewRequest("POST", "/", nil)
	told.Header.Set("Client-Cert", ":"+base64.StdEncoding.EncodeToString(own)+":")
	shown := httptest.NewRequest("POST", "/", nil)
	shown.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: own}}}

	der, err := middleware.ClientCertHeader().Find(told, middleware.Proxies{})
	require.NoError(t, err)
	assert.Nil(t, der, "no proxy is trusted")
	der, err = middleware.ClientCertHeader().Find(shown, proxies)
	require.NoError(t, err)
	assert.Nil(t, der, "the certificate is that of the proxy")
	der, err = middleware.ClientCertHeader().Find(told, proxies)
	require.NoError(t, err)
	assert.Equal(t, own, der)
	der, err = middleware.TLSCertificate().Find(shown, middleware.Proxies{})
	require.NoError(t, err)
	assert.Equal(t, own, der)

	told.Header.Set("Client-Cert", "x")
	_, err = middleware.ClientCertHeader().Find(told, proxies)
	var refusal *valetkey.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, valetkey.InvalidRequest, refusal.Code)
}

// Whatever a proxy sends, Find returns one well-formed certificate, or refuses.
func FuzzFindCertificate(f *testing.F) {
	own := valetkeytest.ClientCertificate(f).Certificate[0]
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own}))
	der := base64.StdEncoding.EncodeToString(own)
	for _, seed := range []string{
		":" + der + ":", text, url.PathEscape(text), strings.ReplaceAll(text, "\n", " "), strings.ReplaceAll(text, "\n", ""), der, der + "," + der, url.QueryEscape(der),
		`By=x;Hash=00;Cert="` + url.PathEscape(text) + `";Subject="CN=\"a\""`, `By=x,Cert=` + url.PathEscape(text), `Hash=` + strings.Repeat("a", 64), `By="`, `a="\`, "=", "a=b;", "%", ":AAAA:",
	} {
		f.Add(seed)
	}
	proxies := middleware.Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}
	places := map[string]middleware.ClientCertificate{
		"Client-Cert": middleware.ClientCertHeader(), "Pem": middleware.PEMHeader("pem"), "Der": middleware.DERHeader("der"), "X-Forwarded-Client-Cert": middleware.XFCCHeader(),
	}
	f.Fuzz(func(t *testing.T, value string) {
		for header, place := range places {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header[header] = []string{value}
			der, err := place.Find(r, proxies)
			if err != nil {
				var refusal *valetkey.Error
				if !errors.As(err, &refusal) || refusal.Code != valetkey.InvalidRequest || der != nil {
					t.Fatalf("%s: %v, %v", header, der, err)
				}
				continue
			}
			certificates, err := x509.ParseCertificates(der)
			if err != nil || len(certificates) != 1 {
				t.Fatalf("%s: %q has %d certificates: %v", header, value, len(certificates), err)
			}
		}
	})
}

// A digest proves which certificate a client has, but a token endpoint has to know the certificate.
func TestFindCertificateNeedsMoreThanADigest(t *testing.T) {
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("X-Forwarded-Client-Cert", "Hash="+strings.Repeat("a", 64))
	der, err := middleware.XFCCHeader().Find(r, middleware.Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}})
	assert.Nil(t, der)
	var refusal *valetkey.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, valetkey.InvalidRequest, refusal.Code)
}

func TestTheZeroClientCertificateIsNoPlace(t *testing.T) {
	assert.True(t, middleware.ClientCertificate{}.IsZero())
	for _, place := range []middleware.ClientCertificate{middleware.TLSCertificate(), middleware.ClientCertHeader(), middleware.PEMHeader("a"), middleware.DERHeader("a"), middleware.XFCCHeader()} {
		assert.False(t, place.IsZero())
	}
}
