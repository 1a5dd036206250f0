package middleware

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/valetkey/valetkey"
)

// A ClientCertificate specifies where a guard finds the certificate of the client (RFC 8705). The zero value specifies no place.
type ClientCertificate struct {
	decode func(value string) (certificate, error) // decodes the header; nil: no header is read
	header string                                  // the canonical name of the header that proxies set
	inTLS  bool
}

// A certificate is what a server knows of the certificate of a client. The zero value means no certificate.
type certificate struct {
	der []byte // nil: only the digest is known
	sum [sha256.Size]byte
}

func certificateOf(der []byte) certificate { return certificate{der, sha256.Sum256(der)} }

// maxCertificate is the limit for a header with a certificate or a chain, in bytes.
const maxCertificate = 64 << 10

// TLSCertificate returns a ClientCertificate for the certificate of the TLS connection to this server. The tls.Config of the
// server must request it. RequestClientCert or RequireAnyClientCert is sufficient, because a token is bound to one certificate,
// not to its issuer.
func TLSCertificate() ClientCertificate { return ClientCertificate{inTLS: true} }

// ClientCertHeader returns a ClientCertificate for the header Client-Cert (RFC 9440), which a proxy of Config.Proxies sets. It is
// ignored in other requests. The proxy must remove the header from requests of clients that have no certificate. A value of more
// than 64 KiB is malformed.
func ClientCertHeader() ClientCertificate {
	return ClientCertificate{decode: decoded(byteSequence), header: "Client-Cert"}
}

// PEMHeader returns a ClientCertificate for a header that contains one certificate in PEM: percent-encoded, such as the
// $ssl_client_escaped_cert of nginx, or in one line, in which white space replaces the line breaks or nothing does, as Apache,
// HAProxy and F5 send it. The rules of [ClientCertHeader] apply.
func PEMHeader(header string) ClientCertificate {
	return ClientCertificate{decode: decoded(textPEM), header: http.CanonicalHeaderKey(header)}
}

// DERHeader returns a ClientCertificate for a header that contains a certificate in base64 without PEM markers, such as
// X-Forwarded-Tls-Client-Cert of Traefik, X-ARR-ClientCert of Azure, or ssl_c_der,base64 of HAProxy. It may be percent-encoded. In a
// chain, which is separated by commas, the first certificate is that of the client. The rules of [ClientCertHeader] apply.
func DERHeader(header string) ClientCertificate {
	return ClientCertificate{decode: decoded(textDER), header: http.CanonicalHeaderKey(header)}
}

// XFCCHeader returns a ClientCertificate for the header X-Forwarded-Client-Cert of Envoy and the products that are built on it. It
// must have exactly one element, with Cert, Hash, or both of one certificate. Hash suffices for a guard but not for
// [ClientCertificate.Find].
//
// The rules of [ClientCertHeader] apply. Use forward_client_cert_details SANITIZE_SET: with it, Envoy removes the header of a client,
// also if the client has no certificate. Several elements are malformed, since they cannot be told apart: Envoy does not quote the
// names in a certificate, so a URI with a comma in that of the client would add an element at the end.
func XFCCHeader() ClientCertificate {
	return ClientCertificate{decode: textXFCC, header: "X-Forwarded-Client-Cert"}
}

// IsZero reports whether cc specifies no place.
func (cc ClientCertificate) IsZero() bool { return !cc.inTLS && cc.decode == nil }

// Find returns the client certificate of r in DER, or nil if there is none. It is for code other than a guard, such as a token
// endpoint (RFC 8705, section 3). It reads a header only if one of proxies sent the request, and accepts exactly one well-formed
// certificate in it. The error is a [valetkey.Error] with [valetkey.InvalidRequest].
func (cc ClientCertificate) Find(r *http.Request, proxies Proxies) ([]byte, error) {
	c, found, err := cc.of(r, &proxies)
	if !found {
		return nil, err
	}
	if cc.decode == nil { // the connection has parsed it
		return c.der, nil
	}
	if _, err := x509.ParseCertificate(c.der); err != nil {
		return nil, malformed(valetkey.ReasonCertificateMalformed)
	}
	return c.der, nil
}

// of returns the certificate of r. found reports whether there is one. A guard compares its digest, so it is not parsed.
func (cc ClientCertificate) of(r *http.Request, proxies *Proxies) (c certificate, found bool, err error) {
	if cc.decode == nil {
		if !cc.inTLS || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			return certificate{}, false, nil
		}
		return certificateOf(r.TLS.PeerCertificates[0].Raw), true, nil
	}
	lines := r.Header[cc.header]
	if len(lines) == 0 || !proxies.trust(r.RemoteAddr) {
		return certificate{}, false, nil
	}
	if len(lines) > 1 {
		return certificate{}, false, malformed(valetkey.ReasonTwoCertificates)
	}
	if len(lines[0]) > maxCertificate {
		return certificate{}, false, malformed(valetkey.ReasonCertificateMalformed)
	}
	if c, err = cc.decode(lines[0]); err != nil {
		return certificate{}, false, malformed(valetkey.ReasonCertificateMalformed)
	}
	return c, true, nil
}

var errNotOne = errors.New("expected exactly one certificate")

// decoded returns the decode function of a ClientCertificate for a header from which decode reads a certificate in DER, or nothing if the
// value is malformed.
func decoded(decode func(value string) []byte) func(value string) (certificate, error) {
	return func(value string) (certificate, error) {
		der := decode(value)
		if len(der) == 0 {
			return certificate{}, errNotOne
		}
		return certificateOf(der), nil
	}
}

// byteSequence decodes a byte sequence of RFC 8941, section 3.3.5.
func byteSequence(s string) []byte {
	text, begun := strings.CutPrefix(s, ":")
	text, ended := strings.CutSuffix(text, ":")
	if !begun || !ended {
		return nil
	}
	return decodeBase64(text)
}

// textPEM decodes one certificate in PEM (RFC 7468), percent-encoded or not, with any white space in place of line breaks.
func textPEM(s string) []byte {
	text, _ := url.PathUnescape(s) // "" if it is malformed; not a query: base64 contains "+"
	text, begun := strings.CutPrefix(withoutSpace(text), "-----BEGINCERTIFICATE-----")
	text, ended := strings.CutSuffix(text, "-----ENDCERTIFICATE-----")
	if !begun || !ended {
		return nil
	}
	return decodeBase64(text)
}

var withoutSpace = strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "").Replace

// textDER decodes the first of a list of certificates in base64.
func textDER(s string) []byte {
	text, _ := url.PathUnescape(s) // older versions of Traefik encode it; "" if it is malformed
	leaf, _, _ := strings.Cut(text, ",")
	return decodeBase64(leaf)
}

func decodeBase64(text string) []byte {
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil
	}
	return data
}

// textXFCC decodes an X-Forwarded-Client-Cert header with one element. A name in the certificate of the client may contain the
// separators, see [XFCCHeader], and so add any key that Envoy has not written. Keys that are used must therefore not contradict.
func textXFCC(s string) (certificate, error) {
	element, ok := xfccElement(s)
	if !ok || element == (xfcc{}) {
		return certificate{}, errNotOne
	}
	c := certificate{}
	if element.hash != "" {
		sum, err := hex.DecodeString(element.hash)
		if err != nil || copy(c.sum[:], sum) != len(sum) || len(sum) != len(c.sum) {
			return certificate{}, errNotOne
		}
	}
	if element.cert == "" {
		return c, nil
	}
	certified, err := decoded(textPEM)(element.cert)
	if element.hash != "" && certified.sum != c.sum {
		err = errNotOne
	}
	return certified, err
}

// An xfcc holds the values of an element that are used; "": it has none.
type xfcc struct{ cert, hash string }

// xfccElement reads s as one element: pairs of a key and a value, separated by semicolons. ok is false if the element is malformed, has a
// key that is used here twice or without a value, or is followed by a comma and another element.
//
// A quote may occur only around a whole value, and within it after a backslash. Otherwise an open quote in an element of the client
// would turn the quotes of the proxy inside out.
func xfccElement(s string) (e xfcc, ok bool) {
	for {
		end := strings.IndexAny(s, `=,;"`)
		if end <= 0 || s[end] != '=' {
			return e, false
		}
		key := strings.ToLower(strings.Trim(s[:end], " \t"))
		value, after, ok := xfccValue(s[end+1:])
		if !ok {
			return e, false
		}
		var known *string
		switch key {
		case "cert":
			known = &e.cert
		case "hash":
			known = &e.hash
		}
		if known != nil {
			if *known != "" || value == "" {
				return e, false
			}
			*known = value
		}
		if after == "" {
			return e, true
		}
		s = after[1:]
	}
}

// xfccValue reads a value at the beginning of s. after is empty or begins with the semicolon that follows the value. ok is false if
// anything else follows it: a quote within the value is malformed, and a comma begins another element.
func xfccValue(s string) (value, after string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, `,;"`)
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:], end == len(s) || s[end] == ';'
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			value, after = s[1:i], s[i+1:]
			return value, after, after == "" || after[0] == ';'
		}
	}
	return "", "", false
}
