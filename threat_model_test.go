package valetkey_test

import (
	"iter"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const threatModel = "docs/threat-model.md"

var (
	assets    = []string{"Handlers", "Tokens", "Keys", "Grants", "Records", "Availability"}
	attackers = []string{"stranger", "holder", "client", "developer", "tenant", "Redis writer", "issuer", "operator"}

	// failures are what the column "fails" may contain, and how bad each is.
	failures = map[string]int{"—": 0, "closed": 1, "bounded": 2, "open": 3}
	// statuses are those of a refusal that the column may add to "closed", or that the program does not start.
	statuses = []string{"400", "401", "403", "404", "429", "500", "503", "at start"}

	// namedTest is a test as docs/threat-model.md names it: the folder of its package, its function and its subtest, if any.
	namedTest = regexp.MustCompile("`([^` ]+) (Test[A-Za-z0-9_]+)(?:/([^`]+))?`")
)

// TestThreatModel checks docs/threat-model.md, which is written by hand: each pair of an asset and an attacker has a row that states how
// the protection fails, the overview shows the worst of these, each protection names a test, and each named test is in the tree. That a
// test proves what the row states is for reviewers to check.
func TestThreatModel(t *testing.T) {
	page, err := os.ReadFile(threatModel)
	if err != nil {
		t.Fatal(err)
	}
	overview := sectionRows(string(page), "Overview")
	if len(overview) != len(assets) {
		t.Errorf("the overview has %d rows, want one for each of %q", len(overview), assets)
	}
	tests := namedTests(t)
	for i, asset := range assets {
		worst, failing := map[string]int{}, map[string]string{}
		for _, cells := range sectionRows(string(page), asset) {
			if len(cells) != 5 {
				t.Errorf("%s: expected attacker, attempt, protection, fails and test, got %d cells: %q", asset, len(cells), cells)
				continue
			}
			attacker, fails, named := cells[0], cells[3], namedTest.FindAllStringSubmatch(cells[4], -1)
			if !slices.Contains(attackers, attacker) {
				t.Errorf("%s: unknown attacker %q, want one of %q", asset, attacker, attackers)
			}
			word, detail, _ := strings.Cut(fails, " ")
			severity, known := failures[word]
			if !known || detail != "" && word != "closed" {
				t.Errorf("%s, %s: fails %q, want one of %q", asset, attacker, fails, slices.Sorted(maps.Keys(failures)))
			}
			for status := range strings.SplitSeq(detail, ", ") {
				if detail != "" && !slices.Contains(statuses, status) {
					t.Errorf("%s, %s: fails %q, want only %q after closed", asset, attacker, fails, statuses)
				}
			}
			if old, ok := worst[attacker]; !ok || severity > old {
				worst[attacker], failing[attacker] = severity, word
			}
			switch {
			case word == "—" && cells[4] != "—":
				t.Errorf("%s, %s: a pair without a meaning has no test: %q", asset, attacker, cells)
			case (word == "closed" || word == "bounded") && len(named) == 0:
				t.Errorf("%s, %s: no test: %q", asset, attacker, cells)
			case len(named) == 0 && cells[4] != "—", strings.Count(cells[4], "`") != 2*len(named):
				t.Errorf("%s, %s: %q is not a list of tests such as `middleware TestRevoke/another token`", asset, attacker, cells[4])
			}
			for _, n := range named {
				if mistake := tests.find(n[1], n[2], n[3]); mistake != "" {
					t.Errorf("%s, %s: %s: %s", asset, attacker, n[0], mistake)
				}
			}
		}
		want := []string{"[" + asset + "](#" + strings.ToLower(asset) + ")"}
		for _, attacker := range attackers {
			if failing[attacker] == "" {
				t.Errorf("%s: no row for %s", asset, attacker)
			}
			want = append(want, failing[attacker])
		}
		if i < len(overview) && !slices.Equal(overview[i], want) {
			t.Errorf("the overview has | %s |, the rows of the section make it | %s |", strings.Join(overview[i], " | "), strings.Join(want, " | "))
		}
	}
}

// sectionRows returns the cells of the rows of a section's tables, without their headers.
func sectionRows(page, title string) [][]string {
	_, section, _ := strings.Cut(page, "\n## "+title+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	return slices.Collect(tableRows(section))
}

// tableRows returns the cells of the rows of all tables in a text, without their headers.
func tableRows(text string) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		body := false
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			switch {
			case !strings.HasPrefix(line, "|"):
				body = false
			case strings.HasPrefix(line, "|---"), strings.HasPrefix(line, "| ---"):
				body = true
			case body:
				var cells []string
				for cell := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
					cells = append(cells, strings.TrimSpace(cell))
				}
				if !yield(cells) {
					return
				}
			}
		}
	}
}

// testTexts are the strings of each function of the tests of each folder, without the items that they name; those outside of
// functions are under "".
type testTexts map[string]map[string]map[string]bool

func namedTests(t *testing.T) testTexts {
	t.Helper()
	all := testTexts{}
	eachTestString(t, func(folder, function, text string) {
		if all[folder] == nil {
			all[folder] = map[string]map[string]bool{}
		}
		if all[folder][function] == nil {
			all[folder][function] = map[string]bool{}
		}
		all[folder][function][text[len(leadingIDs.FindString(text)):]] = true
	})
	return all
}

// find returns why there is no such test; empty: there is one. A subtest's name consists of at most three strings in its function, or in
// what several tests of the package share: "name" and " is refused" for one from a table. A subtest of a subtest follows after a slash.
func (all testTexts) find(folder, function, subtest string) string {
	functions, ok := all[folder]
	if !ok {
		return "no package with tests is there"
	}
	if _, ok := functions[function]; !ok {
		return "the package has no such test"
	}
	known := map[string]bool{}
	for name, texts := range functions {
		if name == function || !strings.HasPrefix(name, "Test") {
			maps.Copy(known, texts)
		}
	}
	if subtest != "" && !named(subtest, known) {
		return "the test has no such subtest"
	}
	return ""
}

// named reports whether subtest, or each part of it between slashes, consists of strings in known.
func named(subtest string, known map[string]bool) bool {
	if consists(subtest, known, 3) {
		return true
	}
	for i := range subtest {
		if subtest[i] == '/' && consists(subtest[:i], known, 3) && named(subtest[i+1:], known) {
			return true
		}
	}
	return false
}

// consists reports whether text is a sequence of at most n strings in known.
func consists(text string, known map[string]bool, n int) bool {
	if known[text] && text != "" {
		return true
	}
	for i := 1; i < len(text) && n > 1; i++ {
		if known[text[:i]] && consists(text[i:], known, n-1) {
			return true
		}
	}
	return false
}
