package cli_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
)

func TestColors(t *testing.T) {
	const green, red, plain = "\x1b[32m", "\x1b[31;1m", "\x1b[0m"
	for _, c := range []struct {
		name   string
		writes []string
		want   string
	}{
		{"text without a verdict", []string{"alice is ok\n", "okay\n"}, "alice is ok\nokay\n"},
		{"JSON", []string{"{\"ok\": true}\n"}, "{\"ok\": true}\n"},
		{"the middle of a line", []string{"it is ", "ok\n"}, "it is ok\n"},
		{"verdicts", []string{"ok  signature\nNO  scope\n"}, green + "ok" + plain + "  signature\n" + red + "NO" + plain + "  scope\n"},
		{"a verdict that is indented, and one without more", []string{"  ok\n", "fail\n"}, "  " + green + "ok" + plain + "\n" + red + "fail" + plain + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			w := cli.Painter(&out)
			for _, text := range c.writes {
				n, err := io.WriteString(w, text)
				require.NoError(t, err)
				assert.Equal(t, len(text), n)
			}
			assert.Equal(t, c.want, out.String())
		})
	}
	t.Run("a token that contains a color is not colored by it", func(t *testing.T) {
		_, out, _ := run(t, "", "inspect", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJcdTAwMWJbMzFtIn0.")
		assert.NotContains(t, out, "\x1b")
	})
}
