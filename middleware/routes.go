package middleware

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/scopes"
)

// Routes says what each route of an API needs. The keys are patterns of [http.ServeMux], which also does the matching:
//
//	routes := middleware.Routes{
//		"GET /healthz":        middleware.Public,
//		"GET /orders":         scopes.All("orders:read"),
//		"GET /orders/{id}":    scopes.All("orders:read"),
//		"DELETE /orders/{id}": middleware.AllOf{scopes.All("orders:write"), recentLogin},
//		"/":                   middleware.AnyToken,
//	}
//	api, err := guard.Table(routes, router)
//
// A value is [Public], [Optional], [AnyToken], or what a token must meet.
type Routes map[string]valetkey.Requirement

// An Access is what a row of [Routes] says when it asks nothing of a token. The zero value lets nobody through.
type Access string

// What a row may say beside a requirement.
const (
	Public   Access = "public"    // no token is looked at
	Optional Access = "optional"  // see [Guard.Optional]
	AnyToken Access = "any token" // any good token
)

// Decide is asked only where an Access is used outside of a table, as the need of a [Guard.Handler], say. A token is
// there then, and that is enough for each of them.
func (a Access) Decide(*valetkey.Token) error {
	if a.known() {
		return nil
	}
	return scopes.Requirement{}.Decide(&valetkey.Token{})
}

func (a Access) known() bool { return a == Public || a == Optional || a == AnyToken }

// open reports whether a request without a token may pass.
func open(need valetkey.Requirement) bool { return need == Public || need == Optional }

// AllOf is met by a token that meets every one of several requirements. An empty one is met by no token.
type AllOf []valetkey.Requirement

// Decide refuses as [Guard.Authorize] does.
func (all AllOf) Decide(t *valetkey.Token) error { return all.DecideAt(t, time.Now()) }

// DecideAt makes AllOf a [valetkey.TimedRequirement].
func (all AllOf) DecideAt(t *valetkey.Token, now time.Time) error {
	if len(all) == 0 {
		return scopes.Requirement{}.Decide(t)
	}
	return authorize(t, func() time.Time { return now }, all)
}

// Scopes returns every scope that the requirements name.
func (all AllOf) Scopes() valetkey.Scopes {
	var named []string
	for _, need := range all {
		named = append(named, scopesNamed(need)...)
	}
	return valetkey.NewScopes(named...)
}

// Scopes returns every scope that the table names, for scopes_supported (RFC 9728, section 2). A requirement says so by a
// method Scopes() valetkey.Scopes; one without is asked what a token without scopes lacks.
func (rs Routes) Scopes() valetkey.Scopes {
	var named []string
	for _, need := range rs {
		named = append(named, scopesNamed(need)...)
	}
	return valetkey.NewScopes(named...)
}

func scopesNamed(need valetkey.Requirement) valetkey.Scopes {
	if s, ok := need.(interface{ Scopes() valetkey.Scopes }); ok {
		return s.Scopes()
	}
	return scopeOf([]valetkey.Requirement{need}, &valetkey.Token{})
}

// Table guards next, a router or any other handler, by routes, of which it keeps a copy. An [http.ServeMux] picks the
// row: the most specific pattern wins, GET rows serve HEAD too, and a path that is not clean, or lacks its slash at the
// end, is answered with a redirect. What next then sees in Request.URL is the path that was matched, and in
// Request.Pattern the row.
//
// Refused are
//   - a request that no row matches, as if it needed a scope that nobody has: 401 without a good token, so that strangers
//     do not learn what there is, and 403 with one. A method that has no row is such a request too. Nothing is open because
//     it was forgotten (RFC 9700, section 2.3). With Config.Preflight, that handler answers a preflight.
//   - a path that reads differently once it is decoded, with 400: /files%2Fadmin or /files/%2e%2e/admin. Routers differ
//     in whether they decode before they split a path, and one that does would find /files/admin behind a row for /{name}.
//
// The error names every mistake, see [Routes.Validate].
//
// Not done: a table does not know what else next makes of a request. If it ignores letter case or a slash at the end, or
// takes the method from a header, no open row must be so wide that it serves what such a request spells.
func (g *Guard) Table(routes Routes, next http.Handler) (http.Handler, error) {
	mistakes := []error{routes.Validate()}
	if next == nil {
		mistakes = append(mistakes, errors.New("middleware: next: required"))
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for pattern, need := range routes {
		if err := register(mux, pattern, g.unambiguous(g.row(need, next))); err != nil {
			return nil, fmt.Errorf("middleware: Routes[%q]: %w", pattern, err)
		}
	}
	// A table with a row for everything needs no other, and this one conflicts with it.
	_ = register(mux, "/", g.unambiguous(g.Handler(next, scopes.Requirement{})))
	return mux, nil
}

func (g *Guard) row(need valetkey.Requirement, next http.Handler) http.Handler {
	switch need := need.(type) {
	case Access:
		switch need {
		case Public:
			return next
		case Optional:
			return g.Optional(next)
		}
	case AllOf: // told apart, they are asked for together
		if len(need) > 0 {
			return g.Handler(next, need...)
		}
	}
	return g.Handler(next, need)
}

var errAmbiguous = &valetkey.Error{Code: valetkey.InvalidRequest, Description: "the path reads differently once it is decoded"}

func (g *Guard) unambiguous(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ambiguous(r.URL) {
			g.Refuse(w, r, errAmbiguous)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ambiguous reports whether the decoded path of u has other segments than the path as sent, by which a ServeMux matches,
// or is not clean. A ServeMux redirects from what is unclean as sent, but for CONNECT.
func ambiguous(u *url.URL) bool {
	if strings.Count(u.Path, "/") != strings.Count(u.EscapedPath(), "/") || strings.Contains(u.Path, "//") {
		return true
	}
	p := u.Path
	if len(p) > 1 {
		p = strings.TrimSuffix(p, "/")
	}
	return path.Clean(p) != p
}

// whereRegistered is what net/http says for those who register patterns one by one.
var whereRegistered = regexp.MustCompile(` \(registered at [^)]*\)`)

// register returns as an error what net/http panics with.
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
