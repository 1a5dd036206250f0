package valetenvoy

import (
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
)

// Reasons for which a request is refused before the guard sees it.
var (
	reasonUnreadable  = valetkey.NewReason("check_unreadable", "the gateway does not describe an HTTP request")
	reasonTwoHeaders  = valetkey.NewReason("check_two_headers", "the gateway reports two different sets of headers")
	reasonHeader      = valetkey.NewReason("check_header", "a header is malformed")
	reasonHeadersSize = valetkey.NewReason("check_headers_size", "the headers are too large")
	reasonConnection  = valetkey.NewReason("check_connection", "the Connection header names a header of the gateway")
)

const (
	maxHeaderBytes      = 1 << 20  // of all names, values and the path, as net/http accepts them by default
	maxCertificateBytes = 64 << 10 // in PEM, percent-encoded
)

// A request is what a gateway describes.
type request struct {
	report  routes.Report
	aliases []string // lowercase names that the client has sent and that an upstream may read as identity headers
	grpc    bool     // the client expects a gRPC status
	size    int      // bytes of headers
}

// read returns the request that a describes, and the reason if it cannot be read. It does not read the body.
func read(a *authv3.AttributeContext) (request, valetkey.Reason) {
	h := a.GetRequest().GetHttp()
	in := request{report: routes.Report{Method: h.GetMethod(), Target: h.GetPath(), Scheme: strings.ToLower(h.GetScheme()), Host: h.GetHost()}}
	if h == nil || h.GetQuery() != "" || h.GetFragment() != "" { // Envoy leaves these empty: the path has the query
		return in, reasonUnreadable
	}
	if why := in.readHeaders(h.GetHeaders(), h.GetHeaderMap().GetHeaders()); why != "" {
		return in, why
	}
	if text := a.GetSource().GetCertificate(); text != "" {
		if in.report.Certificate = certificate(text); in.report.Certificate == nil {
			return in, valetkey.ReasonCertificateMalformed
		}
	}
	return in, ""
}

// readHeaders reads the headers from the one of two forms in which a gateway reports them: joined has the lines of each header
// joined with commas, and raw has each line.
func (in *request) readHeaders(joined map[string]string, raw []*corev3.HeaderValue) valetkey.Reason {
	in.size = len(in.report.Target)
	in.report.Header = make(http.Header, max(len(joined), len(raw)))
	lines := make([]string, 0, len(joined)+len(raw)) // one array for the values of all headers
	for name, value := range joined {
		var more []string
		switch {
		case !strings.Contains(value, ","):
			lines = append(lines, value)
			more = lines[len(lines)-1 : len(lines) : len(lines)]
		case strings.EqualFold(name, "Authorization"):
			more = separated(value)
		case strings.EqualFold(name, "DPoP"):
			more = strings.Split(value, ",")
		default:
			lines = append(lines, value)
			more = lines[len(lines)-1 : len(lines) : len(lines)]
		}
		if why := in.add(name, more); why != "" {
			return why
		}
	}
	if len(raw) == 0 {
		return ""
	}
	if len(joined) > 0 && !same(joined, raw) {
		return reasonTwoHeaders
	}
	if len(joined) > 0 {
		clear(in.report.Header)
		in.aliases, in.size = nil, len(in.report.Target)
	}
	for _, h := range raw {
		value, ok := valueOf(h)
		if !ok {
			return reasonTwoHeaders
		}
		lines = append(lines, value)
		if why := in.add(h.GetKey(), lines[len(lines)-1:len(lines):len(lines)]); why != "" {
			return why
		}
	}
	return ""
}

// add adds the lines of one header, or a part of them.
func (in *request) add(name string, lines []string) valetkey.Reason {
	in.size += len(name)
	for i, line := range lines {
		if in.size += len(line); in.size > maxHeaderBytes {
			return reasonHeadersSize
		}
		lines[i] = strings.Trim(line, " \t")
		if hasControl(lines[i]) {
			return reasonHeader
		}
	}
	switch {
	case strings.HasPrefix(name, ":"): // a pseudo-header: the fields of the message count
		return ""
	case !isToken(name):
		return reasonHeader
	case middleware.IsIdentityHeader(name):
		if lower := strings.ToLower(name); !slices.Contains(in.aliases, lower) {
			in.aliases = append(in.aliases, lower)
		}
		return ""
	case ofProxies(name) || strings.EqualFold(name, "Host"):
		return ""
	}
	name = textproto.CanonicalMIMEHeaderKey(name)
	if name == "Connection" && slices.ContainsFunc(lines, namesIdentity) {
		return reasonConnection
	}
	if name == "Content-Type" && isGRPC(lines[0]) {
		in.grpc = true
	}
	if earlier := in.report.Header[name]; earlier != nil {
		lines = slices.Concat(earlier, lines)
	}
	in.report.Header[name] = lines
	return ""
}

// preflight reports whether the request is a CORS preflight, as a guard does.
func (in *request) preflight() bool {
	h := in.report.Header
	return in.report.Method == http.MethodOptions && h.Get("Origin") != "" && h.Get("Access-Control-Request-Method") != ""
}

// separated returns the lines of Authorization that a gateway has joined to value. Commas also separate the parameters of one scheme,
// such as Digest, which stay together: a line begins with a scheme and a space, or is empty (RFC 9110, section 11.6.2).
func separated(value string) []string {
	lines := []string{""}
	for i, part := range strings.Split(value, ",") {
		trimmed := strings.Trim(part, " \t")
		scheme, _, more := strings.Cut(trimmed, " ")
		if i > 0 && (trimmed == "" || more && isToken(scheme)) {
			lines = append(lines, part)
		} else if i > 0 {
			lines[len(lines)-1] += "," + part
		} else {
			lines[0] = part
		}
	}
	return lines
}

// same reports whether both describe the same headers.
func same(joined map[string]string, raw []*corev3.HeaderValue) bool {
	all := make(map[string]string, len(joined))
	for _, h := range raw {
		value, ok := valueOf(h)
		if !ok {
			return false
		}
		if earlier, found := all[h.GetKey()]; found {
			value = earlier + "," + value
		}
		all[h.GetKey()] = value
	}
	return maps.Equal(joined, all)
}

// valueOf returns the value of h. It returns false if h has two.
func valueOf(h *corev3.HeaderValue) (value string, ok bool) {
	if len(h.GetRawValue()) == 0 {
		return h.GetValue(), true
	}
	value = string(h.GetRawValue())
	return value, h.GetValue() == "" || h.GetValue() == value
}

// certificate returns the certificate in PEM, percent-encoded, in which nothing else may be. It returns nil if text is not one.
func certificate(text string) *x509.Certificate {
	if len(text) > maxCertificateBytes {
		return nil
	}
	decoded, err := url.PathUnescape(text) // not a query: base64 contains "+"
	if err != nil {
		return nil
	}
	block, rest := pem.Decode([]byte(decoded))
	if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) > 0 || strings.TrimSpace(string(rest)) != "" {
		return nil
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return c
}

// ofProxies reports whether only proxies set a header, so that a request of a client proves nothing by it. All punctuation counts as a
// hyphen, see [middleware.IsIdentityHeader].
func ofProxies(name string) bool {
	if len(name) == 0 || name[0]|0x20 != 'x' && name[0]|0x20 != 'f' {
		return false
	}
	return folds(name, "x-forwarded") || folds(name, "x-envoy") || len(name) == len("forwarded") && folds(name, "forwarded")
}

// folds reports whether name begins with prefix, which is in lower case.
func folds(name, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		c := name[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		} else if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			c = '-'
		}
		if c != prefix[i] {
			return false
		}
	}
	return true
}

// namesIdentity reports whether a Connection header lists an identity header, which a proxy behind the gateway would then remove (RFC
// 9110, section 7.6.1).
func namesIdentity(connection string) bool {
	for name := range strings.SplitSeq(connection, ",") {
		if middleware.IsIdentityHeader(strings.Trim(name, " \t")) {
			return true
		}
	}
	return false
}

func isGRPC(contentType string) bool {
	rest, found := strings.CutPrefix(strings.ToLower(contentType), "application/grpc")
	return found && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// hasControl reports whether s contains a character that a header cannot have (RFC 9110, section 5.5).
func hasControl(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}
