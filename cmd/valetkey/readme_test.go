package main_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/demo"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

var update = flag.Bool("update", false, "write the quotes into the pages")

const readme = "../../README.md"

// place is where the demo runs unless told otherwise, and in the pages.
var place = demo.Place{Issuer: "http://127.0.0.1:8888", API: "http://127.0.0.1:8080"}

// demoBlocks are the parts of the demo in its page.
var demoBlocks = []string{"demo", "log-out", "after the log-out"}

// TestQuotes keeps the blocks of pages that are quotes, between <!-- name --> and <!-- end -->, true.
func TestQuotes(t *testing.T) {
	story := demo.Parts(place)
	require.Len(t, story, len(demoBlocks))
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

	for _, quote := range []struct{ page, name, language, content string }{
		{readme, "program", "go", string(program)},
		{"../../docs/demo.md", demoBlocks[0], "sh", story[0].Lines},
		{"../../docs/demo.md", demoBlocks[1], "sh", story[1].Lines},
		{"../../docs/demo.md", demoBlocks[2], "sh", story[2].Lines},
		{"../../docs/proxy.md", "proxy", "yaml", string(config)},
		{"../../docs/sender-constrained.md", "transfers", "go", bound},
		{"../../docs/authserver.md", "tutorial", "yaml", string(tutorial)},
	} {
		t.Run(quote.name, func(t *testing.T) {
			old, err := os.ReadFile(quote.page)
			require.NoError(t, err)
			block := regexp.MustCompile(`(?s)<!-- ` + quote.name + ` -->\n.*?<!-- end -->\n`)
			require.Len(t, block.FindAllString(string(old), -1), 1)
			text := block.ReplaceAllLiteralString(string(old), fmt.Sprintf("<!-- %s -->\n```%s\n%s```\n<!-- end -->\n", quote.name, quote.language, quote.content))
			if *update {
				require.NoError(t, os.WriteFile(quote.page, []byte(text), 0o644))
				return
			}
			assert.Equal(t, text, string(old), "run go test ./cmd/valetkey -update")
		})
	}
}

// block returns a block of a page.
func block(t *testing.T, page, name string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(text), "<!-- "+name+" -->\n```")
	require.True(t, found)
	_, rest, _ = strings.Cut(rest, "\n")
	content, _, found := strings.Cut(rest, "```\n<!-- end -->")
	require.True(t, found)
	return content
}

// start starts the demo.
func start(t *testing.T) *demo.Demo {
	t.Helper()
	d, err := demo.Start("127.0.0.1:0", "127.0.0.1:0", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ended)
	})
	require.NoError(t, d.Ready(t.Context()))
	return d
}

// TestREADMEProgram follows the README: it starts the program beside the demo, and sends the three requests.
func TestREADMEProgram(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	text, err := os.ReadFile(readme)
	require.NoError(t, err)
	command := regexp.MustCompile(`(?m)^    export (ISSUER=\S+) (AUDIENCE=\S+)\n    (ADDR=\S+) go run (\S+)$`).FindStringSubmatch(string(text))
	require.Len(t, command, 5)
	addr := clitest.FreeAddr(t)
	d := start(t)
	here := strings.NewReplacer(place.Issuer, d.Issuer, place.API, d.API, strings.TrimPrefix(command[3], "ADDR="), addr)

	program := filepath.Join(t.TempDir(), "orders")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	build := exec.Command("go", "build", "-o", program, command[4])
	build.Dir = "../.."
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	running := exec.Command(program)
	running.Env = os.Environ()
	for _, variable := range command[1:4] {
		running.Env = append(running.Env, here.Replace(variable))
	}
	require.NoError(t, running.Start())
	t.Cleanup(func() {
		running.Process.Kill()
		running.Wait()
	})
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, 2*time.Minute, 10*time.Millisecond)

	out, err = exec.Command("sh", "-c", here.Replace(block(t, readme, "requests"))).Output()
	require.NoError(t, err)
	answers := regexp.MustCompile(`(?m)^(HTTP/1.1 .*|Www-Authenticate: .*)\r$`).FindAllStringSubmatch(string(out), -1)
	var got strings.Builder
	for _, line := range answers {
		got.WriteString(line[1] + "\n")
	}
	assert.Equal(t, block(t, readme, "answers"), got.String())
}

// TestREADMEWithoutATag builds and tests a program in a separate module with the clone, as the README describes.
func TestREADMEWithoutATag(t *testing.T) {
	text, err := os.ReadFile(readme)
	require.NoError(t, err)
	command := regexp.MustCompile(`(?m)^    go work init \. (\S+) (\S+)$`).FindStringSubmatch(string(text))
	require.Len(t, command, 3)
	clone, err := filepath.Abs("../..")
	require.NoError(t, err)
	dir := t.TempDir()
	for _, name := range []string{"main.go", "main_test.go"} {
		program, err := os.ReadFile("../../adapters/valetgin/shop/" + name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), program, 0o644))
	}
	for _, args := range [][]string{
		{"mod", "init", "example.com/orders"},
		{"work", "init", ".", strings.Replace(command[1], "../valetkey", clone, 1), strings.Replace(command[2], "../valetkey", clone, 1)},
		{"build", "-o", os.DevNull, "."},
		{"test", "."},
	} {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=") // that of the temporary folder
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "go %v: %s", args, out)
	}
}

// TestDemoPage pastes the lines of docs/demo.md into shells.
func TestDemoPage(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	d := start(t)
	here := strings.NewReplacer(place.Issuer, d.Issuer, place.API, d.API)
	var parts []string
	for _, name := range demoBlocks {
		parts = append(parts, here.Replace(block(t, "../../docs/demo.md", name)))
	}
	out := clitest.Paste(t, parts)

	// The status of a response that becomes a variable is not shown; the others are in the order of the page.
	var want []string
	for one := range strings.SplitSeq(strings.Join(parts, "\n"), "\n\n") {
		if m := regexp.MustCompile(`(?m)^: '\d+\. .*: (\d{3})'$`).FindStringSubmatch(one); m != nil && strings.Contains(one, "curl -i") {
			want = append(want, m[1])
		}
	}
	require.NotEmpty(t, want)
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^HTTP/1.1 (\d{3}) `).FindAllStringSubmatch(out, -1) {
		got = append(got, m[1])
	}
	assert.Equal(t, want, got)
	for _, m := range regexp.MustCompile(`(?m)^: '(WWW-Authenticate: (?s:.*?))'$`).FindAllStringSubmatch(strings.Join(parts, "\n"), -1) {
		assert.Contains(t, strings.ReplaceAll(out, "Www-Authenticate", "WWW-Authenticate"), strings.ReplaceAll(m[1], "\n   ", " "))
	}
	assert.Contains(t, out, "event: end\ndata: the token has been revoked\n")
}

// TestSignalsPage runs the doctor of docs/signals.md against the demo.
func TestSignalsPage(t *testing.T) {
	d := start(t)
	here := strings.NewReplacer(place.Issuer, d.Issuer)
	name, args, _ := strings.Cut(strings.TrimSpace(here.Replace(block(t, "../../docs/signals.md", "doctor"))), " ")
	require.Equal(t, "valetkey", name)
	code, out, errs := clitest.Run(t, driver.Set{}, "", strings.Fields(args)...)
	require.Zero(t, code, out+errs)
	assert.True(t, strings.HasPrefix(out, here.Replace(block(t, "../../docs/signals.md", "doctor answers"))), out)
	assert.NotContains(t, out, "warn")
}
