// Package recorder keeps a response, for those who decide afterwards whether and how it is sent.
package recorder

import (
	"bytes"
	"net/http"
)

// A Response is an [http.ResponseWriter] that sends nothing. It is not safe for concurrent use.
type Response struct {
	Status int // zero: nothing has been written
	Body   bytes.Buffer
	header http.Header
}

// Header returns the header, which may be changed at any time.
func (r *Response) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

// WriteHeader sets the status. As in net/http, the first one counts.
func (r *Response) WriteHeader(status int) {
	if r.Status == 0 {
		r.Status = status
	}
}

func (r *Response) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.Body.Write(p)
}
