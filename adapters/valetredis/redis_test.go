package valetredis_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/adapters/valetredis"
)

// The client logs each connection it does not get, of which there are many here.
func TestMain(m *testing.M) {
	logging.Disable()
	m.Run()
}

// soon is the time limit for events that must happen, generous enough for a slow machine: a sentinel that has not run for two seconds
// takes no part in an election for the next thirty (its tilt mode).
const soon = 90 * time.Second

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, soon, 5*time.Millisecond, what)
}

// A server is a real redis-server that can be killed and restarted on the same port with its saved data.
type server struct {
	t    testing.TB
	addr string
	dir  string
	args []string // more settings
	cmd  *exec.Cmd
}

func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed (Debian: apt-get install redis-server)")
	}
	s := &server{t: t, addr: freeAddr(t), dir: t.TempDir(), args: args}
	t.Cleanup(s.kill)
	s.start()
	return s
}

// port returns the port of an address.
func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// replicaOf returns the settings of a replica.
func (s *server) replicaOf() []string { return []string{"--replicaof", "127.0.0.1", port(s.addr)} }

var lastPort atomic.Int64

// freeAddr returns an address on which nothing listens. Its port is another one each time, and below those that the system gives to
// outgoing connections and to listeners that ask for any port, so that none of them takes it while its server is down.
func freeAddr(t testing.TB) string {
	t.Helper()
	lastPort.CompareAndSwap(0, mathrand.Int64N(10_000))
	for range 10_000 {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 20_000+lastPort.Add(1)%10_000)); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	require.Fail(t, "no port is free")
	return ""
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command("redis-server", append([]string{"--port", port(s.addr), "--bind", "127.0.0.1",
		"--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", "--dir", s.dir}, s.args...)...)
	require.NoError(s.t, s.cmd.Start())
	eventually(s.t, "redis-server starts", func() bool {
		// A new one each time: a client that was refused waits before it tries again.
		client := redis.NewClient(&redis.Options{Addr: s.addr, DialerRetries: 1, MaxRetries: -1})
		defer client.Close()
		return client.Ping(context.Background()).Err() == nil
	})
}

func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// raw is a client that acts as another writer to Redis.
func (s *server) raw() *redis.Client {
	return newClient(s.t, s.addr, nil)
}

// stat returns a number that redis counts: the one behind the label in a section of INFO.
func (s *server) stat(section, label string) (n int) {
	s.t.Helper()
	client := redis.NewClient(&redis.Options{Addr: s.addr})
	defer client.Close()
	_, after, found := strings.Cut(client.Info(context.Background(), section).Val(), label)
	require.True(s.t, found, label)
	_, err := fmt.Sscanf(after, "%d", &n)
	require.NoError(s.t, err)
	return n
}

// A cable leads to redis and can be cut.
type cable struct {
	mu    sync.Mutex
	isCut bool
	conns []net.Conn
}

func (c *cable) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isCut {
		return nil, errors.New("the cable is cut")
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	c.conns = append(c.conns, conn)
	return conn, err
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isCut = true
	for _, conn := range c.conns {
		if conn != nil {
			conn.Close()
		}
	}
	c.conns = nil
}

func (c *cable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isCut = false
}

func newClient(t testing.TB, addr string, line *cable) *redis.Client {
	options := &redis.Options{Addr: addr, ContextTimeoutEnabled: true}
	if line != nil {
		options.Dialer = line.dial
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { client.Close() })
	return client
}

// A silent server accepts connections and never answers.
type silent struct {
	accepted atomic.Int64
}

func startSilent(t testing.TB, addr string) (*silent, string) {
	l, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	s := new(silent)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			t.Cleanup(func() { conn.Close() })
			go io.Copy(io.Discard, conn)
		}
	}()
	return s, l.Addr().String()
}

// A journal is a log that can be read.
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

func (j *journal) count(s string) int { return strings.Count(j.String(), s) }

func randomKey() []byte {
	key := make([]byte, 32)
	rand.Read(key)
	return key
}

// newRedis returns a Redis with a timeout that only a real failure can reach. change, if not nil, changes other settings.
func newRedis(t testing.TB, client redis.UniversalClient, key []byte, change func(*valetredis.Config)) (*valetredis.Redis, *journal) {
	t.Helper()
	log := new(journal)
	cfg := valetredis.Config{Client: client, Key: key, Timeout: 5 * time.Second, Logger: slog.New(slog.NewTextHandler(log, nil))}
	if change != nil {
		change(&cfg)
	}
	r, err := valetredis.New(cfg)
	require.NoError(t, err)
	return r, log
}
