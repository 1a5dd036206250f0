// Package server runs the authorization server, with or without a configuration file, and opens its store for operator commands.
package server

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/internal/mistakes"
)

// A document is the content of a configuration file: an authserver.Config and additional fields. Paths are relative to the folder
// of the file.
type document struct {
	authserver.Config `yaml:",inline"`

	Listen string        `yaml:"listen"` // empty: 127.0.0.1:8888
	Probe  string        `yaml:"probe"`  // address for operators; empty: none
	Drain  time.Duration `yaml:"drain"`  // absent: 5 s with a probe, else 0
	Grace  time.Duration `yaml:"grace"`  // absent: 10 s
	Types  []userType    `yaml:"user_types"`

	LogoFile    string `yaml:"logo"`
	FaviconFile string `yaml:"favicon"`

	Records      config.Secret `yaml:"store"`      // memory, sqlite:PATH or the URL of a PostgreSQL database; empty: sqlite:valetkey.db
	Sealing      config.Secret `yaml:"seal,apart"` // base64 of 32 random bytes; empty with SQLite: a file next to the database
	SealedBefore config.Secret `yaml:"seal_previous,apart"`

	*config.Document `yaml:"-"`

	words   string // the text that selects the store
	flagged bool   // words comes from the command line, so a path in it is relative to the working directory
	beside  string // file of the seal, created if missing; empty: none
	closers []func() error
	log     *slog.Logger
	drivers driver.Set

	previous *document // that this one replaces; nil: none
	digest   string    // of the file
}

type userType struct {
	Type     string       `yaml:"type"`
	Label    string       `yaml:"label"`
	Database *struct{}    `yaml:"database"` // must be empty; excludes LDAP
	LDAP     *driver.LDAP `yaml:"ldap"`
}

// ldapNames maps the fields of ldaplogin.Config to those of driver.LDAP.
var ldapNames = map[string]string{
	"URL": "url", "BaseDN": "base_dn", "BindDN": "bind_dn", "BindPassword": "bind_password_file", "Filter": "filter",
	"Timeout": "timeout", "PoolSize": "pool_size", "Groups": "groups",
}

// load reads the file of set and the files that it names. The store is set.Store or, if that is empty, the one in the file. It
// starts nothing. The error joins all mistakes, each with its line.
func load(set Settings) (*document, error) { return loadNext(set, nil) }

// loadNext is load for a configuration that replaces another one in a running process. previous may be nil.
func loadNext(set Settings, previous *document) (*document, error) {
	d := &document{log: set.Log, previous: previous, drivers: set.Drivers, words: set.Store, flagged: set.Store != ""}
	d.Document = config.Unread(d)
	if set.Config == "" {
		d.Config = authserver.Demo()
		if err := d.resolve(); err != nil {
			return nil, err
		}
		return d, d.Err()
	}
	digest, err := web.ReadFile(set.Config, d, func(doc *config.Document) error {
		d.Document = doc
		d.checkProcess()
		return d.resolve()
	})
	if d.digest = digest; err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *document) close() (errs error) {
	for _, end := range slices.Backward(d.closers) {
		errs = errors.Join(errs, end())
	}
	d.closers = nil
	return errs
}

// resolve converts the additional fields of the document to fields of the Config.
func (d *document) resolve() error {
	for i, t := range d.Types {
		field := fmt.Sprintf("user_types[%d]", i)
		made := authserver.UserType{Type: t.Type, Label: t.Label}
		if t.Database != nil && t.LDAP != nil {
			d.Mistake(field+".ldap", "cannot be combined with database")
		}
		if t.LDAP != nil {
			if directory := d.directory(t, field+".ldap"); directory != nil {
				made.Login = directory
				d.closers = append(d.closers, directory.Close)
			}
		}
		d.UserTypes = append(d.UserTypes, made)
	}
	d.Logo, d.Favicon = d.image("logo", d.LogoFile), d.image("favicon", d.FaviconFile)
	if !d.flagged {
		d.words = cmp.Or(d.Secret(d.Records), "sqlite:valetkey.db")
	}
	d.place()
	d.checkFixed()
	d.Seal, d.SealPrevious = d.Key(d.Sealing), d.Key(d.SealedBefore)
	d.Logger = d.log
	return d.Validate()
}

func (d *document) directory(t userType, field string) driver.Login {
	if d.drivers.LDAP == nil {
		d.Mistake(field, "%w", driver.Missing("LDAP"))
		return nil
	}
	l := t.LDAP
	described := driver.Directory{LDAP: *l, Type: t.Type, Password: d.Secret(l.BindPassword), Logger: d.log}
	if d.SecretGiven(l.BindPassword) {
		described.Password = cmp.Or(described.Password, "unread") // the mistake has been reported
	}
	if l.RootCAFile != "" {
		described.RootCAs = x509.NewCertPool()
		pem, err := config.Content(d.Path(l.RootCAFile), maxCertificates)
		switch {
		case err != nil:
			d.Mistake(field+".root_ca_file", "%w", err)
		case !described.RootCAs.AppendCertsFromPEM(pem):
			d.Mistake(field+".root_ca_file", "has no certificate in PEM")
		}
	}
	directory, err := d.drivers.LDAP(described)
	for _, m := range valetkey.ConfigErrors(err) {
		if name, known := mistakes.Rename(m.Field, ldapNames); known { // Type is unknown here; the Config reports it
			d.Mistake(field+"."+name, "%w", m.Err)
		}
	}
	if err != nil {
		return nil
	}
	return directory
}

// image reads the file that a field names. An empty name means no image.
func (d *document) image(field, name string) []byte {
	if name == "" {
		return nil
	}
	content, err := config.Content(d.Path(name), maxImage)
	if err != nil {
		d.Mistake(field, "%w", err)
	}
	return content
}

const maxImage = 1 << 20 // bytes; the authorization server accepts fewer

const maxCertificates = 1 << 20 // bytes
