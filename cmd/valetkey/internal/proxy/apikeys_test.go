package proxy_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/apikey"
	"github.com/valetkey/valetkey/valetkeytest"
)

// keyFile writes a file with one key for orders:read, and returns its path and the key.
func keyFile(t *testing.T) (path, key string) {
	t.Helper()
	key, digest := apikey.Generate("orders_")
	text, err := json.Marshal([]apikey.Key{{Digest: digest, Subject: "billing", ClientID: "billing-app", Scopes: "orders:read"}})
	require.NoError(t, err)
	path = filepath.Join(t.TempDir(), "api-keys.json")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path, key
}

func withKeys(config, section string) string {
	return strings.Replace(config, "verifiers: [", "verifiers: [api_keys: {"+section+"}, ", 1)
}

func TestAPIKeys(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	token := iss.Token(valetkeytest.Scopes("orders:read"))
	path, key := keyFile(t)
	another, _ := apikey.Generate("orders_")
	section := fmt.Sprintf("issuer: urn:example:keys, file: %q", path)
	basic := func(user string) string {
		return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"))
	}
	type request struct {
		name   string
		header []string
		status int
		passed []string // with forward_token: the headers that the upstream receives
	}
	for _, c := range []struct {
		name, section string
		requests      []request
	}{
		{"in a header", section + ", header: x-api-key", []request{
			{"no credentials", nil, 401, nil},
			{"an unknown key", []string{"X-Api-Key: " + another}, 401, nil},
			{"another spelling of the header", []string{"X_Api_Key: " + key}, 401, nil},
			{"a key and a token", []string{"X-Api-Key: " + key, "Authorization: Bearer " + token}, 400, nil},
			{"the scheme for keys", []string{"Authorization: ApiKey " + key}, 401, nil},
			{"a token", []string{"Authorization: Bearer " + token}, 200, []string{"Authorization: Bearer " + token}},
			{"a token and a forged spelling", []string{"Authorization: Bearer " + token, "X_Api_Key: forged"}, 200, []string{"Authorization: Bearer " + token}},
			{"a key", []string{"X-Api-Key: " + key, "Authorization: Basic eDp5", "X_Api_Key: forged"}, 200, []string{"X-Api-Key: " + key}},
		}},
		{"in Authorization", section, []request{
			{"an unknown key", []string{"Authorization: ApiKey " + another}, 401, nil},
			{"a key as a bearer token", []string{"Authorization: Bearer " + key}, 401, nil},
			{"a token", []string{"Authorization: Bearer " + token}, 200, []string{"Authorization: Bearer " + token}},
			{"a key", []string{"Authorization: ApiKey " + key}, 200, []string{"Authorization: ApiKey " + key}},
			{"a key as user name", []string{basic(key)}, 200, []string{basic(key)}},
		}},
	} {
		for _, forward := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, forward_token %v", c.name, forward), func(t *testing.T) {
				config, upstream := guarded(t, iss, fmt.Sprintf("forward_token: %v", forward))
				addr := start(t, withKeys(config, c.section), slog.New(slog.DiscardHandler))
				for _, r := range c.requests {
					t.Run(r.name, func(t *testing.T) {
						res := send(t, addr, "GET /orders", r.header...)
						assert.Equal(t, r.status, res.StatusCode)
						got := upstream.take()
						require.Equal(t, r.status == 200, got != nil)
						if got == nil {
							return
						}
						want := http.Header{}
						if forward {
							for _, line := range r.passed {
								name, value, _ := strings.Cut(line, ": ")
								want.Add(name, value)
							}
						}
						for _, name := range []string{"Authorization", "X-Api-Key", "X_api_key"} {
							assert.Equal(t, want[name], got.Header[name], name)
						}
						assert.NotContains(t, fmt.Sprint(got.Header), "forged")
						if strings.HasPrefix(r.name, "a key") {
							assert.Equal(t, "billing", got.Header.Get("X-Valetkey-Subject"))
						}
					})
				}
			})
		}
	}
}

func TestMistakesInAPIKeys(t *testing.T) {
	path, _ := keyFile(t)
	empty := filepath.Join(t.TempDir(), "empty.json")
	require.NoError(t, os.WriteFile(empty, []byte("{}"), 0o600))
	head := "listen: 127.0.0.1:0\nupstream: http://127.0.0.1:9\nresource: https://api.example.com\nroutes: {\"GET /orders\": orders:read}\n"
	jwks := "- jwks: {issuer: https://as.example.com}\n"
	keys := fmt.Sprintf("- api_keys: {issuer: urn:example:keys, file: %q}\n", path)
	for name, c := range map[string]struct{ verifiers, want string }{
		"no issuer and no file":      {"- api_keys: {}\n", "api_keys.issuer: required"},
		"a file that is not there":   {"- api_keys: {issuer: urn:example:keys, file: missing.json}\n", "api_keys.file"},
		"a file without an array":    {fmt.Sprintf("- api_keys: {issuer: urn:example:keys, file: %q}\n", empty), "api_keys.file"},
		"two sections":               {keys + keys, "verifiers[1].api_keys: there is one at verifiers[0].api_keys already"},
		"a section beside another":   {"- api_keys: {issuer: a, file: b}\n  jwks: {issuer: https://as.example.com}\n", "exactly one of jwks, introspection and api_keys is required"},
		"the issuer of tokens":       {jwks + fmt.Sprintf("- api_keys: {issuer: https://as.example.com, file: %q}\n", path), "another verifier already accepts the issuer"},
		"the issuer of opaque ones":  {fmt.Sprintf("- api_keys: {issuer: https://as.example.com, file: %q}\n- introspection: {issuer: https://as.example.com, client_id: a, client_secret: b}\n", path), "is that of api_keys"},
		"a header of another use":    {fmt.Sprintf("- api_keys: {issuer: urn:example:keys, file: %q, header: Host}\n", path), "verifiers[0].api_keys"},
		"a profile with tokens only": {keys + jwks + "profile: fapi2\n", "verifiers[0].api_keys: cannot be combined with profile: fapi2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, head+"verifiers:\n"+c.verifiers, slog.New(slog.DiscardHandler))
			assert.ErrorContains(t, err, c.want)
		})
	}
}
