// Package gateways_test runs the examples in examples/gateways: the real gateways with their files, valetkey authorize with its file, and
// an upstream. Only ports, the issuer and the routes differ from the examples.
package gateways_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/valetkeytest"
)

const (
	examples = "../../../../examples/gateways"

	// soon is the time limit for events that must happen, generous enough for a slow machine.
	soon = 2 * time.Minute
)

// routes replaces those of the examples. The service stops at once, because no load balancer has to notice.
const routes = `
drain: 0s
routes:
  GET /public/{$}: "@public"
  GET /any: "@any"
  GET /orders: orders:read
  GET /orders/{id}: orders:read
  POST /orders: orders:write
  GET /files/: orders:read
  GET /socket: orders:read
  /admin/: admin
  GET /in: orders:read
  GET internal.example/in: admin
`

// A gateway is a program with an example.
type gateway struct {
	name string
	file string                                      // of its configuration
	run  func(dir, file string) (args, env []string) // how it is started
	own  func(config, dir string) string             // adds what keeps it within dir; nil: nothing
}

var gateways = []gateway{
	{"nginx", "nginx.conf", func(dir, file string) ([]string, []string) {
		return []string{"-p", dir, "-c", file, "-e", "stderr", "-g", "daemon off; pid nginx.pid; worker_processes 1;"}, nil
	}, func(config, dir string) string {
		return strings.Replace(config, "http {\n", fmt.Sprintf("http {\naccess_log off;\nclient_body_temp_path %[1]s/b;\nproxy_temp_path %[1]s/p;\nfastcgi_temp_path %[1]s/f;\n"+
			"uwsgi_temp_path %[1]s/u;\nscgi_temp_path %[1]s/s;\n", dir), 1)
	}},
	{"caddy", "Caddyfile", func(dir, file string) ([]string, []string) {
		return []string{"run", "--adapter", "caddyfile", "--config", file}, []string{"HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "XDG_DATA_HOME=" + dir}
	}, nil},
	{"haproxy", "haproxy.cfg", func(_, file string) ([]string, []string) { return []string{"-db", "-f", file}, nil }, nil},
}

// each runs a test for every gateway that is installed.
func each(t *testing.T, f func(t *testing.T, g gateway)) {
	for _, g := range gateways {
		t.Run(g.name, func(t *testing.T) { f(t, g) })
	}
}

func find(t *testing.T, name string) gateway {
	t.Helper()
	for _, g := range gateways {
		if g.name == name {
			return g
		}
	}
	t.Fatalf("no gateway %s", name)
	return gateway{}
}

// A journal collects the output of a program.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// An upstream records the requests that reach it.
type upstream struct {
	mu   sync.Mutex
	seen []*http.Request
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.seen = append(u.seen, r)
	u.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	if r.Header.Get("Upgrade") == "" {
		fmt.Fprintf(w, "upstream %s", body)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n") // of the key in RFC 6455, section 1.3
	for {
		line, err := rw.ReadString('\n')
		if err != nil {
			return
		}
		io.WriteString(conn, "back: "+line)
	}
}

// take returns the requests that came since the last call.
func (u *upstream) take() []*http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	seen := u.seen
	u.seen = nil
	return seen
}

// A site is an upstream behind a gateway that asks.
type site struct {
	gateway
	iss      *valetkeytest.Issuer
	addr     string // of the gateway
	service  string // address where it asks
	probe    string // of the service
	upstream *upstream
	stop     func() // ends the service
}

type setup struct {
	listen   string                         // address of the gateway; "": any free port
	handler  http.Handler                   // instead of valetkey authorize
	upstream http.Handler                   // instead of one that records
	gateway  func(config string) string     // changes the configuration of the gateway
	file     func(config string) string     // changes that of valetkey authorize
	before   func(iss *valetkeytest.Issuer) // runs before the service starts
}

// start starts a gateway, or skips the test if it is not installed.
func start(t testing.TB, g gateway, set setup) *site {
	t.Helper()
	program, err := exec.LookPath(g.name)
	if err != nil {
		t.Skipf("%s is not installed", g.name)
	}
	s := &site{gateway: g, iss: valetkeytest.NewIssuer(t), upstream: new(upstream)}
	if set.before != nil {
		set.before(s.iss)
	}
	var api http.Handler = s.upstream
	if set.upstream != nil {
		api = set.upstream
	}
	behind := httptest.NewServer(api)
	t.Cleanup(behind.Close)
	ports := freePorts(t, 3)
	if set.listen != "" {
		_, ports[0], _ = net.SplitHostPort(set.listen)
	}
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // workers of nginx are another user
		require.NoError(t, os.Chmod(d, 0o755))
	}
	s.addr, s.service, s.probe = "127.0.0.1:"+ports[0], "127.0.0.1:"+ports[1], "127.0.0.1:"+ports[2]
	place := strings.NewReplacer("127.0.0.1:9000", behind.Listener.Addr().String(), "127.0.0.1:9091", s.service, "127.0.0.1:9093", s.probe,
		"8000", ports[0], "https://as.example.com", s.iss.URL)
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(examples, g.name, name))
		require.NoError(t, err)
		return place.Replace(string(text))
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	if set.handler == nil {
		s.authorize(t, write("authorize.yaml", change(set.file, withRoutes(read("authorize.yaml")))))
	} else {
		l, err := net.Listen("tcp", s.service)
		require.NoError(t, err)
		server := &httptest.Server{Listener: l, Config: &http.Server{Handler: set.handler}}
		server.Start()
		s.stop = sync.OnceFunc(server.Close)
		t.Cleanup(s.stop)
	}

	others, err := filepath.Glob(filepath.Join(examples, g.name, "*.lua"))
	require.NoError(t, err)
	for _, path := range others {
		write(filepath.Base(path), read(filepath.Base(path)))
	}
	config := change(set.gateway, read(g.file))
	if g.own != nil {
		config = g.own(config, dir)
	}
	args, env := g.run(dir, write(g.file, config))
	cmd := exec.Command(program, args...)
	log := new(journal)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), log, log
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(soon):
			cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Log(log.String())
		}
	})
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", s.addr)
		if err == nil {
			conn.Close()
		}
		return err == nil || len(ended) > 0
	}, soon, time.Millisecond, "%s does not listen: %s", g.name, log)
	require.Empty(t, ended, "%s ended: %s", g.name, log)
	return s
}

func change(f func(string) string, text string) string {
	if f == nil {
		return text
	}
	return f(text)
}

func withRoutes(config string) string {
	head, _, _ := strings.Cut(config, "\nroutes:\n")
	return head + routes
}

// authorize runs valetkey authorize until the test ends or stop is called.
func (s *site) authorize(t testing.TB, file string) {
	t.Helper()
	log := new(journal)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- cli.RunGateway(ctx, driver.Set{}, []string{"authorize", "--config", file}, strings.NewReader(""), io.Discard, log)
	}()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if code := <-ended; code != cli.Good {
			t.Errorf("valetkey authorize ended with %d: %s", code, log)
		}
	})
	t.Cleanup(s.stop)
	require.Eventually(t, func() bool {
		return strings.Contains(log.String(), "listening on "+s.service) && strings.Contains(log.String(), "listening on "+s.probe) || len(ended) > 0
	}, soon, time.Millisecond, "%s", log)
	require.Empty(t, ended, "%s", log)
}

// decisions returns the number of tokens that the service has looked up so far.
func (s *site) decisions(t *testing.T) uint64 {
	t.Helper()
	res, err := http.Get("http://" + s.probe + "/status")
	require.NoError(t, err)
	defer res.Body.Close()
	var status struct {
		Cache struct{ Hits, Misses uint64 }
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&status))
	return status.Cache.Hits + status.Cache.Misses
}

func freePorts(t testing.TB, n int) (ports []string) {
	t.Helper()
	for range n {
		_, port, err := net.SplitHostPort(clitest.FreeAddr(t))
		require.NoError(t, err)
		ports = append(ports, port)
	}
	return ports
}

// A request is what a client sends, byte for byte.
type request struct {
	method, target string
	lines          []string // header lines
	body           string
}

func get(target string, lines ...string) request { return request{"GET", target, lines, ""} }

// A response is what a client gets.
type response struct {
	*http.Response
	body string
}

// send sends x on a new connection. A response with status 0 means that the server has closed it.
func send(t testing.TB, addr string, x request) response {
	t.Helper()
	text := x.method + " " + x.target + " HTTP/1.1\r\n"
	if !strings.HasPrefix(strings.ToLower(strings.Join(x.lines, "\n")), "host:") {
		text += "Host: api.example.com\r\n"
	}
	for _, line := range x.lines {
		text += line + "\r\n"
	}
	if !strings.Contains(strings.Join(x.lines, "\n"), "Connection:") {
		text += "Connection: close\r\n"
	}
	if x.body != "" {
		text += fmt.Sprintf("Content-Length: %d\r\n", len(x.body))
	}
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(soon))
	_, err = io.WriteString(conn, text+"\r\n"+x.body)
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: x.method})
	if err != nil {
		return response{Response: &http.Response{Header: http.Header{}}}
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	return response{res, string(body)}
}
