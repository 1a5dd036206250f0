// Package proxy implements a reverse proxy that passes requests with a sufficient access token to one or several upstreams.
//
// [Open] creates a proxy from a file, [Service.Serve] serves it and reloads it, and [Revoke] publishes a revocation to all of its replicas. A
// table of net/http patterns or an OpenAPI document defines what each route needs; see [middleware.Guard.Table]. Requests that
// match no route are refused. Every refusal happens before any byte is sent upstream. The upstream learns the caller from
// X-Valetkey-Subject, -Client and -Scope, as far as the token contains them, in the encoding of [middleware.IdentityHeaders]. It
// receives no DPoP proofs, no client certificates, and no tokens in queries. Forms pass unchanged, including an access_token in them.
//
// The row that decides on a request selects its upstream, too. Requests and responses of HTTP/2 pass with their trailers, so calls of
// gRPC do, whose refusals have a gRPC status. No unsafe request is sent twice.
//
// A request in progress, such as a stream or a WebSocket, ends on both sides when its token expires or is revoked, unless the
// configuration disables that.
//
// The proxy drops a list of headers that only proxies set, such as X-Forwarded-For, X-Real-IP and Remote-User, in any spelling.
// It then sets Forwarded and X-Forwarded-For, -Host, -Proto, -Port and -Prefix itself, see [middleware.Proxies.ForwardingHeaders]:
// from the connection, and from trusted_proxies in front of it as far as the file declares that these set the headers. An upstream that
// trusts another header that is not on the list trusts the client.
//
// The proxy does not know how the upstream interprets paths. If the upstream ignores letter case or anything after a semicolon, no wider route may need less than a
// narrower route.
package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/jub0bs/cors"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/middleware"
)

// A Proxy is an [http.Handler] for its upstreams. It is safe for concurrent use and must be closed.
type Proxy struct {
	listen  string
	probe   string      // address of the probes; "": none
	tls     *tls.Config // nil: no TLS, or a proxy in front terminates it
	guard   *middleware.Guard
	shared  *shared                 // nil: nothing is shared
	close   []func()                // ends what this configuration does not share with others
	own     map[string]http.Handler // by path: public responses of the proxy itself
	api     http.Handler
	access  accessLog
	auditor *middleware.Auditor // nil: none
	limits  web.Limits
	log     *slog.Logger
	lifecycle
}

// ServeHTTP refuses or forwards one request.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := p.own[r.URL.Path]; h != nil {
		h.ServeHTTP(w, r)
		endBody(w, r)
		return
	}
	v, visited := newVisit(r, p.access.proxies)
	w.Header()[requestIDHeader] = []string{v.id}
	defer p.access.end(v, r) // even if an upstream breaks off, which panics
	if isGRPC(visited) {
		w, visited = refusingGRPC(w, visited)
	}
	p.api.ServeHTTP(w, visited)
	if v.refused && !v.reportOnly || !v.forwarded {
		endBody(w, r)
	}
	r.Pattern = visited.Pattern // as http.ServeMux sets it
}

// onward forwards requests to the upstreams.
type onward struct {
	targets     map[string]*target // by the row of the request
	withToken   bool
	certificate string // plain name of the header with the client certificate; "": none
	tokenHeader string // header that replaces Authorization; "": none
	plainToken  string // the plain name of that
	keyHeader   string // header of API keys; "": none
	plainKey    string // the plain name of that
	proxies     middleware.Proxies
	maxBody     int64            // bytes; 0: no limit
	cors        *cors.Middleware // nil: the upstream sends CORS headers itself
	guard       *middleware.Guard
	log         *slog.Logger
}

// handler returns the handler that sends each request to the upstream of its row.
func (o *onward) handler() http.Handler {
	proxies := map[*target]*httputil.ReverseProxy{}
	byRow := map[string]*httputil.ReverseProxy{}
	for row, to := range o.targets {
		if proxies[to] == nil {
			proxies[to] = o.proxy(to)
		}
		byRow[row] = proxies[to]
	}
	var rest *httputil.ReverseProxy // for requests without a row, which insecure_report_only lets through; nil: the upstream is not clear
	for to, p := range proxies {
		if len(proxies) == 1 && len(to.prefix) == 0 && to.host == "" {
			rest = p
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := byRow[r.Pattern]
		if to == nil && rest == nil {
			o.guard.Reject(r, errNoUpstream).Apply(w, r)
			return
		}
		e := newExchange(w, r)
		defer e.done()
		if to == nil {
			to, e.visit.row = rest, ""
		}
		if isGRPC(r) {
			defer e.forwardGRPC()()
		}
		if o.maxBody > 0 {
			limit := &http.MaxBytesError{Limit: o.maxBody}
			if r.ContentLength > o.maxBody {
				o.failed(e, r, limit)
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, o.maxBody)
		}
		to.ServeHTTP(e, r)
	})
}

// errNoUpstream refuses a request without a row as if it required a scope that no token has.
var errNoUpstream = &valetkey.Error{Code: valetkey.InsufficientScope, Reason: valetkey.ReasonNoRequirement}

func (o *onward) proxy(to *target) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { o.rewrite(r, to) },
		ModifyResponse: func(r *http.Response) error {
			if o.cors != nil {
				withoutCORS(r.Header)
			}
			o.checkTrailers(r)
			r.Header.Del(requestIDHeader)
			delete(r.Header, "Dpop-Nonce") // the upstream receives no proofs, and only one nonce is allowed, which the guard sets (RFC 9449, section 8.2)
			return nil
		},
		Transport:     to.transport,
		FlushInterval: flushInterval,
		BufferPool:    &buffers,
		ErrorLog:      slog.NewLogLogger(o.log.Handler(), slog.LevelWarn),
		ErrorHandler:  o.failed,
	}
}

// flushInterval is how long a part of a response of known length may wait for the next one. Other responses, and events, are flushed
// at once.
const flushInterval = 10 * time.Millisecond

// buffers holds the buffers through which responses are copied. The number in use is that of the responses in progress; the garbage
// collector takes the rest.
var buffers bufferPool

type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if p, ok := b.pool.Get().(*[copyBuffer]byte); ok {
		return p[:]
	}
	return make([]byte, copyBuffer)
}

func (b *bufferPool) Put(p []byte) { b.pool.Put((*[copyBuffer]byte)(p)) }

const copyBuffer = 32 << 10 // bytes

// rewrite runs after the headers that Connection lists have been removed, so that a client cannot have the headers removed that
// are set here.
func (o *onward) rewrite(r *httputil.ProxyRequest, to *target) {
	if to.strip {
		stripped(r.Out.URL, len(to.prefix))
	}
	r.SetURL(to.to)
	notReplayable(r.Out, to.h2c)
	if r.Out.Body != nil && r.Out.ContentLength > 0 {
		r.Out.Body = &sized{r.Out.Body, r.Out.ContentLength}
	}
	o.passTrailers(r.In, r.Out)
	for name := range r.Out.Header {
		if o.drops(name) {
			delete(r.Out.Header, name)
		}
	}
	r.Out.URL.RawQuery = withoutToken(r.Out.URL.RawQuery)
	for name, values := range o.proxies.ForwardingHeaders(r.In) {
		r.Out.Header[name] = values
	}
	if to.strip {
		r.Out.Header.Set("X-Forwarded-Prefix", r.Out.Header.Get("X-Forwarded-Prefix")+to.path())
	}
	o.passToken(r, valetkey.FromContext(r.In.Context()) != nil)
	// Allow upgrades to WebSocket only: it permits no further HTTP requests on the connection. h2c does, and those would not be
	// checked. HTTP/2 has no upgrades (RFC 9113, section 8.6).
	if to.h2c || !strings.EqualFold(r.Out.Header.Get("Upgrade"), "websocket") {
		r.Out.Header.Del("Upgrade")
		r.Out.Header.Del("Connection")
	}
	v := visitOf(r.In.Context())
	r.Out.Header[requestIDHeader] = []string{v.id}
	for name, values := range v.identity {
		if values[0] != "" {
			r.Out.Header[name] = values
		}
	}
}

// A sized is a request body that ends at its length. A transport reads once more behind the length. By then the upstream may have
// answered and the server of HTTP/1, which closes a body when the response begins, may have closed it: that read would fail, and the
// response would be cut short.
type sized struct {
	io.ReadCloser
	left int64 // bytes
}

func (b *sized) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	return n, err
}

// passToken leaves the token in the headers for the upstream if that receives tokens and this one was verified. It removes all
// others, because the upstream might trust a token that was not verified.
func (o *onward) passToken(r *httputil.ProxyRequest, verified bool) {
	_, _, inHeader, _ := authheader.Read(r.In.Header["Authorization"])
	switch {
	case !o.withToken || !verified:
		o.guard.RemoveCredentials(r.Out.Header)
	case o.tokenHeader != "":
		o.guard.RemoveCredentials(r.Out.Header)
		r.Out.Header[o.tokenHeader] = r.In.Header[o.tokenHeader] // that of the verified token, because there is no other place for it
	case inHeader:
		o.guard.RemoveCredentials(r.Out.Header)
		r.Out.Header["Authorization"] = r.In.Header["Authorization"]
	default: // the token is in a subprotocol, or it is an API key
		o.guard.RemoveOtherCredentials(r.Out.Header, r.In)
	}
}

// dropped lists headers by plain name that an upstream would trust because normally only its proxies set them. A header with the
// value false passes although a prefix in droppedPrefixes matches, because clients send it. No such list is complete. Signed
// assertions of a proxy, such as X-Goog-IAP-JWT-Assertion, are not listed, because the upstream can verify the signature. The
// header in token_header is dropped with the token.
var dropped = map[string]bool{
	// overrides of method or path, or a file to serve, in some frameworks
	"X-HTTP-METHOD": true, "X-HTTP-METHOD-OVERRIDE": true, "X-METHOD-OVERRIDE": true, "X-SCRIPT-NAME": true,
	"X-MATCHED-PATH": true, "X-NOW-ROUTE-MATCHES": true, "X-ACCEL-MAPPING": true, "X-SENDFILE-TYPE": true,

	// sent by Next.js pages that prefetch others
	"X-MIDDLEWARE-PREFETCH": false,

	// CGI turns it into HTTP_PROXY, which HTTP clients use as their proxy ("httpoxy")
	"PROXY": true,

	// between the client and this proxy: a proof (RFC 9449), a certificate (RFC 9440 and other names), TLS
	"DPOP": true, "CLIENT-CERT": true, "CLIENT-CERT-CHAIN": true, "X-CLIENT-VERIFY": true,
	"FRONT-END-HTTPS": true, "X-SCHEME": true, "X-URL-SCHEME": true, "CF-VISITOR": true,

	// the client address, under the names used by CDNs, clouds and servers
	"FORWARDED": true, "X-REAL-IP": true, "TRUE-CLIENT-IP": true, "X-CLIENT-IP": true, "CLIENT-IP": true, "X-CLUSTER-CLIENT-IP": true,
	"CF-CONNECTING-IP": true, "CF-CONNECTING-IPV6": true, "CF-PSEUDO-IPV4": true, "FASTLY-CLIENT-IP": true, "FLY-CLIENT-IP": true,
	"DO-CONNECTING-IP": true, "X-NF-CLIENT-CONNECTION-IP": true, "X-ORIGINATING-IP": true, "X-SUCURI-CLIENTIP": true,
	"INCAP-CLIENT-IP": true, "X-PROXYUSER-IP": true, "PROXY-CLIENT-IP": true,

	// the ID of the request in logs, which the proxy sets
	"X-REQUEST-ID": true,

	// the host of the URL
	"X-HOST": true, "X-HTTP-HOST-OVERRIDE": true,

	// the user, under the names used by proxies that log users in
	"CF-ACCESS-AUTHENTICATED-USER-EMAIL": true, "X-AMZN-OIDC-IDENTITY": true, "X-USERINFO": true,
	"X-CREDENTIAL-IDENTIFIER": true, "X-CREDENTIAL-USERNAME": true, "X-ANONYMOUS-CONSUMER": true,
}

// droppedPrefixes lists prefixes of groups of such headers. The prefixes are long enough not to match headers of clients, such as
// X-Client-Version and X-Consumer-Key.
var droppedPrefixes = []string{
	"X-VALETKEY", "X-FORWARDED", // -User and -Client-Cert beside -For
	"X-ENVOY-", "X-ORIGINAL-", "X-REWRITE-", "X-AZURE-", "X-APPENGINE-", "X-VERCEL-", // Envoy; IIS and Symfony; clouds
	"X-MIDDLEWARE-", "X-INVOKE-", // Next.js, internal

	// certificates of clients, and TLS: Apache and nginx, IIS, WebLogic, AWS
	"SSL-CLIENT-", "X-SSL-", "X-CLIENT-CERT", "X-ARR-", "WL-PROXY-", "X-AMZN-MTLS-",

	// users: proxies that log them in, among them Authelia (Remote-*), Grafana's (X-WebAuth-*) and mod_auth_openidc (OIDC_*)
	"REMOTE-", "X-REMOTE-", "X-WEBAUTH-", "X-AUTH-REQUEST-", "X-AUTHENTICATED-", "X-AUTHENTIK-", "TAILSCALE-", "OIDC-",
	"X-GOOG-AUTHENTICATED-USER-", "X-MS-CLIENT-PRINCIPAL",

	// users and consumers: API gateways (Kong, APISIX, Google)
	"X-CONSUMER-ID", "X-CONSUMER-CUSTOM-ID", "X-CONSUMER-USERNAME", "X-CONSUMER-GROUP", "X-ENDPOINT-API-", "X-APIGATEWAY-API-",
}

// drops reports whether a header of a request stays with the proxy.
func (o *onward) drops(name string) bool {
	var space [64]byte // for an ordinary name, on the stack
	folded := fold(space[:0], name)
	return spoofs(folded) || o.certificate != "" && string(folded) == o.certificate || o.plainToken != "" && string(folded) == o.plainToken ||
		o.plainKey != "" && string(folded) == o.plainKey && name != o.keyHeader || // no key is read from this spelling
		string(folded) == "SEC-WEBSOCKET-PROTOCOL" && name != "Sec-Websocket-Protocol" // the guard finds no token in this spelling
}

// spoofs reports whether an upstream might trust a header, by its plain name, as set by this or another proxy.
func spoofs(plain []byte) bool {
	if drop, listed := dropped[string(plain)]; listed {
		return drop
	}
	if len(plain) == 0 {
		return false
	}
	return slices.ContainsFunc(droppedPrefixesBy[plain[0]], func(p []byte) bool { return bytes.HasPrefix(plain, p) })
}

// droppedPrefixesBy holds droppedPrefixes by the first letter.
var droppedPrefixesBy = func() (by [256][][]byte) {
	for _, p := range droppedPrefixes {
		by[p[0]] = append(by[p[0]], []byte(p))
	}
	return by
}()

// withoutToken returns query without parameters that an upstream might read as access_token (RFC 6750, section 2.3). The guard
// has not verified their values.
func withoutToken(query string) string {
	if query == "" {
		return ""
	}
	params := strings.Split(query, "&")
	kept := slices.DeleteFunc(params, func(param string) bool {
		name, _, _ := strings.Cut(param, "=")
		if decoded, err := url.QueryUnescape(name); err == nil {
			name = decoded
		}
		return readsAsToken(name)
	})
	return strings.Join(kept, "&")
}

// readsAsToken reports whether a framework might read a parameter, by its decoded name, as access_token. Some frameworks ignore
// letter case, trim white space or end a name at a NUL. Rack and qs drop leading brackets, and many treat the text after a
// bracket or a dot as an index. PHP and similar languages replace some characters with '_'.
func readsAsToken(name string) bool {
	first := strings.TrimLeftFunc(name, separates)
	if end := strings.IndexFunc(first, separates); end >= 0 {
		first = first[:end]
	}
	if strings.EqualFold(first, "access_token") {
		return true
	}
	php, _, _ := strings.Cut(strings.TrimLeft(name, " "), "\x00")
	if open := strings.IndexByte(php, '['); open >= 0 && strings.Contains(php[open:], "]") {
		php = php[:open]
	}
	return strings.EqualFold(asUnderscore.Replace(php), "access_token")
}

func separates(c rune) bool {
	return c == '[' || c == ']' || c == '.' || unicode.IsSpace(c) || control(c)
}

func control(c rune) bool { return c < ' ' || c == 0x7f }

var asUnderscore = strings.NewReplacer(".", "_", " ", "_", "[", "_")

// plain returns the name of a header in one spelling: CGI and its successors do not distinguish '-' from '_' and other
// punctuation.
func plain(name string) string { return string(fold(nil, name)) }

// fold appends the plain name of a header to buf.
func fold(buf []byte, name string) []byte {
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z':
			c -= 'a' - 'A'
		case (c < 'A' || c > 'Z') && (c < '0' || c > '9'):
			c = '-'
		}
		buf = append(buf, c)
	}
	return buf
}

// namable refuses a token whose identity cannot be carried in headers, even where a token is optional. Other requests, including
// those without a token, go to next.
func namable(guard *middleware.Guard, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if t := valetkey.FromContext(r.Context()); t != nil {
			identity, err := middleware.IdentityHeaders(t)
			if err != nil {
				guard.Reject(r, err).Apply(w, r)
				return
			}
			visitOf(r.Context()).identity = identity
		}
		next.ServeHTTP(w, r)
	})
}

// reasonBodyTooLarge is in the access log. The response has no challenge, because another token does not help.
const reasonBodyTooLarge valetkey.Reason = "body_too_large"

// failed responds after the upstream has failed to.
func (o *onward) failed(w http.ResponseWriter, r *http.Request, err error) {
	e, _ := w.(*exchange)
	if e != nil && e.grpc != nil {
		e.grpc.passes = false
	}
	if e != nil && e.refusal() != nil { // the token ended while the client waited for the upstream
		o.guard.Reject(e.request, e.refusal()).Apply(w, e.request)
		return
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		if e != nil {
			e.visit.refused, e.visit.reason = true, reasonBodyTooLarge
		}
		http.Error(w, http.StatusText(http.StatusRequestEntityTooLarge), http.StatusRequestEntityTooLarge)
		return
	}
	level := slog.LevelError
	if r.Context().Err() != nil { // the client canceled the request
		level = slog.LevelDebug
	}
	o.log.LogAttrs(context.WithoutCancel(r.Context()), level, "no answer from upstream",
		slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Any("err", err))
	status := http.StatusBadGateway
	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
		status = http.StatusGatewayTimeout
	}
	http.Error(w, http.StatusText(status), status)
}
