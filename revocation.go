package valetkey

import (
	"context"
	"time"
)

// A Revocation names tokens of one issuer that hold no longer, though they verify. Exactly one of ID, Subject, ClientID
// and All says which.
type Revocation struct {
	Issuer string // required

	ID       string // the token with this jti
	Subject  string // the tokens of this subject
	ClientID string // the tokens of this client
	All      bool   // all tokens of the issuer

	// Before spares the tokens that were issued then or later; one that does not say when it was issued counts as issued
	// before. It does not matter with ID. Zero: the time at which the revocation is applied.
	Before time.Time

	// Until is when the last of these tokens has expired, so that the revocation can be forgotten. Zero: 24 h after it is
	// applied.
	Until time.Time
}

// Revocations is where revocations come from that other processes make known.
type Revocations interface {
	// Follow calls apply for each revocation: first for those made before that still matter, then for each as it comes.
	// After trouble it catches up, so that none is missed; apply may be called for the same one again. It returns when
	// ctx is done, or with the error that ends it for good.
	Follow(ctx context.Context, apply func(Revocation) error) error
}
