package ldaplogin

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/scopes"
)

// A Config says where the directory is and how its people are found. A [Directory] does not notice later changes of it.
//
// An account is disabled if userAccountControl has the flag ACCOUNTDISABLE, accountExpires is over, nsAccountLock or loginDisabled
// is TRUE, or pwdAccountLockedTime is the one of a permanent lock; a temporary lock after wrong passwords does not count. A
// password is new if pwdChangedTime or pwdLastSet has moved. The service needs the right to read these attributes. In a directory
// that marks leavers in another way, exclude them by the Filter: (&(objectClass=person)(!(employeeType=former))(uid=%s)). In one
// that records no time of the password, a new password ends neither sessions nor grants: use "valetkey user revoke".
type Config struct {
	_ struct{}

	// URL is required: ldaps://host, or ldap://host, whose connections StartTLS protects before anything else is sent. A port
	// may follow; 636 and 389 by default.
	URL string

	// RootCAs vouch for the directory's certificate, which must be of the URL's host. Nil: those of the system.
	RootCAs *x509.CertPool

	// BindDN and BindPassword are the service's own, which may search. Both empty: it searches as nobody.
	BindDN, BindPassword string

	// BaseDN is required: people are the entries below it.
	BaseDN string

	// Filter finds the entry of a name, which stands for each %s. Each is the whole value of an attribute.
	// Empty: (&(objectClass=person)(uid=%s)). With Active Directory: (&(objectCategory=person)(sAMAccountName=%s)).
	Filter string

	// ID is the attribute that names an entry for ever and becomes its subject. Empty: entryUUID (RFC 4530). With Active
	// Directory: objectGUID. Another, as uid or employeeNumber, only where it is never given to another person.
	ID string

	// Display is the attribute with what pages call people. Empty: cn.
	Display string

	// Groups are the scopes that members of a group may allow an application, by the DN of the group. Who is in none may allow
	// nothing. The directory must list an entry's groups in memberOf; groups within groups do not count. Nil: all may
	// allow whatever the API has.
	Groups map[string][]string

	// Type is the type of these users. Empty: employee.
	Type string

	// Timeout is the most that a login takes. Zero: 5 s.
	Timeout time.Duration

	// PoolSize is how many searches there are at once, and so connections that are kept. Zero: 4.
	PoolSize int

	// InsecurePlain sends passwords over ldap:// as they are, without StartTLS.
	InsecurePlain bool

	// Logger is told of names that several entries bear. Nil: slog.Default().
	Logger *slog.Logger
}

// placeholder finds the attributes that are compared with a name.
var placeholder = regexp.MustCompile(`\(([A-Za-z][A-Za-z0-9-]*|[0-9.]+)=%s\)`)

// New returns a Directory. It does not ask it for anything yet, see [Directory.Ready]. The error names every mistake, each in a
// valetkey.ConfigError.
func New(cfg Config) (*Directory, error) {
	all := mistakes.List{Package: "ldaplogin"}
	wrong := all.Within
	cfg.Filter = cmp.Or(cfg.Filter, "(&(objectClass=person)(uid=%s))")
	cfg.Type = cmp.Or(cfg.Type, "employee")
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Second)
	cfg.PoolSize = cmp.Or(cfg.PoolSize, 4)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())

	srv, err := cfg.server()
	wrong("URL", err)
	wrong("Type", login.ValidType(cfg.Type))
	wrong("BaseDN", validDN(cfg.BaseDN))
	if cfg.BindDN != "" {
		wrong("BindDN", validDN(cfg.BindDN))
	}
	if (cfg.BindDN == "") != (cfg.BindPassword == "") { // a bind without a password is no bind (RFC 4513, section 5.1.2)
		wrong("BindPassword", errors.New("BindDN and BindPassword belong together"))
	}
	names := placeholder.FindAllStringSubmatch(cfg.Filter, -1)
	if _, err := ldap.CompileFilter(strings.ReplaceAll(cfg.Filter, "%s", "x")); err != nil {
		wrong("Filter", err)
	} else if len(names) == 0 || len(names) != strings.Count(cfg.Filter, "%") {
		wrong("Filter", errors.New("%s must stand for the whole value of an attribute, as in (uid=%s), at least once, and no other % may"))
	}
	if cfg.Timeout < 0 {
		wrong("Timeout", errors.New("it is negative"))
	}
	if cfg.PoolSize < 0 || cfg.PoolSize > 1000 {
		wrong("PoolSize", errors.New("it is not within 1 and 1,000"))
	}
	var groups []group
	if cfg.Groups != nil {
		groups = []group{}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Groups)) {
		dn, err := ldap.ParseDN(name)
		wrong(fmt.Sprintf("Groups[%q]", name), err)
		for _, s := range cfg.Groups[name] {
			wrong(fmt.Sprintf("Groups[%q]", name), scopes.Valid(s))
		}
		groups = append(groups, group{dn, slices.Clone(cfg.Groups[name])})
	}
	if err := all.Err(); err != nil {
		return nil, err
	}

	d := &Directory{
		server: srv, timeout: cfg.Timeout, log: cfg.Logger, baseDN: cfg.BaseDN, filter: cfg.Filter,
		id: cmp.Or(cfg.ID, "entryUUID"), display: cmp.Or(cfg.Display, "cn"), groups: groups, userType: cfg.Type,
	}
	for _, n := range names {
		d.names = append(d.names, n[1])
	}
	d.pool = newPool(cfg.PoolSize, srv, cfg.BindDN, cfg.BindPassword)
	return d, nil
}

// server reads URL, RootCAs and InsecurePlain.
func (cfg *Config) server() (server, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return server{}, errors.New("it cannot be parsed") // it may hold a password
	}
	if u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.User != nil {
		return server{}, errors.New("it is not ldaps:// or ldap://, a host, and perhaps a port")
	}
	s := server{tls: &tls.Config{ServerName: u.Hostname(), RootCAs: cfg.RootCAs, MinVersion: tls.VersionTLS12}}
	var port string
	switch {
	case u.Scheme == "ldaps" && cfg.InsecurePlain:
		return server{}, errors.New("ldaps:// and InsecurePlain contradict each other")
	case u.Scheme == "ldaps":
		port = ldap.DefaultLdapsPort
	case u.Scheme == "ldap" && cfg.InsecurePlain:
		port, s.tls = ldap.DefaultLdapPort, nil
	case u.Scheme == "ldap":
		port, s.startTLS = ldap.DefaultLdapPort, true
	default:
		return server{}, errors.New("it is not ldaps:// or ldap://")
	}
	s.address = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))
	return s, nil
}

func validDN(dn string) error {
	if dn == "" {
		return errors.New("it is required")
	}
	_, err := ldap.ParseDN(dn)
	return err
}
