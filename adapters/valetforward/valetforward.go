// Package valetforward lets a reverse proxy ask a guard about each request before it passes the request on: forward authentication
// with nginx, Traefik, Caddy, HAProxy and ingress-nginx, and ext_authz of Envoy over HTTP.
//
//	decider, err := table.Decider(guard)
//	...
//	handler, err := valetforward.New(valetforward.Config{
//		Decider: decider,
//		Dialect: valetforward.Nginx,
//		Callers: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
//	})
//	...
//	http.ListenAndServe("127.0.0.1:9091", handler)
//
// docs/gateways.md has a configuration for each proxy, and lists what each can and cannot carry. For ext_authz over gRPC, which
// carries more, see package valetenvoy.
package valetforward

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
)

// Config configures a [Handler]. Decider, Dialect and Callers are required.
type Config struct {
	_ struct{} // keyed literals only

	// Decider decides on the requests, see [routes.Table.Decider]. Required. Its guard needs a Resource.ID or a URL for proofs
	// (RFC 9449), because headers of gateways do not reach it. It cannot find tokens in a form: gateways do not send the body.
	Decider *routes.Decider

	// Dialect is the form in which the gateway asks. Required.
	Dialect Dialect

	// Callers lists the addresses from which the gateway connects. Callers are trusted to describe requests truthfully; any other
	// sender gets 403. Required unless UnixSocket is set. A range of all addresses is a mistake. The addresses are those of the
	// connections, so middleware that rewrites Request.RemoteAddr must not run before the Handler. The server can require client
	// certificates in addition.
	Callers []netip.Prefix

	// UnixSocket trusts every process that connects through a unix socket. The permissions of the socket file must restrict
	// access to the gateway.
	UnixSocket bool

	// PathPrefix is the path_prefix of Envoy's http_service, which precedes the path of the request, such as "/check". Required for
	// EnvoyHTTP, and only for it. Without a prefix, Envoy would ask about "OPTIONS *" with that request itself, which
	// [http.Server] answers with 200 without calling a handler.
	PathPrefix string

	// ClientCertificate is the header in which the gateway reports the certificate of the client (RFC 8705), such as
	// middleware.PEMHeader("X-Client-Cert") for $ssl_client_escaped_cert of nginx. The gateway must remove the header of a client.
	// The guard of the Decider finds the certificate with [middleware.TLSCertificate], as if the client had connected to it. The
	// zero value: none.
	ClientCertificate middleware.ClientCertificate

	// AllowPreflight lets CORS preflights without credentials pass, if the path is clear and no row refuses them for another
	// reason, so that the software behind the gateway answers them. An OPTIONS request that is not a preflight, and one with an unsuitable
	// token, is refused as usual. Without AllowPreflight, a preflight needs a token, which browsers do not send: the gateway must
	// answer it before it asks.
	AllowPreflight bool

	// ForwardToken leaves the token in the request that Envoy passes on. Without it, the answer lets Envoy remove Authorization and
	// the header of [middleware.HeaderToken], but neither cookies nor subprotocols, which contain more than a token. DPoP is always
	// removed. It has an effect on EnvoyHTTP only; the configuration of other gateways decides what they pass on.
	ForwardToken bool

	// Logger receives the address of a sender that is not in Callers, at level Warn, at most once a minute. Nil: slog.Default().
	Logger *slog.Logger
}

// A Handler answers the question of a gateway whether a request may pass.
//
// If it may, the answer is 200 with all headers of [middleware.IdentityHeaders], which are empty if the value is unknown, and those
// that the response to the client must carry, such as DPoP-Nonce. Otherwise the answer is the guard's refusal: 400, 401, 403, or 503
// with Retry-After. Its challenges are on one line, joined with commas (RFC 9110, section 11.6.1), because some gateways pass on only
// the first line.
//
// A request with a header that [middleware.IsIdentityHeader] reports is refused with 400, because this service cannot remove it.
// Headers in which gateways describe requests, such as X-Forwarded-Host, do not reach the guard: the dialect reads its own and
// ignores the others.
//
// A Handler must be the handler of a server, not of a pattern in an [http.ServeMux], which would redirect unclear paths of
// [EnvoyHTTP]. It is safe for concurrent use.
type Handler struct {
	decider        *routes.Decider
	read           func(*http.Request, string) (routes.Report, bool)
	prefix         string
	callers        middleware.Proxies
	certificate    middleware.ClientCertificate
	allowPreflight bool
	remove         string // the value of x-envoy-auth-headers-to-remove; "": not sent
	log            *slog.Logger
	warned         atomic.Int64 // the Unix time of the last warning, in seconds
	passes         passes
}

// New returns a Handler. It does no I/O. The error joins every mistake in cfg, each a [valetkey.ConfigError].
func New(cfg Config) (*Handler, error) {
	var mistakes []error
	mistake := func(field, format string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf("valetforward: %w", &valetkey.ConfigError{Field: field, Err: fmt.Errorf(format, args...)}))
	}
	if cfg.Decider == nil || cfg.Decider.Guard() == nil {
		mistake("Decider", "required, from routes.Table.Decider")
	}
	read := dialects[cfg.Dialect]
	switch {
	case cfg.Dialect == "":
		mistake("Dialect", "required: %s", names())
	case read == nil:
		mistake("Dialect", "%q is not supported: use %s", string(cfg.Dialect), names())
	}
	if len(cfg.Callers) == 0 && !cfg.UnixSocket {
		mistake("Callers", "required: the addresses of the gateway")
	}
	for i, prefix := range cfg.Callers {
		if prefix.Bits() <= 0 { // -1 for an invalid prefix
			mistake(fmt.Sprintf("Callers[%d]", i), "%v is not a range of addresses, or is all of them", prefix)
		}
	}
	switch {
	case cfg.PathPrefix == "" && cfg.Dialect == EnvoyHTTP:
		mistake("PathPrefix", "required: the path_prefix of Envoy's http_service, such as /check")
	case cfg.PathPrefix == "":
	case cfg.Dialect != EnvoyHTTP:
		mistake("PathPrefix", "has an effect on the dialect %s only", EnvoyHTTP)
	case !strings.HasPrefix(cfg.PathPrefix, "/") || strings.HasSuffix(cfg.PathPrefix, "/"):
		mistake("PathPrefix", "%q does not begin with a slash, or ends with one", cfg.PathPrefix)
	}
	if cfg.ForwardToken && cfg.Dialect != EnvoyHTTP {
		mistake("ForwardToken", "has an effect on the dialect %s only: configure the gateway instead", EnvoyHTTP)
	}
	if ofConnection(cfg.ClientCertificate) {
		mistake("ClientCertificate", "TLSCertificate would be the certificate of the gateway: use the header in which the gateway reports that of the client")
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	h := &Handler{
		decider: cfg.Decider, read: read, prefix: cfg.PathPrefix, allowPreflight: cfg.AllowPreflight, certificate: cfg.ClientCertificate,
		callers: middleware.Proxies{Trusted: slices.Clone(cfg.Callers), UnixSocket: cfg.UnixSocket}, log: cfg.Logger,
	}
	if cfg.Dialect == EnvoyHTTP {
		h.remove = "dpop"
		for _, name := range cfg.Decider.Guard().CredentialHeaders() {
			if name != "Dpop" && name != "Cookie" && name != "Sec-Websocket-Protocol" && !cfg.ForwardToken {
				h.remove += ", " + strings.ToLower(name)
			}
		}
	}
	if h.log == nil {
		h.log = slog.Default()
	}
	return h, nil
}

func names() string {
	var all []string
	for d := range dialects {
		all = append(all, string(d))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// ofConnection reports whether cc finds the certificate of the connection.
func ofConnection(cc middleware.ClientCertificate) bool {
	connection := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte{0}}}}
	der, err := cc.Find(&http.Request{TLS: connection}, middleware.Proxies{})
	return err == nil && der != nil
}

// ServeHTTP answers the question r. It does not read the body.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := h.answer(r)
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	w.Write(a.body)
}

// An answer is the response to a question.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (h *Handler) answer(r *http.Request) (a answer) {
	defer func() {
		if v := recover(); v != nil {
			a = refusal(h.decider.Reject(r, fmt.Errorf("valetforward: panic while deciding: %v\n%s", v, debug.Stack())))
		}
	}()
	if !h.trusts(r.RemoteAddr) {
		h.warn(r)
		return forbidden("this address may not ask")
	}
	report, err := h.report(r)
	if err != nil {
		return refusal(h.decider.Reject(r, err))
	}
	d, _ := h.decider.DecideReport(r.Context(), report)
	switch err := d.Err(); {
	case err == nil:
		usual := d.Token() != nil && len(d.Header()) == 0
		if usual {
			if header := h.passes.get(d.Token()); header != nil {
				return answer{status: http.StatusOK, header: header}
			}
		}
		identity, err := middleware.IdentityHeaders(d.Token())
		if err != nil {
			return refusal(h.decider.Reject(r, err))
		}
		a := h.pass(identity, d.Header())
		if usual {
			h.passes.put(d.Token(), a.header)
		}
		return a
	case h.allowPreflight && preflight(report) && (withoutCredentials(err) || d.Status() < 400):
		identity, _ := middleware.IdentityHeaders(nil) // nothing in it can be wrong
		return h.pass(identity, nil)
	}
	return refusal(d)
}

// pass returns the answer that lets a request pass. It consists of identity, and header for the response to the client.
func (h *Handler) pass(identity, header http.Header) answer {
	maps.Copy(identity, header)
	if identity["Cache-Control"] == nil {
		identity["Cache-Control"] = []string{"no-store"} // the answer is for one request
	}
	if h.remove != "" {
		identity["X-Envoy-Auth-Headers-To-Remove"] = []string{h.remove}
	}
	return answer{status: http.StatusOK, header: identity}
}

// refusal returns the answer for a Decision that is not accepted.
func refusal(d middleware.Decision) answer {
	if d.Status() < 400 { // the guard has answered a preflight; most gateways would take its status as a pass
		return forbidden("a preflight must not reach the guard of a gateway")
	}
	header := maps.Clone(d.Header())
	if challenges := header["Www-Authenticate"]; len(challenges) > 1 {
		header["Www-Authenticate"] = []string{strings.Join(challenges, ", ")}
	}
	return answer{d.Status(), header, d.Body()}
}

// forbidden returns a refusal that is not for the client to cure.
func forbidden(why string) answer {
	return answer{http.StatusForbidden, http.Header{
		"Cache-Control": {"no-store"}, "Content-Type": {"text/plain; charset=utf-8"}, "X-Content-Type-Options": {"nosniff"},
	}, []byte("Forbidden: " + why + "\n")}
}

// report returns the description of the request in r.
func (h *Handler) report(r *http.Request) (routes.Report, error) {
	p, ok := h.read(r, h.prefix)
	if !ok {
		return routes.Report{}, &valetkey.Error{Code: valetkey.InvalidRequest, Reason: reasonQuestion}
	}
	p.RemoteAddr = r.RemoteAddr
	p.Header = make(http.Header, max(0, len(r.Header)-4)) // most dialects have four headers that describe a request
	handshake := false
	for name, lines := range r.Header {
		if middleware.IsIdentityHeader(name) {
			return routes.Report{}, &valetkey.Error{Code: valetkey.InvalidRequest, Reason: reasonClaimed}
		}
		if !describes(name) {
			p.Header[name] = lines
		}
		handshake = handshake || name == "Sec-Websocket-Key" || name == "Sec-Websocket-Version" // HTTP/2 has no key (RFC 8441)
	}
	// A gateway that removes Upgrade from its question still passes the handshake on. The guard must know it, because any page can
	// open a WebSocket with the cookies of its visitor.
	if handshake && p.Header["Upgrade"] == nil {
		p.Header["Upgrade"], p.Header["Connection"] = []string{"websocket"}, []string{"Upgrade"}
	}
	der, err := h.certificate.Find(r, h.callers)
	if err == nil && der != nil {
		p.Certificate, err = x509.ParseCertificate(der)
	}
	return p, err
}

func (h *Handler) trusts(remoteAddr string) bool {
	if remoteAddr == "" || remoteAddr == "@" { // net.UnixAddr.String of an unnamed socket
		return h.callers.UnixSocket
	}
	a, err := netip.ParseAddrPort(remoteAddr)
	caller := a.Addr().Unmap().WithZone("")
	return err == nil && slices.ContainsFunc(h.callers.Trusted, func(prefix netip.Prefix) bool { return prefix.Contains(caller) })
}

func (h *Handler) warn(r *http.Request) {
	now, last := time.Now().Unix(), h.warned.Load()
	if now-last >= 60 && h.warned.CompareAndSwap(last, now) {
		h.log.WarnContext(r.Context(), "a sender that is not in Callers was refused", "addr", r.RemoteAddr)
	}
}

func preflight(p routes.Report) bool {
	return p.Method == http.MethodOptions && p.Header.Get("Origin") != "" && p.Header.Get("Access-Control-Request-Method") != ""
}

func withoutCredentials(err error) bool {
	var refusal *valetkey.Error
	return errors.As(err, &refusal) && refusal.Code == valetkey.NoCredentials
}
