package middleware

import (
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A hop holds the details that a proxy reports about the request that it received. A field is "" if the proxy does not report it.
type hop struct {
	from   string // the sender, in the form of RFC 7239, section 6
	proto  string // http or https
	host   string
	port   string // in another header than host, which then has none
	prefix string // of the path, which a proxy has removed
}

// hop returns the hop from the client, as the proxies report it. It returns false if the headers are malformed.
func (p *Proxies) hop(h http.Header) (hop, bool) {
	if p.Forwarded == XForwarded {
		return p.xHop(h)
	}
	hops, ok := p.hops(h)
	if len(hops) == 0 {
		return hop{}, ok
	}
	return hops[0], true
}

// hops returns the hops that the trusted proxies report in Forwarded, from that of the client on. It returns false if the header is
// malformed.
func (p *Proxies) hops(h http.Header) (hops []hop, ok bool) {
	for _, line := range h["Forwarded"] {
		more, ok := hopsIn(line)
		if !ok {
			return nil, false
		}
		hops = append(hops, more...)
	}
	// RFC 7239, section 8.1: each proxy appends an element, so only the elements after the client's own are trustworthy.
	first := max(len(hops)-1, 0)
	for first > 0 && p.includes(node(hops[first].from)) {
		first--
	}
	return hops[first:], true
}

// authority returns the host with its port, if that is known.
func (h hop) authority() string {
	if h.port == "" {
		return h.host
	}
	return h.host + ":" + h.port
}

// hasPort reports whether a host is followed by a port.
func hasPort(host string) bool {
	return strings.LastIndexByte(host, ':') > strings.LastIndexByte(host, ']')
}

// xHop returns the hop from the client as the X-Forwarded headers report it. It returns false if they are malformed.
func (p *Proxies) xHop(h http.Header) (hop, bool) {
	passed := p.passed(list(h["X-Forwarded-For"]))
	proto, ok := reported(list(h["X-Forwarded-Proto"]), passed)
	host, also := reported(list(h["X-Forwarded-Host"]), passed)
	told := hop{proto: schemeOf(proto), host: host}
	if !ok || !also || !told.valid() {
		return hop{}, false
	}
	if p.XForwardedPort {
		port, ok := reported(list(h["X-Forwarded-Port"]), passed)
		if n, err := strconv.ParseUint(port, 10, 16); !ok || port != "" && (err != nil || n == 0) {
			return hop{}, false
		}
		if host != "" && !hasPort(host) { // the client has sent no port
			told.port = port
		}
	}
	if p.XForwardedPrefix {
		prefixes := list(h["X-Forwarded-Prefix"])
		if len(prefixes) > 1 && len(prefixes) > passed {
			return hop{}, false
		}
		for _, prefix := range prefixes { // each proxy adds the one that it has removed, so the first is the outermost
			if prefix = strings.TrimSuffix(prefix, "/"); prefix == "" {
				continue
			}
			if !isPath(prefix) {
				return hop{}, false
			}
			told.prefix += prefix
		}
	}
	return told, true
}

// passed returns the number of trusted proxies that the request has passed, the sender included. nodes are the addresses in
// X-Forwarded-For; each proxy has added that of its sender. The result is 0, for unknown, if there are none.
func (p *Proxies) passed(nodes []string) int {
	n := min(len(nodes), 1)
	for n < len(nodes) && p.includes(node(nodes[len(nodes)-n])) {
		n++
	}
	return n
}

// reported returns what the trusted proxy to which the client has connected reports in a header with these values. The other
// trusted proxies, of the number passed, have left a value unchanged, replaced it, or added their own; values before these are from
// anyone. It returns false if there are several values and their origin is unknown.
func reported(values []string, passed int) (value string, ok bool) {
	switch n := len(values); {
	case n == 0:
		return "", true
	case n == 1:
		return values[0], true
	case passed == 0 || slices.Contains(values, ""):
		return "", false
	default:
		return values[n-min(n, passed)], true
	}
}

// list returns the values of a header that is a list (RFC 9110, section 5.6.1).
func list(lines []string) (values []string) {
	for _, line := range lines {
		for value := range strings.SplitSeq(line, ",") {
			values = append(values, strings.Trim(value, " \t"))
		}
	}
	return values
}

// isPath reports whether s is a clean absolute path without a query, in the characters of RFC 3986, section 3.3.
func isPath(s string) bool {
	return s[0] == '/' && path.Clean(s) == s && !strings.ContainsAny(s, `?#\"<>^{|}`+"`") &&
		!strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f })
}

// hopsIn reads one line of Forwarded (RFC 7239, section 4). It does not support escapes in a quoted-string, which no parameter
// here needs.
func hopsIn(line string) (hops []hop, ok bool) {
	for more := true; more; {
		var element string
		element, line, more = cutUnquoted(line, ',')
		var h hop
		for next := true; next; {
			var pair string
			pair, element, next = cutUnquoted(element, ';')
			if !h.read(strings.Trim(pair, " \t")) {
				return nil, false
			}
		}
		if !h.valid() {
			return nil, false
		}
		hops = append(hops, h)
	}
	return hops, true
}

// read reads one parameter, or an empty one. It returns false if the parameter is malformed or repeated.
func (h *hop) read(pair string) bool {
	name, value, found := strings.Cut(pair, "=")
	if inner, quoted := strings.CutPrefix(value, `"`); quoted {
		value, found = strings.CutSuffix(inner, `"`)
	}
	if pair == "" {
		return true
	}
	if !found || name == "" || value == "" || strings.ContainsAny(name+value, "\"\\ \t") {
		return false
	}
	var known *string
	switch strings.ToLower(name) {
	case "for":
		known = &h.from
	case "proto":
		known, value = &h.proto, schemeOf(value)
	case "host":
		known = &h.host
	default:
		return true
	}
	once := *known == "" // section 4
	*known = value
	return once
}

// schemeOf returns the scheme of the HTTP URL for a reported scheme. Traefik reports ws or wss for a WebSocket handshake, which is
// a request for an http or https URL (RFC 6455, section 3).
func schemeOf(proto string) string {
	switch proto = strings.ToLower(proto); proto {
	case "ws":
		return "http"
	case "wss":
		return "https"
	}
	return proto
}

// valid reports whether the scheme is http, https or missing.
func (h hop) valid() bool {
	return h.proto == "" || h.proto == "http" || h.proto == "https"
}

// node returns the address of a node (RFC 7239, section 6), or the zero Addr if it has none.
func node(s string) netip.Addr {
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a.Addr()
	}
	a, _ := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	return a
}

// cutUnquoted cuts s around the first sep that is not in a quoted-string.
func cutUnquoted(s string, sep byte) (before, after string, found bool) {
	quoted := false
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}
