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
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// runs starts a program of the examples, and ends it with the test.
func runs(t *testing.T, command *exec.Cmd, env ...string) {
	t.Helper()
	command.Env = append(os.Environ(), env...)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
	})
}

// built builds a program in a folder of the examples.
func built(t *testing.T, folder string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), folder)
	out, err := exec.Command("go", "build", "-C", "../../examples/"+folder, "-o", file, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	return file
}

// listens waits until a program listens.
func listens(t *testing.T, url string) {
	t.Helper()
	require.Eventually(t, func() bool {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	}, 2*time.Minute, 10*time.Millisecond)
}

// A loginExample is what docs/login.md describes: an upstream provider, the log-in page, the authorization server, and an API that
// requires an acr for one of its routes. Each of them is a process.
type loginExample struct {
	*server
	page, upstream, api string
}

func startLoginExample(t *testing.T, store string) *loginExample {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("there is no node to run examples/login/npm/upstream.js")
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl to make the key of the page")
	}
	const packages = "../../examples/login/npm"
	if _, err := os.Stat(packages + "/node_modules/oidc-provider/package.json"); err != nil {
		t.Skip("the packages of examples/login/npm are not installed: npm ci --prefix examples/login/npm")
	}
	e := &loginExample{page: "http://" + freeAddress(t), upstream: "http://" + freeAddress(t), api: "http://" + freeAddress(t)}
	port := func(site string) string { u, _ := url.Parse(site); return u.Port() }
	runs(t, exec.Command("node", packages+"/upstream.js"), "PORT="+port(e.upstream), "CLIENT_ID=login-page",
		"CLIENT_SECRET=the secret of the page", "REDIRECT_URI="+e.page+"/callback")

	guide, err := os.ReadFile("../../docs/login.md")
	require.NoError(t, err)
	require.Contains(t, string(guide), "    openssl genpkey -algorithm ed25519 -out login.pem\n", "the command below")
	require.Contains(t, string(guide), "openssl pkey -in login.pem -pubout\n", "the command below")
	key := filepath.Join(t.TempDir(), "login.pem")
	out, err := exec.Command("openssl", "genpkey", "-algorithm", "ed25519", "-out", key).CombinedOutput()
	require.NoError(t, err, string(out))
	public, err := exec.Command("openssl", "pkey", "-in", key, "-pubout").Output()
	require.NoError(t, err)
	text, err := os.ReadFile("../../examples/login/as.yaml")
	require.NoError(t, err)
	e.server = serve(t, func(issuer string) string {
		config := strings.NewReplacer("http://127.0.0.1:8888", issuer, "http://127.0.0.1:8090", e.page, "store: memory", store).Replace(string(text))
		return regexp.MustCompile(`(?s) {4}-----BEGIN.*PUBLIC KEY-----\n`).ReplaceAllLiteralString(config, "    "+strings.ReplaceAll(strings.TrimSpace(string(public)), "\n", "\n    ")+"\n")
	})

	listens(t, e.upstream+"/.well-known/openid-configuration")
	runs(t, exec.Command(built(t, "login")), "ISSUER="+e.url, "UPSTREAM="+e.upstream, "URL="+e.page, "ADDR="+e.page[len("http://"):],
		"KEY_FILE="+key, "CLIENT_ID=login-page", "CLIENT_SECRET=the secret of the page")
	runs(t, exec.Command(built(t, "stepup")), "ISSUER="+e.url, "ADDR="+e.api[len("http://"):])
	listens(t, e.page)
	listens(t, e.api)
	return e
}

const shopURI = "https://shop.example.com/callback"

// authorize is an authorization request of the shop.
func (e *loginExample) authorize(verifier string, more ...string) string {
	query := url.Values{
		"response_type": {"code"}, "client_id": {"shop"}, "redirect_uri": {shopURI}, "scope": {"orders:read orders:refund"}, "state": {"a state"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"},
	}
	for i := 0; i < len(more); i += 2 {
		query.Set(more[i], more[i+1])
	}
	return e.url + "/oauth2/authorize?" + query.Encode()
}

// redeem exchanges the code that the shop has got.
func (e *loginExample) redeem(t *testing.T, at *url.URL, verifier string) string {
	t.Helper()
	require.True(t, strings.HasPrefix(at.String(), shopURI), at)
	require.NotEmpty(t, at.Query().Get("code"), at)
	shop := &oauth2.Config{ClientID: "shop", RedirectURL: shopURI, Endpoint: oauth2.Endpoint{TokenURL: e.url + "/oauth2/token", AuthStyle: oauth2.AuthStyleInParams}}
	token, err := shop.Exchange(t.Context(), at.Query().Get("code"), oauth2.VerifierOption(verifier))
	require.NoError(t, err)
	return token.AccessToken
}

func (e *loginExample) call(t *testing.T, method, path, token string) (status int, challenge, body string) {
	t.Helper()
	r, err := http.NewRequest(method, e.api+path, nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header.Get("WWW-Authenticate"), string(text)
}

// The example logs in at the upstream provider, and steps up to the acr that a route requires, on each store.
func TestLoginAtAnotherPage(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			e := startLoginExample(t, store(t))
			browser := newBrowser(e.url)
			browser.others = []string{e.page, e.upstream}
			open := func(more ...string) string {
				verifier := oauth2.GenerateVerifier()
				r, err := http.NewRequest("GET", e.authorize(verifier, more...), nil)
				require.NoError(t, err)
				require.NoError(t, browser.do(r))
				return verifier
			}
			press := func(button string, fill url.Values) {
				t.Helper()
				require.NotNil(t, browser.page, browser.at)
				require.NotNil(t, browser.form(button), "no %q on %s: %s", button, browser.at, text(browser.page))
				require.NoError(t, browser.press(button, fill))
			}
			var token string
			t.Run("the user cancels at the upstream provider", func(t *testing.T) {
				open()
				press("Cancel", nil)
				if browser.page != nil {
					press("Deny", nil)
				}
				assert.Equal(t, "access_denied", browser.at.Query().Get("error"), browser.at)
				assert.Equal(t, "a state", browser.at.Query().Get("state"))
			})
			t.Run("a log-in", func(t *testing.T) {
				verifier := open("login_hint", "alice")
				press("Log in", url.Values{"name": {"alice"}, "password": {"the password of alice"}})
				assert.Contains(t, text(browser.page), "Alice Example")
				press("Allow", nil)
				token = e.redeem(t, browser.at, verifier)
				status, _, body := e.call(t, "GET", "/orders", token)
				assert.Equal(t, 200, status)
				assert.Equal(t, "person:alice, pwd\n", body)
			})
			var values string
			t.Run("the guarded route requires more", func(t *testing.T) {
				status, challenge, _ := e.call(t, "POST", "/refunds", token)
				require.Equal(t, 401, status)
				require.Contains(t, challenge, `error="insufficient_user_authentication"`)
				found := regexp.MustCompile(`acr_values="([^"]*)"`).FindStringSubmatch(challenge)
				require.Len(t, found, 2, challenge)
				values = found[1]
				require.Equal(t, "phr", values)
			})
			t.Run("the user cancels the step-up, and keeps the session", func(t *testing.T) {
				open("acr_values", values)
				press("Cancel", nil)
				assert.Equal(t, "access_denied", browser.at.Query().Get("error"), browser.at)
				open()
				assert.NotEmpty(t, browser.at.Query().Get("code"), browser.at)
			})
			t.Run("step-up", func(t *testing.T) {
				verifier := open("acr_values", values)
				press("Use a passkey", nil)
				token = e.redeem(t, browser.at, verifier)
				status, challenge, body := e.call(t, "POST", "/refunds", token)
				assert.Equal(t, 200, status, challenge)
				assert.Equal(t, "person:alice, phr\n", body)
			})
			t.Run("max_age=0 logs in again, although everyone has a session", func(t *testing.T) {
				open("max_age", "0")
				press("Log in", url.Values{"name": {"alice"}, "password": {"the password of alice"}})
				assert.NotEmpty(t, browser.at.Query().Get("code"), browser.at)
			})
			t.Run("a user who leaves", func(t *testing.T) {
				if name == "memory" {
					return // which another process cannot open
				}
				revoke := exec.Command(program, "user", "revoke", "person:alice", "--config", "valetkey.yaml")
				revoke.Dir = e.dir
				out, err := revoke.CombinedOutput()
				require.NoError(t, err, string(out))
				answered := strings.Count(e.log.String(), "log-in answered")
				open()
				assert.Equal(t, answered+1, strings.Count(e.log.String(), "log-in answered"), "the page is asked again")
			})
			t.Run("the log of the server has no challenge and no secret", func(t *testing.T) {
				log := e.log.String()
				assert.Contains(t, log, "log-in answered")
				assert.NotContains(t, log, "login_challenge")
				assert.NotContains(t, log, "login_verifier")
			})
			t.Run("the metadata lists the acr values", func(t *testing.T) {
				resp, err := http.Get(e.url + "/.well-known/oauth-authorization-server")
				require.NoError(t, err)
				defer resp.Body.Close()
				var metadata struct {
					ACRs []string `json:"acr_values_supported"`
				}
				require.NoError(t, json.NewDecoder(resp.Body).Decode(&metadata))
				assert.Equal(t, []string{"pwd", "phr"}, metadata.ACRs)
			})
		})
	}
}
