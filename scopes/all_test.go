package scopes_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/scopes"
)

func TestScopes(t *testing.T) {
	assert.Empty(t, scopes.Requirement{}.Scopes())
	assert.Equal(t, valetkey.Scopes{"a", "b", "c"}, scopes.MustParse("b a | c | a").Matching(scopes.Hierarchic).Scopes())
}
