package middleware

import (
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/valetkey/valetkey"
)

// A ClientCertificate specifies where a guard finds the certificate of the client (RFC 8705). The zero value specifies no place.
type ClientCertificate struct {
	decode func(value string) ([]byte, error) // decodes the header; nil: no header is read
	header string                             // the canonical name of the header that proxies set
	inTLS  bool
}

// TLSCertificate returns a ClientCertificate for the certificate of the TLS connection to this server. The tls.Config of the
// server must request it. RequestClientCert or RequireAnyClientCert is sufficient, because a token is bound to one certificate,
// not to its issuer.
func TLSCertificate() ClientCertificate { return ClientCertificate{inTLS: true} }

// ClientCertHeader returns a ClientCertificate for the header Client-Cert (RFC 9440), which a proxy of Config.Proxies sets. It is
// ignored in other requests. The proxy must remove the header from requests of clients that have no certificate.
func ClientCertHeader() ClientCertificate {
	return ClientCertificate{decode: byteSequence, header: "Client-Cert"}
}

// PEMHeader returns a ClientCertificate for a header that contains a percent-encoded certificate in PEM, such as the
// $ssl_client_escaped_cert of nginx. The rules of [ClientCertHeader] apply.
func PEMHeader(header string) ClientCertificate {
	return ClientCertificate{decode: escapedPEM, header: http.CanonicalHeaderKey(header)}
}

// IsZero reports whether cc specifies no place.
func (cc ClientCertificate) IsZero() bool { return !cc.inTLS && cc.decode == nil }

// Find returns the client certificate of r in DER, or nil if there is none. It is for code other than a guard, such as a token
// endpoint (RFC 8705, section 3). It reads a header only if one of proxies sent the request. The error is a [valetkey.Error] with
// [valetkey.InvalidRequest].
func (cc ClientCertificate) Find(r *http.Request, proxies Proxies) ([]byte, error) {
	return cc.of(r, &proxies)
}

// of returns the certificate of r in DER, or nil if there is none.
func (cc ClientCertificate) of(r *http.Request, proxies *Proxies) ([]byte, error) {
	if cc.decode == nil {
		if !cc.inTLS || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			return nil, nil
		}
		return r.TLS.PeerCertificates[0].Raw, nil
	}
	lines := r.Header[cc.header]
	if len(lines) == 0 || !proxies.trust(r.RemoteAddr) {
		return nil, nil
	}
	if len(lines) > 1 {
		return nil, malformed(valetkey.ReasonTwoCertificates)
	}
	der, err := cc.decode(lines[0])
	if err != nil {
		return nil, malformed(valetkey.ReasonCertificateMalformed)
	}
	return der, nil
}

var errNotOne = errors.New("expected exactly one certificate")

// byteSequence decodes a byte sequence of RFC 8941, section 3.3.5.
func byteSequence(s string) ([]byte, error) {
	if len(s) < 3 || s[0] != ':' || s[len(s)-1] != ':' {
		return nil, errNotOne
	}
	return base64.StdEncoding.Strict().DecodeString(s[1 : len(s)-1])
}

func escapedPEM(s string) ([]byte, error) {
	text, err := url.PathUnescape(s) // not a query: base64 contains "+"
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
		return nil, errNotOne
	}
	return block.Bytes, nil
}
