//go:build unix

package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// Clients as they come from their registries get tokens, and the APIs take them.
func TestClients(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // for most of the time is that between two polls of a device
			h := start(t, store(t))
			t.Run("golang.org/x/oauth2", func(t *testing.T) {
				t.Parallel()
				goClient(t, h)
			})
			for _, script := range []string{"oauth4webapi", "openid-client"} {
				t.Run(script, func(t *testing.T) {
					t.Parallel()
					nodeClient(t, h, script)
				})
			}
		})
	}
}

func goClient(t *testing.T, h *house) {
	ctx, browser := t.Context(), newBrowser(h.url)
	endpoint := oauth2.Endpoint{
		AuthURL: h.url + "/oauth2/authorize", TokenURL: h.url + "/oauth2/token", DeviceAuthURL: h.url + "/oauth2/device_authorization",
		AuthStyle: oauth2.AuthStyleInHeader,
	}
	web := &oauth2.Config{ClientID: "web", ClientSecret: secretOf("web"), Endpoint: endpoint, RedirectURL: callback, Scopes: []string{"orders:read"}}

	var token *oauth2.Token
	t.Run("code and PKCE", func(t *testing.T) {
		verifier := oauth2.GenerateVerifier()
		at, err := browser.open(web.AuthCodeURL("a state", oauth2.S256ChallengeOption(verifier)))
		require.NoError(t, err)
		query := at.Query()
		require.Equal(t, "a state", query.Get("state"), at)
		require.Equal(t, h.url, query.Get("iss"))
		require.Equal(t, "valetkey", query.Get("from"))

		_, err = web.Exchange(ctx, query.Get("code"), oauth2.VerifierOption(oauth2.GenerateVerifier()))
		refused(t, err, "invalid_grant")
		at, err = browser.open(web.AuthCodeURL("a state", oauth2.S256ChallengeOption(verifier)))
		require.NoError(t, err)
		token, err = web.Exchange(ctx, at.Query().Get("code"), oauth2.VerifierOption(verifier))
		require.NoError(t, err)
		reads(t, web.Client(ctx, token), h.orders, "customer:alice")
	})
	t.Run("refresh", func(t *testing.T) {
		next, err := web.TokenSource(ctx, &oauth2.Token{RefreshToken: token.RefreshToken}).Token()
		require.NoError(t, err)
		assert.NotEqual(t, token.RefreshToken, next.RefreshToken)
		assert.NotEqual(t, token.AccessToken, next.AccessToken)
		reads(t, web.Client(ctx, next), h.orders, "customer:alice")
		_, err = web.TokenSource(ctx, &oauth2.Token{RefreshToken: token.RefreshToken}).Token()
		refused(t, err, "invalid_grant")
	})
	t.Run("client credentials", func(t *testing.T) {
		for api, scope := range map[string]string{h.orders: "orders:read", h.vault: "vault:open"} {
			service := &clientcredentials.Config{ClientID: "service", ClientSecret: secretOf("service"), TokenURL: endpoint.TokenURL,
				AuthStyle: oauth2.AuthStyleInHeader, Scopes: []string{scope}}
			reads(t, service.Client(ctx), api, "service")
		}
	})
	t.Run("device", func(t *testing.T) {
		tv := &oauth2.Config{ClientID: "tv", Endpoint: endpoint, Scopes: []string{"orders:read"}}
		tv.Endpoint.AuthStyle = oauth2.AuthStyleInParams
		device, err := tv.DeviceAuth(ctx)
		require.NoError(t, err)
		_, err = browser.open(device.VerificationURIComplete)
		require.NoError(t, err)
		token, err := tv.DeviceAccessToken(ctx, device)
		require.NoError(t, err)
		reads(t, tv.Client(ctx, token), h.orders, "customer:alice")
	})
}

func reads(t *testing.T, client *http.Client, api, subject string) {
	t.Helper()
	resp, err := client.Get(api)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode, resp.Header)
	assert.JSONEq(t, fmt.Sprintf(`{"sub":%q}`, subject), string(body))
}

func refused(t *testing.T, err error, code string) {
	t.Helper()
	var told *oauth2.RetrieveError
	require.ErrorAs(t, err, &told)
	assert.Equal(t, code, told.ErrorCode)
}

// checks are those of both scripts in npm, in their order.
var checks = []string{
	"discovery", "code and PKCE", "refresh", "client credentials", "device", "pushed authorization request", "DPoP", "introspection",
	"revocation", "registration",
}

// nodeClient runs an npm script, which sends its requests in lines of JSON.
func nodeClient(t *testing.T, h *house, script string) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("there is no node to run npm/" + script + ".js")
	}
	if _, err := os.Stat("npm/node_modules/" + script + "/package.json"); err != nil {
		t.Skip("the packages of npm are not installed: npm ci --prefix npm")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	node := exec.CommandContext(ctx, "node", "npm/"+script+".js")
	node.Env = append(os.Environ(), "ISSUER="+h.url, "ORDERS="+h.orders, "VAULT="+h.vault, "INITIAL_TOKEN="+initialToken)
	var faults bytes.Buffer
	node.Stderr = &faults
	answers, err := node.StdinPipe()
	require.NoError(t, err)
	lines, err := node.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, node.Start())

	browser := newBrowser(h.url)
	var done []string
	for in := bufio.NewScanner(lines); in.Scan(); {
		var line struct{ Check, Error, Browse string }
		require.NoError(t, json.Unmarshal(in.Bytes(), &line), "%s", in.Bytes())
		if line.Browse != "" {
			at, err := browser.open(line.Browse)
			assert.NoError(t, err)
			fmt.Fprintln(answers, at)
			continue
		}
		done = append(done, line.Check)
		t.Run(line.Check, func(t *testing.T) { assert.Empty(t, line.Error) })
	}
	require.NoError(t, node.Wait(), "%s", &faults)
	assert.Equal(t, checks, done)
}
