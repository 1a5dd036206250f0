package cli_test

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestVersion(t *testing.T) {
	t.Run("an argument is refused", func(t *testing.T) {
		code, _, stderr := run(t, "", "version", "now")
		assert.Equal(t, 2, code)
		assert.NotContains(t, stderr, "valetkey version\n")
	})
	t.Run("the flag prints one line", func(t *testing.T) {
		code, stdout, stderr := run(t, "", "--version")
		assert.Equal(t, 0, code)
		assert.Regexp(t, regexp.MustCompile(`^valetkey version \S+\n$`), stdout)
		assert.Empty(t, stderr)
	})
	t.Run("the command adds the build", func(t *testing.T) {
		code, stdout, _ := run(t, "", "version")
		assert.Equal(t, 0, code)
		assert.Regexp(t, regexp.MustCompile(`^valetkey \S+\npackage  \S+\ngo       go1\.\S+.*\nplatform \w+/\w+\n$`), stdout)
	})
}
