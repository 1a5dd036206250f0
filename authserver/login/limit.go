package login

import (
	"context"
	"net/netip"
	"time"

	"github.com/valetkey/valetkey/internal/mistakes"
)

// Limits are rate limits for log-in attempts that fail. An attempt counts while it is checked, and if the password is right, it no
// longer counts. It restores nothing else: otherwise the owner of one account could earn attempts at another.
type Limits struct {
	Name    Rate // for one name, from all addresses. Zero: 10 at once, then one a minute
	Address Rate // for one address, with all names. Zero: 100 at once, as an office may share an address, then one in 2 s
	Size    int  // the number of names, and of addresses, that are tracked. Zero: 65,536; see [NewLimiter]
}

// A Limited is a [Login] behind rate limits (RFC 6749, sections 2.3.1 and 4.3.2). Its Login method requires the address of the
// attempt, so it is not itself a Login and the limits cannot be bypassed by mistake.
//
// An attacker can block log-ins with a name by trying it continuously. Existing sessions of that user remain.
type Limited struct {
	login           Login
	name, addresses *Limiter
}

// Limit returns login behind limits. The error joins a valetkey.ConfigError for each mistake.
func Limit(login Login, cfg Limits) (*Limited, error) {
	if cfg.Name == (Rate{}) {
		cfg.Name = Rate{10, time.Minute}
	}
	if cfg.Address == (Rate{}) {
		cfg.Address = Rate{100, 2 * time.Second}
	}
	wrong := mistakes.List{Package: "login"}
	wrong.AddIf(login == nil, "login", "required")
	wrong.AddIf(cfg.Size < 0, "Size", "%d is negative", cfg.Size)
	names, err := NewLimiter(cfg.Name, max(cfg.Size, 0))
	wrong.Within("", mistakes.Renamed(err, map[string]string{"rate": "Name"}))
	addresses, err := NewLimiter(cfg.Address, max(cfg.Size, 0))
	wrong.Within("", mistakes.Renamed(err, map[string]string{"rate": "Address"}))
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	return &Limited{login: login, name: names, addresses: addresses}, nil
}

// Login calls [Login] with name and password, or returns a [*TooMany] without calling it. address is that of the user, with a
// port as in http.Request.RemoteAddr or without one. All attempts without an address share one budget.
func (l *Limited) Login(ctx context.Context, address, name, password string) (*User, error) {
	if err := l.addresses.Allow(Network(address)); err != nil {
		return nil, err
	}
	if err := l.name.Allow(Fold(name)); err != nil {
		return nil, err
	}
	u, err := ask(ctx, l.login, name, password)
	if err == nil {
		l.addresses.Restore(Network(address))
		l.name.Restore(Fold(name))
	}
	return u, err
}

// Network returns the key by which the attempts of one user's connection are counted: the IPv4 address, or the first 64 bits of
// the IPv6 address, because one connection has all addresses below them. address may have a port. Network returns "" if it is
// not an address.
func Network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		port, err := netip.ParseAddrPort(address)
		if err != nil {
			return ""
		}
		ip = port.Addr()
	}
	bits := 64
	if ip = ip.Unmap().WithZone(""); ip.Is4() {
		bits = 32
	}
	prefix, _ := ip.Prefix(bits) // fits the address
	return prefix.String()
}
