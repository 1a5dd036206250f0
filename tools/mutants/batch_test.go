package main_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	mutants "github.com/valetkey/valetkey/tools/mutants"
)

// TestBatch runs tests a, b and c, whose results are given for each execution: one name for each test that fails.
func TestBatch(t *testing.T) {
	for _, c := range []struct {
		name    string
		fail    []string // names of the tests that fail, one text for each execution; "hang" takes too long, "crash" names no test
		runs    []string // names of the tests that are to be executed
		outcome string
		reason  string
	}{
		{"all pass", []string{""}, []string{"a b c"}, "survived", ""},
		{"a test that fails twice is executed no third time, and the others not again", []string{"b", "b"}, []string{"a b c", "b"}, "killed", "b, b/part"},
		{"a test that fails by chance kills nothing", []string{"b", "", ""}, []string{"a b c", "b", "a c"}, "survived", ""},
		{"and a later test still does", []string{"b", "", "c", "c"}, []string{"a b c", "b", "a c", "c"}, "killed", "c, c/part"},
		{"each test that fails is executed again", []string{"a b", "b"}, []string{"a b c", "a b"}, "killed", "b, b/part"},
		{"without a name, all are", []string{"crash", "crash"}, []string{"a b c", "a b c"}, "killed", "fatal error: all goroutines are asleep"},
		{"without a name by chance", []string{"crash", ""}, []string{"a b c", "a b c"}, "survived", ""},
		{"too long twice", []string{"hang", "hang"}, []string{"a b c", "a b c"}, "timeout", ""},
		{"too long once, as on a machine that has become slower", []string{"hang", ""}, []string{"a b c", "a b c"}, "survived", ""},
		{"all fail by chance, one after the other", []string{"a", "", "b", "", "c", ""}, []string{"a b c", "a", "b c", "b", "c", "c"}, "survived", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var runs []string
			outcome, reason := mutants.Batch{{Name: "a", Took: time.Second}, {Name: "b", Took: time.Second}, {Name: "c", Took: time.Second}}.Run(
				func(names []string, limit time.Duration) ([]byte, string) {
					fail := c.fail[len(runs)]
					runs = append(runs, strings.Join(names, " "))
					factor := 5 // the executions alternate: tests, and those that failed
					if len(runs)%2 == 0 {
						factor = 15
					}
					if want := time.Duration(factor*len(names)+10) * time.Second; limit != want {
						t.Errorf("limit %v of execution %d, want %v", limit, len(runs), want)
					}
					switch fail {
					case "":
						return []byte("PASS\n"), "survived"
					case "hang":
						return nil, "timeout"
					case "crash":
						return []byte("fatal error: all goroutines are asleep\n"), "killed"
					}
					var text strings.Builder
					for name := range strings.FieldsSeq(fail) {
						text.WriteString("--- FAIL: " + name + " (0.00s)\n    --- FAIL: " + name + "/part (0.00s)\n")
					}
					return []byte(text.String()), "killed"
				})
			if outcome != c.outcome || reason != c.reason {
				t.Errorf("got %s by %q, want %s by %q", outcome, reason, c.outcome, c.reason)
			}
			if !slices.Equal(runs, c.runs) {
				t.Errorf("executed %q, want %q", runs, c.runs)
			}
		})
	}
}

func TestKilled(t *testing.T) {
	got := mutants.Killed([]byte(`p: 5 mutants, 5 to run
  survived line 16: p/a.go f never: x == 1 (explained)
  killed line 17: p/a.go f removed: g() by TestF, TestF/part
  uncovered line 18: p/b.go T.f error: errors.New("killed line 1: (x)") #2
  timeout line 19: p/b.go T.f removed: h() #2 by 
  killed line 20: p/b.go T.f error: errors.New("not by us") by panic: x
p: 5 mutants, 5 run, 3 killed (1 by time), 2 survived (1 not reached by a test, 1 explained): 60.0 % killed, 3s
`))
	want := map[string]bool{"p/a.go f removed: g()": true, "p/b.go T.f removed: h() #2": true, `p/b.go T.f error: errors.New("not by us")`: true}
	if !maps.Equal(got, want) {
		t.Error(got)
	}
}
