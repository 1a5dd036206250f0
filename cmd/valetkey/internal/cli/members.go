package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// dates are the claims that hold times (RFC 7519, section 2; OpenID Connect Core 1.0, section 2).
var dates = []string{"iat", "nbf", "exp", "auth_time"}

// printMembers writes the members of a header or of claims, one aligned line each, the best-known ones first.
func printMembers(w io.Writer, members map[string]json.RawMessage, now time.Time) error {
	first := []string{"alg", "kid", "typ", "iss", "sub", "aud", "client_id", "scope", "iat", "nbf", "exp", "jti"}
	rank := func(name string) int {
		if i := slices.Index(first, name); i >= 0 {
			return i
		}
		return len(first)
	}
	names := slices.SortedFunc(maps.Keys(members), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, name := range names {
		value := string(members[name])
		var s string
		if json.Unmarshal(members[name], &s) == nil {
			value = s
		}
		var seconds float64
		if slices.Contains(dates, name) && json.Unmarshal(members[name], &seconds) == nil {
			at := time.Unix(int64(min(max(seconds, 0), maxDate)), 0)
			value += fmt.Sprintf(" (%s, %s)", at.UTC().Format(time.RFC3339), fromNow(at.Sub(now)))
		}
		fmt.Fprintf(table, "%s\t%s\n", printable(name), printable(value))
	}
	return table.Flush()
}

const maxDate = 253402300799 // 9999-12-31T23:59:59Z

// fromNow returns d in words, such as "in 5m0s" or "3 days ago".
func fromNow(d time.Duration) string {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	long := d.Abs().Round(time.Second)
	text := long.String()
	switch {
	case long >= 2*year:
		text = fmt.Sprintf("%d years", long/year)
	case long >= 2*day:
		text = fmt.Sprintf("%d days", long/day)
	}
	if d < 0 {
		return text + " ago"
	}
	return "in " + text
}

// printable quotes s if it contains characters that are invisible or could control a terminal.
func printable(s string) string {
	if strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) || c == unicode.ReplacementChar }) {
		return strconv.QuoteToGraphic(s)
	}
	return s
}
