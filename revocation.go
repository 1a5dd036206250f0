package valetkey

import (
	"context"
	"errors"
	"time"
)

// A Revocation identifies tokens of one issuer to reject even though they still verify. Exactly one of ID, Subject, ClientID,
// SessionID and All selects the tokens.
type Revocation struct {
	// Issuer is the [Token.Issuer] of the tokens. Required. For an issuer with aliases (jwks.Config.IssuerAliases) it is the configured
	// Issuer, whatever the iss of the token is; for one with many tenants, it is that of the tenant.
	Issuer string

	ID        string // the token with this jti
	Subject   string // the tokens of this subject
	ClientID  string // the tokens of this client
	SessionID string // the tokens of this login session, by their sid
	All       bool   // all tokens of the issuer

	// Before exempts tokens issued at this time or later, by the clock of the issuer. It is compared with iat without a leeway. A
	// token without iat counts as issued before. An iat has whole seconds, rounded down, so a token issued within the second of
	// Before is rejected too, unless Before is the start of that second. A revocation by ID ignores Before. Zero: At applies.
	//
	// A user can log in again as soon as the issuer's clock has reached Before, so set it where that clock is known.
	Before time.Time

	// At is the time of the revocation, by a clock that may differ from the issuer's by the leeway of the verifier. It applies if
	// Before is zero, and exempts tokens issued at At plus the leeway or later. With the default leeway of 30 s, a user who logs
	// in again is rejected for that long. The leeway is Token.Deadline minus Token.Expiry. If these are unknown, it is 5 min,
	// the most that a verifier allows. Zero: the time at which the revocation is applied.
	At time.Time

	// Until is the time at which the last of these tokens has expired. The revocation is held for another 5 min, the most leeway
	// that a verifier allows, and until the Deadline of each token that it has rejected. A token without Deadline is rejected
	// forever. Zero: middleware.Revocations.Keep, 24 h by default, after the revocation is applied.
	Until time.Time
}

// ErrRevocationsMissing is wrapped by an error that a [RevocationSource] reports if it has caught up with all available
// revocations but knows that others, which are still in force, are lost. A guard then serves requests and is [Degraded].
var ErrRevocationsMissing = errors.New("published revocations are missing")

// A RevocationSource delivers the revocations that other processes publish.
type RevocationSource interface {
	// Watch calls apply for the earlier revocations that are still in force, and calls report with nil when it has caught up.
	// Then it calls apply for each new revocation, one call at a time. An error of apply is about malformed revocations; the
	// others are applied.
	//
	// When Watch may be missing revocations, it reports the cause, and nil once it has caught up again. It may call apply again
	// for the same revocation, so that none is missed. If it has caught up, but revocations are lost, it reports an error that
	// wraps [ErrRevocationsMissing], until the lost revocations have ended.
	//
	// Watch returns when ctx is done, or when it cannot continue, with the error.
	Watch(ctx context.Context, apply func(...Revocation) error, report func(error)) error
}
