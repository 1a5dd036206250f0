package valetkey

import (
	"net/http"
	"time"
)

// A Code is the error code of a challenge.
type Code string

// The codes of RFC 6750, section 3.1.
const (
	NoCredentials     Code = ""                   // 401 with a challenge that names no error
	InvalidRequest    Code = "invalid_request"    // 400
	InvalidToken      Code = "invalid_token"      // 401
	InsufficientScope Code = "insufficient_scope" // 403
)

// The codes of RFC 9449, sections 7.1 and 9, about the proof that comes with a token.
const (
	InvalidProof Code = "invalid_dpop_proof" // 401
	UseNonce     Code = "use_dpop_nonce"     // 401, with the nonce in the DPoP-Nonce header
)

// InsufficientUserAuthentication is the code of RFC 9470, section 3: the user has to log in again, or in another way.
const InsufficientUserAuthentication Code = "insufficient_user_authentication" // 401

// An Error is a refusal: what the client is told, and the cause, which it is not.
type Error struct {
	Code Code

	// Reason is why. Its Description is the error_description that the client reads; metrics and programs use the Reason.
	Reason Reason

	// Scope is what would have been enough, all of it (RFC 6750, section 3).
	Scope Scopes

	// StepUp is how the user has to log in, with InsufficientUserAuthentication.
	StepUp *StepUp

	// Err is the cause, for the log. It never holds the token's text.
	Err error
}

// A StepUp is how a user has to log in for a token to be enough (RFC 9470, section 3).
type StepUp struct {
	ACRValues []string       // in one of these ways, the preferred one first; nil: in any
	MaxAge    *time.Duration // no longer ago; nil: at any time
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

// Error returns the code, the description of the reason and the cause, for the log.
func (e *Error) Error() string {
	s := string(e.Code)
	if e.Code == NoCredentials {
		s = "no credentials"
	}
	if description := e.Reason.Description(); description != "" {
		s += ": " + description
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }
