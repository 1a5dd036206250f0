package middleware

import (
	"errors"
	"net/http"

	"github.com/valetkey/valetkey"
)

// authorize reports whether t meets all needs. The refusal names everything that is missing, see [valetkey.AllOf]. r is nil for
// a token that came without a request.
func (g *Guard) authorize(t *valetkey.Token, r *http.Request, needs []valetkey.Requirement) error {
	switch len(needs) {
	case 0:
		return nil
	case 1:
		if o, ok := needs[0].(valetkey.Openness); ok && o.Known() {
			return nil
		}
	}
	return valetkey.AllOf(needs).Check(valetkey.Access{Token: t, Time: g.now(), Request: r})
}

// withScope names the scopes that are required to a client that sent no credentials.
func withScope(err error, needs []valetkey.Requirement) error {
	var refusal *valetkey.Error
	if !errors.As(err, &refusal) || refusal.Code != valetkey.NoCredentials {
		return err
	}
	told := *refusal
	told.Scope = valetkey.Describe(needs...).Challenge
	return &told
}
