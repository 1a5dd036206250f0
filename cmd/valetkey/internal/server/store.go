package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

const (
	inMemory = "memory"
	sqlite   = "sqlite:"
	sealSize = 32 // bytes
)

// place checks the text that selects the store.
func (d *document) place() {
	path, isFile := strings.CutPrefix(d.words, sqlite)
	sealed := d.SecretGiven(d.Sealing) || d.InsecureUnsealed
	switch {
	case d.words == inMemory:
	case isFile && path == "":
		d.Mistake("store", "requires a file name, such as sqlite:valetkey.db")
	case isFile && d.drivers.SQLite == nil:
		d.Mistake("store", "%w", driver.Missing("SQLite"))
	case isFile && !sealed:
		d.beside = d.storePath(path) + ".seal"
	case isFile:
	case !isDSN(d.words): // do not print it: it may contain a password
		d.Mistake("store", "is neither memory, sqlite:PATH nor postgres://...")
	case d.drivers.PostgreSQL == nil:
		d.Mistake("store", "%w", driver.Missing("PostgreSQL"))
	case !sealed: // replicas must share the seal
		d.Mistake("seal_file", "required with PostgreSQL, or seal_env, or insecure_unsealed")
	}
}

func isDSN(words string) bool {
	return strings.HasPrefix(words, "postgres://") || strings.HasPrefix(words, "postgresql://")
}

// storePath returns the path of the store file. A path from the command line is relative to the working directory.
func (d *document) storePath(path string) string {
	if d.flagged {
		return path
	}
	return d.Path(path)
}

// open opens the store. It returns nil for memory. With create, it creates a missing database file.
func (d *document) open(ctx context.Context, create bool) (store.Store, error) {
	path, isFile := strings.CutPrefix(d.words, sqlite)
	var opened store.Store
	var err error
	switch {
	case d.words == inMemory:
		return nil, nil
	case isFile:
		path = d.storePath(path)
		if _, missing := os.Stat(path); errors.Is(missing, fs.ErrNotExist) {
			if !create {
				return nil, fmt.Errorf("store: %s: no such database: correct the path, or create it with valetkey serve, client add or user add", path)
			}
			cmp.Or(d.Audit, d.log).InfoContext(ctx, "creating the database", "file", path)
		}
		opened, err = d.drivers.SQLite(path)
	default:
		opened, err = d.drivers.PostgreSQL(ctx, d.words)
	}
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, opened.Close)
	if d.beside != "" { // last, so that no seal is left next to a file that is not a Valetkey database
		if d.Seal, err = sealAt(d.beside); err != nil {
			return nil, fmt.Errorf("the seal of the signing keys: %w", err)
		}
	}
	return opened, nil
}

// sealAt returns the seal in a file. It creates a missing file.
func sealAt(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := newSeal(path); err != nil {
			return nil, err
		}
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) < sealSize {
		return nil, fmt.Errorf("%s: is not the base64 of %d random bytes", path, sealSize)
	}
	return key, nil
}

// newSeal creates the file atomically, unless another process has just created it.
func newSeal(path string) error {
	key := make([]byte, sealSize)
	rand.Read(key)
	f, err := os.CreateTemp(filepath.Dir(path), ".seal") // readable by its owner only
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
