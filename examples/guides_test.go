// Package examples_test runs the programs of the guides in docs, and compares them with the pages.
package examples_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/apikey"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A program is one that runs and listens on addr.
type program struct {
	addr string
	cmd  *exec.Cmd
	out  lines
}

// lines is what a program has printed.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start builds and runs the program in a folder.
func start(t *testing.T, name string, iss *valetkeytest.Issuer, env ...string) *program {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if runtime.GOOS == "windows" {
		file += ".exe"
	}
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", file, "./"+name).CombinedOutput()
	require.NoError(t, err, string(out))
	p := &program{addr: freeAddress(t)}
	p.cmd = exec.Command(file)
	p.cmd.Env = append(os.Environ(), append(env, "ISSUER="+iss.URL, "ADDR="+p.addr)...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, os.Stderr
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	})
	return p
}

// freeAddress returns an address on which nothing listens. Its port is below those that the system gives to outgoing connections
// and to listeners that ask for any port, so that none of them takes it before its user does.
func freeAddress(t *testing.T) string {
	t.Helper()
	for {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.N(20_000))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
}

// do sends a request and returns the status and the body. It waits until the program listens.
func (p *program) do(t *testing.T, method, path string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.addr+path, nil)
	require.NoError(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	var resp *http.Response
	require.Eventually(t, func() bool {
		resp, err = http.DefaultClient.Do(r)
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

type request struct {
	name, method, path, key, value string
	status                         int
}

func (p *program) try(t *testing.T, requests ...request) {
	for _, c := range requests {
		t.Run(c.name, func(t *testing.T) {
			status, body := p.do(t, c.method, c.path, c.key, c.value)
			assert.Equal(t, c.status, status, body)
		})
	}
}

func TestTenants(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	api := start(t, "tenants", iss)
	token := func(scope string, claims ...valetkeytest.Option) string {
		return "Bearer " + iss.Token(append(claims, valetkeytest.Audience("https://orders.example.com"), valetkeytest.Scopes(scope))...)
	}
	acme, operator := valetkeytest.Claim("tenant_id", "acme"), valetkeytest.Claim("groups", []string{"operators"})
	const auth = "Authorization"
	api.try(t,
		request{"no token", "GET", "/tenants/acme/orders", auth, "", 401},
		request{"another tenant", "GET", "/tenants/globex/orders", auth, token("orders:read", acme), 403},
		request{"a token without a tenant", "GET", "/tenants/acme/orders", auth, token("orders:read"), 403},
		request{"the tenant without the scope", "GET", "/tenants/acme/orders", auth, token("x", acme), 403},
		request{"an operator without the scope", "DELETE", "/tenants/acme", auth, token("x", operator), 403},
		request{"another tenant that is not an operator", "DELETE", "/tenants/globex", auth, token("tenants:delete", acme), 403},
		request{"the tenant", "GET", "/tenants/acme/orders", auth, token("orders:read", acme), 200},
		request{"the tenant deletes itself", "DELETE", "/tenants/acme", auth, token("tenants:delete", acme), 200},
		request{"an operator", "DELETE", "/tenants/globex", auth, token("tenants:delete", operator), 200},
	)
}

func TestDeploys(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	api := start(t, "deploys", iss)
	token := func(repository, environment, workflow string) string {
		return "Bearer " + iss.Token(valetkeytest.Audience("https://deploy.example.com"), valetkeytest.Type("JWT"), valetkeytest.Subject("repo:example/orders:environment:"+environment),
			valetkeytest.Claim("repository_id", repository), valetkeytest.Claim("environment", environment), valetkeytest.Claim("workflow_ref", workflow))
	}
	const auth, workflow = "Authorization", "example/orders/.github/workflows/deploy.yml@refs/heads/main"
	api.try(t,
		request{"no token", "POST", "/deploy", auth, "", 401},
		request{"a job of another repository", "POST", "/deploy", auth, token("1", "production", workflow), 401},
		request{"another environment", "POST", "/deploy", auth, token("701234567", "staging", workflow), 403},
		request{"another branch", "POST", "/deploy", auth, token("701234567", "production", strings.Replace(workflow, "main", "test", 1)), 403},
		request{"the job", "POST", "/deploy", auth, token("701234567", "production", workflow), 200},
	)
}

func TestAPIKeys(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key, digest := apikey.Generate("orders_")
	file := filepath.Join(t.TempDir(), "keys.json")
	text, err := json.Marshal([]map[string]any{{"digest": digest, "subject": "billing", "scopes": "orders:read"}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, text, 0o600))
	api := start(t, "apikeys", iss, "KEYS="+file)
	token := iss.Token(valetkeytest.Audience("https://orders.example.com"), valetkeytest.Scopes("orders:read"))
	api.try(t,
		request{"neither", "GET", "/orders", "X-Api-Key", "", 401},
		request{"an unknown key", "GET", "/orders", "X-Api-Key", "x", 401},
		request{"a key", "GET", "/orders", "X-Api-Key", key, 200},
		request{"a token", "GET", "/orders", "Authorization", "Bearer " + token, 200},
	)
}

func TestAudit(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a program cannot be interrupted there")
	}
	iss := valetkeytest.NewIssuer(t)
	api := start(t, "audit", iss)
	token := iss.Token(valetkeytest.Audience("https://orders.example.com"))
	status, _ := api.do(t, "GET", "/orders", "Authorization", "Bearer "+token)
	assert.Equal(t, 403, status)
	require.NoError(t, api.cmd.Process.Signal(os.Interrupt))
	require.NoError(t, api.cmd.Wait())
	var record map[string]any
	require.NoError(t, json.Unmarshal([]byte(api.out.String()), &record), api.out.String())
	delete(record, "time")
	assert.Equal(t, map[string]any{
		"level": "WARN", "msg": "request decided", "event.outcome": "failure", "event.type": "denied", "event.reason": "scope",
		"http.response.status_code": 403.0, "http.request.method": "GET", "http.route": "GET /orders", "client.address": "127.0.0.1",
		"user.id": "alice", "valetkey.issuer": iss.URL, "valetkey.client": "orders-app", "valetkey.scope": "orders:read", "valetkey.remembered": false,
	}, record)
}
