// Package fetch gets JSON and signed tokens from an issuer over HTTP. It restricts the URLs, the time and the size.
package fetch

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	MaxBody = 512 << 10       // bytes of a response, unless Client.MaxBody is set
	Timeout = 5 * time.Second // of one exchange, from the name look-up to the last byte

	idle = 90 * time.Second // after which an unused connection is closed
)

// Client gets JSON. The zero value is ready to use. A Client is safe for concurrent use.
type Client struct {
	// HTTP sends the requests. Its CheckRedirect is not used. Nil: http.DefaultClient.
	HTTP *http.Client

	// InsecureHTTP allows http URLs on hosts other than loopback.
	InsecureHTTP bool

	// Setting is the name of the setting that sets InsecureHTTP, for errors about http URLs. Empty: there is none.
	Setting string

	// Accept is the media type that Get requests. Empty: application/json, or else anything.
	Accept string

	// MaxBody is the maximum size of a response to Get, in bytes. Zero: [MaxBody].
	MaxBody int

	// Credentials are sent with Get. Nil: none.
	Credentials *Credentials
}

// Answer is the response of a server.
type Answer struct {
	Body        []byte
	ETag        string
	Type        string        // the Content-Type, without parameters and in lower case; empty: missing or malformed
	MaxAge      time.Duration // freshness lifetime that the server specifies (RFC 9111, section 4.2); negative: none
	NotModified bool          // the body with the ETag that was sent is still current; Body is empty
}

// Error is the error of an exchange without a usable response. It contains the host and the path, but never the query or the
// body.
type Error struct {
	URL        string        // without user, query and fragment
	Status     int           // zero: there was no response
	RetryAfter time.Duration // of a 429 or 503; zero: none
	Content    bool          // the server responded correctly, and only the content of this response is faulty: see [Client.Post]
	Err        error
}

func (e *Error) Error() string { return fmt.Sprintf("fetch %s: %v", e.URL, e.Err) }

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// Allowed returns nil if u may be fetched: an https URL with a host, or an http URL if its host is loopback or InsecureHTTP
// is set.
func (c Client) Allowed(u string) error {
	parsed, err := url.Parse(u)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case parsed.Hostname() == "" || parsed.Opaque != "":
		return errors.New("not a URL with a host, such as https://as.example.com")
	case parsed.User != nil:
		return errors.New("holds a user name")
	case parsed.Scheme == "https":
		return nil
	case parsed.Scheme == "http" && (c.InsecureHTTP || loopback(parsed.Hostname())):
		return nil
	case parsed.Scheme == "http":
		return c.notHTTPS()
	default:
		return errors.New("not https")
	}
}

func (c Client) notHTTPS() error {
	if c.Setting == "" {
		return errors.New("not https")
	}
	return fmt.Errorf("not https; %s allows http", c.Setting)
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// Get fetches u. If etag is not empty, the request is conditional, and [Answer].NotModified reports whether the response with
// etag is still current. Get follows no redirect, unpacks gzip within the limit of the size, and ends after [Timeout]. The error
// is an [*Error].
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
	if err := c.Credentials.Add(req); err != nil {
		return nil, &Error{URL: Bare(u), Err: err}
	}
	req.Header.Set("Accept", cmp.Or(c.Accept, "application/json, */*;q=0.1"))
	req.Header.Set("Accept-Encoding", "identity") // prevents net/http from requesting gzip and unpacking it without a limit
	req.Header.Del("If-None-Match")
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

// client returns a copy of the configured client that follows no redirect, since the target of a redirect is not configured.
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
	answer.Type, _, _ = mime.ParseMediaType(resp.Header.Get("Content-Type"))
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

// content returns the body, of at most limit bytes. It unpacks gzip, which some servers send although identity is requested;
// limit then applies to both the packed and the unpacked body.
func content(resp *http.Response, limit int) ([]byte, error) {
	sent := &io.LimitedReader{R: resp.Body, N: int64(limit) + 1}
	body, err := unpacked(resp.Header.Get("Content-Encoding"), sent, limit)
	if len(body) > limit || sent.N == 0 {
		return nil, fmt.Errorf("the answer has more than %d bytes", limit)
	}
	if err == nil && resp.Request != nil {
		// A server that notices the end can still terminate its response correctly before it is complete.
		err = resp.Request.Context().Err()
	}
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), nil // RFC 8259, section 8.1: a byte order mark may be ignored
}

// unpacked returns the body without its content coding, and at most one byte more than limit.
func unpacked(coding string, body io.Reader, limit int) ([]byte, error) {
	switch strings.ToLower(coding) {
	case "", "identity":
	case "gzip", "x-gzip": // RFC 9110, section 8.4.1.3
		z, err := gzip.NewReader(body)
		if err != nil {
			return nil, err
		}
		body = z
	default:
		return nil, fmt.Errorf("it has the content coding %.20q, which is neither identity nor gzip", coding)
	}
	return io.ReadAll(io.LimitReader(body, int64(limit)+1))
}

// maxAge returns the remaining freshness lifetime of a response: RFC 9111, sections 4.2.1 and 5.2.2. A response that must not
// be stored or reused has none.
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

// retryAfter returns the Retry-After of a response (RFC 9110, section 10.2.3).
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

// seconds parses delta-seconds (RFC 9111, section 1.2.2). A huge number counts as ten years; a negative result means that s
// is not a number.
func seconds(s string) time.Duration {
	const most = 10 * 365 * 24 * 60 * 60
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return -1
	}
	return time.Duration(min(n, most)) * time.Second
}

// Bare returns a URL without user, query and fragment, which can contain secrets.
func Bare(u string) string {
	parsed, err := url.Parse(u)
	if err != nil {
		return "a malformed URL"
	}
	return (&url.URL{Scheme: parsed.Scheme, Host: parsed.Host, Path: parsed.Path}).String()
}
