package conformance

import (
	"context"
	"io"
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

// A Response is what a server under test has sent.
type Response struct{ *response }

// ReadResponse reads a response to a request with the method; the second one, if second is set.
func ReadResponse(sent io.Reader, method string, second bool) Response {
	return Response{read(sent, method, second)}
}

// Status, Header, Body and Err return the parts of the response, and why there is none.
func (r Response) Status() int         { return r.status }
func (r Response) Header() http.Header { return r.header }
func (r Response) Body() []byte        { return r.body }
func (r Response) Err() error          { return r.err }

// Wrong returns what differs from e in r, for a request with the scheme Bearer.
func (r Response) Wrong(e Expect) []string {
	return e.resolved().check(observation{scheme: "Bearer", expand: func(s string) string { return s }, response: r.response})
}

// SplitCommand splits a command into words.
var SplitCommand = splitCommand

// FreeAddress returns an address at which a program can listen.
var FreeAddress = freeAddress
