package login

import (
	"context"
	"net/netip"
	"time"

	"github.com/valetkey/valetkey/internal/mistakes"
)

// Limits are how often people may try to log in. Right and wrong passwords count alike, and a right one gives nothing back:
// who has an account of their own must not earn attempts at another's.
type Limits struct {
	Name    Rate // for one name, from all addresses. Zero: 10 at once, then one a minute
	Address Rate // for one address, with all names. Zero: 100 at once, as an office may share an address, then one in 2 s
	Size    int  // how many names, and how many addresses, are known at once. Zero: 65,536, see [NewLimiter]
}

// A Limited is a [Login] behind limits (RFC 6749, sections 2.3.1 and 4.3.2). It asks where the attempt comes from, so it is
// no Login itself: whoever has one cannot forget the limit.
//
// An attacker can keep a name waiting by trying it without end; who is logged in stays so.
type Limited struct {
	login           Login
	name, addresses *Limiter
}

// Limit puts limits before login. The error joins a valetkey.ConfigError for each mistake.
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

// Login asks the [Login] for name and password, or returns a [*TooMany] without asking. The address is that of the user's
// end, as http.Request.RemoteAddr has it or without the port; all that have none share one budget.
func (l *Limited) Login(ctx context.Context, address, name, password string) (*User, error) {
	if err := l.addresses.Allow(Network(address)); err != nil {
		return nil, err
	}
	if err := l.name.Allow(Fold(name)); err != nil {
		return nil, err
	}
	return ask(ctx, l.login, name, password)
}

// Network returns what one user's end is known by, to count its attempts: its IPv4 address, or the first 64 bits of its IPv6
// address, as one end has all the others. The address may have a port. Empty: it is no address.
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
