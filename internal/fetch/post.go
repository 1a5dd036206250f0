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

// Post sends a form to u, with header beside what every request has, and returns the body of an answer of the media type
// accept. The rules and bounds are those of [Client.Get], and so are the errors: they never hold the form or the header.
//
// Error.Content is set if an answer with status 200 and the right media type has arrived and its body cannot be used: it is
// compressed, too long, or cut off by the server. The form may be the cause, so the fault says nothing about answers to
// other forms. A body that did not arrive in time is a failure of the server.
//
// What is asked must do no harm when it is asked twice: it is, on another connection, if the server closed an idle one
// just then.
func (c Client) Post(ctx context.Context, u string, form url.Values, header http.Header, accept string) ([]byte, error) {
	if err := c.Allowed(u); err != nil {
		return nil, &Error{URL: Bare(u), Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
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
	req.Header["Idempotency-Key"] = nil // not sent: it tells net/http that it may ask twice
	resp, err := c.client().Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		return nil, &Error{URL: Bare(u), Err: err}
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

// timedOut reports whether err is the end of the time for an exchange, or of its context.
func timedOut(ctx context.Context, err error) bool {
	var slow net.Error
	return ctx.Err() != nil || errors.As(err, &slow) && slow.Timeout()
}

// mediaType returns nil if the answer is what was asked for (RFC 9110, section 8.3.1).
func mediaType(resp *http.Response, want string) error {
	sent := resp.Header.Get("Content-Type")
	if got, _, err := mime.ParseMediaType(sent); err != nil || got != want {
		return fmt.Errorf("the answer is %.50q, not %s", sent, want)
	}
	return nil
}
