package valetopenapi

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

// A template is a path template of a document, below a server.
type template struct {
	segments []segment
	slash    bool // a slash follows the segments
}

// A segment is one segment of a template: parameters and the text around them, as in {id}:activate.
type segment struct {
	text  string   // as in the document, or in the URL of the server
	parts []string // decoded text before, between and after the parameters; one part: no parameter
}

func (s segment) literal() bool { return len(s.parts) == 1 }

// whole reports whether s is nothing but one parameter, which every segment matches.
func (s segment) whole() bool { return len(s.parts) == 2 && s.parts[0] == "" && s.parts[1] == "" }

// within reports whether s matches no more than t, given that both match some segment.
func (s segment) within(t segment) bool {
	return s.literal() || t.whole() || slices.Equal(s.parts, t.parts)
}

// matches reports whether s matches value, which is decoded. A parameter has at least one character.
func (s segment) matches(value string) bool {
	rest, ok := strings.CutPrefix(value, s.parts[0])
	if !ok || s.literal() {
		return ok && rest == ""
	}
	last := len(s.parts) - 1
	for _, part := range s.parts[1:last] { // the first place for each leaves the most for the others
		if rest == "" {
			return false
		}
		i := strings.Index(rest[1:], part)
		if i < 0 {
			return false
		}
		rest = rest[1+i+len(part):]
	}
	return len(rest) > len(s.parts[last]) && strings.HasSuffix(rest, s.parts[last])
}

// segmentOf parses a segment of a path template.
func segmentOf(text string) (segment, error) {
	s := segment{text: text}
	for rest := text; ; {
		before, after, open := strings.Cut(rest, "{")
		if strings.Contains(before, "}") {
			return segment{}, fmt.Errorf("the braces of %q do not match", text)
		}
		if part, err := url.PathUnescape(before); err == nil { // otherwise literally, as net/http does
			before = part
		}
		s.parts = append(s.parts, before)
		if !open {
			return s, nil
		}
		name, after, closed := strings.Cut(after, "}")
		if !closed || strings.Contains(name, "{") {
			return segment{}, fmt.Errorf("the braces of %q do not match", text)
		}
		rest = after
	}
}

// A group is a set of operations of one method that share a pattern of net/http, because no pattern matches one of them alone, or
// because net/http cannot decide which of two patterns wins. Most groups have one operation.
type group struct {
	method  string
	segment []place
	slash   bool
	exact   bool // the pattern matches what the one operation does, and nothing else
	members []*operation
}

// A place is one segment of the pattern of a group.
type place struct {
	literal string // decoded
	wild    bool
}

// An operation is one operation of a document, below one server.
type operation struct {
	method, path string // as in the document
	line         int
	template     template
	need         valetkey.Requirement
}

func (o *operation) String() string { return o.method + " " + o.path }

func groupOf(o *operation) *group {
	g := &group{method: o.method, slash: o.template.slash, exact: true, members: []*operation{o}}
	for _, s := range o.template.segments {
		g.exact = g.exact && (s.literal() || s.whole())
		g.segment = append(g.segment, place{s.parts[0], !s.literal()})
	}
	return g
}

// conflicts reports whether two rows could not have the patterns of g and h. Some path matches both, and
//   - both match the same paths, or each of them matches a path that the other does not, so that net/http could not decide; or
//   - the narrower one is not exact, so that it would take requests that only an operation of the wider one matches.
func (g *group) conflicts(h *group) bool {
	if g.method != h.method || g.slash != h.slash || len(g.segment) != len(h.segment) {
		return false
	}
	gWider, hWider := false, false
	for i, s := range g.segment {
		switch t := h.segment[i]; {
		case s.wild && !t.wild:
			gWider = true
		case !s.wild && t.wild:
			hWider = true
		case !s.wild && s.literal != t.literal:
			return false
		}
	}
	return gWider == hWider || gWider && !h.exact || hWider && !g.exact
}

// merge adds the operations of h to g.
func (g *group) merge(h *group) {
	for i, t := range h.segment {
		if g.segment[i].wild = g.segment[i].wild || t.wild; g.segment[i].wild {
			g.segment[i].literal = ""
		}
	}
	g.members, g.exact = append(g.members, h.members...), false
}

// grouped returns operations in groups whose patterns do not conflict.
func grouped(operations []*operation) (all []*group) {
	for _, o := range operations {
		g := groupOf(o)
		for i := 0; i < len(all); {
			if !g.conflicts(all[i]) {
				i++
				continue
			}
			g.merge(all[i])
			all = slices.Delete(all, i, i+1)
			i = 0 // g matches more than before
		}
		all = append(all, g)
	}
	return all
}

// row returns the row of g, or a mistake.
func (g *group) row() (row, error) {
	var (
		pattern strings.Builder
		names   = map[string]bool{}
		c       = new(choice)
		first   = g.members[0]
	)
	pattern.WriteString(g.method + " ")
	for i, s := range g.segment {
		text := first.template.segments[i].text
		if s.wild {
			for _, o := range g.members {
				if o.template.segments[i].text != text {
					text = fmt.Sprintf("p%d", i)
				}
			}
			c.names = append(c.names, identifier(withoutBraces(text), names))
			text = "{" + c.names[len(c.names)-1] + "}"
		}
		pattern.WriteString("/" + text)
	}
	if g.slash {
		pattern.WriteString("/{$}") // without {$}, net/http would match the whole subtree
	}
	r := row{pattern.String(), first.line, first.need}
	if g.exact {
		return r, nil
	}
	slices.SortStableFunc(g.members, func(a, b *operation) int { return strings.Compare(a.path, b.path) })
	for _, o := range g.members {
		if valetkey.Describe(o.need).Open {
			return r, inDocument("%s%s: cannot be %v: net/http has no pattern that matches this path alone, and a wider row would open others", at(o.line), o, o.need)
		}
		v := variant{operation: o}
		for i, s := range g.segment {
			if s.wild {
				v.segments = append(v.segments, o.template.segments[i])
			}
		}
		c.variants = append(c.variants, v)
	}
	r.need = c
	return r, nil
}

var withoutBraces = strings.NewReplacer("{", "", "}", "").Replace

// A choice is the requirement of a row whose pattern matches several path templates, or more than one template: what the templates
// require that match the request. It refuses a request that none matches, as a table does for a request without a row.
type choice struct {
	names    []string // of the wildcards in the pattern
	variants []variant
}

// A variant is one template of a choice.
type variant struct {
	*operation
	segments []segment // at the wildcards
}

// Check implements [valetkey.Requirement].
func (c *choice) Check(a valetkey.Access) error {
	var matching []variant
	for _, v := range c.variants {
		if v.matches(a, c.names) {
			matching = append(matching, v)
		}
	}
	needs := valetkey.AllOf{}
	for _, v := range matching {
		wider := slices.ContainsFunc(matching, func(other variant) bool { return other.narrower(v) })
		if !wider && v.need != valetkey.AnyToken {
			needs = append(needs, v.need)
		}
	}
	switch {
	case len(matching) == 0:
		return scopes.Requirement{}.Check(a)
	case len(needs) == 0:
		return nil
	}
	return needs.Check(a)
}

func (v variant) matches(a valetkey.Access, names []string) bool {
	for i, name := range names {
		if !v.segments[i].matches(a.PathValue(name)) {
			return false
		}
	}
	return true
}

// narrower reports whether v wins over w for a request that both match: it matches less. If neither does, routers differ, so the
// request needs what both require.
func (v variant) narrower(w variant) bool {
	strictly := false
	for i, s := range v.segments {
		if !s.within(w.segments[i]) {
			return false
		}
		strictly = strictly || !w.segments[i].within(s)
	}
	return strictly
}

// Describe implements [valetkey.Describer]. Which scopes suffice depends on the request, so the challenge names none.
func (c *choice) Describe() valetkey.Needs {
	var all []valetkey.Requirement
	for _, v := range c.variants {
		all = append(all, v.need)
	}
	needs := valetkey.Describe(all...)
	needs.Challenge, needs.Open = valetkey.Scopes{}, false
	return needs
}

// String returns the templates with what they require.
func (c *choice) String() string {
	var all []string
	for _, v := range c.variants {
		all = append(all, fmt.Sprintf("%v for %s", v.need, v.path))
	}
	return strings.Join(all, "; ")
}

// differences compares the operations of c with the requirement of a row in a table.
func (c *choice) differences(pattern string, table routes.Table) (all []Difference) {
	for _, v := range c.variants {
		need := table[pattern]
		d := Difference{Line: v.line, Pattern: v.String(), Document: text(v.need)}
		if other, ok := need.(*choice); ok {
			i := slices.IndexFunc(other.variants, func(o variant) bool {
				return slices.EqualFunc(o.template.segments, v.template.segments, func(a, b segment) bool { return slices.Equal(a.parts, b.parts) })
			})
			if i < 0 {
				all = append(all, d)
				continue
			}
			need = other.variants[i].need
		}
		switch {
		case pattern == "":
			all = append(all, d)
		case !same(v.need, need):
			d.Table = text(need)
			all = append(all, d)
		}
	}
	return all
}
