package valetkey

import (
	"context"
	"errors"
	"time"
)

// A Revocation identifies tokens of one issuer to reject even though they still verify. Exactly one of ID, Subject,
// ClientID, SessionID and All selects them.
type Revocation struct {
	Issuer string // required

	ID        string // the token with this jti
	Subject   string // the tokens of this subject
	ClientID  string // the tokens of this client
	SessionID string // the tokens of this login session, by their sid
	All       bool   // all tokens of the issuer

	// Before spares tokens issued at this time or later, by the clock of the issuer: it is compared with iat as it is. A token
	// without iat counts as issued before. An iat has whole seconds, rounded down, so a token that is issued in the second of
	// Before is rejected, too, unless Before is the start of that second. ID ignores it. Zero: At applies.
	//
	// A user can log in again as soon as the issuer's clock has reached Before, so set it where that clock is known.
	Before time.Time

	// At is when the revocation was made, by a clock that may differ from the issuer's by the leeway of the verifier. It
	// applies if Before is zero, and spares tokens issued at At plus the leeway or later: with the default of 30 s, a user who
	// logs in again is rejected for that long. The leeway is Token.Deadline less Token.Expiry, and 5 min, the most that a
	// verifier allows, where they are unknown. Zero: when the revocation is applied.
	At time.Time

	// Until is when the last of these tokens has expired. The revocation is held for another 5 min, the most leeway of a
	// verifier, and until the Deadline of each token that it has rejected; that of a token without Deadline is never over.
	// Zero: 24 h after the revocation is applied.
	Until time.Time
}

// ErrRevocationsMissing is wrapped by an error that a [RevocationSource] reports once it has caught up with all revocations that
// there are, while it knows that others, which still matter, are lost. A guard then serves requests and is Degraded.
var ErrRevocationsMissing = errors.New("published revocations are missing")

// A RevocationSource delivers the revocations that other processes publish.
type RevocationSource interface {
	// Watch calls apply for the revocations made before that still matter, reports nil when it has caught up, and then calls
	// apply for each as it comes, one call at a time. When it may be missing some, it reports why, and nil once it has caught up
	// again, so that none is missed; apply may be called for the same one again. If it has caught up, but revocations are lost, it
	// reports an error that wraps [ErrRevocationsMissing], until those do not matter any more. An error of apply is about malformed
	// ones; the others apply. Watch returns when ctx is done, or with the error that ends it for good.
	Watch(ctx context.Context, apply func(...Revocation) error, report func(error)) error
}
