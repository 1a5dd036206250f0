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

// A ClientCertificate is a place where a guard finds the certificate of the client (RFC 8705). The zero value: nowhere.
type ClientCertificate struct {
	decode func(value string) ([]byte, error) // of the header; nil: there is none to look at
	header string                             // that proxies set, by its canonical name
	inTLS  bool
}

// TLSCertificate is the certificate of the TLS connection to this server. The tls.Config of the server has to ask for it:
// RequestClientCert or RequireAnyClientCert will do, as a token is bound to one certificate and not to who signed it.
func TLSCertificate() ClientCertificate { return ClientCertificate{inTLS: true} }

// ClientCertHeader is the header Client-Cert (RFC 9440), which a proxy of Config.Proxies sets. From anybody else it is ignored.
// The proxy must remove it from the requests of clients that have no certificate.
func ClientCertHeader() ClientCertificate {
	return ClientCertificate{decode: byteSequence, header: "Client-Cert"}
}

// PEMHeader is as [ClientCertHeader], for the header of that name with a certificate in PEM, percent-encoded. It is what nginx
// has in $ssl_client_escaped_cert.
func PEMHeader(header string) ClientCertificate {
	return ClientCertificate{decode: escapedPEM, header: http.CanonicalHeaderKey(header)}
}

// IsZero reports whether no place is set.
func (cc ClientCertificate) IsZero() bool { return !cc.inTLS && cc.decode == nil }

// Find returns the certificate of r in DER, or nil if there is none, for who has another use for it than a guard, such as a
// token endpoint (RFC 8705, section 3). A header is looked at only if one of proxies has sent the request. The error is a
// [valetkey.Error]: InvalidRequest.
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

var errNotOne = errors.New("not one certificate")

// byteSequence decodes an item of RFC 8941, section 3.3.5.
func byteSequence(s string) ([]byte, error) {
	if len(s) < 3 || s[0] != ':' || s[len(s)-1] != ':' {
		return nil, errNotOne
	}
	return base64.StdEncoding.Strict().DecodeString(s[1 : len(s)-1])
}

func escapedPEM(s string) ([]byte, error) {
	text, err := url.PathUnescape(s) // not a query: "+" is of base64
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
		return nil, errNotOne
	}
	return block.Bytes, nil
}
