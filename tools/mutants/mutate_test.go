package main_test

import (
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"

	mutants "github.com/valetkey/valetkey/tools/mutants"
)

const source = `package p

func f(a, b int, done chan int) (int, error) {
	if a < b && b > 0 {
		return 0, errFirst
	}
	x := a
	x = b
	x += a
	defer close(done)
	done <- x
	return x, nil
}

func g() bool { return h() }
`

func TestMutants(t *testing.T) {
	found, err := mutants.Mutants("p.go", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range found {
		changed := m.Apply([]byte(source))
		if _, err := parser.ParseFile(token.NewFileSet(), "p.go", changed, 0); err != nil {
			t.Errorf("%s: %v", m.Describe([]byte(source)), err)
		}
		line := strings.Split(string(changed), "\n")[m.Line-1]
		got = append(got, m.Kind+": "+strings.TrimSpace(line))
	}
	want := []string{
		"never: if false && (a < b && b > 0) {",
		"always: if true || (a < b && b > 0) {",
		"operand: if (true || (a < b)) && b > 0 {",
		"operand: if a < b && (true || (b > 0)) {",
		"boundary: if a <= b && b > 0 {",
		"boundary: if a < b && b >= 0 {",
		"error: return 0, nil",
		"removed: _ = b",
		"removed: {}",
		"removed: {}",
		"removed: {}",
		"negated: func g() bool { return !(h()) }",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

func TestMutantsOfAMistake(t *testing.T) {
	if _, err := mutants.Mutants("p.go", []byte("package")); err == nil {
		t.Error("no error")
	}
}
