package routes

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
)

// Validate reports every mistake in the table, by pattern:
//
//   - a pattern that [http.ServeMux] refuses, or two that conflict
//   - a requirement that is nil, or a [valetkey.Openness] that is none of the three
//   - a row that no request can reach, since its path is not clean or reads differently once it is decoded, since its host
//     has a port or its method small letters, or since other rows serve all its requests, as /a/{$}, /a/{x} and /a/{x}/
//     together do those of /a/
//   - an open row, [valetkey.Public] or [valetkey.Optional], that is wider than a guarded one and serves its neighbours
//
// The last one means: without the guarded row the open one would serve all its requests, and with it still serves one that
// differs in one respect only: the slash at the end, one more segment, the method if the guarded row names one, the host if
// it does. With "/" public, a guarded /admin/ stands. A guarded /admin/{id} does not: /admin/7/ and /admin/7/keys would be
// open, and a router may take the first for /admin/7. Whatever is meant is said in a row of its own, for /admin/{id}/ here.
// Nothing is said about rows of which both ask for a token, nor about /Admin/7.
//
// What cannot be matched is looked for only once all patterns stand together.
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
		if why := wrongWith(t[pattern]); why != "" {
			mistake(pattern, "%s", why)
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
			mistake(pattern, "the wider row %q is %s and serves %s: say in a row of its own what that needs",
				wide.row, t[wide.row], wide.neighbour.text(table.names.host))
		}
	}
	return errors.Join(mistakes...)
}

func mistakeIn(field string, err error) error {
	return fmt.Errorf("routes: %w", &valetkey.ConfigError{Field: field, Err: err})
}

func rowError(pattern string, err error) error {
	return mistakeIn(fmt.Sprintf("Table[%q]", pattern), err)
}

func wrongWith(need valetkey.Requirement) string {
	switch need := need.(type) {
	case nil:
		return "the requirement is nil"
	case valetkey.Openness:
		if !need.Known() {
			return fmt.Sprintf("%q is none of Public, Optional and AnyToken", string(need))
		}
	case valetkey.AllOf:
		for i, one := range need {
			if why := wrongWith(one); why != "" {
				return fmt.Sprintf("AllOf[%d]: %s", i, why)
			}
			if o, ok := one.(valetkey.Openness); ok {
				return fmt.Sprintf("AllOf[%d]: %s cannot be combined with other requirements", i, o)
			}
		}
	}
	return ""
}

// unreachable says why no request can reach the row; "" if one can.
func (l lookup) unreachable(pattern string) string {
	s := shapeOf(pattern)
	if s.method != strings.ToUpper(s.method) {
		return fmt.Sprintf("can never match: methods differ by letter case (RFC 9110, section 9.1), and %q is not %q", s.method, strings.ToUpper(s.method))
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
		return "can never match: its path is not clean, or reads differently once it is decoded, its host has a port, or GODEBUG=httpmuxgo121=1 is set"
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

// alone returns a lookup in a table of one row of l.
func (l lookup) alone(pattern string) lookup {
	one := lookup{http.NewServeMux(), l.names}
	one.mux.Handle(pattern, rowName(pattern)) // l has it, so net/http accepts it
	return one
}

func (l lookup) serves(probes []probe) bool {
	return !slices.ContainsFunc(probes, func(p probe) bool { return l.row(p) == "" })
}
