package main_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/adapters/valetauthzen"
	"github.com/valetkey/valetkey/valetkeytest"
)

// TestProgram runs the program against a policy server that lets users view the order with their name.
func TestProgram(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	pdp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q valetauthzen.Question
		if r.URL.Path != "/access/v1/evaluation" || json.NewDecoder(r.Body).Decode(&q) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		own := q.Action.Name == "view" && q.Resource.Type == "order" && q.Resource.ID == q.Subject.ID
		json.NewEncoder(w).Encode(map[string]bool{"decision": own})
	}))
	defer pdp.Close()
	file := filepath.Join(t.TempDir(), "example")
	if runtime.GOOS == "windows" {
		file += ".exe"
	}
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", file, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	addr := freeAddress(t)
	cmd := exec.Command(file)
	cmd.Env = append(os.Environ(), "ISSUER="+iss.URL, "ADDR="+addr, "PDP="+pdp.URL)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	token := func(scope string) string {
		return iss.Token(valetkeytest.Audience("https://orders.example.com"), valetkeytest.Scopes(scope))
	}
	for _, c := range []struct {
		name, path, token string
		status            int
	}{
		{"no token", "/orders/alice", "", 401},
		{"a token without the scope", "/orders/alice", token("x"), 403},
		{"the order of another user", "/orders/bob", token("orders:read"), 403},
		{"the own order", "/orders/alice", token("orders:read"), 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+c.path, nil)
			require.NoError(t, err)
			if c.token != "" {
				r.Header.Set("Authorization", "Bearer "+c.token)
			}
			var resp *http.Response
			require.Eventually(t, func() bool { // the program is starting
				resp, err = http.DefaultClient.Do(r)
				return err == nil
			}, time.Minute, 10*time.Millisecond)
			resp.Body.Close()
			assert.Equal(t, c.status, resp.StatusCode)
		})
	}
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

// TestPage compares the program with the guide that shows it.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/authorization.md")
	require.NoError(t, err)
	shown := regexp.MustCompile("(?s)<!-- adapters/valetauthzen/example/main\\.go -->\n```go\n(.*?)```\n").FindSubmatch(page)
	require.NotNil(t, shown)
	program, err := os.ReadFile("main.go")
	require.NoError(t, err)
	assert.Equal(t, string(program), string(shown[1]))
}
