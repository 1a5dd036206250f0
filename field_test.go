package valetkey_test

import (
	"os"
	"strings"
	"testing"
)

// TestField checks docs/field.md, which is written by hand: each row has a source, a shape, a verdict and tests, and each named test is
// in the tree.
func TestField(t *testing.T) {
	page, err := os.ReadFile("docs/field.md")
	if err != nil {
		t.Fatal(err)
	}
	tests, rows := namedTests(t), 0
	for cells := range tableRows(string(page)) {
		rows++
		if len(cells) != 4 {
			t.Errorf("expected source, shape, verdict and test, got %d cells: %q", len(cells), cells)
			continue
		}
		for _, cell := range cells {
			if cell == "" {
				t.Errorf("a cell is empty: %q", cells)
			}
		}
		for _, test := range strings.Split(cells[3], "; ") {
			folder, name, found := strings.Cut(strings.Trim(test, "`"), " ")
			function, subtest, _ := strings.Cut(name, "/")
			if !found || !strings.HasPrefix(function, "Test") {
				t.Errorf("%q is not a test such as: issuers TestShapes/keycloak a user's token with a nonce", test)
			} else if mistake := tests.find(folder, function, subtest); mistake != "" {
				t.Errorf("%s: %s", test, mistake)
			}
		}
	}
	if rows < 30 {
		t.Errorf("only %d rows were found", rows)
	}
}
