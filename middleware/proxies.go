package middleware

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/valetkey/valetkey/internal/mistakes"
)

// Proxies are the reverse proxies before a guard, and what they are believed. Whoever is not named is a client, of whom no
// such header is looked at. The zero value: there are none.
//
// The address of a proxy is that of the connection: what rewrites Request.RemoteAddr must not stand before a guard.
type Proxies struct {
	// Trusted are the addresses that the proxies connect from.
	Trusted []netip.Prefix

	// UnixSocket trusts everybody who connects through a unix socket, which the rights to its file have to keep to the
	// proxies.
	UnixSocket bool

	// Forwarded is the header in which the proxies say what URL the client asked for. Empty: in none.
	Forwarded Forwarding
}

// A Forwarding is a header in which proxies say what URL a client asked for. They have to set it on every request: what a
// client sends of it must not come through.
type Forwarding string

// What proxies may set. A guard looks at one and never at the other.
const (
	// Forwarded is the header of RFC 7239. Each proxy adds an element with for, proto and host; what counts is the last
	// element whose for is not a proxy itself.
	Forwarded Forwarding = "Forwarded"

	// XForwarded are X-Forwarded-Proto and X-Forwarded-Host, each with one value: that of the proxy which clients see.
	XForwarded Forwarding = "X-Forwarded"
)

// check adds what is wrong with p. Certificate states that the proxies report the client's certificate too.
func (p Proxies) check(wrong *mistakes.List, certificate bool) {
	for i, prefix := range p.Trusted {
		if prefix.Bits() <= 0 { // also of a prefix that is none
			wrong.Add(fmt.Sprintf("Proxies.Trusted[%d]", i), "%v is not a range of addresses, or is all of them", prefix)
		}
	}
	switch p.Forwarded {
	case "", Forwarded, XForwarded:
	default:
		wrong.Add("Proxies.Forwarded", "%q is not a header that is known here", string(p.Forwarded))
	}
	told := p.Forwarded != "" || certificate
	nobody := len(p.Trusted) == 0 && !p.UnixSocket
	if told && nobody {
		wrong.Add("Proxies.Trusted", "required where proxies tell a URL or a certificate")
	}
	if !told && !nobody {
		wrong.Add("Proxies.Forwarded", "required, as the proxies are asked for nothing else")
	}
}

func (p Proxies) clone() Proxies {
	p.Trusted = slices.Clone(p.Trusted)
	return p
}

// trust reports whether remoteAddr, a Request.RemoteAddr, is that of a proxy.
func (p *Proxies) trust(remoteAddr string) bool {
	if remoteAddr == "" || remoteAddr == "@" { // net.UnixAddr.String of a socket without a name
		return p.UnixSocket
	}
	a, err := netip.ParseAddrPort(remoteAddr)
	return err == nil && p.includes(a.Addr())
}

func (p *Proxies) includes(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(p.Trusted, func(prefix netip.Prefix) bool { return prefix.Contains(a) })
}
