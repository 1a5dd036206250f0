package authserver

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/middleware"
)

type senderKey struct{}

// A sender is where a request comes from.
type sender struct {
	address   string // without the port; empty: not known
	connected string // the RemoteAddr of the connection: that of the address, or a proxy's
}

func senderIn(ctx context.Context) sender {
	s, _ := ctx.Value(senderKey{}).(sender)
	return s
}

// withSender finds out where a request comes from, once for all who want to know: limits, which look at RemoteAddr, and the
// audit log, which has the context only.
func (cfg *Config) withSender(r *http.Request) *http.Request {
	s := sender{cfg.address(r), r.RemoteAddr}
	r = r.WithContext(context.WithValue(r.Context(), senderKey{}, s))
	r.RemoteAddr = s.address
	return r
}

// certificate returns what finds the certificate of a client, or nil if nothing is looked at.
func (cfg *Config) certificate() func(*http.Request) ([]byte, error) {
	var place middleware.ClientCertificate
	switch cfg.ClientCertificate {
	case "":
		return nil
	case "tls":
		return engine.TLSCertificate
	case "Client-Cert":
		place = middleware.ClientCertHeader()
	default:
		place = middleware.PEMHeader(cfg.ClientCertificate)
	}
	proxies := middleware.Proxies{Trusted: cfg.Proxies}
	return func(r *http.Request) ([]byte, error) {
		connected := *r
		connected.RemoteAddr = senderIn(r.Context()).connected
		return place.Find(&connected, proxies)
	}
}

// address returns the address of the connection; or, if that is a proxy's, the last one in X-Forwarded-For that is not: what
// stands before it, anybody may have sent.
func (cfg *Config) address(r *http.Request) string {
	connected, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	from := connected.Addr().Unmap()
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for cfg.isProxy(from) && len(hops) > 0 {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[len(hops)-1]))
		if err != nil {
			break
		}
		from, hops = hop.Unmap(), hops[:len(hops)-1]
	}
	return from.WithZone("").String()
}

func (cfg *Config) isProxy(a netip.Addr) bool {
	return slices.ContainsFunc(cfg.Proxies, func(p netip.Prefix) bool { return p.Contains(a.WithZone("")) })
}
