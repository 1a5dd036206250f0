// Package exampletest builds the example program of an adapter, runs it and tests it as a client. It works on the package in the
// working directory, which is the directory of the test.
package exampletest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/valetkeytest"
)

// MaxLines is the largest number of lines in an example: one screen.
const MaxLines = 45

const wait = 20 * time.Second // generous, for a busy machine

// HTTP tests an example that serves HTTP. The program must be short, guard its orders, and refuse to start if a route has no row
// in its table.
func HTTP(t *testing.T) {
	Short(t)
	Undeclared(t, `"POST /orders": `, "route POST /orders: no row decides")
	addr, token := Start(t)
	for _, c := range []struct {
		name, method, path, token string
		status                    int
		scope                     string // in the challenge
	}{
		{"no token, reading", "GET", "/orders", "", 401, "orders:read"},
		{"no token, writing", "POST", "/orders", "", 401, "orders:write"},
		{"a forged token", "GET", "/orders", "forged", 401, ""},
		{"a writer does not read", "GET", "/orders", token("orders:write"), 403, "orders:read"},
		{"a reader does not write", "POST", "/orders", token("orders:read"), 403, "orders:write"},
		{"a reader reads", "GET", "/orders", token("orders:read"), 200, ""},
		{"a writer writes", "POST", "/orders", token("orders:write"), 200, ""},
		{"the health check needs no token", "GET", "/healthz", "", 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+addr+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.token != "" {
				r.Header.Set("Authorization", "Bearer "+c.token)
			}
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if answer.StatusCode != c.status {
				t.Errorf("the status is %d, not %d", answer.StatusCode, c.status)
			}
			if c.status < 400 {
				return
			}
			if scope := valetkeytest.Challenge(t, answer.Header, "Bearer")["scope"]; scope != c.scope {
				t.Errorf("the challenge asks for %q, not %q", scope, c.scope)
			}
		})
	}
}

// Short fails the test if main.go has more than MaxLines.
func Short(t *testing.T) {
	t.Helper()
	if lines := strings.Count(program(t), "\n"); lines > MaxLines {
		t.Errorf("main.go has %d lines, more than %d", lines, MaxLines)
	}
}

// Start runs the program with a new issuer until the test ends. It returns the program's address, once it accepts connections,
// and a function that mints tokens for it.
func Start(t *testing.T) (addr string, token func(scope string) string) {
	t.Helper()
	iss := valetkeytest.NewIssuer(t)
	built := build(t)
	addr = freeAddress(t)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := command(ctx, iss, addr, built)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	for deadline := time.Now().Add(wait); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the program does not listen: ", err)
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatal("the program has ended: ", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return addr, func(scope string) string {
		return iss.Token(valetkeytest.Audience("http://127.0.0.1:8080"), valetkeytest.Scopes(scope))
	}
}

// Undeclared builds the program without the one line that contains row. It fails the test unless that program exits with code 1
// and its output contains why.
func Undeclared(t *testing.T, row, why string) {
	t.Helper()
	var left []string
	all := strings.SplitAfter(program(t), "\n")
	for _, line := range all {
		if !strings.Contains(line, row) {
			left = append(left, line)
		}
	}
	if len(left) != len(all)-1 {
		t.Fatalf("%d lines of main.go contain %s", len(all)-len(left), row)
	}
	changed := filepath.Join(t.TempDir(), "main.go")
	write(t, changed, []byte(strings.Join(left, "")))
	original, err := filepath.Abs("main.go")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "overlay.json")
	write(t, file, overlay)

	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	out, err := command(ctx, valetkeytest.NewIssuer(t), freeAddress(t), build(t, "-overlay", file)).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), why) {
		t.Errorf("without the row %s the program ends with %v, and not for %q:\n%s", row, err, why, out)
	}
}

func program(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func build(t *testing.T, flags ...string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "example.exe") // a name that is valid on every system
	out, err := exec.CommandContext(t.Context(), "go", append(append([]string{"build", "-o", path}, flags...), ".")...).CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

func command(ctx context.Context, iss *valetkeytest.Issuer, addr, path string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), "ISSUER="+iss.URL, "ADDR="+addr)
	return cmd
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// freeAddress returns an address on which nothing listens. Its port is below those that the system gives to outgoing connections
// and to listeners that ask for any port, so that none of them takes it before the program does.
func freeAddress(t *testing.T) string {
	t.Helper()
	for {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.N(20_000))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
}
