package middleware

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/scopes"
)

// retryAfter is how long a client is asked to wait when nobody knows better.
const retryAfter = 5 * time.Second

// Refuse answers a request that [Guard.Check] returned err for.
func (g *Guard) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	if err == errPreflight && g.preflight != nil {
		g.preflight.ServeHTTP(w, r)
		return
	}
	status, header, body := g.refusal(r.Context(), schemeOf(r), err)
	// The path and not the URL: its query may hold a token.
	g.logRefusal(r.Context(), status, err, slog.String("method", r.Method), slog.String("path", r.URL.Path))
	h := w.Header()
	for name, values := range header {
		if name == exposeHeaders { // beside what the API itself exposes
			values = append(h[name], values...)
		}
		h[name] = values
	}
	w.WriteHeader(status)
	w.Write(body)
}

// Refusal returns the answer to err, for what is not net/http: 400, 401 or 403 with a challenge for a
// [valetkey.Error], and 503 with Retry-After for any other error, a nil one included, which is a failure of ours and
// does not make the client's token a bad one. A guard that takes several schemes has a challenge for each, a line of its
// own; the error stands in that of the request's scheme or, as Refusal does not know it, in each.
func (g *Guard) Refusal(ctx context.Context, err error) (status int, header http.Header, body []byte) {
	return g.refusal(ctx, "", err)
}

// refusal is Refusal for credentials that came with scheme, or "" if that is not known.
func (g *Guard) refusal(ctx context.Context, scheme string, err error) (status int, header http.Header, body []byte) {
	header = http.Header{
		"Cache-Control":          {"no-store"},
		"X-Content-Type-Options": {"nosniff"},
	}
	status = statusOf(err)
	var refusal *valetkey.Error
	if errors.As(err, &refusal) {
		header["Www-Authenticate"] = g.challenge.lines(refusal, scheme)
		if g.dpop != nil && refusal.Code == valetkey.UseNonce { // RFC 9449, section 9
			header.Set("DPoP-Nonce", g.dpop.Nonce())
		}
		if g.exposeChallenge {
			header.Set(exposeHeaders, exposed)
		}
	} else {
		header.Set("Retry-After", strconv.Itoa(retrySeconds(err)))
	}
	contentType, body := g.body(ctx, status, refusal)
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	return status, header, body
}

const (
	exposeHeaders = "Access-Control-Expose-Headers"
	exposed       = "WWW-Authenticate, DPoP-Nonce"
)

// giveNonce tells the client of an accepted request its next nonce.
func (g *Guard) giveNonce(h http.Header, nonce string) {
	h.Set("DPoP-Nonce", nonce)
	if g.exposeChallenge {
		h.Add(exposeHeaders, exposed)
	}
}

// statusOf returns the status of the answer to err.
func statusOf(err error) int {
	var refusal *valetkey.Error
	if errors.As(err, &refusal) {
		return refusal.Status()
	}
	return http.StatusServiceUnavailable
}

func retrySeconds(err error) int {
	wait := retryAfter
	var u *valetkey.Unavailable
	if errors.As(err, &u) && u.RetryAfter > 0 {
		wait = u.RetryAfter
	}
	return int(math.Ceil(wait.Seconds()))
}

func (g *Guard) logRefusal(ctx context.Context, status int, err error, attrs ...slog.Attr) {
	level := slog.LevelDebug
	if status == http.StatusServiceUnavailable && ctx.Err() == nil { // nobody waits for the answer otherwise
		level = slog.LevelError
	}
	if g.log.Enabled(ctx, level) {
		g.log.LogAttrs(ctx, level, "request refused", append(attrs, slog.Int("status", status), slog.Any("err", err))...)
	}
}

// The schemes of access tokens (RFC 6750, section 3; RFC 9449, section 7.1).
const (
	bearerScheme = "Bearer"
	dpopScheme   = "DPoP"
)

// schemeOf returns the scheme that the credentials of r came with, also where they come without one, or "" if there are two.
func schemeOf(r *http.Request) string {
	c, _, err := inHeader(r.Header["Authorization"])
	switch {
	case err != nil:
		return ""
	case c.DPoP:
		return dpopScheme
	default:
		return bearerScheme
	}
}

// A challenge writes WWW-Authenticate (RFC 6750, section 3; RFC 9449, section 7.1).
type challenge struct {
	realm, errorURI, metadata string
	schemes                   []string // that are accepted, at least one
	algorithms                string   // of proofs, if DPoP is accepted
}

// lines returns one challenge for each scheme that is accepted, without those that would not help with what the token may
// not do. The error is only in that of the scheme that the credentials came with, if it is known and accepted, and in all
// otherwise (RFC 9449, section 7.2).
func (c challenge) lines(e *valetkey.Error, scheme string) (lines []string) {
	if e.Code == valetkey.InvalidProof || e.Code == valetkey.UseNonce {
		scheme = dpopScheme
	}
	known := slices.Contains(c.schemes, scheme)
	for _, s := range c.schemes {
		blamed := s == scheme || !known
		if blamed || e.Status() != http.StatusForbidden {
			lines = append(lines, c.text(s, e, blamed))
		}
	}
	return lines
}

func (c challenge) text(scheme string, e *valetkey.Error, blamed bool) string {
	var b strings.Builder
	b.WriteString(scheme)
	separator := " "
	param := func(name, value string) {
		if value == "" {
			return
		}
		b.WriteString(separator + name + `="`)
		writeQuoted(&b, value)
		b.WriteByte('"')
		separator = ", "
	}
	param("realm", c.realm)
	if blamed && e.Code != valetkey.NoCredentials { // RFC 6750, section 3.1: without credentials no error is named
		param("error", string(e.Code))
		param("error_description", e.Description)
		param("error_uri", c.errorURI)
	}
	var scope []string
	for _, s := range e.Scope { // a requirement of someone else's may name what is not a scope
		if scopes.Valid(s) == nil {
			scope = append(scope, s)
		}
	}
	param("scope", strings.Join(scope, " "))
	if up := e.StepUp; blamed && up != nil { // RFC 9470, section 3
		param("acr_values", strings.Join(up.ACRValues, " "))
		if up.MaxAge != nil {
			param("max_age", strconv.FormatInt(int64(up.MaxAge.Seconds()), 10))
		}
	}
	if scheme == dpopScheme {
		param("algs", c.algorithms)
	}
	param("resource_metadata", c.metadata) // RFC 9728, section 5.1
	return b.String()
}

// writeQuoted writes value in the characters that RFC 6750, section 3 allows, which need no escape in a quoted string
// and end no header line. Others become spaces.
func writeQuoted(b *strings.Builder, value string) {
	for _, c := range value {
		if !quotableRune(c) {
			c = ' '
		}
		b.WriteRune(c)
	}
}

// RFC 6750, section 3: %x20-21 / %x23-5B / %x5D-7E
func quotableRune(c rune) bool { return c >= 0x20 && c <= 0x7e && c != '"' && c != '\\' }

func quotable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return !quotableRune(c) })
}

// RFC 6750, section 3: %x21 / %x23-5B / %x5D-7E
func uriCharacters(s string) bool { return quotable(s) && !strings.Contains(s, " ") }

// plainText is the body of a refusal unless Config.Body says otherwise.
func plainText(_ context.Context, status int, e *valetkey.Error) (string, []byte) {
	text := http.StatusText(status)
	if e != nil && e.Description != "" {
		text += ": " + e.Description
	}
	return "text/plain; charset=utf-8", []byte(text + "\n")
}

// ProblemJSON is a [Config].Body: problem details (RFC 9457) of type about:blank with the members error and scope of
// RFC 6750 added.
func ProblemJSON(_ context.Context, status int, e *valetkey.Error) (contentType string, body []byte) {
	problem := struct {
		Type   string        `json:"type"`
		Title  string        `json:"title"`
		Status int           `json:"status"`
		Detail string        `json:"detail,omitempty"`
		Error  valetkey.Code `json:"error,omitempty"`
		Scope  string        `json:"scope,omitempty"`
	}{Type: "about:blank", Title: http.StatusText(status), Status: status}
	if e != nil {
		problem.Detail, problem.Error, problem.Scope = e.Description, e.Code, e.Scope.String()
	}
	body, _ = json.Marshal(problem) // strings and an int always marshal
	return "application/problem+json", append(body, '\n')
}
