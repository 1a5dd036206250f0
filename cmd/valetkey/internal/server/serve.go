package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

// Settings holds the flags of a command.
type Settings struct {
	Config string // configuration file; empty: the demo
	Store  string // overrides the store in the file if not empty
	Addr   string // overrides the address in the file if not empty
	Create bool   // for Open: create a missing store file instead of returning an error; Serve always creates it
	Log    *slog.Logger
	Audit  *slog.Logger // audit log; nil: Log

	Drivers driver.Set // drivers of this build
}

// Open returns a server on its store for operator commands. It does not serve. The store must be persistent: memory is an error.
// The caller must call close. Unless Settings.Create is set, a missing store file is an error and is not created, because a
// misspelled path would look like an empty server.
func Open(ctx context.Context, set Settings) (s *authserver.Server, close func() error, err error) {
	d, err := load(set)
	if err != nil {
		return nil, nil, err
	}
	d.Audit = set.Audit
	if d.words == inMemory {
		return nil, nil, errors.Join(errors.New("store: memory is lost when this command ends"), d.close())
	}
	if s, err = d.server(ctx, set.Create); err != nil {
		return nil, nil, errors.Join(err, d.close())
	}
	return s, d.close, nil
}

func (d *document) server(ctx context.Context, create bool) (*authserver.Server, error) {
	var err error
	if d.Store, err = d.open(ctx, create); err != nil {
		return nil, err
	}
	return authserver.New(ctx, d.Config)
}

const defaultAddr = "127.0.0.1:8888"

// Serve serves until ctx is done or the server fails. It prints how to try the server to out. A hangup reads the file again. SIGUSR1,
// on systems that have it, rotates the signing keys.
func Serve(ctx context.Context, set Settings, hangup <-chan os.Signal, out io.Writer) error {
	d, err := load(set)
	if err != nil {
		return err
	}
	d.Audit = set.Audit
	p := &process{settings: set, log: d.log}
	return errors.Join(p.serve(ctx, d, hangup, out), p.close())
}

// onLoopback reports whether addr accepts connections from this machine only.
func onLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// introduce prints what can be tried with the public demo secrets. It prints no other secret, because the output may be logged.
func (d *document) introduce(out io.Writer) {
	fmt.Fprintf(out, "The authorization server is at %s", d.Issuer)
	if path, isFile := strings.CutPrefix(d.words, sqlite); isFile {
		fmt.Fprintf(out, ", its records in %s", d.storePath(path))
	}
	fmt.Fprintln(out, ".")
	known := d.DemoSecrets()
	if len(known) == 0 {
		return
	}
	base := strings.TrimSuffix(d.Issuer, "/")
	if len(d.Portal.Developers) > 0 {
		fmt.Fprintf(out, "\nRegister applications and try them: %s/developer\n", base)
	}
	for _, a := range d.APIs {
		if u, err := url.Parse(a.TryURL); err == nil && a.TryURL != "" && onLoopback(u.Host) {
			fmt.Fprintf(out, "To use a token there, start the API at %s. The command demo starts both.\n", a.TryURL)
		}
	}
	for i, u := range d.Users {
		if slices.Contains(known, fmt.Sprintf("Users[%d].Password", i)) {
			fmt.Fprintf(out, "Log in as %s with the password %s.\n", u.Name, u.Password)
		}
	}
	for i, c := range d.Clients {
		byItself := slices.Contains(c.GrantTypes, "client_credentials") || c.GrantTypes == nil && len(c.RedirectURIs) == 0
		if slices.Contains(known, fmt.Sprintf("Clients[%d].Secret", i)) && len(c.Scopes) > 0 && byItself {
			fmt.Fprintf(out, "\nPaste this line into another shell to get a token:\ncurl -u %s:%s -d grant_type=client_credentials %s%s\n",
				c.ID, c.Secret, base, cmp.Or(d.Paths.Token, "/oauth2/token"))
			return
		}
	}
}
