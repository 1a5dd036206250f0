package conformance

import (
	"fmt"
	"strings"
)

// String describes a failure for people: the title, what was expected and received, and why it matters.
func (r Result) String() string {
	var b strings.Builder
	c := r.Case
	fmt.Fprintf(&b, "%s (%s; %s)\n", c.Title, c.Strength, c.source())
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "  problem:  %s\n", p)
	}
	if r.Expected != "" {
		fmt.Fprintf(&b, "  expected: %s\n", r.Expected)
	}
	if n := len(r.Sent); n > 0 {
		fmt.Fprintf(&b, "  sent:\n%s  received:\n%s", indented(r.Sent[n-1].Request), indented(r.Sent[n-1].Response))
	}
	fmt.Fprintf(&b, "  why it matters: %s\n", c.Reason)
	return b.String()
}

// source returns the standard and section of a case, such as "RFC 6750, section 3.1".
func (c Case) source() string {
	switch {
	case c.Section == "":
		return c.Standard
	case c.Section[0] >= '0' && c.Section[0] <= '9' && c.Standard != "CWE":
		return c.Standard + ", section " + c.Section
	case c.Standard == "CWE":
		return "CWE-" + c.Section
	}
	return c.Standard + ", " + c.Section
}

// indented prints text that a server or a case has chosen, without control characters.
func indented(s string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimRight(strings.ReplaceAll(s, "\r\n", "\n"), "\n"), "\n") {
		b.WriteString("    " + printable(line) + "\n")
	}
	return b.String()
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, s)
}
