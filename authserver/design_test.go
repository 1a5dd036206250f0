package authserver_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The drawings of the design name functions and types, which have to exist.
func TestDesignPage(t *testing.T) {
	page, err := os.ReadFile("../docs/authserver-design.md")
	require.NoError(t, err)
	folders := map[string]string{
		"engine": "internal/engine", "flow": "internal/flow", "pages": "internal/pages", "clients": "internal/clients", "keys": "internal/keys",
		"login": "login",
	}
	names := regexp.MustCompile(`\b(engine|flow|pages|clients|keys|login)\.([A-Za-z]+)`).FindAllStringSubmatch(string(page), -1)
	require.Greater(t, len(names), 30)
	declared := map[string]map[string]bool{}
	for _, name := range names {
		of := name[1]
		if declared[of] == nil {
			declared[of] = declarations(t, folders[of])
		}
		assert.True(t, declared[of][name[2]], "%s is not declared", name[0])
	}
}

// declarations returns the names of the functions, methods and types of a package.
func declarations(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(folder + "/*.go")
	require.NoError(t, err)
	names := map[string]bool{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				names[n.Name.Name] = true
			case *ast.TypeSpec:
				names[n.Name.Name] = true
			}
			return true
		})
	}
	return names
}
