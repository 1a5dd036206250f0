package proxy_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/internal/snippets"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
)

const issuersPage = "docs/issuers.md"

// TestIssuersPage reads each YAML snippet of docs/issuers.md as the proxy does, and compares the settings with those of the Go snippet above.
func TestIssuersPage(t *testing.T) {
	root := "../../../.."
	text, err := os.ReadFile(filepath.Join(root, issuersPage))
	require.NoError(t, err)
	var inGo, inYAML []snippets.Block
	for _, s := range snippets.Sections(string(text)) {
		require.Len(t, s.YAML, len(s.Go), "%s: snippets of Go and YAML", s.Title)
		inGo, inYAML = append(inGo, s.Go...), append(inYAML, s.YAML...)
	}
	results, err := snippets.Run(root, issuersPage, inGo)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(results), len(issuers.Names())/2)
	for i, block := range inYAML {
		cfg, err := keys(t, block)
		if strings.Contains(results[i].Config, "/var/run/secrets/") && err != nil { // the files of a pod are not here
			for line := range strings.Lines(err.Error()) {
				assert.Contains(t, line, "/var/run/secrets/", "%s:%d", issuersPage, block.Line)
			}
			continue
		}
		if assert.NoError(t, err, "%s:%d", issuersPage, block.Line) {
			assert.Equal(t, results[i].Config, snippets.Describe(cfg), "%s:%d is not the same as the Go snippet in line %d", issuersPage, block.Line, inGo[i].Line)
		}
	}
}

// TestIssuersPageListsEachSetting holds the table of settings to the fields of files and of jwks.Config.
func TestIssuersPageListsEachSetting(t *testing.T) {
	text, err := os.ReadFile("../../../../" + issuersPage)
	require.NoError(t, err)
	var rows []string
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) == 6 {
			rows = append(rows, strings.TrimSpace(cells[1])+" "+strings.TrimSpace(cells[2]))
		}
	}
	table := strings.Join(rows, "\n")
	for _, name := range (issuer.Tokens{}).Fields() {
		if name != "issuer_type" && name != "tenants" && name != "allow" { // parameters of constructors, and a list of settings
			assert.Contains(t, table, "`"+name+"`")
		}
	}
	for _, name := range issuer.Allowances() {
		assert.Contains(t, table, "`allow: "+name+"`")
	}
	for i := range reflect.TypeFor[jwks.Profile]().NumField() {
		assert.Contains(t, table, "`Profile."+reflect.TypeFor[jwks.Profile]().Field(i).Name+"`")
	}
}

// keys returns the settings of the verifier whose fields are given, or of the verifiers of a file without its other fields.
func keys(t *testing.T, block snippets.Block) (jwks.Config, error) {
	t.Helper()
	fields := block.Text
	config := "listen: 127.0.0.1:0\nupstream: http://127.0.0.1:9\nroutes: {/: '@any'}\n"
	if strings.Contains(fields, "verifiers:\n") {
		config += fields
	} else {
		config += "verifiers:\n  - jwks:\n"
		for line := range strings.Lines(fields) {
			config += "      " + line
		}
	}
	dir := t.TempDir()
	require.NoError(t, block.WriteFiles(dir))
	path := filepath.Join(dir, "proxy.yaml")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	all, err := proxy.Targets(path, drivers, slog.New(slog.DiscardHandler))
	if err != nil {
		return jwks.Config{}, err
	}
	require.Len(t, all, 1)
	return *all[0].Keys, nil
}
