package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/conformance"
)

// Results is what was measured, in results.json.
type results struct {
	Run        time.Time `json:"run"`     // start of the last run of all servers
	Minutes    int       `json:"minutes"` // that it took
	Jobs       int       `json:"jobs"`
	Processors int       `json:"processors"` // of the machine
	Load       int       `json:"load"`       // average of the last 15 minutes of the run; 0: not known
	Set        string    `json:"set"`
	Cases      int       `json:"cases"`
	Columns    []column  `json:"columns"`
}

// A column has the numbers of one server: sums of groups only.
type column struct {
	Name     string            `json:"name"`
	Run      time.Time         `json:"run"` // start of the command; that of results.Run unless the column was repeated
	Seconds  int               `json:"seconds"`
	Versions []string          `json:"versions"`
	Cells    map[string]string `json:"cells"` // by group, and "all"

	SlowRun time.Time         `json:"slow_run,omitzero"`
	Slow    map[string]string `json:"slow,omitempty"` // the same for the slow cases
}

// total is the name of the cell with the sum.
const total = "all"

func (h tested) column(run time.Time) column {
	c := column{Name: h.Name, Run: run, Seconds: int(h.report.Took.Seconds() + 0.5), Versions: h.versions, Cells: map[string]string{total: h.cell(everything)}}
	for _, group := range groups(h.report) {
		c.Cells[group] = h.cell(inGroup(group))
	}
	return c
}

func readResults(root string) (*results, error) {
	var r results
	text, err := os.ReadFile(filepath.Join(root, kept))
	if errors.Is(err, fs.ErrNotExist) {
		return &r, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", kept, err)
	}
	return &r, nil
}

func (r *results) save(root string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, kept), append(text, '\n'), 0o644)
}

// find returns the column of a server, or nil.
func (r *results) find(name string) *column {
	if i := slices.IndexFunc(r.Columns, func(c column) bool { return c.Name == name }); i >= 0 {
		return &r.Columns[i]
	}
	return nil
}

// add adds or replaces a column, and keeps its results of the slow cases.
func (r *results) add(c column) {
	sets := conformance.Sets()
	r.Set, r.Cases = sets[len(sets)-1], len(conformance.Cases())
	if old := r.find(c.Name); old != nil {
		c.SlowRun, c.Slow = old.SlowRun, old.Slow
		*old = c
		return
	}
	r.Columns = append(r.Columns, c)
}

// addSlow adds the results of the slow cases to a column.
func (r *results) addSlow(c column) {
	old := r.find(c.Name)
	if old == nil {
		r.Columns = append(r.Columns, column{Name: c.Name, Versions: c.Versions})
		old = &r.Columns[len(r.Columns)-1]
	}
	old.SlowRun, old.Slow = c.Run, c.Cells
}

func writePage(name string, harnesses []harness, r *results) error {
	var b bytes.Buffer
	write(&b, harnesses, r)
	return os.WriteFile(name, b.Bytes(), 0o644)
}

const dateForm = "2 January 2006"

// write writes the page. Failures of other projects are described by group only.
func write(b *bytes.Buffer, harnesses []harness, r *results) {
	fmt.Fprintf(b, `# Which servers pass the conformance suite?

This page is the output of one command, on %s, with the set %s of %d cases:

    go run ./conformance/harness/report

%s It needs node, npm and Caddy. [conform.md](conform.md) explains how to test your own server.

## What do the numbers mean?

A cell has the number of cases passed, of those that the server claims to support. The rest is as important as the number:

- Only cases of the levels must and should count. A "must" can be the name of an error in a challenge; most differences are of that kind, and
  are not a vulnerability.
- "not offered" is not a failure, because the server does not claim the feature. The sums of two servers are therefore not comparable.
- A library that only verifies tokens is one part of such a server. The rest is [our code](../conformance/harness/servers/internal/peer/peer.go),
  which does as much as RFC 6750 asks.
- A case that ends a server counts as failed. The server is started again for the others.

Differences of other projects are described by group only. Those that matter for security should be reported to the project first, in private, as
its security policy asks: a token or a proof that is accepted although it must be refused, and a request that ends the server. Do the same with
what you find: `+"`-only NAME`"+` prints each failure with its request. If a server is configured in an unfair way, please
open an issue.

## How do the servers of this project do?

`, r.Run.Format(dateForm), r.Set, r.Cases, r.took(harnesses))
	kind := func(ours bool) (of []harness) {
		for _, h := range harnesses {
			if h.Ours == ours && r.find(h.Name) != nil {
				of = append(of, h)
			}
		}
		return of
	}
	ours, peers := kind(true), kind(false)
	cells := func(c *column) map[string]string { return c.Cells }
	matrix(b, ours, r, cells)
	decisions(b, ours)
	b.WriteString(notFitting)
	b.WriteString("## How do others do?\n\n")
	matrix(b, peers, r, cells)
	slowTable(b, harnesses, r)
	b.WriteString("## How is each server configured?\n\nAs its own documentation recommends, with every check that it offers switched on.\n\n" +
		"| server | versions | configuration | run |\n|---|---|---|---|\n")
	for _, h := range append(ours, peers...) {
		setup := h.Setup
		for _, group := range slices.Sorted(maps.Keys(h.NotOffered)) {
			setup += fmt.Sprintf(" Not offered: %s, because %s.", group, h.NotOffered[group])
		}
		c := r.find(h.Name)
		fmt.Fprintf(b, "| %s | %s | %s | %s, %d s |\n", h.Name, strings.Join(c.Versions, "<br>"), setup, c.Run.Format("2006-01-02 15:04"), c.Seconds)
	}
	b.WriteString("\n[harnesses.json](../conformance/harness/harnesses.json) lists what each server claims. The programs are in the same folder.\n\n")
	b.WriteString("## Is each configuration fair?\n\nEach was reviewed twice: when it was written, and later against the documentation and the source of the same version.\n\n" +
		"| server | what the second review read | offered, and off | what it changed |\n|---|---|---|---|\n")
	for _, h := range peers {
		if h.Review != nil {
			fmt.Fprintf(b, "| %s | %s | %s | %s |\n", h.Name, h.Review.Read, h.Review.LeftOff, h.Review.Changed)
		}
	}
}

const notFitting = `Two of our adapters have no column. The suite sends requests of HTTP/1.1, most of them GET without a query, to one path for each
requirement:

- gRPC does not fit: it needs HTTP/2 and its own framing, and responds with status 200 and a code in the trailer where the cases expect 401,
  403 and a challenge.
- Connect does not fit: a call is a POST of a message, or a GET with a query of several parameters. The handler refuses other
  requests even with a good token, and where no token is accepted, no refusal means anything.

The tests of ` + "`adapters/valetgrpc` and `adapters/valetconnect`" + ` run the items of the standards against them.

`

// took describes how long the run took, and which columns were repeated.
func (r *results) took(harnesses []harness) string {
	text := fmt.Sprintf("it took %d minutes on %d processors", r.Minutes, r.Processors)
	if r.Load > r.Processors {
		text += fmt.Sprintf(" that other work kept busy, at a load average of %d", r.Load)
	}
	if r.Jobs > 1 {
		text = fmt.Sprintf("with `-jobs %d`, %s", r.Jobs, text)
	}
	text = strings.ToUpper(text[:1]) + text[1:] + "."
	if r.Minutes == 0 {
		text = "Its columns were run one by one; the last table has the time of each."
	}
	var again []string
	for _, h := range harnesses {
		if c := r.find(h.Name); c != nil && !c.Run.Equal(r.Run) && !r.Run.IsZero() {
			again = append(again, h.Name)
		}
	}
	if len(again) > 0 {
		text += fmt.Sprintf(" Afterwards, `-only NAME -write` repeated the columns of %s.", strings.Join(again, ", "))
	}
	return text
}

// loadAverage returns the number of processes that ran or waited for a processor in the last 15 minutes, or 0 where no one counts.
func loadAverage() int {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	var one, five, fifteen float64
	if _, err := fmt.Sscan(string(text), &one, &five, &fifteen); err != nil {
		return 0
	}
	return int(fifteen + 0.5)
}

// matrix writes one table.
func matrix(b *bytes.Buffer, harnesses []harness, r *results, cellsOf func(*column) map[string]string) {
	row := func(first string, cell func(h harness) string) {
		fmt.Fprintf(b, "| %s |", first)
		for _, h := range harnesses {
			fmt.Fprintf(b, " %s |", cell(h))
		}
		b.WriteByte('\n')
	}
	names := map[string]bool{}
	for _, h := range harnesses {
		for group := range cellsOf(r.find(h.Name)) {
			names[group] = group != total
		}
	}
	delete(names, total)
	row("group", func(h harness) string { return h.Name })
	row("---", func(harness) string { return "---" })
	for _, group := range slices.Sorted(maps.Keys(names)) {
		row(group, func(h harness) string { return cellsOf(r.find(h.Name))[group] })
	}
	row("**all**", func(h harness) string { return cellsOf(r.find(h.Name))[total] })
	b.WriteByte('\n')
}

// slowTable writes the results of the slow cases.
func slowTable(b *bytes.Buffer, harnesses []harness, r *results) {
	var ran []harness
	runs := map[time.Time]bool{}
	for _, h := range harnesses {
		if c := r.find(h.Name); c != nil && c.Slow != nil {
			ran = append(ran, h)
			runs[c.SlowRun] = true
		}
	}
	b.WriteString("## What about clocks and caches?\n\n")
	if len(ran) == 0 {
		b.WriteString("The cases that wait for them have not run yet: `go run ./conformance/harness/report -slow -write`.\n\n")
		return
	}
	var dates []string
	for _, run := range slices.SortedFunc(maps.Keys(runs), time.Time.Compare) {
		dates = append(dates, run.Format(dateForm+", 15:04"))
	}
	fmt.Fprintf(b, "These cases wait for the clock and the caches of a server, for 1 to 15 minutes, so they run apart, for all servers of a run at the same time.\n"+
		"Runs: %s.\n\n    go run ./conformance/harness/report -slow -write\n\n", strings.Join(dates, "; "))
	matrix(b, ran, r, func(c *column) map[string]string { return c.Slow })
	b.WriteString("In the cases of rotation, the issuer changes its keys after 65 s: a token by a new key must be accepted, and one by a withdrawn or replaced\n" +
		"key refused. A server that documents a longer lifetime of its keys fails them. In those of cache, a token must be refused 11 minutes after it\n" +
		"expired, and one with a nbf in the future accepted 12 minutes after it was refused. The proxy and the adapters have the guard of net/http, and\n" +
		"were not run.\n\n")
}

// decisions lists the cases that our servers fail, with reasons.
func decisions(b *bytes.Buffer, ours []harness) {
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
