// Command report runs the conformance suite against each server of harnesses.json and writes the matrix of docs/conformance-report.md. Run it
// in the root of the repository:
//
//	go run ./conformance/harness/report
//
// A harness is a program that conformance.StartCommand can start. To add one, add a folder beside this one, and an entry to harnesses.json:
// its name and version, the commands that build it, the command that starts it, and what it claims. The routes have the paths and scopes of
// conformance.DefaultRoutes.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/conformance"
)

const list = "conformance/harness/harnesses.json"

// A harness is one server to test.
type harness struct {
	Name     string                `json:"name"`
	Version  string                `json:"version"`
	Build    []string              `json:"build"` // {bin} is a folder for programs
	Start    string                `json:"start"` // see conformance.StartCommand; {bin} is as above
	Target   string                `json:"target"`
	Profiles []conformance.Profile `json:"profiles"`
	Features []conformance.Feature `json:"features"`
	Routes   []string              `json:"routes"`
}

func main() {
	out := flag.String("o", "docs/conformance-report.md", "file to write")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out, time.Now()); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string, now time.Time) error {
	text, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var all []harness
	if err := dec.Decode(&all); err != nil {
		return fmt.Errorf("%s: %w", list, err)
	}
	bin, err := os.MkdirTemp("", "conform-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(bin)
	reports := make([]*conformance.Report, len(all))
	for i, h := range all {
		if reports[i], err = h.run(ctx, bin); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		fmt.Printf("%s: %d passed, %d failed, %s\n", h.Name, reports[i].Count(conformance.Passed), len(reports[i].Failures(true)),
			reports[i].Took.Round(time.Second))
	}
	var page bytes.Buffer
	if err := write(&page, all, reports, now); err != nil {
		return err
	}
	return os.WriteFile(out, page.Bytes(), 0o644)
}

// run builds the harness and runs the newest set against it.
func (h harness) run(ctx context.Context, bin string) (*conformance.Report, error) {
	place := strings.NewReplacer("{bin}", filepath.ToSlash(bin))
	if len(h.Build) > 0 {
		args := make([]string, len(h.Build))
		for i, word := range h.Build {
			args[i] = place.Replace(word)
		}
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("building it: %w", err)
		}
	}
	start, err := conformance.StartCommand(place.Replace(h.Start))
	if err != nil {
		return nil, err
	}
	routes := map[string]conformance.Route{}
	for _, name := range h.Routes {
		route, ok := conformance.DefaultRoutes()[name]
		if !ok {
			return nil, fmt.Errorf("unknown route %q", name)
		}
		routes[name] = route
	}
	report, err := conformance.Check(ctx, conformance.Target{URL: h.Target, Routes: routes, Profiles: h.Profiles, Features: h.Features, Start: start},
		conformance.Options{})
	if err != nil {
		return nil, err
	}
	sets := conformance.Sets()
	report.Set = sets[len(sets)-1]
	return report, nil
}

// write writes the page. Failures of other projects are described by group only.
func write(w io.Writer, all []harness, reports []*conformance.Report, now time.Time) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Which servers pass the conformance suite?\n\n")
	fmt.Fprintf(&b, "This page is the output of `go run ./conformance/harness/report`, on %s, with the set %s of %d cases.\n", now.UTC().Format("2 January 2006"),
		reports[0].Set, len(reports[0].Results))
	fmt.Fprintf(&b, "[conform.md](conform.md) explains how to test a server.\n\n")
	fmt.Fprintf(&b, "A cell has the number of cases passed, of those that the server claims to support. \"not offered\" is no failure: the server\n"+
		"does not claim it. Cases that wait for more than two seconds, and that the standards leave open, are not counted.\n\n")
	row := func(first string, cell func(i int) string) {
		fmt.Fprintf(&b, "| %s |", first)
		for i := range all {
			fmt.Fprintf(&b, " %s |", cell(i))
		}
		b.WriteByte('\n')
	}
	row("group", func(i int) string { return all[i].Name })
	row("---", func(int) string { return "---" })
	row("version", func(i int) string { return all[i].Version })
	var groups []string
	for _, result := range reports[0].Results {
		if result.Case.Strength.Binding() && !slices.Contains(groups, result.Case.Group) {
			groups = append(groups, result.Case.Group)
		}
	}
	slices.Sort(groups)
	for _, group := range groups {
		row(group, func(i int) string { return cell(reports[i], func(c conformance.Case) bool { return c.Group == group }) })
	}
	row("**all**", func(i int) string { return cell(reports[i], func(conformance.Case) bool { return true }) })
	_, err := io.WriteString(w, b.String())
	return err
}

// cell counts the binding cases that are selected.
func cell(report *conformance.Report, selected func(conformance.Case) bool) string {
	passed, ran, offered := 0, 0, false
	for _, result := range report.Results {
		if !selected(result.Case) || !result.Case.Strength.Binding() {
			continue
		}
		offered = offered || result.Verdict != conformance.NotOffered
		switch result.Verdict {
		case conformance.Passed:
			passed++
			ran++
		case conformance.Failed:
			ran++
		}
	}
	switch {
	case !offered:
		return "not offered"
	case ran == 0:
		return "not run"
	}
	return fmt.Sprintf("%d of %d", passed, ran)
}
