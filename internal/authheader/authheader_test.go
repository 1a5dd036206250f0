package authheader_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/authheader"
)

func TestTokenLimit(t *testing.T) {
	for setting, want := range map[int]int{0: valetkey.MaxTokenBytes, 1: 1, 16 << 10: 16 << 10, 64 << 10: 64 << 10} {
		got, err := authheader.TokenLimit(setting)
		assert.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, setting := range []int{-1, 64<<10 + 1} {
		_, err := authheader.TokenLimit(setting)
		assert.ErrorContains(t, err, "is not between 0 and 65536")
	}
}

func TestIsToken(t *testing.T) {
	for token, want := range map[string]bool{
		"": false, "=": false, "a b": false, "a=b": false, "a=.b": false, "a.b,c": false, "a.b.c": true, "a.b.c==": true, "a-._~+/9==": true,
	} {
		assert.Equal(t, want, authheader.IsToken(token), token)
	}
}
