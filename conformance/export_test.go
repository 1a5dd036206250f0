package conformance

import (
	"context"
	"net/http"
)

// Pacer returns the function that keeps to a rate.
func Pacer(rate int) func(context.Context) error {
	return (&runner{options: Options{Rate: rate}}).pace
}

// Problems returns what differs from e in a response, for a request with the scheme.
func (e Expect) Problems(scheme string, status int, header http.Header, body string) []string {
	return e.resolved().check(observation{scheme: scheme, expand: func(s string) string { return s },
		response: &response{status: status, header: header, body: []byte(body), raw: []byte(body)}})
}

// SplitCommand splits a command into words.
var SplitCommand = splitCommand

// FreeAddress returns an address at which a program can listen.
var FreeAddress = freeAddress
