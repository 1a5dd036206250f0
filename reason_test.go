package valetkey_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
)

func TestNewReasonRefusesMistakesInTheSource(t *testing.T) {
	valetkey.NewReason("test_taken", "taken")
	for _, c := range []struct{ name, id, description, want string }{
		{"no identifier", "", "d", "id"},
		{"a space", "a b", "d", "id"},
		{"a capital", "Expired", "d", "id"},
		{"a digit first", "1a", "d", "id"},
		{"a letter beyond ASCII", "größe", "d", "id"},
		{"an identifier as long as a token", strings.Repeat("a", 65), "d", "id"},
		{"no description", "test_empty", "", "description: required"},
		{"an identifier with another description", "test_taken", "other", `already created, with the description "taken"`},
		{"the identifier of a constant", "expired", "other", "already created"},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer func() { assert.Contains(t, fmt.Sprint(recover()), c.want) }()
			valetkey.NewReason(c.id, c.description)
		})
	}
	assert.NotContains(t, valetkey.Reasons(), valetkey.Reason("test_empty"))

	t.Run("the same reason again", func(t *testing.T) {
		assert.Equal(t, valetkey.NewReason("test_taken", "taken"), valetkey.NewReason("test_taken", "taken"))
	})
}

func TestAReasonThatWasNotCreatedTellsNothing(t *testing.T) {
	made := valetkey.Reason("made of " + strings.Repeat("x", 10))
	assert.False(t, made.Known())
	assert.Empty(t, made.Description())
	assert.Equal(t, "invalid_token", (&valetkey.Error{Code: valetkey.InvalidToken, Reason: made}).Error())
}

func TestEveryReasonHasItsDescription(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	require.NoError(t, err)
	texts := map[string]valetkey.Reason{}
	for _, decl := range file.Decls {
		constants, ok := decl.(*ast.GenDecl)
		if !ok || constants.Tok != token.CONST {
			continue
		}
		for _, spec := range constants.Specs {
			id, err := strconv.Unquote(spec.(*ast.ValueSpec).Values[0].(*ast.BasicLit).Value)
			require.NoError(t, err)
			r := valetkey.Reason(id)
			assert.True(t, r.Known(), "%s has no description", r)
			assert.Regexp(t, "^[a-z][a-z0-9_]{0,63}$", id)
			if r != valetkey.ReasonNoCredentials { // RFC 6750, section 3: the characters of error_description
				assert.Regexp(t, `^[\x20-\x21\x23-\x5B\x5D-\x7E]+$`, r.Description(), "of %s", r)
			}
			assert.Empty(t, texts[r.Description()], "%s has the same description", r)
			texts[r.Description()] = r
		}
	}
	assert.Greater(t, len(texts), 50)
}
