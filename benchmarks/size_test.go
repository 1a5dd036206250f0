package main

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestSizes holds the table of sizes in docs/dependencies.md against docs/benchmarks.md, and our row of it against a build.
func TestSizes(t *testing.T) {
	between := func(path, begins, ends string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, found := strings.Cut(string(text), begins)
		part, _, ended := strings.Cut(rest, ends)
		if !found || !ended {
			t.Fatalf("%s has nothing between %q and %q", path, begins, ends)
		}
		return part
	}
	quoted := between(filepath.Join("..", "docs", "dependencies.md"), quoteBegins, quoteEnds)

	t.Run("it is that of docs/benchmarks.md", func(t *testing.T) {
		section := between(filepath.Join("..", "docs", "benchmarks.md"), "## The same program on each library\n", "![")
		if !strings.HasSuffix(section, "\n\n"+quoted+"\n") {
			t.Errorf("docs/benchmarks.md has %s\ndocs/dependencies.md has\n%s", section, quoted)
		}
	})
	t.Run("our row is what a build gives", func(t *testing.T) {
		row, _, err := programs[0].measure(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(quoted, "\n| "+ours+" | ")
		line, _, _ := strings.Cut(rest, " |\n")
		said := append([]string{ours}, strings.Split(line, " | ")...)
		if len(said) != len(row) {
			t.Fatalf("docs/dependencies.md has %q, a build gives %q", said, row)
		}
		for i := range row {
			// Releases of Go, and processors, differ by a few per cent.
			if a, b := inMegabytes(row[i]), inMegabytes(said[i]); a > 0 && b > 0 && math.Abs(a/b-1) < 0.05 {
				continue
			}
			if row[i] != said[i] {
				t.Errorf("docs/dependencies.md has %q, a build gives %q", said, row)
			}
		}
	})
}

// inMegabytes is 0 for an invalid size.
func inMegabytes(cell string) float64 {
	number, isSize := strings.CutSuffix(cell, " MB")
	mb, err := strconv.ParseFloat(number, 64)
	if !isSize || err != nil {
		return 0
	}
	return mb
}
