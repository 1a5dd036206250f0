package middleware

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// Trusts reports whether r comes from a trusted proxy, by the address of the connection.
func (p Proxies) Trusts(r *http.Request) bool { return p.trust(r.RemoteAddr) }

// ClientAddr returns the address of the client of r. If r comes from a trusted proxy, it is the one that the proxies report in the header
// of p.Forwarded: the last one that is not a trusted proxy itself. Otherwise, and if they report none, it is the address of the
// connection. It is the zero Addr if that has none.
func (p Proxies) ClientAddr(r *http.Request) netip.Addr {
	if p.Trusts(r) {
		var from string
		switch p.Forwarded {
		case XForwarded:
			nodes := list(r.Header["X-Forwarded-For"])
			if n := p.passed(nodes); n > 0 {
				from = nodes[len(nodes)-n]
			}
		case Forwarded:
			if hops, _ := p.hops(r.Header); len(hops) > 0 {
				from = hops[0].from
			}
		}
		if a := node(from); a.IsValid() {
			return a.Unmap().WithZone("")
		}
	}
	return peer(r)
}

// ForwardingHeaders returns the headers by which a reverse proxy that receives r reports its client to the software behind it. The reverse
// proxy must remove these headers, in any spelling, from the request that it passes on, and then set the result.
//
//	header             from a trusted proxy, with Forwarded: XForwarded       from anyone else
//	X-Forwarded-For    the addresses since the client, and the connection's   the address of the connection
//	X-Forwarded-Host   as received; else Host                                 Host
//	X-Forwarded-Proto  as received; else by the connection                    http or https, by the connection
//	X-Forwarded-Port   with XForwardedPort as received; else as on the right  that in X-Forwarded-Host; else 80 or 443
//	X-Forwarded-Prefix with XForwardedPrefix as received; else absent         absent
//	Forwarded          absent                                                 one element: for, host, proto
//
// From a trusted proxy with Forwarded: Forwarded, the header Forwarded has the received elements since the client and one for the
// connection, and the others are absent. So everything that p does not declare to be set by the trusted proxies is ignored, because they
// might pass it on from a client, and no values contradict each other. Values that precede the address of the client are ignored too,
// as are malformed ones. Of several values, the one of the first trusted proxy is used.
func (p Proxies) ForwardingHeaders(r *http.Request) http.Header {
	own := hop{proto: "http", host: r.Host}
	if r.TLS != nil {
		own.proto = "https"
	}
	if a := peer(r); a.IsValid() {
		own.from = a.String()
	}
	trusted := p.Trusts(r)
	if trusted && p.Forwarded == Forwarded {
		var elements []string
		hops, _ := p.hops(r.Header)
		for _, h := range append(hops, own) {
			elements = append(elements, h.element())
		}
		return http.Header{"Forwarded": {strings.Join(elements, ", ")}}
	}
	told, nodes := own, make([]string, 0, 1)
	header, values := make(http.Header, 6), make([]string, 0, 6) // room for all, so that few allocations are needed
	set := func(name, value string) {
		values = append(values, value)
		header[name] = values[len(values)-1:][:1:1]
	}
	if trusted && p.Forwarded == XForwarded {
		nodes = list(r.Header["X-Forwarded-For"])
		nodes = nodes[len(nodes)-p.passed(nodes):]
		received, _ := p.xHop(r.Header) // the zero hop if they are malformed
		if received.proto != "" {
			told.proto = received.proto
		}
		if received.host != "" && !strings.ContainsFunc(received.host, notInHost) {
			told.host, told.port = received.host, received.port
		}
		if received.prefix != "" {
			set("X-Forwarded-Prefix", received.prefix)
		}
	} else {
		set("Forwarded", own.element())
	}
	if own.from != "" {
		nodes = append(nodes, own.from)
	}
	if len(nodes) > 0 {
		set("X-Forwarded-For", strings.Join(nodes, ", "))
	}
	if told.host != "" {
		set("X-Forwarded-Host", told.host)
	}
	set("X-Forwarded-Proto", told.proto)
	if port := told.urlPort(); port != "" {
		set("X-Forwarded-Port", port)
	}
	return header
}

// element returns h as an element of Forwarded (RFC 7239, section 4). A value that the header cannot carry is left out.
func (h hop) element() string {
	from := h.from
	if from == "" {
		from = "unknown"
	} else if strings.Contains(from, ":") { // otherwise no IPv6 address
		if a := node(from); a.Is6() {
			from = "[" + a.WithZone("").String() + "]"
		}
	}
	text := make([]byte, 0, 128)
	text = appendQuoted(append(text, "for="...), from)
	if h.host != "" && !strings.ContainsFunc(h.host, notInHost) {
		text = appendQuoted(append(text, ";host="...), h.host)
	}
	if h.proto != "" {
		text = append(append(text, ";proto="...), h.proto...)
	}
	return string(text)
}

// appendQuoted appends s, which contains neither quotes nor backslashes, as a token or a quoted-string (RFC 7239, section 4).
func appendQuoted(text []byte, s string) []byte {
	if strings.ContainsAny(s, "[]:;,=()<>@/?{} \t") {
		return append(append(append(text, '"'), s...), '"')
	}
	return append(text, s...)
}

// urlPort returns the port of the URL of h, or "" if the host is malformed.
func (h hop) urlPort() string {
	switch {
	case h.port != "":
		return h.port
	case hasPort(h.host):
		_, port, _ := net.SplitHostPort(h.host) // "" if it is malformed
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return ""
		}
		return port
	case h.proto == "https":
		return "443"
	}
	return "80"
}

// peer returns the address of the connection of r, or the zero Addr if it has none.
func peer(r *http.Request) netip.Addr {
	a, _ := netip.ParseAddrPort(r.RemoteAddr) // the zero AddrPort if it is none
	return a.Addr().Unmap().WithZone("")
}

// notInHost reports whether c cannot be in a host and port (RFC 3986, section 3.2).
func notInHost(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune(`/\?#@,;"<>{}`, c) }
