package middleware

import (
	"errors"
	"time"

	"github.com/valetkey/valetkey"
)

var errNilRequirement = errors.New("middleware: a requirement is nil")

// Authorize reports whether t meets all needs. The refusal names all that they ask for together, so that a client can get
// it with one new token: for insufficient scope every scope (RFC 6750, section 3), and for an insufficient login, which
// comes first, what is missing of it and of the scopes (RFC 9470, section 3).
func (g *Guard) Authorize(t *valetkey.Token, needs ...valetkey.Requirement) error {
	return authorize(t, g.now, needs)
}

func authorize(t *valetkey.Token, now func() time.Time, needs []valetkey.Requirement) error {
	var all *valetkey.Error // what is known of the refusal; nil: none so far
	for _, need := range needs {
		if need == nil {
			return errNilRequirement
		}
		err := decide(need, t, now)
		if err == nil {
			continue
		}
		var refusal *valetkey.Error
		if !errors.As(err, &refusal) || refusal.Code != valetkey.InsufficientScope && refusal.Code != valetkey.InsufficientUserAuthentication {
			return err
		}
		all = together(all, refusal)
	}
	if all == nil {
		return nil
	}
	if all.Code == valetkey.InsufficientScope || len(all.Scope) > 0 {
		all.Scope = scopeOf(needs, t)
	}
	return all
}

func decide(need valetkey.Requirement, t *valetkey.Token, now func() time.Time) error {
	if timed, ok := need.(valetkey.TimedRequirement); ok {
		return timed.DecideAt(t, now())
	}
	return need.Decide(t)
}

// together returns a refusal that says what both do. The code is that of the login, if one is about it: the client learns of
// the missing scopes too, and need not come back a third time.
func together(a, b *valetkey.Error) *valetkey.Error {
	if a == nil {
		one := *b
		return &one
	}
	first, second := *a, b
	if a.Code != b.Code && b.Code == valetkey.InsufficientUserAuthentication {
		first, second = *b, a
	}
	first.Scope = append(first.Scope[:len(first.Scope):len(first.Scope)], second.Scope...)
	if up := second.StepUp; up != nil && first.StepUp != nil {
		both := *first.StepUp
		if both.ACRValues == nil {
			both.ACRValues = up.ACRValues
		}
		if both.MaxAge == nil || up.MaxAge != nil && *up.MaxAge < *both.MaxAge {
			both.MaxAge = up.MaxAge
		}
		first.StepUp = &both
	}
	return &first
}

// scopeOf returns the scopes that a token like t should have had to meet all needs.
func scopeOf(needs []valetkey.Requirement, t *valetkey.Token) valetkey.Scopes {
	var scope []string
	for _, need := range needs {
		if need == nil {
			continue
		}
		err := need.Decide(t)
		if err == nil { // met; a token of exactly the scopes named must meet it too
			err = need.Decide(&valetkey.Token{})
		}
		var refusal *valetkey.Error
		if errors.As(err, &refusal) {
			scope = append(scope, refusal.Scope...)
		}
	}
	return valetkey.NewScopes(scope...)
}

// withScope tells a client that sent no credentials which scopes to ask for.
func withScope(err error, needs []valetkey.Requirement) error {
	var refusal *valetkey.Error
	if !errors.As(err, &refusal) || refusal.Code != valetkey.NoCredentials {
		return err
	}
	told := *refusal
	told.Scope = scopeOf(needs, &valetkey.Token{})
	return &told
}
