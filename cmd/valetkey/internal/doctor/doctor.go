// Package doctor finds out why a resource server refuses the tokens of its issuers. It reaches the issuers, compares what they
// publish with the configuration, and has the verifiers of the configuration verify a token. Each finding is one line: what is
// wrong, and the setting that corrects it.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/signals"
)

// A Target is the configuration of one verifier, the Redis of a proxy, or its receiver of signals. Exactly one of Keys, Introspection,
// Redis and Signals is set.
type Target struct {
	At            string // path in the file; empty: it is not from a file
	Keys          *jwks.Config
	Introspection *introspect.Config
	Redis         func(ctx context.Context) error // reads the revocations as a proxy that starts does
	Signals       *signals.Config
	Manages       bool // Signals has credentials for the API of the stream
}

// A Level is how severe a finding is.
type Level string

// Levels of findings.
const (
	OK   Level = "ok"
	Warn Level = "warn" // tokens are accepted, but may not be later or elsewhere
	Fail Level = "fail" // tokens are refused
)

// A Finding is the result of one comparison. All texts are untrusted: they may quote tokens and responses.
type Finding struct {
	Level Level  `json:"level"`
	At    string `json:"at,omitempty"` // path of the verifier in the file
	Check string `json:"check"`        // what was compared
	Cause string `json:"cause"`
	Fix   string `json:"fix,omitempty"`  // what to do, if not only to change a setting
	If    string `json:"if,omitempty"`   // condition under which to change the setting
	YAML  string `json:"yaml,omitempty"` // line of the verifier in a file of valetkey proxy
	Go    string `json:"go,omitempty"`   // field of the Config
}

// String returns the finding on one line, without its level and verifier.
func (f Finding) String() string {
	text := f.Check + ": " + f.Cause
	if f.Fix != "" {
		text += "; " + f.Fix
	}
	set := "; set "
	if f.If != "" {
		set = "; if " + f.If + ", set "
	}
	switch {
	case f.YAML != "" && f.Go != "":
		text += fmt.Sprintf("%s%s (in Go: %s)", set, f.YAML, f.Go)
	case f.YAML != "":
		text += set + f.YAML
	case f.Go != "":
		text += set + "in Go: " + f.Go
	}
	return strings.ReplaceAll(text, "\n", " ")
}

// Examine examines the verifiers of a resource server and, if raw is not empty, what they make of the token. It takes at most
// some seconds for each request to an issuer, of which there are at most ten per verifier.
func Examine(ctx context.Context, targets []Target, raw string) (findings []Finding) {
	subject := tokenOf(raw)
	chosen := choose(targets, subject)
	for i, t := range targets {
		var about *token
		if i == chosen {
			about = subject
		}
		x := &examination{target: t}
		switch {
		case t.Keys != nil:
			x.keys(ctx, about)
		case t.Introspection != nil:
			x.introspection(ctx, about)
		case t.Signals != nil:
			x.signals(ctx, subject)
		default:
			x.redis(ctx)
		}
		findings = append(findings, x.findings...)
	}
	verifiers := slices.ContainsFunc(targets, func(t Target) bool { return t.Keys != nil || t.Introspection != nil })
	if subject != nil && chosen < 0 && verifiers {
		findings = append(findings, strangers(targets, subject))
	}
	return findings
}

// choose returns the index of the verifier that is responsible for the token, or -1 if none is.
func choose(targets []Target, t *token) int {
	first, verifiers := -1, 0
	for _, target := range targets {
		if target.Keys != nil || target.Introspection != nil {
			verifiers++
		}
	}
	for i, target := range targets {
		switch {
		case t == nil:
		case target.Keys != nil && t.isJWT():
			if accepts(target.Keys, t.text("iss")) {
				return i
			}
			if first < 0 {
				first = i
			}
		case target.Introspection != nil && (!t.isJWT() || asksAbout(target.Introspection, t)):
			return i
		case target.Keys != nil && verifiers == 1: // reports that the token is opaque
			return i
		}
	}
	return first
}

// accepts reports whether iss is the issuer of the configuration, one of its aliases, or one of its tenants.
func accepts(cfg *jwks.Config, iss string) bool {
	before, rest, template := strings.Cut(cfg.Issuer, "{")
	_, after, _ := strings.Cut(rest, "}")
	return iss == cfg.Issuer || slices.Contains(cfg.IssuerAliases, iss) ||
		template && strings.HasPrefix(iss, before) && strings.HasSuffix(iss, after)
}

func asksAbout(cfg *introspect.Config, t *token) bool {
	for _, iss := range cfg.JWTIssuers {
		if iss == introspect.AnyIssuer || iss == t.text("iss") {
			return true
		}
	}
	return false
}

// strangers returns the finding about a token that no verifier is responsible for.
func strangers(targets []Target, t *token) Finding {
	if t.isJWT() {
		return Finding{Level: Fail, Check: "token", Cause: fmt.Sprintf("it is a JWT, and only opaque tokens are introspected; its issuer is %.200q", t.text("iss")),
			YAML: fmt.Sprintf("jwt_issuers: [%q]", t.text("iss")), Go: fmt.Sprintf("JWTIssuers: []string{%q}", t.text("iss"))}
	}
	return t.opaque()
}

// An examination is that of one verifier.
type examination struct {
	target   Target
	findings []Finding
	*sender  // of requests for keys
}

func (x *examination) add(f Finding) {
	f.At = x.target.At
	x.findings = append(x.findings, f)
}

func (x *examination) ok(check, format string, args ...any) {
	x.add(Finding{Level: OK, Check: check, Cause: fmt.Sprintf(format, args...)})
}

// setting returns f with the lines that set a string setting.
func (f Finding) setting(yaml, field, value string) Finding {
	f.YAML, f.Go = fmt.Sprintf("%s: %q", yaml, value), fmt.Sprintf("%s: %q", field, value)
	return f
}

// list returns f with the lines that set a list.
func (f Finding) list(yaml, field string, values []string) Finding {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = fmt.Sprintf("%q", v)
	}
	all := strings.Join(quoted, ", ")
	f.YAML, f.Go = yaml+": ["+all+"]", field+": []string{"+all+"}"
	return f
}
