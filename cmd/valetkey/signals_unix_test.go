//go:build unix

package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
)

var (
	revocations = flag.Int("revocations", 3, "number of revocations of each kind that TestSignalsOfProcesses measures")
	outage      = flag.Duration("outage", time.Second, "how long TestSignalsOfProcesses stops the transmitter and a receiver")
)

const within = 2 * time.Minute // the limit for what must happen

// A fleet is two proxies with Redis, and an authorization server that pushes to the first of them or is polled by both. All are processes.
type fleet struct {
	t       *testing.T // that fails
	whole   *testing.T // with which the processes end
	command string
	dir     string
	issuer  string
	file    string // of the server
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
	f.whole.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if f.whole.Failed() {
			f.whole.Logf("%s %v:\n%s", filepath.Base(command), args, log.String())
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
	}, within+*outage, 10*time.Millisecond)
}

// startServer starts the authorization server and waits until it answers.
func (f *fleet) startServer() {
	f.server = f.run(f.command, "serve", "--config", f.file)
	require.Eventually(f.t, func() bool {
		res, err := http.Get(f.issuer + "/.well-known/ssf-configuration")
		if err == nil {
			res.Body.Close()
		}
		return err == nil && res.StatusCode == 200
	}, within, 10*time.Millisecond)
}

func startFleet(t *testing.T, command, delivery string) *fleet {
	f := &fleet{t: t, whole: t, command: command, dir: t.TempDir(), redis: clitest.FreeAddr(t)}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" {
			fmt.Fprint(w, "data: first\n\n")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}))
	t.Cleanup(upstream.Close)
	t.Cleanup(upstream.CloseClientConnections)
	addr := clitest.FreeAddr(t)
	f.issuer = "http://" + addr
	f.file = f.write("serve.yaml", `issuer: `+f.issuer+`
listen: `+addr+`
store: sqlite:`+filepath.Join(f.dir, "as.db")+`
signals: {enabled: true, insecure_loopback_receivers: true}
limits: {pushes: {burst: 10000, every: 1ms}} # all log-ins come from one address
apis: [{audience: "https://api.example.com", name: Orders, scopes: {"orders:read": See your orders}}]
clients:
  - {id: orders-proxy, secret: a-secret-of-the-proxy-for-tests, scopes: [ssf.read, ssf.manage]}
  - {id: reader, secret: a-secret-of-the-reader-for-tests, scopes: ["orders:read"]}
  - {id: shop, secret: a-secret-of-the-shop-for-tests, trusted: true, scopes: ["orders:read"], redirect_uris: ["https://shop.example.com/callback"]}
users: [{name: alice, password: a-password-for-tests}]
`)
	f.startRedis()
	f.startServer()
	f.addrs = [2]string{clitest.FreeAddr(t), clitest.FreeAddr(t)}
	if delivery == "push" {
		delivery += "\n  endpoint: http://" + f.addrs[0] + "/signals\n  authorization: Bearer push"
	}
	for i := range f.addrs {
		f.probes[i] = clitest.FreeAddr(t)
		f.write(fmt.Sprintf("proxy%d.yaml", i), fmt.Sprintf(`listen: %s
probe: %s
drain: 0s
upstream: %s
resource: https://api.example.com
verifiers: [jwks: {issuer: %q}]
redis: {address: %q, key: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=}
signals:
  transmitter: %[4]s
  delivery: %[6]s
  token_url: %[4]s/oauth2/token
  client_id: orders-proxy
  client_secret: a-secret-of-the-proxy-for-tests
routes: {"GET /orders": orders:read, "GET /events": orders:read}
`, f.addrs[i], f.probes[i], upstream.URL, f.issuer, f.redis, delivery))
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
	ctx, cancel := context.WithTimeout(context.Background(), within+2**outage)
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

// A visitor is a user's browser at the server. It follows no redirect to the application.
type visitor struct {
	f      *fleet
	client *http.Client
	at     *url.URL
	page   string
}

func (f *fleet) visitor() *visitor {
	jar, err := cookiejar.New(nil)
	require.NoError(f.t, err)
	return &visitor{f: f, client: &http.Client{Jar: jar, CheckRedirect: func(next *http.Request, _ []*http.Request) error {
		if next.URL.Host == "shop.example.com" {
			return http.ErrUseLastResponse
		}
		return nil
	}}}
}

func (v *visitor) do(r *http.Request) {
	v.f.t.Helper()
	res, err := v.client.Do(r)
	require.NoError(v.f.t, err)
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	require.NoError(v.f.t, err)
	require.Less(v.f.t, res.StatusCode, 400, string(page))
	v.at, v.page = res.Request.URL, string(page)
	if to, err := res.Location(); err == nil {
		v.at = to
	}
}

func (v *visitor) open(to string) {
	v.f.t.Helper()
	r, err := http.NewRequest("GET", to, nil)
	require.NoError(v.f.t, err)
	v.do(r)
}

// send sends the form of the page that has a text, with its hidden fields and those given.
func (v *visitor) send(has string, fields url.Values) {
	v.f.t.Helper()
	for _, form := range regexp.MustCompile(`(?s)<form method="post" action="([^"]*)".*?</form>`).FindAllStringSubmatch(v.page, -1) {
		if !strings.Contains(form[0], has) {
			continue
		}
		to, err := v.at.Parse(html.UnescapeString(form[1]))
		require.NoError(v.f.t, err)
		for _, hidden := range regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`).FindAllStringSubmatch(form[0], -1) {
			fields.Set(hidden[1], html.UnescapeString(hidden[2]))
		}
		r, err := http.NewRequest("POST", to.String(), strings.NewReader(fields.Encode()))
		require.NoError(v.f.t, err)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", v.f.issuer)
		v.do(r)
		return
	}
	require.Fail(v.f.t, "there is no form with "+has, v.page)
}

// logIn logs alice in at the application, by authorization code, and returns her access token.
func (v *visitor) logIn() string {
	t := v.f.t
	t.Helper()
	shop := &oauth2.Config{
		ClientID: "shop", ClientSecret: "a-secret-of-the-shop-for-tests", RedirectURL: "https://shop.example.com/callback", Scopes: []string{"orders:read"},
		Endpoint: oauth2.Endpoint{AuthURL: v.f.issuer + "/oauth2/authorize", TokenURL: v.f.issuer + "/oauth2/token", AuthStyle: oauth2.AuthStyleInHeader},
	}
	verifier := oauth2.GenerateVerifier()
	v.open(shop.AuthCodeURL("a state", oauth2.S256ChallengeOption(verifier)))
	v.send(`name="password"`, url.Values{"name": {"alice"}, "password": {"a-password-for-tests"}, "do": {"login"}})
	require.Equal(t, "shop.example.com", v.at.Host, v.page)
	token, err := shop.Exchange(t.Context(), v.at.Query().Get("code"), oauth2.VerifierOption(verifier))
	require.NoError(t, err)
	return token.AccessToken
}

// A farewell ends the access of a token that it returns.
type farewell struct {
	name  string
	begin func(f *fleet) (token string, end func())
}

var farewells = []farewell{
	{"a client revokes its token", func(f *fleet) (string, func()) {
		token := f.token()
		return token, func() { f.revoke(token) }
	}},
	{"a user logs out", func(f *fleet) (string, func()) {
		v := f.visitor()
		token := v.logIn()
		v.open(f.issuer + "/account/applications")
		return token, func() { v.send(`action="/logout"`, url.Values{}) }
	}},
	{"a user logs out everywhere, in another browser", func(f *fleet) (string, func()) {
		token, other := f.visitor().logIn(), f.visitor()
		other.logIn()
		other.open(f.issuer + "/account/everywhere")
		return token, func() { other.send(`action="/account/everywhere"`, url.Values{}) }
	}},
}

// refusing asks both replicas until they refuse all tokens. The result waits for that, and returns the time from begin.
func (f *fleet) refusing(begin time.Time, tokens ...string) (wait func() time.Duration) {
	last := make(chan time.Time, 2)
	for i := range 2 {
		go func() {
			defer func() { last <- time.Now() }()
			for _, token := range tokens {
				for time.Since(begin) < within && f.status(i, token) != 401 {
					time.Sleep(2 * time.Millisecond)
				}
			}
		}()
	}
	return func() time.Duration {
		f.t.Helper()
		took := max((<-last).Sub(begin), (<-last).Sub(begin))
		require.Less(f.t, took, within, "a replica does not refuse")
		return took
	}
}

// TestSignalsOfProcesses ends the access of clients and of users at the authorization server, which pushes each event to the first of two
// replicas, or is polled. It asserts what happens, and logs how fast: docs/signals.md has the numbers with -revocations and -outage.
func TestSignalsOfProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the command")
	}
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed (Debian: apt-get install redis-server)")
	}
	command := filepath.Join(t.TempDir(), "valetkey")
	out, err := exec.Command("go", "build", "-C", "full", "-o", command, "./valetkey").CombinedOutput() // with SQLite: the server restarts
	require.NoError(t, err, string(out))
	for _, delivery := range []string{"push", "poll"} {
		t.Run(delivery, func(t *testing.T) { signalsOfProcesses(t, command, delivery) })
	}
}

func signalsOfProcesses(t *testing.T, command, delivery string) {
	f := startFleet(t, command, delivery)
	run := func(name string, test func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			defer func() { f.t = f.whole }()
			f.t = t
			test(t)
		})
	}
	for _, way := range farewells {
		run("both replicas refuse, and their streams end: "+way.name, func(t *testing.T) {
			var refusals, ends []time.Duration
			for range *revocations {
				token, end := way.begin(f)
				streams := []<-chan time.Time{f.stream(0, token), f.stream(1, token)}
				begin := time.Now()
				wait := f.refusing(begin, token)
				end()
				refusals = append(refusals, wait())
				last := time.Duration(0)
				for _, s := range streams {
					at, ended := <-s
					require.True(t, ended, "a stream has not ended")
					last = max(last, at.Sub(begin))
				}
				ends = append(ends, last)
			}
			for name, all := range map[string][]time.Duration{"refusal": refusals, "end of streams": ends} {
				slices.Sort(all)
				t.Logf("%d times, %s at both replicas: median %v, p99 %v, maximum %v", len(all), name,
					all[len(all)/2].Round(time.Millisecond), all[len(all)*99/100].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond))
			}
		})
	}
	for replica, name := range []string{"the replica that is pushed to", "the other replica"} {
		run(name+" is down meanwhile", func(t *testing.T) {
			token, end := farewells[1].begin(f)
			for i := range 2 {
				require.Equal(t, 200, f.status(i, token))
			}
			kill(f.proxies[replica])
			end()
			time.Sleep(*outage)
			begun := time.Now()
			f.startProxy(replica)
			ready := time.Now()
			took := f.refusing(ready, token)()
			t.Logf("down for %v, ready after %v; both refuse %v later", *outage, ready.Sub(begun).Round(time.Millisecond), took.Round(time.Millisecond))
		})
	}
	run("the transmitter is away", func(t *testing.T) {
		before, endBefore := farewells[1].begin(f)
		after, live := f.token(), f.token()
		for i := range 2 {
			require.Equal(t, 200, f.status(i, live))
		}
		stream := f.stream(1, before)
		endBefore()
		kill(f.server) // perhaps before it has sent the event
		time.Sleep(*outage)
		for i := range 2 {
			require.Equal(t, 200, f.status(i, live), "replica %d continues", i)
		}
		f.startServer()
		back := time.Now()
		took := f.refusing(back, before)()
		_, ended := <-stream
		require.True(t, ended, "the stream has not ended")
		f.revoke(after)
		t.Logf("away for %v: both refuse %v after its return; a token that is revoked then, %v after that", *outage, took.Round(time.Millisecond),
			f.refusing(time.Now(), after)().Round(time.Millisecond))
	})
	run("the transmitter is away, and the replica that it pushes to has missed an event and starts meanwhile", func(t *testing.T) {
		token, end := farewells[1].begin(f)
		stream := f.stream(1, token)
		kill(f.proxies[0])
		end()
		kill(f.server)
		f.proxies[0] = f.run(f.command, "proxy", "--config", filepath.Join(f.dir, "proxy0.yaml"))
		time.Sleep(*outage)
		f.startServer()
		back := time.Now()
		took := f.refusing(back, token)()
		_, ended := <-stream
		require.True(t, ended, "the stream has not ended")
		t.Logf("away for %v: both refuse %v after its return", *outage, took.Round(time.Millisecond))
		f.ready(0)
	})
	run("the transmitter stands still", func(t *testing.T) {
		token := f.token()
		require.NoError(t, f.server.Process.Signal(syscall.SIGSTOP))
		time.Sleep(*outage)
		for i := range 2 {
			require.Equal(t, 200, f.status(i, token), "replica %d continues", i)
		}
		require.NoError(t, f.server.Process.Signal(syscall.SIGCONT))
		f.revoke(token)
		f.refusing(time.Now(), token)()
	})
	run("Redis is away, and has lost its data", func(t *testing.T) {
		token := f.token()
		stream := f.stream(1, token)
		_, port, _ := net.SplitHostPort(f.redis)
		require.NoError(t, exec.Command("redis-cli", "-h", "127.0.0.1", "-p", port, "shutdown", "nosave").Run())
		f.revoke(token)
		if delivery == "push" {
			f.refused(0, token) // it has received the event, and does not acknowledge it
		}
		time.Sleep(*outage)
		f.startRedis()
		back := time.Now()
		took := f.refusing(back, token)()
		_, ended := <-stream
		require.True(t, ended, "the stream has not ended")
		t.Logf("away for %v: both refuse %v after its return", *outage, took.Round(time.Millisecond))
	})
}
