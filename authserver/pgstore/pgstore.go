// Package pgstore keeps the records of the authorization server in PostgreSQL, version 13 or later, for several replicas.
package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/valetkey/valetkey/authserver/store"
)

// Store is a [store.Store] in tables whose names begin with valetkey_, in the first schema of the connection's search_path.
// Records that Put and Delete have confirmed survive a crash of the database server, unless synchronous_commit is off. They
// survive a failover to a standby if the standby is synchronous.
//
// The clocks of the replicas determine when a record expires, so they must agree to about a second.
type Store struct {
	pool *pgxpool.Pool
}

const sweepBatch = 500 // records that are locked at a time

// Open connects to the database and migrates the tables to the schema of this program. It returns an error if the tables belong
// to a newer program.
//
// The dsn is a URL or a list of key=value; see [pgxpool.ParseConfig]. pool_max_conns limits the number of connections, which is
// otherwise that of CPUs, at least four. A connection pooler must not switch connections between statements.
func Open(ctx context.Context, dsn string) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, errors.New("pgstore: the dsn is not valid") // the error may quote the dsn, which may contain a password
	}
	cfg.ConnConfig.RuntimeParams["default_transaction_isolation"] = "read committed"
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("pgstore: %w", err)
	}
	if err := migrate(ctx, pool); err != nil {
		pool.Close()
		return nil, fmt.Errorf("pgstore: %w", err)
	}
	return &Store{pool}, nil
}

// selectRecord is the part of a query that scan reads.
const selectRecord = `SELECT r.id, r.version, r.expires, r.value,
	ARRAY(SELECT k.name FROM valetkey_keys k WHERE k.kind = r.kind AND k.id = r.id ORDER BY k.name, k.value),
	ARRAY(SELECT k.value FROM valetkey_keys k WHERE k.kind = r.kind AND k.id = r.id ORDER BY k.name, k.value) `

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, kind, id string) (store.Record, error) {
	rows, _ := s.pool.Query(ctx, selectRecord+`FROM valetkey_records r
		WHERE r.kind = $1 AND r.id = $2 AND (r.expires IS NULL OR r.expires > $3)`, // its error is that of rows
		kind, []byte(id), time.Now().Unix())
	r, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		err = store.ErrNotFound
	}
	if err != nil {
		return store.Record{}, fmt.Errorf("pgstore: get %s: %w", kind, err)
	}
	r.Kind = kind
	return r, nil
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, r store.Record) (version int64, err error) {
	if err := r.Validate(); err != nil {
		return 0, err
	}
	var expires *int64
	if !r.Expires.IsZero() {
		expires = new(r.Expires.Unix())
	}
	names, values := make([]string, len(r.Keys)), make([][]byte, len(r.Keys))
	for i, k := range r.Keys {
		names[i], values[i] = k.Name, []byte(k.Value)
	}
	value := append([]byte{}, r.Value...) // not nil, which would be NULL
	err = s.pool.QueryRow(ctx, `SELECT valetkey_put($1, $2, $3, $4, $5, $6, $7, $8)`,
		r.Kind, []byte(r.ID), r.Version, expires, value, names, values, time.Now().Unix()).Scan(&version)
	if err == nil && version == 0 {
		err = store.ErrConflict
	}
	if err != nil {
		return 0, fmt.Errorf("pgstore: put %s: %w", r.Kind, err)
	}
	return version, nil
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, kind, id string) error {
	_, err := s.pool.Exec(ctx, `DELETE FROM valetkey_records WHERE kind = $1 AND id = $2`, kind, []byte(id))
	if err != nil {
		return fmt.Errorf("pgstore: delete %s: %w", kind, err)
	}
	return nil
}

// Find implements [store.Store].
func (s *Store) Find(ctx context.Context, kind string, key store.Key, after string, limit int) ([]store.Record, error) {
	if limit <= 0 {
		return nil, fmt.Errorf("pgstore: find %s: the limit %d is not positive", kind, limit)
	}
	query := selectRecord + `FROM valetkey_records r
		WHERE r.kind = $1 AND r.id > $2 AND (r.expires IS NULL OR r.expires > $3) ORDER BY r.id LIMIT $4`
	args := []any{kind, []byte(after), time.Now().Unix(), limit}
	if key != (store.Key{}) {
		query = selectRecord + `FROM valetkey_keys f JOIN valetkey_records r USING (kind, id)
			WHERE f.kind = $1 AND f.id > $2 AND (r.expires IS NULL OR r.expires > $3) AND f.name = $5 AND f.value = $6
			ORDER BY f.id LIMIT $4`
		args = append(args, key.Name, []byte(key.Value))
	}
	rows, _ := s.pool.Query(ctx, query, args...) // its error is that of rows
	found, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, fmt.Errorf("pgstore: find %s: %w", kind, err)
	}
	for i := range found {
		found[i].Kind = kind
	}
	return found, nil
}

// scan reads a row of selectRecord.
func scan(row pgx.CollectableRow) (r store.Record, err error) {
	var (
		id      []byte
		expires *int64
		names   []string
		values  [][]byte
	)
	if err := row.Scan(&id, &r.Version, &expires, &r.Value, &names, &values); err != nil {
		return store.Record{}, err
	}
	r.ID = string(id)
	if expires != nil {
		r.Expires = time.Unix(*expires, 0).UTC()
	}
	for i, name := range names {
		r.Keys = append(r.Keys, store.Key{Name: name, Value: string(values[i])})
	}
	return r, nil
}

// Sweep implements [store.Store]. Several replicas may call it at once. On an error, it also returns the number of records that
// it has already removed.
func (s *Store) Sweep(ctx context.Context) (int, error) {
	swept := 0
	for now := time.Now().Unix(); ; {
		done, err := s.pool.Exec(ctx, `DELETE FROM valetkey_records r USING (
				SELECT kind, id FROM valetkey_records WHERE expires <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED) e
			WHERE r.kind = e.kind AND r.id = e.id`, now, sweepBatch)
		if err != nil {
			return swept, fmt.Errorf("pgstore: sweep: %w", err)
		}
		swept += int(done.RowsAffected())
		if done.RowsAffected() < sweepBatch {
			return swept, nil
		}
	}
}

// Ping queries the database server.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.pool.Ping(ctx); err != nil {
		return fmt.Errorf("pgstore: ping: %w", err)
	}
	return nil
}

// Close closes the connections, after calls in progress have returned.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}

var _ store.Store = (*Store)(nil)
