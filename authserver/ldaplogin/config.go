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

// Config specifies where the directory is and how users are found in it. Changes after [New] have no effect.
//
// An account is disabled if userAccountControl has the flag ACCOUNTDISABLE, accountExpires has passed, nsAccountLock or
// loginDisabled is TRUE, or pwdAccountLockedTime has the value of a permanent lock. A temporary lock after wrong passwords is
// ignored. A password is new if pwdChangedTime or pwdLastSet has changed. The service needs permission to read these attributes.
// If the directory marks former users in another way, exclude them with the Filter:
// (&(objectClass=person)(!(employeeType=former))(uid=%s)). If it does not record when a password was set, a new password ends
// neither sessions nor grants: use "valetkey user revoke".
type Config struct {
	_ struct{}

	// URL is the address of the directory: ldaps://host, or ldap://host, which uses StartTLS before anything else is sent. A
	// port may follow; the defaults are 636 and 389. Required.
	URL string

	// RootCAs verify the certificate of the directory, which must be valid for the host of the URL. Nil: the system's.
	RootCAs *x509.CertPool

	// BindDN and BindPassword are the credentials of the service, which needs permission to search. Both empty: it searches
	// anonymously.
	BindDN, BindPassword string

	// BaseDN is the entry below which users are searched. Required.
	BaseDN string

	// Filter finds the entry of a name, which replaces each %s. Each %s must be the whole value of an attribute. Empty:
	// (&(objectClass=person)(uid=%s)). For Active Directory: (&(objectCategory=person)(sAMAccountName=%s)).
	Filter string

	// ID is the attribute that permanently identifies an entry and becomes its subject. Empty: entryUUID (RFC 4530). For Active
	// Directory: objectGUID. Use another one, such as uid or employeeNumber, only if its values are never reassigned.
	ID string

	// Display is the attribute with the name shown on pages. Empty: cn.
	Display string

	// Groups maps the DN of a group to the scopes that its members may allow an application. A user in none of them may allow
	// nothing. The directory must list an entry's groups in memberOf; nested groups are not resolved. Nil: every user may allow
	// all scopes of each API.
	Groups map[string][]string

	// Type is the user type. Empty: employee.
	Type string

	// Timeout is the maximum duration of a login or a lookup. Zero: 5 s.
	Timeout time.Duration

	// PoolSize is the number of concurrent searches, and of connections that are kept. Zero: 4. At most 1,000.
	PoolSize int

	// InsecurePlain sends passwords over ldap:// in clear text, without StartTLS.
	InsecurePlain bool

	// Logger receives warnings about names that several entries have. Nil: slog.Default().
	Logger *slog.Logger
}

// placeholder matches the attributes that are compared with a name.
var placeholder = regexp.MustCompile(`\(([A-Za-z][A-Za-z0-9-]*|[0-9.]+)=%s\)`)

// New returns a Directory. It does not connect yet; see [Directory.Ready]. The error lists every mistake, each as a
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
	if (cfg.BindDN == "") != (cfg.BindPassword == "") { // a bind without a password does not authenticate (RFC 4513, section 5.1.2)
		wrong("BindPassword", errors.New("BindDN and BindPassword must be set together"))
	}
	names := placeholder.FindAllStringSubmatch(cfg.Filter, -1)
	if _, err := ldap.CompileFilter(strings.ReplaceAll(cfg.Filter, "%s", "x")); err != nil {
		wrong("Filter", err)
	} else if len(names) == 0 || len(names) != strings.Count(cfg.Filter, "%") {
		wrong("Filter", errors.New("%s must be the whole value of an attribute, as in (uid=%s), at least once; no other % is allowed"))
	}
	if cfg.Timeout < 0 {
		wrong("Timeout", errors.New("must not be negative"))
	}
	if cfg.PoolSize < 0 || cfg.PoolSize > 1000 {
		wrong("PoolSize", errors.New("must be between 1 and 1,000"))
	}
	var groups []group
	if cfg.Groups != nil {
		groups = []group{}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Groups)) {
		dn, err := ldap.ParseDN(name)
		wrong(fmt.Sprintf("Groups[%q]", name), err)
		for _, s := range cfg.Groups[name] {
			wrong(fmt.Sprintf("Groups[%q]", name), scopes.Validate(s))
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

// server evaluates URL, RootCAs and InsecurePlain.
func (cfg *Config) server() (server, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return server{}, errors.New("cannot be parsed") // its error may contain a password
	}
	if u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.User != nil {
		return server{}, errors.New("must be ldaps:// or ldap://, a host, and optionally a port")
	}
	s := server{tls: &tls.Config{ServerName: u.Hostname(), RootCAs: cfg.RootCAs, MinVersion: tls.VersionTLS12}}
	var port string
	switch {
	case u.Scheme == "ldaps" && cfg.InsecurePlain:
		return server{}, errors.New("ldaps:// and InsecurePlain cannot be combined")
	case u.Scheme == "ldaps":
		port = ldap.DefaultLdapsPort
	case u.Scheme == "ldap" && cfg.InsecurePlain:
		port, s.tls = ldap.DefaultLdapPort, nil
	case u.Scheme == "ldap":
		port, s.startTLS = ldap.DefaultLdapPort, true
	default:
		return server{}, errors.New("must begin with ldaps:// or ldap://")
	}
	s.address = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))
	return s, nil
}

func validDN(dn string) error {
	if dn == "" {
		return errors.New("required")
	}
	_, err := ldap.ParseDN(dn)
	return err
}
