package issuers_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/snippets"
	"github.com/valetkey/valetkey/issuers"
)

const (
	page      = "docs/issuers.md"
	screenful = 48 // lines
)

// TestPage holds docs/issuers.md to the package: each constructor and each name has a section, and each snippet compiles and returns
// settings without a mistake. The tests of the proxy hold that the YAML beside a snippet gives the same settings.
func TestPage(t *testing.T) {
	text, err := os.ReadFile("../" + page)
	require.NoError(t, err)
	var titles []string
	var blocks []snippets.Block
	var products strings.Builder
	for _, s := range snippets.Sections(string(text)) {
		blocks = append(blocks, s.Go...)
		if !s.Product {
			continue
		}
		titles = append(titles, s.Title)
		assert.NotEmpty(t, s.Go, "%s: a Go snippet", s.Title)
		assert.Len(t, s.YAML, len(s.Go), "%s: a YAML snippet for each Go snippet", s.Title)
		assert.LessOrEqual(t, strings.Count(s.Text, "\n"), screenful, "%s: lines, which must fit on a screen", s.Title)
		assert.Contains(t, s.Text, "refused", "%s: what is refused", s.Title)
		_, documents, _ := strings.Cut(s.Text, "\nDocuments:")
		assert.Contains(t, documents, "](https://", "%s: links to the documents of the product", s.Title)
		products.WriteString(s.Text)
	}
	t.Run("the sections are sorted, and each product has one", func(t *testing.T) {
		sorted := slices.SortedFunc(slices.Values(titles), func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
		assert.Equal(t, sorted, titles)
		assert.Len(t, slices.Compact(sorted), len(titles), "two sections have one title")
	})
	t.Run("each constructor and each name is in a section", func(t *testing.T) {
		for _, name := range constructors(t) {
			assert.True(t, regexp.MustCompile(`\bissuers\.`+name+`\b`).MatchString(products.String()), "issuers.%s", name)
		}
		for _, name := range issuers.Names() {
			assert.True(t, regexp.MustCompile(`(?m)^issuer_type: `+name+`$`).MatchString(products.String()), "issuer_type: %s", name)
		}
		for _, name := range issuers.IntrospectionNames() {
			assert.True(t, regexp.MustCompile(`(?m)^introspection:\n  issuer_type: `+name+`$`).MatchString(products.String()), "introspection: issuer_type: %s", name)
		}
	})
	t.Run("each snippet returns settings without a mistake", func(t *testing.T) {
		results, err := snippets.Run("..", page, blocks)
		require.NoError(t, err)
		require.Len(t, results, len(blocks))
		for i, r := range results {
			assert.Empty(t, r.Error, "%s:%d", page, blocks[i].Line)
		}
	})
}

// TestFieldNamesShapes holds that each shape and relative that docs/field.md names exists. That the other tests exist is for the root test.
func TestFieldNamesShapes(t *testing.T) {
	text, err := os.ReadFile("../docs/field.md")
	require.NoError(t, err)
	known := map[string]bool{}
	for _, s := range shapes {
		name := s.of + " " + s.kind
		known[name] = true
		for _, r := range s.all() {
			known[name+"/"+r.name+" is refused"] = true
		}
	}
	named := regexp.MustCompile(`issuers TestShapes/([^|;`+"`"+`]+)`).FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, named)
	for _, m := range named {
		assert.True(t, known[strings.TrimSpace(m[1])], "docs/field.md: no shape or relative has the name %q", strings.TrimSpace(m[1]))
	}
}

// constructors returns the exported functions of the package that return the settings of one product.
func constructors(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && f.Recv == nil && f.Name.IsExported() && !strings.HasSuffix(path, "_test.go") && !strings.Contains(f.Name.Name, "Named") && !strings.HasSuffix(f.Name.Name, "Names") {
				names = append(names, f.Name.Name)
			}
		}
	}
	require.NotEmpty(t, names)
	return names
}
