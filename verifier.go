package valetkey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Verifier verifies the text of an access token and returns its facts as a [Token].
type Verifier interface {
	// Verify verifies raw.
	//
	//   - If it accepts the token, it returns it with a nil error.
	//   - If it refuses the token, it returns an [*Error], whose reason the client may know. The refusal wraps
	//     [ErrNotApplicable] if another Verifier might accept the token.
	//   - Any other error is a failure: Verify could not find out whether the token is valid, and the client gets 503. A nil
	//     token with a nil error is a failure too.
	//
	// Verify must be safe for concurrent use, must return soon after ctx is done, and must never put the token's text into an
	// error. It need not cache tokens: package middleware does.
	Verify(ctx context.Context, raw string) (*Token, error)
}

// MaxTokenBytes is the maximum length of a token in bytes, unless the setting of the same name of a guard and its verifiers changes
// it. A longer token is refused before any of it is parsed.
const MaxTokenBytes = 16 << 10

// VerifierFunc adapts a function to a [Verifier].
type VerifierFunc func(ctx context.Context, raw string) (*Token, error)

// Verify calls f.
func (f VerifierFunc) Verify(ctx context.Context, raw string) (*Token, error) {
	return f(ctx, raw)
}

// A Purger is a [Verifier] that caches results, or that shares one verification among several requests. The purge of a guard calls
// its Purge.
type Purger interface {
	// Purge discards all cached results. Later calls do not join verifications that are in progress either. It must be safe for
	// concurrent use.
	Purge()
}

// ErrNotApplicable is wrapped by a refusal if another [Verifier] might accept the token, because the token has another format or
// another issuer. See [First].
var ErrNotApplicable = errors.New("the token is not for this verifier")

// errNoAnswer is the failure of a Verifier that returned neither a token nor an error.
var errNoAnswer = errors.New("valetkey: the verifier returned neither a token nor an error")

// First returns a [Verifier] that tries vs in order and skips a verifier whose refusal wraps [ErrNotApplicable]. Any other result
// is final. If no verifier is left, or vs is empty, the token is refused. The cause of the refusal joins those of all vs.
func First(vs ...Verifier) Verifier {
	return first(slices.Clone(vs))
}

type first []Verifier

func (vs first) Verify(ctx context.Context, raw string) (*Token, error) {
	var space [4]error // the usual case needs no allocation
	refusals := space[:0]
	for _, v := range vs {
		t, err := ask(ctx, v, raw)
		if !errors.Is(err, ErrNotApplicable) {
			return t, err
		}
		refusals = append(refusals, err)
	}
	switch len(refusals) {
	case 0:
		return nil, &Error{Code: InvalidToken, Reason: ReasonUntrustedIssuer, Err: ErrNotApplicable}
	case 1:
		return nil, refusals[0]
	}
	return nil, &Error{Code: InvalidToken, Reason: ReasonUntrustedIssuer, Err: noneApplicable(slices.Clone(refusals))}
}

// noneApplicable joins the refusals of all verifiers, which state what each of them would accept.
type noneApplicable []error

func (all noneApplicable) Error() string {
	causes := make([]string, len(all))
	for i, err := range all {
		causes[i] = err.Error()
		var refusal *Error
		if errors.As(err, &refusal) && refusal != nil && refusal.Err != nil {
			causes[i] = refusal.Err.Error() // without the code and the description, which repeat
		}
	}
	return strings.Join(causes, "; ")
}

func (all noneApplicable) Unwrap() []error { return all }

// CrossCheck returns a [Verifier] that returns v's token after by has accepted it too. For example, v verifies a JWT locally and
// by asks the issuer whether it is still active.
//
// Bindings from both results apply, and so does the earlier Deadline. The result is fresh for as long as both results are, so a
// guard asks both again when the shorter freshness ends: after introspect.Config.CacheTTL, if by is an introspection. The session
// ID is v's; if v reports none, it is the one that by reports. Contradicting bindings are refused with [ReasonBindingsDiffer].
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

// ask calls v and checks that it returns a token or an error.
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

// Unavailable is a failure that states when a retry is worthwhile. Any error that is not an [*Error] is a failure; this one sets
// the Retry-After header of the 503 response.
type Unavailable struct {
	RetryAfter time.Duration // zero: the default of the guard
	Err        error         // the cause
}

// Error returns the text of the cause, marked as temporary.
func (u *Unavailable) Error() string { return fmt.Sprintf("temporarily unavailable: %v", u.Err) }

// Unwrap returns u.Err.
func (u *Unavailable) Unwrap() error { return u.Err }
