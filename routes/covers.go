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
	Method string // "", "*" or "ANY": every one
	Path   string // as it was registered
}

func (r Route) String() string { return strings.TrimSpace(r.Method + " " + r.Path) }

// A Dialect is the way in which a router spells its paths.
type Dialect string

// The dialects known here. The lists are those of gin.Engine.Routes, echo.Router.Routes (in v4 echo.Echo.Routes),
// chi.Walk and fiber.App.GetRoutes.
const (
	NetHTTP Dialect = "net/http" // a pattern, with or without its method; also the full method names of gRPC
	Gin     Dialect = "gin"      // /users/:id, /files/*path
	Echo    Dialect = "echo"     // /users/:id, /files/*
	Chi     Dialect = "chi"      // /users/{id}, /users/{id:[0-9]+}, /files/*
	Fiber   Dialect = "fiber"    // /users/:id, /users/:id?, /users/:id<int>, /files/*, /files/+
)

// Covers reports, by name, every one of the registered routes for which the table does not say what it needs. Called at
// start-up, and in a test by valetkeytest.Routes, it finds the route that somebody added to the router alone.
//
// A route is declared if a row decides each request that it serves, whichever row that is. But a row for every path that is
// [valetkey.Public] or [valetkey.Optional] declares no other routes: it would make each new one open without a word.
//
// Where a router's path has no equal in net/http, such as a regular expression or a name that begins in mid-segment, a wider
// pattern stands for it. For /static*, /static and all below it must be declared; /statics and the like may be refused.
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
	aside bool // no row need decide it, since nobody means it
}

// undeclared says why the table does not declare what pattern matches; "" if it does.
func (t Table) undeclared(table lookup, pattern routePattern) string {
	s := shapeOf(pattern.text)
	for _, p := range table.names.probes(s) {
		switch row := table.row(p); {
		case row == "" && pattern.aside:
		case row == "":
			return "no row decides " + p.text(table.names.host)
		case isOpen(t[row]) && shapeOf(row).everything() && !s.everything():
			return fmt.Sprintf("only the row %q for everything, which is %s, decides %s", row, t[row], p.text(table.names.host))
		}
	}
	return ""
}

// Match returns the rows that decide the requests that pattern matches, sorted, with "" for those that none does. The
// error names the patterns, this one or those of rows, that [http.ServeMux] refuses.
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

// patterns returns patterns of net/http that match, together, what r does or more.
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
		return nil, fmt.Errorf("the dialect %q is not known", string(d))
	}
	paths := []string{""} // several where a segment may be missing
	add := func(segment string) {
		for i := range paths {
			paths[i] += "/" + segment
		}
	}
	all := d.split(strings.TrimPrefix(path, "/"))
	for i, text := range all {
		switch d.kind(text) {
		case rest: // to the end, whatever follows: no pattern could be narrower
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
				return nil, errors.New("more segments may be missing than can be looked at")
			}
			without := slices.Clone(paths)
			add(fmt.Sprintf("{p%d}", i))
			paths = append(paths, without...)
		case param:
			add(fmt.Sprintf("{p%d}", i))
		case crossing:
			return nil, fmt.Errorf("its segment %q may match several, for which net/http has no pattern", text)
		default:
			if text == "" && i == len(all)-1 { // these routers match a slash at the end as it stands
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

// unescaped returns a literal segment without what makes gin, echo and fiber take its characters for what they are.
func unescaped(text string) string { return strings.ReplaceAll(text, `\`, "") }

// split is strings.Split at slashes, but for those within the regular expressions of chi and the constraints of fiber.
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

// A segmentKind says what a segment of a router's path matches.
type segmentKind int

const (
	literal       segmentKind = iota
	param                     // one segment
	optionalParam             // one segment or none
	rest                      // any number of segments
	crossing                  // it depends
)

var (
	braces  = regexp.MustCompile(`\{[^{}]*(\{[^{}]*\}[^{}]*)*\}`) // a regular expression of chi may repeat: {id:[0-9]{3}}
	angles  = regexp.MustCompile(`<.*>`)
	escaped = strings.NewReplacer(`\:`, "", `\*`, "", `\+`, "", `\?`, "")
)

// many returns the characters that stand for any number of segments.
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
			return crossing // a regular expression that something else than a slash ends
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
