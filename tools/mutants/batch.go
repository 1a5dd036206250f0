package main

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// The outcomes of a mutant.
const (
	killed    = "killed"
	timeout   = "timeout" // counts as killed
	survived  = "survived"
	uncovered = "uncovered" // counts as survived: no test reaches it
)

// A Test is a test, an example or the seeds of a fuzz target.
type Test struct {
	Name    string
	Took    time.Duration // without a mutant
	reaches map[int]bool  // mutants
}

// A Batch holds tests that run in one process.
type Batch []Test

// failure finds the names of failed tests, and the reason of a failure that names none.
var failure = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)|^(panic: .*|fatal error: .*)`)

// limit is the time that b may take: five times as long as without a mutant, plus ten seconds. A second run has three times the first share,
// because the machine may have become slower since the tests were measured.
func (b Batch) limit(second bool) (d time.Duration) {
	for _, t := range b {
		d += 5 * t.Took
	}
	if second {
		d *= 3
	}
	return d + 10*time.Second
}

// Run executes the tests of b. What fails is executed once more by itself, and counts only if it fails again. A test that passes then has passed,
// and the others, of which the first failure may have kept some from running, are executed.
func (b Batch) Run(execute func(names []string, limit time.Duration) (output []byte, outcome string)) (outcome, reason string) {
	names := func(b Batch) (all []string) {
		for _, t := range b {
			all = append(all, t.Name)
		}
		return all
	}
	for len(b) > 0 {
		text, first := execute(names(b), b.limit(false))
		if first == survived {
			break
		}
		named := map[string]bool{}
		for _, m := range failure.FindAllSubmatch(text, -1) {
			test, _, _ := strings.Cut(string(m[1]), "/")
			named[test] = true
		}
		again := slices.Clone(b)
		if first == killed && slices.ContainsFunc(b, func(t Test) bool { return named[t.Name] }) {
			again = slices.DeleteFunc(again, func(t Test) bool { return !named[t.Name] })
		}
		text, outcome = execute(names(again), again.limit(true))
		if outcome != survived {
			var failed []string
			for _, m := range failure.FindAllSubmatch(text, -1) {
				failed = append(failed, string(m[1])+string(m[2]))
			}
			return outcome, strings.Join(failed, ", ")
		}
		b = slices.DeleteFunc(slices.Clone(b), func(t Test) bool { return slices.Contains(names(again), t.Name) })
	}
	return survived, ""
}
