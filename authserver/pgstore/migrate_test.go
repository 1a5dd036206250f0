package pgstore_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/pgstore"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/authserver/storetest/pgtest"
)

func TestManyOpenAnEmptyDatabaseAtOnce(t *testing.T) {
	server := pgtest.Start(t)
	for range 5 {
		dsn := inSchema(t, server)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				s, err := pgstore.Open(t.Context(), dsn)
				if assert.NoError(t, err) {
					assert.NoError(t, s.Ping(t.Context()))
					assert.NoError(t, s.Close())
				}
			})
		}
		wg.Wait()
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Run("the tables of a newer program", func(t *testing.T) {
		dsn := inSchema(t, pgtest.Start(t))
		require.NoError(t, open(t, dsn).Close())
		exec(t, dsn, `UPDATE valetkey_schema SET version = 2`)
		_, err := pgstore.Open(t.Context(), dsn)
		require.ErrorContains(t, err, "schema 2, which is newer than this program")
	})
	t.Run("a server that does not answer in time", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		_, err := pgstore.Open(ctx, "host=127.0.0.1 port=1 user=valetkey")
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
	for name, dsn := range map[string]string{
		"a key=value without a value": "host=127.0.0.1 password=s3cr3t port",
		"a port that is not a number": "host=127.0.0.1 password=s3cr3t port=x",
		"a URL with a broken escape":  "postgres://valetkey:s3cr3t@127.0.0.1/%zz",
		"a host that does not answer": "postgres://valetkey:s3cr3t@127.0.0.1:1/valetkey?sslmode=disable",
	} {
		t.Run(name+", without telling the password", func(t *testing.T) {
			_, err := pgstore.Open(t.Context(), dsn)
			require.Error(t, err)
			require.NotContains(t, err.Error(), "s3cr3t")
		})
	}
}

// Each testdata/schemaN.sql is the pg_dump of a database to which the program with schema N has written the records
// below.
func TestOpenReadsTheTablesOfOlderPrograms(t *testing.T) {
	server := pgtest.Start(t)
	files, err := filepath.Glob("testdata/schema*.sql")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			dump, err := os.ReadFile(f)
			require.NoError(t, err)
			exec(t, server, `DROP SCHEMA public CASCADE; CREATE SCHEMA public`)
			exec(t, server, string(dump))
			s := open(t, server)
			defer s.Close()
			for i, want := range oldRecords {
				got, err := s.Get(t.Context(), want.Kind, want.ID)
				require.NoError(t, err)
				want.Version = int64(i + 1)
				assert.Equal(t, want, got)
			}
			found, err := s.Find(t.Context(), "client", store.Key{Name: "owner", Value: "customer:alice"}, "", 9)
			require.NoError(t, err)
			require.Len(t, found, 1)
			version, err := s.Put(t.Context(), found[0])
			require.NoError(t, err)
			assert.Equal(t, int64(len(oldRecords)+1), version)
		})
	}
}

var oldRecords = []store.Record{
	{Kind: "client", ID: "shop", Keys: []store.Key{{Name: "mail", Value: ""}, {Name: "owner", Value: "customer:alice"}}, Value: []byte(`{"name":"Shop"}`)},
	{Kind: "grant", ID: "\x00\xff", Expires: time.Unix(32503680000, 0).UTC(), Value: []byte{0, 255}},
	{Kind: "key", ID: "k", Value: []byte{}},
}
