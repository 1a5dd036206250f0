package middleware

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
)

// ACR is met by a token whose user logged in in one of these ways, by the claim acr; the preferred one stands first. A token
// that does not say is refused, and so is every token if there are no values (RFC 9470). The refusal is 401
// insufficient_user_authentication, with which a client can ask its user for more.
//
//	guard.Handler(transfer, scopes.All("payments"), middleware.ACR("phr", "phrh"), middleware.MaxAge(5*time.Minute))
//
// It panics if a value is empty or holds what a challenge cannot carry, since it stands in the source.
func ACR(values ...string) valetkey.Requirement {
	for _, v := range values {
		if v == "" || strings.Contains(v, " ") || !quotable(v) {
			panic(fmt.Sprintf("middleware: ACR: %q is not a value of acr_values", v))
		}
	}
	return acr(slices.Clone(values))
}

type acr []string

// Check compares the ACR of the token.
func (values acr) Check(a valetkey.Access) error {
	if value := a.Token.ACR(); value != "" && slices.Contains(values, value) {
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

// MaxAge is met by a token whose user logged in no longer ago than d, in whole seconds, by the claim auth_time; a token that
// does not say, or names a time more than a minute ahead, is refused. Zero refuses every token: the user has to log in for
// this very request (RFC 9470, section 3). It panics if d is negative.
func MaxAge(d time.Duration) valetkey.Requirement {
	if d < 0 {
		panic(fmt.Sprintf("middleware: MaxAge: %v is negative", d))
	}
	return maxAge(d.Truncate(time.Second))
}

type maxAge time.Duration

// maxAhead is how far ahead the clock of an issuer may be. An auth_time that is later is of no login: that of an issuer
// that counts milliseconds would never grow old.
const maxAhead = time.Minute

// Check compares auth_time with the time of the access. iat is no substitute: a refreshed token is a new one.
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
