package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
)

// A Mutant is one change of one file.
type Mutant struct {
	File     string
	Line     int
	Function string // the declaration around it; methods are Type.Name
	Kind     string
	Text     string // the source that changes, shortened to one line
	Same     int    // how many mutants of the function before it have the same kind and text
	edit     edit
}

// An edit inserts text before and after a range of bytes, around the edits inside the range.
type edit struct {
	from, to      int
	before, after string
}

// active is replaced in edits by the call that reports whether the mutant is switched on.
const active = "\x00"

// Mutants returns all changes of a file, in the order of the source:
//
//   - never, always: the condition of an if, or of a case of a switch without a tag, is constant, so a guard never acts, or always
//   - operand: one operand of && or || has no effect
//   - boundary: < and <=, > and >= are exchanged
//   - error: a returned error is nil
//   - negated: a returned condition is the opposite
//   - removed: a call, an assignment, a send, a defer, or a return, break or continue without a value is not executed
func Mutants(name string, source []byte) ([]Mutant, error) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var found []Mutant
	function := ""
	offset := func(p token.Pos) int { return set.Position(p).Offset }
	text := func(n ast.Node) string { return string(source[offset(n.Pos()):offset(n.End())]) }
	same := map[string]int{}
	// add adds a mutant that changes the node n, by an edit of the node around.
	add := func(kind string, n, around ast.Node, before, after string) {
		m := Mutant{File: name, Line: set.Position(n.Pos()).Line, Function: function, Kind: kind, Text: short(text(n)),
			edit: edit{offset(around.Pos()), offset(around.End()), before, after}}
		m.Same = same[m.key()]
		same[m.key()]++
		found = append(found, m)
	}
	condition := func(n ast.Expr) {
		add("never", n, n, "(!"+active+" && (", "))")
		add("always", n, n, "("+active+" || (", "))")
	}
	without := func(n ast.Stmt) { add("removed", n, n, "if !"+active+" { ", " }") }
	parts := map[ast.Stmt]bool{} // statements that are part of another, which cannot be in an if

	var visit func(n ast.Node, results *ast.FieldList)
	children := func(n ast.Node, results *ast.FieldList) {
		ast.Inspect(n, func(c ast.Node) bool {
			if c == nil || c == n {
				return true
			}
			visit(c, results)
			return false
		})
	}
	visit = func(n ast.Node, results *ast.FieldList) {
		switch n := n.(type) {
		case *ast.FuncDecl:
			function = n.Name.Name
			if n.Recv != nil {
				receiver, _, _ := strings.Cut(strings.TrimPrefix(text(n.Recv.List[0].Type), "*"), "[")
				function = receiver + "." + function
			}
			results = n.Type.Results
			defer func() { function = "" }()
		case *ast.FuncLit:
			results = n.Type.Results
		case *ast.IfStmt:
			parts[n.Init] = true
			condition(n.Cond)
		case *ast.ForStmt:
			parts[n.Init], parts[n.Post] = true, true
		case *ast.TypeSwitchStmt:
			parts[n.Init], parts[n.Assign] = true, true
		case *ast.CommClause:
			parts[n.Comm] = true
		case *ast.SwitchStmt:
			parts[n.Init] = true
			if n.Tag == nil {
				for _, clause := range n.Body.List {
					for _, c := range clause.(*ast.CaseClause).List {
						condition(c)
					}
				}
			}
		case *ast.BinaryExpr:
			switch n.Op {
			case token.LAND:
				add("operand", n.X, n.X, "("+active+" || (", "))")
				add("operand", n.Y, n.Y, "("+active+" || (", "))")
			case token.LOR:
				add("operand", n.X, n.X, "(!"+active+" && (", "))")
				add("operand", n.Y, n.Y, "(!"+active+" && (", "))")
			case token.LSS, token.GTR:
				add("boundary", n, n, "(", " || "+active+" && ("+text(n.X)+") == ("+text(n.Y)+"))")
			case token.LEQ, token.GEQ:
				add("boundary", n, n, "(", " && !("+active+" && ("+text(n.X)+") == ("+text(n.Y)+")))")
			}
		case *ast.ReturnStmt:
			if len(n.Results) == 0 {
				if results.NumFields() == 0 {
					without(n)
				}
				break
			}
			last := n.Results[len(n.Results)-1]
			first := string(source[offset(n.Pos()):offset(last.Pos())])
			switch returns(results, len(n.Results)) {
			case "error":
				if text(last) != "nil" {
					add("error", last, n, "if "+active+" { "+first+"nil }; ", "")
				}
			case "bool":
				add("negated", last, n, "if "+active+" { "+first+"!("+text(last)+") }; ", "")
			}
		case *ast.BranchStmt:
			if n.Tok == token.BREAK || n.Tok == token.CONTINUE {
				without(n)
			}
		case *ast.ExprStmt:
			// A function with results may not end without a panic.
			if call, ok := n.X.(*ast.CallExpr); ok && (results.NumFields() == 0 || text(call.Fun) != "panic") && !parts[n] {
				without(n)
			}
		case *ast.SendStmt, *ast.IncDecStmt:
			if !parts[n.(ast.Stmt)] {
				without(n.(ast.Stmt))
			}
		case *ast.DeferStmt:
			without(n)
		case *ast.AssignStmt:
			switch {
			case parts[n] || n.Tok == token.DEFINE || strings.HasPrefix(text(n), "_ "):
			case n.Tok != token.ASSIGN: // += and the like
				without(n)
			case len(n.Lhs) == len(n.Rhs): // the values are still computed
				var names, values []string
				for _, v := range n.Rhs {
					if text(v) != "nil" {
						names, values = append(names, "_"), append(values, text(v))
					}
				}
				instead := ""
				if len(names) > 0 {
					instead = strings.Join(names, ", ") + " = " + strings.Join(values, ", ")
				}
				add("removed", n, n, "if "+active+" { "+instead+" } else { ", " }")
			default:
				without(n)
			}
		}
		children(n, results)
	}
	visit(file, nil)
	return found, nil
}

// returns is the type of the last of n results of a function, as far as its text shows.
func returns(results *ast.FieldList, n int) string {
	if results == nil || results.NumFields() != n { // the call of a function with several results
		return ""
	}
	if name, ok := results.List[len(results.List)-1].Type.(*ast.Ident); ok {
		return name.Name
	}
	return ""
}

// Schemata returns the source with all mutants of a file in it, each behind a switch: a call of the function named on, with the position of the
// mutant in the list plus first.
func Schemata(source []byte, mutants []Mutant, on string, first int) []byte {
	type insertion struct {
		at    int
		after bool
		order int
		text  string
	}
	var all []insertion
	for i, m := range mutants {
		call := fmt.Sprintf("%s(%d)", on, first+i)
		all = append(all,
			insertion{m.edit.from, false, i, strings.ReplaceAll(m.edit.before, active, call)},
			insertion{m.edit.to, true, -i, strings.ReplaceAll(m.edit.after, active, call)})
	}
	// Mutants are in the order of the source, outer ones first. So of those that begin at the same place, the first one is the outermost.
	slices.SortStableFunc(all, func(a, b insertion) int {
		if a.at == b.at && a.after != b.after {
			if a.after {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.order, b.order))
	})
	var out strings.Builder
	last := 0
	for _, in := range all {
		out.Write(source[last:in.at])
		out.WriteString(in.text)
		last = in.at
	}
	out.Write(source[last:])
	return []byte(out.String())
}

func short(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 70 {
		s = s[:67] + "..."
	}
	return s
}

func (m Mutant) key() string {
	return fmt.Sprintf("%s %s: %s", m.Function, m.Kind, m.Text)
}

// Name identifies the change without its line, for a document that explains it.
func (m Mutant) Name() string {
	name := m.File + " " + m.key()
	if m.Same > 0 {
		name += fmt.Sprintf(" #%d", m.Same+1)
	}
	return name
}
