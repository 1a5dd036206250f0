// Package valetcel decides with rules in the Common Expression Language (CEL), for conditions that packages scopes and claims cannot
// state and that should be text, as in a configuration file.
//
// There are two kinds of rules. A rule on the token reads the claims alone:
//
//	verifier, err := valetcel.Verifier(keys, valetcel.Rule{Expression: `claims.exp - claims.iat <= 600`})
//
// It runs once per verification, and the remembered token keeps the verdict. A rule on the access also reads the request, and runs on
// each request to a route:
//
//	tenant, err := valetcel.Require(valetcel.Rule{Expression: `claims.tenant_id == path.tenant`, Message: "the token is for another tenant"})
//	...
//	mux.Handle("GET /tenants/{tenant}/orders", guard.Handler(orders, valetkey.AllOf{scopes.All("orders:read"), tenant}))
//
// # Variables
//
//	claims             map(string, dyn)  the claims of the token
//
// In a rule on the access also:
//
//	token.claims       map(string, dyn)  the same as claims
//	token.issuer       string            "" if the issuer does not send it, as for the next three
//	token.subject      string
//	token.client_id    string
//	token.acr          string
//	token.scopes       list(string)
//	token.audience     list(string)
//	request.method     string
//	request.host       string            as sent by the client, with a port if there is one
//	request.path       string            decoded, without the query
//	path               map(string, string)  the parts of the path that the wildcards of the route match; an empty part is absent
//	now                timestamp         the time of the decision
//
// A claim that is null is absent. A number without a fraction and an exponent is an int, or a uint if only that can hold it; other
// numbers are doubles. Comparisons convert between them, arithmetic does not.
//
// # Evaluation
//
// Rules are compiled and type-checked when they are loaded. A rule must be of the type bool, not dyn: claims.admin == true instead of
// claims.admin. The pattern of matches and a time zone must be literals, and the time zone UTC or an offset such as "+01:00".
//
// A rule that does not yield true refuses. That includes a rule that cannot be evaluated, because a claim is missing or has another
// type: test optional claims with has(claims.email). It also includes a rule whose cost exceeds [CostLimit]. Rules do no I/O. They have
// the standard functions of CEL and no extensions.
package valetcel

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"

	"github.com/valetkey/valetkey"
)

const (
	// CostLimit is the cost, in units of CEL, at which the evaluation of a rule ends with a refusal. Typical rules cost 2 to 15. The
	// limit ends loops over large claims, which the issuer or its users may choose, after a few milliseconds.
	CostLimit = 10_000

	// MaxExpression is the maximum length of an expression in characters.
	MaxExpression = 4096
)

// A Rule is a condition in CEL. The zero value is a mistake.
type Rule struct {
	Expression string // of the type bool

	// Message is the text for clients if the rule refuses. It contains 1 to 200 printable ASCII characters without quotes and
	// backslashes (RFC 6750, section 3). Empty: a text for all rules. A Message creates a [valetkey.Reason], which exists until the
	// process ends, so take messages from the source or the configuration and never from requests.
	Message string
}

// Verifier returns a [valetkey.Verifier] that accepts the tokens of v for which all rules hold. They read claims only. A refusal is
// a [valetkey.Error] with [valetkey.InvalidToken] and [valetkey.ReasonClaimRule], or with a reason that begins with "claim_rule_" if
// the rule has a Message. It is final for [valetkey.First]. The result is also a [valetkey.HealthReporter] and a [valetkey.Purger],
// which pass on to v. The caller must close v itself.
//
// The error joins all mistakes, each a [valetkey.ConfigError] with a field such as Rules[0].Expression.
func Verifier(v valetkey.Verifier, rules ...Rule) (valetkey.Verifier, error) {
	var wrong error
	if v == nil {
		wrong = mistake("Verifier", "required")
	}
	programs, err := compile(onToken, rules)
	if err := errors.Join(wrong, err); err != nil {
		return nil, err
	}
	return &verifier{valetkey.First(v), programs}, nil
}

type verifier struct {
	next  valetkey.Verifier // from valetkey.First, so it is a HealthReporter and a Purger
	rules []*program
}

func (v *verifier) Verify(ctx context.Context, raw string) (*valetkey.Token, error) {
	t, err := v.next.Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	vars := &variables{token: &facts{}}
	if vars.token.claims, err = claimsOf(t); err != nil {
		return nil, err
	}
	for _, p := range v.rules {
		if err := p.run(ctx, vars); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (v *verifier) Health() []valetkey.Health { return v.next.(valetkey.HealthReporter).Health() }

func (v *verifier) Ready(ctx context.Context) error {
	return v.next.(valetkey.HealthReporter).Ready(ctx)
}

func (v *verifier) Purge() { v.next.(valetkey.Purger).Purge() }

// A Requirement is a [valetkey.Requirement] that a request meets if all its rules hold. [Require] creates it. The zero value refuses
// every request. It is immutable and safe for concurrent use.
type Requirement struct{ rules []*program }

// Require returns a Requirement with rules on the access. The error joins all mistakes, each a [valetkey.ConfigError] with a field
// such as Rules[0].Expression.
func Require(rules ...Rule) (*Requirement, error) {
	programs, err := compile(onAccess, rules)
	if err != nil {
		return nil, err
	}
	return &Requirement{programs}, nil
}

// Check returns nil if all rules hold. Otherwise it returns a refusal with [valetkey.Forbidden] and [valetkey.ReasonClaimsForbid], or
// with a reason that begins with "claims_forbid_" if the rule has a Message. It contains no value of a claim. If the context of the
// request ends before that, Check returns its error.
func (r *Requirement) Check(a valetkey.Access) error {
	if r == nil || len(r.rules) == 0 || a.Token == nil {
		return &valetkey.Error{Code: valetkey.Forbidden, Reason: valetkey.ReasonNoRequirement}
	}
	ctx := context.Background()
	if a.Request != nil {
		ctx = a.Request.Context()
	}
	f, err := known.of(a.Token)
	if err != nil {
		return err
	}
	vars := &variables{token: f, access: &a}
	for _, p := range r.rules {
		if err := p.run(ctx, vars); err != nil {
			return err
		}
	}
	return nil
}

// Describe returns the expressions of r. It implements [valetkey.Describer].
func (r *Requirement) Describe() valetkey.Needs {
	var n valetkey.Needs
	if r != nil {
		for _, p := range r.rules {
			n.Rules = append(n.Rules, p.text)
		}
	}
	return n
}

// Wildcards returns the names of the path values that the rules read, except for those that they test with has. The pattern of the route
// needs these wildcards, otherwise r refuses every request. Package routes checks it.
func (r *Requirement) Wildcards() []string {
	var all []string
	if r != nil {
		for _, p := range r.rules {
			all = append(all, p.wildcards...)
		}
	}
	return all
}

// String returns the expressions of r, for logs and audits.
func (r *Requirement) String() string {
	return strings.Join(r.Describe().Rules, " && ")
}

// A program is a compiled rule.
type program struct {
	text      string // the expression in one line
	program   cel.Program
	wildcards []string
	code      valetkey.Code
	reason    valetkey.Reason
}

// run returns a refusal unless the rule holds. Neither the refusal nor its cause contains the error of the program, which can quote
// the value of a claim.
func (p *program) run(ctx context.Context, vars *variables) error {
	out, _, err := p.program.ContextEval(ctx, vars)
	var ended interpreter.EvalCancelledError
	why := "does not hold"
	switch {
	case err == nil && out == types.True:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("valetcel: evaluate a rule: %w", context.Cause(ctx))
	case errors.As(err, &ended) && ended.Cause == interpreter.CostLimitExceeded:
		why = fmt.Sprintf("costs more than %d", CostLimit)
	case err != nil:
		why = "cannot be evaluated: a value is missing or has another type than the rule expects"
	}
	return &valetkey.Error{Code: p.code, Reason: p.reason, Err: fmt.Errorf("the rule %q %s", p.text, why)}
}
