package drivers_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/full/drivers"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/server"
	"github.com/valetkey/valetkey/jwks"
)

// soon is the time limit for events that must happen, generous enough for a slow machine.
const soon = 2 * time.Minute

// A journal collects the logs or the output of a server.
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

// A site is a server that is being served.
type site struct {
	url      string
	log, out *journal
	stop     func()
}

// serve serves until the test ends, or stop is called.
func serve(t *testing.T, set server.Settings) *site {
	t.Helper()
	s := &site{log: new(journal), out: new(journal)}
	set.Log, set.Drivers = slog.New(slog.NewTextHandler(s.log, nil)), drivers.All()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, set, nil, s.out) }()
	s.stop = sync.OnceFunc(func() { cancel(); assert.NoError(t, <-ended) })
	t.Cleanup(s.stop)
	listening := regexp.MustCompile(`listening on ([0-9.:]+)`)
	require.Eventually(t, func() bool {
		m := listening.FindStringSubmatch(s.log.String())
		if m != nil {
			s.url = "http://" + m[1]
		}
		return m != nil || len(ended) > 0
	}, soon, time.Millisecond)
	require.NotEmpty(t, s.url, s.log)
	return s
}

// ask sends a form to an endpoint as a client.
func (s *site) ask(t *testing.T, path, id, secret string, pairs ...string) (status int, body map[string]any) {
	t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	r, err := http.NewRequest("POST", s.url+path, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(id, secret)
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	if len(text) > 0 {
		require.NoError(t, json.Unmarshal(text, &body), string(text))
	}
	return res.StatusCode, body
}

func (s *site) status(t *testing.T, path string) int {
	t.Helper()
	res, err := http.Get(s.url + path)
	require.NoError(t, err)
	res.Body.Close()
	return res.StatusCode
}

// kid returns the key that signed a JWT.
func kid(t *testing.T, token any) string {
	t.Helper()
	head, _, _ := strings.Cut(token.(string), ".")
	text, err := base64.RawURLEncoding.DecodeString(head)
	require.NoError(t, err)
	var header struct{ Kid string }
	require.NoError(t, json.Unmarshal(text, &header))
	return header.Kid
}

func example(t *testing.T, name string, replace ...string) string {
	t.Helper()
	text, err := os.ReadFile("../../../../examples/serve/" + name)
	require.NoError(t, err)
	return write(t, strings.NewReplacer(replace...).Replace(string(text)))
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "as.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// The exchange of an old tutorial, unchanged except for the ports.
func TestTutorial(t *testing.T) {
	s := serve(t, server.Settings{Config: example(t, "tutorial.yaml", "listen: 127.0.0.1:8888", "listen: 127.0.0.1:0"), Addr: "127.0.0.1:0"})
	const back = "http://localhost:8080/authorization"
	b := newBrowser(t)
	b.open(s.url + "/oauth2/code?response_type=code&client_id=tutorial&redirect_uri=" + back)
	require.Contains(t, b.page, "<h1>Log in</h1>")
	b.submit("name", "alice", "password", "demo-alice", "do", "login")
	require.Contains(t, b.page, "See what you have")
	b.submit("do", "allow")
	require.NotNil(t, b.left, b.page)
	require.True(t, strings.HasPrefix(b.left.String(), back+"?"), b.left)

	status, body := s.ask(t, "/oauth2/token", "tutorial", "demo-secret-of-tutorial",
		"grant_type", "authorization_code", "code", b.left.Query().Get("code"), "redirect_uri", back)
	require.Equal(t, 200, status, body)
	assert.Equal(t, "Bearer", body["token_type"])
	assert.EqualValues(t, 600, body["expires_in"])
	keys, err := http.Get(s.url + "/oauth2/keys")
	require.NoError(t, err)
	defer keys.Body.Close()
	set, err := io.ReadAll(keys.Body)
	require.NoError(t, err)
	verifier, err := jwks.New(jwks.Config{Issuer: "http://localhost:8888", Audience: []string{"http://localhost:8080"}, JWKS: set})
	require.NoError(t, err)
	defer verifier.Close()
	token, err := verifier.Verify(t.Context(), body["access_token"].(string))
	require.NoError(t, err)
	assert.Equal(t, "customer:alice", token.Subject())

	t.Run("AS-PKCE-01 another application needs PKCE", func(t *testing.T) {
		s := serve(t, server.Settings{Config: example(t, "tutorial.yaml", "without_pkce: true", ""), Addr: "127.0.0.1:0"})
		b := newBrowser(t)
		b.open(s.url + "/oauth2/code?response_type=code&client_id=tutorial&redirect_uri=" + back)
		require.NotNil(t, b.left)
		assert.Equal(t, "invalid_request", b.left.Query().Get("error"))
	})
	t.Run("the log states who was granted what, without secrets", func(t *testing.T) {
		log := s.log.String()
		for _, want := range []string{`a client does not require PKCE: tutorial`, `msg="logged in" subject=customer:alice`, `msg="consent given"`,
			`msg="authorization granted" path=/oauth2/authorize client=tutorial subject=customer:alice`, `msg="token issued" client=tutorial`,
			"address=127.0.0.1"} {
			assert.Contains(t, log, want)
		}
		for _, secret := range []string{"demo-alice", "demo-secret", "eyJ", b.left.Query().Get("code")} {
			assert.NotContains(t, log, secret)
		}
	})
}

func TestZeroConfiguration(t *testing.T) {
	t.Chdir(t.TempDir())
	s := serve(t, server.Settings{Addr: clitest.FreeAddr(t)}) // which is still free when the server starts again
	t.Run("it prints how to try it", func(t *testing.T) {
		out := s.out.String()
		assert.Contains(t, out, "The authorization server is at "+s.url+", its records in valetkey.db.")
		assert.Contains(t, out, "Log in as alice with the password demo-alice.")
		assert.Contains(t, out, "Log in as bob with the password demo-bobby.")
		assert.Contains(t, out, "To use a token there, start the API at http://127.0.0.1:8080/orders. The command demo starts both.")
		assert.Contains(t, out, "curl -u orders-reader:demo-secret-of-orders-reader -d grant_type=client_credentials "+s.url+"/oauth2/token")
	})
	status, first := s.ask(t, "/oauth2/token", "orders-reader", "demo-secret-of-orders-reader", "grant_type", "client_credentials")
	require.Equal(t, 200, status, first)
	active := func(s *site) any {
		_, body := s.ask(t, "/oauth2/introspect", "orders-api", "demo-secret-of-orders-api", "token", first["access_token"].(string))
		return body["active"]
	}
	require.Equal(t, true, active(s))

	t.Run("it is alive and ready", func(t *testing.T) {
		assert.Equal(t, 200, s.status(t, "/healthz"))
		assert.Equal(t, 200, s.status(t, "/readyz"))
	})
	t.Run("the database and its seal are the owner's", func(t *testing.T) {
		for _, name := range []string{"valetkey.db", "valetkey.db.seal"} {
			info, err := os.Stat(name)
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), name)
		}
	})
	t.Run("signing keys are not in the database as they are", func(t *testing.T) {
		for _, name := range []string{"valetkey.db", "valetkey.db-wal"} {
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			assert.NotContains(t, string(text), `"jwk"`)
		}
	})
	t.Run("a device is let in", func(t *testing.T) {
		status, begun := s.ask(t, "/oauth2/device_authorization", "orders-app", "", "scope", "orders:read")
		require.Equal(t, 200, status, begun)
		b := newBrowser(t)
		b.open(begun["verification_uri_complete"].(string))
		b.submit("user_code", begun["user_code"].(string))
		b.submit("name", "alice", "password", "demo-alice", "do", "login")
		b.submit("do", "allow")
		require.Contains(t, b.page, "Your device is connected")
		status, body := s.ask(t, "/oauth2/token", "orders-app", "",
			"grant_type", "urn:ietf:params:oauth:grant-type:device_code", "device_code", begun["device_code"].(string))
		require.Equal(t, 200, status, body)
		assert.Equal(t, "orders:read", body["scope"])
	})
	t.Run("a developer registers an application, which outlives the server as tokens and keys do", func(t *testing.T) {
		b := newBrowser(t)
		b.open(s.url + "/developer/applications/new")
		b.submit("name", "bob", "password", "demo-bobby", "do", "login")
		b.open(s.url + "/developer/applications/new")
		b.submit("client_name", "Bob's", "kind", "web", "redirect_uris", "https://bob.example.com/cb", "scope", "orders:read")
		require.Contains(t, b.page, "Bob&#39;s")
		s.stop()

		again := serve(t, server.Settings{Addr: strings.TrimPrefix(s.url, "http://")})
		assert.Equal(t, true, active(again))
		_, second := again.ask(t, "/oauth2/token", "orders-reader", "demo-secret-of-orders-reader", "grant_type", "client_credentials")
		assert.Equal(t, kid(t, first["access_token"]), kid(t, second["access_token"]))
		b.open(s.url + "/developer")
		assert.Contains(t, b.page, "Bob&#39;s", "and he is still logged in")
	})
}

func TestRefusedToServe(t *testing.T) {
	open := example(t, "as.yaml", "listen: 127.0.0.1:8888", "listen: 192.0.2.1:1")
	for _, c := range []struct {
		name string
		set  server.Settings
		want string
	}{
		{"the demonstration beyond loopback", server.Settings{Addr: "0.0.0.0:0", Store: "memory"}, "0.0.0.0:0 is not on loopback, but the demo secrets in clients[0].secret"},
		{"the demonstration at every address", server.Settings{Addr: ":0", Store: "memory"}, ":0 is not on loopback"},
		{"an address without a host", server.Settings{Addr: "18888", Store: "memory"}, `"18888" is not an address such as 127.0.0.1:8888`},
		{"an example beyond loopback", server.Settings{Addr: "0.0.0.0:0", Config: "../../../../examples/serve/tutorial.yaml"}, "the demo secrets in clients[0].secret, users[0].password are public"},
		{"an address of another host", server.Settings{Config: open, Store: "memory"}, "listen tcp 192.0.2.1:1"},
		{"a file that is not there", server.Settings{Config: "/nowhere/as.yaml"}, "open /nowhere/as.yaml"},
		{"an invalid store", server.Settings{Store: "mysql:x"}, "store: is neither memory, sqlite:PATH nor postgres://..."},
		{"a store without a file", server.Settings{Store: "sqlite:"}, "store: requires a file name"},
		{"a folder for a database", server.Settings{Store: "sqlite:" + t.TempDir(), Addr: "127.0.0.1:0"}, "is a directory"},
		{"a database whose keys have another seal", server.Settings{Store: "sqlite:" + otherSeal(t), Addr: "127.0.0.1:0"}, "sealed under another secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.set.Log, c.set.Drivers = slog.New(slog.DiscardHandler), drivers.All()
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			require.ErrorContains(t, server.Serve(ctx, c.set, nil, io.Discard), c.want)
			require.NoError(t, ctx.Err())
		})
	}
}

func TestStoreMadeWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	t.Run("no seal is left beside a file that is not a database", func(t *testing.T) {
		require.NoError(t, os.WriteFile(path, []byte("a letter to a friend, and no database at all"), 0o600))
		set := server.Settings{Store: "sqlite:" + path, Log: slog.New(slog.DiscardHandler), Drivers: drivers.All()}
		_, _, err := server.Open(t.Context(), set)
		require.ErrorContains(t, err, "not a database")
		assert.NoFileExists(t, path+".seal")
		require.NoError(t, os.Remove(path))
	})
	t.Run("the files of a configuration are in its folder, also with a store of the command line", func(t *testing.T) {
		config := write(t, strings.Replace(good, "store: memory", "seal_file: seal", 1))
		require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(config), "seal"), []byte(someSeal), 0o600))
		set := server.Settings{Create: true, Config: config, Store: "sqlite:" + filepath.Join(t.TempDir(), "y.db"), Log: slog.New(slog.DiscardHandler), Drivers: drivers.All()}
		_, end, err := server.Open(t.Context(), set)
		require.NoError(t, err)
		require.NoError(t, end())
	})
	t.Run("a new database is logged, and doubtful settings only by serve", func(t *testing.T) {
		done, doubts := new(journal), new(journal)
		for range 2 {
			_, end, err := server.Open(t.Context(), server.Settings{
				Create: true, Drivers: drivers.All(),
				Config: example(t, "as.yaml", "listen: 127.0.0.1:8888", "insecure_http: true"), Store: "sqlite:" + path,
				Log: slog.New(slog.NewTextHandler(doubts, nil)), Audit: slog.New(slog.NewTextHandler(done, nil)),
			})
			require.NoError(t, err)
			require.NoError(t, end())
		}
		assert.Equal(t, 1, strings.Count(done.String(), "creating the database"))
		assert.NotContains(t, done.String(), "insecure_http is set")
		assert.Contains(t, doubts.String(), "insecure_http is set")
	})
}

func TestIntroduction(t *testing.T) {
	s := serve(t, server.Settings{Addr: "127.0.0.1:0", Config: example(t, "tutorial.yaml", "    without_pkce: true",
		"    without_pkce: true\n    grant_types: [authorization_code, client_credentials]\npaths: {token: /token}")})
	assert.Contains(t, s.out.String(), "curl -u tutorial:demo-secret-of-tutorial -d grant_type=client_credentials http://localhost:8888/token\n")
}

// One secret of the demonstration that is left in a file gives no other away.
func TestIntroductionPrintsNoOtherSecret(t *testing.T) {
	s := serve(t, server.Settings{Addr: "127.0.0.1:0", Config: write(t, `issuer: http://127.0.0.1:8888
store: memory
apis:
  - {audience: "https://api.example.com", scopes: {read: See, write: Change}}
clients:
  - {id: reports, secret: "a secret of the owner", scopes: [read]}
  - {id: reader, secret: demo-secret-of-reader, scopes: [read]}
users:
  - {name: carol, password: correct horse}
  - {name: alice, password: demo-alice}
`)})
	out := s.out.String()
	for _, secret := range []string{"correct horse", "carol", "a secret of the owner", "reports"} {
		assert.NotContains(t, out, secret)
	}
	assert.Contains(t, out, "Log in as alice with the password demo-alice.")
	assert.Contains(t, out, "curl -u reader:demo-secret-of-reader ")
}

// otherSeal returns a database whose seal has been replaced.
func otherSeal(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "x.db")
	s := serve(t, server.Settings{Store: "sqlite:" + path, Addr: "127.0.0.1:0"})
	s.stop()
	require.NoError(t, os.Remove(path+".seal"))
	return path
}
