// Package cerbos tests the requirement against Cerbos, a policy decision point. It is a module outside the workspace, because Cerbos has
// hundreds of modules and takes minutes to build: run it with GOWORK=off go test .
package cerbos_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetauthzen"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// server starts Cerbos with the policies of this folder: users view the order with their name, through the application test-client.
func server(t *testing.T) (url string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "cerbos")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/cerbos/cerbos/cmd/cerbos").CombinedOutput()
	require.NoError(t, err, "%s", out)
	policies, err := filepath.Abs("policies")
	require.NoError(t, err)
	addr := free(t)
	file := filepath.Join(t.TempDir(), "cerbos.yaml")
	text := fmt.Sprintf("server: {httpListenAddr: %q, grpcListenAddr: %q}\nstorage: {driver: disk, disk: {directory: %q}}\ntelemetry: {disabled: true}\n", addr, free(t), policies)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	var log bytes.Buffer
	cmd := exec.Command(program, "server", "--config", file)
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	url = "http://" + addr
	require.Eventually(t, func() bool {
		resp, err := http.Get(url + "/_cerbos/health")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	}, time.Minute, 20*time.Millisecond)
	return url
}

// free returns an address on which nothing listens. Its port is below those that the system gives to outgoing connections
// and to listeners that ask for any port, so that none of them takes it before its user does.
func free(t *testing.T) string {
	t.Helper()
	for {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.N(20_000))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
}

func TestCerbos(t *testing.T) {
	pdp, err := valetauthzen.New(valetauthzen.Config{URL: server(t), Discover: true, Timeout: 5 * time.Second})
	require.NoError(t, err)
	defer pdp.Close()
	require.NoError(t, pdp.Ready(t.Context()))

	t.Run("a guarded route", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}})
		require.NoError(t, err)
		defer keys.Close()
		guard, err := middleware.New(middleware.Config{Verifier: keys})
		require.NoError(t, err)
		var mux http.ServeMux
		mux.Handle("GET /orders/{id}", guard.Handler(http.NotFoundHandler(), scopes.All("orders:read"),
			pdp.Require(valetauthzen.Rule{Action: "view", ResourceType: "order", ResourceID: "id"})))
		for _, c := range []struct {
			name, path, client string
			status             int
		}{
			{"the order of another user", "/orders/bob", "test-client", 403},
			{"through another application", "/orders/alice", "other-client", 403},
			{"the own order", "/orders/alice", "test-client", 404}, // the handler's answer
		} {
			t.Run(c.name, func(t *testing.T) {
				token := iss.Token(valetkeytest.Subject("alice"), valetkeytest.ClientID(c.client), valetkeytest.Scopes("orders:read"))
				w := httptest.NewRecorder()
				mux.ServeHTTP(w, valetkeytest.Request("GET", c.path, token))
				assert.Equal(t, c.status, w.Code, w.Body.String())
			})
		}
	})

	question := func(order string, context map[string]any) valetauthzen.Question {
		return valetauthzen.Question{
			Subject: valetauthzen.Entity{Type: "user", ID: "alice", Properties: map[string]any{"client_id": "test-client"}},
			Action:  valetauthzen.Action{Name: "view"}, Resource: valetauthzen.Entity{Type: "order", ID: order}, Context: context,
		}
	}
	several := func(context map[string]any) []valetauthzen.Question {
		unknown := question("alice", context)
		unknown.Resource.Type = "unknown"
		return []valetauthzen.Question{question("bob", context), question("alice", context), unknown}
	}
	t.Run("several questions", func(t *testing.T) {
		got, err := pdp.EvaluateAll(t.Context(), several(map[string]any{"scope": "orders:read"}))
		require.NoError(t, err)
		assert.Equal(t, []bool{false, true, false}, got)
	})
	t.Run("several questions without a context, which AuthZEN permits and Cerbos refuses, are a failure and not a denial", func(t *testing.T) {
		_, err := pdp.EvaluateAll(t.Context(), several(nil))
		var unavailable *valetkey.Unavailable
		assert.ErrorAs(t, err, &unavailable)
	})
}
