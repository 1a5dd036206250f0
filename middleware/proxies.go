package middleware

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/valetkey/valetkey/internal/mistakes"
)

// Proxies specifies the trusted reverse proxies and the headers accepted from them. Every other sender is a client, whose
// forwarding headers are ignored. The zero value trusts no proxy.
//
// The address of a proxy is that of the connection. Middleware that rewrites Request.RemoteAddr must not run before a guard.
type Proxies struct {
	// Trusted lists the addresses from which the proxies connect.
	Trusted []netip.Prefix

	// UnixSocket trusts every process that connects through a unix socket. The permissions of the socket file must restrict
	// access to the proxies.
	UnixSocket bool

	// Forwarded is the header in which the proxies report the URL that the client requested. Empty: none.
	Forwarded Forwarding

	// XForwardedPort reads X-Forwarded-Port too: the port of the URL, if X-Forwarded-Host has none. Set it only if the proxies set
	// the header to the port to which the client connects, not to one of their ports.
	XForwardedPort bool

	// XForwardedPrefix reads X-Forwarded-Prefix too: the beginning of the path, which a proxy has removed. If several proxies
	// remove a part, each adds a value, and the first one is the beginning. Set it only if the proxies replace the header of a
	// client.
	XForwardedPrefix bool
}

// A Forwarding is a header in which proxies report the URL that a client requested. They must set it on every request and must not
// pass on the client's own value. The zero value means no header.
type Forwarding string

// The headers that proxies may set. A guard reads the configured one and ignores the other.
const (
	// Forwarded is the header of RFC 7239. Each proxy adds an element with for, proto and host. A guard uses the last element
	// whose for is not one of the proxies.
	Forwarded Forwarding = "Forwarded"

	// XForwarded is the pair of headers X-Forwarded-Proto and X-Forwarded-Host. The proxy to which clients connect sets both.
	// Proxies behind it may leave a header unchanged, replace it, or add a value, as in "https, http". Of several values, a guard
	// uses that of the first trusted proxy, which it finds by the addresses in X-Forwarded-For: each proxy must add that of its
	// sender. Several values without X-Forwarded-For are malformed.
	XForwarded Forwarding = "X-Forwarded"
)

// check adds the mistakes in p. certificate is true if the proxies also report the client's certificate.
func (p Proxies) check(wrong *mistakes.List, certificate bool) {
	for i, prefix := range p.Trusted {
		if prefix.Bits() <= 0 { // -1 for an invalid prefix
			wrong.Add(fmt.Sprintf("Proxies.Trusted[%d]", i), "%v is not a range of addresses, or is all of them", prefix)
		}
	}
	switch p.Forwarded {
	case "", Forwarded, XForwarded:
	default:
		wrong.Add("Proxies.Forwarded", `%q is not supported: use "Forwarded" or "X-Forwarded"`, string(p.Forwarded))
	}
	for _, option := range []struct {
		name string
		set  bool
	}{{"XForwardedPort", p.XForwardedPort}, {"XForwardedPrefix", p.XForwardedPrefix}} {
		if option.set && p.Forwarded != XForwarded {
			wrong.Add("Proxies."+option.name, "has no effect unless Forwarded is %s", XForwarded)
		}
	}
	told := p.Forwarded != "" || certificate
	nobody := len(p.Trusted) == 0 && !p.UnixSocket
	if told && nobody {
		wrong.Add("Proxies.Trusted", "required if proxies report a URL or a certificate")
	}
	if !told && !nobody {
		wrong.Add("Proxies.Forwarded", "required: without it and without a certificate header, trusting proxies has no effect")
	}
}

func (p Proxies) clone() Proxies {
	p.Trusted = slices.Clone(p.Trusted)
	return p
}

// trust reports whether remoteAddr, a Request.RemoteAddr, is the address of a trusted proxy.
func (p *Proxies) trust(remoteAddr string) bool {
	if remoteAddr == "" || remoteAddr == "@" { // net.UnixAddr.String of an unnamed socket
		return p.UnixSocket
	}
	a, _ := netip.ParseAddrPort(remoteAddr) // the zero AddrPort, which no prefix includes, if it is none
	return p.includes(a.Addr())
}

func (p *Proxies) includes(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(p.Trusted, func(prefix netip.Prefix) bool { return prefix.Contains(a) })
}
