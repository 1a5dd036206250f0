package sqlitestore_test

import (
	"cmp"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/sqlitestore"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/authserver/storetest"
)

func open(t testing.TB, path string) store.Store {
	s, err := sqlitestore.Open(path)
	require.NoError(t, err)
	return s
}

func openNew(t testing.TB) store.Store { return open(t, filepath.Join(t.TempDir(), "valetkey.db")) }

func TestStore(t *testing.T)      { storetest.Test(t, openNew) }
func BenchmarkStore(b *testing.B) { storetest.Bench(b, openNew) }

func TestTwoStoresOfOneFile(t *testing.T) {
	storetest.Test(t, func(t testing.TB) store.Store {
		path := filepath.Join(t.TempDir(), "valetkey.db")
		return storetest.Replicas(open(t, path), open(t, path))
	})
}

func TestConfirmedRecordsSurviveKill9(t *testing.T) {
	const env = "SQLITESTORE_TEST_PATH" // the path for the writer
	path := cmp.Or(os.Getenv(env), filepath.Join(t.TempDir(), "valetkey.db"))
	t.Setenv(env, path)
	storetest.Durable(t, func(t testing.TB) store.Store { return open(t, path) }, nil)
}

func TestFilesAreTheOwners(t *testing.T) {
	for _, name := range []string{"plain.db", "with space.db", "100% ?_pragma=x#y&z.db", ":memory:", "ü'\".db", "file:x"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(dir)
			s := open(t, name)
			_, err := s.Put(t.Context(), store.Record{Kind: "user", ID: "alice"})
			require.NoError(t, err)
			files, err := os.ReadDir(dir)
			require.NoError(t, err)
			var names []string
			for _, f := range files {
				info, err := f.Info()
				require.NoError(t, err)
				assert.Equal(t, os.FileMode(0o600), info.Mode(), f.Name())
				names = append(names, f.Name())
			}
			assert.Equal(t, []string{name, name + "-shm", name + "-wal"}, names)

			require.NoError(t, s.Close())
			s = open(t, filepath.Join(dir, name))
			defer s.Close()
			_, err = s.Get(t.Context(), "user", "alice")
			assert.NoError(t, err)
		})
	}
}

func TestManyOpenANewFileAtOnce(t *testing.T) {
	for range 10 {
		path := filepath.Join(t.TempDir(), "valetkey.db")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				s, err := sqlitestore.Open(path)
				if assert.NoError(t, err) {
					assert.NoError(t, s.Ping(t.Context()))
					assert.NoError(t, s.Close())
				}
			})
		}
		wg.Wait()
	}
}
