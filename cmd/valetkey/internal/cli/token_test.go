package cli_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/demo"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/valetkeytest"
)

const reader = "demo-secret-of-orders-reader"

// startDemo starts the authorization server and the API of the demonstration.
func startDemo(t *testing.T) demo.Place {
	t.Helper()
	log, _ := background(t, "demo", "--as-addr", "127.0.0.1:0", "--api-addr", "127.0.0.1:0")
	at := log.Wait(t, `is at (http://[0-9.:]+) \(--as-addr\),\s+the orders API at (http://[0-9.:]+) `)
	return demo.Place{Issuer: at[1], API: at[2]}
}

func write(t *testing.T, name, content string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestTokenMistakes(t *testing.T) {
	empty := write(t, "empty", "\n")
	secret := write(t, "secret", reader)
	open := write(t, "open.json", "{}")
	require.NoError(t, os.Chmod(open, 0o644))
	good := []string{"token", "--issuer", "https://as.example.com", "--client-id", "me", "--secret-file", secret}
	for _, c := range []struct {
		name string
		args []string
		want []string // each a whole line
	}{
		{"nothing", []string{"token"}, []string{"--issuer: required, or a token URL", "--client-id: required", "--secret-file: required, or --secret-env"}},
		{"all at once", []string{"token", "--issuer", "https://a", "--token-url", "https://b", "--client-id", "x", "--secret-file", "/nowhere/" + reader, "--auth", "jwt"}, []string{
			"--token-url: cannot be combined with an issuer", `--auth: "jwt" is neither basic nor post`, "--secret-file: the file cannot be read: no such file"}},
		{"plain http", with(without(good, "--issuer"), "--issuer", "http://as.example.com"), []string{"--issuer: not https; --insecure-http allows http"}},
		{"a token URL in plain http", with(without(good, "--issuer"), "--token-url", "http://as.example.com/token"), []string{"--token-url: not https; --insecure-http allows http"}},
		{"two secrets", with(good, "--secret-env", "X"), []string{"--secret-env: cannot be combined with --secret-file"}},
		{"a secret that is empty", with(without(good, "--secret-file"), "--secret-file", empty), []string{"--secret-file: is empty or missing"}},
		{"a secret that is not there", with(without(good, "--secret-file"), "--secret-env", "VALETKEY_TEST_NOT_SET"), []string{"--secret-env: is empty or missing"}},
		{"a secret as an argument", with(good, reader), []string{"unexpected argument; see valetkey token --help"}},
		{"a key that others may read", with(good, "--dpop", open), []string{"--dpop: " + open + ": other users can access it (mode 0644): run chmod 600"}},
		{"an invalid key", with(good, "--dpop", secret), []string{"--dpop: " + secret + ": is not a private JWK with an alg"}},
		{"a key in no folder", with(good, "--dpop", "/nowhere/key.json"), []string{"--dpop: open /nowhere/key.json: no such file"}},
		{"a proof of nothing", []string{"token", "proof"}, []string{"--request: method and URL are required", "--key: required"}},
		{"a proof for a path", []string{"token", "proof", "--key", "x", "--request", "GET /orders", "a", "b"}, []string{
			`--request: "/orders" is not an absolute URL, which a proof requires`, "expected at most one token argument (- for stdin), got 2"}},
		{"a proof for an invalid request", []string{"token", "proof", "--key", "x", "--request", "https://a"}, []string{`--request: "https://a" is not a method and a URL`}},
		{"a proof for an invalid method", []string{"token", "proof", "--key", "x", "--request", "G(T https://a"}, []string{`--request: "G(T" is not a method`}},
		{"a proof for what is not a URL", []string{"token", "proof", "--key", "x", "--request", "GET ftp://a"}, []string{`--request: "ftp://a" is neither an http URL nor a path`}},
		{"a proof without its key", []string{"token", "proof", "--key", "/nowhere/key.json", "--request", "GET https://a"}, []string{"--key: open /nowhere/key.json"}},
		{"a token that looks like a flag", []string{"token", "proof", "-" + reader}, []string{"an argument begins with a hyphen"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := run(t, "", c.args...)
			assert.Equal(t, cli.Mistake, code)
			assert.Empty(t, out)
			for _, want := range c.want {
				assert.Contains(t, "\n"+errs, "\nvaletkey: "+want)
			}
			assert.NotContains(t, errs, reader)
		})
	}
	code, out, errs := run(t, "", "token", "--help")
	assert.Equal(t, cli.Good, code, errs)
	assert.Contains(t, strings.Join(strings.Fields(out), " "), "The exit code is 0 if a token was printed, 1 if the server refuses the request, and 2 for")
}

func TestToken(t *testing.T) {
	at := startDemo(t)
	t.Setenv("VALETKEY_TEST_SECRET", reader)
	file := write(t, "secret", reader+"\r\n")
	good := []string{"token", "--issuer", at.Issuer, "--client-id", "orders-reader", "--secret-file", file}

	for _, c := range []struct {
		name string
		args []string
		code int
		errs string // the beginning of what is said
	}{
		{"a secret that is wrong", with(without(good, "--secret-file"), "--secret-file", write(t, "wrong", "a secret of another client")), cli.No, "valetkey: refused by the server: invalid_client"},
		{"a scope that the client may not have", with(good, "--scope", "orders:write"), cli.No, "valetkey: refused by the server: invalid_scope"},
		{"an API that there is not", with(good, "--resource", "https://other.example.com"), cli.No, "valetkey: refused by the server: invalid_target"},
		{"an issuer that calls itself otherwise", with(without(good, "--issuer"), "--issuer", strings.Replace(at.Issuer, "127.0.0.1", "localhost", 1)), cli.Mistake, "valetkey: metadata at http://localhost:"},
		{"a server that is not there", with(without(good, "--issuer"), "--token-url", "http://127.0.0.1:1/token?x=y"), cli.Mistake, "valetkey: http://127.0.0.1:1/token: dial tcp"},
		{"an invalid token endpoint", with(without(good, "--issuer"), "--token-url", at.API+"/nowhere"), cli.Mistake, "valetkey: " + at.API + "/nowhere: status 404 without an OAuth error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := run(t, "", c.args...)
			assert.Equal(t, c.code, code)
			assert.Empty(t, out)
			assert.True(t, strings.HasPrefix(errs, c.errs), errs)
			assert.NotContains(t, errs, "secret")
		})
	}
	for _, c := range []struct {
		name string
		args []string
	}{
		{"by discovery, with a secret from a file", good},
		{"with a secret from the environment", with(without(good, "--secret-file"), "--secret-env", "VALETKEY_TEST_SECRET")},
		{"with the secret in the form", with(good, "--auth", "post")},
		{"at a URL", with(without(good, "--issuer"), "--token-url", at.Issuer+"/oauth2/token")},
		{"for a scope at an API", with(good, "--scope", "orders:read", "--resource", at.API)},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := run(t, "", c.args...)
			require.Equal(t, cli.Good, code, errs)
			assert.Equal(t, 200, get(t, at.API+"/orders", strings.TrimSuffix(out, "\n")))
		})
	}
	t.Run("as JSON", func(t *testing.T) {
		code, out, errs := run(t, "", with(good, "--json")...)
		require.Equal(t, cli.Good, code, errs)
		var answer map[string]string
		require.NoError(t, json.Unmarshal([]byte(out), &answer))
		assert.Equal(t, "orders:read", answer["scope"])
		assert.Equal(t, "Bearer", answer["token_type"])
		assert.NotEmpty(t, answer["expires_at"])
		assert.Equal(t, 200, get(t, at.API+"/orders", answer["access_token"]))
	})
}

// TestBoundToken gets a token that is bound to a new key, and uses it at a proxy with a proof of that key.
func TestBoundToken(t *testing.T) {
	at := startDemo(t)
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer upstream.Close()
	config := write(t, "proxy.yaml", fmt.Sprintf("listen: 127.0.0.1:0\nupstream: %s\nverifiers: [jwks: {issuer: %q, audience: %q}]\ndpop: {origin: \"https://api.example.com\"}\nroutes: {\"GET /orders\": orders:read}\n",
		upstream.URL, at.Issuer, at.API))
	log, _ := background(t, "proxy", "--config", config)
	url := "http://" + log.Wait(t, `listening on ([0-9.:]+)`)[1] + "/orders"
	const named = "https://api.example.com/orders" // by clients

	key := filepath.Join(t.TempDir(), "key.json")
	ask := []string{"token", "--issuer", at.Issuer, "--client-id", "orders-reader", "--secret-file", write(t, "secret", reader), "--dpop", key}
	code, token, errs := run(t, "", ask...)
	require.Equal(t, cli.Good, code, errs)
	token = strings.TrimSuffix(token, "\n")
	about, err := os.Stat(key)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), about.Mode())
	made, err := os.ReadFile(key)
	require.NoError(t, err)

	use := func(proof string) int {
		r, err := http.NewRequestWithContext(t.Context(), "GET", url+"?page=2", nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "DPoP "+token)
		r.Header.Set("DPoP", strings.TrimSuffix(proof, "\n"))
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		res.Body.Close()
		return res.StatusCode
	}
	prove := func(stdin string, args ...string) string {
		code, proof, errs := run(t, stdin, append([]string{"token", "proof", "--key", key}, args...)...)
		require.Equal(t, cli.Good, code, errs)
		return proof
	}
	assert.Equal(t, 401, get(t, url, token), "as a bearer token")
	assert.Equal(t, 401, use(prove("", "--request", "POST "+named, token)), "for another method")
	assert.Equal(t, 401, use(prove("", "--request", "GET "+named)), "without the token")
	proof := prove(token+"\n", "--request", "GET "+named+"?page=2", "-")
	assert.Equal(t, 200, use(proof))
	assert.Equal(t, 401, use(proof), "a second time")

	code, out, errs := run(t, "", "token", "proof", "--key", key, "--request", "GET "+named, "")
	assert.Equal(t, cli.Mistake, code, "for a token that is empty")
	assert.Empty(t, out)
	assert.Equal(t, "valetkey: the token is empty\n", errs)

	code, out, errs = run(t, "", with(ask, "--json")...) // with the key that is there
	require.Equal(t, cli.Good, code, errs)
	assert.Contains(t, out, `"token_type":"DPoP"`)
	again, err := os.ReadFile(key)
	require.NoError(t, err)
	assert.Equal(t, string(made), string(again))
	assert.NotContains(t, out+errs, `"d"`)
}

// TestTokenEndpoints tests servers that require a nonce or do not fulfill the request.
func TestTokenEndpoints(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	nonces, err := dpop.NewNonces(dpop.NoncesConfig{})
	require.NoError(t, err)
	proofs, err := dpop.New(dpop.Config{Nonces: nonces})
	require.NoError(t, err)
	reply := func(w http.ResponseWriter, status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	}
	tokenOf := func(w http.ResponseWriter, kind, token string) {
		reply(w, 200, map[string]any{"access_token": token, "token_type": kind})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /nonce", func(w http.ResponseWriter, r *http.Request) {
		proof, err := proofs.Verify(r.Context(), dpop.Request{Proofs: r.Header["Dpop"], Method: r.Method, URL: "http://" + r.Host + r.URL.Path})
		w.Header().Set("DPoP-Nonce", proofs.Nonce())
		if refusal, ok := err.(*valetkey.Error); ok {
			reply(w, 400, map[string]any{"error": refusal.Code})
			return
		}
		if r.PostFormValue("scope") != "a b" { // the form comes again with the nonce
			reply(w, 400, map[string]any{"error": "invalid_scope"})
			return
		}
		tokenOf(w, "DPoP", iss.Token(valetkeytest.Claim("cnf", map[string]string{"jkt": proof.Thumbprint()})))
	})
	asked := 0
	mux.HandleFunc("POST /never", func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Header().Set("DPoP-Nonce", "n")
		reply(w, 400, map[string]any{"error": "use_dpop_nonce"})
	})
	mux.HandleFunc("POST /client", func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Header().Set("DPoP-Nonce", "n")
		reply(w, 400, map[string]any{"error": "invalid_client", "error_description": "red\x1b[31m"})
	})
	mux.HandleFunc("POST /bearer", func(w http.ResponseWriter, _ *http.Request) { tokenOf(w, "bearer", "good") })
	mux.HandleFunc("POST /mac", func(w http.ResponseWriter, _ *http.Request) { tokenOf(w, "mac", "token-of-a-type") })
	mux.HandleFunc("POST /split", func(w http.ResponseWriter, _ *http.Request) { tokenOf(w, "Bearer", "token\nof lines") })
	mux.HandleFunc("POST /none", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, map[string]any{"token_type": "Bearer"}) })
	mux.HandleFunc("POST /elsewhere", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/stolen", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/stolen", func(http.ResponseWriter, *http.Request) { t.Error("the secret went along with a redirect") })
	server := httptest.NewServer(mux)
	defer server.Close()
	iss.Metadata.Answer(fmt.Sprintf(`{"issuer": %q, "token_endpoint": %q}`, iss.URL, server.URL+"/nonce"))

	secret := write(t, "secret", "s3cret")
	ask := func(path string, more ...string) (code int, out, errs string) {
		return run(t, "", append([]string{"token", "--token-url", server.URL + path, "--client-id", "me", "--secret-file", secret}, more...)...)
	}
	key := filepath.Join(t.TempDir(), "key.json")
	for _, c := range []struct {
		name string
		path string
		more []string
		code int
		errs string
	}{
		{"a nonce that is never good is tried once", "/never", []string{"--dpop", key}, cli.No, "valetkey: refused by the server: use_dpop_nonce\n"},
		{"a nonce with another error causes no second request", "/client", []string{"--dpop", key}, cli.No, `valetkey: refused by the server: "invalid_client: red\x1b[31m"` + "\n"},
		{"a server that knows nothing of DPoP", "/bearer", []string{"--dpop", key}, cli.Mistake, `valetkey: the server did not bind the token to the key: token_type is "bearer", not DPoP` + "\n"},
		{"an unknown type", "/mac", nil, cli.Mistake, `valetkey: token_type is "mac", not Bearer` + "\n"},
		{"a token that would split a header", "/split", nil, cli.Mistake, "valetkey: the token contains a character that a header cannot carry\n"},
		{"no token", "/none", nil, cli.Mistake, "valetkey: " + server.URL + "/none: oauth2: server response missing access_token\n"},
		{"a redirect", "/elsewhere", nil, cli.Mistake, "valetkey: " + server.URL + "/elsewhere: status 307 without an OAuth error\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := ask(c.path, c.more...)
			assert.Equal(t, c.code, code)
			assert.Empty(t, out)
			assert.Equal(t, c.errs, errs)
		})
	}
	assert.Equal(t, 3, asked)
	t.Run("a type in another letter case", func(t *testing.T) {
		code, out, errs := ask("/bearer")
		assert.Equal(t, []any{cli.Good, "good\n", ""}, []any{code, out, errs})
	})
	t.Run("a nonce is put into a second proof", func(t *testing.T) {
		code, token, errs := run(t, "", "token", "--issuer", iss.URL, "--client-id", "me", "--secret-file", secret, "--dpop", key, "--scope", "a", "--scope", "b")
		require.Equal(t, cli.Good, code, errs)
		iss.Metadata.Restore()
		code, out, _ := run(t, token, "inspect", "-")
		assert.Equal(t, cli.Good, code)
		assert.Contains(t, out, "bound to the key with the thumbprint ")
	})
}
