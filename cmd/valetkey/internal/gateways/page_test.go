package gateways_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/internal/snippets"
)

// TestGatewaysPage loads the YAML of docs/gateways.md, whose first snippet is a whole file to which the others add fields, and follows its
// links.
func TestGatewaysPage(t *testing.T) {
	const page = "../../../../docs/gateways.md"
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	var blocks []snippets.Block
	for _, s := range snippets.Sections(string(text)) {
		blocks = append(blocks, s.YAML...)
	}
	require.Len(t, blocks, 3)
	for i, block := range blocks {
		whole := block.Text
		if i > 0 {
			whole += blocks[0].Text
		}
		path := filepath.Join(t.TempDir(), "authorize.yaml")
		require.NoError(t, os.WriteFile(path, []byte(whole), 0o600))
		a, err := proxy.LoadAuthorizer(path, driver.Set{}, slog.New(slog.DiscardHandler))
		if err == nil {
			a.Close()
			continue
		}
		for line := range strings.SplitSeq(err.Error(), "\n") { // files of a reader
			assert.Contains(t, line, "no such file or directory", "docs/gateways.md:%d", block.Line)
		}
	}
	links := regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(string(text), -1)
	assert.Greater(t, len(links), 15)
	for _, link := range links {
		_, err := os.Stat(filepath.Join(filepath.Dir(page), link[1]))
		assert.NoError(t, err)
	}
	entries, err := os.ReadDir(examples)
	require.NoError(t, err)
	for _, e := range entries {
		assert.Contains(t, string(text), "../examples/gateways/"+e.Name()+")", "the table lacks it")
	}

	var keys map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(blocks[0].Text), &keys))
	schema, err := proxy.AuthorizeSchema()
	require.NoError(t, err)
	for key := range keys {
		assert.Contains(t, schema["properties"], key)
	}
}
