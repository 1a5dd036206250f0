package middleware

import (
	"cmp"
	"net/http"
	"strings"

	"github.com/valetkey/valetkey"
)

// urlOf returns the URL of r as the client saw it, without its query.
func (g *Guard) urlOf(r *http.Request) (string, error) {
	if g.url != nil {
		return g.url(r), nil
	}
	scheme, host, prefix := g.scheme, g.host, ""
	if g.proxies.Forwarded != "" && g.proxies.trust(r.RemoteAddr) {
		told, ok := g.proxies.hop(r.Header)
		if !ok {
			return "", malformed(valetkey.ReasonForwardedMalformed)
		}
		own := "http"
		if r.TLS != nil {
			own = "https"
		}
		scheme, host, prefix = cmp.Or(told.proto, scheme, own), cmp.Or(told.authority(), host), told.prefix
	}
	if host == "" { // the client controls the Host header, even if a proxy passes it on
		return "", &valetkey.Error{Code: valetkey.InvalidProof, Reason: valetkey.ReasonNotForwarded}
	}
	// These characters end the host of a URL early, or begin it late (RFC 3986, section 3.2). net/http refuses such a Host.
	if strings.ContainsAny(host, `/\?#@`) {
		return "", malformed(valetkey.ReasonHostMalformed)
	}
	return scheme + "://" + host + prefix + pathOf(r), nil
}

// pathOf returns the path as the client sent it. Handlers before the guard may have shortened the path in r.URL.
func pathOf(r *http.Request) string {
	if !strings.HasPrefix(r.RequestURI, "/") { // another form (RFC 9112, section 3.2), or r is not from net/http
		return r.URL.EscapedPath()
	}
	path, _, _ := strings.Cut(r.RequestURI, "?")
	return path
}
