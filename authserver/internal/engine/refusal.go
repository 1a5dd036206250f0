package engine

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// A refusal is an error that is reported to the client (RFC 6749, sections 4.1.2.1 and 5.2). The description is fixed text.
type refusal struct {
	status      int
	code        string
	description string
	retryAfter  time.Duration // zero: no Retry-After
}

func (r *refusal) Error() string { return r.code + ": " + r.description }

func (r *refusal) params() url.Values {
	return url.Values{"error": {r.code}, "error_description": {r.description}}
}

func badRequest(code, description string) error {
	return &refusal{status: http.StatusBadRequest, code: code, description: description}
}

func invalidRequest(description string) error { return badRequest("invalid_request", description) }

// tooMany is the refusal of a limiter. RFC 6749 has no error code for it (RFC 9126, section 2.3).
func tooMany(err error) error {
	told := &refusal{status: http.StatusTooManyRequests, code: "invalid_request", description: "too many requests: wait"}
	if many, ok := errors.AsType[*login.TooMany](err); ok {
		told.retryAfter = many.RetryAfter
	}
	return told
}

var (
	errTooLong       = &refusal{status: http.StatusRequestEntityTooLarge, code: "invalid_request", description: "the request is too long"}
	errClient        = &refusal{status: http.StatusUnauthorized, code: "invalid_client", description: "the client is unknown, or its authentication is missing or wrong"}
	errGrant         = badRequest("invalid_grant", "the grant is invalid, expired, revoked, used already, or of another client")
	errScope         = badRequest("invalid_scope", "a scope is unknown, or not available to the client or at the resource")
	errDetails       = badRequest("invalid_authorization_details", "authorization_details is malformed, not granted, or of a type that the resource does not have")
	errTarget        = badRequest("invalid_target", "name one known API in the resource parameter")
	errNotItsToken   = badRequest("invalid_request", "a token is not from this server, not active, or not exchangeable by this client")
	errExchanged     = badRequest("invalid_request", "the token is the result of 8 exchanges, the maximum: exchange an earlier one")
	errNotTheClients = badRequest("unauthorized_client", "the client may not use this grant")
	errOutage        = &refusal{status: http.StatusInternalServerError, code: "server_error", description: "internal error: the request may be valid"}
)

// noRoom is the refusal of a request that must be remembered but cannot be. To allow it anyway could allow it twice.
func noRoom(wait time.Duration) error {
	return &refusal{
		status: http.StatusServiceUnavailable, code: "temporarily_unavailable",
		description: "the server has no room to remember the request: try again later", retryAfter: max(wait, time.Second),
	}
}

const documentWait = 30 * time.Second // after a failure to fetch a client's metadata document

// explain returns the refusal for err. An internal failure is logged and returned as errOutage.
func (e *Engine) explain(c *call, err error) *refusal {
	// The record that this call wanted to change has changed: a code, a refresh token, or an interaction.
	if errors.Is(err, store.ErrConflict) {
		err = errGrant
	}
	if busy, ok := errors.AsType[*valetkey.Unavailable](err); ok {
		err = noRoom(busy.RetryAfter)
	} else if errors.Is(err, store.ErrFull) {
		err = noRoom(time.Minute)
	}
	if document, ok := errors.AsType[*clients.DocumentError](err); ok {
		err = &refusal{status: http.StatusUnauthorized, code: errClient.code, description: document.Error()}
		if document.Temporary {
			err = &refusal{
				status: http.StatusServiceUnavailable, code: "temporarily_unavailable", description: document.Error(), retryAfter: documentWait,
			}
		}
	}
	var told *refusal
	if !errors.As(err, &told) {
		e.cfg.Logger.ErrorContext(c.r.Context(), "request not answered", "path", c.path, "error", err)
		return errOutage
	}
	e.cfg.Audit(c.r.Context(), Event{Name: Refused, Path: c.path, Client: c.clientID(), Error: told.code})
	return told
}

// refuse writes the error response for a client (RFC 6749, section 5.2).
func (e *Engine) refuse(w http.ResponseWriter, c *call, err error) {
	told := e.explain(c, err)
	if told.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="authorization server"`)
	}
	if told.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(told.retryAfter.Seconds()))))
	}
	body, _ := json.Marshal(map[string]string{"error": told.code, "error_description": told.description})
	answer(w, told.status, "application/json", body)
}

// respond writes a JSON response for a client, or the error.
func (e *Engine) respond(w http.ResponseWriter, c *call, status int, said any, err error) {
	var body []byte
	if err == nil {
		body, err = json.Marshal(said)
	}
	if err != nil {
		e.refuse(w, c, err)
		return
	}
	answer(w, status, "application/json", body)
}

func answer(w http.ResponseWriter, status int, contentType string, body []byte) {
	// RFC 6749, section 5.1.
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	if len(body) > 0 { // a revocation has none
		w.Header().Set("Content-Type", contentType)
	}
	w.WriteHeader(status)
	w.Write(body)
}
