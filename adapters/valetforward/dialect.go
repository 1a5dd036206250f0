package valetforward

import (
	"net/http"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/routes"
)

// A Dialect is the form in which a gateway asks, and reads the answer. It is part of the configuration and is never derived from a
// request: clients can send the headers of every dialect. The zero value is invalid.
type Dialect string

// The dialects. A request that lacks a header of its dialect, or has it twice, is refused with 400.
const (
	// EnvoyHTTP is ext_authz of Envoy with an http_service, and every product that is built on it. The method, the target and the
	// host are those of the request itself; Config.PathPrefix precedes the target.
	EnvoyHTTP Dialect = "envoy-http"

	// Nginx is auth_request of nginx. The location that asks sets the headers, as in examples/gateways/nginx:
	// X-Forwarded-Method, X-Forwarded-Uri, X-Forwarded-Proto and X-Forwarded-Host.
	Nginx Dialect = "nginx"

	// IngressNginx is the auth-url annotation of ingress-nginx, which reports X-Original-Method, and the whole URL in
	// X-Original-URL.
	IngressNginx Dialect = "ingress-nginx"

	// Traefik is the middleware forwardAuth of Traefik. It sets the headers of Nginx. The scheme of a WebSocket handshake is ws or
	// wss.
	Traefik Dialect = "traefik"

	// Caddy is the directive forward_auth of Caddy. It sets the headers of Nginx.
	Caddy Dialect = "caddy"

	// HAProxy is the Lua action in examples/gateways/haproxy. It sets the headers of Nginx.
	HAProxy Dialect = "haproxy"
)

// forwarded reads the headers that most dialects have.
func forwarded(r *http.Request) (p routes.Report, ok bool) {
	for _, from := range []struct {
		name string
		to   *string
	}{
		{"X-Forwarded-Method", &p.Method}, {"X-Forwarded-Uri", &p.Target}, {"X-Forwarded-Proto", &p.Scheme}, {"X-Forwarded-Host", &p.Host},
	} {
		if *from.to, ok = once(r.Header, from.name); !ok {
			return routes.Report{}, false
		}
	}
	return p, true
}

// dialects maps each Dialect to the function that reads the description of a request. It returns false if a header is missing or
// repeated. A routes.Decider checks the values.
var dialects = map[Dialect]func(r *http.Request, prefix string) (p routes.Report, ok bool){
	Nginx:   func(r *http.Request, _ string) (routes.Report, bool) { return forwarded(r) },
	Caddy:   func(r *http.Request, _ string) (routes.Report, bool) { return forwarded(r) },
	HAProxy: func(r *http.Request, _ string) (routes.Report, bool) { return forwarded(r) },
	Traefik: func(r *http.Request, _ string) (routes.Report, bool) {
		p, ok := forwarded(r)
		switch p.Scheme { // a handshake is a request for an http or https URL (RFC 6455, section 3)
		case "ws":
			p.Scheme = "http"
		case "wss":
			p.Scheme = "https"
		}
		return p, ok
	},
	IngressNginx: func(r *http.Request, _ string) (p routes.Report, ok bool) {
		method, ok := once(r.Header, "X-Original-Method")
		if !ok {
			return routes.Report{}, false
		}
		u, ok := once(r.Header, "X-Original-Url")
		if !ok {
			return routes.Report{}, false
		}
		// The host is what the client has sent. nginx refuses a host with a slash, so the first one begins the path.
		scheme, rest, _ := strings.Cut(u, "://")
		slash := strings.IndexByte(rest, '/')
		if scheme == "" || slash <= 0 {
			return routes.Report{}, false
		}
		return routes.Report{Method: method, Target: rest[slash:], Scheme: scheme, Host: rest[:slash]}, true
	},
	EnvoyHTTP: func(r *http.Request, prefix string) (routes.Report, bool) {
		target, ok := strings.CutPrefix(r.RequestURI, prefix) // as sent; handlers before this one may have changed r.URL
		return routes.Report{Method: r.Method, Target: target, Host: r.Host}, ok
	},
}

// once returns the value of a header that is present once and not empty.
func once(h http.Header, name string) (value string, ok bool) {
	lines := h[name]
	if len(lines) != 1 || lines[0] == "" {
		return "", false
	}
	return lines[0], true
}

// describes reports whether gateways use a header to describe a request. It ignores letter case, and treats all punctuation as a
// hyphen, as much software does. Such a header is from the gateway, which the dialect has read, or from a client, which proves
// nothing. So the guard does not see it.
func describes(name string) bool {
	switch { // most headers begin with another letter
	case begins(name, "f"):
		return len(name) == len("forwarded") && begins(name, "forwarded")
	case begins(name, "x"):
		return begins(name, "x-forwarded-") || begins(name, "x-original-") || begins(name, "x-envoy-") || begins(name, "x-auth-request-") ||
			begins(name, "x-real-ip") || begins(name, "x-rewrite-url")
	}
	return false
}

// begins reports whether name begins with prefix, in any spelling.
func begins(name, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
		default:
			c = '-'
		}
		if c != prefix[i] {
			return false
		}
	}
	return true
}

// Reasons for refusals that a guard does not have.
var (
	reasonQuestion = valetkey.NewReason("gateway_question", "the gateway does not describe the request completely, or describes it twice")
	reasonClaimed  = valetkey.NewReason("identity_claimed", "the request contains an X-Valetkey header, which only the gateway may add")
)
