package cli_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

// TestInAnEditor opens files in the language server that editors use.
func TestInAnEditor(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("there is no node to run npm/client.js")
	}
	if _, err := os.Stat("npm/node_modules/yaml-language-server/package.json"); err != nil {
		t.Skip("yaml-language-server is not installed: npm ci --prefix cmd/valetkey/internal/cli/npm")
	}
	folder := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
	}
	read := func(name string) string {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		return string(text)
	}
	for _, command := range []string{"proxy", "serve"} {
		code, out, errs := clitest.Run(t, driver.Set{}, "", "schema", command)
		require.Equal(t, cli.Good, code, errs)
		write(command+".schema.json", out)
	}
	const proxy, serve = "# yaml-language-server: $schema=proxy.schema.json\n", "# yaml-language-server: $schema=serve.schema.json\n"
	write("proxy.yaml", proxy+read("../../testdata/proxy.yaml"))
	write("as.yaml", serve+read("../../../../examples/serve/as.yaml"))
	write("bad-proxy.yaml", proxy+`listen: localhost
upstream: http://127.0.0.1:9000
verifers: []
verifiers:
  - jwks: {issuer: "https://as.example.com", leeway: 30}
dpop: {nonce: always, key_env: A, key_file: b}
routes: {"GET /": "@admin"}
`)
	write("bad-as.yaml", serve+`issuer: http://127.0.0.1:8888
apis:
  - {audience: "https://api.example.com", scopes: {read: See}, algorithm: HS256}
clients:
  - {secret: a long secret of the reader}
`)

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	client := exec.CommandContext(ctx, "node", "npm/client.js", folder, "proxy.yaml", "as.yaml", "bad-proxy.yaml", "bad-as.yaml")
	client.Stderr = os.Stderr
	out, err := client.Output()
	require.NoError(t, err)
	var got map[string]struct {
		Mistakes []string
		Hover    string
	}
	require.NoError(t, json.Unmarshal(out, &got))
	assert.Empty(t, got["proxy.yaml"].Mistakes)
	assert.Empty(t, got["as.yaml"].Mistakes)
	assert.ElementsMatch(t, []string{
		"2: is not an address such as 127.0.0.1:8080",
		"4: Property verifers is not allowed.",
		"6: is not a duration such as 30s",
		`7: Value is not accepted. Valid values: "off", "on".`,
		"7: Property key_env is not allowed.",
		`8: is not @public, @optional, @any, or scopes separated by spaces, with alternatives separated by " | "`,
	}, got["bad-proxy.yaml"].Mistakes)
	assert.ElementsMatch(t, []string{
		`4: Value is not accepted. Valid values: "ES256", "RS256", "EdDSA".`,
		`6: Missing property "id".`,
	}, got["bad-as.yaml"].Mistakes)
	assert.Contains(t, got["bad-proxy.yaml"].Hover, "Address of the listener")
	assert.Contains(t, got["bad-as.yaml"].Hover, "It is the iss of the tokens.")
}
