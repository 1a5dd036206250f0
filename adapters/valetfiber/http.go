package valetfiber

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// request returns the request of c as net/http presents it, with copies of all data that fasthttp reuses. The conversion in
// fasthttp keeps only one line of a repeated header.
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
	// All returns only the last of several Content-Type lines.
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

// decide calls g.Decide. If the guard read the body from a stream, decide gives the body back to fasthttp.
func decide(ctx context.Context, g *middleware.Guard, c fiber.Ctx, readsPath bool, needs []valetkey.Requirement) middleware.Decision {
	r, err := request(ctx, c)
	if err != nil {
		return g.Reject(r, err)
	}
	if readsPath {
		for _, name := range c.Route().Params {
			r.SetPathValue(name, strings.Clone(c.Params(name))) // fiber uses the memory of the path again
		}
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
