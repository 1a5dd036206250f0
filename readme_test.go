package valetkey_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/valetkey/valetkey"
)

// read returns the text of a file.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestREADMELength keeps the first page short. What does not fit belongs into docs.
func TestREADMELength(t *testing.T) {
	if lines := strings.Count(read(t, "README.md"), "\n"); lines > 170 {
		t.Errorf("README.md has %d lines, more than 170", lines)
	}
}

// TestChangelog turns the section Unreleased into that of a version, as a release does, and keeps it readable as release notes.
func TestChangelog(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("bash is not installed")
	}
	dir := t.TempDir()
	for _, name := range []string{"CHANGELOG.md", "scripts/changelog"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(read(t, name)), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("bash", append([]string{filepath.Join(dir, "scripts/changelog")}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	const version = "v99.0.0"
	run(version)
	notes := run("--print", version)
	if lines := strings.Count(notes, "\n"); lines < 5 || lines > 100 {
		t.Errorf("the notes of the next release have %d lines, want 5 to 100: group what was added, and leave out what was never released", lines)
	}
	if strings.Contains(notes, "\n## ") {
		t.Error("the notes of the next release include those of another one")
	}
	if _, after, _ := strings.Cut(read(t, filepath.Join(dir, "CHANGELOG.md")), "## [Unreleased]\n"); !strings.HasPrefix(after, "\n## [99.0.0] - ") {
		t.Error("no empty section Unreleased is left for the next release")
	}
}

// TestFrameworkLines compares the lines of code in the tables of frameworks with the examples they are from.
func TestFrameworkLines(t *testing.T) {
	for _, page := range []struct {
		path       string
		rows, code int // rows, and lines of code in each
	}{{"README.md", 8, 1}, {"docs/frameworks.md", 9, 1}} {
		rows := regexp.MustCompile(`(?m)^\| (?:net/http|\[[^\]]*\]\((?:\.\./)?(adapters/[^)]*)\)[^|]*) \|.*`).FindAllStringSubmatch(read(t, page.path), -1)
		if len(rows) != page.rows {
			t.Errorf("the table of %s has %d rows, want %d", page.path, len(rows), page.rows)
		}
		for _, row := range rows {
			example := row[1]
			if example == "" {
				example = "examples/orders/main.go"
			}
			program := read(t, example)
			cells := strings.Split(strings.TrimSuffix(row[0], " |"), " | ")
			lines := regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(cells[len(cells)-1], -1)
			if len(lines) != page.code {
				t.Errorf("%s, %s: %d lines of code", page.path, example, len(lines))
			}
			for _, line := range lines {
				if !strings.Contains(program, "\t"+line[1]) {
					t.Errorf("%s has no line %q", example, line[1])
				}
			}
		}
	}
}

// TestGuardingTakes20Lines counts the lines that guard an application and test it: those that are new or changed in the guarded one, and
// the whole test. Blank lines do not count.
func TestGuardingTakes20Lines(t *testing.T) {
	const shop = "adapters/valetgin/shop/"
	left := map[string]int{}
	for line := range strings.Lines(read(t, shop+"unguarded/main.go")) {
		left[line]++
	}
	var added []string
	for line := range strings.Lines(read(t, shop+"main.go")) {
		if left[line]--; left[line] < 0 {
			added = append(added, line)
		}
	}
	guarded := len(added)
	for line := range strings.Lines(read(t, shop+"main_test.go")) {
		if strings.TrimSpace(line) != "" {
			added = append(added, line)
		}
	}
	if len(added) > 20 {
		t.Errorf("%d lines, more than 20:\n%s", len(added), strings.Join(added, ""))
	}
	if count := fmt.Sprintf("took %d lines, and this test has %d.", guarded, len(added)-guarded); !strings.Contains(read(t, "docs/testing.md"), count) {
		t.Errorf("docs/testing.md does not contain %q", count)
	}
}

// TestLinks follows the links between the pages, and requires that docs/README.md lists every page.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
	listed := read(t, "docs/README.md")
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, page := range pages {
		if name, inDocs := strings.CutPrefix(filepath.ToSlash(page), "docs/"); inDocs && name != "README.md" && !strings.Contains(listed, "]("+name+")") {
			t.Errorf("docs/README.md does not list %s", name)
		}
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			target, fragment, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, ":") { // a URL
				continue
			}
			path := page
			if target != "" {
				path = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s links to %s, which does not exist", page, m[1])
			} else if fragment != "" && strings.HasSuffix(path, ".md") && !anchors(read(t, path))[fragment] {
				t.Errorf("%s links to %s, which has no such heading", page, m[1])
			}
		}
	}
}

// anchors returns the fragments of the headings of a page, as GitHub makes them.
func anchors(page string) map[string]bool {
	found := map[string]bool{}
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		found[strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return found
}

// TestReasonsPage requires a row of docs/401.md for each reason, with its description.
func TestReasonsPage(t *testing.T) {
	page := read(t, "docs/401.md")
	for _, reason := range valetkey.Reasons() {
		if strings.HasPrefix(string(reason), "test_") || reason == "orders_closed" { // of other tests and of an example
			continue
		}
		text := reason.Description()
		if reason == valetkey.ReasonNoCredentials {
			text = "(no error)"
		}
		if row := "| `" + string(reason) + "` | " + text + " | "; strings.Count(page, row) != 1 {
			t.Errorf("docs/401.md needs a row that begins with %q", row)
		}
	}
}
