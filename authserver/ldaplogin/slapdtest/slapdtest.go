// Package slapdtest starts a real directory for tests: OpenLDAP's slapd, on loopback, with a few employees. It needs slapd and
// slapadd, as in Debian's package slapd.
package slapdtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"embed"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"text/template"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// The employees. Names are compared without regard to case.
const (
	Carol         = "carol" // Carol Jones, also carol@example.com; in the group Finance
	CarolPassword = "nine carols in the snow"
	CarolID       = "0c0ffee0-1111-4111-8111-111111111111" // her entryUUID
	CarolDN       = "uid=carol,ou=people," + BaseDN
	Dave          = "dave" // Dave Ødegård; in no group
	DavePassword  = "a window facing the sea"
	DaveID        = "0c0ffee0-2222-4222-8222-222222222222"
	Kim           = "kim" // two people, who cannot log in
	KimPassword   = "two doors with one name"
	Guest         = "guest" // has no password
	DaveDN        = "uid=dave,ou=people," + BaseDN
)

// The directory. Only the service may search, and binds are allowed only over TLS.
const (
	BaseDN       = "dc=example,dc=com"
	BindDN       = "cn=valetkey,ou=services," + BaseDN
	BindPassword = "the service's own password"
	Finance      = "cn=finance,ou=groups," + BaseDN

	adminDN       = "cn=admin," + BaseDN
	adminPassword = "the password of the administrator"
)

// A Server is a running slapd.
type Server struct {
	URL    string         // ldap://127.0.0.1:port, with StartTLS
	TLSURL string         // ldaps://127.0.0.1:port
	CAs    *x509.CertPool // the authority of its certificate
	CAFile string         // the same, in PEM

	slapd, dir string
	process    *exec.Cmd
	exited     chan struct{}
	log        bytes.Buffer // of the process; to be read after it has exited
}

//go:embed slapd.conf people.ldif
var files embed.FS

// Start starts a slapd that is stopped at the end of t. It skips t if slapd is not installed.
func Start(t testing.TB) *Server {
	t.Helper()
	slapd, slapadd := find(t, "slapd"), find(t, "slapadd")
	s := &Server{
		URL:    "ldap://" + freeAddress(t),
		TLSURL: "ldaps://" + freeAddress(t),
		slapd:  slapd,
		dir:    t.TempDir(),
	}
	s.makeCertificates(t)
	must(t, os.Mkdir(filepath.Join(s.dir, "db"), 0o700))
	s.write(t, "slapd.conf")
	s.write(t, "people.ldif")
	out, err := exec.Command(slapadd, "-q", "-f", s.path("slapd.conf"), "-l", s.path("people.ldif")).CombinedOutput()
	if err != nil {
		t.Fatalf("slapadd: %v\n%s", err, out)
	}
	t.Cleanup(s.Kill)
	s.Restart(t)
	return s
}

// Restart starts the server again after [Server.Kill], at the same addresses, and returns when it responds.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.log.Reset()
	s.process = exec.Command(s.slapd, "-d", "0", "-f", s.path("slapd.conf"), "-h", s.URL+" "+s.TLSURL) // -d: stay in front
	s.process.Stdout, s.process.Stderr = &s.log, &s.log
	must(t, s.process.Start())
	s.exited = make(chan struct{})
	go func() {
		s.process.Wait()
		close(s.exited)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := (&tls.Dialer{Config: &tls.Config{RootCAs: s.CAs}}).DialContext(ctx, "tcp", strings.TrimPrefix(s.TLSURL, "ldaps://"))
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-s.exited:
			t.Fatalf("slapd has ended: %v\n%s", s.process.ProcessState, s.log.Bytes())
		case <-ctx.Done():
			t.Fatalf("slapd does not answer: %v", err)
		case <-tick.C:
		}
	}
}

// Kill ends the server immediately, like a crash.
func (s *Server) Kill() {
	if s.process == nil {
		return
	}
	s.process.Process.Kill()
	<-s.exited
}

// Admin returns a connection with permission to change everything. It is closed at the end of t.
func (s *Server) Admin(t testing.TB) *ldap.Conn {
	t.Helper()
	c, err := ldap.DialURL(s.TLSURL, ldap.DialWithTLSConfig(&tls.Config{RootCAs: s.CAs, ServerName: "127.0.0.1"}))
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, c.Bind(adminDN, adminPassword))
	return c
}

// Add adds an entry.
func (s *Server) Add(t testing.TB, dn string, attributes map[string][]string) {
	t.Helper()
	entry := ldap.NewAddRequest(dn, nil)
	for name, values := range attributes {
		entry.Attribute(name, values)
	}
	must(t, s.Admin(t).Add(entry))
}

// Delete removes an entry.
func (s *Server) Delete(t testing.TB, dn string) {
	t.Helper()
	must(t, s.Admin(t).Del(ldap.NewDelRequest(dn, nil)))
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

// write writes the embedded file of that name, with its placeholders filled in.
func (s *Server) write(t testing.TB, name string) {
	t.Helper()
	f, err := os.OpenFile(s.path(name), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	must(t, err)
	must(t, template.Must(template.ParseFS(files, name)).Execute(f, map[string]string{
		"Dir": s.dir, "BaseDN": BaseDN, "BindDN": BindDN, "AdminDN": adminDN, "AdminPassword": adminPassword, "BindPassword": BindPassword, "Finance": Finance, "CarolDN": CarolDN,
		"CarolPassword": CarolPassword, "CarolID": CarolID, "DavePassword": DavePassword, "DaveID": DaveID, "KimPassword": KimPassword,
	}))
	must(t, f.Close())
}

func find(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) { // PATH may lack the directory of servers
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// ports prevents tests that run in parallel from getting the same ports.
var ports atomic.Int32

func freeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		port := 20000 + (os.Getpid()*37+int(ports.Add(1)))%10000 // below the ephemeral ports
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
