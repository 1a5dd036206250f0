// Package claims provides rules about the claims of a token, such as "the repository is example/orders".
//
//	rules := []claims.Rule{
//		claims.Equal("repository", "example/orders"),
//		claims.Prefix("ref", "refs/heads/"),
//	}
//
// A [jwks.Config] takes such rules in two fields: Rules, which a token must meet to be accepted, and Markers, which prove that a
// token is an access token. An issuer that signs tokens for anyone, such as that of a CI system, needs a rule about the subject.
//
// A Rule is also a requirement of a route, beside those of package scopes, see [Rule.Check]:
//
//	guard.Handler(deploy, valetkey.AllOf{scopes.All("deploy"), claims.Equal("environment", "production")})
//
// [EqualPathValue] and its like compare a claim with a part of the request, such as the tenant in its path.
//
// [jwks.Config]: https://pkg.go.dev/github.com/valetkey/valetkey/jwks#Config
package claims

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/internal/strictjson"
)

// A Rule is a condition on one claim of a token. It is immutable and safe for concurrent use. The zero value holds for no token.
//
// A claim that is null, "" or [] is treated as absent. A name with dots that is not itself a claim is a path into objects:
// "kubernetes.io.namespace" finds the member namespace of the claim kubernetes.io. Names and values are compared byte by byte.
type Rule struct {
	claim  string
	op     op
	values []string
	key    any // the claim as a key of package derived, which a conversion on each request would allocate
}

type op byte

const (
	never op = iota
	equal
	contains
	prefix
	present
	absent
)

// Equal returns a Rule that holds if claim has value: a string with this value, or a number or boolean that is written like it in
// the token. Equal("email_verified", "true") holds for the boolean and for the string.
func Equal(claim, value string) Rule { return OneOf(claim, value) }

// OneOf returns a Rule that holds if claim has one of values, compared as [Equal] does. Without values, it holds for no token.
func OneOf(claim string, values ...string) Rule {
	return rule(claim, equal, slices.Clone(values))
}

// Contains returns a Rule that holds if claim is an array with value among its elements. Elements are compared as [Equal] does.
func Contains(claim, value string) Rule { return rule(claim, contains, []string{value}) }

// Prefix returns a Rule that holds if claim is a string that begins with start. End start with a separator: "repo:example" is
// also the beginning of "repo:example-evil/orders".
func Prefix(claim, start string) Rule { return rule(claim, prefix, []string{start}) }

// Present returns a Rule that holds if the token has claim.
func Present(claim string) Rule { return rule(claim, present, nil) }

// Absent returns a Rule that holds if the token does not have claim.
func Absent(claim string) Rule { return rule(claim, absent, nil) }

func rule(claim string, op op, values []string) Rule { return Rule{claim, op, values, claimKey(claim)} }

// Claim returns the name of the claim.
func (r Rule) Claim() string { return r.claim }

// Pins reports whether r restricts the value of its claim, as [Equal], [OneOf], [Contains] and [Prefix] do.
func (r Rule) Pins() bool { return r.op == equal || r.op == contains || r.op == prefix }

// NeedsClaim reports whether r can hold only for tokens that have the claim. It is false for [Absent].
func (r Rule) NeedsClaim() bool { return r.Pins() || r.op == present }

// Values returns the values that the claim is compared with, and whether they are the beginnings of longer ones, as those of [Prefix]
// are. It returns nil for [Present] and [Absent].
func (r Rule) Values() (values []string, beginnings bool) {
	return slices.Clone(r.values), r.op == prefix
}

// The operators of the text form of a Rule.
const (
	textEqual    = " = "
	textContains = " ~= "
	textPrefix   = " ^= "
	textOr       = " | "
)

// Parse returns the Rule of a text, as written in a configuration file:
//
//	repository = example/orders     Equal
//	tid = t1 | t2                   OneOf
//	groups ~= ops                   Contains
//	sub ^= repo:example/            Prefix
//	email                           Present
//	!act                            Absent
//
// The operators are surrounded by single spaces, so names and values may contain their characters. Without an operator, a text
// with "=" is an error: "!role=guest" would hold for every token that has no claim of this name.
func Parse(text string) (Rule, error) {
	r := parse(text)
	err := r.Validate()
	switch {
	case err != nil:
	case strings.HasPrefix(r.claim, "!"):
		err = errors.New("! is followed by the name of a claim alone")
	case !r.Pins() && (strings.Contains(r.claim, "=") || strings.Contains(r.claim, textOr)):
		err = errors.New("an operator (=, ~=, ^=) needs a space on each side")
	}
	if err != nil {
		return Rule{}, fmt.Errorf("claims: %.200q: %w", text, err)
	}
	return r, nil
}

func parse(text string) Rule {
	// The first operator separates, since a value may contain another one.
	at, separator, kind := len(text), "", never
	for _, o := range []struct {
		text string
		op   op
	}{{textEqual, equal}, {textContains, contains}, {textPrefix, prefix}} {
		if i := strings.Index(text, o.text); i >= 0 && i < at {
			at, separator, kind = i, o.text, o.op
		}
	}
	name, value := text[:at], text[min(at+len(separator), len(text)):]
	switch kind {
	case never:
		if name, not := strings.CutPrefix(text, "!"); not {
			return Absent(name)
		}
		return Present(text)
	case equal:
		return OneOf(name, strings.Split(value, textOr)...)
	default:
		return rule(name, kind, []string{value})
	}
}

// Validate returns an error if r can hold for no token, or for every token in spite of its value: it is the zero Rule, has no
// claim or no value, or an empty value.
func (r Rule) Validate() error {
	switch {
	case r.op == never:
		return errors.New("the zero Rule holds for no token")
	case r.claim == "" || strings.TrimSpace(r.claim) != r.claim:
		return errors.New("the name of the claim is empty or surrounded by spaces")
	case r.Pins() && len(r.values) == 0:
		return errors.New("there is no value, so the rule holds for no token")
	case slices.Contains(r.values, ""):
		return errors.New("the value is empty")
	}
	return nil
}

// String returns the text form of r; see [Parse].
func (r Rule) String() string {
	switch r.op {
	case equal:
		return r.claim + textEqual + strings.Join(r.values, textOr)
	case contains:
		return r.claim + textContains + r.values[0]
	case prefix:
		return r.claim + textPrefix + r.values[0]
	case present:
		return r.claim
	case absent:
		return "!" + r.claim
	default:
		return "(the zero Rule)"
	}
}

// UnmarshalText parses the text form of a Rule; see [Parse].
func (r *Rule) UnmarshalText(text []byte) (err error) {
	*r, err = Parse(string(text))
	return err
}

// MarshalText returns the text form of r; see [Parse]. It fails if r is not valid, or if its text would be that of another rule
// because a name or value contains an operator.
func (r Rule) MarshalText() ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	text := r.String()
	same, err := Parse(text)
	if err != nil {
		return nil, err
	}
	if same.claim != r.claim || same.op != r.op || !slices.Equal(same.values, r.values) {
		return nil, fmt.Errorf("claims: %.200q is the text of another rule too", text)
	}
	return []byte(text), nil
}

// Check returns nil if every rule holds for claims, the JSON object of a token's claims. Otherwise the error names the first rule
// that does not hold, and no value of a claim.
func Check(claims []byte, rules ...Rule) error {
	if len(rules) == 0 {
		return nil
	}
	found := make([]strictjson.Value, len(rules))
	err := strictjson.Object(claims, func(name string, v strictjson.Value) error {
		for i := range rules {
			if rules[i].claim == name {
				found[i] = v
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("claims: %w", err)
	}
	for i, r := range rules {
		v := found[i]
		if v.IsEmpty() && strings.Contains(r.claim, ".") {
			v = strictjson.At(claims, r.claim)
		}
		if !r.holds(&value{json: v}) {
			return fmt.Errorf("the rule %q does not hold", r.String())
		}
	}
	return nil
}

// A value is the value of a claim.
type value struct {
	json     strictjson.Value // nil: the token does not have the claim
	read     bool             // text and elements are set
	text     string           // as scalar returns it
	elements []string         // as elements returns them
}

func (v *value) scalar() string {
	if v.read {
		return v.text
	}
	return scalar(v.json)
}

// contains reports whether v is an array with the element want, which is not empty.
func (v *value) contains(want string) bool {
	if v.read {
		return slices.Contains(v.elements, want)
	}
	return slices.Contains(elements(v.json), want)
}

// holds reports whether r holds for v, the value of its claim.
func (r Rule) holds(v *value) bool {
	switch r.op {
	case equal:
		s := v.scalar()
		return s != "" && slices.Contains(r.values, s)
	case prefix:
		return r.values[0] != "" && len(v.json) > 0 && v.json[0] == '"' && strings.HasPrefix(v.scalar(), r.values[0])
	case contains:
		return r.values[0] != "" && v.contains(r.values[0])
	case present:
		return !v.json.IsEmpty()
	case absent:
		return v.json.IsEmpty()
	default:
		return false
	}
}

// elements returns the elements of an array, each as scalar returns it; nil if v is not an array.
func elements(v strictjson.Value) []string {
	list, _ := v.Elements()
	all := make([]string, len(list))
	for i, e := range list {
		all[i] = scalar(e)
	}
	return all
}

// scalar returns a string, or the text of a number or boolean. Otherwise it returns "".
func scalar(v strictjson.Value) string {
	if s, ok := v.Text(); ok {
		return s
	}
	if v.IsEmpty() || v.IsObject() || v[0] == '[' {
		return ""
	}
	return string(v)
}
