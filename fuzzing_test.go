package valetkey_test

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
)

const fuzzing = "docs/fuzzing.md"

// parses are the functions by which code reads text or bytes that others wrote, by package. A name that ends with a dot is a prefix.
var parses = map[string][]string{
	"json": {"Unmarshal", "NewDecoder"}, "strictjson": {"Object"}, "jose": {"Parse."}, "yaml": {"Unmarshal", "NewDecoder"}, "pem": {"Decode"}, "x509": {"Parse."},
	"url": {"Parse."}, "http": {"ReadRequest", "ReadResponse", "ParseTime"}, "bufio": {"NewScanner"}, "proto": {"Unmarshal"},
	"mime": {"ParseMediaType"}, "asn1": {"Unmarshal"}, "xml": {"Unmarshal", "NewDecoder"}, "csv": {"NewReader"}, "gob": {"NewDecoder"},
	"ldap": {"Parse."}, "netip": {"Parse."}, "time": {"Parse", "ParseInLocation"}, "strconv": {"Parse.", "Atoi", "Unquote"}, "hex": {"DecodeString"},
}

// TestFuzzing checks docs/fuzzing.md, whose tables are written by hand: each fuzz target of the tree is in one row, each row has the input,
// a target that exists and a property, and each package that parses has a target or a stated reason. Whether the property is a good one is
// for reviewers to check.
func TestFuzzing(t *testing.T) {
	page := read(t, fuzzing)
	page, without, found := strings.Cut(page, "\n## Which packages parse, and have no target?\n")
	if !found {
		t.Fatalf("%s has no list of packages without a target", fuzzing)
	}
	target := regexp.MustCompile("^`([^` ]+) (Fuzz[A-Za-z0-9_]*)`$")
	listed, fuzzed, excused := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for cells := range tableRows(page) {
		if len(cells) != 4 || slices.Contains(cells, "") {
			t.Errorf("expected input, target, property and longest run, got %q", cells)
			continue
		}
		m := target.FindStringSubmatch(cells[1])
		if m == nil {
			t.Errorf("%q is not a target such as `internal/jose FuzzParse`", cells[1])
			continue
		}
		name := m[1] + " " + m[2]
		if listed[name] {
			t.Errorf("%s is listed twice", name)
		}
		listed[name], fuzzed[m[1]] = true, true
	}
	for cells := range tableRows(without) {
		if len(cells) != 2 || slices.Contains(cells, "") {
			t.Errorf("expected package and reason, got %q", cells)
			continue
		}
		for folder := range strings.SplitSeq(cells[0], ", ") {
			excused[strings.Trim(folder, "`")] = true
		}
	}

	targets, parsing := map[string]bool{}, map[string]string{}
	eachGoFile(t, func(path string) {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		folder := filepath.ToSlash(filepath.Dir(path))
		if strings.HasSuffix(path, "_test.go") {
			for _, d := range file.Decls {
				if f, is := d.(*ast.FuncDecl); is && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Fuzz") {
					targets[folder+" "+f.Name.Name] = true
				}
			}
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, is := n.(*ast.SelectorExpr); is {
				if x, is := s.X.(*ast.Ident); is && slices.ContainsFunc(parses[x.Name], func(name string) bool {
					prefix, isPrefix := strings.CutSuffix(name, ".")
					return s.Sel.Name == name || isPrefix && strings.HasPrefix(s.Sel.Name, prefix)
				}) || s.Sel.Name == "ParseForm" {
					parsing[folder] = s.Sel.Name
				}
			}
			return true
		})
	})
	for name := range targets {
		if !listed[name] {
			t.Errorf("%s has no row for %s", fuzzing, name)
		}
	}
	for name := range listed {
		if !targets[name] {
			t.Errorf("%s lists %s, which does not exist", fuzzing, name)
		}
	}
	for folder, how := range parsing {
		if !fuzzed[folder] && !excused[folder] {
			t.Errorf("%s parses (%s), and %s has neither a target of it nor a reason", folder, how, fuzzing)
		}
	}
	for folder := range excused {
		if _, err := os.Stat(folder); fuzzed[folder] || err != nil {
			t.Errorf("%s states why %s has no target, which has one or is gone", fuzzing, folder)
		}
	}
}
