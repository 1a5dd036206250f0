package conformance

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Baseline lists the cases that a server is known to fail, so that a project can adopt the suite today and only get better.
type Baseline []string

// ReadBaseline reads a Baseline: one ID on a line. Empty lines are ignored, and so is text after "#". An ID that is not one of a case is an
// error.
func ReadBaseline(r io.Reader) (Baseline, error) {
	var known Baseline
	lines := bufio.NewScanner(r)
	n := 1
	for ; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		id := strings.TrimSpace(text)
		if id == "" {
			continue
		}
		if _, ok := FindCase(id); !ok {
			return nil, fmt.Errorf("line %d: there is no case %.100q", n, id)
		}
		known = append(known, id)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n, err)
	}
	return known, nil
}

// A Comparison is what a [Report] has in addition to a [Baseline].
type Comparison struct {
	New   []Result // binding failures that the baseline does not list
	Known []Result // binding failures that it lists
	Fixed []string // cases that it lists and that passed: remove them, so that they cannot fail again unnoticed
}

// Against compares r with a baseline.
func (r *Report) Against(known Baseline) Comparison {
	var c Comparison
	for _, result := range r.Results {
		listed := slices.Contains(known, result.Case.ID)
		switch {
		case result.Verdict == Passed && listed:
			c.Fixed = append(c.Fixed, result.Case.ID)
		case result.Verdict == Failed && listed:
			c.Known = append(c.Known, result)
		case result.Verdict == Failed && result.Case.Strength.Binding():
			c.New = append(c.New, result)
		}
	}
	return c
}

// Passed reports whether the run is good: no new failure, and nothing in the baseline that has been fixed.
func (c Comparison) Passed() bool { return len(c.New) == 0 && len(c.Fixed) == 0 }
