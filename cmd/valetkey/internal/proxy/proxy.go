// Package proxy is a reverse proxy that lets requests with a sufficient access token through to one upstream.
//
// [Load] makes it from a file, [Proxy.Serve] serves it, [Revoke] tells all of its replicas of tokens that hold no longer. A
// table of net/http patterns, or an OpenAPI document, says what each route needs, see [middleware.Guard.Table]; what no route
// matches is refused. Every refusal happens before a byte goes upstream, which learns who is calling from
// X-Valetkey-Subject, -Client and -Scope, as far as the token says, and gets neither proofs nor certificates of clients, nor
// tokens in queries. Forms pass as they are, with an access_token in them too.
//
// A request under way, such as a stream or a WebSocket, ends at both sides when its token expires or is revoked, unless the
// configuration says otherwise.
//
// The proxy drops a list of headers that only proxies set, such as X-Forwarded-For, X-Real-IP and Remote-User, in any spelling. Of
// them, it writes X-Forwarded-For, -Host and -Proto anew, with the address of the connection. An upstream that believes a header
// that is not on the list believes the client.
//
// Not done: telling the upstream what such headers of a proxy in front say, and knowing how the upstream reads a path. If it ignores
// letter case or what follows a semicolon, a table must not have a wider route that needs less than a narrower one.
package proxy

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// A Proxy is an [http.Handler], safe for concurrent use, that must be closed.
type Proxy struct {
	listen string
	probe  string      // "": nobody can ask how it is
	tls    *tls.Config // nil: of what is in front
	guard  *middleware.Guard
	shared *shared                 // nil: nothing is
	close  []func()                // of the verifiers
	own    map[string]http.Handler // by path: what the proxy itself tells anybody
	api    http.Handler
	log    *slog.Logger
}

// Close ends fetches of keys and questions to issuers, and waits for them. [Proxy.Serve] must have returned.
func (p *Proxy) Close() {
	for _, end := range p.close {
		end()
	}
	p.disconnect()
}

func (p *Proxy) disconnect() {
	if p.shared != nil {
		p.shared.client.Close()
		p.shared = nil
	}
}

// ServeHTTP refuses, or forwards, one request.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := p.own[r.URL.Path]; h != nil {
		h.ServeHTTP(w, r)
		return
	}
	if why := ambiguous(r); why != "" {
		p.guard.Reject(r, &valetkey.Error{Code: valetkey.InvalidRequest, Reason: why}).Apply(w, r)
		return
	}
	p.api.ServeHTTP(w, r)
}

// Why a proxy refuses what a guard does not.
var (
	reasonConnect    = valetkey.NewReason("connect", "CONNECT is not served")
	reasonTarget     = valetkey.NewReason("target", "the target is not a path")
	reasonBackslash  = valetkey.NewReason("path_backslash", "the path holds a backslash")
	reasonControl    = valetkey.NewReason("path_control", "the path holds a control character")
	reasonDotSegment = valetkey.NewReason("path_dot_segment", "the path holds a dot segment with a parameter")
	reasonNoName     = valetkey.NewReason("unnamable", "the token names someone whom no header can name")
)

// ambiguous says why the upstream might see another path than the one that a route matches; "" if it will not.
//
// Of what reads differently once it is decoded, a table refuses slashes and dot segments itself. Some servers also take a
// backslash for a slash, end a path at a NUL, or cut off what follows a semicolon before they clean up: for them
// /files/..;x/admin is /admin, and a token that opens /files/ would open it. Such spellings have no honest use.
func ambiguous(r *http.Request) valetkey.Reason {
	if r.Method == http.MethodConnect {
		return reasonConnect
	}
	path := r.URL.Path // decoded
	if !strings.HasPrefix(path, "/") {
		return reasonTarget
	}
	if strings.Contains(path, `\`) {
		return reasonBackslash
	}
	if strings.ContainsFunc(path, control) {
		return reasonControl
	}
	for segment := range strings.SplitSeq(path, "/") {
		if strings.HasPrefix(segment, ".;") || strings.HasPrefix(segment, "..;") {
			return reasonDotSegment
		}
	}
	return ""
}

// onward carries requests to the upstream.
type onward struct {
	to          *url.URL
	withToken   bool
	certificate string // the header that the client's comes in, as plain makes it; "": in none
	guard       *middleware.Guard
	log         *slog.Logger
}

func (o onward) handler() http.Handler {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true // an answer arrives as it was sent
	transport.MaxIdleConnsPerHost = transport.MaxIdleConns
	proxy := &httputil.ReverseProxy{
		Rewrite: o.rewrite,
		ModifyResponse: func(r *http.Response) error {
			r.Header.Del("DPoP-Nonce") // no proof gets there, and the guard's own may stand once (RFC 9449, section 8.2)
			return nil
		},
		Transport:     transport,
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(o.log.Handler(), slog.LevelWarn),
		ErrorHandler:  o.failed,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := newExchange(w, r)
		defer e.done()
		proxy.ServeHTTP(e, r)
	})
}

// rewrite runs after the headers that Connection lists are removed, so that a client cannot list those that are set here.
func (o onward) rewrite(r *httputil.ProxyRequest) {
	r.SetURL(o.to)
	r.Out.Trailer = nil // its names would come without their values, past the look at the headers
	for name := range r.Out.Header {
		if folded := plain(name); spoofs(folded) || folded == o.certificate {
			delete(r.Out.Header, name)
		}
	}
	r.Out.URL.RawQuery = withoutToken(r.Out.URL.RawQuery)
	r.SetXForwarded()
	token := valetkey.FromContext(r.In.Context())
	if !o.withToken || token == nil { // what no guard has verified, the upstream might take for verified
		r.Out.Header.Del("Authorization")
	}
	// Of the protocols to switch to, WebSocket leaves no way to make further requests, which nobody would look at; h2c does.
	if !strings.EqualFold(r.Out.Header.Get("Upgrade"), "websocket") {
		r.Out.Header.Del("Upgrade")
		r.Out.Header.Del("Connection")
	}
	if token == nil {
		return
	}
	for _, h := range identity(token) {
		if h.value != "" {
			r.Out.Header.Set(h.name, h.value)
		}
	}
}

// dropped are headers, by their plain names, that an upstream would believe because only its proxies set them. A header with the
// value false passes although one of droppedPrefixes matches, because clients send it. No such list is complete. Assertions that their proxy signs, such as
// X-Goog-IAP-JWT-Assertion, are not on it, since the upstream can verify the signature.
var dropped = map[string]bool{
	// another method or path than those of the request, or a file to serve, for some frameworks
	"X-HTTP-METHOD": true, "X-HTTP-METHOD-OVERRIDE": true, "X-METHOD-OVERRIDE": true, "X-SCRIPT-NAME": true,
	"X-MATCHED-PATH": true, "X-NOW-ROUTE-MATCHES": true, "X-ACCEL-MAPPING": true, "X-SENDFILE-TYPE": true,

	// Next.js, whose pages send it when they load others ahead
	"X-MIDDLEWARE-PREFETCH": false,

	// CGI makes it HTTP_PROXY, which HTTP clients read as the proxy for their requests ("httpoxy")
	"PROXY": true,

	// what is between the client and this proxy: a proof (RFC 9449), a certificate (RFC 9440, and by other names), TLS
	"DPOP": true, "CLIENT-CERT": true, "CLIENT-CERT-CHAIN": true, "X-CLIENT-VERIFY": true,
	"FRONT-END-HTTPS": true, "X-SCHEME": true, "X-URL-SCHEME": true, "CF-VISITOR": true,

	// the address of the client, by the names that CDNs, clouds and servers give it
	"FORWARDED": true, "X-REAL-IP": true, "TRUE-CLIENT-IP": true, "X-CLIENT-IP": true, "CLIENT-IP": true, "X-CLUSTER-CLIENT-IP": true,
	"CF-CONNECTING-IP": true, "CF-CONNECTING-IPV6": true, "CF-PSEUDO-IPV4": true, "FASTLY-CLIENT-IP": true, "FLY-CLIENT-IP": true,
	"DO-CONNECTING-IP": true, "X-NF-CLIENT-CONNECTION-IP": true, "X-ORIGINATING-IP": true, "X-SUCURI-CLIENTIP": true,
	"INCAP-CLIENT-IP": true, "X-PROXYUSER-IP": true, "PROXY-CLIENT-IP": true,

	// the host of the URL
	"X-HOST": true, "X-HTTP-HOST-OVERRIDE": true,

	// the user, by the names of proxies that log users in
	"CF-ACCESS-AUTHENTICATED-USER-EMAIL": true, "X-AMZN-OIDC-IDENTITY": true, "X-USERINFO": true,
	"X-CREDENTIAL-IDENTIFIER": true, "X-CREDENTIAL-USERNAME": true, "X-ANONYMOUS-CONSUMER": true,
}

// droppedPrefixes are those of groups of such headers. They are long enough to leave the headers of clients alone, such as
// X-Client-Version and X-Consumer-Key.
var droppedPrefixes = []string{
	"X-VALETKEY", "X-FORWARDED", // -User and -Client-Cert beside -For
	"X-ENVOY-", "X-ORIGINAL-", "X-REWRITE-", "X-AZURE-", "X-APPENGINE-", "X-VERCEL-", // Envoy; IIS and Symfony; clouds
	"X-MIDDLEWARE-", "X-INVOKE-", // Next.js, between its own parts

	// certificates of clients, and TLS: Apache and nginx, IIS, WebLogic, AWS
	"SSL-CLIENT-", "X-SSL-", "X-CLIENT-CERT", "X-ARR-", "WL-PROXY-", "X-AMZN-MTLS-",

	// users: proxies that log them in, among them Authelia (Remote-*), Grafana's (X-WebAuth-*) and mod_auth_openidc (OIDC_*)
	"REMOTE-", "X-REMOTE-", "X-WEBAUTH-", "X-AUTH-REQUEST-", "X-AUTHENTICATED-", "X-AUTHENTIK-", "TAILSCALE-", "OIDC-",
	"X-GOOG-AUTHENTICATED-USER-", "X-MS-CLIENT-PRINCIPAL",

	// users and consumers: API gateways (Kong, APISIX, Google)
	"X-CONSUMER-ID", "X-CONSUMER-CUSTOM-ID", "X-CONSUMER-USERNAME", "X-CONSUMER-GROUP", "X-ENDPOINT-API-", "X-APIGATEWAY-API-",
}

// spoofs reports whether an upstream might take a header, by its plain name, for one of ours or of another proxy.
func spoofs(plain string) bool {
	if drop, listed := dropped[plain]; listed {
		return drop
	}
	return slices.ContainsFunc(droppedPrefixes, func(p string) bool { return strings.HasPrefix(plain, p) })
}

// withoutToken returns a query without the parameters that an upstream might read as access_token (RFC 6750, section 2.3): the
// guard has not verified their values.
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

// readsAsToken reports whether a framework might read a parameter, by its decoded name, as access_token. Some ignore letter case, trim
// white space or end a name at a NUL. Rack and qs drop leading brackets, and many take what follows a bracket or a dot for an
// index. PHP and its kin take some characters for '_'.
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

var asUnderscore = strings.NewReplacer(".", "_", " ", "_", "[", "_")

// plain returns the name of a header in one spelling: CGI and its heirs do not tell '-' from '_' and other punctuation.
func plain(name string) string {
	return strings.ToUpper(strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return '-'
	}, name))
}

type header struct{ name, value string }

func identity(t *valetkey.Token) [3]header {
	return [3]header{{"X-Valetkey-Subject", t.Subject()}, {"X-Valetkey-Client", t.ClientID()}, {"X-Valetkey-Scope", t.Scopes().String()}}
}

var errNoName = &valetkey.Error{Code: valetkey.InvalidToken, Reason: reasonNoName}

// namable refuses a token of which headers cannot carry what it says, also where a token is optional. Next gets the others,
// and what comes without one.
func namable(guard *middleware.Guard, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if t := valetkey.FromContext(r.Context()); t != nil && !fitHeaders(identity(t)) {
			guard.Reject(r, errNoName).Apply(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// fitHeaders reports whether headers can carry the values: without a control character, which would fail or split the
// request, or space at an end, which would be lost on the way and make it someone else.
func fitHeaders(all [3]header) bool {
	for _, h := range all {
		if h.value != strings.TrimSpace(h.value) || strings.ContainsFunc(h.value, control) {
			return false
		}
	}
	return true
}

func control(c rune) bool { return c < ' ' || c == 0x7f }

// failed answers for an upstream that did not.
func (o onward) failed(w http.ResponseWriter, r *http.Request, err error) {
	if e, ok := w.(*exchange); ok && e.refusal() != nil { // while the upstream made the client wait
		o.guard.Reject(e.request, e.refusal()).Apply(w, e.request)
		return
	}
	level := slog.LevelError
	if r.Context().Err() != nil { // the client went, and with it the request
		level = slog.LevelDebug
	}
	o.log.LogAttrs(context.WithoutCancel(r.Context()), level, "no answer from upstream",
		slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Any("err", err))
	http.Error(w, http.StatusText(http.StatusBadGateway), http.StatusBadGateway)
}
