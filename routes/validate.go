package routes

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
)

// Validate returns an error that joins every mistake in the table, each a [valetkey.ConfigError] whose Field names the pattern:
//
//   - an empty table
//   - a pattern that [http.ServeMux] refuses, or two patterns that conflict
//   - a requirement that is nil, or an unknown [valetkey.Openness], or an Openness within a [valetkey.AllOf]
//     or [valetkey.AnyOf], or a [claims.Rule] or [claims.Match] that can never
//     hold, such as one about a wildcard that the pattern does not have
//   - a row that no request can reach: its path is not clean or reads differently once it is decoded, its host has a port, a capital letter or a
//     dot at the end, its method has lowercase letters, or other rows serve all its requests, as /a/{$}, /a/{x} and /a/{x}/ together do for /a/
//   - a row without the slash before its path, such as "GET orders/{id}" beside "/orders", which would be for the host orders. Without a row
//     for that path, or with the row "orders/" for all of the host, it is taken for a host
//   - an open row, [valetkey.Public] or [valetkey.Optional], that is wider than a guarded row and serves its neighbors
//
// The last mistake means that the open row would serve all requests of the guarded row if that were missing, and that it serves a
// request that differs from them in only one respect: the trailing slash, one more segment, the method if the guarded row has
// one, or the host if the guarded row has one. With "/" public, a guarded /admin/ is valid. A guarded /admin/{id} is not:
// /admin/7/ and /admin/7/keys would be open, and a router may treat the first as /admin/7. Add a row that states the intent, here
// for /admin/{id}/. Validate does not report pairs of rows that both require a token, and it does not consider letter case, as in
// /Admin/7.
//
// Validate looks for unreachable rows and wide open rows only if net/http accepts all patterns.
func (t Table) Validate() error {
	var mistakes []error
	mistake := func(pattern, format string, args ...any) {
		mistakes = append(mistakes, rowError(pattern, fmt.Errorf(format, args...)))
	}
	if len(t) == 0 {
		return mistakeIn("Table", errors.New("is empty: every request would be refused"))
	}
	patterns := slices.Sorted(maps.Keys(t))
	table, refused := newLookup(patterns)
	for _, pattern := range patterns {
		if err := refused[pattern]; err != nil {
			mistake(pattern, "%w", err)
		}
		if why := wrongWith(pattern, t[pattern]); why != "" {
			mistake(pattern, "%s", why)
		}
		if right := t.slashForgotten(pattern); right != "" {
			host, _, _ := strings.Cut(strings.TrimPrefix(right[strings.IndexByte(right, '/'):], "/"), "/")
			mistake(pattern, "%q is read as a host, and other rows have the path /%s: write %q, or add the row %q if it is a host", host, host, right, host+"/")
		}
	}
	if len(refused) > 0 {
		return errors.Join(mistakes...)
	}

	for _, pattern := range patterns {
		if why := table.unreachable(pattern); why != "" {
			mistake(pattern, "%s", why)
		}
		for _, wide := range t.widerAndOpen(table, pattern) {
			mistake(pattern, "the wider row %q is %s and serves %s: add a row that states what this request needs",
				wide.row, t[wide.row], wide.neighbour.text(table.names.host))
		}
	}
	return errors.Join(mistakes...)
}

// slashForgotten returns the pattern with a slash before its path if its host is probably the first segment of that path: it has no dot, and
// another row has this segment as its path. A host of one label is common within a cluster, so a row for all of the host states that it is one.
func (t Table) slashForgotten(pattern string) string {
	method, rest := "", pattern
	if i := strings.IndexAny(pattern, " \t"); i >= 0 {
		method, rest = pattern[:i+1], strings.TrimLeft(pattern[i:], " \t")
	}
	host, _, slash := strings.Cut(rest, "/")
	if !slash || host == "" || host == "localhost" || strings.Contains(host, ".") {
		return ""
	}
	path := false
	for other := range t {
		place := other[strings.LastIndexAny(other, " \t")+1:]
		if place == host+"/" {
			return ""
		}
		path = path || place == "/"+host || strings.HasPrefix(place, "/"+host+"/")
	}
	if !path {
		return ""
	}
	return method + "/" + rest
}

func mistakeIn(field string, err error) error {
	return fmt.Errorf("routes: %w", &valetkey.ConfigError{Field: field, Err: err})
}

func rowError(pattern string, err error) error {
	return mistakeIn(fmt.Sprintf("Table[%q]", pattern), err)
}

func wrongWith(pattern string, need valetkey.Requirement) string {
	switch need := need.(type) {
	case nil:
		return "the requirement is nil"
	case valetkey.Openness:
		if !need.Known() {
			return fmt.Sprintf("unknown Openness %q: use Public, Optional or AnyToken", string(need))
		}
	case valetkey.AllOf:
		return wrongWithin(pattern, "AllOf", need)
	case valetkey.AnyOf:
		return wrongWithin(pattern, "AnyOf", need)
	case valetkey.InsecureReportOnly:
		if len(need) == 1 {
			return wrongWith(pattern, need[0])
		}
		return wrongWithin(pattern, "InsecureReportOnly", need)
	case interface{ Validate() error }: // such as claims.Rule
		if err := need.Validate(); err != nil {
			return err.Error()
		}
	}
	if m, ok := need.(claims.Match); ok && m.Wildcard() != "" && !hasWildcard(pattern, m.Wildcard()) {
		return fmt.Sprintf("the rule %q can never hold: the pattern has no wildcard {%s}", m, m.Wildcard())
	}
	if r, ok := need.(interface{ Wildcards() []string }); ok { // such as valetcel.Requirement
		for _, name := range r.Wildcards() {
			if !hasWildcard(pattern, name) {
				return fmt.Sprintf("the rule %q can never hold: the pattern has no wildcard {%s}", need, name)
			}
		}
	}
	return ""
}

func hasWildcard(pattern, name string) bool {
	return strings.Contains(pattern, "{"+name+"}") || strings.Contains(pattern, "{"+name+"...}")
}

func wrongWithin(pattern, name string, needs []valetkey.Requirement) string {
	for i, one := range needs {
		if why := wrongWith(pattern, one); why != "" {
			return fmt.Sprintf("%s[%d]: %s", name, i, why)
		}
		if o, ok := one.(valetkey.Openness); ok {
			return fmt.Sprintf("%s[%d]: %s cannot be combined with other requirements", name, i, o)
		}
		if _, ok := one.(valetkey.InsecureReportOnly); ok {
			return fmt.Sprintf("%s[%d]: InsecureReportOnly must be the only requirement of a row", name, i)
		}
	}
	return ""
}

// unreachable returns why no request can reach the row; "" if one can.
func (l lookup) unreachable(pattern string) string {
	s := shapeOf(pattern)
	if s.method != strings.ToUpper(s.method) {
		return fmt.Sprintf("can never match: methods are case-sensitive (RFC 9110, section 9.1): %q configured, %q expected", s.method, strings.ToUpper(s.method))
	}
	var others []string
	for _, p := range l.names.probes(s) {
		switch row := l.row(p); row {
		case pattern:
			return ""
		case "":
		default:
			others = append(others, row)
		}
	}
	if len(others) == 0 {
		return "can never match: its path is not clean or reads differently once it is decoded, its host has a port, a capital letter or a dot at the end, or GODEBUG=httpmuxgo121=1 is set"
	}
	slices.Sort(others)
	return fmt.Sprintf("can never match: %q serve all its requests", slices.Compact(others))
}

// A wideRow is an open row that serves a neighbour of a guarded one.
type wideRow struct {
	row       string
	neighbour probe
}

func (t Table) widerAndOpen(table lookup, guarded string) (wide []wideRow) {
	if isOpen(t[guarded]) {
		return nil
	}
	s := shapeOf(guarded)
	probes := table.names.probes(s)
	seen := map[string]bool{"": true, guarded: true}
	for _, p := range probes {
		for _, neighbour := range table.names.neighbours(s, p) {
			row := table.row(neighbour)
			if seen[row] || !isOpen(t[row]) {
				continue
			}
			seen[row] = true
			if table.alone(row).serves(probes) {
				wide = append(wide, wideRow{row, neighbour})
			}
		}
	}
	return wide
}

// alone returns a lookup for a table that has only this row of l.
func (l lookup) alone(pattern string) lookup {
	one := lookup{http.NewServeMux(), l.names}
	one.mux.Handle(pattern, rowName(pattern)) // l has it, so net/http accepts it
	return one
}

func (l lookup) serves(probes []probe) bool {
	return !slices.ContainsFunc(probes, func(p probe) bool { return l.row(p) == "" })
}
