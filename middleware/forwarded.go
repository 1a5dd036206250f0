package middleware

import (
	"net/http"
	"net/netip"
	"strings"
)

// A hop holds the details that a proxy reports about the request that it received. A field is "" if the proxy does not report it.
type hop struct {
	from  string // the sender, in the form of RFC 7239, section 6
	proto string // http or https
	host  string
}

// hop returns the hop from the client, as the proxies report it. It returns false if the headers are malformed.
func (p *Proxies) hop(h http.Header) (hop, bool) {
	if p.Forwarded == XForwarded {
		proto, ok := single(h["X-Forwarded-Proto"])
		host, also := single(h["X-Forwarded-Host"])
		told := hop{proto: strings.ToLower(proto), host: host}
		return told, ok && also && told.valid()
	}
	var hops []hop
	for _, line := range h["Forwarded"] {
		more, ok := hopsIn(line)
		if !ok {
			return hop{}, false
		}
		hops = append(hops, more...)
	}
	// RFC 7239, section 8.1: each proxy appends an element, so only the elements after the client's own are trustworthy.
	for len(hops) > 1 && p.includes(node(hops[len(hops)-1].from)) {
		hops = hops[:len(hops)-1]
	}
	if len(hops) == 0 {
		return hop{}, true
	}
	return hops[len(hops)-1], true
}

// single returns the value of a header that may occur at most once. It returns false if there are several.
func single(lines []string) (value string, ok bool) {
	if len(lines) == 0 {
		return "", true
	}
	return lines[0], len(lines) == 1 && !strings.Contains(lines[0], ",")
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
		known, value = &h.proto, strings.ToLower(value)
	case "host":
		known = &h.host
	default:
		return true
	}
	once := *known == "" // section 4
	*known = value
	return once
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
