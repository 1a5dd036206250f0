// Command report runs the conformance suite against each server of harnesses.json and writes the matrix of docs/conformance-report.md. Run it
// in the root of the repository; it needs npm, node and Caddy:
//
//	go run ./conformance/harness/report
//	go run ./conformance/harness/report -only echo,jose           prints the failures of two, and leaves the page as it is
//	go run ./conformance/harness/report -only echo,jose -write    repeats the columns of two; the page states that
//	go run ./conformance/harness/report -slow -write              runs the slow cases alone, for all at the same time, and writes their table
//	go run ./conformance/harness/report -render                   writes the page again, after a change of its text, and runs nothing
//
// results.json keeps the numbers of each column, so that one can be repeated. Of peers, it has no more than the page: sums of groups.
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
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey/conformance"
)

const (
	list    = "conformance/harness/harnesses.json"
	kept    = "conformance/harness/results.json"
	page    = "docs/conformance-report.md"
	npmLock = "conformance/harness/npm/package-lock.json"
)

// slowLimit bounds a run of the slow cases, the longest of which waits for 15 minutes.
const slowLimit = 25 * time.Minute

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

	// Review is the outcome of the reviews for fairness, of each peer.
	Review *review `json:"review"`
}

// A review states whether a peer is configured fairly, for readers of the page.
type review struct {
	Read    string `json:"read"`     // what was read
	LeftOff string `json:"left_off"` // the checks that it offers and that are off, and why
	Changed string `json:"changed"`  // what the reviews changed
}

// A tested harness has been run.
type tested struct {
	harness
	versions []string
	report   *conformance.Report
}

func main() {
	only := flag.String("only", "", "names of servers, separated by commas, whose failures are printed")
	toPage := flag.Bool("write", false, "with -only or -slow: write the numbers to the page, in place of printing failures")
	jobs := flag.Int("jobs", 1, "how many servers are tested at the same time; more than one is faster, and may fail cases about timing and ports")
	slow := flag.Bool("slow", false, "run only the cases that wait for longer than two seconds")
	render := flag.Bool("render", false, "run nothing, and write the page with the numbers of results.json")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	task := func() error { return run(ctx, os.Stdout, *only, *slow, *toPage, max(*jobs, 1)) }
	if *render {
		task = func() error { return save(func(*results) {}) }
	}
	if err := task(); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

// save changes results.json, and writes the page.
func save(change func(*results)) error {
	all, err := read(".")
	if err != nil {
		return err
	}
	r, err := readResults(".")
	if err != nil {
		return err
	}
	change(r)
	return errors.Join(r.save("."), writePage(page, all, r))
}

func run(ctx context.Context, w io.Writer, only string, slow, toPage bool, jobs int) error {
	all, err := read(".")
	if err != nil {
		return err
	}
	chosen := all
	if only != "" {
		chosen = nil
		for name := range strings.SplitSeq(only, ",") {
			i := slices.IndexFunc(all, func(h harness) bool { return h.Name == name })
			if i < 0 {
				return fmt.Errorf("%s has no %q", list, name)
			}
			chosen = append(chosen, all[i])
		}
	}
	options := conformance.Options{}
	if slow {
		options.Slow, options.Cases = true, slowCases()
		jobs = len(chosen) // they wait, and load nothing
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, slowLimit)
		defer cancel()
	}
	show := (only != "" || slow) && !toPage
	bin, err := os.MkdirTemp("", "conform-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(bin)
	started := time.Now().UTC().Truncate(time.Second)
	full := only == "" && !slow
	var mu sync.Mutex // guards wrong, and the files
	var wrong []error
	note := func(h harness, err error) {
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", h.Name, err))
		}
	}
	var running sync.WaitGroup
	slots := make(chan struct{}, jobs)
	for _, h := range chosen {
		slots <- struct{}{}
		if err := h.build(ctx, bin); err != nil {
			mu.Lock()
			note(h, err) // the others are still worth a page
			mu.Unlock()
			<-slots
			continue
		}
		running.Go(func() {
			defer func() { <-slots }()
			done, err := h.run(ctx, bin, options)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				note(h, err)
				return
			}
			fmt.Fprintf(os.Stderr, "%s: %s, %s\n", h.Name, done.cell(everything), done.report.Took.Round(time.Second))
			if show {
				fmt.Fprintf(w, "# %s\n\n", h.Name)
				note(h, done.report.WriteTable(w, nil))
				return
			}
			// At once, so that a run that is interrupted keeps the columns that are complete.
			note(h, save(func(r *results) {
				if slow {
					r.addSlow(done.column(started))
				} else {
					r.add(done.column(started))
				}
			}))
			if !slow {
				note(h, done.undecided())
			}
		})
	}
	running.Wait()
	if full && ctx.Err() == nil {
		wrong = append(wrong, save(func(r *results) {
			r.Run, r.Minutes, r.Jobs = started, max(int(time.Since(started).Minutes()+0.5), 1), jobs
			r.Processors, r.Load = runtime.NumCPU(), loadAverage()
		}))
	}
	return errors.Join(wrong...)
}

// slowCases returns the cases that a run without -slow skips.
func slowCases() []conformance.Case {
	return slices.DeleteFunc(conformance.Cases(), func(c conformance.Case) bool { return !c.Slow() })
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
			wrong = append(wrong, fmt.Errorf("FAILED %s", result))
		}
	}
	for id := range h.Decided {
		if !failed[id] {
			wrong = append(wrong, fmt.Errorf("%s passes: remove it from decided", id))
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

// build builds the harness.
func (h harness) build(ctx context.Context, bin string) error {
	if len(h.Build) == 0 {
		return nil
	}
	args := make([]string, len(h.Build))
	for i, word := range h.Build {
		args[i] = strings.ReplaceAll(word, "{bin}", filepath.ToSlash(bin))
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building it: %w", err)
	}
	return nil
}

// run runs the newest set against the harness.
func (h harness) run(ctx context.Context, bin string, o conformance.Options) (tested, error) {
	place := strings.NewReplacer("{bin}", filepath.ToSlash(bin))
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
