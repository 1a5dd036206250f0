package storetest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"testing"

	"github.com/valetkey/valetkey/authserver/store"
)

const writerEnv = "STORETEST_WRITER"

// Durable checks that records that Put has confirmed survive kill -9. It runs the calling test a second time, in a process that
// writes until it is killed. open must open the same database in both processes; pass its location in the environment:
//
//	t.Setenv("TEST_DB", cmp.Or(os.Getenv("TEST_DB"), filepath.Join(t.TempDir(), "test.db")))
//
// If crash is not nil, it is called before the process is killed, and must take down the database.
func Durable(t *testing.T, open func(t testing.TB) store.Store, crash func()) {
	if os.Getenv(writerEnv) != "" {
		writeForever(t, open(t))
		return
	}
	const enough = 500
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	writer := exec.Command(program, "-test.run=^"+regexp.QuoteMeta(t.Name())+"$")
	writer.Env = append(os.Environ(), writerEnv+"=1")
	writer.Stderr = os.Stderr
	lines, err := writer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	confirmed := map[string]int64{}
	for in := bufio.NewScanner(lines); in.Scan(); {
		var id string
		var version int64
		if n, _ := fmt.Sscanf(in.Text(), "confirmed %s %d.", &id, &version); n < 2 {
			continue
		}
		confirmed[id] = version
		if len(confirmed) == enough { // the rest of its output is read as well
			if crash != nil {
				crash()
			}
			if err := writer.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := writer.Wait(); err == nil || len(confirmed) < enough {
		t.Fatalf("the writer ended by itself after %d records: %v", len(confirmed), err)
	}

	s := open(t)
	defer s.Close()
	last := int64(0)
	for id, version := range confirmed {
		want := durable(id)
		want.Version = version
		wantStored(t, s, want)
		wantFound(t, s, want.Kind, want.Keys[0], "", 2, id)
		last = max(last, version)
	}
	if next := put(t, s, durable("next")); next.Version <= last {
		t.Errorf("version %d was given before the crash already, or may have been: the last was %d", next.Version, last)
	}
	t.Logf("all %d records that were confirmed are there", len(confirmed))
}

func durable(id string) store.Record {
	return store.Record{Kind: "token", ID: id, Keys: []store.Key{{Name: "token", Value: id}}, Value: fmt.Appendf(nil, "%0300s", id)}
}

// writeForever writes from several goroutines. It ends at the first error, which is the database's if that was taken down.
func writeForever(t *testing.T, s store.Store) {
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for n := 0; ; n++ {
				r := durable(fmt.Sprintf("%d-%d", i, n))
				version, err := s.Put(t.Context(), r)
				if err != nil {
					t.Error(err)
					return
				}
				fmt.Printf("confirmed %s %d.\n", r.ID, version)
			}
		})
	}
	wg.Wait()
}
