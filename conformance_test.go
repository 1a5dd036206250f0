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

	"github.com/valetkey/valetkey/conformance"
)

var update = flag.Bool("update", false, "write the tests into docs/conformance.md")

// The groups of items, in the order of the page.
var groups = []struct{ name, title string }{
	{"BT", "bearer token usage (RFC 6750, RFC 9110)"},
	{"INTRO", "token introspection (RFC 7662)"},
	{"JRESP", "signed introspection responses (RFC 9701)"},
	{"AT", "JWT access token profile (RFC 9068)"},
	{"JWS", "JWS processing (RFC 7515, RFC 7797)"},
	{"JWT", "claims and best current practice (RFC 7519, RFC 8725)"},
	{"JWKS", "key sets (RFC 7517, RFC 8414)"},
	{"VCACHE", "the cache of verified tokens"},
	{"AUD", "audience and privilege (RFC 8707, RFC 9700)"},
	{"DPOP", "proofs of possession (RFC 9449)"},
	{"MTLS", "certificate-bound tokens (RFC 8705)"},
	{"STEP", "step-up authentication (RFC 9470)"},
	{"RAR", "authorization details (RFC 9396)"},
	{"TSL", "token status list"},
	{"FAPI", "FAPI 2.0 security profile, resource server"},
	{"PRM", "protected resource metadata (RFC 9728)"},
	{"MCP", "MCP authorization, server side"},
	{"HTTP", "middleware behavior"},
	{"FWD", "forward authentication: nginx, Traefik, Caddy, HAProxy"},
	{"AUDIT", "audit records"},
	{"CEL", "rules in CEL"},
	{"AZ", "policy servers (AuthZEN)"},
	{"SSF", "shared signals: receiver (SSF 1.0, CAEP 1.0, RISC 1.0, RFC 8935, RFC 8936)"},
	{"BCL", "logout tokens (OpenID Connect Back-Channel Logout 1.0)"},
	{"XCHG", "tokens for calls to other services (RFC 8693)"},
	{"EXT", "external authorization for gateways (ext_authz v3)"},
	{"AS-CORE", "authorization server: core endpoints (RFC 6749)"},
	{"AS-CODE", "authorization server: authorization code (RFC 6749)"},
	{"AS-IMPL", "authorization server: implicit and password (RFC 6749)"},
	{"AS-CC", "authorization server: client credentials (RFC 6749)"},
	{"AS-RAR", "authorization server: rich authorization requests (RFC 9396)"},
	{"AS-RT", "authorization server: refresh (RFC 6749, RFC 9700)"},
	{"AS-PKCE", "authorization server: PKCE (RFC 7636)"},
	{"AS-REVOKE", "authorization server: revocation (RFC 7009)"},
	{"AS-INTRO", "authorization server: introspection (RFC 7662)"},
	{"AS-META", "authorization server: metadata (RFC 8414)"},
	{"AS-DCR", "authorization server: registration (RFC 7591)"},
	{"AS-DCRM", "authorization server: management of registrations (RFC 7592)"},
	{"AS-DEVICE", "authorization server: device grant (RFC 8628)"},
	{"AS-PAR", "authorization server: pushed authorization requests (RFC 9126)"},
	{"AS-ISS", "authorization server: issuer in responses (RFC 9207)"},
	{"AS-TX", "authorization server: token exchange (RFC 8693)"},
	{"AS-JWT", "authorization server: assertions (RFC 7523)"},
	{"AS-DPOP", "authorization server: bound tokens (RFC 9449, RFC 8705)"},
	{"SSFTX", "authorization server: transmitter of signals (SSF 1.0, CAEP 1.0, RFC 8935, RFC 8936)"},
	{"GTR", "global token revocation (draft-parecki-oauth-global-token-revocation)"},
}

const (
	document  = "docs/conformance.md"
	asWritten = "as written"
)

var (
	leadingIDs = regexp.MustCompile(`^(?:[A-Z]+(?:-[A-Z]+)?-\d{2}(?:, | and | ))+`)
	oneID      = regexp.MustCompile(`[A-Z]+(?:-[A-Z]+)?-\d{2}`)
	row        = regexp.MustCompile(`(?m)^\| ([A-Z-]+-\d+) \|(.*)\|$`)
)

// TestConformance checks docs/conformance.md: each item of package conformance has a row, and each row is of an item. A
// row has the requirement as the item states it, the decision, and the tests that carry the item's ID in their names. An
// item without a test needs a decision that gives the reason. With -update it writes the page; only decisions are edited
// by hand.
func TestConformance(t *testing.T) {
	old, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	decisions := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(string(old), -1) {
		id, cells := m[1], strings.Split(m[2], "|")
		if _, ok := conformance.Find(id); !ok {
			t.Errorf("%s: the row of %s is of no item", document, id)
		}
		if _, ok := decisions[id]; ok {
			t.Errorf("%s: %s has two rows", document, id)
		}
		if len(cells) != 3 {
			t.Fatalf("%s: the row of %s: expected requirement, decision and test, got %d cells", document, id, len(cells))
		}
		decisions[id] = strings.TrimSpace(cells[1])
	}
	tests := testsByItem(t)
	preface, _, _ := strings.Cut(string(old), "\n## ")

	var text strings.Builder
	text.WriteString(strings.TrimSpace(preface) + "\n")
	written := 0
	for _, g := range groups {
		items := conformance.InGroup(g.name)
		if len(items) == 0 {
			t.Errorf("the group %s has no items", g.name)
		}
		written += len(items)
		fmt.Fprintf(&text, "\n## %s: %s\n\n| item | requirement | decision | test |\n|---|---|---|---|\n", g.name, g.title)
		for _, item := range items {
			decision, named := decisions[item.ID], strings.Join(tests[item.ID], ", ")
			delete(tests, item.ID)
			if decision == "" {
				decision = asWritten
			}
			if named == "" && decision == asWritten {
				t.Errorf("%s has neither a test nor a decision", item.ID)
			}
			fmt.Fprintf(&text, "| %s | %s | %s | %s |\n", item.ID, requirement(item), decision, named)
		}
	}
	if n := len(conformance.Items()); written != n {
		t.Errorf("%d of %d items belong to a group above", written, n)
	}
	for _, id := range slices.Sorted(maps.Keys(tests)) {
		t.Errorf("%s is named by %s and is not an item", id, strings.Join(tests[id], ", "))
	}
	if *update {
		if err := os.WriteFile(document, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if text.String() != string(old) {
		t.Errorf("%s is out of date: run go test -run TestConformance . -update", document)
	}
}

// requirement returns an item as one line: the situation, the condition with its outcome, and the source.
func requirement(i conformance.Item) string {
	source := string(i.Level)
	switch {
	case i.Standard == "":
	case strings.Contains(i.Section, ", "):
		source += "; " + i.Standard + ", sections " + strings.ReplaceAll(i.Section, ", ", " and ")
	case i.Section[0] >= '0' && i.Section[0] <= '9':
		source += "; " + i.Standard + ", section " + i.Section
	default:
		source += "; " + i.Standard + ", " + i.Section
	}
	return fmt.Sprintf("%s When %s, %s (%s)", i.Given, within(strings.TrimSuffix(i.When, ".")), within(i.Then), source)
}

// within returns a sentence as it continues another: without its capital letter, unless the first word is a name.
func within(sentence string) string {
	first, _, _ := strings.Cut(sentence, " ")
	if first[1:] != strings.ToLower(first[1:]) {
		return sentence
	}
	return strings.ToLower(sentence[:1]) + sentence[1:]
}

// testsByItem finds the test functions that name an item at the beginning of a string, as subtests' names do.
func testsByItem(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string]map[string]bool{}
	eachTestString(t, func(folder, function, text string) {
		for _, id := range oneID.FindAllString(leadingIDs.FindString(text), -1) {
			if function == "" {
				continue
			}
			if found[id] == nil {
				found[id] = map[string]bool{}
			}
			found[id][folder+" "+function] = true
		}
	})
	tests := map[string][]string{}
	for id, where := range found {
		tests[id] = slices.Sorted(maps.Keys(where))
	}
	return tests
}

// eachTestString calls f for each string in the test files, with the folder of its package and the function around it, which is empty
// outside of functions. It also calls f once for each function, with an empty text.
func eachTestString(t *testing.T, f func(folder, function, text string)) {
	t.Helper()
	eachGoFile(t, func(path string) {
		if !strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		folder := filepath.ToSlash(filepath.Dir(path))
		for _, decl := range file.Decls {
			function := ""
			if fn, ok := decl.(*ast.FuncDecl); ok {
				function = fn.Name.Name
				f(folder, function, "")
			}
			ast.Inspect(decl, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					text, _ := strconv.Unquote(lit.Value)
					f(folder, function, text)
				}
				return true
			})
		}
	})
}
