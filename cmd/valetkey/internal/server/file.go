// Package server runs the authorization server from a configuration file, or from none, and opens its store for an operator.
package server

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/ldaplogin"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/file"
)

// A document is what the file says: an authserver.Config, and what that has no words for. Paths in it are relative to its
// folder. What is a secret stands in a file or a variable of its own.
type document struct {
	authserver.Config `yaml:",inline"`

	Listen string     `yaml:"listen"` // empty: 127.0.0.1:8888
	Types  []userType `yaml:"user_types"`

	Records     string `yaml:"store"` // memory, sqlite:PATH or the URL of a PostgreSQL database; empty: sqlite:valetkey.db
	RecordsFile string `yaml:"store_file"`
	RecordsEnv  string `yaml:"store_env"`

	SealFile         string `yaml:"seal_file"` // base64 of 32 random bytes; with SQLite empty for one beside the database
	SealEnv          string `yaml:"seal_env"`
	SealPreviousFile string `yaml:"seal_previous_file"`
	SealPreviousEnv  string `yaml:"seal_previous_env"`

	folder   string
	words    string // of the store
	beside   string // where the seal is made if it is not there yet; empty: nowhere
	mistakes []error
	closers  []func() error
	log      *slog.Logger
}

type userType struct {
	Type     string    `yaml:"type"`
	Label    string    `yaml:"label"`
	Database *struct{} `yaml:"database"` // this, if empty, or
	LDAP     *ldap     `yaml:"ldap"`
}

// ldap has the fields of ldaplogin.Config.
type ldap struct {
	URL              string              `yaml:"url"`
	RootCAFile       string              `yaml:"root_ca_file"`
	BindDN           string              `yaml:"bind_dn"`
	BindPasswordFile string              `yaml:"bind_password_file"`
	BindPasswordEnv  string              `yaml:"bind_password_env"`
	BaseDN           string              `yaml:"base_dn"`
	Filter           string              `yaml:"filter"`
	ID               string              `yaml:"id"`
	Display          string              `yaml:"display"`
	Groups           map[string][]string `yaml:"groups"`
	Timeout          time.Duration       `yaml:"timeout"`
	PoolSize         int                 `yaml:"pool_size"`
	InsecurePlain    bool                `yaml:"insecure_plain"`
}

// ldapNames are what files call the fields of ldaplogin.Config.
var ldapNames = map[string]string{
	"URL": "url", "BaseDN": "base_dn", "BindDN": "bind_dn", "BindPassword": "bind_password_file", "Filter": "filter",
	"Timeout": "timeout", "PoolSize": "pool_size", "Groups": "groups",
}

// load reads the file at path, and those it names. Empty: the demonstration. The store is what records names, if it is not
// empty, or else what the file does. Nothing is started; the error names every mistake with its line.
func load(path, records string, log *slog.Logger) (*document, error) {
	d := &document{log: log, Records: records}
	if path == "" {
		d.Config = authserver.Demo()
		return d, d.resolve()
	}
	text, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer text.Close()
	d.folder = filepath.Dir(path)
	d.Records = ""
	if err := authserver.ReadYAML(path, text, d, func() error {
		if records != "" { // the flag is before the file
			d.Records, d.RecordsFile, d.RecordsEnv, d.folder = records, "", "", ""
		}
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

func (d *document) mistake(field, format string, args ...any) {
	d.mistakes = append(d.mistakes, &authserver.Mistake{Field: field, Err: fmt.Errorf(format, args...)})
}

// resolve makes of the document's own fields those of the Config.
func (d *document) resolve() error {
	for i, t := range d.Types {
		field := fmt.Sprintf("user_types[%d]", i)
		made := authserver.UserType{Type: t.Type, Label: t.Label}
		if t.Database != nil && t.LDAP != nil {
			d.mistake(field+".ldap", "stands beside database: give one of them")
		}
		if t.LDAP != nil {
			if directory := d.directory(t, field+".ldap"); directory != nil {
				made.Login = directory
				d.closers = append(d.closers, directory.Close)
			}
		}
		d.UserTypes = append(d.UserTypes, made)
	}
	d.words = cmp.Or(d.Records, d.secret("store", d.RecordsFile, d.RecordsEnv), "sqlite:valetkey.db")
	if d.Records != "" && d.RecordsFile+d.RecordsEnv != "" {
		d.mistake("store", "stands beside store_file or store_env: give one of them")
	}
	d.place()
	d.Seal = d.sealing("seal", d.SealFile, d.SealEnv)
	d.SealPrevious = d.sealing("seal_previous", d.SealPreviousFile, d.SealPreviousEnv)
	d.Logger = d.log
	return errors.Join(append(d.mistakes, d.Validate())...)
}

func (d *document) directory(t userType, field string) *ldaplogin.Directory {
	l := t.LDAP
	cfg := ldaplogin.Config{
		URL: l.URL, BindDN: l.BindDN, BindPassword: d.secret(field+".bind_password", l.BindPasswordFile, l.BindPasswordEnv),
		BaseDN: l.BaseDN, Filter: l.Filter, ID: l.ID, Display: l.Display, Groups: l.Groups, Type: t.Type, Timeout: l.Timeout,
		PoolSize: l.PoolSize, InsecurePlain: l.InsecurePlain, Logger: d.log,
	}
	if l.BindPasswordFile+l.BindPasswordEnv != "" {
		cfg.BindPassword = cmp.Or(cfg.BindPassword, "unread") // which is said; it is there
	}
	if l.RootCAFile != "" {
		cfg.RootCAs = x509.NewCertPool()
		pem, err := file.Read(d.path(l.RootCAFile), maxCertificates)
		switch {
		case err != nil:
			d.mistake(field+".root_ca_file", "%w", err)
		case !cfg.RootCAs.AppendCertsFromPEM(pem):
			d.mistake(field+".root_ca_file", "has no certificate in PEM")
		}
	}
	directory, err := ldaplogin.New(cfg)
	for _, m := range authserver.Mistakes(errors.Unwrap(err)) {
		name, words, _ := strings.Cut(m.Err.Error(), ": ")
		name, _, _ = strings.Cut(name, "[") // a group, which the words name
		if name != "Type" {                 // which the Config tells of
			d.mistake(field+"."+ldapNames[name], "%s", words)
		}
	}
	return directory
}

const maxCertificates = 1 << 20 // bytes

// path returns where a file of the document is.
func (d *document) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(d.folder, name)
}
