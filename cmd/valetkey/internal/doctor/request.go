package doctor

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/jwks"
)

const (
	requestTimeout = 5 * time.Second
	maxBody        = 8 << 20 // bytes
)

// A response is the result of one request. If err is set, there was none.
type response struct {
	url    string // without user and query
	status int
	header http.Header
	body   []byte
	at     time.Time // the middle of the exchange, by the machine's clock
	err    error
}

// A sender sends requests as the verifier does.
type sender struct {
	client      http.Client
	credentials *fetch.Credentials // nil: none
}

// senderOf returns the sender of a verifier whose configuration has been checked.
func senderOf(cfg jwks.Config) (*sender, error) {
	s := new(sender)
	if cfg.Client != nil {
		s.client = *cfg.Client
	}
	s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r := cfg.KeyRequests
	if r.TokenFile != "" || len(r.Header) > 0 {
		s.credentials = &fetch.Credentials{URL: cmp.Or(cfg.JWKSURL, cfg.Issuer), Header: r.Header, TokenFile: r.TokenFile}
	}
	if r.CAFile+r.CertFile == "" {
		return s, nil
	}
	transport, err := fetch.NewTLSFiles(r.CAFile, r.CertFile, r.KeyFile)
	s.client.Transport = transport
	return s, err
}

// get requests u. It follows no redirect.
func (s *sender) get(ctx context.Context, u string) response {
	r := response{url: fetch.Bare(u)}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		r.err = err
		return r
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json, */*;q=0.1")
	if err := s.credentials.Add(req); err != nil {
		r.err = err
		return r
	}
	start := time.Now()
	resp, err := s.client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // the wrapper quotes the URL with its query
		}
		r.err = err
		return r
	}
	defer resp.Body.Close()
	r.at = start.Add(time.Since(start) / 2)
	r.status, r.header = resp.StatusCode, resp.Header
	if r.body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody)); err != nil {
		r.err = fmt.Errorf("the response ended early: %w", err)
	}
	r.body = bytes.TrimPrefix(r.body, []byte("\xef\xbb\xbf"))
	return r
}

// isPage reports whether the response is an HTML page.
func (r response) isPage() bool {
	kind, _, _ := mime.ParseMediaType(r.header.Get("Content-Type"))
	return r.err == nil && (kind == "text/html" || bytes.HasPrefix(bytes.TrimSpace(r.body), []byte("<")))
}

// host returns the host and the port of u, with the default port of its scheme.
func host(u string) string {
	parsed, err := url.Parse(u)
	if err != nil {
		return u
	}
	port := parsed.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[parsed.Scheme]
	}
	return net.JoinHostPort(parsed.Hostname(), port)
}

func hostname(u string) string {
	name, _, _ := net.SplitHostPort(host(u))
	return name
}

// wantsTLS reports whether a plain request was sent to a server that speaks TLS, or was sent on to one.
func (r response) wantsTLS() bool {
	if !strings.HasPrefix(r.url, "http:") || r.err != nil {
		return false
	}
	text := strings.ToLower(string(r.body[:min(len(r.body), 1<<10)]))
	return r.status == http.StatusBadRequest && (strings.Contains(text, "https server") || strings.Contains(text, "https port")) ||
		r.redirects() && strings.EqualFold(r.header.Get("Location"), "https:"+strings.TrimPrefix(r.url, "http:"))
}

func (r response) redirects() bool { return r.status >= 300 && r.status < 400 }

// wantsPlain reports whether a TLS request was sent to a server that speaks plain HTTP.
func (r response) wantsPlain() bool {
	var record tls.RecordHeaderError
	return errors.As(r.err, &record) || errors.Is(r.err, http.ErrSchemeMismatch)
}

// unreachable reports whether nothing else on the host can be reached either.
func (r response) unreachable() bool {
	dial, is := errors.AsType[*net.OpError](r.err)
	return is && dial.Op == "dial" || r.untrusted() || r.wantsPlain()
}

// untrusted reports whether the certificate of the server was not accepted.
func (r response) untrusted() bool {
	var certificate *tls.CertificateVerificationError
	return errors.As(r.err, &certificate)
}

func (r response) refused() bool { return errors.Is(r.err, syscall.ECONNREFUSED) }

// trouble returns why the response is not a document of an issuer, and what may help.
func (r response) trouble() (cause, fix string) {
	var (
		dns       *net.DNSError
		unknown   x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		timeout   net.Error
		notJSON   = "a proxy or a login page between this host and the issuer, or a wrong URL"
		addressee = host(r.url)
	)
	switch {
	case r.refused():
		return fmt.Sprintf("connection refused by %s: wrong host or port, or the issuer does not run", addressee), ""
	case errors.As(r.err, &dns):
		return fmt.Sprintf("the host name of %s cannot be resolved: %s", r.url, dns.Err), ""
	case errors.As(r.err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the TLS certificate of %s is expired or not yet valid by the clock of this machine: %v", addressee, invalid), ""
	case errors.As(r.err, &name):
		return fmt.Sprintf("the TLS certificate of %s is for another host: %v", addressee, name), ""
	case errors.As(r.err, &unknown), errors.As(r.err, &invalid):
		return fmt.Sprintf("the TLS certificate of %s is not trusted: %v", addressee, errors.Unwrap(r.err)), "add its CA to the roots of the system (SSL_CERT_FILE)"
	case r.wantsPlain():
		return fmt.Sprintf("%s speaks plain HTTP, and the URL begins with https", addressee), ""
	case errors.As(r.err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("no response from %s within %v: a firewall, or a wrong host or port", addressee, requestTimeout), ""
	case r.err != nil:
		return fmt.Sprintf("%s: %v", r.url, r.err), ""
	case r.wantsTLS():
		return fmt.Sprintf("%s speaks TLS only, and the URL begins with http", addressee), ""
	case r.redirects():
		return fmt.Sprintf("%s redirects (%d) to %.200q, and redirects are not followed", r.url, r.status, fetch.Bare(r.header.Get("Location"))), notJSON
	case r.isPage() && r.status == http.StatusOK:
		return fmt.Sprintf("%s returns an HTML page instead of JSON", r.url), notJSON
	default:
		return fmt.Sprintf("%s returns status %d", r.url, r.status), ""
	}
}
