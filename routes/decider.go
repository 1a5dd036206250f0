package routes

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// A Decider decides on requests by a table without serving them. It is for gateways that ask another service whether to let a
// request through, such as ext_authz of Envoy and forward authentication. It is safe for concurrent use.
type Decider struct {
	guard *middleware.Guard
	match http.Handler // sets the answer that it is given as the ResponseWriter
}

// Decider returns a Decider with g and a copy of the table. It decides as the handler of [Table.Guard] does with [StrictPaths],
// because the software behind a gateway is not known, and with one difference: it never redirects. A path that is not clean, and one
// that lacks the final slash of its row, is refused with 400.
//
// The error joins every mistake, each a [valetkey.ConfigError], see [Table.Validate].
func (t Table) Decider(g *middleware.Guard, options ...Option) (*Decider, error) {
	set, err := t.settings(g, append([]Option{StrictPaths()}, options...))
	if err != nil {
		return nil, err
	}
	reject := func(w http.ResponseWriter, r *http.Request, err error) { w.(*answer).decision = g.Reject(r, err) }
	match, err := t.matcher(set, reject, func(pattern string, need valetkey.Requirement) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a := w.(*answer)
			a.row = pattern
			a.decision = g.Decide(r, need)
		})
	})
	if err != nil {
		return nil, err
	}
	g.Declare(slices.Collect(maps.Values(t))...)
	return &Decider{g, match}, nil
}

// Decide decides on r, see [middleware.Guard.Decide]. It does not read the body. row is the pattern of the row that matched, or ""
// if none did or the path was refused before. A panic in a requirement is logged, and the request is refused with 503.
func (d *Decider) Decide(r *http.Request) (decision middleware.Decision, row string) {
	a := answers.Get().(*answer)
	defer func() {
		if v := recover(); v != nil {
			decision, row = d.guard.Reject(r, fmt.Errorf("routes: panic while deciding by the row %q: %v\n%s", a.row, v, debug.Stack())), a.row
		}
		*a = answer{}
		answers.Put(a)
	}()
	d.match.ServeHTTP(a, r)
	if a.redirected {
		a.decision = d.guard.Reject(r, errNotCanonical)
	}
	return a.decision, a.row
}

var errNotCanonical = &valetkey.Error{Code: valetkey.InvalidRequest, Reason: valetkey.ReasonPathNotCanonical}

// Reject returns the Decision that refuses a request with err, see [middleware.Guard.Reject]. It is for gateways that do not describe
// a request clearly. r may be nil.
func (d *Decider) Reject(r *http.Request, err error) middleware.Decision {
	return d.guard.Reject(r, err)
}

// Guard returns the guard that decides.
func (d *Decider) Guard() *middleware.Guard { return d.guard }

// answers holds unused answers. A handler keeps none.
var answers = sync.Pool{New: func() any { return new(answer) }}

// An answer is what became of a request. A handler of a row sets it instead of writing to it; a ServeMux writes only redirects and
// refusals of targets such as "*".
type answer struct {
	decision   middleware.Decision // the zero value refuses
	row        string
	redirected bool
	header     http.Header
}

// Header returns a header that is not sent.
func (a *answer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

// WriteHeader records that no row has decided.
func (a *answer) WriteHeader(int) { a.redirected = true }

// Write does what WriteHeader does.
func (a *answer) Write(p []byte) (int, error) {
	a.redirected = true
	return len(p), nil
}

// A Report is the description of a request by a gateway, which must be trusted: whoever makes a Report decides what the request is.
// Method and Target are required.
type Report struct {
	Method string // as sent: capital letters and hyphens
	Target string // path and query as sent, not decoded
	Scheme string // "http" or "https"; empty: unknown
	Host   string // with or without a port; empty: unknown

	// Header holds the headers of the request. The decision shares it if all names are canonical, so it must not be modified. Names
	// in any letter case are one header. Headers that the gateway does not remove
	// from requests of clients, such as X-Forwarded-Client-Cert, prove nothing.
	Header http.Header

	// RemoteAddr is the address of the gateway, with a port, for [middleware.Proxies]. Empty: no proxy is trusted.
	RemoteAddr string

	// Certificate is the certificate with which the client authenticated to the gateway, as if this connection had it: it is for
	// [middleware.TLSCertificate]. Nil: none.
	Certificate *x509.Certificate
}

// DecideReport decides on the request that a gateway reports, see [Decider.Decide]. A Report that is not clear, such as one with a URL
// instead of a path, is refused with 400.
func (d *Decider) DecideReport(ctx context.Context, report Report) (decision middleware.Decision, row string) {
	r, why := report.request(ctx)
	if why != "" {
		return d.guard.Reject(r, &valetkey.Error{Code: valetkey.InvalidRequest, Reason: why}), ""
	}
	return d.Decide(r)
}

// request returns the request, and the reason if it is not clear.
func (p Report) request(ctx context.Context) (*http.Request, valetkey.Reason) {
	header := p.Header
	for name := range p.Header {
		if textproto.CanonicalMIMEHeaderKey(name) != name {
			header = canonical(p.Header)
			break
		}
	}
	if header == nil {
		header = http.Header{}
	}
	r := (&http.Request{
		Method: p.Method, RequestURI: p.Target, Host: p.Host, Header: header, RemoteAddr: cmp.Or(p.RemoteAddr, unknownSender),
		Body: http.NoBody, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	if p.Certificate != nil {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{p.Certificate}}
	} else if p.Scheme == "https" {
		r.TLS = encrypted
	}
	if why := p.unclear(); why != "" {
		if why == valetkey.ReasonMethod {
			r.Method = "" // it goes to the log
		}
		r.URL = &url.URL{}
		return r, why
	}
	u, err := url.ParseRequestURI(p.Target)
	if err != nil {
		r.URL = &url.URL{}
		return r, valetkey.ReasonTarget
	}
	r.URL = u
	return r, ""
}

// encrypted is the state of a connection of which no more is known. It is shared by all requests, and not modified.
var encrypted = &tls.ConnectionState{}

// unclear returns the reason if p is not clear, or "" if it is.
func (p Report) unclear() valetkey.Reason {
	switch {
	case p.Method == "" || strings.ContainsFunc(p.Method, notInMethod):
		return valetkey.ReasonMethod
	case p.Method == http.MethodConnect:
		return valetkey.ReasonConnect
	case !strings.HasPrefix(p.Target, "/") || hasAny(p.Target, unclearInTarget):
		return valetkey.ReasonTarget
	case p.Scheme != "" && p.Scheme != "http" && p.Scheme != "https":
		return valetkey.ReasonForwardedMalformed
	case hasAny(p.Host, notInHost):
		return valetkey.ReasonHostMalformed
	}
	return ""
}

// canonical returns a copy of h with canonical names.
func canonical(h http.Header) http.Header {
	c := make(http.Header, len(h))
	for name, values := range h {
		name = textproto.CanonicalMIMEHeaderKey(name)
		c[name] = slices.Concat(c[name], values)
	}
	return c
}

// unknownSender is a RemoteAddr that no [middleware.Proxies] trusts (RFC 7239, section 6.2). An empty one would be a unix socket.
const unknownSender = "unknown"

// unclearInTarget are the bytes that are unclear in the target of a request: software differs in what it makes of a fragment, of a space,
// and of bytes that are not ASCII (RFC 9112, section 3.2; RFC 3986, section 2).
var unclearInTarget = bytesBeside("#")

// notInHost are the bytes that cannot be in a host and port (RFC 3986, section 3.2).
var notInHost = bytesBeside("/\\?#@,\"<>")

// bytesBeside returns a set of the bytes that are in more, or not visible ASCII.
func bytesBeside(more string) *[256]bool {
	set := new([256]bool)
	for c := range set {
		set[c] = c <= ' ' || c >= 0x7f || strings.IndexByte(more, byte(c)) >= 0
	}
	return set
}

// hasAny reports whether a byte of s is in set.
func hasAny(s string, set *[256]bool) bool {
	for i := range len(s) {
		if set[s[i]] {
			return true
		}
	}
	return false
}
