package valetenvoy

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// admit returns an error unless the peer of the connection may ask.
func (s *Server) admit(ctx context.Context) error {
	p, _ := peer.FromContext(ctx)
	if p == nil || p.Addr == nil {
		return s.turnedAway(ctx, "unknown", "its address is not known")
	}
	address := addressOf(p.Addr)
	if !address.IsValid() {
		if _, unix := p.Addr.(*net.UnixAddr); unix && s.unixSocket {
			return nil
		}
		return s.turnedAway(ctx, p.Addr.String(), "UnixSocket is not set")
	}
	if len(s.callers) == 0 && len(s.callerNames) == 0 { // only unix sockets
		return s.turnedAway(ctx, p.Addr.String(), "it is not a process on a unix socket")
	}
	if len(s.callers) > 0 && !slices.ContainsFunc(s.callers, func(prefix netip.Prefix) bool { return prefix.Contains(address) }) {
		return s.turnedAway(ctx, p.Addr.String(), "its address is not in Callers")
	}
	if len(s.callerNames) > 0 && !s.named(p.AuthInfo) {
		return s.turnedAway(ctx, p.Addr.String(), "its verified certificate has none of CallerNames")
	}
	return nil
}

// turnedAway returns the error for a caller that may not ask. It logs the first one in a minute, because anyone who reaches the
// listener can cause it.
func (s *Server) turnedAway(ctx context.Context, caller, reason string) error {
	if minute := time.Now().Unix()/60 + 1; s.warned.Swap(minute) != minute {
		s.log.LogAttrs(ctx, slog.LevelWarn, "check of an unknown caller refused", slog.String("caller", caller), slog.String("reason", reason))
	}
	return status.Error(codes.PermissionDenied, "valetenvoy: the caller may not ask")
}

// named reports whether the certificate that a caller has proven to own has one of the names.
func (s *Server) named(info credentials.AuthInfo) bool {
	tls, ok := info.(credentials.TLSInfo)
	if !ok || len(tls.State.VerifiedChains) == 0 || len(tls.State.VerifiedChains[0]) == 0 {
		return false
	}
	leaf := tls.State.VerifiedChains[0][0]
	return slices.ContainsFunc(s.callerNames, func(name string) bool { return hasName(leaf, name) })
}

func hasName(c *x509.Certificate, name string) bool {
	return slices.Contains(c.DNSNames, name) || slices.ContainsFunc(c.URIs, func(u *url.URL) bool { return u.String() == name })
}

// addressOf returns the address of a, or the zero Addr if a is not a network address.
func addressOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	if _, unix := a.(*net.UnixAddr); unix {
		return netip.Addr{}
	}
	parsed, _ := netip.ParseAddrPort(a.String())
	return parsed.Addr().Unmap().WithZone("")
}

// unmapped returns the range of IPv4 addresses for one that is written as IPv6.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}
