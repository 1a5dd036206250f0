package valetkeytest

import (
	"fmt"
	"net/http"
)

// CheckScopes does what TestScopes does, and returns the name and the error of each subtest that would fail.
func (iss *Issuer) CheckScopes(api http.Handler, routes ...string) (failed []string) {
	parsed, err := parseRoutes(routes)
	if err != nil {
		return []string{err.Error()}
	}
	for _, r := range parsed {
		for _, c := range iss.scopeChecks(r, parsed) {
			if err := c.send(api); err != nil {
				failed = append(failed, fmt.Sprintf("%s %s/%s: %v", r.method, r.path, c.name, err))
			}
		}
	}
	return failed
}
