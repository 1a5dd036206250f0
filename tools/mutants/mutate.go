package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
)

// A Mutant is one change of one file, as the replacement of a range of its bytes.
type Mutant struct {
	File       string
	Line       int
	Kind       string
	From, To   int // byte offsets
	Text       string
	Start, End Position // of the statement that a test must execute for a chance to notice
}

// A Position is a line and a column, both from 1, as in coverage profiles.
type Position struct{ Line, Column int }

// Mutants returns all changes of a file, in the order of the source:
//
//   - never, always: the condition of an if is constant, so a guard never acts, or always
//   - operand: one operand of && or || has no effect
//   - boundary: < and <=, > and >= are exchanged
//   - error: a returned error is nil
//   - negated: a returned condition is the opposite
//   - removed: a call, an assignment, a send or a defer is not executed
//
// Conditions remain part of the text, so that the variables in them are still used.
func Mutants(name string, source []byte) ([]Mutant, error) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var found []Mutant
	var at ast.Node // the innermost statement
	text := func(n ast.Node) string {
		return string(source[set.Position(n.Pos()).Offset:set.Position(n.End()).Offset])
	}
	add := func(kind string, n ast.Node, replacement string) {
		from, to := set.Position(n.Pos()), set.Position(n.End())
		where := at
		if where == nil {
			where = n
		}
		start, end := set.Position(where.Pos()), set.Position(where.End())
		found = append(found, Mutant{File: name, Line: from.Line, Kind: kind, From: from.Offset, To: to.Offset, Text: replacement,
			Start: Position{start.Line, start.Column}, End: Position{end.Line, end.Column}})
	}
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
		defer func(outer ast.Node) { at = outer }(at)
		if s, ok := n.(ast.Stmt); ok {
			if _, block := n.(*ast.BlockStmt); !block {
				at = s
			}
		}
		switch n := n.(type) {
		case *ast.FuncDecl:
			results = n.Type.Results
		case *ast.FuncLit:
			results = n.Type.Results
		case *ast.IfStmt:
			add("never", n.Cond, "false && ("+text(n.Cond)+")")
			add("always", n.Cond, "true || ("+text(n.Cond)+")")
		case *ast.BinaryExpr:
			switch n.Op {
			case token.LAND:
				add("operand", n.X, "(true || ("+text(n.X)+"))")
				add("operand", n.Y, "(true || ("+text(n.Y)+"))")
			case token.LOR:
				add("operand", n.X, "(false && ("+text(n.X)+"))")
				add("operand", n.Y, "(false && ("+text(n.Y)+"))")
			case token.LSS, token.LEQ, token.GTR, token.GEQ:
				other := map[token.Token]string{token.LSS: "<=", token.LEQ: "<", token.GTR: ">=", token.GEQ: ">"}[n.Op]
				add("boundary", n, text(n.X)+" "+other+" "+text(n.Y))
			}
		case *ast.ReturnStmt:
			if len(n.Results) > 0 {
				last := n.Results[len(n.Results)-1]
				switch returns(results, len(n.Results)) {
				case "error":
					if t := text(last); t != "nil" {
						add("error", last, "nil")
					}
				case "bool":
					add("negated", last, "!("+text(last)+")")
				}
			}
		case *ast.ExprStmt, *ast.SendStmt, *ast.IncDecStmt:
			add("removed", n, "{}")
		case *ast.DeferStmt:
			add("removed", n, "{}")
		case *ast.AssignStmt:
			if n.Tok == token.ASSIGN && len(n.Lhs) == len(n.Rhs) && !strings.HasPrefix(text(n), "_ ") {
				values := make([]string, len(n.Rhs))
				for i, v := range n.Rhs {
					values[i] = text(v)
				}
				add("removed", n, strings.TrimSuffix(strings.Repeat("_, ", len(values)), ", ")+" = "+strings.Join(values, ", "))
			} else if n.Tok != token.ASSIGN && n.Tok != token.DEFINE { // += and the like
				add("removed", n, "{}")
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

// Apply returns the source with the mutant in it.
func (m Mutant) Apply(source []byte) []byte {
	return []byte(string(source[:m.From]) + m.Text + string(source[m.To:]))
}

// Describe returns the change in one line.
func (m Mutant) Describe(source []byte) string {
	short := func(s string) string {
		s = strings.Join(strings.Fields(s), " ")
		if len(s) > 70 {
			s = s[:67] + "..."
		}
		return s
	}
	return fmt.Sprintf("%s:%d %s: %s", m.File, m.Line, m.Kind, short(string(source[m.From:m.To])))
}
