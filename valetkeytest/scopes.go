package valetkeytest

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// TestScopes tests that each of routes of api is guarded and requires its scopes. A route is a method, a path and all scopes that it
// requires, separated by spaces:
//
//	iss.TestScopes(t, api, "GET /orders orders:read", "POST /orders orders:write", "GET /me")
//
// Each request without a sufficient token must get the status and the error code of RFC 6750, section 3.1: without a token 401; with
// each of [Issuer.Forgeries] 401 and invalid_token; with the scopes of all routes except one that this route requires, 403 and
// insufficient_scope. With exactly its scopes the request must reach the handler: 401, 403, 404, 405 and 5xx fail the test. Any other
// status passes, because requests have no body, which a handler may need. Name paths that exist, such as /orders/7 with an order 7.
//
// The api must accept tokens of the issuer for [DefaultAudience], as [Issuer.Guard] does.
func (iss *Issuer) TestScopes(t *testing.T, api http.Handler, routes ...string) {
	t.Helper()
	parsed, err := parseRoutes(routes)
	if err != nil {
		t.Fatalf("valetkeytest: %v", err)
	}
	for _, r := range parsed {
		t.Run(r.method+" "+r.path, func(t *testing.T) {
			for _, c := range iss.scopeChecks(r, parsed) {
				t.Run(c.name, func(t *testing.T) {
					if err := c.send(api); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}

type scopedRoute struct {
	method, path string
	scopes       []string
}

func parseRoutes(routes []string) (parsed []scopedRoute, err error) {
	for _, route := range routes {
		fields := strings.Fields(route)
		if len(fields) < 2 || !strings.HasPrefix(fields[1], "/") {
			return nil, fmt.Errorf("route %q: want a method, a path and scopes, such as GET /orders orders:read", route)
		}
		parsed = append(parsed, scopedRoute{fields[0], fields[1], fields[2:]})
	}
	if len(parsed) == 0 {
		return nil, errors.New("no route to test")
	}
	return parsed, nil
}

// A scopeCheck is one request, and the response that it must get.
type scopeCheck struct {
	name   string
	route  scopedRoute
	token  string
	status int    // zero: that of the handler
	code   string // of the challenge; "": no error
}

// scopeChecks returns the requests for a route. all are the routes whose scopes do not open it.
func (iss *Issuer) scopeChecks(r scopedRoute, all []scopedRoute) []scopeCheck {
	iss.t.Helper()
	checks := []scopeCheck{{name: "no token", status: http.StatusUnauthorized}}
	for name, token := range iss.Forgeries(Scopes(r.scopes...)) {
		checks = append(checks, scopeCheck{name: name, token: token, status: http.StatusUnauthorized, code: "invalid_token"})
	}
	for _, scope := range r.scopes {
		var others []string
		for _, other := range all {
			others = append(others, other.scopes...)
		}
		others = slices.DeleteFunc(others, func(s string) bool { return s == scope })
		checks = append(checks, scopeCheck{name: "no scope " + scope, token: iss.Token(Scopes(others...)), status: http.StatusForbidden, code: "insufficient_scope"})
	}
	checks = append(checks, scopeCheck{name: "sufficient", token: iss.Token(Scopes(r.scopes...))})
	for i := range checks {
		checks[i].route = r
	}
	return checks
}

// send sends the request to api, and returns an error unless the response is right.
func (c scopeCheck) send(api http.Handler) error {
	res := httptest.NewRecorder()
	api.ServeHTTP(res, Request(c.route.method, c.route.path, c.token))
	if c.status == 0 {
		switch res.Code {
		case http.StatusUnauthorized, http.StatusForbidden:
			return fmt.Errorf("got %d with a token that has the scopes %q; WWW-Authenticate: %q", res.Code, c.route.scopes, res.Header().Values("WWW-Authenticate"))
		case http.StatusNotFound, http.StatusMethodNotAllowed:
			return fmt.Errorf("got %d with a sufficient token: the path or the method does not exist", res.Code)
		}
		if res.Code >= http.StatusInternalServerError {
			return fmt.Errorf("got %d with a sufficient token: %.200s", res.Code, res.Body)
		}
		return nil
	}
	if res.Code != c.status {
		return fmt.Errorf("got %d, want %d", res.Code, c.status)
	}
	challenges, err := Challenges(res.Header())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(challenges, func(c AuthChallenge) bool { return strings.EqualFold(c.Scheme, "Bearer") })
	if i < 0 {
		return fmt.Errorf("got %d without a Bearer challenge (RFC 6750, section 3)", res.Code)
	}
	if got := challenges[i].Params["error"]; got != c.code {
		return fmt.Errorf("got error %q in the challenge, want %q", got, c.code)
	}
	return nil
}
