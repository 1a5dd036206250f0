package valetopenapi

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

// A Difference is a disagreement between a document and a table about one operation or row.
type Difference struct {
	Line     int    // of the operation in the document; 0: no such operation, or the document is JSON
	Pattern  string // of the operation, or of the row if there is no operation
	Document string // requirement in the document; "": it has no such operation
	Table    string // requirement in the table; "": no row covers all of the operation's requests
}

// String returns d as one line of text.
func (d Difference) String() string {
	switch {
	case d.Document == "":
		return fmt.Sprintf("%s: the table asks for %s, the document has no such operation", d.Pattern, d.Table)
	case d.Table == "":
		return fmt.Sprintf("%s%s: the document asks for %s, the table has no row", at(d.Line), d.Pattern, d.Document)
	default:
		return fmt.Sprintf("%s%s: the document asks for %s, the table for %s", at(d.Line), d.Pattern, d.Document, d.Table)
	}
}

// Compare returns all differences between a document and a table: first those of the document's operations, then the rows that
// cover no operation. A row may match more requests than an operation; only the requirements are compared. Two requirements are
// equal if each accepts every set of scopes that is sufficient for the other. A requirement that does not come from package
// scopes is compared only by the scopes that it describes. The error is that of [Routes] or of [routes.Table.Validate] of table.
func Compare(document []byte, table routes.Table) ([]Difference, error) {
	rows, err := read(document)
	if err != nil {
		return nil, err
	}
	if err := table.Validate(); err != nil {
		return nil, err
	}
	var (
		all  []Difference
		used = map[string]bool{}
	)
	for _, r := range rows {
		deciding, err := table.Match(r.pattern)
		if err != nil {
			return nil, err
		}
		for _, pattern := range deciding {
			used[pattern] = true
			if c, ok := r.need.(*choice); ok {
				all = append(all, c.differences(pattern, table)...)
				continue
			}
			switch need := table[pattern]; {
			case pattern == "":
				all = append(all, Difference{r.line, r.pattern, text(r.need), ""})
			case !same(r.need, need):
				all = append(all, Difference{r.line, r.pattern, text(r.need), text(need)})
			}
		}
	}
	for _, pattern := range slices.Sorted(maps.Keys(table)) {
		if !used[pattern] {
			all = append(all, Difference{Pattern: pattern, Table: text(table[pattern])})
		}
	}
	return all, nil
}

func text(need valetkey.Requirement) string {
	switch need := need.(type) {
	case valetkey.Openness:
		return string(need)
	case scopes.Requirement:
		if len(enough(need)) == 0 {
			return "an empty requirement, which no token meets"
		}
		return fmt.Sprintf("the scopes %q", need)
	case *choice:
		return need.String()
	default:
		return fmt.Sprintf("%T of the scopes %q", need, valetkey.Describe(need).All)
	}
}

func same(a, b valetkey.Requirement) bool {
	if open(a) || open(b) {
		return a == b
	}
	return accepts(a, enough(b)) && accepts(b, enough(a))
}

// open reports whether need accepts requests without a token.
func open(need valetkey.Requirement) bool {
	return valetkey.Describe(need).Open
}

func accepts(need valetkey.Requirement, all []valetkey.Scopes) bool {
	return need == valetkey.AnyToken || !slices.ContainsFunc(all, func(s valetkey.Scopes) bool {
		return need.Check(valetkey.Access{Token: valetkey.NewToken(valetkey.TokenFields{Scopes: s})}) != nil
	})
}

// enough returns the sets of scopes that are each sufficient for need.
func enough(need valetkey.Requirement) (all []valetkey.Scopes) {
	r, ok := need.(scopes.Requirement)
	if !ok {
		return []valetkey.Scopes{valetkey.Describe(need).All}
	}
	for alternative := range strings.SplitSeq(r.String(), " | ") {
		if alternative != "" {
			all = append(all, valetkey.NewScopes(strings.Split(alternative, " ")...))
		}
	}
	return all
}
