package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// A grant lasts as long as its user. Each time it is used (a code, a refresh token or a device code is redeemed, or a token is
// introspected or exchanged), the account of its user is looked up. Revocation needs no lookup.

// errUserGone ends a grant whose user no longer exists or has another password.
var errUserGone = errors.New("the user of the grant is gone, or has a new password")

// errNoDirectory is returned if a user cannot be looked up. Nothing is used up and nothing ends, so the client can retry.
var errNoDirectory = &refusal{
	status: http.StatusServiceUnavailable, code: "temporarily_unavailable", description: "the user cannot be looked up now: try again later",
	retryAfter: 5 * time.Second,
}

// account returns the account of the user of a grant, or nil if the grant is a client's own. If the user no longer exists,
// account ends the grant and returns errUserGone. If the user cannot be looked up, it returns errNoDirectory.
func (e *Engine) account(ctx context.Context, g *grant) (*login.Account, error) {
	if g.UserType == "" {
		return nil, nil
	}
	a, err := e.lookup(ctx, g.UserType, g.Subject)
	switch {
	case errors.Is(err, login.ErrNoUser), err == nil && g.Since.Before(a.Since):
		cause := endings.PasswordStale
		if err != nil {
			cause = endings.UserDisabled
		}
		stored, err := e.grant(ctx, g.ID) // the caller may have changed g
		if errors.Is(err, store.ErrNotFound) {
			return nil, errUserGone
		}
		revoked := false
		if err == nil {
			revoked, err = e.endGrant(ctx, stored, cause, "")
		}
		if err != nil {
			return nil, fmt.Errorf("end the grant of a user who is gone: %w", err)
		}
		if revoked {
			e.cfg.Audit(ctx, Event{Name: UserGone, Client: g.Client, Subject: g.Subject, Grant: g.ID})
		}
		return nil, errUserGone
	case err != nil:
		e.cfg.Logger.ErrorContext(ctx, "user not looked up", "type", g.UserType, "error", err)
		return nil, errNoDirectory
	}
	return a, nil
}

// lookup returns the account of a subject. The users of a trusted issuer are known only from its assertions, so they cannot be
// looked up: they exist as long as the issuer is trusted, with the scopes that it may give.
func (e *Engine) lookup(ctx context.Context, kind, subject string) (*login.Account, error) {
	var assumed *login.Account
	for _, t := range e.cfg.Issuers {
		if t.SubjectType == kind {
			if assumed == nil {
				assumed = new(login.Account)
			}
			assumed.Scopes = append(assumed.Scopes, t.Scopes...)
		}
	}
	if assumed != nil {
		return assumed, nil
	}
	return e.cfg.Account(ctx, subject)
}

// allowable returns the scopes of a grant, or of one of its tokens, that the user may still allow. An exchanged token may have
// the scopes of other APIs that those scopes map to.
func (e *Engine) allowable(a *login.Account, g *grant, scopes []string) []string {
	if a == nil || a.Scopes == nil {
		return scopes
	}
	may := slices.Clone(a.Scopes)
	if g.Root != "" {
		for i := 0; i < len(may); i++ { // also the scopes that the added scopes map to
			for _, api := range e.cfg.APIs {
				for _, s := range api.Exchange[may[i]] {
					if !slices.Contains(may, s) {
						may = append(may, s)
					}
				}
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(scopes), func(s string) bool { return !slices.Contains(may, s) })
}

// renew checks the user of a grant that is about to be redeemed, and removes from the grant the scopes and details that the user
// may no longer allow. The error is errGrant if nothing is left.
func (e *Engine) renew(c *call, g *grant) error {
	if !g.live() || g.Client != c.client.ID {
		return nil // it is refused anyway
	}
	a, err := e.account(c.r.Context(), g)
	if err == errUserGone {
		return errGrant
	}
	if err != nil {
		return err
	}
	left := e.allowable(a, g, strings.Fields(g.Scopes))
	if a != nil {
		g.Details = flow.Allowable(g.Details, a.Scopes)
	}
	return g.keep(func(s string) bool { return slices.Contains(left, s) })
}

// stands reports whether the user of a token still exists, and removes from its claims the scopes and details that the user may no
// longer allow. It returns false, too, if nothing is left.
func (e *Engine) stands(ctx context.Context, t *accessToken) (bool, error) {
	a, err := e.account(ctx, t.grant)
	if err == errUserGone {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if a == nil {
		return true, nil
	}
	t.details = flow.Allowable(t.details, a.Scopes)
	if t.claims[claimDetails] != nil {
		t.claims[claimDetails] = t.details
	}
	text, scoped := t.claims["scope"].(string)
	if !scoped {
		return len(t.details) > 0, nil
	}
	left := e.allowable(a, t.grant, strings.Fields(text))
	t.claims["scope"] = strings.Join(left, " ")
	if t.claims["permissions"] != nil { // of the profile Permissions: the same
		t.claims["permissions"] = left
	}
	return len(left) > 0, nil
}
