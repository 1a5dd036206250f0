package valetkey_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestHouse holds the rules that keep the house in its shape: who may import what.
func TestHouse(t *testing.T) {
	only := map[string]string{ // import path prefix -> the one folder that may
		"github.com/lestrrat-go/jwx":        "internal/jose",
		"github.com/patrickmn/go-cache":     "internal/tokencache",
		"github.com/luikyv/go-oidc":         "authserver/internal/engine",
		"github.com/stretchr/testify":       "_test.go files",
		"github.com/valetkey/valetkey/jwks": "not the root, scopes, internal or middleware",
	}
	seen := map[string]bool{}
	eachGoFile(t, func(path string) {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		dir, test := filepath.ToSlash(filepath.Dir(path)), strings.HasSuffix(path, "_test.go")
		for _, spec := range file.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			for prefix, where := range only {
				if imported != prefix && !strings.HasPrefix(imported, prefix+"/") {
					continue
				}
				allowed := dir == where
				switch prefix {
				case "github.com/stretchr/testify":
					allowed = test
				case "github.com/valetkey/valetkey/jwks":
					allowed = test || dir != "." && dir != "scopes" && dir != "middleware" && !strings.HasPrefix(dir, "internal")
				case "github.com/patrickmn/go-cache", "github.com/luikyv/go-oidc", "github.com/lestrrat-go/jwx":
					seen[prefix] = seen[prefix] || allowed
				}
				if !allowed {
					t.Errorf("%s imports %s, which belongs to: %s", path, imported, where)
				}
			}
		}
	})
	for _, prefix := range []string{"github.com/lestrrat-go/jwx", "github.com/patrickmn/go-cache", "github.com/luikyv/go-oidc"} {
		if !seen[prefix] {
			t.Errorf("nobody imports %s: the rule above guards nothing", prefix)
		}
	}
}

// eachGoFile calls f for every Go file of the repository.
func eachGoFile(t *testing.T, f func(path string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && path == "benchmarks" { // its business is to import peers
			return filepath.SkipDir
		}
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".go") {
			f(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
