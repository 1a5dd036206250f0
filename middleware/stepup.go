package middleware

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
)

// ACR returns a requirement that the claim acr of the token is one of values, in order of preference (RFC 9470). A token without
// acr is refused. Without values, every token is refused. The refusal is 401 insufficient_user_authentication, with which a
// client can ask its user for a stronger login.
//
//	guard.Handler(transfer, scopes.All("payments"), middleware.ACR("phr", "phrh"), middleware.MaxAge(5*time.Minute))
//
// ACR panics if a value is empty, or contains a space or a character that a challenge cannot carry. This is a mistake in the
// source.
func ACR(values ...string) valetkey.Requirement {
	for _, v := range values {
		if v == "" || strings.Contains(v, " ") || !quotable(v) {
			panic(fmt.Sprintf("middleware: ACR: %q is not a valid acr value", v))
		}
	}
	return acr(slices.Clone(values))
}

type acr []string

// Check compares the ACR of the token.
func (values acr) Check(a valetkey.Access) error {
	if slices.Contains(values, a.Token.ACR()) { // no value is empty
		return nil
	}
	return &valetkey.Error{
		Code:   valetkey.InsufficientUserAuthentication,
		Reason: valetkey.ReasonACR,
		StepUp: &valetkey.StepUp{ACRValues: values},
	}
}

// Describe returns the values.
func (values acr) Describe() valetkey.Needs {
	return valetkey.Needs{StepUp: &valetkey.StepUp{ACRValues: values}}
}

// MaxAge returns a requirement that the user logged in at most d ago, by the claim auth_time (RFC 9470, section 3). d is
// truncated to seconds. A token without auth_time, or with one more than a minute in the future, is refused. With zero, every
// token is refused: the user must log in for this request. The refusal is 401 insufficient_user_authentication. MaxAge panics if
// d is negative.
func MaxAge(d time.Duration) valetkey.Requirement {
	if d < 0 {
		panic(fmt.Sprintf("middleware: MaxAge: %v is negative", d))
	}
	return maxAge(d.Truncate(time.Second))
}

type maxAge time.Duration

// maxAhead is how far ahead the clock of an issuer may be. A later auth_time is invalid: one in milliseconds, for example, would
// never become too old.
const maxAhead = time.Minute

// Check compares auth_time with the time of the access. iat is not a substitute, because refreshing a token renews it.
func (d maxAge) Check(a valetkey.Access) error {
	at := a.Token.AuthTime()
	if age, limit := a.Time.Sub(at), time.Duration(d); !at.IsZero() && limit > 0 && -maxAhead <= age && age <= limit {
		return nil
	}
	return &valetkey.Error{
		Code:   valetkey.InsufficientUserAuthentication,
		Reason: valetkey.ReasonAuthAge,
		StepUp: &valetkey.StepUp{MaxAge: (*time.Duration)(&d)},
	}
}

// Describe returns the age.
func (d maxAge) Describe() valetkey.Needs {
	return valetkey.Needs{StepUp: &valetkey.StepUp{MaxAge: (*time.Duration)(&d)}}
}
