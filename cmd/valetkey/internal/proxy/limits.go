package proxy

import (
	"cmp"
	"net/http"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
)

// Bounds of max_header_bytes. A server reads the whole of the headers before it decides on a request, of a stranger too.
const (
	minHeader = 4 << 10
	maxHeader = 1 << 20
)

// limits returns the limits of the listener.
func (f *file) limits() web.Limits {
	if f.MaxBodyBytes < 0 {
		f.Mistake("max_body_bytes", "%d is negative", f.MaxBodyBytes)
	}
	header, token := f.MaxHeaderBytes, cmp.Or(f.MaxTokenBytes, valetkey.MaxTokenBytes)
	switch {
	case header == 0 && !f.Given("max_header_bytes"):
		header = max(web.MaxHeaderBytes, token+web.MaxHeaderBytes/2) // a token and the usual headers
	case header < minHeader || header > maxHeader:
		f.Mistake("max_header_bytes", "%d is not between %d and %d", header, minHeader, maxHeader)
	case header < token:
		f.Mistake("max_header_bytes", "%d is less than the %d bytes that a token may have: set max_token_bytes too", header, token)
	}
	return web.Limits{HeaderTimeout: time.Duration(f.HeaderTimeout), IdleTimeout: time.Duration(f.IdleTimeout), MaxHeaderBytes: header}
}

// restTimeout is how long a request that no upstream receives may take to send the rest of its body.
const restTimeout = 5 * time.Second

// endBody bounds the time of a body that nothing will read. The server reads up to 256 KiB of it before it sends the response, so that a
// client that sends nothing would keep the connection for good, even without a token.
func endBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(restTimeout)) // fails if the writer has no deadlines
	}
}
