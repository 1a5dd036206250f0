// Package server runs the authorization server from a configuration file, or from none, and opens its store for an operator.
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
	"github.com/valetkey/valetkey/authserver/ldaplogin"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/internal/mistakes"
)

// A document is the content of a configuration file: an authserver.Config, and the fields that it lacks. Paths are relative to
// the folder of the file.
type document struct {
	authserver.Config `yaml:",inline"`

	Listen string     `yaml:"listen"` // empty: 127.0.0.1:8888
	Types  []userType `yaml:"user_types"`

	Records      config.Secret `yaml:"store"`      // memory, sqlite:PATH or the URL of a PostgreSQL database; empty: sqlite:valetkey.db
	Sealing      config.Secret `yaml:"seal,apart"` // base64 of 32 random bytes; with SQLite empty for one beside the database
	SealedBefore config.Secret `yaml:"seal_previous,apart"`

	*config.Document `yaml:"-"`

	words   string // of the store
	flagged bool   // they are the command line's, and so is a path in them
	beside  string // where the seal is made if it is not there yet; empty: nowhere
	closers []func() error
	log     *slog.Logger
}

type userType struct {
	Type     string    `yaml:"type"`
	Label    string    `yaml:"label"`
	Database *struct{} `yaml:"database"` // this, if empty, or
	LDAP     *ldap     `yaml:"ldap"`
}

// ldap has the fields of ldaplogin.Config.
type ldap struct {
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

// ldapNames are what files call the fields of ldaplogin.Config.
var ldapNames = map[string]string{
	"URL": "url", "BaseDN": "base_dn", "BindDN": "bind_dn", "BindPassword": "bind_password_file", "Filter": "filter",
	"Timeout": "timeout", "PoolSize": "pool_size", "Groups": "groups",
}

// load reads the file at path, and those it names. Empty: the demonstration. The store is what records names, if it is not
// empty, or else what the file does. Nothing is started; the error names every mistake with its line.
func load(path, records string, log *slog.Logger) (*document, error) {
	d := &document{log: log, words: records, flagged: records != "", Document: &config.Document{}}
	if path == "" {
		d.Config = authserver.Demo()
		if err := d.resolve(); err != nil {
			return nil, err
		}
		return d, d.Err()
	}
	if err := config.ReadFile(path, d, func(doc *config.Document) error {
		d.Document = doc
		return d.resolve()
	}); err != nil {
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

// resolve makes of the document's own fields those of the Config.
func (d *document) resolve() error {
	for i, t := range d.Types {
		field := fmt.Sprintf("user_types[%d]", i)
		made := authserver.UserType{Type: t.Type, Label: t.Label}
		if t.Database != nil && t.LDAP != nil {
			d.Mistake(field+".ldap", "stands beside database: give one of them")
		}
		if t.LDAP != nil {
			if directory := d.directory(t, field+".ldap"); directory != nil {
				made.Login = directory
				d.closers = append(d.closers, directory.Close)
			}
		}
		d.UserTypes = append(d.UserTypes, made)
	}
	if !d.flagged {
		d.words = cmp.Or(d.Secret(d.Records), "sqlite:valetkey.db")
	}
	d.place()
	d.Seal, d.SealPrevious = d.Key(d.Sealing), d.Key(d.SealedBefore)
	d.Logger = d.log
	return d.Validate()
}

func (d *document) directory(t userType, field string) *ldaplogin.Directory {
	l := t.LDAP
	cfg := ldaplogin.Config{
		URL: l.URL, BindDN: l.BindDN, BindPassword: d.Secret(l.BindPassword),
		BaseDN: l.BaseDN, Filter: l.Filter, ID: l.ID, Display: l.Display, Groups: l.Groups, Type: t.Type, Timeout: l.Timeout,
		PoolSize: l.PoolSize, InsecurePlain: l.InsecurePlain, Logger: d.log,
	}
	if d.SecretGiven(l.BindPassword) {
		cfg.BindPassword = cmp.Or(cfg.BindPassword, "unread") // the mistake is known
	}
	if l.RootCAFile != "" {
		cfg.RootCAs = x509.NewCertPool()
		pem, err := config.Content(d.Path(l.RootCAFile), maxCertificates)
		switch {
		case err != nil:
			d.Mistake(field+".root_ca_file", "%w", err)
		case !cfg.RootCAs.AppendCertsFromPEM(pem):
			d.Mistake(field+".root_ca_file", "has no certificate in PEM")
		}
	}
	directory, err := ldaplogin.New(cfg)
	for _, m := range valetkey.ConfigErrors(err) {
		if name, known := mistakes.Rename(m.Field, ldapNames); known { // or it is Type, which the Config reports
			d.Mistake(field+"."+name, "%w", m.Err)
		}
	}
	return directory
}

const maxCertificates = 1 << 20 // bytes
