package valetkeytest

import (
	"net/http"
	"net/http/httptest"
)

// Request returns a request for a handler under test that carries token as a Bearer (RFC 6750, section 2.1), or nothing
// if token is "". It panics on a method or target that is none, as [httptest.NewRequest] does.
func Request(method, target, token string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}
