package authserver

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/middleware"
)

type senderKey struct{}

// A sender is the origin of a request.
type sender struct {
	address   string // without the port; empty: unknown
	connected string // the RemoteAddr of the connection: the sender's, or a proxy's
}

func senderIn(ctx context.Context) sender {
	s, _ := ctx.Value(senderKey{}).(sender)
	return s
}

// withSender determines where a request comes from, once for all users of that information: the limits, which read RemoteAddr,
// and the audit log and the fetches of metadata documents, which have only the context.
func (cfg *Config) withSender(r *http.Request) *http.Request {
	s := sender{cfg.address(r), r.RemoteAddr}
	r = r.WithContext(clients.WithCaller(context.WithValue(r.Context(), senderKey{}, s), s.address))
	r.RemoteAddr = s.address
	return r
}

// certificate returns a function that finds the certificate of a client, or nil if certificates are disabled.
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

// address returns the address of the connection or, if that is a proxy, the last address in X-Forwarded-For that is not a proxy.
// Anyone may have sent the addresses before it.
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
