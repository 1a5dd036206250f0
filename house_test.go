package valetkey_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestHouse checks which packages may import which modules.
func TestHouse(t *testing.T) {
	only := map[string]string{ // import path prefix -> the one folder that may
		"github.com/lestrrat-go/jwx":    "internal/jose",
		"github.com/patrickmn/go-cache": "internal/tokencache",
		"go.yaml.in/yaml":               "internal/config",

		"github.com/valetkey/valetkey/authserver/internal/engine": "authserver", // which alone calls both
		"github.com/valetkey/valetkey/authserver/internal/pages":  "authserver",

		"github.com/stretchr/testify":       "_test.go files",
		"github.com/valetkey/valetkey/jwks": "not the root, scopes or internal",
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
				case "go.yaml.in/yaml", "github.com/valetkey/valetkey/authserver/internal/engine", "github.com/valetkey/valetkey/authserver/internal/pages":
					allowed = allowed || test
				case "github.com/stretchr/testify":
					allowed = test
				case "github.com/valetkey/valetkey/jwks":
					allowed = test || dir != "." && dir != "scopes" && !strings.HasPrefix(dir, "internal")
				case "github.com/patrickmn/go-cache", "github.com/lestrrat-go/jwx":
					seen[prefix] = seen[prefix] || allowed
				}
				if !allowed {
					t.Errorf("%s imports %s, which belongs to: %s", path, imported, where)
				}
			}
		}
	})
	for _, prefix := range []string{"github.com/lestrrat-go/jwx", "github.com/patrickmn/go-cache"} {
		if !seen[prefix] {
			t.Errorf("no package imports %s: the rule above has no effect", prefix)
		}
	}
}

// layers are the folders of this repository from the bottom up. A package imports packages of its own layer or of a lower one.
// A folder includes those below it unless they are listed; "." is the root package alone.
var layers = [][]string{
	{"internal/authctx", "internal/derived", "internal/strictjson"},
	{"."},
	{"scopes", "claims", "rar", "internal"},
	{"jwks", "introspect", "apikey", "dpop", "statuslist"},
	{"middleware", "issuers"},
	{"routes", "fapi", "onbehalf", "signals"},
	{"conformance", "valetkeytest", "adapters", "authserver", "cmd", "examples", "deploy", "docs", "scripts", "tools", "internal/fleet", "internal/faults", "internal/proxied"},
}

func layerOf(dir string) (layer int, folder string) {
	layer = -1
	for i, folders := range layers {
		for _, f := range folders {
			if (dir == f || f != "." && strings.HasPrefix(dir, f+"/")) && len(f) >= len(folder) {
				layer, folder = i, f
			}
		}
	}
	return layer, folder
}

// TestLayers holds the direction of imports.
func TestLayers(t *testing.T) {
	const module = "github.com/valetkey/valetkey"
	checked := 0
	eachGoFile(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		own, folder := layerOf(dir)
		if own < 0 {
			t.Errorf("%s: no layer has the folder %s", path, dir)
		}
		for _, spec := range file.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			rest, ours := strings.CutPrefix(imported, module)
			if !ours || rest != "" && rest[0] != '/' {
				continue
			}
			target := "."
			if rest != "" {
				target = rest[1:]
			}
			checked++
			if layer, _ := layerOf(target); layer > own {
				t.Errorf("%s imports %s, which is in a higher layer", path, target)
			}
			if folder == "adapters" && strings.HasPrefix(target, "internal/") {
				t.Errorf("%s imports %s: an adapter lives by what is exported, as those of others do", path, target)
			}
		}
	})
	if checked < 100 {
		t.Errorf("only %d imports were checked", checked)
	}
}

// TestLightCommandHasNoHeavyModules keeps the drivers out of the module of the light command. Its go.mod lists every module that a
// package or a test in it needs, directly or not.
func TestLightCommandHasNoHeavyModules(t *testing.T) {
	light, err := os.ReadFile("cmd/valetkey/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	full, err := os.ReadFile("cmd/valetkey/full/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, heavy := range []string{"modernc.org/sqlite ", "modernc.org/libc ", "github.com/jackc/pgx/", "github.com/go-ldap/ldap/",
		"/authserver/sqlitestore ", "/authserver/pgstore ", "/authserver/ldaplogin ", "/adapters/valetenvoy "} {
		if strings.Contains(string(light), heavy) {
			t.Errorf("cmd/valetkey needs %s, which belongs to cmd/valetkey/full", heavy)
		}
		if !strings.Contains(string(full), heavy) {
			t.Errorf("cmd/valetkey/full needs no %s: the rule above guards nothing", heavy)
		}
	}
	// The tests of the proxy use the OpenAPI driver, so go.mod lists it; nothing else may.
	eachGoFile(t, func(path string) {
		path = filepath.ToSlash(path)
		if !strings.HasPrefix(path, "cmd/valetkey/") || strings.HasPrefix(path, "cmd/valetkey/full/") || strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			if strings.Contains(spec.Path.Value, "openapi") {
				t.Errorf("%s imports %s, which belongs to cmd/valetkey/full", path, spec.Path.Value)
			}
		}
	})
}

// TestAdaptersWriteNoFakeHTTP holds that adapters carry decisions as values: a type that poses as an http.ResponseWriter is how
// they would be written and parsed again.
func TestAdaptersWriteNoFakeHTTP(t *testing.T) {
	files := 0
	eachGoFile(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") || !strings.HasPrefix(filepath.ToSlash(path), "adapters/") {
			return
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil && f.Name.Name == "WriteHeader" {
				t.Errorf("%s has a type with the method WriteHeader", path)
			}
		}
	})
	if files < 10 {
		t.Errorf("only %d files of adapters were found", files)
	}
}

// matchers are what text is taken apart with in package strings, bytes and regexp.
var matchers = regexp.MustCompile(`^(Contains|HasPrefix|HasSuffix|Cut|Trim|Index|LastIndex|EqualFold|Count|Split|Fields|Replace|Match|Find)`)

// TestCodeMatchesNoErrorText holds that code decides on the types and fields of an error and never on its text: a better
// sentence must not change what a program does.
func TestCodeMatchesNoErrorText(t *testing.T) {
	allowed := map[string]string{ // "file function" -> why
		"internal/config/config.go Contains":                "yaml.v3 has no type for an unknown anchor, whose name may be a secret",
		"internal/config/config.go ReplaceAll":              "prints several lines as one",
		"adapters/valetredis/revocations.go Contains":       "redis answers with text alone: ERR no such key",
		"adapters/valetredis/revocations.go ==":             "reports a change of the text, whatever it says",
		"cmd/valetkey/internal/cli/cli.go Contains":         "pflag has no type for an unknown shorthand, which may be a token",
		"cmd/valetkey/internal/cli/cli.go SplitSeq":         "prints each line with the name of the command",
		"cmd/valetkey/internal/doctor/token.go !=":          "asks whether a setting changed the refusal, whatever it says",
		"cmd/valetkey/internal/issuer/issuer.go ReplaceAll": "prints several lines as one",
	}
	used := map[string]bool{}
	eachGoFile(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			var what string
			var operands []ast.Expr
			switch n := n.(type) {
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && matchers.MatchString(f.Sel.Name) {
					what, operands = f.Sel.Name, n.Args
				}
			case *ast.BinaryExpr:
				if n.Op == token.EQL || n.Op == token.NEQ {
					what, operands = n.Op.String(), []ast.Expr{n.X, n.Y}
				}
			case *ast.SwitchStmt:
				if n.Tag != nil {
					what, operands = "switch", []ast.Expr{n.Tag}
				}
			}
			key := filepath.ToSlash(path) + " " + what
			for _, o := range operands {
				switch {
				case !errorText(o):
				case allowed[key] != "":
					used[key] = true
				default:
					t.Errorf("%s: %s takes the text of an error apart: give the error a type or a field", path, what)
				}
			}
			return true
		})
	})
	for key := range allowed {
		if !used[key] {
			t.Errorf("%s is allowed and does not exist", key)
		}
	}
}

// errorText reports whether an expression reads the text of an error: x.Error() is somewhere in it.
func errorText(e ast.Expr) (found bool) {
	ast.Inspect(e, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && len(call.Args) == 0 {
			f, ok := call.Fun.(*ast.SelectorExpr)
			found = found || ok && f.Sel.Name == "Error"
		}
		return true
	})
	return found
}

// refused are phrases that read as translated, each with plain English in its place.
var refused = []struct {
	phrase  *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?i)(?:^|[\s(])(?:nobody|somebody|anybody|everybody)(?:$|[\s,:.)'])`), "name who: no caller, another user, every client, an unknown key"},
	{regexp.MustCompile(`(?i)\b(?:is|are|was|were) told\b`), "gets, is reported, is configured"},
	{regexp.MustCompile(`(?i)\btells of\b`), "reports"},
	{regexp.MustCompile(`(?i)\bstands? in (?:a|an|the|each|tokens|its)\b`), "is in"},
	{regexp.MustCompile(`(?i)\bof (?:its|their) own(?:$|[,.;:)])`), "separate, another"},
	{regexp.MustCompile(`(?i)\bas such\b`), "leave it out"},
	{regexp.MustCompile(`(?i)\bholds? no longer\b`), "is rejected, has expired"},
	{regexp.MustCompile(`(?i)\bthat (?:is|are) none\b`), "invalid"},
	{regexp.MustCompile(`(?i)\bof one's own\b`), "another, custom"},
	{regexp.MustCompile(`(?i)\bsays? (?:so|nothing|no|that|what|which|who|whose|how|when|where|whether|otherwise)\b`), "states, reports, returns, specifies"},
	{regexp.MustCompile(`(?i)\bas (?:[a-z]+ ){1,3}says?\b`), "as configured, in the form of"},
	{regexp.MustCompile(`(?i)\bwhatever (?:else )?(?:[a-z']+ )?says\b`), "whatever the text, whatever else it contains"},
	{regexp.MustCompile(`(?i)\b(?:is|are) no [a-z]+`), "is not a"},
}

// plain are phrases that resemble refused ones.
var plain = regexp.MustCompile(`(?i)\bthere (?:is|are) no\b|\bno (?:longer|more|further|later|earlier|less|other)\b`)

// TestProse holds that comments, texts in the code, names of tests and documents are in plain English. Text in quotes is a value.
func TestProse(t *testing.T) {
	check := func(where, text string) {
		text = plain.ReplaceAllString(text, "")
		for _, r := range refused {
			if m := r.phrase.FindString(text); m != "" {
				t.Errorf("%s: %q: %s", where, strings.TrimSpace(m), r.instead)
			}
		}
	}
	texts := 0
	eachGoFile(t, func(path string) {
		if path == "house_test.go" || strings.Contains(filepath.ToSlash(path), "/testdata/") {
			return
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range file.Comments {
			texts++
			check(set.Position(group.Pos()).String(), group.Text())
		}
		ast.Inspect(file, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			if text, err := strconv.Unquote(lit.Value); err == nil && strings.Contains(text, " ") && text != "hello nobody" {
				texts++
				check(set.Position(lit.Pos()).String(), text)
			}
			return true
		})
	})
	if texts < 10000 {
		t.Errorf("only %d texts were checked", texts)
	}
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "GOVERNANCE.md") {
		for i, line := range strings.Split(read(t, page), "\n") {
			check(page+":"+strconv.Itoa(i+1), line)
		}
	}
}

// eachGoFile calls f for every Go file of the repository.
func eachGoFile(t *testing.T, f func(path string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && (path == "benchmarks" || path == filepath.Join("conformance", "harness", "servers")) { // their business is to import peers
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
