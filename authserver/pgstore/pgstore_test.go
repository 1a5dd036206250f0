package pgstore_test

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/pgstore"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/authserver/storetest"
	"github.com/valetkey/valetkey/authserver/storetest/pgtest"
)

var schemas atomic.Int32

// inSchema returns the dsn of a new schema.
func inSchema(t testing.TB, dsn string) string {
	name := fmt.Sprint("schema", schemas.Add(1))
	exec(t, dsn, `CREATE SCHEMA `+name)
	return dsn + " search_path=" + name
}

func exec(t testing.TB, dsn, statements string) {
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), statements, pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
}

func open(t testing.TB, dsn string) store.Store {
	s, err := pgstore.Open(t.Context(), dsn)
	require.NoError(t, err)
	return s
}

func TestStore(t *testing.T) {
	dsn := pgtest.Start(t)
	storetest.Test(t, func(t testing.TB) store.Store { return open(t, inSchema(t, dsn)) })
}

func TestReplicas(t *testing.T) {
	server := pgtest.Start(t)
	storetest.Test(t, func(t testing.TB) store.Store {
		dsn := inSchema(t, server)
		// The store must not depend on the defaults of a role or a database.
		return storetest.Replicas(open(t, dsn), open(t, dsn+" default_transaction_isolation=serializable"))
	})
}

func TestReplicasMaySweepAtOnce(t *testing.T) {
	const records = 2000
	dsn := pgtest.Start(t)
	s := open(t, dsn)
	defer s.Close()
	exec(t, dsn, fmt.Sprintf(`INSERT INTO valetkey_records (kind, id, version, expires, value)
		SELECT 'token', int4send(n), n, 1, '' FROM generate_series(1, %d) n;
		INSERT INTO valetkey_keys (kind, name, value, id) SELECT kind, 'client', 'shop', id FROM valetkey_records`, records))
	var swept atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			n, err := s.Sweep(t.Context())
			assert.NoError(t, err)
			swept.Add(int64(n))
		})
	}
	wg.Wait()
	last, err := s.Sweep(t.Context()) // records locked by another transaction were skipped
	require.NoError(t, err)
	assert.EqualValues(t, records, swept.Load()+int64(last))
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	var left int
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM valetkey_keys`).Scan(&left))
	assert.Zero(t, left)
}

func BenchmarkStore(b *testing.B) {
	dsn := pgtest.Start(b)
	storetest.Bench(b, func(t testing.TB) store.Store { return open(t, dsn) })
}

// The writer gets the DSN of the server from its environment and starts no server.
func TestConfirmedRecordsSurviveKill9OfServerAndClient(t *testing.T) {
	const env = "PGSTORE_TEST_DSN"
	var crash func()
	dsn := os.Getenv(env)
	if dsn == "" {
		server := pgtest.New(t)
		dsn, crash = server.DSN, server.Crash
		t.Setenv(env, dsn)
	}
	storetest.Durable(t, func(t testing.TB) store.Store { return open(t, dsn) }, crash)
}
