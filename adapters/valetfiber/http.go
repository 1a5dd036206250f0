package valetfiber

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// request returns c's request as net/http would have it, with copies of all that fasthttp will use again. Fasthttp's own
// conversion keeps one line of a header that came twice.
func request(ctx context.Context, c fiber.Ctx) (*http.Request, error) {
	from := c.Request()
	r := (&http.Request{
		Method:     string(from.Header.Method()),
		URL:        &url.URL{Path: "/"},
		Header:     http.Header{},
		Host:       string(from.Host()),
		RemoteAddr: c.RequestCtx().RemoteAddr().String(),
		TLS:        c.RequestCtx().TLSConnectionState(),
	}).WithContext(ctx)
	for name, value := range from.Header.All() {
		r.Header.Add(string(name), string(value))
	}
	// Of two Content-Type lines All has the last only.
	if r.Header["Content-Type"] != nil {
		if sent := contentTypes(&from.Header); len(sent) > 1 {
			r.Header["Content-Type"] = sent
		}
	}
	if from.IsBodyStream() {
		r.Body = io.NopCloser(from.BodyStream())
	} else {
		r.Body = io.NopCloser(bytes.NewReader(from.Body()))
	}
	target, err := url.ParseRequestURI(string(from.Header.RequestURI()))
	if err != nil { // err quotes the target, which may hold a token
		return r, &valetkey.Error{Code: valetkey.InvalidRequest, Reason: reasonTarget}
	}
	r.URL = target
	return r, nil
}

func contentTypes(h *fasthttp.RequestHeader) (types []string) {
	for name, value := range h.AllInOrder() {
		if bytes.EqualFold(name, []byte(fiber.HeaderContentType)) {
			types = append(types, string(value))
		}
	}
	return types
}

// decide calls g.Decide and gives the body back to fasthttp that the guard may have read from a stream.
func decide(ctx context.Context, g *middleware.Guard, c fiber.Ctx, needs []valetkey.Requirement) middleware.Decision {
	r, err := request(ctx, c)
	if err != nil {
		return g.Reject(r, err)
	}
	body := r.Body
	d := g.Decide(r, needs...)
	if from := c.Request(); r.Body != body && from.IsBodyStream() {
		read, _ := io.ReadAll(r.Body) // from memory
		from.SetBody(read)
	}
	return d
}

var reasonTarget = valetkey.NewReason("target_malformed", "the request target is malformed")
