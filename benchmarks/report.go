package main

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// A bench runs the questions and collects the answers.
type bench struct {
	budget time.Duration // of one race
	quick  bool
	load   string // of the machine before
	tables []*table
	goals  []goal

	issuers map[string]*issuer
	minted  map[string][]*token
}

// A table answers one question.
type table struct {
	id, title, note string
	head            []string
	rows            [][]string
	bars            []bar
	unit            string
	logarithmic     bool
}

type bar struct {
	label string
	value quartiles
}

// A goal is one that the project has set itself, beside what was measured.
type goal struct {
	what, wanted, measured string
	met                    bool
}

func (b *bench) table(id, title, note string, head ...string) *table {
	t := &table{id: id, title: title, note: note, unit: "ratio"}
	t.head = append(append(t.head, head...), "time", "ratio", "quartiles")
	b.tables = append(b.tables, t)
	return t
}

// add adds the row of a result: its name, the cells, and its numbers.
func (t *table) add(r result, label string, cells ...string) {
	row := append([]string{r.name}, cells...)
	t.rows = append(t.rows, append(row, nanoseconds(r.ns.median), number(r.ratio.median), spread(r.ratio)))
	t.bars = append(t.bars, bar{r.name + label, r.ratio})
}

func spread(q quartiles) string { return number(q.low) + " - " + number(q.high) }

func number(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	default:
		return fmt.Sprintf("%.2f", x)
	}
}

func nanoseconds(ns float64) string {
	switch {
	case ns >= 1e6:
		return number(ns/1e6) + " ms"
	case ns >= 1e4:
		return number(ns/1e3) + " µs"
	default:
		return fmt.Sprintf("%.0f ns", ns)
	}
}

// manyTokens of each algorithm are made, and fewTokens of them are in use where they are seen again.
const (
	manyTokens = 1024
	fewTokens  = 64
)

// issuer returns an issuer of the algorithm and its tokens, made once.
func (b *bench) issuer(algorithm string) (*issuer, []*token, error) {
	if iss := b.issuers[algorithm]; iss != nil {
		return iss, b.minted[algorithm], nil
	}
	iss, err := newIssuer(algorithm)
	if err != nil {
		return nil, nil, err
	}
	tokens, err := iss.tokens(manyTokens)
	if err != nil {
		return nil, nil, err
	}
	b.issuers[algorithm], b.minted[algorithm] = iss, tokens
	return iss, tokens, nil
}

// eachAlgorithm runs a race with n tokens of each algorithm and puts the results side by side in t.
func (b *bench) eachAlgorithm(t *table, n int, entrants func(*issuer) ([]*entrant, error), judge func(*issuer, []result)) error {
	t.head = t.head[:1]
	for _, algorithm := range algorithms {
		t.head = append(t.head, algorithm, "ratio", "quartiles")
		iss, tokens, err := b.issuer(algorithm)
		if err != nil {
			return err
		}
		all, err := entrants(iss)
		if err != nil {
			return err
		}
		server := make([]byte, 64<<20) // the heap of a server: without it, the collector runs all the time
		results, err := race(b.budget, tokens[:n], all...)
		if err != nil {
			return fmt.Errorf("%s: %w", algorithm, err)
		}
		runtime.KeepAlive(server)
		for i, r := range results {
			if i == len(t.rows) {
				t.rows = append(t.rows, []string{r.name})
			}
			t.rows[i] = append(t.rows[i], nanoseconds(r.ns.median), number(r.ratio.median), spread(r.ratio))
			t.bars = append(t.bars, bar{algorithm + " " + r.name, r.ratio})
		}
		judge(iss, results)
	}
	return nil
}

func (b *bench) goalAtMost(what string, q quartiles, most float64) {
	b.goals = append(b.goals, goal{what, "<= " + number(most), judged(q, most), q.median <= most})
}

func (b *bench) goalAtLeast(what string, q quartiles, least float64) {
	b.goals = append(b.goals, goal{what, ">= " + number(least), judged(q, least), q.median >= least})
}

// judged writes q with a digit more where it would look like the limit otherwise.
func judged(q quartiles, limit float64) string {
	median := number(q.median)
	if median == number(limit) {
		median = fmt.Sprintf("%.3f", q.median)
	}
	return fmt.Sprintf("%s (%s)", median, spread(q))
}

// count judges a number that has no spread.
func (b *bench) count(what string, n, most float64, unit string) {
	b.goals = append(b.goals, goal{what, fmt.Sprintf("<= %.0f%s", most, unit), fmt.Sprintf("%.0f%s", n, unit), n <= most})
}

// notSlower judges mine against the fastest of results but for those named.
func (b *bench) notSlower(what string, mine result, results []result, but string) {
	var fastest *result
	for i, r := range results {
		if r.name != mine.name && r.name != but && (fastest == nil || r.ratio.median < fastest.ratio.median) {
			fastest = &results[i]
		}
	}
	q := quartiles{fastest.ratio.low / mine.ratio.median, fastest.ratio.median / mine.ratio.median, fastest.ratio.high / mine.ratio.median}
	b.goals = append(b.goals, goal{what, ">= 1.00", fmt.Sprintf("%s, %s", judged(q, 1), fastest.name), q.median >= 1})
}

// write writes the document and its pictures.
func (b *bench) write(dir string, took time.Duration) error {
	pictures := filepath.Join(dir, "benchmarks")
	if err := os.MkdirAll(pictures, 0o755); err != nil {
		return err
	}
	var doc bytes.Buffer
	fmt.Fprintf(&doc, "# Benchmarks\n\nWritten by `GOWORK=off go run .` in `benchmarks/`%s, in %v. Run it to repeat it; `go test -bench .` there gives "+
		"the same candidates to benchstat.\n\n", map[bool]string{true: " with `-quick`"}[b.quick], took.Round(time.Second))
	fmt.Fprintf(&doc, "Times of a shared machine mean little. So candidates take turns within one run, about a millisecond each, and the result "+
		"is the median of the ratios of the rounds; the quartiles show how far to trust it. A heap of 64 MiB stands for the rest of a server. "+
		"What one candidate leaves to the garbage collector may be collected in the turn of another, which favours those that leave more.\n\n")
	fmt.Fprintf(&doc, "Machine: %s, %d cores, %s/%s, %s; load average %s before the run. Module versions: in the first table, jwx beneath us %s, go-cache beneath us %s.\n\n",
		processor(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), b.load, version("github.com/lestrrat-go/jwx/v2"), version("github.com/patrickmn/go-cache"))
	doc.WriteString("## Goals\n\n| goal | wanted | measured | |\n|---|---|---|---|\n")
	for _, g := range b.goals {
		fmt.Fprintf(&doc, "| %s | %s | %s | %s |\n", g.what, g.wanted, g.measured, map[bool]string{true: "met", false: "**not met**"}[g.met])
	}
	for _, t := range b.tables {
		fmt.Fprintf(&doc, "\n## %s\n\n%s\n\n%s", t.title, t.note, t.markdown())
		if len(t.bars) == 0 {
			continue
		}
		if err := t.draw(filepath.Join(pictures, t.id+".svg")); err != nil {
			return fmt.Errorf("drawing %s: %w", t.id, err)
		}
		fmt.Fprintf(&doc, "\n![%s](benchmarks/%s.svg)\n", t.title, t.id)
	}
	return os.WriteFile(filepath.Join(dir, "benchmarks.md"), doc.Bytes(), 0o644)
}

func (t *table) markdown() string {
	var text strings.Builder
	fmt.Fprintf(&text, "| %s |\n|%s\n", strings.Join(t.head, " | "), strings.Repeat("---|", len(t.head)))
	for _, row := range t.rows {
		fmt.Fprintf(&text, "| %s |\n", strings.Join(row, " | "))
	}
	return text.String()
}

// draw draws the bars, each with its quartiles, from top to bottom.
func (t *table) draw(path string) error {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	plotter.DefaultFont = plot.DefaultFont
	p := plot.New()
	p.Title.Text, p.X.Label.Text = t.title, t.unit
	start := 0.0
	if t.logarithmic {
		start = 0.5
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	n := len(t.bars)
	var (
		names  = make([]string, n)
		labels = plotter.XYLabels{}
		widest = start
	)
	for i, b := range t.bars {
		y := float64(n - 1 - i)
		names[n-1-i] = "  " + b.label // off the edge
		shape, err := plotter.NewPolygon(plotter.XYs{{X: start, Y: y - 0.35}, {X: b.value.median, Y: y - 0.35}, {X: b.value.median, Y: y + 0.35}, {X: start, Y: y + 0.35}})
		if err != nil {
			return err
		}
		shape.Color, shape.LineStyle.Width = color.RGBA{0x9a, 0xa5, 0xb1, 0xff}, 0
		if strings.Contains(b.label, ours) || strings.Contains(b.label, "guarded") {
			shape.Color = color.RGBA{0x1f, 0x6f, 0xeb, 0xff}
		}
		line, err := plotter.NewLine(plotter.XYs{{X: b.value.low, Y: y}, {X: b.value.high, Y: y}})
		if err != nil {
			return err
		}
		line.Width = vg.Points(1.5)
		p.Add(shape, line)
		labels.XYs = append(labels.XYs, plotter.XY{X: max(b.value.high, b.value.median), Y: y - 0.15})
		labels.Labels = append(labels.Labels, "  "+number(b.value.median))
		widest = max(widest, b.value.high)
	}
	text, err := plotter.NewLabels(labels)
	if err != nil {
		return err
	}
	p.Add(text)
	p.NominalY(names...)
	p.X.Min, p.X.Max = start, widest*1.1
	if t.logarithmic {
		p.X.Max = widest * 2
	}
	p.Y.Min, p.Y.Max = -0.6, float64(n)-0.4
	picture, err := p.WriterTo(9*vg.Inch, vg.Length(n)*0.24*vg.Inch+1.1*vg.Inch, "svg")
	if err != nil {
		return err
	}
	var svg bytes.Buffer
	if _, err := picture.WriteTo(&svg); err != nil {
		return err
	}
	// Who looks at it may not have the font.
	fonts := bytes.ReplaceAll(svg.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	return os.WriteFile(path, fonts, 0o644)
}

// version is that of a module in this program.
func version(module string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range info.Deps {
		if m.Path != module {
			continue
		}
		if m.Replace != nil {
			return revision()
		}
		return m.Version
	}
	return "unknown"
}

// revision is the commit of the tree that this program was run in.
func revision() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "this tree"
	}
	return "commit " + strings.TrimSpace(string(out))
}

// loadAverage returns the load average of the last minute.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

// processor is the model of the CPU, where the system reports it.
func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}
