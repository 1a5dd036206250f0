package fetch

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Post sends a form to u with additional header fields, and returns the body of a response of the media type accept. The
// rules, bounds and errors are those of [Client.Get]. Errors never contain the form or the header.
//
// Error.Content is set if a response with status 200 and the right media type has arrived but its body cannot be used: it is
// too long, truncated by the server, or not in the content coding that it names. The form may be the cause, so the fault does not imply that responses to
// other forms are faulty. A body that does not arrive in time is a failure of the server.
//
// The request must be harmless when repeated: it is sent again, on another connection, if the server has just closed an idle
// one.
func (c Client) Post(ctx context.Context, u string, form url.Values, header http.Header, accept string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	resp, err := c.post(ctx, u, form, header, accept)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err = isOK(resp); err == nil {
		err = mediaType(resp, accept)
	}
	if err != nil {
		return nil, &Error{URL: Bare(u), Status: resp.StatusCode, RetryAfter: retryAfter(resp), Err: err}
	}
	body, err := content(resp, MaxBody)
	if err != nil {
		return nil, &Error{URL: Bare(u), Status: resp.StatusCode, Content: !timedOut(ctx, err), Err: err}
	}
	return body, nil
}

// A Reply is a response of an endpoint that describes errors in JSON (RFC 6749, section 5.2).
type Reply struct {
	Status int // 200, or 400 to 499 without 429
	Header http.Header
	Body   []byte // JSON if Status is 200; perhaps anything otherwise
}

// Submit sends a form as [Client.Post] does, and accepts JSON. It also returns responses with a status of 4xx, except 429, since their
// bodies describe the error. The rules, bounds and errors are otherwise those of Post.
func (c Client) Submit(ctx context.Context, u string, form url.Values, header http.Header) (*Reply, error) {
	const accept = "application/json"
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	resp, err := c.post(ctx, u, form, header, accept)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 400 || resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		if err = isOK(resp); err == nil {
			err = mediaType(resp, accept)
		}
		if err != nil {
			return nil, &Error{URL: Bare(u), Status: resp.StatusCode, RetryAfter: retryAfter(resp), Err: err}
		}
	}
	body, err := content(resp, MaxBody)
	if err != nil {
		return nil, &Error{URL: Bare(u), Status: resp.StatusCode, Content: !timedOut(ctx, err), Err: err}
	}
	return &Reply{resp.StatusCode, resp.Header, body}, nil
}

func (c Client) post(ctx context.Context, u string, form url.Values, header http.Header, accept string) (*http.Response, error) {
	if err := c.Allowed(u); err != nil {
		return nil, &Error{URL: Bare(u), Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, &Error{URL: Bare(u), Err: err}
	}
	if header != nil {
		req.Header = header.Clone()
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", accept)
	req.Header.Set("Accept-Encoding", "identity")
	req.Header["Idempotency-Key"] = nil // not sent: it permits net/http to repeat the request
	resp, err := c.client().Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		return nil, &Error{URL: Bare(u), Err: err}
	}
	return resp, nil
}

// timedOut reports whether err means that the time for an exchange, or its context, has ended.
func timedOut(ctx context.Context, err error) bool {
	var slow net.Error
	return ctx.Err() != nil || errors.As(err, &slow) && slow.Timeout()
}

// mediaType returns nil if the response has the requested media type (RFC 9110, section 8.3.1).
func mediaType(resp *http.Response, want string) error {
	sent := resp.Header.Get("Content-Type")
	got, _, err := mime.ParseMediaType(sent)
	if want == "application/json" && got == "text/plain" { // JSON is read strictly, whatever an endpoint calls it
		return nil
	}
	if err != nil || got != want {
		return fmt.Errorf("the answer is %.50q, not %s", sent, want)
	}
	return nil
}
