//go:build unix

package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var revocations = flag.Int("revocations", 5, "number of revocations that TestSignalsOfProcesses measures")

const within = 30 * time.Second // the limit for what must happen

// A fleet is two proxies with Redis, and an authorization server that pushes to the first of them. All are processes.
type fleet struct {
	t       *testing.T
	command string
	dir     string
	issuer  string
	server  *exec.Cmd
	redis   string
	addrs   [2]string
	probes  [2]string
	proxies [2]*exec.Cmd
}

// run starts a process that ends with the test.
func (f *fleet) run(command string, args ...string) *exec.Cmd {
	c := exec.Command(command, args...)
	var log bytes.Buffer
	c.Stdout, c.Stderr = &log, &log
	require.NoError(f.t, c.Start())
	f.t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if f.t.Failed() {
			f.t.Logf("%s %v:\n%s", filepath.Base(command), args, log.String())
		}
	})
	return c
}

func kill(c *exec.Cmd) {
	c.Process.Kill()
	c.Wait()
}

func (f *fleet) startRedis() *exec.Cmd {
	_, port, _ := net.SplitHostPort(f.redis)
	c := f.run("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", f.dir)
	require.Eventually(f.t, func() bool {
		conn, err := net.Dial("tcp", f.redis)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, within, 5*time.Millisecond)
	return c
}

func (f *fleet) write(name, text string) string {
	path := filepath.Join(f.dir, name)
	require.NoError(f.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// startProxy starts a replica and waits until it is ready.
func (f *fleet) startProxy(i int) {
	f.proxies[i] = f.run(f.command, "proxy", "--config", filepath.Join(f.dir, fmt.Sprintf("proxy%d.yaml", i)))
	f.ready(i)
}

func (f *fleet) ready(i int) {
	f.t.Helper()
	require.Eventually(f.t, func() bool {
		res, err := http.Get("http://" + f.probes[i] + "/status")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		var s struct {
			Revocations struct{ Source struct{ State string } }
			Signals     struct{ State string }
		}
		return json.NewDecoder(res.Body).Decode(&s) == nil && s.Revocations.Source.State == "ready" && s.Signals.State == "ready"
	}, within, 10*time.Millisecond)
}

func startFleet(t *testing.T) *fleet {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed (Debian: apt-get install redis-server)")
	}
	f := &fleet{t: t, dir: t.TempDir(), redis: free(t)}
	f.command = filepath.Join(f.dir, "valetkey")
	out, err := exec.Command("go", "build", "-o", f.command, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" {
			fmt.Fprint(w, "data: first\n\n")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}))
	t.Cleanup(upstream.Close)
	t.Cleanup(upstream.CloseClientConnections)
	addr := free(t)
	f.issuer = "http://" + addr
	serve := f.write("serve.yaml", `issuer: `+f.issuer+`
listen: `+addr+`
store: memory
signals: {enabled: true, insecure_loopback_receivers: true}
apis: [{audience: "https://api.example.com", name: Orders, scopes: {"orders:read": See your orders}}]
clients:
  - {id: orders-proxy, secret: a-secret-of-the-proxy-for-tests, scopes: [ssf.read, ssf.manage]}
  - {id: reader, secret: a-secret-of-the-reader-for-tests, scopes: ["orders:read"]}
`)
	f.startRedis()
	f.server = f.run(f.command, "serve", "--config", serve)
	require.Eventually(t, func() bool {
		res, err := http.Get(f.issuer + "/.well-known/ssf-configuration")
		if err == nil {
			res.Body.Close()
		}
		return err == nil && res.StatusCode == 200
	}, within, 10*time.Millisecond)
	for i := range f.addrs {
		f.addrs[i], f.probes[i] = free(t), free(t)
		f.write(fmt.Sprintf("proxy%d.yaml", i), fmt.Sprintf(`listen: %s
probe: %s
drain: 0s
upstream: %s
resource: https://api.example.com
verifiers: [jwks: {issuer: %q}]
redis: {address: %q, key: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=}
signals:
  transmitter: %[4]s
  delivery: push
  endpoint: http://%[6]s/signals
  authorization: Bearer push
  token_url: %[4]s/oauth2/token
  client_id: orders-proxy
  client_secret: a-secret-of-the-proxy-for-tests
routes: {"GET /orders": orders:read, "GET /events": orders:read}
`, f.addrs[i], f.probes[i], upstream.URL, f.issuer, f.redis, f.addrs[0]))
		f.startProxy(i)
	}
	return f
}

// post sends a form to the authorization server as the reader.
func (f *fleet) post(path string, form url.Values) []byte {
	f.t.Helper()
	r, err := http.NewRequest("POST", f.issuer+path, strings.NewReader(form.Encode()))
	require.NoError(f.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("reader", "a-secret-of-the-reader-for-tests")
	res, err := http.DefaultClient.Do(r)
	require.NoError(f.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(f.t, err)
	require.Equal(f.t, 200, res.StatusCode, string(body))
	return body
}

func (f *fleet) token() string {
	var answer struct {
		Token string `json:"access_token"`
	}
	require.NoError(f.t, json.Unmarshal(f.post("/oauth2/token", url.Values{"grant_type": {"client_credentials"}}), &answer))
	return answer.Token
}

func (f *fleet) revoke(token string) { f.post("/oauth2/revoke", url.Values{"token": {token}}) }

func (f *fleet) ask(ctx context.Context, i int, path, token string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+f.addrs[i]+path, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return http.DefaultClient.Do(r)
}

// status returns the response of a replica; 0: none.
func (f *fleet) status(i int, token string) int {
	res, err := f.ask(context.Background(), i, "/orders", token)
	if err != nil {
		return 0
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return res.StatusCode
}

// refused waits until a replica refuses a token.
func (f *fleet) refused(i int, token string) {
	f.t.Helper()
	require.Eventually(f.t, func() bool { return f.status(i, token) == 401 }, within, 2*time.Millisecond)
}

// stream opens a stream at a replica, and returns a channel with the time of its end.
func (f *fleet) stream(i int, token string) <-chan time.Time {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	res, err := f.ask(ctx, i, "/events", token)
	require.NoError(f.t, err)
	require.Equal(f.t, 200, res.StatusCode)
	lines := bufio.NewReader(res.Body)
	_, err = lines.ReadString('\n')
	require.NoError(f.t, err)
	end := make(chan time.Time, 1)
	go func() {
		defer cancel()
		defer res.Body.Close()
		io.Copy(io.Discard, lines)
		if ctx.Err() == nil {
			end <- time.Now()
		}
		close(end)
	}()
	return end
}

// TestSignalsOfProcesses revokes tokens at the authorization server, which pushes each event to the first of two replicas. Without
// -revocations it asserts what happens, and not how fast.
func TestSignalsOfProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the command")
	}
	f := startFleet(t)
	t.Run("both replicas refuse, and their streams end", func(t *testing.T) {
		var refusals, ends []time.Duration
		for range *revocations {
			token := f.token()
			streams := []<-chan time.Time{f.stream(0, token), f.stream(1, token)}
			begin := time.Now()
			f.revoke(token)
			done := make(chan time.Time, 2)
			for i := range 2 {
				go func() {
					for f.status(i, token) != 401 && time.Since(begin) < within {
						time.Sleep(2 * time.Millisecond)
					}
					done <- time.Now()
				}()
			}
			last := (<-done).Sub(begin)
			last = max(last, (<-done).Sub(begin))
			require.Less(t, last, within)
			refusals = append(refusals, last)
			last = 0
			for _, s := range streams {
				at, ended := <-s
				require.True(t, ended, "a stream has not ended")
				last = max(last, at.Sub(begin))
			}
			ends = append(ends, last)
		}
		for name, all := range map[string][]time.Duration{"refusal": refusals, "end of streams": ends} {
			slices.Sort(all)
			t.Logf("%d revocations, %s at both replicas: median %v, p99 %v, maximum %v", len(all), name,
				all[len(all)/2].Round(time.Millisecond), all[len(all)*99/100].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond))
		}
	})
	t.Run("a replica that was down meanwhile", func(t *testing.T) {
		token := f.token()
		require.Equal(t, 200, f.status(1, token))
		kill(f.proxies[1])
		f.revoke(token)
		f.refused(0, token)
		f.startProxy(1)
		require.Equal(t, 401, f.status(1, token))
	})
	t.Run("the transmitter stands still for some seconds", func(t *testing.T) {
		token := f.token()
		require.NoError(t, f.server.Process.Signal(syscall.SIGSTOP))
		time.Sleep(3 * time.Second)
		for i := range 2 {
			require.Equal(t, 200, f.status(i, token), "replica %d continues", i)
		}
		require.NoError(t, f.server.Process.Signal(syscall.SIGCONT))
		f.revoke(token)
		f.refused(0, token)
		f.refused(1, token)
	})
}

// TestSignalsWithoutRedis kills Redis, which loses its data.
func TestSignalsWithoutRedis(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the command")
	}
	f := startFleet(t)
	token := f.token()
	stream := f.stream(1, token)
	require.NoError(t, exec.Command("redis-cli", "-h", "127.0.0.1", "-p", f.redis[strings.LastIndexByte(f.redis, ':')+1:], "shutdown", "nosave").Run())
	f.revoke(token)
	f.refused(0, token) // it has received the event, and does not acknowledge it
	f.startRedis()
	f.refused(1, token)
	_, ended := <-stream
	require.True(t, ended, "the stream has not ended")
}
