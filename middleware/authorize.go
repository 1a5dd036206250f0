package middleware

import (
	"errors"

	"github.com/valetkey/valetkey"
)

var errNilRequirement = errors.New("middleware: a requirement is nil")

// Authorize reports whether t meets all needs. A refusal for insufficient scope names all scopes that the needs ask for
// together, so that a client can get them with one new token (RFC 6750, section 3).
func (g *Guard) Authorize(t *valetkey.Token, needs ...valetkey.Requirement) error {
	for _, need := range needs {
		if need == nil {
			return errNilRequirement
		}
		err := need.Decide(t)
		if err == nil {
			continue
		}
		var refusal *valetkey.Error
		if !errors.As(err, &refusal) || refusal.Code != valetkey.InsufficientScope {
			return err
		}
		all := *refusal
		all.Scope = scopeOf(needs, t)
		return &all
	}
	return nil
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
