package sqlitestore_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/sqlitestore"
	"github.com/valetkey/valetkey/authserver/store"
)

// prepared returns a file that the statements have been applied to.
func prepared(t *testing.T, statements string) (path string) {
	path = filepath.Join(t.TempDir(), "prepared.db")
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer db.Close()
	_, err = db.Exec(statements)
	require.NoError(t, err)
	return path
}

func TestOpenRefuses(t *testing.T) {
	text := filepath.Join(t.TempDir(), "notes.txt")
	require.NoError(t, os.WriteFile(text, []byte("This is not a database, and it stays as it is."), 0o600))
	newer := open(t, filepath.Join(t.TempDir(), "newer.db"))
	require.NoError(t, newer.Close())
	for _, c := range []struct{ name, path, want string }{
		{"the file of a newer program", prepared(t, `PRAGMA application_id = 0x564b6579; PRAGMA user_version = 2`), "schema 2, which is newer than this program"},
		{"the marked file of another program", prepared(t, `PRAGMA application_id = 7`), "another program"},
		{"the unmarked file of another program", prepared(t, `CREATE TABLE t (x)`), "another program"},
		{"a file that is not a database", text, "not a database"},
		{"a folder", t.TempDir(), "is a directory"},
		{"a folder that is not there", filepath.Join(t.TempDir(), "none", "x.db"), "no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, _ := os.ReadFile(c.path)
			_, err := sqlitestore.Open(c.path)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, c.path)
			after, _ := os.ReadFile(c.path)
			assert.Equal(t, before, after, "what is refused is not changed")
		})
	}
}

// Each testdata/schemaN.db was written by the program whose schema was N: the records below, then Close.
func TestOpenReadsTheFilesOfOlderPrograms(t *testing.T) {
	files, err := filepath.Glob("testdata/schema*.db")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			old, err := os.ReadFile(f)
			require.NoError(t, err)
			path := filepath.Join(t.TempDir(), "valetkey.db")
			require.NoError(t, os.WriteFile(path, old, 0o600))
			s := open(t, path)
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
	{Kind: "key", ID: "k"},
}
