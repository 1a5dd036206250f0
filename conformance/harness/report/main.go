// Command report runs the conformance suite against each server of harnesses.json and writes the matrix of docs/conformance-report.md. Run it
// in the root of the repository; it needs npm, node and Caddy:
//
//	go run ./conformance/harness/report
//	go run ./conformance/harness/report -only echo,jose    prints the failures of two, and leaves the page as it is
//
// A harness is a program that conformance.StartCommand can start. To add one, add a program to conformance/harness/servers or npm, and an entry
// to harnesses.json. The routes have the paths and scopes of conformance.DefaultRoutes.
package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey/conformance"
)

const (
	list    = "conformance/harness/harnesses.json"
	npmLock = "conformance/harness/npm/package-lock.json"
)

// A harness is one server to test.
type harness struct {
	Name     string   `json:"name"`
	Ours     bool     `json:"ours"`
	Setup    string   `json:"setup"`    // how it is configured, and why
	Modules  []string `json:"modules"`  // Go modules whose versions the page names
	Packages []string `json:"packages"` // the same for npm
	Programs []string `json:"programs"` // the same for programs with the command version

	Build    []string              `json:"build"` // {bin} is a folder for programs
	Start    string                `json:"start"` // see conformance.StartCommand; {bin} is as above
	Target   string                `json:"target"`
	Profiles []conformance.Profile `json:"profiles"`
	Features []conformance.Feature `json:"features"`
	Routes   []string              `json:"routes"`

	// NotOffered maps groups that the server does not claim to the reason, beyond profiles and features.
	NotOffered map[string]string `json:"not_offered"`

	// Decided maps binding cases that one of our servers fails to the reason. The others must pass.
	Decided map[string]string `json:"decided"`
}

// A tested harness has been run.
type tested struct {
	harness
	versions []string
	report   *conformance.Report
}

func main() {
	out := flag.String("o", "docs/conformance-report.md", "file to write")
	only := flag.String("only", "", "names of servers, separated by commas, whose failures are printed; no file is written")
	jobs := flag.Int("jobs", 1, "how many servers are tested at the same time; more than one is faster, and may fail cases about timing and ports")
	slow := flag.Bool("slow", false, "with -only: also run the cases that wait for longer than two seconds")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if *only != "" {
		err = show(ctx, os.Stdout, strings.Split(*only, ","), conformance.Options{Slow: *slow})
	} else {
		err = run(ctx, *out, max(*jobs, 1), time.Now())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

// read reads the list of harnesses in the folder root.
func read(root string) ([]harness, error) {
	text, err := os.ReadFile(filepath.Join(root, list))
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var all []harness
	if err := dec.Decode(&all); err != nil {
		return nil, fmt.Errorf("%s: %w", list, err)
	}
	return all, nil
}

// show prints all failures of some harnesses.
func show(ctx context.Context, w io.Writer, names []string, o conformance.Options) error {
	all, err := read(".")
	if err != nil {
		return err
	}
	bin, err := os.MkdirTemp("", "conform-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(bin)
	for _, name := range names {
		i := slices.IndexFunc(all, func(h harness) bool { return h.Name == name })
		if i < 0 {
			return fmt.Errorf("%s has no %q", list, name)
		}
		done, err := all[i].run(ctx, bin, o)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(w, "# %s\n\n", name)
		if err := done.report.WriteTable(w, nil); err != nil {
			return err
		}
	}
	return nil
}

// run tests all harnesses, up to jobs at the same time, and writes the page.
func run(ctx context.Context, out string, jobs int, now time.Time) error {
	all, err := read(".")
	if err != nil {
		return err
	}
	bin, err := os.MkdirTemp("", "conform-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(bin)
	ran, errs := make([]tested, len(all)), make([]error, len(all))
	var running sync.WaitGroup
	slots := make(chan struct{}, jobs)
	for i, h := range all {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			if ran[i], errs[i] = h.run(ctx, bin, conformance.Options{}); errs[i] == nil {
				fmt.Printf("%s: %s, %s\n", h.Name, ran[i].cell(everything), ran[i].report.Took.Round(time.Second))
			}
		})
	}
	running.Wait()
	var done []tested
	var wrong []error
	for i, h := range all {
		if errs[i] != nil { // the others are still worth a page
			wrong = append(wrong, fmt.Errorf("%s: %w", h.Name, errs[i]))
			continue
		}
		done = append(done, ran[i])
		wrong = append(wrong, ran[i].undecided())
	}
	if len(done) == 0 {
		return errors.Join(wrong...)
	}
	var page bytes.Buffer
	if err := write(&page, done, now); err != nil {
		return err
	}
	return errors.Join(append(wrong, os.WriteFile(out, page.Bytes(), 0o644))...)
}

// undecided reports the failures of one of our servers for which there is no decision, and decisions that are no longer needed.
func (h tested) undecided() error {
	if !h.Ours {
		return nil
	}
	var wrong []error
	failed := map[string]bool{}
	for _, result := range h.report.Failures(true) {
		failed[result.Case.ID] = true
		if h.Decided[result.Case.ID] == "" {
			wrong = append(wrong, fmt.Errorf("%s: FAILED %s", h.Name, result))
		}
	}
	for id := range h.Decided {
		if !failed[id] {
			wrong = append(wrong, fmt.Errorf("%s: %s passes: remove it from decided", h.Name, id))
		}
	}
	return errors.Join(wrong...)
}

// target returns what the harness claims.
func (h harness) target() (conformance.Target, error) {
	routes := map[string]conformance.Route{}
	for _, name := range h.Routes {
		route, ok := conformance.DefaultRoutes()[name]
		if !ok {
			return conformance.Target{}, fmt.Errorf("unknown route %q", name)
		}
		routes[name] = route
	}
	return conformance.Target{URL: h.Target, Routes: routes, Profiles: h.Profiles, Features: h.Features}, nil
}

// run builds the harness and runs the newest set against it.
func (h harness) run(ctx context.Context, bin string, o conformance.Options) (tested, error) {
	place := strings.NewReplacer("{bin}", filepath.ToSlash(bin))
	if len(h.Build) > 0 {
		args := make([]string, len(h.Build))
		for i, word := range h.Build {
			args[i] = place.Replace(word)
		}
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return tested{}, fmt.Errorf("building it: %w", err)
		}
	}
	target, err := h.target()
	if err != nil {
		return tested{}, err
	}
	if target.Start, err = conformance.StartCommand(place.Replace(h.Start)); err != nil {
		return tested{}, err
	}
	done := tested{harness: h}
	program, _, _ := strings.Cut(place.Replace(h.Start), " ")
	if done.versions, err = h.versionsOf(ctx, program); err != nil {
		return tested{}, err
	}
	done.report, err = conformance.Check(ctx, target, o)
	return done, err
}

// versionsOf returns the versions that the page names, of what was built.
func (h harness) versionsOf(ctx context.Context, program string) (versions []string, err error) {
	if h.Ours {
		versions = append(versions, "this repository")
	}
	if len(h.Modules) > 0 {
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			return nil, err
		}
		for _, module := range h.Modules {
			version := ""
			for _, dep := range info.Deps {
				if dep.Path == module {
					version = dep.Version
				}
			}
			if version == "" {
				return nil, fmt.Errorf("%s does not contain the module %s", program, module)
			}
			versions = append(versions, module+" "+version)
		}
	}
	if len(h.Packages) > 0 {
		text, err := os.ReadFile(npmLock)
		if err != nil {
			return nil, err
		}
		var lock struct {
			Packages map[string]struct {
				Version string `json:"version"`
			} `json:"packages"`
		}
		if err := json.Unmarshal(text, &lock); err != nil {
			return nil, fmt.Errorf("%s: %w", npmLock, err)
		}
		for _, name := range h.Packages {
			version := lock.Packages["node_modules/"+name].Version
			if version == "" {
				return nil, fmt.Errorf("%s has no %s", npmLock, name)
			}
			versions = append(versions, name+" "+version)
		}
	}
	for _, name := range h.Programs {
		text, err := exec.CommandContext(ctx, name, "version").Output()
		if err != nil {
			return nil, fmt.Errorf("%s version: %w", name, err)
		}
		version, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
		versions = append(versions, name+" "+version)
	}
	return versions, nil
}

func everything(conformance.Case) bool { return true }

func inGroup(name string) func(conformance.Case) bool {
	return func(c conformance.Case) bool { return c.Group == name }
}

// groups returns the groups that have binding cases.
func groups(report *conformance.Report) (names []string) {
	for _, result := range report.Results {
		if result.Case.Strength.Binding() && !slices.Contains(names, result.Case.Group) {
			names = append(names, result.Case.Group)
		}
	}
	slices.Sort(names)
	return names
}

// cell counts the binding cases that are selected.
func (h tested) cell(selected func(conformance.Case) bool) string {
	passed, ran, offered := 0, 0, false
	for _, result := range h.report.Results {
		c := result.Case
		if !selected(c) || !c.Strength.Binding() || h.NotOffered[c.Group] != "" {
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

// write writes the page. Failures of other projects are described by group only.
func write(w io.Writer, all []tested, now time.Time) error {
	var b strings.Builder
	sets := conformance.Sets()
	fmt.Fprintf(&b, `# Which servers pass the conformance suite?

This page is the output of one command, on %s, with the set %s of %d cases. It takes less than fifteen minutes on two cores:

    go run ./conformance/harness/report

It needs node, npm and Caddy. [conform.md](conform.md) explains how to test your own server.

## What do the numbers mean?

A cell has the number of cases passed, of those that the server claims to support. The rest is as important as the number:

- Only cases of the levels must and should count. A "must" can be the name of an error in a challenge; most differences are of that kind, and
  are not a vulnerability.
- "not offered" is not a failure, because the server does not claim the feature. The sums of two servers are therefore not comparable.
- A library that only verifies tokens is one part of such a server. The rest is [our code](../conformance/harness/servers/internal/peer/peer.go),
  which does as much as RFC 6750 asks.
- Cases that wait for longer than two seconds did not run. `+"`-only NAME -slow`"+` runs them, and prints each failure with its request.

Differences of other projects are described by group only. Those that matter for security must be reported to the project first, in private,
as its security policy asks. Do the same with what you find. If a server is configured in an unfair way, please open an issue.

`, now.UTC().Format("2 January 2006"), sets[len(sets)-1], len(all[0].report.Results))

	ours := slices.DeleteFunc(slices.Clone(all), func(h tested) bool { return !h.Ours })
	peers := slices.DeleteFunc(slices.Clone(all), func(h tested) bool { return h.Ours })
	b.WriteString("## How do the servers of this project do?\n\n")
	matrix(&b, ours)
	decisions(&b, ours)
	b.WriteString("Servers of gRPC and Connect have no column: the suite sends HTTP/1.1 requests, which they answer with codes of gRPC. The tests\nof `adapters/valetgrpc` and `adapters/valetconnect` run the items of the standards against them.\n\n")
	if len(peers) > 0 {
		b.WriteString("## How do others do?\n\n")
		matrix(&b, peers)
	}
	b.WriteString("## How is each server configured?\n\nAs its own documentation recommends, with every check that it offers switched on.\n\n| server | versions | configuration |\n|---|---|---|\n")
	for _, h := range all {
		setup := h.Setup
		for _, group := range slices.Sorted(maps.Keys(h.NotOffered)) {
			setup += fmt.Sprintf(" Not offered: %s, because %s.", group, h.NotOffered[group])
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", h.Name, strings.Join(h.versions, "<br>"), setup)
	}
	b.WriteString("\n[harnesses.json](../conformance/harness/harnesses.json) lists what each server claims. The programs are in the same folder.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// matrix writes one table.
func matrix(b *strings.Builder, all []tested) {
	row := func(first string, cell func(h tested) string) {
		fmt.Fprintf(b, "| %s |", first)
		for _, h := range all {
			fmt.Fprintf(b, " %s |", cell(h))
		}
		b.WriteByte('\n')
	}
	row("group", func(h tested) string { return h.Name })
	row("---", func(tested) string { return "---" })
	for _, group := range groups(all[0].report) {
		row(group, func(h tested) string { return h.cell(inGroup(group)) })
	}
	row("**all**", func(h tested) string { return h.cell(everything) })
	b.WriteByte('\n')
}

// decisions lists the cases that our servers fail, with reasons.
func decisions(b *strings.Builder, ours []tested) {
	var rows []string
	for _, h := range ours {
		for _, id := range slices.Sorted(maps.Keys(h.Decided)) {
			c, _ := conformance.FindCase(id)
			rows = append(rows, fmt.Sprintf("| %s | `%s` | %s | %s |\n", h.Name, id, c.Title, h.Decided[id]))
		}
	}
	if len(rows) > 0 {
		fmt.Fprintf(b, "These cases fail, for a reason:\n\n| server | case | title | reason |\n|---|---|---|---|\n%s\n", strings.Join(rows, ""))
	}
}

// column returns the cells of a server in the page, by group.
func column(page, server string) map[string]string {
	cells := map[string]string{}
	at := -1
	for line := range strings.Lines(page) {
		fields := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		switch {
		case fields[0] == "group":
			at = slices.Index(fields, server)
		case fields[0] == "": // the end of a table
			at = -1
		case at > 0 && at < len(fields) && fields[0] != "---":
			cells[strings.Trim(fields[0], "*")] = fields[at]
		}
	}
	return cells
}
