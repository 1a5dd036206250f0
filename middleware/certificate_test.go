package middleware_test

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
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

// A tlsServer asks its clients for any certificate, and for whose does not matter to it.
type tlsServer struct{ *httptest.Server }

func serveTLS(t *testing.T, h http.Handler) tlsServer {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return tlsServer{server}
}

// client returns a client with its own connections, and with the certificate unless that is nil.
func (s tlsServer) client(t *testing.T, certificate *tls.Certificate) *http.Client {
	t.Helper()
	transport := s.Client().Transport.(*http.Transport).Clone()
	if certificate != nil {
		transport.TLSClientConfig.Certificates = []tls.Certificate{*certificate}
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (s tlsServer) get(t *testing.T, token string, certificate *tls.Certificate, change ...func(*http.Request)) answer {
	t.Helper()
	return s.getWith(t, s.client(t, certificate), append([]func(*http.Request){asBearer(token)}, change...)...)
}

func (s tlsServer) getWith(t *testing.T, client *http.Client, change ...func(*http.Request)) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
	require.NoError(t, err)
	for _, f := range change {
		f(r)
	}
	resp, err := client.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 2, resp.ProtoMajor)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func TestClientCertificate(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	mine, other := valetkeytest.ClientCertificate(t), valetkeytest.ClientCertificate(t)
	token := iss.Token(valetkeytest.BoundToCertificate(mine))
	s := serveTLS(t, newGuard(t, iss, func(c *middleware.Config) { c.ClientCertificate = middleware.TLSCertificate() }).Handler(hello))
	bound := func(thumbprint string) string {
		return iss.Token(valetkeytest.Claim("cnf", map[string]string{"x5t#S256": thumbprint}))
	}
	sum := sha256.Sum256(mine.Certificate[0])
	for _, c := range []struct {
		name, token string
		certificate *tls.Certificate
		status      int
	}{
		{"MTLS-02 another certificate", token, &other, 401},
		{"MTLS-09 a certificate that was renewed", token, &other, 401},
		{"MTLS-03 no certificate", token, nil, 401},
		{"MTLS-05 the thumbprint with padding", bound(base64.URLEncoding.EncodeToString(sum[:])), &mine, 401},
		{"MTLS-05 the thumbprint in hex", bound(hex.EncodeToString(sum[:])), &mine, 401},
		{"MTLS-05 a thumbprint of the length of SHA-1", bound(base64.RawURLEncoding.EncodeToString(sum[:20])), &mine, 401},
		{"MTLS-01, MTLS-04, MTLS-07, AUD-06 the certificate, which only its own key has signed", bound(base64.RawURLEncoding.EncodeToString(sum[:])), &mine, 200},
		{"a token bound to nothing, with a certificate", iss.Token(), &mine, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // a new token, and a remembered one
				got := s.get(t, c.token, c.certificate)
				assert.Equal(t, c.status, got.status, got.body)
				if c.status == 401 {
					reason := valetkey.ReasonCertificate
					if c.certificate == nil {
						reason = valetkey.ReasonNoCertificate
					}
					challenge := valetkeytest.Challenge(t, got.header, "Bearer")
					assert.Equal(t, "invalid_token", challenge["error"])
					if len(c.token) == len(token) { // the thumbprint has the right form
						assert.Equal(t, reason.Description(), challenge["error_description"])
					}
				}
			}
		})
	}
	t.Run("MTLS-03 no source of certificates is configured", func(t *testing.T) {
		s := serveTLS(t, newGuard(t, iss).Handler(hello))
		got := s.get(t, token, &mine)
		assert.Equal(t, 401, got.status)
		assert.Equal(t, "invalid_token", valetkeytest.Challenge(t, got.header, "Bearer")["error"])
	})
	t.Run("VCACHE-09 a remembered token over a connection with another certificate", func(t *testing.T) {
		assert.Equal(t, 200, s.get(t, token, &mine).status)
		assert.Equal(t, 401, s.get(t, token, &other).status)
	})
	t.Run("MTLS-12 each of many requests on one connection", func(t *testing.T) {
		client, reused := s.client(t, &mine), 0
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
			if info.Reused {
				reused++
			}
		}}
		traced := func(r *http.Request) { *r = *r.WithContext(httptrace.WithClientTrace(r.Context(), trace)) }
		others := iss.Token(valetkeytest.BoundToCertificate(other))
		for range 3 {
			assert.Equal(t, 200, s.getWith(t, client, asBearer(token), traced).status)
			assert.Equal(t, 401, s.getWith(t, client, asBearer(others), traced).status)
			assert.Equal(t, 200, s.getWith(t, client, asBearer(iss.Token()), traced).status)
		}
		assert.Equal(t, 8, reused)
	})
	t.Run("DPOP-33 the certificate of a token, and the scheme DPoP", func(t *testing.T) {
		s := serveTLS(t, newGuard(t, iss, withDPoP(t, iss), func(c *middleware.Config) { c.ClientCertificate = middleware.TLSCertificate() }).Handler(hello))
		got := s.get(t, token, &mine, atRoot, asDPoP(iss.ProofKey("ES256"), token))
		assert.Equal(t, 401, got.status)
		assertError(t, got.header, "DPoP", "invalid_token")
	})
	t.Run("MTLS-13 a key and a certificate: both count", func(t *testing.T) {
		key := iss.ProofKey("ES256")
		s := serveTLS(t, newGuard(t, iss, withDPoP(t, iss), func(c *middleware.Config) { c.ClientCertificate = middleware.TLSCertificate() }).Handler(hello))
		token := iss.Token(valetkeytest.Claim("cnf", map[string]string{"jkt": key.Thumbprint(), "x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}))
		assert.Equal(t, 401, s.get(t, token, &mine).status, "the certificate alone")
		assert.Equal(t, 401, s.get(t, token, nil, atRoot, asDPoP(key, token)).status, "the key alone")
		assert.Equal(t, 401, s.get(t, token, &other, atRoot, asDPoP(key, token)).status)
		assert.Equal(t, 401, s.get(t, token, &mine, atRoot, asDPoP(iss.ProofKey("ES256"), token)).status)
		assert.Equal(t, 200, s.get(t, token, &mine, atRoot, asDPoP(key, token)).status)
	})
}

func atRoot(r *http.Request) { r.URL.Path = "/" }

func TestClientCertificateFromProxy(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	mine, other := valetkeytest.ClientCertificate(t), valetkeytest.ClientCertificate(t)
	token := iss.Token(valetkeytest.BoundToCertificate(mine))
	item := func(c tls.Certificate) string { return ":" + base64.StdEncoding.EncodeToString(c.Certificate[0]) + ":" }
	escaped := func(c tls.Certificate) string {
		return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})))
	}
	oneLine := func(c tls.Certificate, lineBreak string) string {
		text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))
		return strings.ReplaceAll(strings.TrimSpace(text), "\n", lineBreak)
	}
	padded := func(text string, size int) string { // with spaces before its last marker
		return strings.Replace(text, "-----END", strings.Repeat(" ", size-len(text))+"-----END", 1)
	}
	der := func(c tls.Certificate) string { return base64.StdEncoding.EncodeToString(c.Certificate[0]) }
	hash := func(c tls.Certificate) string { return fmt.Sprintf("%x", sha256.Sum256(c.Certificate[0])) }
	element := func(c tls.Certificate) string { // as Envoy writes it, with all its details
		return `By=spiffe://example.com/api;Hash=` + hash(c) + `;Cert="` + escaped(c) + `";Chain="` + escaped(c) + escaped(other) + `";Subject="O=a \"b\", c;CN=x";URI=spiffe://example.com/client;DNS=a.example;DNS=b.example`
	}
	rfc, traefik, envoy := middleware.ClientCertHeader(), middleware.DERHeader("X-Forwarded-Tls-Client-Cert"), middleware.XFCCHeader()
	nginx := middleware.PEMHeader("ssl-client-cert")
	const rfcHeader, nginxHeader, traefikHeader, envoyHeader = "Client-Cert", "Ssl-Client-Cert", "X-Forwarded-Tls-Client-Cert", "X-Forwarded-Client-Cert"
	here, elsewhere := "127.0.0.0/8", "10.0.0.0/8"
	for _, c := range []struct {
		name      string
		from      middleware.ClientCertificate
		proxies   string
		send      sender
		status    int
		errorCode string
	}{
		{"MTLS-10, AUD-08 from an untrusted peer", rfc, elsewhere, header(rfcHeader, item(mine)), 401, "invalid_token"},
		{"MTLS-10, AUD-08 escaped, from an address that is not a trusted proxy", nginx, elsewhere, header(nginxHeader, escaped(mine)), 401, "invalid_token"},
		{"MTLS-10 the header of the other kind", nginx, here, header(rfcHeader, item(mine)), 401, "invalid_token"},
		{"MTLS-11 twice", rfc, here, header(rfcHeader, item(mine), item(mine)), 400, "invalid_request"},
		{"MTLS-11 twice in one line", rfc, here, header(rfcHeader, item(mine)+", "+item(mine)), 400, "invalid_request"},
		{"MTLS-11 no colons", rfc, here, header(rfcHeader, strings.Trim(item(mine), ":")), 400, "invalid_request"},
		{"MTLS-11 no first colon", rfc, here, header(rfcHeader, strings.TrimPrefix(item(mine), ":")), 400, "invalid_request"},
		{"MTLS-11 no last colon", rfc, here, header(rfcHeader, strings.TrimSuffix(item(mine), ":")), 400, "invalid_request"},
		{"MTLS-11 a letter for the first colon", rfc, here, header(rfcHeader, "A"+item(mine)[1:]), 400, "invalid_request"},
		{"MTLS-11 a letter for the last colon", rfc, here, header(rfcHeader, strings.TrimSuffix(item(mine), ":")+"A"), 400, "invalid_request"},
		{"MTLS-11 one colon", rfc, here, header(rfcHeader, ":"), 400, "invalid_request"},
		{"MTLS-11 not base64", rfc, here, header(rfcHeader, ":%:"), 400, "invalid_request"},
		{"MTLS-11 PEM in place of an item", rfc, here, header(rfcHeader, escaped(mine)), 400, "invalid_request"},
		{"MTLS-11 escaped twice", nginx, here, header(nginxHeader, escaped(mine)+escaped(mine)), 400, "invalid_request"},
		{"MTLS-11 an invalid escape", nginx, here, header(nginxHeader, escaped(mine)+"%zz"), 400, "invalid_request"},
		{"MTLS-11 PEM of something else", nginx, here, header(nginxHeader, strings.ReplaceAll(escaped(mine), "CERTIFICATE", "PUBLIC%20KEY")), 400, "invalid_request"},
		{"MTLS-11 an empty header", nginx, here, header(nginxHeader, ""), 400, "invalid_request"},
		{"MTLS-11 in one line, and another in the next", nginx, here, header(nginxHeader, oneLine(mine, " ")+" "+oneLine(mine, " ")), 400, "invalid_request"},
		{"MTLS-11 in one line, without its end", nginx, here, header(nginxHeader, strings.TrimSuffix(oneLine(mine, " "), "-----END CERTIFICATE-----")), 400, "invalid_request"},
		{"MTLS-11 in one line, without its beginning", nginx, here, header(nginxHeader, strings.TrimPrefix(oneLine(mine, " "), "-----BEGIN CERTIFICATE-----")), 400, "invalid_request"},
		{"MTLS-11 markers around nothing", nginx, here, header(nginxHeader, "-----BEGIN CERTIFICATE----- -----END CERTIFICATE-----"), 400, "invalid_request"},
		{"MTLS-11 a header of more than 64 KiB", nginx, here, header(nginxHeader, padded(oneLine(mine, " "), 64<<10+1)), 400, "invalid_request"},
		{"MTLS-11 base64, an invalid escape", traefik, here, header(traefikHeader, der(mine)+"%zz"), 400, "invalid_request"},
		{"MTLS-10 base64, from an address that is not a trusted proxy", traefik, elsewhere, header(traefikHeader, der(mine)), 401, "invalid_token"},
		{"MTLS-11 base64, nothing", traefik, here, header(traefikHeader, ""), 400, "invalid_request"},
		{"MTLS-11 base64, PEM", traefik, here, header(traefikHeader, oneLine(mine, "")), 400, "invalid_request"},
		{"MTLS-11 base64, of URLs", traefik, here, header(traefikHeader, base64.URLEncoding.EncodeToString([]byte{251, 255})), 400, "invalid_request"},
		{"MTLS-11 base64, nothing before a comma", traefik, here, header(traefikHeader, ","+der(mine)), 400, "invalid_request"},
		{"MTLS-11 base64, two lines", traefik, here, header(traefikHeader, der(mine), der(mine)), 400, "invalid_request"},
		{"MTLS-02 base64, the client's is the first of a chain", traefik, here, header(traefikHeader, der(other)+","+der(mine)), 401, "invalid_token"},
		{"MTLS-10 XFCC, from an address that is not a trusted proxy", envoy, elsewhere, header(envoyHeader, element(mine)), 401, "invalid_token"},
		{"MTLS-11 XFCC, nothing", envoy, here, header(envoyHeader, ""), 400, "invalid_request"},
		{"MTLS-11 XFCC, two lines", envoy, here, header(envoyHeader, element(mine), element(mine)), 400, "invalid_request"},
		{"MTLS-11 XFCC, neither Cert nor Hash", envoy, here, header(envoyHeader, "By=x;URI=y"), 400, "invalid_request"},
		{"MTLS-11 XFCC, a certificate and then nothing", envoy, here, header(envoyHeader, element(mine)+","), 400, "invalid_request"},
		{"MTLS-11 XFCC, a pair without a value", envoy, here, header(envoyHeader, "Hash;"+element(mine)), 400, "invalid_request"},
		{"MTLS-11 XFCC, a name without a value", envoy, here, header(envoyHeader, "x;"+element(mine)), 400, "invalid_request"},
		{"MTLS-11 XFCC, a value without a name", envoy, here, header(envoyHeader, "=x;"+element(mine)), 400, "invalid_request"},
		{"MTLS-11 XFCC, a digest and then a name without a value", envoy, here, header(envoyHeader, "Hash="+hash(mine)+";x"), 400, "invalid_request"},
		{"MTLS-11 XFCC, an element in a URI of the client's certificate, where the proxy sends no digest", envoy, here,
			header(envoyHeader, "By=spiffe://x;URI=https://c,Hash="+hash(mine)), 400, "invalid_request"},
		{"MTLS-11 XFCC, an element after a quoted value, where the proxy sends no digest", envoy, here,
			header(envoyHeader, `Subject="CN=x",Hash=`+hash(mine)), 400, "invalid_request"},
		{"MTLS-11 XFCC, two certificates in an element", envoy, here, header(envoyHeader, element(mine)+`;cert="`+escaped(mine)+`"`), 400, "invalid_request"},
		{"MTLS-11 XFCC, a short digest", envoy, here, header(envoyHeader, "Hash="+hash(mine)[:62]), 400, "invalid_request"},
		{"MTLS-11 XFCC, a long digest", envoy, here, header(envoyHeader, "Hash="+hash(mine)+"00"), 400, "invalid_request"},
		{"MTLS-11 XFCC, a digest before something else", envoy, here, header(envoyHeader, "Hash="+hash(mine)+"zz"), 400, "invalid_request"},
		{"MTLS-11 XFCC, an open quote", envoy, here, header(envoyHeader, `Cert="`+escaped(mine)), 400, "invalid_request"},
		{"MTLS-11 XFCC, an open quote after the digest", envoy, here, header(envoyHeader, `Hash=`+hash(mine)+`;By="x`), 400, "invalid_request"},
		{"MTLS-11 XFCC, an open quote of the client", envoy, here, header(envoyHeader, `By=",`+element(mine)), 400, "invalid_request"},
		{"MTLS-11 XFCC, an open quote of the client that the subject closes", envoy, here,
			header(envoyHeader, `By=",Hash=`+hash(other)+`;Subject="CN=a\",Cert=`+escaped(mine)+`;x=\""`), 400, "invalid_request"},
		{"MTLS-11 XFCC, two elements, of which the client may have written the first", envoy, here, header(envoyHeader, element(other)+", "+element(mine)), 400, "invalid_request"},
		{"MTLS-11 XFCC, an element in a URI of the client's certificate", envoy, here,
			header(envoyHeader, `By=spiffe://x;Hash=`+hash(other)+`;Subject="";URI=https://c,Hash=`+hash(mine)), 400, "invalid_request"},
		{"MTLS-11 XFCC, a digest in a URI of the client's certificate", envoy, here,
			header(envoyHeader, `Hash=`+hash(other)+`;URI=https://c;Hash=`+hash(mine)), 400, "invalid_request"},
		{"MTLS-11 XFCC, a certificate in a URI of the client's certificate", envoy, here,
			header(envoyHeader, `Hash=`+hash(other)+`;URI=https://c;Cert=`+escaped(mine)), 400, "invalid_request"},
		{"MTLS-11 XFCC, an empty digest before another one", envoy, here, header(envoyHeader, "Hash=;URI=https://c;Hash="+hash(mine)), 400, "invalid_request"},
		{"MTLS-11 XFCC, a quote within a value", envoy, here, header(envoyHeader, `By=a"b;`+element(mine)), 400, "invalid_request"},
		{"MTLS-11 XFCC, the client's own element before that of the proxy", envoy, here, header(envoyHeader, element(mine)+","+element(other)), 400, "invalid_request"},
		{"MTLS-02 XFCC, a certificate in the subject", envoy, here, header(envoyHeader, `Hash=`+hash(other)+`;Subject="CN=a,Cert=`+escaped(mine)+`"`), 401, "invalid_token"},
		{"MTLS-02 another certificate", rfc, here, header(rfcHeader, item(other)), 401, "invalid_token"},
		{"MTLS-02 another certificate, escaped", nginx, here, header(nginxHeader, escaped(other)), 401, "invalid_token"},
		{"MTLS-03 none", rfc, here, func(*http.Request) {}, 401, "invalid_token"},
		{"MTLS-10 from a proxy", rfc, here, header(rfcHeader, item(mine)), 200, ""},
		{"MTLS-10 from a proxy, escaped", nginx, here, header(nginxHeader, escaped(mine)), 200, ""},
		{"MTLS-10 in one line, with spaces", nginx, here, header(nginxHeader, oneLine(mine, " ")), 200, ""},
		{"MTLS-10 a header of 64 KiB", nginx, here, header(nginxHeader, padded(oneLine(mine, " "), 64<<10)), 200, ""},
		{"MTLS-10 in one line, with tabs", nginx, here, header(nginxHeader, oneLine(mine, "\t")), 200, ""},
		{"MTLS-10 in one line, with nothing", nginx, here, header(nginxHeader, oneLine(mine, "")), 200, ""},
		{"MTLS-10 in one line, escaped and with the line breaks of Windows", nginx, here, header(nginxHeader, url.PathEscape(oneLine(mine, "\r\n")+"\r\n")), 200, ""},
		{"MTLS-10 base64", traefik, here, header(traefikHeader, der(mine)), 200, ""},
		{"MTLS-10 base64, a chain", traefik, here, header(traefikHeader, der(mine)+","+der(other)), 200, ""},
		{"MTLS-10 base64, a chain as older versions of Traefik send it", traefik, here, header(traefikHeader, url.QueryEscape(der(mine)+","+der(other))), 200, ""},
		{"MTLS-10 XFCC", envoy, here, header(envoyHeader, element(mine)), 200, ""},
		{"MTLS-10 XFCC, the certificate alone, without quotes", envoy, here, header(envoyHeader, "cert="+escaped(mine)), 200, ""},
		{"MTLS-10 XFCC, an empty value before the digest", envoy, here, header(envoyHeader, "By=;Hash="+hash(mine)), 200, ""},
		{"MTLS-10 XFCC, the digest alone, as by default", envoy, here, header(envoyHeader, "By=spiffe://x;Hash="+hash(mine)+`;Subject="";URI=`), 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			api := serve(t, newGuard(t, iss, func(cfg *middleware.Config) {
				cfg.ClientCertificate = c.from
				cfg.Proxies.Trusted = []netip.Prefix{netip.MustParsePrefix(c.proxies)}
			}).Handler(hello))
			got := do(t, "GET", api, "Bearer "+token, c.send)
			assert.Equal(t, c.status, got.status, got.body)
			if c.errorCode != "" {
				assert.Equal(t, c.errorCode, valetkeytest.Challenge(t, got.header, "Bearer")["error"])
			}
		})
	}
	t.Run("MTLS-10 where proxies report it, the certificate of the connection does not count", func(t *testing.T) {
		s := serveTLS(t, newGuard(t, iss, func(c *middleware.Config) {
			c.ClientCertificate = rfc
			c.Proxies.Trusted = []netip.Prefix{netip.MustParsePrefix(here)}
		}).Handler(hello))
		assert.Equal(t, 401, s.get(t, token, &mine).status)
	})
}
