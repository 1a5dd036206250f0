package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A reloading is a service whose file a test changes.
type reloading struct {
	*proxy.Service
	t    testing.TB
	file string
	url  string
}

func reloads(t *testing.T, config string) *reloading {
	t.Helper()
	r := &reloading{t: t, file: written(t, config)}
	var err error
	r.Service, err = proxy.Open(r.file, drivers, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	server := httptest.NewServer(r)
	r.url = server.URL
	t.Cleanup(func() { server.Close(); r.Close() })
	return r
}

// with writes another configuration and reloads it.
func (r *reloading) with(config string) error {
	r.t.Helper()
	require.NoError(r.t, os.WriteFile(r.file, []byte(config), 0o600))
	return r.Reload(r.t.Context())
}

// two is a configuration with two issuers, the first of JWTs and the second of opaque tokens.
func two(jwts, opaque *valetkeytest.Issuer, upstream string, change ...string) string {
	text := `listen: 127.0.0.1:0
upstream: ` + upstream + `
resource: ` + valetkeytest.DefaultAudience + `
verifiers:
  - jwks: {issuer: "` + jwts.URL + `"}
  - introspection: {issuer: "` + opaque.URL + `", client_id: ` + valetkeytest.IntrospectionID + `, client_secret: ` + valetkeytest.IntrospectionSecret + `}
routes:
  GET /orders: "@any"
`
	return strings.NewReplacer(change...).Replace(text)
}

func TestReload(t *testing.T) {
	jwts, opaque := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t)
	upstream := httptest.NewServer(&recorder{})
	defer upstream.Close()
	config := func(change ...string) string { return two(jwts, opaque, upstream.URL, change...) }

	t.Run("a file with mistakes is not used, and each is named with its line", func(t *testing.T) {
		r := reloads(t, config())
		err := r.with(config("GET /orders", "GET /invoices", "client_id", "client", "upstream:", "realm: é\nupstream:"))
		require.ErrorContains(t, err, ":2: realm: ")
		require.ErrorContains(t, err, `unknown field "client"`)
		require.ErrorContains(t, err, ".client_id: required")
		status, _ := get(t, r.url+"/orders", jwts.Token())
		require.Equal(t, 200, status)
	})
	t.Run("a file that has gone is not used", func(t *testing.T) {
		r := reloads(t, config())
		require.NoError(t, os.Remove(r.file))
		require.Error(t, r.Reload(t.Context()))
		status, _ := get(t, r.url+"/orders", jwts.Token())
		require.Equal(t, 200, status)
	})
	t.Run("what belongs to the process cannot change", func(t *testing.T) {
		t.Setenv("VALETKEY_TEST_KEY", key)
		const proofs = "dpop: {origin: 'https://api.example.com', window: 1m, leeway: 1s, nonce: on, replay_store: memory}\n"
		for _, c := range []struct{ name, from, to, want string }{
			{"the address", "", "listen: 127.0.0.1:1\n", "listen"},
			{"a probe", "", "probe: 127.0.0.1:0\n", "probe"},
			{"another Redis", "redis: {address: '127.0.0.1:1', key_env: VALETKEY_TEST_KEY}\n", "redis: {address: '127.0.0.1:2', key_env: VALETKEY_TEST_KEY}\n", "redis"},
			{"no Redis", "redis: {address: '127.0.0.1:1', key_env: VALETKEY_TEST_KEY}\n", "", "redis"},
			{"TLS", "", "tls: {cert_file: cert.pem, key_file: key.pem}\n", "tls"},
			{"the time in which a proof counts", proofs, strings.Replace(proofs, "1m", "2m", 1), "dpop.window"},
			{"its leeway", proofs, strings.Replace(proofs, "1s", "2s", 1), "dpop.leeway"},
			{"whether nonces are required", proofs, strings.Replace(proofs, "on", "off", 1), "dpop.nonce"},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := reloads(t, c.from+config())
				text := c.to + config()
				if strings.HasPrefix(c.to, "listen") {
					text = config("listen: 127.0.0.1:0\n", c.to)
				}
				require.ErrorContains(t, r.with(text), c.want+": cannot be changed by a reload: restart to apply it")
			})
		}
		t.Run("the time in which a proof counts, after proofs were off for a while", func(t *testing.T) {
			r := reloads(t, proofs+config())
			require.NoError(t, r.with(config()))
			require.ErrorContains(t, r.with(strings.Replace(proofs, "1m", "2m", 1)+config()), "dpop.window: cannot be changed")
			require.NoError(t, r.with(proofs+config()))
		})
	})
	t.Run("the new routes apply", func(t *testing.T) {
		r := reloads(t, config())
		require.NoError(t, r.with(config("GET /orders", "GET /invoices")))
		for path, want := range map[string]int{"/orders": 403, "/invoices": 200} {
			status, _ := get(t, r.url+path, jwts.Token())
			require.Equal(t, want, status, path)
		}
	})
	t.Run("a revocation that was received before still refuses", func(t *testing.T) {
		r := reloads(t, config())
		token := jwts.Token(valetkeytest.Subject("mallory"))
		require.NoError(t, r.Revoke(valetkey.Revocation{Issuer: jwts.URL, Subject: "mallory"}))
		for _, change := range [][]string{{"routes:", "# a comment\nroutes:"}, {`"` + jwts.URL + `"`, `"` + jwts.URL + `", leeway: 5s`}} {
			require.NoError(t, r.with(config(change...)))
			status, body := get(t, r.url+"/orders", token)
			require.Equal(t, 401, status, string(body))
		}
	})
	t.Run("a proof that was used before is refused, and a nonce is accepted", func(t *testing.T) {
		const at = "https://api.example.com/orders"
		r := reloads(t, "dpop: {origin: 'https://api.example.com', nonce: on}\n"+config())
		key := jwts.ProofKey("ES256")
		token := jwts.Token(valetkeytest.BoundTo(key))
		send := func(proof string) *http.Response {
			req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+"/orders", http.NoBody)
			require.NoError(t, err)
			req.Header.Set("Authorization", "DPoP "+token)
			req.Header.Set("DPoP", proof)
			res, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			res.Body.Close()
			return res
		}
		nonce := send(key.Proof("GET", at, token)).Header.Get("DPoP-Nonce")
		require.NotEmpty(t, nonce)
		used := key.Proof("GET", at, token, valetkeytest.Claim("nonce", nonce))
		require.Equal(t, 200, send(used).StatusCode)
		require.NoError(t, r.with("dpop: {origin: 'https://api.example.com', nonce: on, algorithms: [ES256]}\n"+config()))
		require.Equal(t, 401, send(used).StatusCode)
		require.Equal(t, 200, send(key.Proof("GET", at, token, valetkeytest.Claim("nonce", nonce))).StatusCode)
	})
}

func TestReloadKeepsWhatItMay(t *testing.T) {
	jwts, opaque := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t)
	upstream := httptest.NewServer(&recorder{})
	defer upstream.Close()
	secret := valetkeytest.IntrospectionSecret
	t.Setenv("VALETKEY_TEST_SECRET", secret)
	for _, c := range []struct {
		name   string
		change []string
		keys   int // fetches of keys because of the reload and the requests after it
		asked  int // introspections because of them
	}{
		{"everything if only routes change", []string{"/orders", "/{all...}"}, 0, 0},
		{"everything if a comment changes", []string{"routes:", "# a comment\nroutes:"}, 0, 0},
		{"everything if the secret comes from elsewhere", []string{"client_secret: " + secret, "client_secret_env: VALETKEY_TEST_SECRET"}, 0, 0},
		{"the opaque tokens if the other verifier changes", []string{`"` + jwts.URL + `"`, `"` + jwts.URL + `", leeway: 5s`}, 1, 0},
		{"the keys if the introspection changes", []string{"introspection: {", "introspection: {negative_ttl: 5s, "}, 0, 1},
		{"nothing if a limit of all changes", []string{"resource:", "max_token_bytes: 8000\nresource:"}, 1, 2}, // one of them finds out whether the endpoint works
	} {
		t.Run(c.name, func(t *testing.T) {
			r := reloads(t, two(jwts, opaque, upstream.URL))
			tokens := []string{jwts.Token(), opaque.Opaque()}
			for _, token := range tokens {
				status, _ := get(t, r.url+"/orders", token)
				require.Equal(t, 200, status)
			}
			keys, asked := jwts.KeySet.Hits(), opaque.Introspection.Hits()
			require.NoError(t, r.with(two(jwts, opaque, upstream.URL, c.change...)))
			for _, token := range tokens {
				status, body := get(t, r.url+"/orders", token)
				require.Equal(t, 200, status, string(body))
			}
			assert.Equal(t, keys+c.keys, jwts.KeySet.Hits(), "fetches of keys")
			assert.Equal(t, asked+c.asked, opaque.Introspection.Hits(), "introspections")
		})
	}
}

// A stream begins before a reload, or two, and ends with its token.
func TestReloadDoesNotEndStreams(t *testing.T) {
	jwts, opaque := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t)
	more := make(chan string)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case line := <-more:
				io.WriteString(w, line+"\n")
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}))
	defer upstream.Close()
	r := reloads(t, two(jwts, opaque, upstream.URL))
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", r.url+"/orders", http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+jwts.Token(valetkeytest.Subject("alice")))
	go func() { more <- "one" }()
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	require.True(t, lines.Scan())
	require.Equal(t, "one", lines.Text())

	// No configuration after this one has its verifier, its route or its upstream.
	for _, path := range []string{"/a", "/b"} {
		require.NoError(t, r.with(two(jwts, opaque, "http://127.0.0.1:1", "/orders", path, `"`+jwts.URL+`"`, `"`+jwts.URL+`", leeway: 5s`)))
		more <- path
		require.True(t, lines.Scan())
		require.Equal(t, path, lines.Text())
	}
	require.NoError(t, r.Revoke(valetkey.Revocation{Issuer: jwts.URL, Subject: "alice"}))
	require.False(t, lines.Scan(), "there is another line")
	require.NotErrorIs(t, lines.Err(), context.DeadlineExceeded, "the stream outlives its token")
}

// Requests of several clients go on while the file is reloaded many times: no one is lost, none gets a wrong answer, and nothing grows.
func TestReloadsUnderLoad(t *testing.T) {
	times := 1000
	if testing.Short() || raceDetector {
		times = 100
	}
	jwts, opaque := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	defer upstream.Close()
	configs := []string{
		two(jwts, opaque, upstream.URL),
		two(jwts, opaque, upstream.URL, `GET /orders: "@any"`, "POST /orders: \"@any\"\n  /{all...}: \"@any\""),
		two(jwts, opaque, upstream.URL, `"`+jwts.URL+`"`, `"`+jwts.URL+`", leeway: 5s`), // another verifier
		two(jwts, opaque, upstream.URL, "introspection: {", "introspection: {negative_ttl: 5s, "),
		"listen: 127.0.0.1:1\n", // mistakes
	}
	r := reloads(t, configs[0])
	revoked := jwts.Token(valetkeytest.Subject("mallory"))
	require.NoError(t, r.Revoke(valetkey.Revocation{Issuer: jwts.URL, Subject: "mallory"}))
	life := valetkeytest.ExpiresIn(time.Hour) // longer than the test takes anywhere
	tokens := map[string]int{jwts.Token(life): 200, opaque.Opaque(life): 200, revoked: 401, "": 401}

	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	ask := func(token string) (int, error) {
		req, err := http.NewRequest("GET", r.url+"/orders", http.NoBody)
		if err != nil {
			return 0, err
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		return res.StatusCode, err
	}
	var load sync.WaitGroup
	var served atomic.Int64
	done := make(chan struct{})
	for range 4 {
		load.Go(func() {
			for {
				for token, want := range tokens {
					if got, err := ask(token); err != nil || got != want {
						t.Errorf("got %d, %v; want %d", got, err, want)
						return
					}
					served.Add(1)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	reload := func(n int) {
		for i := range n {
			err := r.with(configs[i%len(configs)])
			if (err != nil) != (i%len(configs) == len(configs)-1) {
				t.Fatal(err)
			}
		}
	}
	reload(times / 10) // pools, caches and connections reach their size
	before := measure(t)
	reload(times)
	close(done)
	load.Wait()
	require.NoError(t, r.with(configs[0]))
	client.CloseIdleConnections()
	t.Logf("%d requests served during %d reloads", served.Load(), times+times/10)

	// What is replaced ends after its last request, so wait until it has.
	var after measured
	require.Eventually(t, func() bool {
		after = measure(t)
		return after.goroutines <= before.goroutines+10 && after.files <= before.files+10 && after.heap <= before.heap+8<<20
	}, soon, 50*time.Millisecond, "before %v, after %v", before, &after)
	t.Logf("before %v, after %v", before, after)
}

type measured struct {
	goroutines, files int
	heap              uint64 // bytes that are reachable
}

func (m measured) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %d KiB", m.goroutines, m.files, m.heap>>10)
}

func measure(t *testing.T) (m measured) {
	t.Helper()
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	m.goroutines, m.heap = runtime.NumGoroutine(), stats.HeapAlloc
	if all, err := os.ReadDir("/proc/self/fd"); err == nil {
		m.files = len(all)
	}
	return m
}

// Redis knows the revocations, and the connection to it outlives the configuration.
func TestReloadWithRedis(t *testing.T) {
	addr, _ := startRedis(t)
	t.Setenv("VALETKEY_TEST_KEY", key)
	t.Setenv("VALETKEY_TEST_PASSWORD", redisPassword)
	jwts, opaque := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t)
	upstream := httptest.NewServer(&recorder{})
	defer upstream.Close()
	config := func(change ...string) string {
		return two(jwts, opaque, upstream.URL, change...) + "redis: {address: '" + addr + "', password_env: VALETKEY_TEST_PASSWORD, key_env: VALETKEY_TEST_KEY}\nprobe: 127.0.0.1:0\ndrain: 0s\n"
	}
	r := &reloading{t: t, file: written(t, config())}
	var err error
	log := new(journal)
	r.Service, err = proxy.Open(r.file, drivers, slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, err)
	url, probe := background(t, r.Service, log)
	caughtUp(t, probe)
	revoke := func(subject string) (token string) {
		token = jwts.Token(valetkeytest.Subject(subject))
		require.NoError(t, proxy.Revoke(t.Context(), r.file, valetkey.Revocation{Issuer: jwts.URL, Subject: subject}, slog.New(slog.DiscardHandler)))
		require.Eventually(t, func() bool {
			status, _ := get(t, "http://"+url+"/orders", token)
			return status == 401
		}, soon, 5*time.Millisecond)
		return token
	}
	revoked := revoke("before")
	for _, path := range []string{"/a", "/orders"} {
		require.NoError(t, r.with(config("/orders", path)))
		status, _ := get(t, "http://"+url+path, revoked)
		require.Equal(t, 401, status)
		status, _ = get(t, "http://"+url+path, jwts.Token())
		require.Equal(t, 200, status, "it need not catch up again")
	}
	revoke("after")
}

// background serves s until the test ends, and returns its addresses.
func background(t *testing.T, s *proxy.Service, log *journal) (addr, probe string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, nil) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
		s.Close()
	})
	return log.listening(t, "proxy"), log.listening(t, "probe")
}

func TestMetrics(t *testing.T) {
	jwts, opaque := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t)
	upstream := httptest.NewServer(&recorder{})
	defer upstream.Close()
	log := new(journal)
	s, err := proxy.Open(written(t, two(jwts, opaque, upstream.URL)+"probe: 127.0.0.1:0\ndrain: 0s\n"), drivers, slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, err)
	addr, probe := background(t, s, log)
	good, expired := jwts.Token(), jwts.Token(valetkeytest.Claim("exp", 1))
	for _, token := range []string{good, good, expired, ""} {
		get(t, "http://"+addr+"/orders", token)
	}
	require.NoError(t, s.Reload(t.Context()))
	get(t, "http://"+addr+"/orders", good)
	status, body := get(t, "http://"+probe+"/metrics", "")
	require.Equal(t, 200, status)
	text := string(body)
	for _, line := range []string{
		`valetkey_requests_total{issuer="` + jwts.URL + `",status="200",reason="",cached="false"} 1`,
		`valetkey_requests_total{issuer="` + jwts.URL + `",status="200",reason="",cached="true"} 2`, // one of them after the reload
		`valetkey_requests_total{issuer="",status="401",reason="expired",cached="false"} 1`,
		`valetkey_key_set_refreshes_total{issuer="` + jwts.URL + `",status="200"} 1`,
		`valetkey_verifier_state{verifier="` + jwts.URL + `",state="ready"} 1`,
		`valetkey_cache_entries 1`,
	} {
		require.Contains(t, text, line+"\n")
	}
	for _, secret := range []string{good, expired, strings.Split(good, ".")[2], valetkeytest.IntrospectionSecret} {
		require.NotContains(t, text, secret)
		_, body := get(t, "http://"+probe+"/status", "")
		require.NotContains(t, string(body), secret)
	}
}

// The files of the certificate are read with each reload, and a bad pair keeps the old configuration.
func TestReloadOfTheCertificate(t *testing.T) {
	jwts, opaque := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t)
	upstream := httptest.NewServer(&recorder{})
	defer upstream.Close()
	text := two(jwts, opaque, upstream.URL) + "probe: 127.0.0.1:0\ndrain: 0s\ntls: {cert_file: cert.pem, key_file: key.pem}\n"
	file := written(t, text)
	put := func(name, content string) {
		require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(file), name), []byte(content), 0o600))
	}
	put("cert.pem", certificatePEM)
	put("key.pem", keyPEM)
	log := new(journal)
	s, err := proxy.Open(file, drivers, slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, err)
	addr, _ := background(t, s, log)
	serial := func() string {
		conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		require.NoError(t, err)
		defer conn.Close()
		require.Equal(t, "h2", conn.ConnectionState().NegotiatedProtocol)
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	require.Equal(t, "1", serial())
	put("key.pem", "x")
	require.ErrorContains(t, s.Reload(t.Context()), ":11: tls: ")
	require.Equal(t, "1", serial())
	old := certificatePEM
	oldKey := keyPEM
	t.Cleanup(func() { certificatePEM, keyPEM = old, oldKey })
	_, err = makeCertificateWith(2)
	require.NoError(t, err)
	put("cert.pem", certificatePEM)
	put("key.pem", keyPEM)
	require.NoError(t, s.Reload(t.Context()))
	require.Equal(t, "2", serial())
}

// A profile makes new verifiers, so that only refusals are kept.
func TestReloadOfAProfile(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.TLS())
	key := iss.ProofKey("ES256")
	dir := besides(t, map[string]string{"crt": certificatePEM, "key": keyPEM})
	config, _ := guarded(t, iss, fmt.Sprintf("profile: fapi2\ntls: {cert_file: %s/crt, key_file: %[1]s/key}\ndpop: {}", dir))
	config = strings.Replace(config, `"}]`, `", max_lifetime: 6m}]`, 1)
	r := reloads(t, config)
	send := func(subject string, opts ...valetkeytest.Option) int {
		req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+"/orders", http.NoBody)
		require.NoError(t, err)
		key.Authorize(req, iss.Token(valetkeytest.BoundTo(key), valetkeytest.Scopes("orders:read"), valetkeytest.Subject(subject)),
			append(opts, valetkeytest.Claim("htu", "https://api.example.com/orders"))...)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		res.Body.Close()
		return res.StatusCode
	}
	used := valetkeytest.Claim("jti", "used")
	require.Equal(t, 200, send("alice", used))
	require.NoError(t, r.Revoke(valetkey.Revocation{Issuer: iss.URL, Subject: "mallory"}))
	for range 2 {
		require.NoError(t, r.with(config))
		require.Equal(t, 401, send("alice", used), "a proof that was used before")
		require.Equal(t, 401, send("mallory"))
		require.Equal(t, 200, send("alice"))
	}
}
