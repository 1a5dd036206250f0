package valetcel

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"

	"github.com/valetkey/valetkey"
)

// A kind is a kind of rule: what it can read, and what its refusals are.
type kind struct {
	env    func() (*cel.Env, error)
	code   valetkey.Code
	reason valetkey.Reason
	hints  map[string]string // by undeclared variable
}

var (
	onToken = kind{
		env:  sync.OnceValues(func() (*cel.Env, error) { return environment(cel.Variable("claims", anyMap)) }),
		code: valetkey.InvalidToken, reason: valetkey.ReasonClaimRule,
		hints: map[string]string{
			"now":     "a rule on the token has no clock, because its verdict is remembered with the token",
			"token":   "a rule on the token reads claims",
			"request": "a rule on the token reads claims, one on a route can read the request",
			"path":    "a rule on the token reads claims, one on a route can read the request",
		},
	}
	onAccess = kind{
		env: sync.OnceValues(func() (*cel.Env, error) {
			options := []cel.EnvOption{
				cel.Variable("claims", anyMap),
				cel.Variable("token.claims", anyMap),
				cel.Variable("token.scopes", cel.ListType(cel.StringType)),
				cel.Variable("token.audience", cel.ListType(cel.StringType)),
				cel.Variable("path", cel.MapType(cel.StringType, cel.StringType)),
				cel.Variable("now", cel.TimestampType),
			}
			for _, name := range []string{
				"token.issuer", "token.subject", "token.client_id", "token.acr", "request.method", "request.host", "request.path",
			} {
				options = append(options, cel.Variable(name, cel.StringType))
			}
			return environment(options...)
		}),
		code: valetkey.Forbidden, reason: valetkey.ReasonClaimsForbid,
		hints: map[string]string{
			"token":   "it has claims, issuer, subject, client_id, acr, scopes and audience",
			"request": "it has method, host and path",
		},
	}

	anyMap = cel.MapType(cel.StringType, cel.DynType)
)

func environment(variables ...cel.EnvOption) (*cel.Env, error) {
	return cel.NewEnv(append(variables,
		cel.ParserExpressionSizeLimit(MaxExpression),
		cel.ASTValidators(
			cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals(), literals{}, lookups{},
		))...)
}

// compile compiles rules. The error joins all mistakes.
func compile(k kind, rules []Rule) (programs []*program, err error) {
	env, err := k.env()
	if err != nil {
		return nil, fmt.Errorf("valetcel: %w", err)
	}
	var wrong []error
	if len(rules) == 0 {
		wrong = append(wrong, mistake("Rules", "required"))
	}
	for i, r := range rules {
		at := fmt.Sprintf("Rules[%d]", i)
		p := &program{text: strings.Join(strings.Fields(r.Expression), " "), code: k.code, reason: k.reason}
		if r.Message != "" {
			if why := unfit(r.Message); why != "" {
				wrong = append(wrong, mistake(at+".Message", "%s", why))
			} else {
				p.reason = reasonOf(k.reason, r.Message)
			}
		}
		var bad []error
		p.program, p.wildcards, bad = k.program(env, r.Expression)
		for _, err := range bad {
			wrong = append(wrong, mistake(at+".Expression", "%w", err))
		}
		programs = append(programs, p)
	}
	return programs, errors.Join(wrong...)
}

// program returns the compiled expression and the wildcards that it needs, or the mistakes in it.
func (k kind) program(env *cel.Env, expression string) (compiled cel.Program, wildcards []string, wrong []error) {
	if strings.TrimSpace(expression) == "" {
		return nil, nil, []error{errors.New("required")}
	}
	checked, issues := env.Compile(expression)
	if issues.Err() != nil {
		var all []error
		for _, e := range issues.Errors() {
			all = append(all, fmt.Errorf("%s%s", position(e.Location.Line(), e.Location.Column()), k.explain(e.Message)))
		}
		return nil, nil, all
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		return nil, nil, []error{fmt.Errorf("is of the type %v, not bool: compare it, as in claims.admin == true", t)}
	}
	p, err := env.Program(checked,
		cel.EvalOptions(cel.OptOptimize), cel.CostLimit(CostLimit), cel.InterruptCheckFrequency(100))
	if err != nil {
		return nil, nil, []error{err}
	}
	return p, wildcardsOf(checked.NativeRep()), nil
}

// wildcardsOf returns the path values that an expression reads by name and without testing whether there is one.
func wildcardsOf(a *ast.AST) []string {
	var read, tested []string
	for _, e := range ast.MatchDescendants(ast.NavigateAST(a), ast.KindMatcher(ast.SelectKind)) {
		s := e.AsSelect()
		if s.Operand().Kind() != ast.IdentKind || s.Operand().AsIdent() != "path" {
			continue
		}
		if s.IsTestOnly() {
			tested = append(tested, s.FieldName())
		} else {
			read = append(read, s.FieldName())
		}
	}
	read = slices.DeleteFunc(read, func(name string) bool { return slices.Contains(tested, name) })
	slices.Sort(read)
	return slices.Compact(read)
}

// position returns the place of a mistake in the expression. CEL counts columns from 0.
func position(line, column int) string {
	switch {
	case line < 1:
		return ""
	case line == 1:
		return fmt.Sprintf("column %d: ", column+1)
	}
	return fmt.Sprintf("line %d of the rule, column %d: ", line, column+1)
}

var undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)' \(in container ''\)$`)

func (k kind) explain(message string) string {
	m := undeclared.FindStringSubmatch(message)
	if m == nil {
		return message
	}
	text := fmt.Sprintf("%q is undefined", m[1])
	if hint := k.hints[m[1]]; hint != "" {
		text += ": " + hint
	}
	return text
}

func mistake(field, format string, args ...any) error {
	return fmt.Errorf("valetcel: %w", &valetkey.ConfigError{Field: field, Err: fmt.Errorf(format, args...)})
}

// unfit returns why a message cannot be the description of a refusal.
func unfit(message string) string {
	switch {
	case len(message) > 200:
		return "is longer than 200 characters"
	case strings.TrimSpace(message) != message:
		return "is surrounded by spaces"
	case strings.ContainsFunc(message, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }):
		return "contains a quote, a backslash, or a character that is not printable ASCII"
	}
	return ""
}

var noWord = regexp.MustCompile(`[^a-z0-9]+`)

// reasonOf returns the Reason of a message. Its ID begins with base and the words of the message, for readers of metrics and logs, and
// ends with a part of a digest, so that two messages never share an ID. Rules with the same message share it.
func reasonOf(base valetkey.Reason, message string) valetkey.Reason {
	words := noWord.ReplaceAllString(strings.ToLower(message), "_")
	digest := sha256.Sum256([]byte(message))
	tail := fmt.Sprintf("_%x", digest[:4])
	id := string(base) + "_" + strings.Trim(words, "_")
	if most := 64 - len(tail); len(id) > most {
		id = id[:most]
	}
	return valetkey.NewReason(strings.TrimRight(id, "_")+tail, message)
}

// lookups is a validator for the variable path, whose names are unknown until they are looked up. Without it, path.all(...) would hold for
// every request.
type lookups struct{}

func (lookups) Name() string { return "valetcel.lookups" }

func (lookups) Validate(_ *cel.Env, _ cel.ValidatorConfig, a *ast.AST, issues *cel.Issues) {
	for _, e := range ast.MatchDescendants(ast.NavigateAST(a), ast.KindMatcher(ast.IdentKind)) {
		if e.AsIdent() != "path" {
			continue
		}
		if parent, ok := e.Parent(); ok {
			if parent.Kind() == ast.SelectKind {
				continue
			}
			if parent.Kind() == ast.CallKind && slices.Contains([]string{operators.Index, operators.In}, parent.AsCall().FunctionName()) {
				continue
			}
		}
		issues.ReportErrorAtID(e.ID(), "path can only be read by name, as in path.tenant")
	}
}

// literals is a validator for arguments that must be literals: a pattern, because compiling one costs more than the limit accounts for,
// and a time zone, because looking up its name reads files.
type literals struct{}

func (literals) Name() string { return "valetcel.literals" }

// zoned are the functions with a time zone as the optional argument.
var zoned = []string{
	overloads.TimeGetFullYear, overloads.TimeGetMonth, overloads.TimeGetDayOfYear, overloads.TimeGetDayOfMonth, overloads.TimeGetDate,
	overloads.TimeGetDayOfWeek, overloads.TimeGetHours, overloads.TimeGetMinutes, overloads.TimeGetSeconds, overloads.TimeGetMilliseconds,
}

var offset = regexp.MustCompile(`^(UTC|[+-]?[0-9]{2}:[0-9]{2})$`)

func (literals) Validate(_ *cel.Env, _ cel.ValidatorConfig, a *ast.AST, issues *cel.Issues) {
	ast.PostOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		call := e.AsCall()
		args := call.Args()
		if len(args) == 0 {
			return
		}
		last := args[len(args)-1]
		text, literal := "", false
		if last.Kind() == ast.LiteralKind {
			text, literal = last.AsLiteral().Value().(string)
		}
		switch name := call.FunctionName(); {
		case name == overloads.Matches && !literal:
			issues.ReportErrorAtID(last.ID(), "the pattern of matches is not a literal")
		case slices.Contains(zoned, name) && !offset.MatchString(text):
			issues.ReportErrorAtID(last.ID(), `the time zone is neither "UTC" nor an offset such as "+01:00"`)
		}
	}))
}
