package conformance

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// String describes a failure for people: the title, what was expected and received, and why it matters.
func (r Result) String() string {
	var b strings.Builder
	c := r.Case
	fmt.Fprintf(&b, "%s: %s\n", c.ID, c.Title)
	fmt.Fprintf(&b, "  %s, %s\n", c.Strength, c.Source())
	for _, p := range r.Problems {
		first, rest, more := strings.Cut(p, "\n")
		fmt.Fprintf(&b, "  problem:  %s\n", printable(first))
		if more { // the output of a program that ended
			b.WriteString(indented(rest))
		}
	}
	if r.Expected != "" {
		fmt.Fprintf(&b, "  expected: %s\n", printable(r.Expected))
	}
	if n := len(r.Sent); n > 0 {
		fmt.Fprintf(&b, "  sent:\n%s  received:\n%s", indented(r.Sent[n-1].Request), indented(r.Sent[n-1].Response))
	}
	fmt.Fprintf(&b, "  why it matters: %s\n  reference: %s\n", c.Reason, c.Reference)
	return b.String()
}

// Source returns the standard and the section of a case, such as "RFC 6750, section 3.1".
func (c Case) Source() string {
	switch {
	case c.Section == "":
		return c.Standard
	case c.Standard == "CWE":
		return "CWE-" + c.Section
	case c.Section[0] >= '0' && c.Section[0] <= '9':
		return c.Standard + ", section " + c.Section
	}
	return c.Standard + ", " + c.Section
}

// indented prints text that a server or a case has chosen, without control characters, and not all of a long line.
func indented(s string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimRight(strings.ReplaceAll(s, "\r\n", "\n"), "\n"), "\n") {
		if len(line) > maxLine {
			line = fmt.Sprintf("%s... (%d bytes)", line[:maxLine], len(line))
		}
		b.WriteString("    " + printable(line) + "\n")
	}
	return b.String()
}

const maxLine = 1000

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, s)
}

// A groupCount is a row of the summary.
type groupCount struct {
	Group      string `json:"group"`
	Passed     int    `json:"passed"`
	Failed     int    `json:"failed"`      // binding
	Differs    int    `json:"differs"`     // failed and not binding
	NotOffered int    `json:"not_offered"` // not claimed by the server
	Skipped    int    `json:"skipped"`
}

// groups returns the summary, ordered by group.
func (r *Report) groups() []groupCount {
	byName := map[string]*groupCount{}
	for _, result := range r.Results {
		g := byName[result.Case.Group]
		if g == nil {
			g = &groupCount{Group: result.Case.Group}
			byName[result.Case.Group] = g
		}
		switch {
		case result.Verdict == Passed:
			g.Passed++
		case result.Verdict == NotOffered:
			g.NotOffered++
		case result.Verdict == Skipped:
			g.Skipped++
		case result.Case.Strength.Binding():
			g.Failed++
		default:
			g.Differs++
		}
	}
	var all []groupCount
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all = append(all, *byName[name])
	}
	return all
}

// total returns the sum of all groups.
func (r *Report) total() groupCount {
	sum := groupCount{Group: "all"}
	for _, g := range r.groups() {
		sum.Passed += g.Passed
		sum.Failed += g.Failed
		sum.Differs += g.Differs
		sum.NotOffered += g.NotOffered
		sum.Skipped += g.Skipped
	}
	return sum
}

// WriteTable writes r for people: the summary, then each new failure with its request and response, then the rest in short.
func (r *Report) WriteTable(w io.Writer, known Baseline) error {
	compared := r.Against(known)
	out := &errorWriter{to: w}
	profiles := make([]string, len(r.Profiles))
	for i, p := range r.Profiles {
		profiles[i] = string(p)
	}
	fmt.Fprintf(out, "Target %s, audience %s, profiles %s, set %s\n\n", cmp.Or(r.Target, "/"), r.Audience, strings.Join(profiles, ","), cmp.Or(r.Set, "none"))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "passed\tfailed\tdiffers\tnot offered\tskipped\t group")
	for _, g := range append(r.groups(), r.total()) {
		fmt.Fprintf(table, "%d\t%d\t%d\t%d\t%d\t %s\n", g.Passed, g.Failed, g.Differs, g.NotOffered, g.Skipped, g.Group)
	}
	table.Flush()
	fmt.Fprintf(out, "\n%d requests in %s.\n", r.Requests, r.Took.Round(100*time.Millisecond))
	for _, result := range compared.New {
		fmt.Fprintf(out, "\nFAILED %s", result)
	}
	for _, result := range compared.Known {
		fmt.Fprintf(out, "\nknown: %s: %s\n", result.Case.ID, result.Case.Title)
	}
	for _, result := range r.Failures(false) {
		fmt.Fprintf(out, "\ndiffers (%s): %s: %s\n", result.Case.Strength, result.Case.ID, result.Case.Title)
		for _, p := range result.Problems {
			fmt.Fprintf(out, "  %s\n", printable(p))
		}
	}
	for reason, n := range r.skipped() {
		fmt.Fprintf(out, "\nskipped: %d cases: %s\n", n, reason)
	}
	for _, id := range compared.Fixed {
		fmt.Fprintf(out, "\nfixed: %s: remove it from the baseline\n", id)
	}
	return out.err
}

// skipped counts the skipped cases by reason.
func (r *Report) skipped() map[string]int {
	n := map[string]int{}
	for _, result := range r.Results {
		if result.Verdict == Skipped {
			n[strings.Join(result.Problems, ", ")]++
		}
	}
	return n
}

// An errorWriter remembers the first error.
type errorWriter struct {
	to  io.Writer
	err error
}

func (w *errorWriter) Write(p []byte) (int, error) {
	if w.err == nil {
		_, w.err = w.to.Write(p)
	}
	return len(p), nil
}

// ReportSchema is the JSON Schema of the documents that [Report.WriteJSON] writes.
//
//go:embed report.schema.json
var ReportSchema []byte

type reportJSON struct {
	Version  int          `json:"version"` // of this form; a change that breaks readers increments it
	Set      string       `json:"set,omitempty"`
	Target   string       `json:"target"`
	Audience string       `json:"audience"`
	Profiles []Profile    `json:"profiles"`
	Started  time.Time    `json:"started"`
	Seconds  float64      `json:"seconds"`
	Requests int          `json:"requests"`
	Total    groupCount   `json:"total"`
	Groups   []groupCount `json:"groups"`
	Results  []resultJSON `json:"results"`
}

type resultJSON struct {
	ID           string     `json:"id"`
	Title        string     `json:"title"`
	Level        Strength   `json:"level"`
	Group        string     `json:"group"`
	Profile      Profile    `json:"profile"`
	Items        []string   `json:"items,omitempty"`
	Source       string     `json:"source"`
	Verdict      Verdict    `json:"verdict"`
	Known        bool       `json:"known,omitempty"` // in the baseline
	Problems     []string   `json:"problems,omitempty"`
	Expected     string     `json:"expected,omitempty"`
	Exchanges    []Exchange `json:"exchanges,omitempty"`
	Reason       string     `json:"reason"`
	Reference    string     `json:"reference"`
	Milliseconds int64      `json:"milliseconds"`
}

// WriteJSON writes r as a JSON document in the form of [ReportSchema].
func (r *Report) WriteJSON(w io.Writer, known Baseline) error {
	doc := reportJSON{Version: 1, Set: r.Set, Target: r.Target, Audience: r.Audience, Profiles: r.Profiles, Started: r.Started.UTC(),
		Seconds: r.Took.Seconds(), Requests: r.Requests, Total: r.total(), Groups: r.groups(), Results: []resultJSON{}}
	for _, result := range r.Results {
		c := result.Case
		one := resultJSON{ID: c.ID, Title: c.Title, Level: c.Strength, Group: c.Group, Profile: c.Profile, Items: c.Items, Source: c.Source(),
			Verdict: result.Verdict, Known: slices.Contains(known, c.ID), Problems: result.Problems, Expected: result.Expected, Reason: c.Reason,
			Reference: c.Reference, Milliseconds: result.Took.Milliseconds()}
		if result.Verdict == Failed {
			one.Exchanges = result.Sent
		}
		doc.Results = append(doc.Results, one)
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	return enc.Encode(doc)
}

// WriteJUnit writes r in the XML of JUnit, as CI systems read it. Failures that are known or not binding are skipped tests.
func (r *Report) WriteJUnit(w io.Writer, known Baseline) error {
	type message struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",cdata"`
	}
	type testCase struct {
		Name    string   `xml:"name,attr"`
		Class   string   `xml:"classname,attr"`
		Seconds float64  `xml:"time,attr"`
		Failure *message `xml:"failure,omitempty"`
		Skipped *message `xml:"skipped,omitempty"`
	}
	type testSuite struct {
		XMLName  xml.Name   `xml:"testsuite"`
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Skipped  int        `xml:"skipped,attr"`
		Seconds  float64    `xml:"time,attr"`
		Cases    []testCase `xml:"testcase"`
	}
	suite := testSuite{Name: "valetkey conform", Tests: len(r.Results), Seconds: r.Took.Seconds()}
	for _, result := range r.Results {
		one := testCase{Name: result.Case.ID, Class: "conformance." + result.Case.Group, Seconds: result.Took.Seconds()}
		text := &message{Message: xmlText(strings.Join(result.Problems, "; ")), Text: xmlText(result.String())}
		switch {
		case result.Verdict == Passed:
		case result.Verdict == Failed && result.Case.Strength.Binding() && !slices.Contains(known, result.Case.ID):
			one.Failure = text
			suite.Failures++
		default:
			if result.Verdict != Failed {
				text.Text = ""
			}
			one.Skipped = text
			suite.Skipped++
		}
		suite.Cases = append(suite.Cases, one)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "\t")
	if err := enc.Encode(suite); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// xmlText keeps the lines of a text and drops what XML 1.0 cannot carry (section 2.2), and the end of a CDATA section.
func xmlText(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = strings.NewReplacer("\uFFFE", "\uFFFD", "\uFFFF", "\uFFFD").Replace(printable(strings.ToValidUTF8(line, "\uFFFD")))
	}
	return strings.ReplaceAll(strings.Join(lines, "\n"), "]]>", "]] >")
}

// WriteSARIF writes the failures of r in SARIF 2.1.0, as code scanning reads it. Failures that are not binding are notes.
func (r *Report) WriteSARIF(w io.Writer, known Baseline) error {
	type text struct {
		Text string `json:"text"`
	}
	type rule struct {
		ID      string `json:"id"`
		Short   text   `json:"shortDescription"`
		Full    text   `json:"fullDescription"`
		HelpURI string `json:"helpUri"`
	}
	type suppression struct {
		Kind string `json:"kind"`
	}
	type artifact struct {
		URI string `json:"uri"`
	}
	type physical struct {
		Artifact artifact `json:"artifactLocation"`
	}
	type location struct {
		Physical physical `json:"physicalLocation"`
	}
	type finding struct {
		RuleID       string        `json:"ruleId"`
		Level        string        `json:"level"`
		Message      text          `json:"message"`
		Locations    []location    `json:"locations"`
		Suppressions []suppression `json:"suppressions,omitempty"`
	}
	type driver struct {
		Name           string `json:"name"`
		InformationURI string `json:"informationUri"`
		Rules          []rule `json:"rules"`
	}
	type tool struct {
		Driver driver `json:"driver"`
	}
	type run struct {
		Tool    tool      `json:"tool"`
		Results []finding `json:"results"`
	}
	type log struct {
		Schema  string `json:"$schema"`
		Version string `json:"version"`
		Runs    []run  `json:"runs"`
	}
	one := run{Tool: tool{driver{"valetkey conform", "https://github.com/valetkey/valetkey", []rule{}}}, Results: []finding{}}
	for _, result := range r.Results {
		if result.Verdict != Failed {
			continue
		}
		c := result.Case
		level := map[Strength]string{CaseMust: "error", CaseShould: "warning"}[c.Strength]
		f := finding{RuleID: c.ID, Level: cmp.Or(level, "note"), Message: text{strings.Join(result.Problems, "; ") + ". " + c.Reason},
			Locations: []location{{physical{artifact{cmp.Or(r.Target, "/")}}}}}
		if slices.Contains(known, c.ID) {
			f.Suppressions = []suppression{{"external"}}
		}
		one.Tool.Driver.Rules = append(one.Tool.Driver.Rules, rule{c.ID, text{c.Title}, text{c.Reason}, c.Reference})
		one.Results = append(one.Results, f)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "\t")
	return enc.Encode(log{"https://json.schemastore.org/sarif-2.1.0.json", "2.1.0", []run{one}})
}

// WriteMarkdown writes r as a page: the summary and the failures, without requests.
func (r *Report) WriteMarkdown(w io.Writer, known Baseline) error {
	out := &errorWriter{to: w}
	fmt.Fprintf(out, "| group | passed | failed | differs | not offered | skipped |\n|---|---|---|---|---|---|\n")
	for _, g := range append(r.groups(), r.total()) {
		fmt.Fprintf(out, "| %s | %d | %d | %d | %d | %d |\n", g.Group, g.Passed, g.Failed, g.Differs, g.NotOffered, g.Skipped)
	}
	fmt.Fprintf(out, "\nSet %s.\n", cmp.Or(r.Set, "none"))
	var rows []string
	for _, result := range r.Results {
		if result.Verdict != Failed {
			continue
		}
		c := result.Case
		state := "failed"
		switch {
		case slices.Contains(known, c.ID):
			state = "known"
		case !c.Strength.Binding():
			state = "differs"
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s | %s | %s |\n", c.ID, state, c.Strength, cell(c.Title),
			cell(strings.Join(result.Problems, "; ")), cell(c.Reason)))
	}
	if len(rows) > 0 {
		fmt.Fprintf(out, "\n| case | result | level | title | problem | why it matters |\n|---|---|---|---|---|---|\n%s", strings.Join(rows, ""))
	}
	return out.err
}

// cell escapes text for a cell of a Markdown table. A backslash would escape that of the pipe behind it.
func cell(s string) string {
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "<", "&lt;", ">", "&gt;").Replace(printable(strings.ReplaceAll(s, "\n", " ")))
}
