package main_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

func TestProgramIsShort(t *testing.T) {
	program, err := os.ReadFile("main.go")
	require.NoError(t, err)
	assert.LessOrEqual(t, strings.Count(string(program), "\n"), 37)
}

func TestProgram(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	addr := freeAddress(t)
	program := filepath.Join(t.TempDir(), "orders")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	for name, c := range map[string]struct{ issuer, want string }{
		"an issuer with a slash more":   {iss.URL + "/", `it is of the issuer "` + iss.URL + `"`},
		"an issuer that does not exist": {"http://" + freeAddress(t), "refused"},
	} {
		t.Run(name+" ends the program at its start", func(t *testing.T) {
			cmd := exec.Command(program)
			cmd.Env = append(os.Environ(), "ISSUER="+c.issuer, "AUDIENCE="+valetkeytest.DefaultAudience, "ADDR="+addr)
			out, err := cmd.CombinedOutput()
			require.Error(t, err)
			assert.Contains(t, string(out), c.want)
		})
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "ISSUER="+iss.URL, "AUDIENCE="+valetkeytest.DefaultAudience, "ADDR="+addr)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})

	token := func(scope string) string {
		return iss.Token(valetkeytest.Scopes(scope))
	}
	for _, c := range []struct {
		name, method, token string
		status              int
		scope               string // that the challenge names
	}{
		{"no token, reading", "GET", "", 401, "orders:read"},
		{"a writer does not read", "GET", token("orders:write"), 403, "orders:read"},
		{"a reader does not write", "POST", token("orders:read"), 403, "orders:write"},
		{"a reader reads", "GET", token("orders:read"), 200, ""},
		{"a writer writes", "POST", token("orders:write"), 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.NewRequest(c.method, "http://"+addr+"/orders", nil)
			require.NoError(t, err)
			if c.token != "" {
				r.Header.Set("Authorization", "Bearer "+c.token)
			}
			var resp *http.Response
			require.Eventually(t, func() bool { // the program is starting
				resp, err = http.DefaultClient.Do(r)
				return err == nil
			}, time.Minute, 10*time.Millisecond)
			defer resp.Body.Close()
			assert.Equal(t, c.status, resp.StatusCode)
			if c.scope != "" {
				assert.Equal(t, c.scope, valetkeytest.Challenge(t, resp.Header, "Bearer")["scope"])
			}
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
