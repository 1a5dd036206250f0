package valetkey

import (
	"net/http"
	"time"
)

// A Code is the error code of a challenge. The zero value is [NoCredentials].
type Code string

// The codes of RFC 6750, section 3.1.
const (
	NoCredentials     Code = ""                   // 401 with a challenge that names no error
	InvalidRequest    Code = "invalid_request"    // 400
	InvalidToken      Code = "invalid_token"      // 401
	InsufficientScope Code = "insufficient_scope" // 403
)

// The codes of RFC 9449, sections 7.1 and 9, for the DPoP proof that accompanies a token.
const (
	InvalidProof Code = "invalid_dpop_proof" // 401
	UseNonce     Code = "use_dpop_nonce"     // 401, with the nonce in the DPoP-Nonce header
)

// InsufficientUserAuthentication is the code of RFC 9470, section 3: the user must log in again, or with another method.
const InsufficientUserAuthentication Code = "insufficient_user_authentication" // 401

// InsufficientClaims is the code of a claims challenge, as Microsoft Entra ID defines it: the client must get another token, for which
// the issuer asks the user for more, such as a second factor or consent. See [Error].Claims.
const InsufficientClaims Code = "insufficient_claims" // 401

// Forbidden is the code of a refusal with 403 that no token with more scopes would change, because of who the caller is or what the
// request is about. The challenge contains no error: RFC 6750, section 3.1, defines none for this case, and insufficient_scope would
// make clients request another token.
const Forbidden Code = "forbidden" // 403

// An Error is a refusal. The client receives all fields except Err, the cause.
type Error struct {
	// Code is the error code of the challenge, except for NoCredentials and Forbidden. It determines the status.
	Code Code

	// Reason identifies why the token or the request was refused, for metrics and programs. Its Description is the
	// error_description of the challenge.
	Reason Reason

	// Scope lists all scopes of a sufficient token (RFC 6750, section 3).
	Scope Scopes

	// StepUp describes the required login, with InsufficientUserAuthentication.
	StepUp *StepUp

	// Claims is the claims parameter of the next authorization request (OpenID Connect Core, section 5.5), a JSON object, with
	// InsufficientClaims. The challenge contains it in base64. Empty: none.
	Claims string

	// Err is the cause, for the log. It must never contain the token's text. Nil: none.
	Err error
}

// A StepUp describes the login that a sufficient token requires (RFC 9470, section 3).
type StepUp struct {
	ACRValues []string       // the accepted authentication context classes, in order of preference; nil: any
	MaxAge    *time.Duration // the maximum time since the login; nil: unlimited
}

// Status returns the HTTP status of the refusal: 400, 401 or 403.
func (e *Error) Status() int {
	switch e.Code {
	case InvalidRequest:
		return http.StatusBadRequest
	case InsufficientScope, Forbidden:
		return http.StatusForbidden
	default:
		return http.StatusUnauthorized
	}
}

// Error returns the code, the description of the reason and the cause. It is for the log; the client must not see it.
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
