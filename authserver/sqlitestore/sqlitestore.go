// Package sqlitestore keeps the records of the authorization server in one SQLite file. It needs no C compiler.
package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/valetkey/valetkey/authserver/store"
)

// Store is a [store.Store] in a file. Several Stores may have the file open at once, in one process or in several on one
// machine. The file must not be on a network file system. Records that Put and Delete have confirmed survive the end of the
// process, even kill -9, and a crash of the machine, if its disk keeps the data that it reports as synced.
//
// The file is created with mode 0600, like the two files beside it, -wal and -shm, which are part of it. Copy it with SQLite's
// backup functions, not while it is open. The space of removed records is reused but not returned to the file system.
type Store struct {
	write *sql.DB // with one connection: SQLite allows one writer at a time, and writers queue here
	read  *sql.DB

	get, findAll, findKey                               *sql.Stmt // of read
	version, next, put, addKey, dropKeys, remove, sweep *sql.Stmt // of write
}

const (
	readers    = 8
	busyFor    = 5 * time.Second // how long to wait for another process
	sweepBatch = 500             // records; a writer waits for at most one batch
)

// Open opens or creates the file at path and migrates it to the schema of this program. It returns an error if the file belongs
// to a newer program or to another one.
func Open(path string) (*Store, error) {
	s, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("sqlitestore: %s: %w", path, err)
	}
	return s, nil
}

func open(path string) (_ *Store, err error) {
	path, err = filepath.Abs(path) // otherwise some paths would mean "in memory"
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) // SQLite creates the files beside it with the same mode
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	s := &Store{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	pragmas := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyFor.Milliseconds()),
		"synchronous(full)", // with less, a confirmed record may be lost with the machine's power
		"foreign_keys(on)",
	}}
	if s.write, err = connect(path, 1, pragmas, "_txlock", "immediate"); err != nil {
		return nil, err
	}
	if err := migrate(context.Background(), s.write); err != nil {
		return nil, err
	}
	if err := useLog(s.write); err != nil { // not before: a file of another program must not be changed
		return nil, fmt.Errorf("write-ahead log: %w", err)
	}
	if s.read, err = connect(path, readers, pragmas, "_pragma", "query_only(on)"); err != nil {
		return nil, err
	}
	return s, s.prepare()
}

func connect(path string, connections int, options url.Values, name, value string) (*sql.DB, error) {
	u := url.URL{Scheme: "file", Path: path}
	u.RawQuery = options.Encode() + "&" + url.Values{name: {value}}.Encode()
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// useLog switches the file permanently to write-ahead logging. Here SQLite does not wait for others that open the file,
// regardless of its busy_timeout.
func useLog(db *sql.DB) error {
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		var mode string
		err := db.QueryRow(`PRAGMA journal_mode = wal`).Scan(&mode)
		var refused *sqlite.Error
		if errors.As(err, &refused) && refused.Code() == sqlite3.SQLITE_BUSY && time.Since(start) < busyFor {
			continue
		}
		if err == nil && mode != "wal" {
			err = fmt.Errorf("the file stays in mode %q", mode)
		}
		return err
	}
}

// selectRecord is the part of a query that scan reads.
const selectRecord = `SELECT r.id, r.version, r.expires, r.value, (
	SELECT json_group_array(json_array(k.name, hex(k.value)) ORDER BY k.name, k.value)
	FROM keys k WHERE k.kind = r.kind AND k.id = r.id) `

func (s *Store) prepare() error {
	for _, p := range []struct {
		statement **sql.Stmt
		db        *sql.DB
		query     string
	}{
		{&s.get, s.read, selectRecord + `FROM records r
			WHERE r.kind = ?1 AND r.id = ?2 AND (r.expires IS NULL OR r.expires > ?3)`},
		{&s.findAll, s.read, selectRecord + `FROM records r
			WHERE r.kind = ?1 AND r.id > ?2 AND (r.expires IS NULL OR r.expires > ?3) ORDER BY r.id LIMIT ?4`},
		{&s.findKey, s.read, selectRecord + `FROM keys f JOIN records r USING (kind, id)
			WHERE f.kind = ?1 AND f.id > ?2 AND (r.expires IS NULL OR r.expires > ?3) AND f.name = ?5 AND f.value = ?6
			ORDER BY f.id LIMIT ?4`},
		{&s.version, s.write, `SELECT version FROM records WHERE kind = ? AND id = ? AND (expires IS NULL OR expires > ?)`},
		{&s.next, s.write, `UPDATE versions SET last = last + 1 RETURNING last`},
		{&s.put, s.write, `INSERT INTO records (kind, id, version, expires, value) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET version = excluded.version, expires = excluded.expires, value = excluded.value`},
		{&s.dropKeys, s.write, `DELETE FROM keys WHERE kind = ? AND id = ?`},
		{&s.addKey, s.write, `INSERT INTO keys (kind, id, name, value) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`},
		{&s.remove, s.write, `DELETE FROM records WHERE kind = ? AND id = ?`},
		{&s.sweep, s.write, `DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE expires <= ? LIMIT ?)`},
	} {
		var err error
		if *p.statement, err = p.db.Prepare(p.query); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	return nil
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, kind, id string) (store.Record, error) {
	r, err := scan(kind, s.get.QueryRowContext(ctx, kind, []byte(id), time.Now().Unix()))
	if errors.Is(err, sql.ErrNoRows) {
		err = store.ErrNotFound
	}
	if err != nil {
		return store.Record{}, fmt.Errorf("sqlitestore: get %s: %w", kind, err)
	}
	return r, nil
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, r store.Record) (version int64, err error) {
	if err := r.Validate(); err != nil {
		return 0, err
	}
	version, err = s.putInTx(ctx, r)
	if err != nil {
		return 0, fmt.Errorf("sqlitestore: put %s: %w", r.Kind, err)
	}
	return version, nil
}

func (s *Store) putInTx(ctx context.Context, r store.Record) (version int64, err error) {
	tx, err := s.write.BeginTx(ctx, nil) // immediate: excludes other writers from here on
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()

	id := []byte(r.ID)
	var current int64
	err = tx.StmtContext(ctx, s.version).QueryRowContext(ctx, r.Kind, id, time.Now().Unix()).Scan(&current)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	if current != r.Version {
		return 0, store.ErrConflict
	}
	if err := tx.StmtContext(ctx, s.next).QueryRowContext(ctx).Scan(&version); err != nil {
		return 0, err
	}
	expires := sql.NullInt64{Int64: r.Expires.Unix(), Valid: !r.Expires.IsZero()}
	value := append([]byte{}, r.Value...) // not nil, which would be NULL
	if _, err := tx.StmtContext(ctx, s.put).ExecContext(ctx, r.Kind, id, version, expires, value); err != nil {
		return 0, err
	}
	if _, err := tx.StmtContext(ctx, s.dropKeys).ExecContext(ctx, r.Kind, id); err != nil {
		return 0, err
	}
	for _, k := range r.Keys {
		if _, err := tx.StmtContext(ctx, s.addKey).ExecContext(ctx, r.Kind, id, k.Name, []byte(k.Value)); err != nil {
			return 0, err
		}
	}
	return version, tx.Commit()
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, kind, id string) error {
	if _, err := s.remove.ExecContext(ctx, kind, []byte(id)); err != nil {
		return fmt.Errorf("sqlitestore: delete %s: %w", kind, err)
	}
	return nil
}

// Find implements [store.Store].
func (s *Store) Find(ctx context.Context, kind string, key store.Key, after string, limit int) ([]store.Record, error) {
	found, err := s.find(ctx, kind, key, after, limit)
	if err != nil {
		return nil, fmt.Errorf("sqlitestore: find %s: %w", kind, err)
	}
	return found, nil
}

func (s *Store) find(ctx context.Context, kind string, key store.Key, after string, limit int) ([]store.Record, error) {
	if limit <= 0 {
		return nil, fmt.Errorf("the limit %d is not positive", limit)
	}
	query, args := s.findAll, []any{kind, []byte(after), time.Now().Unix(), limit}
	if key != (store.Key{}) {
		query, args = s.findKey, append(args, key.Name, []byte(key.Value))
	}
	rows, err := query.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []store.Record
	for rows.Next() {
		r, err := scan(kind, rows)
		if err != nil {
			return nil, err
		}
		found = append(found, r)
	}
	return found, rows.Err()
}

// scan reads a row of selectRecord.
func scan(kind string, row interface{ Scan(...any) error }) (store.Record, error) {
	var (
		id, keys []byte
		expires  sql.NullInt64
		r        = store.Record{Kind: kind}
	)
	if err := row.Scan(&id, &r.Version, &expires, &r.Value, &keys); err != nil {
		return store.Record{}, err
	}
	r.ID = string(id)
	if expires.Valid {
		r.Expires = time.Unix(expires.Int64, 0).UTC()
	}
	var names [][2]string
	if err := json.Unmarshal(keys, &names); err != nil {
		return store.Record{}, fmt.Errorf("keys: %w", err)
	}
	for _, n := range names {
		value, err := hex.DecodeString(n[1])
		if err != nil {
			return store.Record{}, fmt.Errorf("keys: %w", err)
		}
		r.Keys = append(r.Keys, store.Key{Name: n[0], Value: string(value)})
	}
	return r, nil
}

// Sweep implements [store.Store]. It lets other writers in between batches. On an error, it also returns the number of records
// that it has already removed.
func (s *Store) Sweep(ctx context.Context) (int, error) {
	swept := 0
	for now := time.Now().Unix(); ; {
		done, err := s.sweep.ExecContext(ctx, now, sweepBatch)
		if err != nil {
			return swept, fmt.Errorf("sqlitestore: sweep: %w", err)
		}
		n, err := done.RowsAffected()
		if err != nil {
			return swept, fmt.Errorf("sqlitestore: sweep: %w", err)
		}
		swept += int(n)
		if n < sweepBatch {
			return swept, nil
		}
	}
}

// Ping reads from the file.
func (s *Store) Ping(ctx context.Context) error {
	var last int64
	if err := s.read.QueryRowContext(ctx, `SELECT last FROM versions`).Scan(&last); err != nil {
		return fmt.Errorf("sqlitestore: ping: %w", err)
	}
	return nil
}

// Close closes the file, after calls in progress have returned.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} { // the last one to close cleans up, which a read-only one may not
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sqlitestore: close: %w", err)
	}
	return nil
}

var _ store.Store = (*Store)(nil)
