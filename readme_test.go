package valetkey_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestREADMEFrameworks holds the lines of the table of frameworks against the examples they are taken from.
func TestREADMEFrameworks(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| (?:net/http|\[[^\]]*\]\((adapters/[^)]*)\)) \|.*\| (.*) \|$`).FindAllStringSubmatch(string(readme), -1)
	if len(rows) != 7 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	for _, row := range rows {
		example := row[1]
		if example == "" {
			example = "examples/orders/main.go"
		}
		program, err := os.ReadFile(example)
		if err != nil {
			t.Fatal(err)
		}
		lines := regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(row[2], -1)
		if len(lines) != 3 {
			t.Errorf("%s: %d lines", example, len(lines))
		}
		for _, line := range lines {
			if !strings.Contains(string(program), line[1]+"\n") {
				t.Errorf("%s has no line %q", example, line[1])
			}
		}
	}
}
