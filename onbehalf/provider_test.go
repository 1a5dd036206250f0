package onbehalf_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/onbehalf"
)

const (
	ordersAPI = "https://orders.example.com"
	stockAPI  = "https://stock.example.com"
)

// provider starts npm/provider.js, and returns its issuer and a token of alice for orders.
func provider(t *testing.T) (issuer, token string) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("there is no node to run npm/provider.js")
	}
	if _, err := os.Stat("npm/node_modules/oidc-provider/package.json"); err != nil {
		t.Skip("the packages of npm/provider.js are not installed: npm ci --prefix npm")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	node := exec.CommandContext(ctx, "node", "npm/provider.js")
	var faults bytes.Buffer
	node.Stderr = &faults
	input, err := node.StdinPipe() // its end ends the process
	require.NoError(t, err)
	output, err := node.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, node.Start())
	t.Cleanup(func() {
		input.Close()
		node.Wait()
		cancel()
	})
	var line struct{ Issuer, Token string }
	for in := bufio.NewScanner(output); in.Scan(); { // the provider prints notices before
		if json.Unmarshal(in.Bytes(), &line) == nil {
			return line.Issuer, line.Token
		}
	}
	require.Fail(t, "npm/provider.js has ended", "%s", &faults)
	return "", ""
}

func TestWithNodeOIDCProvider(t *testing.T) {
	issuer, token := provider(t)
	verifier := func(audience string) *jwks.Verifier {
		v, err := jwks.New(jwks.Config{Issuer: issuer, Audience: []string{audience}, Logger: quiet})
		require.NoError(t, err)
		t.Cleanup(v.Close)
		return v
	}
	client := func(change func(*onbehalf.Config)) *onbehalf.Client {
		cfg := onbehalf.Config{Issuer: issuer, Auth: introspect.BasicAuth("orders", "the secret of orders"), Resource: []string{stockAPI},
			Scope: []string{"stock:read"}, InputAudience: []string{ordersAPI}, Logger: quiet}
		change(&cfg)
		c, err := onbehalf.New(cfg)
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return c
	}
	guard, err := middleware.New(middleware.Config{Verifier: verifier(ordersAPI), OnBehalf: true, Logger: quiet})
	require.NoError(t, err)
	decision := guard.DecideToken(t.Context(), token)
	require.NoError(t, decision.Err())
	serving := decision.Context(t.Context())

	for name, c := range map[string]struct {
		change func(*onbehalf.Config)
		code   string
	}{
		"a wrong secret":    {func(c *onbehalf.Config) { c.Auth = introspect.BasicAuth("orders", "wrong") }, "invalid_client"},
		"an unknown target": {func(c *onbehalf.Config) { c.Resource = []string{"https://billing.example.com"} }, "invalid_target"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := client(c.change).Token(serving)
			var own *onbehalf.Error
			require.ErrorAs(t, err, &own)
			assert.Equal(t, c.code, own.Code)
		})
	}
	t.Run("XCHG-01 token exchange", func(t *testing.T) {
		c := client(func(*onbehalf.Config) {})
		text, err := c.Text(serving)
		require.NoError(t, err)
		got, err := verifier(stockAPI).Verify(t.Context(), text)
		require.NoError(t, err)
		assert.Equal(t, "alice", got.Subject())
		actor, _ := got.Actor()
		assert.Equal(t, "orders", actor.Subject)
		assert.Equal(t, 1, c.Held())
	})
	t.Run("client credentials, bound to a key, with a nonce of the provider", func(t *testing.T) {
		proofs, err := dpop.New(dpop.Config{})
		require.NoError(t, err)
		guard, err := middleware.New(middleware.Config{Verifier: verifier(stockAPI), DPoP: proofs, SenderConstrained: true, Logger: quiet,
			URL: func(r *http.Request) string { return "http://" + r.Host + r.URL.EscapedPath() }})
		require.NoError(t, err)
		var callers []string
		st := httptest.NewServer(guard.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			callers = append(callers, valetkey.FromContext(r.Context()).Subject())
		})))
		defer st.Close()
		c := client(func(c *onbehalf.Config) {
			c.Dialect, c.InputAudience, c.DPoP, c.Targets = onbehalf.ClientCredentials, nil, true, []string{st.URL}
		})
		for range 2 {
			resp, err := call(t.Context(), &http.Client{Transport: c.Transport(nil)}, "GET", st.URL+"/items/7?color=red")
			require.NoError(t, err)
			assert.Equal(t, 200, resp.StatusCode, resp.Header)
		}
		assert.Equal(t, []string{"orders", "orders"}, callers)
	})
}
