package proxy

import (
	"io"
	"net/http"
	"strings"
)

// Trailers come after the body, so after all checks. A recipient may merge them into the headers although it should not (RFC 9110,
// section 6.5.1). In both directions, the proxy passes on a trailer only if the name is one that it would pass on as a header too, and
// if a header of that name has no say in how a message is framed, routed, cached, processed or authenticated. Then a recipient that
// merges gets nothing that the other side could not have sent in a header.

// neverTrailers lists such headers by plain name. No list is complete: RFC 9110 asks for the consent of each field's definition.
var neverTrailers = map[string]bool{
	"DPOP-NONCE": true, // of which only one is allowed, that of the guard (RFC 9449, section 8.2)

	"ACCEPT": true, "AUTHORIZATION": true, "CACHE-CONTROL": true, "CONNECTION": true, "COOKIE": true, "DATE": true, "EXPECT": true,
	"EXPIRES": true, "HOST": true, "KEEP-ALIVE": true, "LOCATION": true, "MAX-FORWARDS": true, "ORIGIN": true, "PRAGMA": true,
	"RANGE": true, "REFERER": true, "RETRY-AFTER": true, "SET-COOKIE": true, "TE": true, "TRAILER": true, "TRANSFER-ENCODING": true,
	"UPGRADE": true, "VARY": true, "WARNING": true, "WWW-AUTHENTICATE": true, "AGE": true, "IDEMPOTENCY-KEY": true,
	"X-IDEMPOTENCY-KEY": true, "TRACEPARENT": true, "TRACESTATE": true, "X-REQUEST-ID": true,
}

var neverTrailersPrefixes = []string{"CONTENT-", "IF-", "PROXY-", "SEC-", "ACCESS-CONTROL-"}

// inTrailer reports whether a header with this name may come in a trailer.
func (o *onward) inTrailer(name string) bool {
	if o.drops(name) {
		return false
	}
	folded := plain(name)
	if neverTrailers[folded] {
		return false
	}
	for _, prefix := range neverTrailersPrefixes {
		if strings.HasPrefix(folded, prefix) {
			return false
		}
	}
	return true
}

// passTrailers makes out carry the trailers of in: those that in announces, because a transport announces them itself before it
// sends the body. Requests of gRPC have none. A request with a length has none, either.
func (o *onward) passTrailers(in, out *http.Request) {
	out.Trailer = nil
	if len(in.Trailer) == 0 || out.Body == nil || out.ContentLength >= 0 {
		return
	}
	for name := range in.Trailer {
		if o.inTrailer(name) {
			if out.Trailer == nil {
				out.Trailer = http.Header{}
			}
			out.Trailer[name] = nil
		}
	}
	if out.Trailer != nil {
		out.Body = &trailed{out.Body, in, out.Trailer}
	}
}

// A trailed is the body of a request with trailers, whose values are known at its end.
type trailed struct {
	io.ReadCloser
	in *http.Request
	to http.Header
}

func (b *trailed) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		for name := range b.to {
			b.to[name] = b.in.Trailer[name]
		}
	}
	return n, err
}

// checkTrailers makes the response of an upstream carry only trailers that may pass. Those that the upstream does not announce are
// known at the end of the body.
func (o *onward) checkTrailers(res *http.Response) {
	o.removeTrailers(res.Trailer)
	if len(res.Trailer) > 0 && res.Request.ProtoMajor == 1 && res.Request.Method != http.MethodHead {
		res.Header.Del("Content-Length") // for the client: HTTP/1.1 has no trailers behind a body with a length
	}
	if res.StatusCode != http.StatusSwitchingProtocols && (res.ProtoMajor == 2 || res.ContentLength < 0) {
		res.Body = &checked{res.Body, res, o}
	}
}

func (o *onward) removeTrailers(trailer http.Header) {
	for name := range trailer {
		if !o.inTrailer(name) {
			delete(trailer, name)
		}
	}
}

// A checked is the body of a response. Closing it removes the trailers that may not pass.
type checked struct {
	io.ReadCloser
	res *http.Response
	o   *onward
}

func (b *checked) Close() error {
	err := b.ReadCloser.Close()
	b.o.removeTrailers(b.res.Trailer)
	return err
}
