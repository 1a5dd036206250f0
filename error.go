package valetkey

import "net/http"

// A Code is the error code of a challenge.
type Code string

// The codes of RFC 6750, section 3.1.
const (
	NoCredentials     Code = ""                   // 401 with a challenge that names no error
	InvalidRequest    Code = "invalid_request"    // 400
	InvalidToken      Code = "invalid_token"      // 401
	InsufficientScope Code = "insufficient_scope" // 403
)

// An Error is a refusal: what the client is told, and the cause, which it is not.
type Error struct {
	Code Code

	// Description is told to the client as error_description. It is one of a fixed, finite set of texts, so it also
	// serves as the label of a metric; never the token, never Err.
	Description string

	// Scope is what would have been enough, all of it (RFC 6750, section 3).
	Scope Scopes

	// Err is the cause, for the log. It never holds the token's text.
	Err error
}

// Status returns the HTTP status of the refusal: 400, 401 or 403.
func (e *Error) Status() int {
	switch e.Code {
	case InvalidRequest:
		return http.StatusBadRequest
	case InsufficientScope:
		return http.StatusForbidden
	default:
		return http.StatusUnauthorized
	}
}

// Error returns the code, the description and the cause, for the log.
func (e *Error) Error() string {
	s := string(e.Code)
	if e.Code == NoCredentials {
		s = "no credentials"
	}
	if e.Description != "" {
		s += ": " + e.Description
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }
