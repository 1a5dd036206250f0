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
// [AllowEncodedSlash] lifts the second refusal for encoded slashes in the rows that it names.
//
// The error joins every mistake, each a [valetkey.ConfigError], see [Table.Validate].
//
// Limits: a table does not know how else next interprets a request. If next ignores letter case or a final slash, or takes the
// method from a header, no open row may be so wide that it serves such a variant of a guarded path.
func (t Table) Guard(g *middleware.Guard, next http.Handler, options ...Option) (http.Handler, error) {
	mistakes := []error{t.Validate()}
	encoded := map[string]bool{} // patterns that accept an encoded slash
	for _, o := range options {
		for _, pattern := range o.encodedSlash {
			encoded[pattern] = true
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
	if next == nil {
		mistakes = append(mistakes, mistakeIn("next", errRequired))
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for pattern, need := range t {
		if err := register(mux, pattern, unambiguous(g, g.Handler(next, need), encoded[pattern])); err != nil {
			return nil, rowError(pattern, err)
		}
	}
	// A table with a catch-all row needs no other, and this one conflicts with it.
	_ = register(mux, "/", unambiguous(g, g.Handler(next, scopes.Requirement{}), false))
	return mux, nil
}

// An Option changes how [Table.Guard] guards. The zero value changes nothing.
type Option struct{ encodedSlash []string }

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

var errRequired = errors.New("required")

// isOpen reports whether need accepts a request without a token.
func isOpen(need valetkey.Requirement) bool {
	return valetkey.Describe(need).Open
}

var errAmbiguous = &valetkey.Error{Code: valetkey.InvalidRequest, Reason: valetkey.ReasonPathAmbiguous}

func unambiguous(g *middleware.Guard, next http.Handler, encodedSlash bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ambiguous(r.URL, encodedSlash) {
			g.Reject(r, errAmbiguous).Apply(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

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

// register registers h and returns the panic of net/http as an error.
func register(mux *http.ServeMux, pattern string, h http.Handler) (err error) {
	defer func() {
		if v := recover(); v != nil {
			text := whereRegistered.ReplaceAllString(fmt.Sprint(v), "")
			err = errors.New(strings.ReplaceAll(text, "\n", " "))
		}
	}()
	mux.Handle(pattern, h)
	return nil
}
