// Package routes guards a whole router with one table that states what each route requires.
//
//	table := routes.Table{
//		"GET /healthz": valetkey.Public,
//		"GET /orders":  scopes.All("orders:read"),
//	}
//	api, err := table.Guard(guard, router)
//
// A request for a route that the table does not have is refused. [Table.Covers] finds such routes at startup.
package routes

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// A Table states what each route of an API requires. The keys are patterns of [http.ServeMux], which also matches the requests:
//
//	table := routes.Table{
//		"GET /healthz":        valetkey.Public,
//		"GET /orders":         scopes.All("orders:read"),
//		"GET /orders/{id}":    scopes.All("orders:read"),
//		"DELETE /orders/{id}": valetkey.AllOf{scopes.All("orders:write"), recentLogin},
//		"/":                   valetkey.AnyToken,
//	}
//	api, err := table.Guard(guard, router)
//
// A value is [valetkey.Public], [valetkey.Optional], [valetkey.AnyToken], or a requirement on the token. An empty table is
// invalid.
type Table map[string]valetkey.Requirement

// Scopes returns every scope in the table, for scopes_supported (RFC 9728, section 2).
func (t Table) Scopes() valetkey.Scopes {
	return valetkey.Describe(slices.Collect(maps.Values(t))...).All
}

// Guard returns a handler that guards next, a router or any other handler, with g and a copy of the table. An [http.ServeMux]
// selects the row: the most specific pattern wins, GET rows serve HEAD too, and a path that is not clean, or lacks its final
// slash, gets a redirect. next receives a request whose URL has the matched path and whose Pattern is the row.
//
// The handler refuses
//   - a request that no row matches, as if it required a scope that no token has: 401 without a valid token, so that strangers do
//     not learn which routes exist, and 403 with one. This includes a method without a row. A route that is missing from the table is
//     never open (RFC 9700, section 2.3). With [middleware.Config.Preflight], that handler handles a preflight.
//   - a path that reads differently once it is decoded, with 400: /files%2Fadmin or /files/%2e%2e/admin. Some routers decode a
//     path before they split it. Such a router would serve /files/admin for a request that matched a row for /{name}.
//
// [AllowEncodedSlash] lifts the second refusal for encoded slashes in the rows that it names. [StrictPaths] adds refusals.
//
// Hosts are compared without regard to letter case and to a dot at the end. A table with a host in a pattern passes the host on in
// lower case.
//
// The error joins every mistake, each a [valetkey.ConfigError], see [Table.Validate].
//
// Limits: a table does not know how else next interprets a request. If next ignores letter case or a final slash, or takes the
// method from a header, no open row may be so wide that it serves such a variant of a guarded path.
func (t Table) Guard(g *middleware.Guard, next http.Handler, options ...Option) (http.Handler, error) {
	var missing error
	if next == nil {
		missing = mistakeIn("next", errRequired)
	}
	set, err := t.settings(g, options)
	if err = errors.Join(err, missing); err != nil {
		return nil, err
	}
	reject := func(w http.ResponseWriter, r *http.Request, err error) { g.Reject(r, err).Apply(w, r) }
	return t.matcher(set, reject, func(_ string, need valetkey.Requirement) http.Handler { return g.Handler(next, need) })
}

// settings is what a list of Options amounts to.
type settings struct {
	encodedSlash map[string]bool // patterns that accept an encoded slash
	strict       bool
}

// settings returns the settings of options. The error joins all mistakes in them, in the table, and the lack of a guard.
func (t Table) settings(g *middleware.Guard, options []Option) (settings, error) {
	mistakes := []error{t.Validate()}
	set := settings{encodedSlash: map[string]bool{}}
	for _, o := range options {
		set.strict = set.strict || o.strict
		for _, pattern := range o.encodedSlash {
			set.encodedSlash[pattern] = true
			if _, ok := t[pattern]; !ok {
				mistakes = append(mistakes, mistakeIn(fmt.Sprintf("AllowEncodedSlash[%q]", pattern), errors.New("the table has no such row")))
			} else if !strings.Contains(pattern, "{") && !strings.HasSuffix(pattern, "/") {
				mistakes = append(mistakes, mistakeIn(fmt.Sprintf("AllowEncodedSlash[%q]", pattern), errors.New("has no effect: the row has no wildcard")))
			}
		}
	}
	if g == nil {
		mistakes = append(mistakes, mistakeIn("guard", errRequired))
	}
	return set, errors.Join(mistakes...)
}

// matcher returns a handler that gives each request to the handler of its row, or of a row that no token satisfies if there is none.
// Requests whose path is unclear go to reject, with the reason.
func (t Table) matcher(set settings, reject func(http.ResponseWriter, *http.Request, error), row func(pattern string, need valetkey.Requirement) http.Handler) (http.Handler, error) {
	mux := http.NewServeMux()
	unambiguous := func(next http.Handler, encodedSlash bool) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if ambiguous(r.URL, encodedSlash) {
				reject(w, r, errAmbiguous)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	hosts := false
	for pattern, need := range t {
		if err := register(mux, pattern, unambiguous(row(pattern, need), set.encodedSlash[pattern])); err != nil {
			return nil, rowError(pattern, err)
		}
		hosts = hosts || shapeOf(pattern).host != ""
	}
	// A table with a catch-all row needs no other, and this one conflicts with it.
	_ = register(mux, "/", unambiguous(row("", scopes.Requirement{}), false))
	if !hosts && !set.strict {
		return mux, nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if set.strict {
			if why := unclear(r); why != "" {
				reject(w, r, &valetkey.Error{Code: valetkey.InvalidRequest, Reason: why})
				return
			}
		}
		if hosts {
			r = withPlainHost(r)
		}
		mux.ServeHTTP(w, r)
	}), nil
}

// withPlainHost returns r with its host in the spelling of the patterns. Hosts are not case-sensitive (RFC 3986, section 3.2.2), and
// a dot at the end names the same host (RFC 1034, section 3.1), but a ServeMux compares them as text: another spelling would match the
// row of another host, or of all hosts.
func withPlainHost(r *http.Request) *http.Request {
	name, port := r.Host, ""
	if i := strings.LastIndexByte(name, ':'); i >= 0 && !strings.HasSuffix(name, "]") {
		name, port = name[:i], name[i:]
	}
	plain := strings.ToLower(strings.TrimSuffix(name, ".")) + port
	if plain == r.Host {
		return r
	}
	same := *r
	same.Host = plain
	return &same
}

// An Option changes how [Table.Guard] guards. The zero value changes nothing.
type Option struct {
	encodedSlash []string
	strict       bool
}

// AllowEncodedSlash returns the Option that accepts paths with an encoded slash (%2F) in the wildcards of the rows with these
// patterns, as in /projects/group%2Fproject for "GET /projects/{id}". The path value of a requirement is decoded: group/project.
// Dot segments, empty parts, and a slash at the end of a value are still refused.
//
// It weakens a check: a router that decodes a path before it splits it would serve another route than the one that the row
// guards. Of the common routers, net/http, chi, echo and fiber split the path as sent; gin does so with Engine.UseRawPath, which is
// off by default. A reverse proxy, its upstream and everything between them must do so too. adaptertest.TestEncodedSlash tests a
// router.
func AllowEncodedSlash(patterns ...string) Option {
	return Option{encodedSlash: slices.Clone(patterns)}
}

// StrictPaths returns the Option that refuses requests whose path or method other software might read in another way than the table does. It
// is for a guard whose handler passes requests on to software that is not known, such as a reverse proxy. Legitimate clients do not
// send such requests. They get 400. They are
//   - CONNECT, and every other request whose target is not a path (RFC 9112, section 3.2),
//   - a method with other characters than capital letters and hyphens: some servers ignore the letter case of methods, so that delete
//     would match no row for DELETE, but perhaps one for all methods,
//   - a path with a backslash, which some servers read as a slash,
//   - a path with a control character: some servers end a path at a NUL,
//   - a segment that begins with ".;" or "..;": servers that cut off the text after a semicolon before they clean a path read
//     /files/..;x/admin as /admin,
//   - a target with '#': some servers end the path there.
func StrictPaths() Option { return Option{strict: true} }

var errRequired = errors.New("required")

// isOpen reports whether need accepts a request without a token.
func isOpen(need valetkey.Requirement) bool {
	return valetkey.Describe(need).Open
}

var errAmbiguous = &valetkey.Error{Code: valetkey.InvalidRequest, Reason: valetkey.ReasonPathAmbiguous}

// ambiguous reports whether the decoded path of u is not clean, or has different segments than the path as sent, by which a
// ServeMux matches. A ServeMux redirects from a path that is not clean as sent, except for CONNECT. With encodedSlash, a segment
// may contain encoded slashes, but only between parts that would be clean as segments.
func ambiguous(u *url.URL, encodedSlash bool) bool {
	sent := u.EscapedPath()
	if encodedSlash {
		if strings.HasSuffix(u.Path, "/") != strings.HasSuffix(sent, "/") {
			return true
		}
	} else if strings.Count(u.Path, "/") != strings.Count(sent, "/") {
		return true
	}
	if strings.Contains(u.Path, "//") {
		return true
	}
	p := u.Path
	if len(p) > 1 {
		p = strings.TrimSuffix(p, "/")
	}
	return path.Clean(p) != p
}

// whereRegistered matches the source positions in the panics of net/http. They are meaningless for the rows of a table.
var whereRegistered = regexp.MustCompile(` \(registered at [^)]*\)`)

// register registers h. It returns an error for a malformed pattern, and the panic of net/http as an error.
func register(mux *http.ServeMux, pattern string, h http.Handler) (err error) {
	if err := malformed(pattern); err != nil {
		return err
	}
	defer func() {
		if v := recover(); v != nil {
			text := whereRegistered.ReplaceAllString(fmt.Sprint(v), "")
			err = errors.New(strings.ReplaceAll(text, "\n", " "))
		}
	}()
	mux.Handle(pattern, h)
	return nil
}

// malformed recognizes patterns that are not of the form [METHOD ][HOST]/[PATH] and whose right form can be guessed. It returns an error
// with that form. All but one would also be refused by net/http or as unreachable, with an offset or with a list of possible causes. The
// exception is "GET|POST /": net/http takes GET|POST for one method, which no client sends, so the row would guard neither GET nor POST.
func malformed(pattern string) error {
	method, rest := "", pattern
	if i := strings.IndexAny(pattern, " \t"); i >= 0 {
		method, rest = pattern[:i], strings.TrimSpace(pattern[i:])
	}
	before, path, slash := strings.Cut(rest, "/")
	switch {
	case isMethod(rest) && strings.HasPrefix(method, "/"):
		return fmt.Errorf("the method comes before the path: write %q", rest+" "+method)
	case strings.ContainsAny(method, ",|") && strings.HasPrefix(rest, "/"):
		var rows []string
		for one := range strings.FieldsFuncSeq(method, func(r rune) bool { return r == ',' || r == '|' }) {
			rows = append(rows, strconv.Quote(one+" "+rest))
		}
		return fmt.Errorf("a row has one method, or none for all methods: write %s", strings.Join(rows, " and "))
	case method == "" && isMethod(before) && slash:
		return fmt.Errorf("a space belongs between the method and the path: write %q", before+" /"+path)
	case method == "" && isMethod(rest):
		return fmt.Errorf("the path is missing: write %q for the path /", rest+" /")
	case rest == "":
		return errors.New(`the path is missing: write a method and a path, such as "GET /orders"`)
	case !slash:
		return fmt.Errorf("the path must begin with a slash: write %q", strings.TrimSpace(method+" /"+rest))
	}
	return nil
}

// isMethod reports whether s is one of the common methods. A host is in lowercase, so none is taken for a method.
func isMethod(s string) bool {
	return slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "QUERY"}, s)
}
