//go:build unix

package cli_test

import (
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
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/valetkeytest"
)

// built is the folder of the binary; "" until it is built.
var built string

// binary builds the command once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "valetkey")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "valetkey")
	if out, err := exec.Command("go", "build", "-o", path, "../..").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// A process is a command that runs with real signals.
type process struct {
	*exec.Cmd
	log *clitest.Log
}

// launch starts a command, which ends with the test at the latest.
func launch(t *testing.T, change func(*exec.Cmd), args ...string) process {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // a process that does not end fails its test
	t.Cleanup(cancel)
	p := process{exec.CommandContext(ctx, path, args...), clitest.NewLog()}
	p.Stdout, p.Stderr = p.log, p.log
	if change != nil {
		change(p.Cmd)
	}
	require.NoError(t, p.Start())
	return p
}

func (p process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	require.NoError(t, p.Process.Signal(s))
}

// listening returns the URL of a site.
func (p process) listening(t *testing.T, site string) string {
	t.Helper()
	return "http://" + p.log.Wait(t, `listening on ([0-9.:]+)" site=`+site)[1]
}

// status sends a request with a token, if there is one.
func status(t *testing.T, url, token string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	require.NoError(t, err)
	return res.StatusCode
}

// configured writes a file for a command and returns its path.
func configured(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func proxyText(iss *valetkeytest.Issuer, upstream, more string) string {
	return fmt.Sprintf("listen: 127.0.0.1:0\nprobe: 127.0.0.1:0\nupstream: %s\nresource: %s\nverifiers: [jwks: {issuer: %q}]\nroutes: {/orders: '@any'}\n%s",
		upstream, valetkeytest.DefaultAudience, iss.URL, more)
}

const serveFile = `issuer: http://127.0.0.1:8888
listen: 127.0.0.1:0
probe: 127.0.0.1:0
drain: 0s
store: memory
apis: [{audience: "https://api.example.com", scopes: {read: See}}]
clients: [{id: reader, secret: a long secret of the reader, scopes: [read]}]
`

func TestHangupReloads(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer upstream.Close()
	t.Run("proxy", func(t *testing.T) {
		text := proxyText(iss, upstream.URL, "drain: 0s\n")
		file := configured(t, text)
		p := launch(t, nil, "proxy", "--config", file)
		url, probe := p.listening(t, "proxy"), p.listening(t, "probe")
		require.Equal(t, 200, status(t, url+"/orders", iss.Token()))

		require.NoError(t, os.WriteFile(file, []byte(text+"realm: é\ndebug: true\n"), 0o600))
		p.signal(t, syscall.SIGHUP)
		p.log.Wait(t, `level=ERROR msg="configuration not reloaded: the old one is still in use" mistake="[^"]*:8: realm: `)
		p.log.Wait(t, `mistake="[^"]*:9: unknown field`)
		require.Equal(t, 200, status(t, url+"/orders", iss.Token()))

		require.NoError(t, os.WriteFile(file, []byte(strings.Replace(text, "/orders", "/invoices", 1)), 0o600))
		p.signal(t, syscall.SIGHUP)
		p.log.Wait(t, "configuration reloaded")
		require.Equal(t, 403, status(t, url+"/orders", iss.Token()))
		require.Equal(t, 200, status(t, url+"/invoices", iss.Token()))

		res, err := http.Get(probe + "/status")
		require.NoError(t, err)
		defer res.Body.Close()
		var about struct {
			Reloads struct{ Done, Failed int }
			Config  struct{ SHA256 string }
		}
		require.NoError(t, json.NewDecoder(res.Body).Decode(&about))
		assert.Equal(t, 1, about.Reloads.Done)
		assert.Equal(t, 1, about.Reloads.Failed)
		assert.Len(t, about.Config.SHA256, 64)
		p.signal(t, syscall.SIGTERM)
		require.NoError(t, p.Wait())
	})
	t.Run("authorize", func(t *testing.T) {
		text := fmt.Sprintf("listen_http: 127.0.0.1:0\ndialect: nginx\ncallers: 127.0.0.1/32\nresource: %s\nverifiers: [jwks: {issuer: %q}]\nroutes: {/orders: '@any'}\n",
			valetkeytest.DefaultAudience, iss.URL)
		file := configured(t, strings.Replace(text, "callers: 127.0.0.1/32", "callers: [127.0.0.1/32]", 1))
		p := launch(t, nil, "authorize", "--config", file)
		p.listening(t, "authorize")
		p.signal(t, syscall.SIGHUP)
		p.log.Wait(t, "configuration reloaded")
		p.signal(t, syscall.SIGTERM)
		require.NoError(t, p.Wait())
	})
	t.Run("serve", func(t *testing.T) {
		file := configured(t, serveFile)
		p := launch(t, nil, "serve", "--config", file)
		url := p.listening(t, "server")
		token := func(id string) (status int, token string) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/oauth2/token", strings.NewReader("grant_type=client_credentials"))
			require.NoError(t, err)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.SetBasicAuth(id, "a+long+secret+of+the+reader")
			res, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			defer res.Body.Close()
			var body struct {
				Token string `json:"access_token"`
			}
			require.NoError(t, json.NewDecoder(res.Body).Decode(&body))
			return res.StatusCode, body.Token
		}
		got, _ := token("reader")
		require.Equal(t, 200, got)
		keys := body(t, url+"/oauth2/keys")
		probe := p.listening(t, "probe")
		require.Equal(t, 200, status(t, probe+"/live", ""))
		require.JSONEq(t, `{"state": "ready"}`, body(t, probe+"/ready"))
		require.Contains(t, body(t, probe+"/metrics"), "\nvaletkey_store_up 1\n")

		require.NoError(t, os.WriteFile(file, []byte(strings.Replace(serveFile, "issuer: http://127.0.0.1:8888", "issuer: http://127.0.0.1:8889", 1)), 0o600))
		p.signal(t, syscall.SIGHUP)
		p.log.Wait(t, `issuer: cannot be changed by a reload`)
		got, _ = token("reader")
		require.Equal(t, 200, got)

		require.NoError(t, os.WriteFile(file, []byte(strings.Replace(serveFile, "id: reader", "id: other", 1)), 0o600))
		p.signal(t, syscall.SIGHUP)
		p.log.Wait(t, "configuration reloaded")
		got, _ = token("reader")
		require.Equal(t, 401, got)
		got, _ = token("other")
		require.Equal(t, 200, got)
		require.Equal(t, keys, body(t, url+"/oauth2/keys"), "the store is the same")
		var about struct {
			State   string
			Reloads struct{ Done, Failed int }
			Config  struct{ SHA256 string }
		}
		text := body(t, probe+"/status")
		require.NoError(t, json.Unmarshal([]byte(text), &about))
		require.Equal(t, "ready", about.State)
		require.Equal(t, 1, about.Reloads.Done)
		require.Equal(t, 1, about.Reloads.Failed)
		require.Len(t, about.Config.SHA256, 64)
		require.NotContains(t, text, "a long secret")
		p.signal(t, syscall.SIGTERM)
		require.NoError(t, p.Wait())
	})
	t.Run("the demo has no file", func(t *testing.T) {
		p := launch(t, nil, "serve", "--store", "memory", "--addr", "127.0.0.1:0")
		p.listening(t, "server")
		p.signal(t, syscall.SIGHUP)
		p.log.Wait(t, "SIGHUP ignored")
		p.signal(t, syscall.SIGTERM)
		require.NoError(t, p.Wait())
	})
}

func body(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return string(text)
}

// Clients stop sending when they see that the process is not ready, as a load balancer does. None of their requests is lost.
func TestTerminationLosesNoRequest(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	defer upstream.Close()
	p := launch(t, nil, "proxy", "--config", configured(t, proxyText(iss, upstream.URL, "drain: 8s\n")))
	url, probe := p.listening(t, "proxy"), p.listening(t, "probe")
	token := iss.Token()
	require.Equal(t, 200, status(t, url+"/orders", token))

	var notReady atomic.Bool
	var served atomic.Int64
	begun := make(chan struct{}, 100)
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			client := &http.Client{Transport: new(http.Transport)}
			defer client.CloseIdleConnections()
			for !notReady.Load() {
				r, err := http.NewRequest(http.MethodPost, url+"/orders", strings.NewReader("an order"))
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("Authorization", "Bearer "+token)
				res, err := client.Do(r)
				if err != nil {
					t.Error("lost:", err)
					return
				}
				if text, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || string(text) != "an order" {
					t.Errorf("got %d, %q, %v", res.StatusCode, text, err)
				}
				res.Body.Close()
				served.Add(1)
				select {
				case begun <- struct{}{}:
				default:
				}
			}
		})
	}
	for range cap(begun) {
		<-begun
	}
	p.signal(t, syscall.SIGTERM)
	for status(t, probe+"/ready", "") == 200 {
		runtime.Gosched()
	}
	require.Equal(t, 200, status(t, probe+"/live", ""))
	atNotReady := served.Load()
	require.Eventually(t, func() bool { return served.Load() > atNotReady+10 }, time.Minute, time.Millisecond, "it serves on")
	notReady.Store(true)
	load.Wait()
	require.NoError(t, p.Wait())
	t.Logf("%d requests served", served.Load())
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	p := launch(t, nil, "proxy", "--config", configured(t, proxyText(iss, "http://127.0.0.1:1", "drain: 1h\n")), "--log-format", "json")
	p.log.Wait(t, `"listening on [^"]*","site":"probe"`)
	p.signal(t, syscall.SIGTERM)
	p.log.Wait(t, `"shutting down: not ready, still serving","for":"1h0m0s"`)
	p.signal(t, syscall.SIGTERM)
	require.Error(t, p.Wait())
	assert.Equal(t, 128+int(syscall.SIGTERM), p.ProcessState.ExitCode())
}

func TestCheck(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	good := proxyText(iss, "http://127.0.0.1:1", "")
	for _, c := range []struct {
		name         string
		args         []string
		file         string
		code         int
		stdout, errs string
	}{
		{"a proxy with two mistakes", []string{"proxy", "--check"}, good + "realm: é\ndebug: true\n", 2, "", ":7: realm: "},
		{"an authorizer with mistakes", []string{"authorize", "--check"}, good, 2, "", "listen: belongs to valetkey proxy"},
		{"a server with a mistake", []string{"serve", "--check"}, serveFile + "debug: true\n", 2, "", ":8: unknown field"},
		{"an unknown way", []string{"proxy", "--check=maybe"}, good, 2, "", `--check: "maybe" is not offline or online`},
		{"a way after a space", []string{"proxy", "--check", "online"}, good, 2, "", "--check online: write --check=online"},
		{"a way for a server after a space", []string{"serve", "--check", "offline"}, serveFile, 2, "", "--check offline: write --check=offline"},
		{"another argument", []string{"authorize", "--check", "now"}, good, 2, "", `unknown command "now"`},
		{"a proxy whose issuer does not answer, online", []string{"proxy", "--check=online"}, strings.Replace(good, iss.URL, "http://127.0.0.1:1", 1), 1, "fail", ""},
		{"a proxy whose issuer does not answer, offline", []string{"proxy", "--check"}, strings.Replace(good, iss.URL, "http://127.0.0.1:1", 1), 0, "no mistakes", ""},
		{"a proxy", []string{"proxy", "--check"}, good, 0, "no mistakes", ""},
		{"a proxy online", []string{"proxy", "--check=online"}, good, 0, "ok", ""},
		{"a server", []string{"serve", "--check"}, serveFile, 0, "no mistakes", ""},
		{"a server online", []string{"serve", "--check=online"}, serveFile, 0, "no mistakes", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := iss.Metadata.Hits() + iss.KeySet.Hits()
			code, stdout, errs := clitest.Run(t, driver.Set{}, "", append(c.args, "--config", configured(t, c.file))...)
			assert.Equal(t, c.code, code, stdout+errs)
			assert.Contains(t, stdout, c.stdout)
			assert.Contains(t, errs, c.errs)
			if c.args[1] == "--check" {
				assert.Equal(t, before, iss.Metadata.Hits()+iss.KeySet.Hits(), "it has used the network")
			}
		})
	}
}

// systemd passes sockets, and learns about readiness, reloads and the end.
func TestSystemd(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("systemd is part of Linux only")
	}
	iss := valetkeytest.NewIssuer(t)
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer upstream.Close()
	notifications, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	require.NoError(t, err)
	defer notifications.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	context.AfterFunc(ctx, func() { notifications.Close() })
	next := func() string {
		buf := make([]byte, 4096)
		for {
			n, err := notifications.Read(buf)
			require.NoError(t, err)
			if text := string(buf[:n]); text != "WATCHDOG=1" {
				return text
			}
		}
	}
	sockets := func(names string, more string) (change func(*exec.Cmd), addr []string) {
		var files []*os.File
		for range strings.Split(names, ":") {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			f, err := l.(*net.TCPListener).File()
			require.NoError(t, err)
			l.Close()
			t.Cleanup(func() { f.Close() })
			files, addr = append(files, f), append(addr, "http://"+l.Addr().String())
		}
		return func(cmd *exec.Cmd) { // LISTEN_PID must be that of the process, which only it knows
			cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
			cmd.Path = "/bin/sh"
			cmd.ExtraFiles = files
			cmd.Env = append(os.Environ(), "LISTEN_FDS="+strconv.Itoa(len(files)), "LISTEN_FDNAMES="+names,
				"NOTIFY_SOCKET="+notifications.LocalAddr().String(), more)
		}, addr
	}
	text := proxyText(iss, upstream.URL, "drain: 0s\n")

	t.Run("a socket for no site is a mistake", func(t *testing.T) {
		change, _ := sockets("proxy:other", "X=")
		p := launch(t, change, "proxy", "--config", configured(t, text))
		require.Error(t, p.Wait())
		p.log.Wait(t, `LISTEN_FDS has a socket "other", which is not the name of a site \(proxy, probe\)`)
	})
	t.Run("two sockets for one site are a mistake", func(t *testing.T) {
		change, _ := sockets("valetkey.socket:proxy", "X=")
		p := launch(t, change, "proxy", "--config", configured(t, text))
		require.Error(t, p.Wait())
		p.log.Wait(t, `LISTEN_FDS has two sockets for the proxy`)
	})
	t.Run("sockets, notifications and the watchdog", func(t *testing.T) {
		change, addr := sockets("probe:valetkey.socket", "WATCHDOG_USEC=20000")
		file := configured(t, text)
		p := launch(t, change, "proxy", "--config", file)
		require.Contains(t, next(), "READY=1")
		require.Equal(t, 200, status(t, addr[1]+"/orders", iss.Token()))
		require.Equal(t, 200, status(t, addr[0]+"/live", ""))

		p.signal(t, syscall.SIGHUP)
		require.Regexp(t, `^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]+\n`, next())
		require.Contains(t, next(), "READY=1")
		require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
		p.signal(t, syscall.SIGHUP)
		require.Contains(t, next(), "RELOADING=1")
		require.Regexp(t, "(?s)READY=1.*STATUS=.*the last reload failed", next())

		buf := make([]byte, 100)
		n, err := notifications.Read(buf) // between the others, nothing else is sent
		require.NoError(t, err)
		require.Equal(t, "WATCHDOG=1", string(buf[:n]))
		p.signal(t, syscall.SIGTERM)
		require.Contains(t, next(), "STOPPING=1")
		require.NoError(t, p.Wait())
	})
}
