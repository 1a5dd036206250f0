package cli_test

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

// help returns the help of a command.
func help(t *testing.T, command ...string) string {
	t.Helper()
	var out, problems bytes.Buffer
	code := cli.Run(context.Background(), driver.Set{}, append(command, "--help"), strings.NewReader(""), &out, &problems)
	require.Equal(t, cli.Good, code, problems.String())
	return out.String()
}

func TestHelpFitsIntoATerminal(t *testing.T) {
	names := regexp.MustCompile(`(?m)^  ([a-z]+)  `)
	var visit func(command []string)
	visit = func(command []string) {
		text := help(t, command...)
		for line := range strings.Lines(text) {
			assert.LessOrEqual(t, len(strings.TrimSuffix(line, "\n")), 80, "valetkey %s: %s", strings.Join(command, " "), line)
		}
		_, below, _ := strings.Cut(text, "Available Commands:\n")
		below, _, _ = strings.Cut(below, "\nFlags:")
		for _, m := range names.FindAllStringSubmatch(below, -1) {
			if m[1] != "help" && m[1] != "completion" { // those of cobra
				visit(append(command[:len(command):len(command)], m[1]))
			}
		}
	}
	visit(nil)
}

func TestUnknownCommands(t *testing.T) {
	for _, c := range []struct{ name, command, want string }{
		{"a command with a typing error", "insepct", "valetkey: unknown command; did you mean inspect?\n"},
		{"a part of one", "author", "valetkey: unknown command; did you mean authorize?\n"},
		{"what may be a token, which is not printed", "eyJhbGciOiJub25lIn0.e30.", "valetkey: unknown command; see valetkey --help\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, problems bytes.Buffer
			code := cli.Run(context.Background(), driver.Set{}, []string{c.command}, strings.NewReader(""), &out, &problems)
			assert.Equal(t, cli.Mistake, code)
			assert.Equal(t, c.want, problems.String())
		})
	}
}
