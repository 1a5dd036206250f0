//go:build unix

package e2e_test

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var program string // valetkey, as it is built from this checkout

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "16") // parallel tests wait for time to pass, and need no processor
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "valetkey")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "valetkey")
	if out, err := exec.Command("go", "build", "-C", "../../cmd/valetkey/full/valetkey", "-o", program, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build valetkey: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// A server is a running `valetkey serve`.
type server struct {
	url string // its issuer

	t       *testing.T
	dir     string
	process *exec.Cmd
	exited  chan struct{}
	log     lockedBuffer
}

// serve runs a server until the end of the test, with what config returns for the URL of its issuer. The test fails if it does
// not end well.
func serve(t *testing.T, config func(issuer string) string) *server {
	t.Helper()
	s := &server{url: "http://" + freeAddress(t), t: t, dir: t.TempDir()}
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "valetkey.yaml"), []byte(config(s.url)), 0o600))
	t.Cleanup(s.stop)
	s.restart()
	return s
}

// restart starts the server again after kill, and returns when it is ready.
func (s *server) restart() {
	s.t.Helper()
	s.process = exec.Command(program, "serve", "--config", "valetkey.yaml", "--addr", s.url[len("http://"):])
	s.process.Dir, s.process.Stdout, s.process.Stderr = s.dir, &s.log, &s.log
	require.NoError(s.t, s.process.Start())
	s.exited = make(chan struct{})
	go func() {
		s.process.Wait()
		close(s.exited)
	}()
	for range 2400 {
		if resp, err := http.Get(s.url + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-s.exited:
			s.t.Fatalf("valetkey has ended: %v\n%s", s.process.ProcessState, &s.log)
		case <-time.After(50 * time.Millisecond):
		}
	}
	s.t.Fatalf("valetkey is not ready\n%s", &s.log)
}

// kill ends the server immediately, without a clean shutdown (kill -9).
func (s *server) kill() {
	s.process.Process.Kill()
	<-s.exited
}

func (s *server) stop() {
	if s.process == nil || s.process.Process == nil {
		return // it did not start
	}
	s.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(2 * time.Minute):
		s.kill()
	}
	if !s.process.ProcessState.Success() {
		s.t.Errorf("valetkey has ended: %v", s.process.ProcessState)
	}
	if s.t.Failed() {
		s.t.Logf("the log of valetkey:\n%s", &s.log)
	}
}

// ports prevents tests that run in parallel from getting the same ports.
var ports atomic.Int32

// freeAddress returns an unused address on loopback. Its port is below the ephemeral ports, so that
// it remains free for a server that is restarted.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := 10000 + (os.Getpid()*41+int(ports.Add(1)))%10000
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
	require.Fail(t, "no port is free")
	return ""
}

// A lockedBuffer can be read while it is written.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
