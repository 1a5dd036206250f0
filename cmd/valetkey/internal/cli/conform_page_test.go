package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/conformance"
)

const (
	conformPage    = "../../../../docs/conform.md"
	expressHarness = "../../../../conformance/harness/express"
)

var (
	conformLine = regexp.MustCompile(`(?m)^(?: {4})?valetkey conform (.*)$`)
	word        = regexp.MustCompile(`"([^"]*)"|(\S+)`)
)

// argumentsOf splits a line of the page as a shell does.
func argumentsOf(line string) (args []string) {
	for _, m := range word.FindAllStringSubmatch(line, -1) {
		args = append(args, m[1]+m[2])
	}
	return args
}

// TestConformPage runs the first command of docs/conform.md on its Express server, with the cases of a few groups.
func TestConformPage(t *testing.T) {
	page, err := os.ReadFile(conformPage)
	require.NoError(t, err)
	program, err := os.ReadFile(filepath.Join(expressHarness, "server.js"))
	require.NoError(t, err)
	assert.Contains(t, string(page), "<!-- server.js -->\n```js\n"+string(program)+"```\n<!-- end -->", "the program on the page")

	lines := conformLine.FindAllStringSubmatch(string(page), -1)
	require.Len(t, lines, 3)
	for _, line := range lines {
		// With --list, a command parses its flags and selects cases, and stops there.
		code, _, stderr := clitest.Run(t, driver.Set{}, "", append(append([]string{"conform"}, argumentsOf(line[1])...), "--list")...)
		assert.Equal(t, 0, code, "%s: %s", line[1], stderr)
	}
	for _, id := range []string{"bearer-two-spaces", "bearer-five-spaces"} {
		_, ok := conformance.FindCase(id)
		assert.True(t, ok, "the page mentions %s", id)
	}
	for _, flag := range regexp.MustCompile("`(--[a-z]+) ([a-z]+[^`]*)`").FindAllStringSubmatch(string(page), -1) {
		for _, name := range strings.FieldsFunc(flag[2], func(r rune) bool { return r == ',' || r == ' ' }) {
			switch flag[1] {
			case "--profile":
				assert.Contains(t, conformance.Profiles(), conformance.Profile(name))
			case "--feature":
				assert.Contains(t, conformance.Features(), conformance.Feature(name))
			}
		}
	}

	t.Run("the Express server", func(t *testing.T) {
		if _, err := exec.LookPath("node"); err != nil {
			t.Skip("node is not installed")
		}
		if _, err := os.Stat(filepath.Join(expressHarness, "node_modules")); err != nil {
			t.Skip("npm ci has not run in conformance/harness/express")
		}
		t.Chdir(expressHarness)
		args := append([]string{"conform"}, argumentsOf(lines[0][1])...)
		code, stdout, stderr := clitest.Run(t, driver.Set{}, "", append(args, "--group", "bearer,scopes,algorithms", "--rate", "1000")...)
		require.NotEqual(t, 2, code, "%s%s", stdout, stderr)
		assert.Contains(t, stdout, "passed  failed  differs")
		if failed := strings.Contains(stdout, "FAILED "); assert.Equal(t, failed, code == 1, stdout) && failed {
			assert.Contains(t, stdout, "why it matters: ")
		}
	})
}

// TestConformProxy tests valetkey proxy as any other server: as a program that the command starts.
func TestConformProxy(t *testing.T) {
	if testing.Short() {
		t.Skip("builds two programs")
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin+"/", "./conformance/harness/proxy", "./cmd/valetkey")
	build.Dir = "../../../.."
	output, err := build.CombinedOutput()
	require.NoError(t, err, string(output))
	code, stdout, stderr := clitest.Run(t, driver.Set{}, "", "conform", "--start", bin+"/proxy --valetkey "+bin+"/valetkey", "--target", "/any",
		"--profile", "bearer,rfc9068,introspection,metadata,dpop,step-up,mcp,fapi2", "--scope-route", "/scope=orders:read",
		"--scope-route", "/scopes=orders:read orders:write", "--route", "acr=/acr=phr", "--route", "max-age=/max-age=300",
		"--route", "optional=/optional", "--route", "rar=/rar", "--feature", "identity,second-issuer,dpop-replay,dpop-nonce,status-list,signed-introspection",
		"--rate", "2000")
	assert.Equal(t, 0, code, "%s\n%s", stdout, stderr)
	assert.NotContains(t, stdout, "FAILED")
}
