//go:build unix

// Package pgtest starts PostgreSQL for tests: a separate server in a temporary directory, reachable only through a socket there.
// It uses the newest version under /usr/lib/postgresql, or otherwise the one in PATH. It does not need root; if run by root, it
// uses the account postgres.
package pgtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Server is a running PostgreSQL. It syncs its writes, as it does by default.
type Server struct {
	DSN string // of an empty database, as a superuser; the same after a restart

	t       testing.TB
	bin     string // the directory of the programs
	dir     string // of the data and the socket
	account *syscall.Credential
}

// Start returns the DSN of a server that is stopped at the end of the test. It skips the test if PostgreSQL is not installed.
func Start(t testing.TB) (dsn string) {
	t.Helper()
	return New(t).DSN
}

// New is Start for a test that crashes the server.
func New(t testing.TB) *Server {
	t.Helper()
	bin := find()
	if bin == "" {
		t.Skip("PostgreSQL is not installed (apt-get install postgresql)")
	}
	dir, err := os.MkdirTemp("", "pg") // not t.TempDir: the path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{DSN: "host=" + dir + " user=valetkey dbname=postgres", t: t, bin: bin, dir: dir}
	if os.Getuid() == 0 { // the server refuses to run as root
		s.account = account(t)
		if err := os.Chown(dir, int(s.account.Uid), int(s.account.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	s.run("initdb", "-D", s.data(), "-U", "valetkey", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	s.start()
	t.Cleanup(func() { s.run("pg_ctl", "stop", "-D", s.data(), "-m", "immediate") })
	return s
}

// Crash kills the server and its children (kill -9), and restarts it, so that it recovers from its log.
func (s *Server) Crash() {
	s.t.Helper()
	lock, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil {
		s.t.Fatal(err)
	}
	first, _, _ := bytes.Cut(lock, []byte("\n"))
	pid, err := strconv.Atoi(string(first))
	if err != nil {
		s.t.Fatalf("postmaster.pid: %v", err)
	}
	// The children are in separate process groups. On a system without this file, they exit when they notice that the server
	// has.
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.t.Fatalf("kill the server: %v", err)
	}
	for child := range strings.FieldsSeq(string(children)) {
		if pid, err := strconv.Atoi(child); err == nil {
			syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
	}
	s.start()
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// start waits until the server accepts connections.
func (s *Server) start() {
	s.t.Helper()
	args := []string{"start", "-w", "-D", s.data(), "-l", filepath.Join(s.dir, "log"), "-o", "-c listen_addresses= -k " + s.dir}
	var out []byte
	var err error
	for range 50 {
		if out, err = s.command("pg_ctl", args...).CombinedOutput(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond) // a child of the crashed server is still running
	}
	log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	s.t.Fatalf("pg_ctl start: %v\n%s\n%s", err, out, log)
}

func (s *Server) run(program string, args ...string) {
	s.t.Helper()
	if out, err := s.command(program, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

func (s *Server) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.account}
	return cmd
}

// find returns the directory of the programs, or "".
func find() string {
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); len(found) > 0 {
		return filepath.Dir(found[len(found)-1])
	}
	found, err := exec.LookPath("initdb")
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(found); err == nil {
		found = real
	}
	return filepath.Dir(found)
}

func account(t testing.TB) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Skipf("PostgreSQL does not run as root: %v", err)
	}
	uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
	if errUID != nil || errGID != nil {
		t.Fatalf("account postgres: %v, %v", errUID, errGID)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}
