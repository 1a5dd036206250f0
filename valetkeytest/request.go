package valetkeytest

import (
	"net/http"
	"net/http/httptest"
)

// Request returns a request for a handler under test that carries token as a Bearer token (RFC 6750, section 2.1). If token
// is "", the request has no credentials. It panics on an invalid method or target, as [httptest.NewRequest] does.
func Request(method, target, token string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}
