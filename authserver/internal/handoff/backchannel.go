package handoff

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// The messages of the page are JWTs in the body of a POST. Their signature is the authentication of the page: a leaked configuration,
// log or memory of this server contains nothing that could answer, and neither does a proxy that terminates TLS. The types differ
// (RFC 8725, section 3.11), so the text of a question can never be an answer.
const (
	questionType = "login-challenge+jwt"
	answerType   = "login-answer+jwt"
)

const (
	maxMessage = 8 << 10          // bytes
	maxLife    = 5 * time.Minute  // of a message, from now
	skew       = 30 * time.Second // tolerated in the page's clock
	maxSubject = 255              // bytes: OpenID Connect Core 1.0, section 2
	maxDisplay = 255              // bytes
	maxID      = 256              // bytes of a jti
)

// ReturnPath is the path, below that of the issuer, that the page sends the browser to. The caller serves it.
const ReturnPath = "/login/return"

// errorCodes are the errors that an answer may have; see flow.Decision.
var errorCodes = []string{"access_denied", "login_required", "interaction_required", "unmet_authentication_requirements"}

// Routes registers the back channel below path, that of the issuer. Requests without a valid signature cost one verification, and no
// access to the store.
func (d *Door) Routes(mux *http.ServeMux, path string) {
	mux.Handle("POST "+path+"/login/challenge", d.receive(questionType, d.describe))
	mux.Handle("POST "+path+"/login/answer", d.receive(answerType, d.accept))
}

// A problem is an error response of the back channel. Its description is for the author of the page.
type problem struct {
	status            int
	code, description string
}

func (p *problem) Error() string { return p.code + ": " + p.description }

func invalid(format string, args ...any) error {
	return &problem{http.StatusBadRequest, "invalid_request", fmt.Sprintf(format, args...)}
}

var (
	errSignature = &problem{http.StatusBadRequest, "invalid_signature", "no configured key has signed the JWT"}
	errUnknown   = &problem{http.StatusNotFound, "unknown_challenge", "the challenge has expired, or never existed"}
	errReturned  = &problem{http.StatusConflict, "already_answered", "the browser has returned with an answer"}
	errReplayed  = &problem{http.StatusConflict, "already_used", "an answer with this jti was accepted before: sign a new one"}
)

func (d *Door) receive(kind string, do func(context.Context, *message) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m, err := d.read(w, r, kind)
		var body any
		if err == nil {
			body, err = do(r.Context(), m)
		}
		status := http.StatusOK
		if err != nil {
			p, ok := errors.AsType[*problem](err)
			if !ok {
				d.cfg.Logger.ErrorContext(r.Context(), "log-in hand-off not served", "path", r.URL.Path, "error", err)
				p = &problem{http.StatusServiceUnavailable, "temporarily_unavailable", "try again later"}
				w.Header().Set("Retry-After", "5")
			} else {
				d.cfg.Logger.WarnContext(r.Context(), "message about a log-in refused", "path", r.URL.Path, "error", p.code, "reason", p.description)
			}
			status, body = p.status, map[string]string{"error": p.code, "error_description": p.description}
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	})
}

// A message is a verified JWT of the page.
type message struct {
	challenge         string
	id                string // jti
	audience          valetkey.List[string]
	expires, issued   time.Time
	subject, acr      string
	display, code     string
	authTime          time.Time
	scopes            []string // nil: no scope claim
	hasScopes, hasSub bool
}

// read reads and verifies a message: the signature first, because a sender that cannot sign should learn nothing.
func (d *Door) read(w http.ResponseWriter, r *http.Request, kind string) (*message, error) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/jwt" {
		return nil, &problem{http.StatusUnsupportedMediaType, "invalid_request", "the content type is not application/jwt"}
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if err != nil {
		return nil, invalid("the body is longer than %d bytes, or cannot be read", maxMessage)
	}
	token, err := jose.Parse(strings.TrimSpace(string(raw)))
	switch {
	case err != nil:
		return nil, invalid("the body is not a signed JWT")
	case !slices.Contains(jose.Algorithms(), token.Header.Algorithm): // RFC 8725, section 3.1
		return nil, errSignature
	case !slices.ContainsFunc(d.cfg.Keys, func(k *jose.Key) bool { return k.Verify(token) == nil }):
		return nil, errSignature
	case !jose.SameType(token.Header.Type, kind):
		return nil, invalid("typ: %q, want %s", token.Header.Type, kind)
	}
	m, err := claimsOf(token.Payload)
	if err != nil {
		return nil, invalid("%v", err)
	}
	now := time.Now()
	switch {
	case len(m.audience.Slice()) != 1 || !m.audience.Has(d.cfg.Issuer): // RFC 8725, section 3.9: one server, exactly
		return nil, invalid("aud: want only %s", d.cfg.Issuer)
	case m.expires.IsZero():
		return nil, invalid("exp: required")
	case !now.Before(m.expires.Add(skew)):
		return nil, invalid("exp: the JWT has expired")
	case m.expires.After(now.Add(maxLife + skew)):
		return nil, invalid("exp: more than %v ahead", maxLife)
	case m.issued.After(now.Add(skew)):
		return nil, invalid("iat: in the future")
	case m.challenge == "":
		return nil, invalid("challenge: required")
	}
	return m, nil
}

// claimsOf parses the claims of a message. Unknown claims are ignored. Unlike in the tokens of others, null is a mistake: the page of the
// operator would allow all scopes with a scope that it has not set.
func claimsOf(payload []byte) (*message, error) {
	m := new(message)
	err := strictjson.Entries(payload, func(name string, v strictjson.Value) (err error) {
		switch name {
		case "challenge":
			err = tokenclaims.Text(&m.challenge, name, v, false)
		case "jti":
			err = tokenclaims.Text(&m.id, name, v, false)
		case "aud":
			m.audience, err = tokenclaims.Audience(v, false)
		case "exp":
			err = tokenclaims.Date(&m.expires, name, v, false)
		case "iat":
			err = tokenclaims.Date(&m.issued, name, v, false)
		case "sub":
			m.hasSub = true
			err = tokenclaims.Text(&m.subject, name, v, false)
		case "acr":
			err = tokenclaims.Text(&m.acr, name, v, true)
		case "auth_time":
			err = tokenclaims.Date(&m.authTime, name, v, false)
		case "name":
			err = tokenclaims.Text(&m.display, name, v, true)
		case "scope":
			m.hasScopes = true
			m.scopes, err = tokenclaims.AppendScopes([]string{}, v, true)
		case "error":
			err = tokenclaims.Text(&m.code, name, v, false)
		}
		return err
	}, "challenge", "jti", "aud", "exp", "iat", "sub", "acr", "auth_time", "name", "scope", "error")
	return m, err
}

// waiting returns the challenge of a message, unless its browser has returned.
func (d *Door) waiting(ctx context.Context, m *message) (*challenge, error) {
	c, err := d.load(ctx, m.challenge)
	switch {
	case errors.Is(err, ErrExpired):
		return nil, errUnknown
	case err != nil:
		return nil, err
	case c.Used:
		return nil, errReturned
	}
	return c, nil
}

// describe answers what the log-in is for.
func (d *Door) describe(ctx context.Context, m *message) (any, error) {
	c, err := d.waiting(ctx, m)
	if err != nil {
		return nil, err
	}
	return struct {
		Request
		Expires int64 `json:"expires_at"`
	}{c.Request, c.record.Expires.Unix()}, nil
}

// accept stores an answer, and returns where the page sends the browser. A later answer replaces an earlier one until the browser has
// returned: a double click at the page submits its form twice, and only the last response counts.
func (d *Door) accept(ctx context.Context, m *message) (any, error) {
	answer, err := d.answer(m)
	if err != nil {
		return nil, err
	}
	verifier := secret()
	for used := false; ; used = true {
		c, err := d.waiting(ctx, m)
		if err != nil {
			return nil, err
		}
		if !used {
			if err := d.use(ctx, m); err != nil {
				return nil, err
			}
		}
		c.Answer, c.Verifier = answer, store.Digest(verifier)
		err = d.save(ctx, m.challenge, c)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, err
		}
		break
	}
	d.cfg.Logger.InfoContext(ctx, "log-in answered", "subject", answer.User.Subject, "acr", answer.ACR, "error", answer.Error)
	to := strings.TrimSuffix(d.cfg.Issuer, "/") + ReturnPath + "?" + url.Values{"login_challenge": {m.challenge}, "login_verifier": {verifier}}.Encode()
	return map[string]string{"redirect_to": to}, nil
}

// use accepts a jti once. Only the page can fill the store with them.
func (d *Door) use(ctx context.Context, m *message) error {
	_, err := d.cfg.Store.Put(ctx, store.Record{Kind: "jti", ID: store.Digest("\nlogin answer\n" + m.id), Expires: m.expires.Add(skew + time.Second)})
	switch {
	case errors.Is(err, store.ErrConflict):
		return errReplayed
	case err != nil:
		return fmt.Errorf("remember the answer: %w", err)
	}
	return nil
}

// answer validates the claims of an answer. Whether they satisfy the request is decided when the browser returns, so that the client
// gets the error that the standards have for it.
func (d *Door) answer(m *message) (*Answer, error) {
	switch {
	case m.id == "" || len(m.id) > maxID:
		return nil, invalid("jti: required, at most %d bytes", maxID)
	case m.code != "" && m.hasSub:
		return nil, invalid("error: cannot be combined with sub")
	case m.code != "" && !slices.Contains(errorCodes, m.code):
		return nil, invalid("error: %q, want one of %v", m.code, errorCodes)
	case m.code != "":
		return &Answer{Error: m.code}, nil
	case m.subject == "" || len(m.subject) > maxSubject || strings.ContainsFunc(m.subject, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, invalid("sub: 1 to %d visible ASCII characters are required", maxSubject)
	case m.authTime.IsZero():
		return nil, invalid("auth_time: required")
	case m.authTime.After(time.Now().Add(skew)):
		return nil, invalid("auth_time: in the future")
	case m.acr != "" && !slices.Contains(d.cfg.ACRs, m.acr):
		return nil, invalid("acr: %q is not one of login.acr_values, %v", m.acr, d.cfg.ACRs)
	case len(m.display) > maxDisplay || !utf8.ValidString(m.display) || strings.ContainsFunc(m.display, unicode.IsControl):
		return nil, invalid("name: at most %d bytes without control characters", maxDisplay)
	}
	a := &Answer{At: time.Now(), ACR: m.acr, AuthTime: m.authTime, User: login.User{
		Subject: d.cfg.UserType + ":" + m.subject, Type: d.cfg.UserType, Name: m.subject, Display: m.display,
	}}
	if m.hasScopes {
		a.User.Scopes = m.scopes // not nil: an empty scope allows nothing
	}
	return a, nil
}
