package sqlitestore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
)

// A migration is a file named after the schema it leads to: 1.sql leads from an empty database to schema 1. A released migration
// is never edited.
//
//go:embed migrations
var migrations embed.FS

const (
	schema      = 1          // the last of the migrations
	application = 0x564b6579 // "VKey", in the header of the file
)

// migrate upgrades the database to the schema of this program, each step in a transaction. Two programs that start at once wait
// for each other.
func migrate(ctx context.Context, db *sql.DB) error {
	for {
		done, err := migrateOnce(ctx, db)
		if err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		if done {
			return nil
		}
	}
}

func migrateOnce(ctx context.Context, db *sql.DB) (done bool, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback()
	var app, now, tables int
	err = tx.QueryRowContext(ctx, `SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
		FROM pragma_application_id, pragma_user_version`).Scan(&app, &now, &tables)
	switch {
	case err != nil:
		return false, err
	case app != application && (app != 0 || tables > 0):
		return false, errors.New("it is the database of another program")
	case now > schema:
		return false, fmt.Errorf("it has schema %d, which is newer than this program: it knows %d", now, schema)
	case now == schema:
		return true, nil
	}
	step, err := migrations.ReadFile(fmt.Sprintf("migrations/%d.sql", now+1))
	if err != nil {
		return false, err
	}
	for _, statements := range []string{
		string(step),
		fmt.Sprintf("PRAGMA application_id = %d", application),
		fmt.Sprintf("PRAGMA user_version = %d", now+1),
	} {
		if _, err := tx.ExecContext(ctx, statements); err != nil {
			return false, fmt.Errorf("to schema %d: %w", now+1, err)
		}
	}
	return false, tx.Commit()
}
