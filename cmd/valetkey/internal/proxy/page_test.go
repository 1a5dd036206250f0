package proxy_test

import (
	"cmp"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/valetkey/valetkey/internal/snippets"
)

// TestProxyPage loads each YAML snippet of docs/proxy.md. The first is a whole file; the others replace or add fields of the file
// good.
func TestProxyPage(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/proxy.md")
	require.NoError(t, err)
	var blocks []snippets.Block
	for _, s := range snippets.Sections(string(text)) {
		blocks = append(blocks, s.YAML...)
	}
	require.NotEmpty(t, blocks)
	t.Setenv("API_SECRET", "x")
	t.Setenv("REDIS_KEY", key)
	t.Setenv("AUDIT_KEY", key)
	t.Setenv("REDIS_PASSWORD", redisPassword)
	keys, _ := keyFile(t)
	for i, block := range blocks {
		config := strings.ReplaceAll(block.Text, "api-keys.json", keys)
		if i > 0 {
			var given map[string]any
			require.NoError(t, yaml.Unmarshal([]byte(block.Text), &given), "docs/proxy.md:%d", block.Line)
			given["upstream"] = cmp.Or(given["upstream"], given["upstreams"]) // either
			for line := range strings.Lines(good) {
				if field, _, _ := strings.Cut(line, ":"); given[field] == nil {
					config += line
				}
			}
		}
		p, err := load(t, config, slog.New(slog.DiscardHandler))
		if assert.NoError(t, err, "docs/proxy.md:%d", block.Line) {
			p.Close()
		}
	}
}
