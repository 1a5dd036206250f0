// Command govulncheck runs govulncheck in each of the given modules with an offline database, and decides:
//
//	govulncheck -govulncheck PROGRAM -db DIR -accepted FILE MODULE...
//
// A module fails if it calls a vulnerable function of another module, and a fixed version of that module exists. FILE lists exceptions, one per
// line: the ID, the module, and the reason. An exception that no longer applies is a failure too. Vulnerable functions of the
// standard library are listed at the end, because the toolchain of a build decides about them, not a go.mod. scripts/vulnerabilities runs it.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// A Finding is a vulnerability of a module, of a package that is imported, or of a function that is called, by what the fields state.
type Finding struct {
	ID      string
	Module  string // stdlib: the standard library
	Version string // in use
	Fixed   string // empty: no version is fixed
	Package string // empty: no vulnerable package is imported
	Called  bool
}

// Read reads the output of govulncheck -format json.
func Read(r io.Reader) ([]Finding, error) {
	var found []Finding
	for d := json.NewDecoder(r); ; {
		var message struct {
			Finding *struct {
				OSV   string `json:"osv"`
				Fixed string `json:"fixed_version"`
				Trace []struct{ Module, Version, Package, Function string }
			}
		}
		if err := d.Decode(&message); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, err
		}
		f := message.Finding
		if f == nil {
			continue
		}
		if len(f.Trace) == 0 {
			return nil, fmt.Errorf("%s: a finding without a trace", f.OSV)
		}
		at := f.Trace[0] // the vulnerable one; the others are its callers
		found = append(found, Finding{ID: f.OSV, Module: at.Module, Version: at.Version, Fixed: f.Fixed, Package: at.Package, Called: at.Function != ""})
	}
}

// Summary returns one line per module and version of those that keep, sorted, with the IDs and the highest fixed version stated.
func Summary(found []Finding, keep func(Finding) bool) []string {
	type key struct{ module, version string }
	ids, fixed := map[key][]string{}, map[key][]string{}
	for _, f := range found {
		if k := (key{f.Module, f.Version}); keep(f) && !slices.Contains(ids[k], f.ID) {
			ids[k] = append(ids[k], f.ID)
			if f.Fixed != "" && !slices.Contains(fixed[k], f.Fixed) {
				fixed[k] = append(fixed[k], f.Fixed)
			}
		}
	}
	var lines []string
	for k, list := range ids {
		slices.Sort(list)
		slices.Sort(fixed[k])
		lines = append(lines, fmt.Sprintf("%s %s: %s, fixed in %s", k.module, k.version, strings.Join(list, " "), cmp.Or(strings.Join(fixed[k], " "), "no version")))
	}
	slices.Sort(lines)
	return lines
}

// Accepted reads the exceptions: the reason by the ID and the module, separated by a space. Lines that begin with # are comments.
func Accepted(text string) (map[string]string, error) {
	reasons := map[string]string{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 3 {
			return nil, fmt.Errorf("%q: an ID, a module and a reason are required", line)
		}
		reasons[fields[0]+" "+fields[1]] = strings.Join(fields[2:], " ")
	}
	return reasons, nil
}

func library(f Finding) bool { return f.Module == "stdlib" }

func main() {
	program := flag.String("govulncheck", "", "path of govulncheck")
	db := flag.String("db", "", "folder of the database")
	file := flag.String("accepted", "", "file of the exceptions")
	flag.Parse()
	text, err := os.ReadFile(*file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	accepted, err := Accepted(string(text))
	if err != nil {
		fmt.Fprintln(os.Stderr, *file, err)
		os.Exit(2)
	}
	used := map[string]bool{}
	failed := false
	var standard []Finding
	for _, dir := range flag.Args() {
		scan := func(level string) []Finding {
			cmd := exec.Command(*program, "-C", dir, "-db", "file://"+*db, "-format", "json", "-scan", level, "./...")
			cmd.Env = append(os.Environ(), "GOWORK=off")
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err == nil {
				var found []Finding
				if found, err = Read(strings.NewReader(string(out))); err == nil {
					return found
				}
			}
			fmt.Fprintf(os.Stderr, "%s: %v\n", dir, err)
			os.Exit(2)
			return nil
		}
		// Reading the imports takes a second, analyzing the calls up to a minute, which only an import of a vulnerable package requires.
		found := scan("package")
		if slices.ContainsFunc(found, func(f Finding) bool { return !library(f) && f.Package != "" }) {
			found = scan("symbol")
		}
		standard = append(standard, found...)
		fails := func(f Finding) bool { return f.Fixed != "" && accepted[f.ID+" "+f.Module] == "" }
		for _, f := range found {
			used[f.ID+" "+f.Module] = used[f.ID+" "+f.Module] || f.Called
		}
		lines := Summary(found, func(f Finding) bool { return !library(f) && f.Called && fails(f) })
		open := Summary(found, func(f Finding) bool { return !library(f) && f.Called && !fails(f) })
		fmt.Printf("%s: %d vulnerable modules called\n", dir, len(lines)+len(open))
		for _, line := range lines {
			fmt.Println("  " + line)
		}
		for _, line := range open {
			fmt.Println("  accepted or without a fix: " + line)
		}
		failed = failed || len(lines) > 0
	}
	for _, line := range Summary(standard, func(f Finding) bool { return library(f) && (f.Package != "" || f.Called) }) {
		fmt.Printf("reported only: %s\n", line)
	}
	for exception := range accepted {
		if !used[exception] {
			fmt.Printf("%s: remove the exception %q, which no module needs\n", *file, exception)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}
