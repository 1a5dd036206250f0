// Package recorder records a response, so that the caller can decide afterwards whether and how to send it.
package recorder

import (
	"bytes"
	"net/http"
)

// Response is an [http.ResponseWriter] that sends nothing. It is not safe for concurrent use.
type Response struct {
	Status int // zero: nothing has been written
	Body   bytes.Buffer
	header http.Header
}

// Header returns the header. It may be modified at any time.
func (r *Response) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

// WriteHeader sets the status. As in net/http, only the first call has an effect.
func (r *Response) WriteHeader(status int) {
	if r.Status == 0 {
		r.Status = status
	}
}

// Write appends p to Body. If no status is set, it sets 200.
func (r *Response) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.Body.Write(p)
}
