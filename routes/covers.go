package routes

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// A Route is a route as a router lists it.
type Route struct {
	Method string // the HTTP method; "", "*" or "ANY": every method
	Path   string // the path as registered
}

// String returns the method, if there is one, and the path, separated by a space.
func (r Route) String() string { return strings.TrimSpace(r.Method + " " + r.Path) }

// A Dialect is the path syntax of a router. The zero value is not a dialect.
type Dialect string

// The supported dialects. The routes come from gin.Engine.Routes, echo.Router.Routes (in v4 echo.Echo.Routes), chi.Walk or
// fiber.App.GetRoutes.
const (
	NetHTTP Dialect = "net/http" // a pattern, with or without its method; also the full method names of gRPC
	Gin     Dialect = "gin"      // /users/:id, /files/*path
	Echo    Dialect = "echo"     // /users/:id, /files/*
	Chi     Dialect = "chi"      // /users/{id}, /users/{id:[0-9]+}, /files/*
	Fiber   Dialect = "fiber"    // /users/:id, /users/:id?, /users/:id<int>, /files/*, /files/+
)

// Covers returns an error that names each registered route for which the table does not state the requirement. Call it at startup,
// and in a test with valetkeytest.Routes. It finds routes that were added to the router but not to the table.
//
// A route is declared if some row decides each request that the route serves. However, a row that matches every path and is
// [valetkey.Public] or [valetkey.Optional] does not declare other routes, because it would silently open each new one.
//
// If net/http has no equivalent for a router's path, such as one with a regular expression or with a parameter that starts within
// a segment, Covers checks a wider pattern. For /static*, the table must declare /static and everything below it; /statics and
// similar paths may be refused.
func (t Table) Covers(d Dialect, registered ...Route) error {
	if err := t.Validate(); err != nil {
		return err
	}
	var (
		missing  []error
		patterns = make([][]routePattern, len(registered))
		all      []string
	)
	for i, r := range registered {
		var err error
		if patterns[i], err = d.patterns(r); err != nil {
			missing = append(missing, fmt.Errorf("routes: route %s: %w", r, err))
		}
		for _, p := range patterns[i] {
			all = append(all, p.text)
		}
	}
	table, _ := newLookup(slices.Collect(maps.Keys(t)), all...)
	for i, r := range registered {
		for _, p := range patterns[i] {
			if why := t.undeclared(table, p); why != "" {
				missing = append(missing, fmt.Errorf("routes: route %s: %s", r, why))
				break
			}
		}
	}
	return errors.Join(missing...)
}

// A routePattern is a pattern of net/http for a route, or for a part of it.
type routePattern struct {
	text  string
	aside bool // an unintended match of the route: no row needs to decide it
}

// undeclared returns why the table does not declare the requests that pattern matches; "" if it does.
func (t Table) undeclared(table lookup, pattern routePattern) string {
	s := shapeOf(pattern.text)
	for _, p := range table.names.probes(s) {
		switch row := table.row(p); {
		case row == "" && pattern.aside:
		case row == "":
			return "no row decides " + p.text(table.names.host)
		case isOpen(t[row]) && shapeOf(row).everything() && !s.everything():
			return fmt.Sprintf("only the catch-all row %q, which is %s, decides %s", row, t[row], p.text(table.names.host))
		}
	}
	return ""
}

// Match returns the rows that decide the requests that pattern matches, sorted. The result includes "" if no row decides some of
// the requests. The error names the patterns, this one or those of rows, that [http.ServeMux] refuses.
func (t Table) Match(pattern string) ([]string, error) {
	if _, refused := newLookup([]string{pattern}); len(refused) > 0 {
		return nil, fmt.Errorf("routes: %w", refused[pattern])
	}
	table, refused := newLookup(slices.Collect(maps.Keys(t)), pattern)
	if len(refused) > 0 {
		return nil, t.Validate()
	}
	var rows []string
	for _, p := range table.names.probes(shapeOf(pattern)) {
		rows = append(rows, table.row(p))
	}
	slices.Sort(rows)
	return slices.Compact(rows), nil
}

// patterns returns patterns of net/http that together match at least the requests that r matches.
func (d Dialect) patterns(r Route) ([]routePattern, error) {
	method := strings.ToUpper(r.Method)
	if method == "*" || method == "ANY" || strings.HasPrefix(method, "ECHO_ROUTE_") { // echo's own names for every method
		method = ""
	}
	patterns, err := d.paths(r.Path)
	if err != nil {
		return nil, err
	}
	for i := range patterns {
		p := &patterns[i]
		p.text = strings.TrimSpace(method + " " + p.text)
		if _, refused := newLookup([]string{p.text}); len(refused) > 0 {
			return nil, refused[p.text]
		}
	}
	return patterns, nil
}

func (d Dialect) paths(path string) (patterns []routePattern, err error) {
	switch d {
	case NetHTTP:
		return []routePattern{{text: path}}, nil
	case Gin, Echo, Chi, Fiber:
	default:
		return nil, fmt.Errorf("unknown dialect %q", string(d))
	}
	paths := []string{""} // several if a segment is optional
	add := func(segment string) {
		for i := range paths {
			paths[i] += "/" + segment
		}
	}
	all := d.split(strings.TrimPrefix(path, "/"))
	for i, text := range all {
		switch d.kind(text) {
		case rest: // matches to the end, whatever follows: no narrower pattern is possible
			beginning := text[:strings.IndexAny(text, d.many())]
			if beginning == "" || strings.Contains(text, `\`) || d.kind(beginning) != literal {
				add("{rest...}")
				return wanted(paths), nil
			}
			for _, p := range paths {
				p += "/" + url.PathEscape(beginning)
				patterns = append(patterns, routePattern{text: p}, routePattern{text: p + "/{rest...}"}, routePattern{p + "x", true})
			}
			return patterns, nil
		case optionalParam:
			if len(paths) > 64 {
				return nil, errors.New("too many optional segments")
			}
			without := slices.Clone(paths)
			add(fmt.Sprintf("{p%d}", i))
			paths = append(paths, without...)
		case param:
			add(fmt.Sprintf("{p%d}", i))
		case crossing:
			return nil, fmt.Errorf("segment %q may match several path segments, which no net/http pattern can express", text)
		default:
			if text == "" && i == len(all)-1 { // these routers match a trailing slash exactly
				add("{$}")
				break
			}
			add(url.PathEscape(unescaped(text)))
		}
	}
	return wanted(paths), nil
}

func wanted(paths []string) (patterns []routePattern) {
	for _, p := range paths {
		if p == "" {
			p = "/{$}"
		}
		patterns = append(patterns, routePattern{text: p})
	}
	return patterns
}

// unescaped returns a literal segment without the backslashes that escape special characters in gin, echo and fiber.
func unescaped(text string) string { return strings.ReplaceAll(text, `\`, "") }

// split splits path at slashes, except for those within the regular expressions of chi and the constraints of fiber.
func (d Dialect) split(path string) (segments []string) {
	depth, start := 0, 0
	for i := range len(path) {
		switch c := path[i]; {
		case d == Chi && c == '{' || d == Fiber && c == '<':
			depth++
		case d == Chi && c == '}' || d == Fiber && c == '>':
			depth--
		case c == '/' && depth <= 0:
			segments, start = append(segments, path[start:i]), i+1
		}
	}
	return append(segments, path[start:])
}

// A segmentKind is the kind of match of a segment in a router's path.
type segmentKind int

const (
	literal       segmentKind = iota
	param                     // one segment
	optionalParam             // zero or one segment
	rest                      // any number of segments
	crossing                  // a number of segments that is unknown here
)

var (
	braces  = regexp.MustCompile(`\{[^{}]*(\{[^{}]*\}[^{}]*)*\}`) // a regular expression of chi may repeat: {id:[0-9]{3}}
	angles  = regexp.MustCompile(`<.*>`)
	escaped = strings.NewReplacer(`\:`, "", `\*`, "", `\+`, "", `\?`, "")
)

// many returns the characters that match any number of segments.
func (d Dialect) many() string {
	if d == Fiber {
		return "*+"
	}
	return "*"
}

func (d Dialect) kind(text string) segmentKind {
	name := ":"
	bare := escaped.Replace(text)
	switch d {
	case Chi:
		name = "{}"
		bare = braces.ReplaceAllString(text, name)
		if bare != name && strings.Contains(braces.FindString(text), ":") {
			return crossing // a regular expression that does not end at a slash
		}
	case Fiber:
		bare = angles.ReplaceAllString(bare, "")
	}
	switch {
	case strings.ContainsAny(bare, d.many()):
		return rest
	case !strings.Contains(bare, name):
		return literal
	case d == Fiber && strings.HasSuffix(bare, "?"):
		return optionalParam
	default:
		return param
	}
}
