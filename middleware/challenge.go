package middleware

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/scopes"
)

// schemeFor returns the scheme with which t was accepted.
func schemeFor(t *valetkey.Token) string {
	if t.Binding().JWKThumbprint != "" { // RFC 9449, section 7.1
		return authheader.DPoP
	}
	return authheader.Bearer
}

// A challenge writes WWW-Authenticate (RFC 6750, section 3; RFC 9449, section 7.1).
type challenge struct {
	realm, errorURI, metadata string
	schemes                   []string // the accepted schemes, at least one
	algorithms                string   // of proofs, if DPoP is accepted
}

// lines returns one challenge for each accepted scheme. For a 403 it omits the schemes that the client did not use, because
// another scheme would not help. Only the challenge of the scheme that the client used contains the error. If that scheme is
// unknown or not accepted, every challenge contains it (RFC 9449, section 7.2).
func (c challenge) lines(e *valetkey.Error, scheme string) (lines []string) {
	if e.Code == valetkey.InvalidProof || e.Code == valetkey.UseNonce {
		scheme = authheader.DPoP
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
		if e.Code != valetkey.Forbidden {
			param("error", string(e.Code))
		}
		param("error_description", e.Reason.Description())
		param("error_uri", c.errorURI)
	}
	var scope []string
	for s := range e.Scope.All() { // a custom requirement may list an invalid scope
		if scopes.Validate(s) == nil {
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
	if blamed { // base64 makes any text fit
		param("claims", base64.StdEncoding.EncodeToString([]byte(e.Claims)))
	}
	if scheme == authheader.DPoP {
		param("algs", c.algorithms)
	}
	param("resource_metadata", c.metadata) // RFC 9728, section 5.1
	return b.String()
}

// writeQuoted writes value and replaces each character that RFC 6750, section 3 does not allow with a space. The allowed
// characters need no escape in a quoted string and cannot end a header line.
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

// plainText is the default of Config.ErrorBody.
func plainText(_ context.Context, status int, e *valetkey.Error) (string, []byte) {
	text := http.StatusText(status)
	if e != nil {
		if description := e.Reason.Description(); description != "" {
			text += ": " + description
		}
	}
	return "text/plain; charset=utf-8", []byte(text + "\n")
}

// ProblemJSON writes the body of a refusal as problem details (RFC 9457) of type about:blank. It adds the members error and scope
// of RFC 6750. It is a value for [Config].ErrorBody.
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
		problem.Detail, problem.Error, problem.Scope = e.Reason.Description(), e.Code, e.Scope.String()
		if e.Code == valetkey.Forbidden { // not a code of RFC 6750
			problem.Error = ""
		}
	}
	body, _ = json.Marshal(problem) // strings and an int always marshal
	return "application/problem+json", append(body, '\n')
}
