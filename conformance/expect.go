package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/authheader"
)

// Expect lists what a response must be like. All members that are set must hold.
type Expect struct {
	// Outcome is the name of an outcome in cases/outcomes.json, whose members apply where this Expect has none.
	Outcome string `json:"outcome,omitempty"`

	Status    []string           `json:"status,omitempty"`  // such as 401 or 2xx; one must match
	Handler   *bool              `json:"handler,omitempty"` // whether the handler of the route ran, which a 2xx shows
	Challenge *ExpectedChallenge `json:"challenge,omitempty"`
	Header    map[string]string  `json:"header,omitempty"`   // name -> text that the value contains, in any letter case; "": any value
	Absent    []string           `json:"absent,omitempty"`   // headers that must not be there
	Body      map[string]any     `json:"body,omitempty"`     // members of the JSON object in the body; {"$absent": true}: must not be there
	Lacks     []string           `json:"lacks,omitempty"`    // texts that must be nowhere in the response
	Within    string             `json:"within,omitempty"`   // the longest time to the response
	Calls     map[string]Calls   `json:"calls,omitempty"`    // endpoint of the issuer -> requests that it got during the step
	Accepted  *Calls             `json:"accepted,omitempty"` // of several requests: how many were accepted
}

// Calls is a number of requests: at least Min and at most Max.
type Calls struct {
	Min int `json:"min,omitempty"`
	Max int `json:"max"`
}

// An ExpectedChallenge is what the challenges of a response must be like.
type ExpectedChallenge struct {
	Scheme  string            `json:"scheme,omitempty"`  // of the challenge that the rest is about. Empty: that of the token
	Errors  []string          `json:"errors,omitempty"`  // one must be the error. "": there must be no error
	Params  map[string]string `json:"params,omitempty"`  // exact values; "": any value
	Scopes  string            `json:"scopes,omitempty"`  // the scope parameter has these scopes, in any order
	Lacks   []string          `json:"lacks,omitempty"`   // parameters that must not be there
	Strict  bool              `json:"strict,omitempty"`  // every challenge follows the grammar of RFC 9110 and RFC 6750
	Missing bool              `json:"missing,omitempty"` // there must be no challenge with the scheme
}

var outcomes = sync.OnceValue(func() map[string]Expect {
	var all map[string]Expect
	if err := readData("cases/outcomes.json", &all); err != nil {
		panic(fmt.Sprintf("conformance: %v", err)) // embedded, so the package's test has read it
	}
	return all
})

// resolved returns the Expect with the members of its outcome.
func (e Expect) resolved() Expect {
	base := outcomes()[e.Outcome]
	merge := func(own, from reflect.Value) {
		for i := range own.NumField() {
			if own.Field(i).IsZero() {
				own.Field(i).Set(from.Field(i))
			}
		}
	}
	merge(reflect.ValueOf(&e).Elem(), reflect.ValueOf(base))
	return e
}

// String describes the expected response for people.
func (e Expect) String() string {
	e = e.resolved()
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if len(e.Status) > 0 {
		add("status %s", strings.Join(e.Status, " or "))
	}
	if e.Handler != nil {
		add("the handler %s", map[bool]string{true: "runs", false: "does not run"}[*e.Handler])
	}
	if c := e.Challenge; c != nil {
		parts = append(parts, c.String())
	}
	for _, name := range slices.Sorted(maps.Keys(e.Header)) {
		if value := e.Header[name]; value != "" {
			add("%s contains %q", name, value)
		} else {
			add("%s is present", name)
		}
	}
	for _, name := range e.Absent {
		add("no %s", name)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Body)) {
		value, _ := json.Marshal(e.Body[name])
		add("member %s of the body: %s", name, value)
	}
	if len(e.Lacks) > 0 {
		add("the response does not contain %s", strings.Join(e.Lacks, ", "))
	}
	if e.Within != "" {
		add("within %s", e.Within)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Calls)) {
		add("%s requests for the issuer's %s", e.Calls[name], name)
	}
	if e.Accepted != nil {
		add("%s of the requests accepted", *e.Accepted)
	}
	return strings.Join(parts, ", ")
}

// String returns the range, such as "1 to 3".
func (c Calls) String() string {
	if c.Min == c.Max {
		return strconv.Itoa(c.Min)
	}
	return fmt.Sprintf("%d to %d", c.Min, c.Max)
}

// String describes the challenge for people.
func (c ExpectedChallenge) String() string {
	var parts []string
	for _, e := range c.Errors {
		if e == "" {
			e = "no error"
		}
		parts = append(parts, e)
	}
	text := strings.TrimSpace(c.Scheme + " challenge")
	if c.Missing {
		return "no " + text
	}
	if len(parts) > 0 {
		text += " with " + strings.Join(parts, " or ")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Params)) {
		if c.Params[name] == "" {
			text += ", " + name
		} else {
			text += fmt.Sprintf(", %s=%q", name, c.Params[name])
		}
	}
	if c.Scopes != "" {
		text += fmt.Sprintf(", scope=%q", c.Scopes)
	}
	for _, name := range c.Lacks {
		text += ", without " + name
	}
	if c.Strict {
		text += ", well-formed"
	}
	return text
}

// An observation is what a step has seen.
type observation struct {
	response *response
	scheme   string // of the request's token
	calls    map[string]int
	accepted int
	expand   func(string) string
}

// check returns what differs from e in the response of one request.
func (e Expect) check(o observation) (wrong []string) {
	note := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	r := o.response
	if r.err != nil {
		if !slices.Contains(e.Status, "closed") || errors.Is(r.err, errEnded) {
			note("no response: %v", r.err)
		}
		return wrong
	}
	if len(e.Status) > 0 && !slices.ContainsFunc(e.Status, func(s string) bool { return statusMatches(s, r.status) }) {
		note("status %d, expected %s", r.status, strings.Join(e.Status, " or "))
	}
	if e.Handler != nil && *e.Handler != r.accepted() {
		note("the handler ran: %t, expected %t", r.accepted(), *e.Handler)
	}
	if e.Challenge != nil {
		wrong = append(wrong, e.Challenge.check(r.header, o)...)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Header)) {
		want := o.expand(e.Header[name])
		values := strings.Join(r.header.Values(name), ", ")
		if len(r.header.Values(name)) == 0 {
			note("no header %s", name)
		} else if !strings.Contains(strings.ToLower(values), strings.ToLower(want)) {
			note("%s: %q does not contain %q", name, values, want)
		}
	}
	for _, name := range e.Absent {
		if values := r.header.Values(name); len(values) > 0 {
			note("%s: %q, expected none", name, strings.Join(values, ", "))
		}
	}
	if e.Body != nil {
		wrong = append(wrong, checkBody(e.Body, r.body, o.expand)...)
	}
	for _, text := range e.Lacks {
		if text = o.expand(text); text != "" && strings.Contains(r.text(), text) {
			note("the response contains a text that it must not contain")
		}
	}
	if limit, err := time.ParseDuration(e.Within); err == nil && r.took > limit {
		note("the response took %s, expected at most %s", r.took.Round(time.Millisecond), limit)
	}
	return wrong
}

// checkAll returns what differs from e in all requests of a step together.
func (e Expect) checkAll(o observation) (wrong []string) {
	for _, name := range slices.Sorted(maps.Keys(e.Calls)) {
		if n, want := o.calls[name], e.Calls[name]; n < want.Min || n > want.Max {
			wrong = append(wrong, fmt.Sprintf("%d requests for the issuer's %s, expected %s", n, name, want))
		}
	}
	if want := e.Accepted; want != nil && (o.accepted < want.Min || o.accepted > want.Max) {
		wrong = append(wrong, fmt.Sprintf("%d requests were accepted, expected %s", o.accepted, *want))
	}
	return wrong
}

func statusMatches(want string, status int) bool {
	if class, ok := strings.CutSuffix(want, "xx"); ok {
		return class == strconv.Itoa(status/100)
	}
	return want == strconv.Itoa(status)
}

func checkBody(want map[string]any, body []byte, expand func(string) string) (wrong []string) {
	var got map[string]any
	if err := json.Unmarshal(body, &got); err != nil {
		return []string{"the body is not a JSON object"}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		expected, value := want[name], got[name]
		_, there := got[name]
		switch e := expected.(type) {
		case map[string]any:
			switch {
			case e["$absent"] == true:
				if there {
					wrong = append(wrong, fmt.Sprintf("the body has the member %s", name))
				}
				continue
			case e["$any"] == true:
				if !there {
					wrong = append(wrong, fmt.Sprintf("the body has no member %s", name))
				}
				continue
			case e["$has"] != nil:
				list, _ := value.([]any)
				if text, ok := e["$has"].(string); !ok || !slices.Contains(list, any(expand(text))) {
					wrong = append(wrong, fmt.Sprintf("%s does not contain %v", name, e["$has"]))
				}
				continue
			case e["$lacks"] != nil:
				list, _ := value.([]any)
				if slices.Contains(list, e["$lacks"]) {
					wrong = append(wrong, fmt.Sprintf("%s contains %v", name, e["$lacks"]))
				}
				continue
			}
		case string:
			expected = expand(e)
		}
		if !reflect.DeepEqual(value, expected) {
			wrong = append(wrong, fmt.Sprintf("member %s of the body: %v, expected %v", name, value, expected))
		}
	}
	return wrong
}

// check returns what is wrong with the challenges in h.
func (c ExpectedChallenge) check(h http.Header, o observation) (wrong []string) {
	note := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	var found []authheader.Challenge
	scheme := c.Scheme
	if scheme == "" {
		scheme = o.scheme
	}
	for _, line := range h.Values("WWW-Authenticate") {
		all, err := authheader.Challenges(line)
		if err != nil {
			if c.Strict {
				note("WWW-Authenticate is malformed: %v", err)
			}
			all = looseChallenges(line)
		}
		for _, one := range all {
			if strings.EqualFold(one.Scheme, scheme) {
				found = append(found, one)
			}
			if c.Strict {
				wrong = append(wrong, illFormed(one)...)
			}
		}
	}
	if c.Missing {
		if len(found) > 0 {
			note("there is a challenge with the scheme %s", scheme)
		}
		return wrong
	}
	if len(found) == 0 {
		note("no challenge with the scheme %s", scheme)
		return wrong
	}
	one := found[0]
	for _, other := range found { // of two with one scheme, the one with an error is meant
		if other.Params["error"] != "" {
			one = other
		}
	}
	if len(c.Errors) > 0 && !slices.Contains(c.Errors, one.Params["error"]) {
		note("the challenge has the error %q, expected %q", one.Params["error"], c.Errors)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Params)) {
		want := o.expand(c.Params[name])
		if got, ok := one.Params[name]; !ok || want != "" && got != want {
			note("the challenge has %s=%q, expected %q", name, got, want)
		}
	}
	if c.Scopes != "" {
		want := strings.Fields(o.expand(c.Scopes))
		got := strings.Fields(one.Params["scope"])
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			note("the challenge has scope=%q, expected %q", one.Params["scope"], o.expand(c.Scopes))
		}
	}
	for _, name := range c.Lacks {
		if value, ok := one.Params[name]; ok {
			note("the challenge has %s=%q, expected none", name, value)
		}
	}
	return wrong
}

// illFormed returns what RFC 6750, section 3, does not allow in a challenge of Bearer or DPoP.
func illFormed(c authheader.Challenge) (wrong []string) {
	bearer := strings.EqualFold(c.Scheme, authheader.Bearer)
	if !bearer && !strings.EqualFold(c.Scheme, authheader.DPoP) {
		return nil
	}
	if bearer && len(c.Params) == 0 {
		wrong = append(wrong, "the Bearer challenge has no parameter")
	}
	for _, name := range []string{"error", "error_description", "scope"} {
		if strings.ContainsFunc(c.Params[name], func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
			wrong = append(wrong, fmt.Sprintf("%s has a character that RFC 6750 does not allow", name))
		}
	}
	return wrong
}

// looseChallenges reads challenges that are not well-formed, as a forgiving client would: the scheme is the first word, and the
// parameters are whatever looks like one.
func looseChallenges(line string) []authheader.Challenge {
	line = strings.TrimSpace(line)
	end := strings.IndexAny(line, " \t,")
	if end < 0 {
		end = len(line)
	}
	scheme, rest := line[:end], line[end:]
	c := authheader.Challenge{Scheme: scheme, Params: map[string]string{}}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(part, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if _, seen := c.Params[name]; ok && !seen {
			c.Params[name] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return []authheader.Challenge{c}
}
