package scopes_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/scopes"
)

func TestDescribe(t *testing.T) {
	assert.Empty(t, scopes.Requirement{}.Describe())
	needs := scopes.MustParse("b a | c | a d").Matching(scopes.Hierarchic).Describe()
	assert.Equal(t, valetkey.NewScopes("a", "b", "c", "d"), needs.All)
	assert.Equal(t, valetkey.NewScopes("c"), needs.Challenge, "the shortest alternative")
}
