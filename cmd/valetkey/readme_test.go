package main_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/demo"
)

var update = flag.Bool("update", false, "write what the README quotes into it")

const readme = "../../README.md"

// place is where the demo runs unless told otherwise, and in the README.
var place = demo.Place{Issuer: "http://127.0.0.1:8888", API: "http://127.0.0.1:8080"}

// TestREADMEQuotes keeps the blocks of the README that are quotes, between <!-- name --> and <!-- end -->, true.
func TestREADMEQuotes(t *testing.T) {
	var lines bytes.Buffer
	demo.Print(&lines, place)
	_, shell, found := strings.Cut(lines.String(), "\n\n")
	require.True(t, found)
	program, err := os.ReadFile("../../examples/orders/main.go")
	require.NoError(t, err)
	config, err := os.ReadFile("testdata/proxy.yaml")
	require.NoError(t, err)
	tutorial, err := os.ReadFile("../../examples/serve/tutorial.yaml")
	require.NoError(t, err)
	transfers, err := os.ReadFile("../../fapi/readme_test.go")
	require.NoError(t, err)
	parts := strings.Split(string(transfers), "\t// README\n")
	require.Len(t, parts, 3)
	bound := strings.ReplaceAll("\n"+parts[1], "\n\t", "\n")[1:]

	old, err := os.ReadFile(readme)
	require.NoError(t, err)
	text := string(old)
	for _, quote := range []struct{ name, language, content string }{
		{"program", "go", string(program)},
		{"demo", "sh", strings.TrimSpace(shell) + "\n"},
		{"proxy", "yaml", string(config)},
		{"transfers", "go", bound},
		{"tutorial", "yaml", string(tutorial)},
	} {
		block := regexp.MustCompile(`(?s)<!-- ` + quote.name + ` -->\n.*?<!-- end -->\n`)
		require.Len(t, block.FindAllString(text, -1), 1, quote.name)
		text = block.ReplaceAllLiteralString(text, fmt.Sprintf("<!-- %s -->\n```%s\n%s```\n<!-- end -->\n", quote.name, quote.language, quote.content))
	}
	if *update {
		require.NoError(t, os.WriteFile(readme, []byte(text), 0o644))
		return
	}
	assert.Equal(t, text, string(old), "run go test ./cmd/valetkey -update")
}

// TestREADMELines pastes the lines of the README into a shell.
func TestREADMELines(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	text, err := os.ReadFile(readme)
	require.NoError(t, err)
	_, block, found := strings.Cut(string(text), "<!-- demo -->\n```sh\n")
	require.True(t, found)
	block, _, _ = strings.Cut(block, "```")

	d, err := demo.Start("127.0.0.1:0", "127.0.0.1:0", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Serve(ctx) }()
	defer func() {
		cancel()
		assert.NoError(t, <-ended)
	}()

	out, err := exec.Command("sh", "-c", strings.NewReplacer(place.Issuer, d.Issuer, place.API, d.API).Replace(block)).Output()
	require.NoError(t, err)

	// Whoever gets a token has its status eaten by sed; the others are in the order printed.
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^# \d+\. (.*): (\d{3})$`).FindAllStringSubmatch(block, -1) {
		if !strings.Contains(m[1], "gets a token") {
			want = append(want, m[2])
		}
	}
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^HTTP/1.1 (\d{3}) `).FindAllStringSubmatch(string(out), -1) {
		got = append(got, m[1])
	}
	assert.Equal(t, want, got)
	for _, m := range regexp.MustCompile(`(?m)^# (WWW-Authenticate: .*)$`).FindAllStringSubmatch(block, -1) {
		assert.Contains(t, strings.ReplaceAll(string(out), "Www-Authenticate", "WWW-Authenticate"), m[1])
	}
}
