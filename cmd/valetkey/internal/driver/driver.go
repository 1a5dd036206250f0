// Package driver declares the parts of the command that only its full build has, because their libraries are several times as
// large as the rest of the command.
package driver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/routes"
)

// A Set holds the drivers of a build. A configuration that needs a nil driver is a mistake; see [Missing]. The zero value is the
// set of the light build.
type Set struct {
	SQLite     func(path string) (store.Store, error)
	PostgreSQL func(ctx context.Context, url string) (store.Store, error)

	// LDAP opens a directory. The error joins all mistakes in the Directory, each a *valetkey.ConfigError with a field of
	// ldaplogin.Config.
	LDAP func(Directory) (Login, error)

	// OpenAPI returns the routes of a document, as valetopenapi.Routes does.
	OpenAPI func(document []byte) (routes.Table, error)

	// CEL compiles rules, as package valetcel does.
	CEL CEL

	// ExtAuthz returns a server for ext_authz of Envoy over gRPC, and for health checks.
	ExtAuthz func(ExtAuthz) (Server, error)
}

// A CEL has the functions of package valetcel. Their errors join all mistakes, each a *valetkey.ConfigError with the field of
// valetcel, such as Rules[0].Expression.
type CEL struct {
	Verifier func(v valetkey.Verifier, rules []CELRule) (valetkey.Verifier, error)
	Require  func(rules []CELRule) (valetkey.Requirement, error)
}

// A CELRule holds the fields of valetcel.Rule under their names in configuration files.
type CELRule struct {
	Expression string `yaml:"rule,required,short"`
	Message    string `yaml:"message,filled"`
}

// An ExtAuthz describes a server for ext_authz over gRPC.
type ExtAuthz struct {
	Decider        *routes.Decider
	Callers        []netip.Prefix // the addresses from which gateways connect
	TLS            *tls.Config    // nil: plain HTTP/2
	AllowPreflight bool           // CORS preflights pass without credentials
	ForwardToken   bool           // the request keeps its token
	Logger         *slog.Logger
}

// A Server serves the connections of a listener, as an [http.Server] does.
type Server interface {
	Serve(l net.Listener) error         // until Shutdown or Close; its error is then ignored
	Shutdown(ctx context.Context) error // stops accepting connections, and waits for requests in progress until ctx is done
	Close() error                       // ends all connections
}

// A Directory describes an LDAP directory: the fields of the configuration file, with files and variables replaced by their
// contents.
type Directory struct {
	LDAP

	Type     string         // of its users
	Password string         // of BindDN
	RootCAs  *x509.CertPool // nil: the roots of the system
	Logger   *slog.Logger
}

// A Login is a login.Login that holds connections. Close releases them.
type Login interface {
	login.Login
	Close() error
}

// LDAP holds the fields of ldaplogin.Config under their names in configuration files.
type LDAP struct {
	URL           string              `yaml:"url"`
	RootCAFile    string              `yaml:"root_ca_file"`
	BindDN        string              `yaml:"bind_dn"`
	BindPassword  config.Secret       `yaml:"bind_password,apart"`
	BaseDN        string              `yaml:"base_dn"`
	Filter        string              `yaml:"filter"`
	ID            string              `yaml:"id"`
	Display       string              `yaml:"display"`
	Groups        map[string][]string `yaml:"groups"`
	Timeout       time.Duration       `yaml:"timeout"`
	PoolSize      int                 `yaml:"pool_size"`
	InsecurePlain bool                `yaml:"insecure_plain"`
}

// Full is the import path of the command with all drivers.
const Full = "github.com/valetkey/valetkey/cmd/valetkey/full/valetkey"

// Missing returns the mistake for a configuration that needs the named driver in a build without it. It states how to get the full build of
// the same version.
func Missing(name string) error { return missing(name, web.Version()) }

// release matches the versions of releases. A pseudo-version, a revision or (devel) is that of a working copy, which `go install` cannot
// fetch unless it has been published.
var release = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?$`)

func missing(name, version string) error {
	how := "build the full one in a clone: go build -o valetkey ./cmd/valetkey/full/valetkey"
	if release.MatchString(version) {
		how = "install the full one: go install " + Full + "@" + version
	}
	return fmt.Errorf("%s is not part of this build of valetkey: %s", name, how)
}
