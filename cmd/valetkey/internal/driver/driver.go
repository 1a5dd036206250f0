// Package driver describes the parts of the command that only its full build has, because their libraries are several
// times as large as all the rest.
package driver

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"time"

	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/routes"
)

// A Set holds the drivers of a build. A configuration that needs one that is nil is a mistake, see [Missing]. The zero value is the
// light build.
type Set struct {
	SQLite     func(path string) (store.Store, error)
	PostgreSQL func(ctx context.Context, url string) (store.Store, error)

	// LDAP joins the mistakes in a Directory, each a *valetkey.ConfigError with the field of ldaplogin.Config.
	LDAP func(Directory) (Login, error)

	// OpenAPI reads the routes of a document, as valetopenapi.Routes does.
	OpenAPI func(document []byte) (routes.Table, error)
}

// A Directory describes an LDAP directory: the fields of the file, and the content of the files and variables they name.
type Directory struct {
	LDAP

	Type     string         // of its users
	Password string         // of BindDN
	RootCAs  *x509.CertPool // nil: those of the system
	Logger   *slog.Logger
}

// A Login holds connections until it is closed.
type Login interface {
	login.Login
	Close() error
}

// LDAP has the fields of ldaplogin.Config, as files spell them.
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

// Full is the package of the command with all drivers.
const Full = "github.com/valetkey/valetkey/cmd/valetkey/full/valetkey"

// Missing is the mistake of a configuration that needs a driver that this build does not have.
func Missing(name string) error {
	return fmt.Errorf("%s is not part of this build of valetkey: install the full one with go install %s@latest", name, Full)
}
