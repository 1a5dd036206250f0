package fetch

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// maxToken is the maximum size of a token file, in bytes.
const maxToken = 64 << 10

// Credentials are header fields for the requests to one origin. Requests to another one, such as that of a jwks_uri elsewhere, do
// not carry them. They are for HTTP requests with [Client.Get].
type Credentials struct {
	// URL has the scheme, the host and the port that receive the credentials. Required.
	URL string

	// Header is added to each request. Accept, Accept-Encoding and If-None-Match have no effect.
	Header http.Header

	// TokenFile contains a bearer token (RFC 6750), with or without a line break. It is read for each request, since such a token
	// rotates. Empty: none.
	TokenFile string
}

// Add adds the credentials to req if it is for their origin.
func (c *Credentials) Add(req *http.Request) error {
	if c == nil {
		return nil
	}
	if own, err := url.Parse(c.URL); err != nil || !SameOrigin(own, req.URL) {
		return nil
	}
	for name, values := range c.Header {
		req.Header[http.CanonicalHeaderKey(name)] = append([]string(nil), values...)
	}
	if c.TokenFile == "" {
		return nil
	}
	token, err := ReadToken(c.TokenFile)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	return nil
}

// SameOrigin reports whether a and b have the same scheme, host and port (RFC 6454, section 5).
func SameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case strings.EqualFold(u.Scheme, "http"):
		return "80"
	default:
		return "443"
	}
}

// CheckHeader returns an error if header cannot be sent (RFC 9110, sections 5.1 and 5.5). The error contains no value.
func CheckHeader(header http.Header) error {
	for name, values := range header {
		if name == "" || strings.Trim(name, tokenCharacters) != "" {
			return fmt.Errorf("%q is not a field name", name)
		}
		for _, v := range values {
			if strings.ContainsFunc(v, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
				return fmt.Errorf("the value of %s has a control character", name)
			}
		}
	}
	return nil
}

const tokenCharacters = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" // RFC 9110, section 5.6.2

// ReadToken returns the bearer token in a file. The error never contains it.
func ReadToken(file string) (string, error) {
	data, err := readFile(file, maxToken)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return "", fmt.Errorf("%s does not contain a bearer token", file)
	}
	return token, nil
}

// readFile returns the content of a regular file of at most limit bytes.
func readFile(file string, limit int64) ([]byte, error) {
	info, err := os.Stat(file) // before it is opened, which may hang for anything else
	switch {
	case err != nil:
		if wrapped, ok := errors.AsType[*fs.PathError](err); ok {
			err = wrapped.Err
		}
		return nil, fmt.Errorf("reading %s: %w", file, err)
	case !info.Mode().IsRegular() || info.Size() > limit:
		return nil, fmt.Errorf("%s is not a file of at most %d bytes", file, limit)
	}
	return os.ReadFile(file)
}
