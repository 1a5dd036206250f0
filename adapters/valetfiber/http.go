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
		return r, &valetkey.Error{Code: valetkey.InvalidRequest, Description: "the request target is malformed"}
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

// check calls g.Check and gives the body back to fasthttp that the guard may have read from a stream. It returns r with
// an error, too.
func check(g *middleware.Guard, w http.ResponseWriter, r *http.Request, from *fasthttp.Request, needs []valetkey.Requirement) (*http.Request, error) {
	body := r.Body
	checked, err := g.Check(w, r, needs...)
	if r.Body != body && from.IsBodyStream() {
		read, _ := io.ReadAll(r.Body) // from memory
		from.SetBody(read)
	}
	if err != nil {
		return r, err
	}
	return checked, nil
}

// A response lets a guard write to a fasthttp response.
type response struct {
	fiber  *fasthttp.Response
	header http.Header
}

func (w *response) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}

func (w *response) WriteHeader(status int) {
	w.sendHeader()
	w.fiber.SetStatusCode(status)
	w.fiber.ResetBody()
}

func (w *response) Write(b []byte) (int, error) {
	w.fiber.AppendBody(b)
	return len(b), nil
}

func (w *response) sendHeader() {
	for name, values := range w.header {
		w.fiber.Header.Del(name)
		for _, value := range values {
			w.fiber.Header.Add(name, value)
		}
	}
}
