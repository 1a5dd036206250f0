package claims

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/derived"
	"github.com/valetkey/valetkey/internal/strictjson"
)

// Check returns nil if r holds for the claims of the token. Otherwise it returns a refusal with [valetkey.Forbidden], because another
// scope would not change the claims. The error contains no value of a claim. Check implements [valetkey.Requirement].
//
// Claims are read once per token. Requests with a remembered token compare values that were read before, without an allocation.
func (r Rule) Check(a valetkey.Access) error {
	v, err := valueOf(a.Token, r.claim, r.key)
	if err != nil {
		return err
	}
	if !r.holds(v) {
		return forbidden(r.String())
	}
	return nil
}

// Describe returns the text of r. It implements [valetkey.Describer].
func (r Rule) Describe() valetkey.Needs { return valetkey.Needs{Rules: []string{r.String()}} }

// A Match is a [valetkey.Requirement] that compares a claim with a part of the request. A part that is missing or empty matches no
// claim, not even an empty one. The zero value refuses every token. A Match is immutable and safe for concurrent use.
type Match struct {
	claim string
	key   any
	list  bool // the claim is an array that contains the part
	part  part
	name  string // of the part
	label int    // for a label of the host
}

type part byte

const (
	noPart part = iota
	pathValue
	queryValue
	hostLabel
)

// EqualPathValue returns a Match that holds if claim equals the part of the path that the router matched with a wildcard, as in
// EqualPathValue("tenant_id", "tenant") for the route "/tenants/{tenant}/orders". Path values are decoded. See
// [valetkey.Access.PathValue].
func EqualPathValue(claim, wildcard string) Match {
	return Match{claim: claim, key: claimKey(claim), part: pathValue, name: wildcard}
}

// ContainsPathValue returns a Match that holds if claim is an array, and the part of the path is one of its elements, for users who
// belong to several tenants. See [EqualPathValue].
func ContainsPathValue(claim, wildcard string) Match {
	return Match{claim: claim, key: claimKey(claim), list: true, part: pathValue, name: wildcard}
}

// EqualQuery returns a Match that holds if claim equals a parameter of the query. A query with the parameter twice, or that is
// malformed, is refused: the handler might read another value.
func EqualQuery(claim, parameter string) Match {
	return Match{claim: claim, key: claimKey(claim), part: queryValue, name: parameter}
}

// EqualHostLabel returns a Match that holds if claim equals a label of the request's host, without regard to letter case. Labels count
// from the left: label 0 of acme.api.example.com is acme. The client chooses the Host header, so a handler must take the tenant from
// the token or from the same header.
func EqualHostLabel(claim string, label int) Match {
	return Match{claim: claim, key: claimKey(claim), part: hostLabel, label: label}
}

// Check returns nil if m holds. Otherwise it returns a refusal with [valetkey.Forbidden] that contains no value of a claim. For a token
// that came without a request, it refuses.
func (m Match) Check(a valetkey.Access) error {
	want, err := m.of(a)
	if err != nil {
		return err
	}
	v, err := valueOf(a.Token, m.claim, m.key)
	if err != nil {
		return err
	}
	holds := false
	switch {
	case want == "":
	case m.list:
		holds = v.contains(want)
	case m.part == hostLabel:
		holds = strings.EqualFold(v.scalar(), want)
	default:
		holds = v.scalar() == want
	}
	if !holds {
		return forbidden(m.String())
	}
	return nil
}

// of returns the part of the request, "" if there is none.
func (m Match) of(a valetkey.Access) (string, error) {
	if a.Request == nil {
		return "", nil
	}
	switch m.part {
	case pathValue:
		return a.PathValue(m.name), nil
	case queryValue:
		query, err := url.ParseQuery(a.Request.URL.RawQuery)
		if values := query[m.name]; err == nil && len(values) == 1 {
			return values[0], nil
		} else if err != nil || len(values) > 1 {
			return "", &valetkey.Error{Code: valetkey.InvalidRequest, Reason: valetkey.ReasonQueryMalformed, Err: fmt.Errorf("the rule %q needs one %s", m, m.name)}
		}
	case hostLabel:
		host := a.Request.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		labels := strings.Split(strings.TrimSuffix(host, "."), ".")
		if m.label >= 0 && m.label < len(labels) && net.ParseIP(strings.Trim(host, "[]")) == nil {
			return labels[m.label], nil
		}
	}
	return "", nil
}

// Wildcard returns the name of the wildcard in the pattern of the route, or "" if m reads none.
func (m Match) Wildcard() string {
	if m.part != pathValue {
		return ""
	}
	return m.name
}

// Validate returns an error if m holds for no request: it is the zero Match, or a name is empty or the number of a label negative.
func (m Match) Validate() error {
	switch {
	case m.part == noPart:
		return errors.New("the zero Match holds for no request")
	case m.claim == "" || strings.TrimSpace(m.claim) != m.claim:
		return errors.New("the name of the claim is empty or surrounded by spaces")
	case m.part != hostLabel && m.name == "":
		return errors.New("the name of the path value or parameter is empty")
	case m.label < 0:
		return fmt.Errorf("the label %d is negative", m.label)
	}
	return nil
}

// String returns a text for logs and audits, such as "tenant_id = path value tenant".
func (m Match) String() string {
	operator := textEqual
	if m.list {
		operator = textContains
	}
	switch m.part {
	case pathValue:
		return m.claim + operator + "path value " + m.name
	case queryValue:
		return m.claim + operator + "query parameter " + m.name
	case hostLabel:
		return fmt.Sprintf("%s%shost label %d", m.claim, operator, m.label)
	default:
		return "(the zero Match)"
	}
}

// Describe returns the text of m. It implements [valetkey.Describer].
func (m Match) Describe() valetkey.Needs { return valetkey.Needs{Rules: []string{m.String()}} }

func forbidden(rule string) error {
	return &valetkey.Error{Code: valetkey.Forbidden, Reason: valetkey.ReasonClaimsForbid, Err: fmt.Errorf("the rule %q does not hold", rule)}
}

// A claimKey is the key of a value in package derived.
type claimKey string

// maxKept is the size of a claim, in bytes, up to which its value is stored with the token. Only the issuer can send a larger one, which
// is then read on each request. There are as many values as the program has claims in rules.
const maxKept = 4 << 10

// valueOf returns the value of a claim of t. key is its claimKey.
func valueOf(t *valetkey.Token, claim string, key any) (*value, error) {
	if t == nil || key == nil {
		return &value{}, nil
	}
	if kept, ok := derived.Stored(t, key).(*value); ok && kept != nil {
		return kept, nil
	}
	kept := derived.Of(t, key, func() any {
		v, err := readValue(t.Raw(), claim)
		if err != nil || len(v.json) > maxKept {
			return (*value)(nil)
		}
		return v
	}).(*value)
	if kept == nil {
		return readValue(t.Raw(), claim)
	}
	return kept, nil
}

func readValue(raw, claim string) (*value, error) {
	if raw == "" {
		return &value{read: true}, nil
	}
	all := []byte(raw)
	var found strictjson.Value
	err := strictjson.Object(all, func(name string, v strictjson.Value) error {
		if name == claim {
			found = v
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	if found.IsEmpty() && strings.Contains(claim, ".") {
		found = strictjson.At(all, claim)
	}
	return &value{json: bytes.Clone(found), read: true, text: scalar(found), elements: slices.Clip(elements(found))}, nil
}
