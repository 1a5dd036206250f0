package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
)

// ErrAddress is wrapped by the error of a connection that [Guarded] refuses.
var ErrAddress = errors.New("not a public address")

// Guarded returns a transport for URLs that untrusted parties can influence. It connects only to public addresses and to
// those in allow. It checks the address that is dialed, after name resolution and for each connection, so a name that
// resolves to another address the second time gains nothing (draft-ietf-oauth-rfc8725bis, section 3.10). It uses no proxy,
// since the proxy would dial, and limits the size of response headers. A nil config has the same meaning as for [tls.Dial].
func Guarded(config *tls.Config, allow ...netip.Prefix) *http.Transport {
	allow = slices.Clone(allow)
	dialer := &net.Dialer{
		Timeout: Timeout,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrAddress, err)
			}
			a := plain(to.Addr())
			if !Public(a) && !slices.ContainsFunc(allow, func(p netip.Prefix) bool { return p.Contains(a) }) {
				return ErrAddress
			}
			return nil
		},
	}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        config.Clone(),
		TLSHandshakeTimeout:    Timeout,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           100,
		IdleConnTimeout:        idle,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// Public reports whether a is the address of a host in the public Internet. Addresses of this host, private networks,
// multicast groups and reserved ranges are not (IANA's registries of special-purpose addresses, RFC 6890). An IPv6 address
// that embeds an IPv4 address is classified as the IPv4 address.
func Public(a netip.Addr) bool {
	a = plain(a)
	if a.Is6() && !globalUnicast.Contains(a) {
		return false
	}
	return a.IsValid() && !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

// plain returns the IPv4 address that a embeds or, if there is none, a without a zone.
func plain(a netip.Addr) netip.Addr {
	if nat64.Contains(a.WithZone("")) {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a.Unmap().WithZone("")
}

var (
	nat64         = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052, section 2.1
	globalUnicast = netip.MustParsePrefix("2000::/3")     // outside of it: loopback, link-local, unique local, multicast, ...

	special = []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),        // this network, RFC 791
		netip.MustParsePrefix("10.0.0.0/8"),       // private, RFC 1918
		netip.MustParsePrefix("100.64.0.0/10"),    // behind a carrier's NAT, RFC 6598
		netip.MustParsePrefix("127.0.0.0/8"),      // loopback, RFC 1122
		netip.MustParsePrefix("168.63.129.16/32"), // the platform of Azure, as seen from its hosts
		netip.MustParsePrefix("169.254.0.0/16"),   // link-local, RFC 3927; metadata of most clouds
		netip.MustParsePrefix("172.16.0.0/12"),    // private, RFC 1918
		netip.MustParsePrefix("192.0.0.0/24"),     // protocols, RFC 6890
		netip.MustParsePrefix("192.0.2.0/24"),     // documentation, RFC 5737
		netip.MustParsePrefix("192.88.99.0/24"),   // 6to4 relays, RFC 7526
		netip.MustParsePrefix("192.168.0.0/16"),   // private, RFC 1918
		netip.MustParsePrefix("198.18.0.0/15"),    // benchmarks, RFC 2544
		netip.MustParsePrefix("198.51.100.0/24"),  // documentation, RFC 5737
		netip.MustParsePrefix("203.0.113.0/24"),   // documentation, RFC 5737
		netip.MustParsePrefix("224.0.0.0/4"),      // multicast, RFC 5771
		netip.MustParsePrefix("240.0.0.0/4"),      // reserved, RFC 1112, and broadcast

		netip.MustParsePrefix("2001::/23"),     // protocols, RFC 2928; Teredo, RFC 4380
		netip.MustParsePrefix("2001:db8::/32"), // documentation, RFC 3849
		netip.MustParsePrefix("2002::/16"),     // 6to4, RFC 3056: holds an IPv4 address
		netip.MustParsePrefix("3fff::/20"),     // documentation, RFC 9637
	}
)
