package valetkey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Verifier turns the text of an access token into a [Token].
//
//   - A refusal the client may be told is an [*Error]. It wraps [ErrNotApplicable] if another Verifier might accept the token.
//   - Any other error is a failure: the answer could not be found out, and the client gets 503.
//   - An accepted token comes with a nil error; nil and nil is a failure.
//
// Verify must be safe for concurrent use, must return soon after ctx is done, and must never put the token's text into
// an error. It need not remember tokens: package middleware does.
type Verifier interface {
	Verify(ctx context.Context, raw string) (*Token, error)
}

// MaxToken is the length, in bytes, above which a token is refused before anything in it is read.
const MaxToken = 16 << 10

// VerifierFunc makes a function a [Verifier].
type VerifierFunc func(ctx context.Context, raw string) (*Token, error)

// Verify calls f.
func (f VerifierFunc) Verify(ctx context.Context, raw string) (*Token, error) {
	return f(ctx, raw)
}

// A Purger is a [Verifier] that holds answers of its own, or asks on behalf of several requests at once. Purge makes
// it rely on nothing that it was told before; the purge of a guard calls it. It is safe for concurrent use.
type Purger interface {
	Purge()
}

// ErrNotApplicable is wrapped by a refusal that another [Verifier] might not share: the token is of another form or of
// another issuer. See [First].
var ErrNotApplicable = errors.New("the token is not for this verifier")

// errNoAnswer is the failure of a Verifier that returned neither a token nor an error.
var errNoAnswer = errors.New("valetkey: the verifier returned neither a token nor an error")

// First returns a [Verifier] that asks vs in turn. The first answer counts, whether yes, no or failure; only a refusal
// that wraps [ErrNotApplicable] passes the question on. If all pass it on, or vs is empty, the token is refused.
func First(vs ...Verifier) Verifier {
	return first(slices.Clone(vs))
}

type first []Verifier

func (vs first) Verify(ctx context.Context, raw string) (*Token, error) {
	var refusal error = &Error{Code: InvalidToken, Reason: ReasonUntrustedIssuer, Err: ErrNotApplicable}
	for _, v := range vs {
		t, err := ask(ctx, v, raw)
		if !errors.Is(err, ErrNotApplicable) {
			return t, err
		}
		if len(vs) == 1 {
			refusal = err
		}
	}
	return nil, refusal
}

// CrossCheck returns a [Verifier] that gives v's token once by has accepted it too: a JWT verified locally whose issuer is
// asked whether it still stands, say. Bindings from both results apply, and so does the earlier Deadline. The answer may be
// relied on for as long as both may, so a guard asks both again when the shorter one ends: after introspect.Config.CacheTTL,
// if by is an introspection.
func CrossCheck(v, by Verifier) Verifier {
	return crossCheck{v, by}
}

type crossCheck struct{ v, by Verifier }

func (c crossCheck) Verify(ctx context.Context, raw string) (*Token, error) {
	t, err := ask(ctx, c.v, raw)
	if err != nil {
		return nil, err
	}
	second, err := ask(ctx, c.by, raw)
	if err != nil {
		return nil, err
	}
	both, other := t.Fields(), second.fields
	both.Freshness = both.Freshness.And(other.Freshness)
	if d := other.Deadline; !d.IsZero() && (both.Deadline.IsZero() || d.Before(both.Deadline)) {
		both.Deadline = d
	}
	both.SessionID = cmp.Or(both.SessionID, other.SessionID)
	var agree bool
	if both.Binding, agree = both.Binding.and(other.Binding); !agree {
		return nil, &Error{Code: InvalidToken, Reason: ReasonBindingsDiffer}
	}
	return NewToken(both), nil
}

// ask calls v and holds it to its contract.
func ask(ctx context.Context, v Verifier, raw string) (*Token, error) {
	if v == nil {
		return nil, errors.New("valetkey: a verifier is nil")
	}
	t, err := v.Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, errNoAnswer
	}
	return t, nil
}

func (vs first) Purge()     { forget(vs...) }
func (c crossCheck) Purge() { forget(c.v, c.by) }

func forget(vs ...Verifier) {
	for _, v := range vs {
		if f, ok := v.(Purger); ok {
			f.Purge()
		}
	}
}

// Unavailable is a failure that knows when it is worth trying again. Any error that is not an [*Error] is a failure;
// this one adds the Retry-After of the 503 response.
type Unavailable struct {
	RetryAfter time.Duration // zero: the guard's own default
	Err        error
}

func (u *Unavailable) Error() string { return fmt.Sprintf("temporarily unavailable: %v", u.Err) }

// Unwrap returns u.Err.
func (u *Unavailable) Unwrap() error { return u.Err }
