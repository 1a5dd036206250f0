package valetkey_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tests into docs/conformance.md")

// The groups of the checklist that there are tests for. Of those with a number, the release answers for every item.
var groups = []struct {
	name, title string
	items       int
}{
	{"BT", "bearer token usage (RFC 6750, RFC 9110)", 32},
	{"INTRO", "token introspection (RFC 7662)", 36},
	{"JRESP", "signed introspection answers (RFC 9701)", 14},
	{"AT", "JWT access token profile (RFC 9068)", 24},
	{"JWS", "JWS processing (RFC 7515, RFC 7797)", 27},
	{"JWT", "claims and best current practice (RFC 7519, RFC 8725)", 37},
	{"JWKS", "key sets (RFC 7517, RFC 8414)", 26},
	{"VCACHE", "the memory of verified tokens", 15},
	{"AUD", "audience and privilege (RFC 8707, RFC 9700)", 13},
	{"DPOP", "proofs of possession (RFC 9449)", 57},
	{"MTLS", "certificate-bound tokens (RFC 8705)", 15},
	{"STEP", "step-up authentication (RFC 9470)", 13},
	{"RAR", "authorization details (RFC 9396)", 8},
	{"TSL", "token status list", 23},
	{"FAPI", "FAPI 2.0 security profile, resource server", 14},
	{"PRM", "protected resource metadata (RFC 9728)", 21},
	{"MCP", "MCP authorization, server side", 14},
	{"HTTP", "middleware behaviour", 13},
	{"AS-CORE", "authorization server: core endpoints (RFC 6749)", 15},
	{"AS-CODE", "authorization server: authorization code (RFC 6749)", 13},
	{"AS-IMPL", "authorization server: implicit and password (RFC 6749)", 4},
	{"AS-CC", "authorization server: client credentials (RFC 6749)", 3},
	{"AS-RT", "authorization server: refresh (RFC 6749, RFC 9700)", 6},
	{"AS-PKCE", "authorization server: PKCE (RFC 7636)", 9},
	{"AS-REVOKE", "authorization server: revocation (RFC 7009)", 9},
	{"AS-INTRO", "authorization server: introspection (RFC 7662)", 6},
	{"AS-META", "authorization server: metadata (RFC 8414)", 9},
	{"AS-DCR", "authorization server: registration (RFC 7591)", 10},
	{"AS-DCRM", "authorization server: management of registrations (RFC 7592)", 10},
	{"AS-DEVICE", "authorization server: device grant (RFC 8628)", 10},
	{"AS-PAR", "authorization server: pushed authorization requests (RFC 9126)", 11},
	{"AS-ISS", "authorization server: issuer in responses (RFC 9207)", 5},
	{"AS-TX", "authorization server: token exchange (RFC 8693)", 11},
	{"AS-JWT", "authorization server: assertions (RFC 7523)", 12},
	{"AS-DPOP", "authorization server: bound tokens (RFC 9449, RFC 8705)", 7},
}

const (
	document  = "docs/conformance.md"
	asWritten = "as written"
)

var (
	leadingIDs = regexp.MustCompile(`^(?:[A-Z]+(?:-[A-Z]+)?-\d{2}(?:, | and | ))+`)
	oneID      = regexp.MustCompile(`[A-Z]+(?:-[A-Z]+)?-\d{2}`)
	row        = regexp.MustCompile(`(?m)^\| ([A-Z]+(?:-[A-Z]+)?-\d{2}) \| (.*?) \| .*? \|$`)
)

// TestConformance keeps docs/conformance.md true: every item has a test that carries its id in its name, or a decision
// that says why not, and every test that the table names exists.
func TestConformance(t *testing.T) {
	old, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	decisions := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(string(old), -1) {
		decisions[m[1]] = m[2]
	}
	tests := testsByItem(t)
	preface, _, _ := strings.Cut(string(old), "\n## ")

	var text strings.Builder
	text.WriteString(strings.TrimSpace(preface) + "\n")
	for _, g := range groups {
		fmt.Fprintf(&text, "\n## %s: %s\n\n| item | decision | test |\n|---|---|---|\n", g.name, g.title)
		for i := 1; i < 100; i++ {
			id := fmt.Sprintf("%s-%02d", g.name, i)
			decision, named := decisions[id], strings.Join(tests[id], ", ")
			delete(tests, id)
			if decision == "" {
				decision = asWritten
			}
			if named == "" && decision == asWritten {
				if i <= g.items {
					t.Errorf("%s has neither a test nor a decision", id)
				}
				continue
			}
			fmt.Fprintf(&text, "| %s | %s | %s |\n", id, decision, named)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(tests)) {
		t.Errorf("%s is named by %s and is of no group above", id, strings.Join(tests[id], ", "))
	}
	if *update {
		if err := os.WriteFile(document, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if text.String() != string(old) {
		t.Errorf("%s is out of date: run go test -run TestConformance . -update", document)
	}
}

// testsByItem finds the test functions that name an item at the beginning of a string, as subtests' names do.
func testsByItem(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string]map[string]bool{}
	eachGoFile(t, func(path string) {
		if !strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			where := filepath.ToSlash(filepath.Dir(path)) + " " + f.Name.Name
			ast.Inspect(f, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					text, _ := strconv.Unquote(lit.Value)
					for _, id := range oneID.FindAllString(leadingIDs.FindString(text), -1) {
						if found[id] == nil {
							found[id] = map[string]bool{}
						}
						found[id][where] = true
					}
				}
				return true
			})
		}
	})
	tests := map[string][]string{}
	for id, where := range found {
		tests[id] = slices.Sorted(maps.Keys(where))
	}
	return tests
}
