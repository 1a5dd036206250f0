package middleware

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
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
	status, header, body := g.Refusal(r.Context(), err)
	// The path and not the URL: its query may hold a token.
	g.logRefusal(r.Context(), status, err, slog.String("method", r.Method), slog.String("path", r.URL.Path))
	h := w.Header()
	for name, values := range header {
		h[name] = values
	}
	w.WriteHeader(status)
	w.Write(body)
}

// Refusal returns the answer to err, for what is not net/http: 400, 401 or 403 with a challenge for a
// [valetkey.Error], and 503 with Retry-After for any other error, a nil one included, which is a failure of ours and
// does not make the client's token a bad one.
func (g *Guard) Refusal(ctx context.Context, err error) (status int, header http.Header, body []byte) {
	header = http.Header{
		"Cache-Control":          {"no-store"},
		"X-Content-Type-Options": {"nosniff"},
	}
	status = statusOf(err)
	var refusal *valetkey.Error
	if errors.As(err, &refusal) {
		header.Set("WWW-Authenticate", g.challenge.text(refusal))
	} else {
		header.Set("Retry-After", strconv.Itoa(retrySeconds(err)))
	}
	contentType, body := g.body(ctx, status, refusal)
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	return status, header, body
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

// A challenge writes WWW-Authenticate (RFC 6750, section 3).
type challenge struct{ realm, errorURI, metadata string }

func (c challenge) text(e *valetkey.Error) string {
	var b strings.Builder
	b.WriteString("Bearer")
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
	if e.Code != valetkey.NoCredentials { // section 3.1: without credentials no error is named
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
