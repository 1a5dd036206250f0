// Package fetch gets JSON and signed tokens from an issuer over HTTP, within bounds: which URLs, how long, how much.
package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	MaxBody = 512 << 10       // bytes of an answer, unless the client says otherwise
	Timeout = 5 * time.Second // of one exchange, from the name look-up to the last byte
)

// A Client gets JSON. The zero value is ready, and a Client is safe for concurrent use.
type Client struct {
	// HTTP carries the requests. Its CheckRedirect is not used. Nil: http.DefaultClient.
	HTTP *http.Client

	// InsecureHTTP allows http to hosts other than loopback ones.
	InsecureHTTP bool

	// Accept is the media type that Get asks for. Empty: application/json.
	Accept string

	// MaxBody is the most bytes of an answer to Get. Zero: [MaxBody].
	MaxBody int
}

// An Answer is what a server said.
type Answer struct {
	Body        []byte
	ETag        string
	MaxAge      time.Duration // how long the server calls the answer fresh (RFC 9111, section 4.2); negative: it does not say
	NotModified bool          // the body with the ETag that was sent still stands; Body is empty
}

// An Error is an exchange that gave no usable answer. It says host and path, never query or body.
type Error struct {
	URL        string        // without user, query and fragment
	Status     int           // zero: there was no answer
	RetryAfter time.Duration // of a 429 or 503; zero: none
	Content    bool          // the server answered as it should, and only the content of this answer is at fault: see [Client.Post]
	Err        error
}

func (e *Error) Error() string { return fmt.Sprintf("fetch %s: %v", e.URL, e.Err) }

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// Allowed returns nil if u may be fetched: it is an https URL with a host, or an http one whose host is a loopback one or
// with InsecureHTTP. This is the only place that decides it.
func (c Client) Allowed(u string) error {
	parsed, err := url.Parse(u)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case parsed.Hostname() == "" || parsed.Opaque != "":
		return errors.New("not a URL with a host")
	case parsed.User != nil:
		return errors.New("holds a user name")
	case parsed.Scheme == "https":
		return nil
	case parsed.Scheme == "http" && (c.InsecureHTTP || loopback(parsed.Hostname())):
		return nil
	default:
		return errors.New("not https")
	}
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// Get fetches u, or learns that the answer with etag still stands, if etag is not empty. It follows no redirect, takes
// no compressed answer, and ends after [Timeout]. The error is an [*Error].
func (c Client) Get(ctx context.Context, u, etag string) (*Answer, error) {
	if err := c.Allowed(u); err != nil {
		return nil, &Error{URL: Bare(u), Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, &Error{URL: Bare(u), Err: err}
	}
	req.Header.Set("Accept", cmp.Or(c.Accept, "application/json"))
	req.Header.Set("Accept-Encoding", "identity") // and so net/http does not ask for gzip and unpack it
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	resp, err := c.client().Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // the wrapper quotes the URL with its query
		}
		return nil, &Error{URL: Bare(u), Err: err}
	}
	defer resp.Body.Close()
	answer, err := read(resp, etag != "", cmp.Or(c.MaxBody, MaxBody))
	if err != nil {
		return nil, &Error{URL: Bare(u), Status: resp.StatusCode, RetryAfter: retryAfter(resp), Err: err}
	}
	return answer, nil
}

// client returns a copy of the configured client that follows no redirect: its target was not configured by anyone.
func (c Client) client() *http.Client {
	h := http.Client{}
	if c.HTTP != nil {
		h = *c.HTTP
	}
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &h
}

func read(resp *http.Response, conditional bool, limit int) (*Answer, error) {
	answer := &Answer{ETag: resp.Header.Get("ETag"), MaxAge: maxAge(resp.Header)}
	if resp.StatusCode == http.StatusNotModified && conditional {
		answer.NotModified = true
		return answer, nil
	}
	if err := isOK(resp); err != nil {
		return nil, err
	}
	var err error
	answer.Body, err = content(resp, limit)
	return answer, err
}

// isOK returns nil if the status is 200.
func isOK(resp *http.Response) error {
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return fmt.Errorf("status %d, and redirects are not followed", resp.StatusCode)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// content returns the body, of at most limit bytes.
func content(resp *http.Response, limit int) ([]byte, error) {
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, errors.New("the answer is compressed, though identity was asked for")
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	if err == nil && resp.Request != nil {
		// A server that is told of the end can still end its answer in good form, before it has said all.
		err = resp.Request.Context().Err()
	}
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if len(body) > limit {
		return nil, fmt.Errorf("the answer has more than %d bytes", limit)
	}
	return body, nil
}

// maxAge returns the freshness lifetime that is left of an answer: RFC 9111, sections 4.2.1 and 5.2.2. What the server
// wants not to be stored or reused has none.
func maxAge(h http.Header) time.Duration {
	left := time.Duration(-1)
	for directive := range strings.SplitSeq(strings.ToLower(strings.Join(h.Values("Cache-Control"), ",")), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch name {
		case "no-store", "no-cache":
			return 0
		case "max-age":
			left = seconds(strings.Trim(value, `"`))
		}
	}
	if left < 0 {
		return left
	}
	return max(0, left-max(0, seconds(h.Get("Age"))))
}

// retryAfter reads RFC 9110, section 10.2.3.
func retryAfter(resp *http.Response) time.Duration {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	value := resp.Header.Get("Retry-After")
	if date, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(date))
	}
	return max(0, seconds(value))
}

// seconds reads delta-seconds (RFC 9111, section 1.2.2), a huge number as ten years; negative: it is none.
func seconds(s string) time.Duration {
	const most = 10 * 365 * 24 * 60 * 60
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return -1
	}
	return time.Duration(min(n, most)) * time.Second
}

// Bare returns the part of a URL that may be told: not the user, query and fragment, which can hold secrets.
func Bare(u string) string {
	parsed, err := url.Parse(u)
	if err != nil {
		return "a malformed URL"
	}
	return (&url.URL{Scheme: parsed.Scheme, Host: parsed.Host, Path: parsed.Path}).String()
}
