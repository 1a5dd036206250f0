package pgstore

import (
	"context"
	"embed"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A migration is a file named after the schema it leads to: 1.sql leads from none to schema 1. A released migration is never
// edited.
//
//go:embed migrations
var migrations embed.FS

const (
	schema = 1          // the last of the migrations
	lock   = 0x564b6579 // "VKey": held during a migration, in any schema
)

// migrate upgrades the tables to the schema of this program, each step in a transaction. Replicas that start at once wait for
// each other.
func migrate(ctx context.Context, pool *pgxpool.Pool) error {
	for done := false; !done; {
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) (err error) {
			done, err = step(ctx, tx)
			return err
		})
		if err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
	}
	return nil
}

func step(ctx context.Context, tx pgx.Tx) (done bool, err error) {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, lock); err != nil {
		return false, err
	}
	var exists bool
	if err := tx.QueryRow(ctx, `SELECT to_regclass('valetkey_schema') IS NOT NULL`).Scan(&exists); err != nil {
		return false, err
	}
	now := 0
	if exists {
		if err := tx.QueryRow(ctx, `SELECT version FROM valetkey_schema`).Scan(&now); err != nil {
			return false, err
		}
	}
	if now > schema {
		return false, fmt.Errorf("the database has schema %d, which is newer than this program: it knows %d", now, schema)
	}
	if now == schema {
		return true, nil
	}
	statements, err := migrations.ReadFile(fmt.Sprintf("migrations/%d.sql", now+1))
	if err != nil {
		return false, err
	}
	if _, err := tx.Exec(ctx, string(statements), pgx.QueryExecModeSimpleProtocol); err != nil { // it takes several
		return false, fmt.Errorf("to schema %d: %w", now+1, err)
	}
	_, err = tx.Exec(ctx, `UPDATE valetkey_schema SET version = $1`, now+1)
	return false, err
}
