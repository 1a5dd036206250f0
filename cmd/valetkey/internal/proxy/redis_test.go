package proxy_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/doctor"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/valetkeytest"
)

const redisPassword = "a password of redis"

// startRedis starts a real redis-server with a password, and returns where it is and a func that kills it.
func startRedis(t *testing.T) (addr string, kill func()) {
	t.Helper()
	addr = clitest.FreeAddr(t)
	return addr, startRedisAt(t, addr)
}

func startRedisAt(t *testing.T, addr string) (kill func()) {
	t.Helper()
	_, port, _ := net.SplitHostPort(addr)
	return runRedis(t, &redis.Options{Addr: addr, Password: redisPassword}, "--port", port, "--requirepass", redisPassword)
}

// runRedis starts a real redis-server on loopback and waits until a client with the options reaches it.
func runRedis(t *testing.T, at *redis.Options, settings ...string) (kill func()) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed (Debian: apt-get install redis-server)")
	}
	server := exec.Command("redis-server", append([]string{"--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir()}, settings...)...)
	require.NoError(t, server.Start())
	kill = func() {
		server.Process.Kill()
		server.Wait()
	}
	t.Cleanup(kill)
	at.DialerRetries, at.MaxRetries = 1, -1
	client := redis.NewClient(at)
	defer client.Close()
	require.Eventually(t, func() bool { return client.Ping(context.Background()).Err() == nil }, soon, 5*time.Millisecond)
	return kill
}

// caughtUp waits until a proxy knows the revocations in redis.
func caughtUp(t *testing.T, probe string) {
	t.Helper()
	require.Eventually(t, func() bool {
		return statusOf(t, probe).Revocations.Source.State == "ready"
	}, soon, 5*time.Millisecond)
}

func TestAProxyThatStartsWithoutRedis(t *testing.T) {
	addr := clitest.FreeAddr(t)
	iss := valetkeytest.NewIssuer(t)
	upstream := httptest.NewServer(&recorder{})
	defer upstream.Close()
	config := example(t, iss.URL, upstream.URL, "127.0.0.1:8081", "127.0.0.1:0", "# probe: 127.0.0.1:8082", "probe: 127.0.0.1:0") +
		"\nredis: {address: '" + addr + "', password: '" + redisPassword + "', key: " + key + "}"
	strict, strictProbe := serve(t, config)
	lax, laxProbe := serve(t, strings.TrimSuffix(config, "}")+", allow_before_caught_up: true}")
	whoami := func(addr string, token string) int {
		code, _ := get(t, "http://"+addr+"/whoami", token)
		return code
	}
	ready := func(probe string) int {
		code, _ := get(t, "http://"+probe+"/ready", "")
		return code
	}
	require.Equal(t, []int{503, 503}, []int{whoami(strict, iss.Token()), ready(strictProbe)}, "it cannot know what is revoked")
	require.Equal(t, 401, whoami(strict, ""))
	require.Equal(t, "down", statusOf(t, strictProbe).State)
	require.Eventually(t, func() bool { return strings.Contains(statusOf(t, strictProbe).Revocations.Source.Error, addr) }, soon, 5*time.Millisecond)
	require.Equal(t, []int{200, 200}, []int{whoami(lax, iss.Token()), ready(laxProbe)}, "unless that is allowed")
	require.Equal(t, "degraded", statusOf(t, laxProbe).State)

	startRedisAt(t, addr)
	for _, probe := range []string{strictProbe, laxProbe} {
		caughtUp(t, probe)
		require.Equal(t, 200, ready(probe))
		require.Eventually(t, func() bool { return statusOf(t, probe).State == "ready" }, soon, 5*time.Millisecond)
	}
	require.Equal(t, []int{200, 200}, []int{whoami(strict, iss.Token()), whoami(lax, iss.Token())})
}

func TestTwoProxiesAndOneRedis(t *testing.T) {
	addr, kill := startRedis(t)
	iss := valetkeytest.NewIssuer(t)
	upstream := httptest.NewServer(&recorder{})
	defer upstream.Close()
	t.Setenv("VALETKEY_TEST_KEY", key)
	t.Setenv("VALETKEY_TEST_PASSWORD", redisPassword)
	config := example(t, iss.URL, upstream.URL, "127.0.0.1:8081", "127.0.0.1:0", "# probe: 127.0.0.1:8082", "probe: 127.0.0.1:0",
		"\nverifiers:", "\nverifiers:"+strings.ReplaceAll(asking, "ISSUER", iss.URL), "  - jwks:\n", "  - jwks:\n      issuer_aliases: https://back.example.com\n") +
		"\nredis: {address: '" + addr + "', password_env: VALETKEY_TEST_PASSWORD, key_env: VALETKEY_TEST_KEY, prefix: 'test:', timeout: 5s}"
	file := filepath.Join(t.TempDir(), "proxy.yaml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	revoke := func(r valetkey.Revocation) error {
		return proxy.Revoke(t.Context(), file, r, slog.New(slog.DiscardHandler))
	}
	one, oneProbe := serve(t, config)
	two, twoProbe := serve(t, config)
	caughtUp(t, oneProbe)
	caughtUp(t, twoProbe)
	whoami := func(addr, token string) int {
		code, _ := get(t, "http://"+addr+"/whoami", token)
		return code
	}

	opaque, jwt, bobs := iss.Opaque(), iss.Token(), iss.Token(valetkeytest.Subject("bob"))
	t.Run("one process has the answers that the other asked for", func(t *testing.T) {
		require.Equal(t, 200, whoami(one, opaque))
		require.Equal(t, 1, iss.Introspection.Hits())
		// The answer is written behind the request: ask the other until it has it.
		require.Eventually(t, func() bool {
			keys, err := redisKeys(t, addr)
			return err == nil && len(keys) > 0
		}, soon, 5*time.Millisecond)
		require.Equal(t, 200, whoami(two, opaque))
		require.Equal(t, 1, iss.Introspection.Hits())
	})
	t.Run("what is in redis does not show the token, and has our prefix", func(t *testing.T) {
		keys, err := redisKeys(t, addr)
		require.NoError(t, err)
		for _, name := range keys {
			require.True(t, strings.HasPrefix(name, "test:"), name)
			require.NotContains(t, name, opaque)
		}
	})
	t.Run("a revocation that would do nothing", func(t *testing.T) {
		for _, c := range []struct {
			name string
			r    valetkey.Revocation
			want string
		}{
			{"of an untrusted issuer", valetkey.Revocation{Issuer: "https://as.example.com", Subject: "alice"}, `accepts the issuer "https://as.example.com"`},
			{"of nothing", valetkey.Revocation{Issuer: iss.URL}, "0 of ID, Subject, ClientID, SessionID and All, not one"},
			{"for longer than it is kept", valetkey.Revocation{Issuer: iss.URL, All: true, Until: time.Now().Add(48 * time.Hour)}, "24h"},
		} {
			require.ErrorContains(t, revoke(c.r), c.want, c.name)
		}
	})
	t.Run("a revocation reaches both", func(t *testing.T) {
		for _, token := range []string{jwt, bobs} {
			require.Equal(t, []int{200, 200}, []int{whoami(one, token), whoami(two, token)})
		}
		require.NoError(t, revoke(valetkey.Revocation{Issuer: iss.URL, Subject: "alice", Before: time.Now().Add(time.Minute)}))
		require.Eventually(t, func() bool {
			return statusOf(t, oneProbe).Revocations.Held == 1 && statusOf(t, twoProbe).Revocations.Held == 1
		}, soon, 5*time.Millisecond)
		for _, at := range []string{one, two} {
			require.Equal(t, []int{401, 401, 200}, []int{whoami(at, jwt), whoami(at, opaque), whoami(at, bobs)})
		}
	})
	t.Run("a proxy that starts later hears of it", func(t *testing.T) {
		three, probe := serve(t, config)
		caughtUp(t, probe)
		require.Equal(t, 1, statusOf(t, probe).Revocations.Held)
		require.Equal(t, []int{401, 200}, []int{whoami(three, jwt), whoami(three, bobs)})
	})
	t.Run("a revocation by an alias of the issuer", func(t *testing.T) {
		carols := iss.Token(valetkeytest.Subject("carol"))
		require.Equal(t, 200, whoami(one, carols))
		require.NoError(t, revoke(valetkey.Revocation{Issuer: "https://back.example.com", Subject: "carol", Before: time.Now().Add(time.Minute)}))
		require.Eventually(t, func() bool { return statusOf(t, oneProbe).Revocations.Held == 2 }, soon, 5*time.Millisecond)
		require.Equal(t, 401, whoami(one, carols))
	})
	t.Run("without redis all goes on, and it is reported", func(t *testing.T) {
		kill()
		require.Equal(t, []int{200, 200}, []int{whoami(one, iss.Token(valetkeytest.Subject("bob"))), whoami(two, iss.Opaque(valetkeytest.Subject("bob")))})
		require.Equal(t, 401, whoami(one, jwt))
		require.Eventually(t, func() bool {
			s := statusOf(t, twoProbe)
			return len(s.Redis) == 2 && s.Redis[1].State == "degraded" && s.Redis[1].Error != "" &&
				s.State == "degraded" && s.Revocations.Source.State == "degraded"
		}, soon, 5*time.Millisecond, "revocations may be missing")
		code, _ := get(t, "http://"+twoProbe+"/ready", "")
		require.Equal(t, 200, code)
		err := revoke(valetkey.Revocation{Issuer: iss.URL, Subject: "bob"})
		require.ErrorContains(t, err, "publishing a revocation")
		require.NotContains(t, err.Error(), redisPassword)
	})
}

func redisKeys(t *testing.T, addr string) ([]string, error) {
	client := redis.NewClient(&redis.Options{Addr: addr, Password: redisPassword})
	defer client.Close()
	return client.Keys(t.Context(), "*").Result()
}

func TestRedisSettings(t *testing.T) {
	addr, _ := startRedis(t)
	for _, c := range []struct{ name, fields, want string }{
		{"no password", "", "NOAUTH"},
		{"a wrong password", "password: wrong", "WRONGPASS"},
		{"a user that is not there", "username: me, password: x", "WRONGPASS"},
		{"a database that is not there", "db: 99, password: '" + redisPassword + "'", "DB index"},
		{"the right ones", "db: 3, username: default, password: '" + redisPassword + "'", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "proxy.yaml")
			config := good + "redis: {address: '" + addr + "', key: " + key + ", " + strings.TrimPrefix(c.fields, ", ") + "}"
			require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
			err := proxy.Revoke(t.Context(), file, valetkey.Revocation{Issuer: "https://as.example.com", All: true}, slog.New(slog.DiscardHandler))
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), redisPassword)
		})
	}
}

func TestRedisOverTLS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	first := make(chan byte, 100) // of each connection
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 1)
			conn.Read(b)
			first <- b[0]
			conn.Close()
		}
	}()
	file := filepath.Join(t.TempDir(), "proxy.yaml")
	config := good + "redis: {address: '" + l.Addr().String() + "', tls: true, password: x, key: " + key + "}"
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	err = proxy.Revoke(t.Context(), file, valetkey.Revocation{Issuer: "https://as.example.com", All: true}, slog.New(slog.DiscardHandler))
	require.Error(t, err)
	require.Equal(t, byte(22), <-first, "a TLS handshake (RFC 8446, section 5.1), and no password in the clear")
}

// shareRevocations starts two proxies with the redis section, revokes a token as an operator does, and requires that both refuse it.
func shareRevocations(t *testing.T, section string) {
	t.Helper()
	iss := valetkeytest.NewIssuer(t)
	upstream := httptest.NewServer(&recorder{})
	t.Cleanup(upstream.Close)
	config := example(t, iss.URL, upstream.URL, "127.0.0.1:8081", "127.0.0.1:0", "# probe: 127.0.0.1:8082", "probe: 127.0.0.1:0") +
		"\nredis: {" + section + ", timeout: 5s, key: " + key + "}"
	file := filepath.Join(t.TempDir(), "proxy.yaml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	one, oneProbe := serve(t, config)
	two, twoProbe := serve(t, config)
	token := iss.Token()
	for _, p := range []struct{ addr, probe string }{{one, oneProbe}, {two, twoProbe}} {
		caughtUp(t, p.probe)
		code, _ := get(t, "http://"+p.addr+"/whoami", token)
		require.Equal(t, 200, code)
	}
	require.NoError(t, proxy.Revoke(t.Context(), file, valetkey.Revocation{Issuer: iss.URL, Subject: "alice", Before: time.Now().Add(time.Minute)}, slog.New(slog.DiscardHandler)))
	for _, addr := range []string{one, two} {
		require.Eventually(t, func() bool { code, _ := get(t, "http://"+addr+"/whoami", token); return code == 401 }, soon, 5*time.Millisecond)
	}
}

func TestRedisOnASocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "redis.sock")
	runRedis(t, &redis.Options{Network: "unix", Addr: socket, Password: redisPassword}, "--port", "0", "--unixsocket", socket, "--requirepass", redisPassword)
	shareRevocations(t, "socket: "+socket+", password: "+redisPassword)
}

func TestRedisWithCertificates(t *testing.T) {
	dir, addr := t.TempDir(), clitest.FreeAddr(t)
	stranger := httptest.NewTLSServer(nil)
	stranger.Close()
	path := func(name, text string) string {
		p := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(p, []byte(text), 0o600))
		return p
	}
	ca, certKey := path("ca.pem", certificatePEM), path("redis.key", keyPEM)
	otherCA := path("other.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: stranger.Certificate().Raw})))
	pair, err := tls.X509KeyPair([]byte(certificatePEM), []byte(keyPEM))
	require.NoError(t, err)
	_, port, _ := net.SplitHostPort(addr)
	runRedis(t, &redis.Options{Addr: addr, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}}, "--port", "0", "--tls-port", port,
		"--tls-cert-file", ca, "--tls-key-file", certKey, "--tls-ca-cert-file", ca, "--tls-auth-clients", "yes")
	at := "address: '" + addr + "', tls: true, "
	own := ", tls_cert_file: " + ca + ", tls_key_file: " + certKey
	for _, c := range []struct{ name, section, want string }{
		{"without a certificate of the client", at + "tls_ca_file: " + ca, ""}, // redis closes the connection, which has several texts
		{"with the certificate of another authority", at + "tls_ca_file: " + otherCA + own, "certificate signed by unknown authority"},
		{"under another name", at + "tls_server_name: redis.example.com, tls_ca_file: " + ca + own, "redis.example.com"},
	} {
		t.Run("refused "+c.name, func(t *testing.T) {
			file := path("proxy.yaml", good+"redis: {"+c.section+", key: "+key+"}")
			err := proxy.Revoke(t.Context(), file, valetkey.Revocation{Issuer: "https://as.example.com", All: true}, slog.New(slog.DiscardHandler))
			require.ErrorContains(t, err, "publishing a revocation")
			require.ErrorContains(t, err, c.want)
		})
	}
	t.Run("accepted with both", func(t *testing.T) {
		shareRevocations(t, at+"tls_server_name: 127.0.0.1, tls_ca_file: "+ca+own)
	})
}

func TestRedisBehindSentinels(t *testing.T) {
	addr, sentinel := clitest.FreeAddr(t), clitest.FreeAddr(t)
	startRedisAt(t, addr)
	_, port, _ := net.SplitHostPort(sentinel)
	_, primary, _ := net.SplitHostPort(addr)
	settings := filepath.Join(t.TempDir(), "sentinel.conf")
	require.NoError(t, os.WriteFile(settings, fmt.Appendf(nil, "port %s\nbind 127.0.0.1\nrequirepass sentinels\nsentinel monitor orders 127.0.0.1 %s 1\n"+
		"sentinel auth-pass orders \"%s\"\n", port, primary, redisPassword), 0o600))
	server := exec.Command("redis-server", settings, "--sentinel")
	require.NoError(t, server.Start())
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	shareRevocations(t, "sentinel: {addresses: ['"+clitest.FreeAddr(t)+"', '"+sentinel+"'], master: orders, password: sentinels}, allow_unreplicated: true, password: "+redisPassword)
}

func TestRedisInACluster(t *testing.T) {
	var addrs []string
	var nodes []*redis.Client
	for i := range 3 {
		addr := clitest.FreeAddr(t)
		_, port, _ := net.SplitHostPort(addr)
		_, bus, _ := net.SplitHostPort(clitest.FreeAddr(t))
		runRedis(t, &redis.Options{Addr: addr}, "--port", port, "--cluster-enabled", "yes", "--cluster-port", bus)
		client := redis.NewClient(&redis.Options{Addr: addr})
		t.Cleanup(func() { client.Close() })
		require.NoError(t, client.ClusterAddSlotsRange(t.Context(), i*16384/3, (i+1)*16384/3-1).Err())
		if i > 0 {
			require.NoError(t, nodes[0].Do(t.Context(), "cluster", "meet", "127.0.0.1", port, bus).Err())
		}
		addrs, nodes = append(addrs, addr), append(nodes, client)
	}
	for _, n := range nodes {
		require.Eventually(t, func() bool {
			info, err := n.ClusterInfo(t.Context()).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		}, soon, 5*time.Millisecond)
	}
	shareRevocations(t, "cluster: ['"+clitest.FreeAddr(t)+"', '"+addrs[1]+"'], allow_unreplicated: true")
}

func TestLoadDoesNotConnectToRedis(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	addr := l.Addr().String()
	for _, section := range []string{
		"address: '" + addr + "'",
		"cluster: '" + addr + "'",
		"sentinel: {addresses: '" + addr + "', master: orders}",
	} {
		p, err := load(t, good+"redis: {"+section+", key: "+key+"}", slog.New(slog.DiscardHandler))
		require.NoError(t, err, section)
		p.Close()
		mine, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		first, err := l.Accept()
		require.NoError(t, err)
		require.Equal(t, mine.LocalAddr().String(), first.RemoteAddr().String(), "the first connection is that of the test: %s", section)
		mine.Close()
		first.Close()
	}
}

func TestDoctorExaminesRedis(t *testing.T) {
	addr, _ := startRedis(t)
	at := "address: '" + addr + "', password: '" + redisPassword + "'"
	otherKey := strings.Repeat("B", 43) + "="
	file := func(section string) string {
		path := filepath.Join(t.TempDir(), "proxy.yaml")
		require.NoError(t, os.WriteFile(path, []byte(good+"redis: {"+section+"}"), 0o600))
		return path
	}
	require.NoError(t, proxy.Revoke(t.Context(), file(at+", key: "+key), valetkey.Revocation{Issuer: "https://as.example.com", Subject: "alice"}, slog.New(slog.DiscardHandler)))
	for _, c := range []struct {
		name, section string
		level         doctor.Level
		cause         string
	}{
		{"redis is not there", "address: '" + clitest.FreeAddr(t) + "', key: " + key, doctor.Fail, "connection refused"},
		{"a wrong password", "address: '" + addr + "', password: wrong, key: " + key, doctor.Fail, "WRONGPASS"},
		{"too few replicas", at + ", min_replicas: 1, key: " + key, doctor.Fail, "0 of 1 replicas have confirmed"},
		{"a key that opens nothing", at + ", key: " + otherKey, doctor.Fail, "1 entries in redis cannot be opened"},
		{"all is well", at + ", key: " + key, doctor.OK, "a proxy that starts knows the revocations"},
	} {
		t.Run(c.name, func(t *testing.T) {
			targets, err := proxy.Targets(file(c.section), drivers, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			require.Len(t, targets, 2)
			found := doctor.Examine(t.Context(), targets[1:], "")
			require.Len(t, found, 1)
			require.Equal(t, []string{string(c.level), "redis", "redis"}, []string{string(found[0].Level), found[0].At, found[0].Check})
			require.Contains(t, found[0].Cause, c.cause)
			require.Equal(t, c.level == doctor.Fail, found[0].Fix != "")
			require.NotContains(t, found[0].String(), redisPassword)
		})
	}
}

func TestRevokeMistakes(t *testing.T) {
	r := valetkey.Revocation{Issuer: "https://as.example.com", All: true}
	for _, c := range []struct{ name, config, want string }{
		{"no redis", good, "1: redis: required: revocations are published there"},
		{"redis without a key", good + "redis: {address: ':1'}", "6: redis.key_file: required"},
		{"an issuer on two lines of mistakes", strings.Replace(good, "issuer:", "isuer:", 1) + "redis: {address: ':1', key: " + key + "}", `4: verifiers[0].jwks: unknown field "isuer"`},
		{"an unknown field", good + "radis: {}", `6: unknown field "radis"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "proxy.yaml")
			require.NoError(t, os.WriteFile(file, []byte(c.config), 0o600))
			require.ErrorContains(t, proxy.Revoke(t.Context(), file, r, slog.New(slog.DiscardHandler)), "proxy.yaml:"+c.want)
		})
	}
	for _, c := range []struct {
		name, verifier, issuer string
		known                  bool
	}{
		{"the issuer of another project", "issuer_type: firebase_id_tokens, audience: shop", "https://securetoken.google.com/other", false},
		{"an issuer that the product determines", "issuer_type: firebase_id_tokens, audience: shop", "https://securetoken.google.com/shop", true},
		{"the template of many tenants", "issuer_type: entra_id_any_tenant", "https://login.microsoftonline.com/{tid}/v2.0", false},
		{"a tenant of many", "issuer_type: entra_id_any_tenant", "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", true},
		{"an alias, which stands for the issuer of its tokens", "issuer: 'https://as.example.com', issuer_aliases: 'https://back.example.com'", "https://back.example.com", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "proxy.yaml")
			config := strings.Replace(good, `issuer: "https://as.example.com"`, c.verifier, 1) + "redis: {address: '127.0.0.1:1', key: " + key + "}"
			require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
			err := proxy.Revoke(t.Context(), file, valetkey.Revocation{Issuer: c.issuer, All: true}, slog.New(slog.DiscardHandler))
			if c.known {
				require.ErrorContains(t, err, "publishing a revocation")
			} else {
				require.ErrorContains(t, err, "no verifier in "+file+" accepts the issuer")
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		err := proxy.Revoke(t.Context(), filepath.Join(t.TempDir(), "x.yaml"), r, slog.New(slog.DiscardHandler))
		require.True(t, errors.Is(err, os.ErrNotExist), err)
	})
}
