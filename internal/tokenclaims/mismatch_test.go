package tokenclaims_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

func TestMismatch(t *testing.T) {
	long := strings.Repeat("x", 16<<10)
	for _, c := range []struct {
		name            string
		got, configured []string
		want            string
	}{
		{"nothing in the token", nil, []string{"a"}, `audience: none in the token, "a" configured`},
		{"one of each", []string{"a/"}, []string{"a"}, `audience: "a/" in the token, "a" configured`},
		{"several of each", []string{"a", "b"}, []string{"c", "d"}, `audience: "a", "b" in the token, "c", "d" configured`},
		{"too many", strings.Split("abcdefg", ""), []string{"x"}, `audience: "a", "b", "c", "d", "e", "f", and 1 more in the token, "x" configured`},
		{"too long", []string{long}, []string{"x"}, `audience: "` + long[:200] + `" in the token, "x" configured`},
		{"what could control a terminal or forge a line", []string{"\x1b[2J\u202e\nlevel=ERROR\xff"}, []string{"x"},
			`audience: "\x1b[2J\u202e\nlevel=ERROR\xff" in the token, "x" configured`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := tokenclaims.Mismatch("audience", "token", c.got, func() []string { return c.configured })
			assert.EqualError(t, err, c.want)
			err = tokenclaims.NotApplicable(err)
			assert.EqualError(t, err, c.want)
			assert.ErrorIs(t, err, valetkey.ErrNotApplicable)
		})
	}
	cause := errors.New("cause")
	assert.ErrorIs(t, tokenclaims.NotApplicable(cause), cause)
}
