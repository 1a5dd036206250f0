//go:build unix

package e2e_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// shop is a server for three services, each of which may call the next one for its users.
const shop = `
apis:
  - {audience: "https://gateway.example.com/", name: Gateway, scopes: {"gateway:read": Use the shop}, exchange: {"gateway:read": ["orders:read"]}}
  - {audience: "https://orders.example.com/", name: Orders, scopes: {"orders:read": See your orders}, exchange: {"orders:read": ["stock:read"]}}
  - {audience: "https://stock.example.com/", name: Stock, scopes: {"stock:read": See items}}
store: memory
clients:
  - {id: web, name: A website, secret: the secret of web, scopes: ["gateway:read"], redirect_uris: ["` + callback + `"]}
  - {id: gateway, secret: the secret of gateway, scopes: ["gateway:read", "orders:read"], introspects: ["https://gateway.example.com/"],
     grant_types: ["urn:ietf:params:oauth:grant-type:token-exchange", client_credentials]}
  - {id: orders, secret: the secret of orders, scopes: ["orders:read", "stock:read"], introspects: ["https://orders.example.com/"],
     grant_types: ["urn:ietf:params:oauth:grant-type:token-exchange", client_credentials]}
users:
  - {name: alice, password: "` + password + `"}
`

// The program of docs/onbehalf.md, as three processes: gateway calls orders, which calls stock, for alice.
func TestServicesCallEachOtherForTheUser(t *testing.T) {
	h := serve(t, func(issuer string) string { return "issuer: " + issuer + shop })
	service := filepath.Join(t.TempDir(), "service")
	out, err := exec.Command("go", "build", "-C", "../../examples/onbehalf", "-o", service, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	at, output := map[string]string{}, map[string]*lockedBuffer{}
	next := ""
	for _, name := range []string{"stock", "orders", "gateway"} {
		at[name], output[name] = freeAddress(t), &lockedBuffer{}
		p := exec.Command(service)
		p.Env = append(os.Environ(), "NAME="+name, "ISSUER="+h.url, "ADDR="+at[name], "SECRET="+secretOf(name))
		if next != "" {
			p.Env = append(p.Env, "NEXT="+next, "NEXT_URL=http://"+at[next])
		}
		p.Stdout, p.Stderr = output[name], os.Stderr
		require.NoError(t, p.Start())
		t.Cleanup(func() {
			p.Process.Kill()
			p.Wait()
		})
		next = name
	}
	get := func(service, token string) (int, string) {
		r, err := http.NewRequest("GET", "http://"+at[service]+"/items/7", nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+token)
		var resp *http.Response
		require.Eventually(t, func() bool {
			resp, err = http.DefaultClient.Do(r)
			return err == nil
		}, 2*time.Minute, 10*time.Millisecond)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}

	web := &oauth2.Config{ClientID: "web", ClientSecret: secretOf("web"), RedirectURL: callback, Scopes: []string{"gateway:read"},
		Endpoint: oauth2.Endpoint{AuthURL: h.url + "/oauth2/authorize", TokenURL: h.url + "/oauth2/token", AuthStyle: oauth2.AuthStyleInHeader}}
	verifier := oauth2.GenerateVerifier()
	back, err := newBrowser(h.url).open(web.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)))
	require.NoError(t, err)
	token, err := web.Exchange(t.Context(), back.Query().Get("code"), oauth2.VerifierOption(verifier))
	require.NoError(t, err)

	for _, name := range []string{"orders", "stock"} {
		code, _ := get(name, token.AccessToken)
		assert.Equal(t, 401, code, "the token of the website is for the gateway only")
	}
	for range 2 {
		code, body := get("gateway", token.AccessToken)
		assert.Equal(t, 200, code, body)
		assert.Equal(t, "item 7 for customer:alice\n", body)
	}

	// granted returns the last record of an accepted request.
	granted := func(name string) (record map[string]any) {
		require.Eventually(t, func() bool {
			for line := range strings.Lines(output[name].String()) {
				var r map[string]any
				if json.Unmarshal([]byte(line), &r) == nil && r["event.outcome"] == "success" {
					record = r
				}
			}
			return record["valetkey.remembered"] == true
		}, 2*time.Minute, 10*time.Millisecond, output[name])
		return record
	}
	for name, want := range map[string]struct{ client, actor any }{
		"gateway": {"web", nil}, "orders": {"gateway", "gateway"}, "stock": {"orders", "orders"},
	} {
		r := granted(name)
		assert.Equal(t, "customer:alice", r["user.id"], name)
		assert.Equal(t, want.client, r["valetkey.client"], name)
		assert.Equal(t, want.actor, r["valetkey.actor"], name)
	}

	t.Run("a token that was revoked at the server is not exchanged", func(t *testing.T) {
		another, err := newBrowser(h.url).open(web.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)))
		require.NoError(t, err)
		token, err := web.Exchange(t.Context(), another.Query().Get("code"), oauth2.VerifierOption(verifier))
		require.NoError(t, err)
		r, err := http.NewRequest("POST", h.url+"/oauth2/revoke", strings.NewReader(url.Values{"token": {token.AccessToken}}.Encode()))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("web", url.QueryEscape(secretOf("web")))
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
		code, _ := get("gateway", token.AccessToken)
		assert.Equal(t, 500, code, "the server answers invalid_request, and by the gateway's own check the token is valid")
	})
}
