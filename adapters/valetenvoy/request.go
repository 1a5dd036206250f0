package valetenvoy

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

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
	maxHeaderBytes      = 1 << 20  // of all names, values and the path, as net/http accepts them by default, with an overhead
	headerOverhead      = 32       // bytes for each header (RFC 9113, section 6.5.2)
	maxAliases          = 64       // spellings of headers that no client has a use for
	maxCertificateBytes = 64 << 10 // in PEM, percent-encoded
)

// A request is what a gateway describes.
type request struct {
	report  routes.Report
	aliases []string // lowercase names that the client has sent and that an upstream may read as others, of which the guard decides
	grpc    bool     // the client expects a gRPC status
	size    int      // bytes of headers

	credentials []string
}

// read returns the request that a gateway describes, and the reason if it cannot be read. It does not read the body. credentials are the
// headers that may hold credentials.
func read(d *description, credentials []string) (request, valetkey.Reason) {
	in := request{credentials: credentials, report: routes.Report{Method: d.method, Target: d.target, Scheme: strings.ToLower(d.scheme), Host: d.host}}
	if !d.http || d.query != "" || d.fragment != "" { // Envoy leaves these empty: the path has the query
		return in, reasonUnreadable
	}
	if why := in.readHeaders(d); why != "" {
		return in, why
	}
	if d.certificate != "" {
		if in.report.Certificate = certificate(d.certificate); in.report.Certificate == nil {
			return in, valetkey.ReasonCertificateMalformed
		}
	}
	return in, ""
}

// readHeaders reads the headers from the one of two forms in which a gateway reports them.
func (in *request) readHeaders(d *description) valetkey.Reason {
	fields := d.raw
	if len(d.raw) == 0 {
		fields = d.joined
	} else if d.twoValues || len(d.joined) > 0 && !same(d.joined, d.raw) {
		return reasonTwoHeaders
	}
	in.size = len(in.report.Target)
	in.report.Header = make(http.Header, space(fields))
	values := make([]string, len(fields)) // of all headers with one line
	for i, f := range fields {
		var lines []string
		switch {
		case len(d.raw) > 0 || !strings.Contains(f.value, ","):
		case strings.EqualFold(f.name, "Authorization"):
			lines = separated(f.value)
		case strings.EqualFold(f.name, "DPoP"):
			lines = strings.Split(f.value, ",")
		}
		if lines == nil {
			values[i] = f.value
			lines = values[i : i+1 : i+1]
		}
		if why := in.add(f.name, lines); why != "" {
			return why
		}
	}
	return ""
}

// space returns the number of headers that are probably kept.
func space(fields []field) (n int) {
	for _, f := range fields {
		if !strings.HasPrefix(f.name, ":") && !strings.HasPrefix(f.name, "x-envoy-") && !strings.HasPrefix(f.name, "x-forwarded-") {
			n++
		}
	}
	return n
}

// add adds the lines of one header, or a part of them.
func (in *request) add(name string, lines []string) valetkey.Reason {
	in.size += len(name) + headerOverhead
	for i, line := range lines {
		if in.size += len(line); in.size > maxHeaderBytes {
			return reasonHeadersSize
		}
		lines[i] = strings.Trim(line, " \t")
		if hasControl(lines[i]) {
			return reasonHeader
		}
	}
	if common := canonical[name]; common != "" {
		name = common
	} else {
		switch {
		case strings.HasPrefix(name, ":"): // a pseudo-header: the fields of the message count
			return ""
		case !isToken(name):
			return reasonHeader
		case middleware.IsIdentityHeader(name):
			return in.addAlias(strings.ToLower(name))
		case ofProxies(name) || strings.EqualFold(name, "Host"):
			return ""
		}
		sent := name
		name = textproto.CanonicalMIMEHeaderKey(name)
		for _, read := range in.credentials {
			if name != read && len(name) == len(read) && folds(sent, strings.ToLower(read)) {
				return in.addAlias(strings.ToLower(sent))
			}
		}
	}
	if name == "Connection" && slices.ContainsFunc(lines, namesIdentity) {
		return reasonConnection
	}
	if name == "Content-Type" && isGRPC(lines[0]) {
		in.grpc = true
	}
	if earlier := in.report.Header[name]; earlier != nil {
		lines = append(earlier, lines...)
	}
	in.report.Header[name] = lines
	return ""
}

func (in *request) addAlias(name string) valetkey.Reason {
	if slices.Contains(in.aliases, name) {
		return ""
	}
	if len(in.aliases) == maxAliases {
		return reasonHeadersSize
	}
	in.aliases = append(in.aliases, name)
	return ""
}

// canonical has the canonical names of common headers, which need no further check.
var canonical = func() map[string]string {
	names := map[string]string{}
	for _, name := range strings.Fields(`accept accept-encoding accept-language access-control-request-headers access-control-request-method authorization
		baggage cache-control connection content-length content-type cookie dnt dpop early-data idempotency-key if-modified-since if-none-match
		origin pragma priority purpose range referer sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site
		sec-fetch-user sec-gpc sec-websocket-extensions sec-websocket-key sec-websocket-protocol sec-websocket-version te traceparent tracestate
		transfer-encoding upgrade upgrade-insecure-requests user-agent via x-amzn-trace-id x-api-key x-b3-sampled x-b3-spanid x-b3-traceid
		x-request-id x-requested-with`) {
		names[name] = textproto.CanonicalMIMEHeaderKey(name)
	}
	return names
}()

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
func same(joined, raw []field) bool {
	lines := make(map[string]string, len(joined))
	for _, f := range raw {
		if earlier, found := lines[f.name]; found {
			f.value = earlier + "," + f.value
		}
		lines[f.name] = f.value
	}
	for _, f := range joined {
		if value, found := lines[f.name]; !found || value != f.value {
			return false
		}
	}
	return len(lines) == len(joined)
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
