package main_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"

	mutants "github.com/valetkey/valetkey/tools/mutants"
)

const source = `package p

func (t *T[K]) f(a, b int, done chan int) (int, error) {
	if a < b && b >= 0 {
		return 0, errFirst
	}
	x := a
	x, y = b, nil
	x += a
	defer close(done)
	done <- x
	for i := 0; i != 3; i++ {
		if a > 0 || i == 1 {
			continue
		}
	}
	return x, nil
}

func g() bool { return h() }

func k(x int) {
	switch {
	case x == 1, x == 2:
		return
	}
	panic("x")
}
`

func TestMutants(t *testing.T) {
	found, err := mutants.Mutants("p.go", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, m := range found {
		changed := string(mutants.Schemata([]byte(source), found[i:i+1], "on", i))
		line := strings.Split(changed, "\n")[m.Line-1]
		got = append(got, m.Name()+" → "+strings.TrimSpace(line))
	}
	want := []string{
		"p.go T.f never: a < b && b >= 0 → if (!on(0) && (a < b && b >= 0)) {",
		"p.go T.f always: a < b && b >= 0 → if (on(1) || (a < b && b >= 0)) {",
		"p.go T.f operand: a < b → if (on(2) || (a < b)) && b >= 0 {",
		"p.go T.f operand: b >= 0 → if a < b && (on(3) || (b >= 0)) {",
		"p.go T.f boundary: a < b → if (a < b || on(4) && (a) == (b)) && b >= 0 {",
		"p.go T.f boundary: b >= 0 → if a < b && (b >= 0 && !(on(5) && (b) == (0))) {",
		"p.go T.f error: errFirst → if on(6) { return 0, nil }; return 0, errFirst",
		"p.go T.f removed: x, y = b, nil → if on(7) { _ = b } else { x, y = b, nil }",
		"p.go T.f removed: x += a → if !on(8) { x += a }",
		"p.go T.f removed: defer close(done) → if !on(9) { defer close(done) }",
		"p.go T.f removed: done <- x → if !on(10) { done <- x }",
		"p.go T.f never: a > 0 || i == 1 → if (!on(11) && (a > 0 || i == 1)) {",
		"p.go T.f always: a > 0 || i == 1 → if (on(12) || (a > 0 || i == 1)) {",
		"p.go T.f operand: a > 0 → if (!on(13) && (a > 0)) || i == 1 {",
		"p.go T.f operand: i == 1 → if a > 0 || (!on(14) && (i == 1)) {",
		"p.go T.f boundary: a > 0 → if (a > 0 || on(15) && (a) == (0)) || i == 1 {",
		"p.go T.f removed: continue → if !on(16) { continue }",
		"p.go g negated: h() → func g() bool { if on(17) { return !(h()) }; return h() }",
		"p.go k never: x == 1 → case (!on(18) && (x == 1)), x == 2:",
		"p.go k always: x == 1 → case (on(19) || (x == 1)), x == 2:",
		"p.go k never: x == 2 → case x == 1, (!on(20) && (x == 2)):",
		"p.go k always: x == 2 → case x == 1, (on(21) || (x == 2)):",
		"p.go k removed: return → if !on(22) { return }",
		`p.go k removed: panic("x") → if !on(23) { panic("x") }`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// TestSchemata puts all mutants into one file and finds each switch once, the outer ones around the inner ones.
func TestSchemata(t *testing.T) {
	found, err := mutants.Mutants("p.go", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	all := mutants.Schemata([]byte(source), found, "on", 100)
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", all, 0)
	if err != nil {
		t.Fatalf("%v\n%s", err, all)
	}
	switches := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if name, ok := call.Fun.(*ast.Ident); ok && name.Name == "on" {
				switches++
			}
		}
		return true
	})
	if switches != len(found) {
		t.Errorf("%d mutants, %d switches", len(found), switches)
	}
	const want = "if (!on(100) && ((on(101) || ((on(102) || ((a < b || on(104) && (a) == (b)))) && (on(103) || ((b >= 0 && !(on(105) && (b) == (0)))))))))"
	if !strings.Contains(string(all), want) {
		t.Errorf("%q is not in\n%s", want, all)
	}
}

func TestTheSameChangeTwice(t *testing.T) {
	found, err := mutants.Mutants("p.go", []byte("package p\n\nfunc f() {\n\tg()\n\tg()\n}\n\nfunc h() { g() }\n"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range found {
		names = append(names, m.Name())
	}
	if !slices.Equal(names, []string{"p.go f removed: g()", "p.go f removed: g() #2", "p.go h removed: g()"}) {
		t.Error(names)
	}
}

func TestMutantsOfAMistake(t *testing.T) {
	if _, err := mutants.Mutants("p.go", []byte("package")); err == nil {
		t.Error("no error")
	}
}
