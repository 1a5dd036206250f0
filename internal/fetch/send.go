package fetch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"
)

// A Call is a request to an API that exchanges JSON, see [Client.Send].
type Call struct {
	Method string
	URL    string
	Body   []byte        // JSON; nil: none
	Header http.Header   // additional fields; may be nil
	Limit  time.Duration // of the whole exchange; zero: [Timeout]
}

// Send sends a request and returns the response, whatever its status is, with a body of at most Client.MaxBody bytes. The rules for
// URLs, redirects and compression are those of [Client.Get]. The error is an [*Error]: there was no usable response. RetryAfter of the
// result is that of a 429 or 503. Client.Credentials are not sent.
func (c Client) Send(ctx context.Context, call Call) (*Sent, error) {
	if err := c.Allowed(call.URL); err != nil {
		return nil, &Error{URL: Bare(call.URL), Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(call.Limit, Timeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, call.Method, call.URL, bytes.NewReader(call.Body))
	if err != nil {
		return nil, &Error{URL: Bare(call.URL), Err: err}
	}
	if call.Header != nil {
		req.Header = call.Header.Clone()
	}
	if call.Body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := c.client().Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		return nil, &Error{URL: Bare(call.URL), Err: err}
	}
	defer resp.Body.Close()
	body, err := content(resp, cmp.Or(c.MaxBody, MaxBody))
	if err != nil {
		return nil, &Error{URL: Bare(call.URL), Status: resp.StatusCode, RetryAfter: retryAfter(resp), Err: err}
	}
	return &Sent{Status: resp.StatusCode, Header: resp.Header, Body: body, RetryAfter: retryAfter(resp)}, nil
}

// Sent is the response to [Client.Send].
type Sent struct {
	Status     int
	Header     http.Header
	Body       []byte
	RetryAfter time.Duration // of a 429 or 503; zero: none
}
