package transmitter

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// revokeUser implements draft-parecki-oauth-global-token-revocation-05, section "Revocation Request". The response 204 means that the
// sessions, consents and grants of the user have ended, refresh tokens included, so that the user has to log in again.
func (t *Transmitter) revokeUser(c *call) (int, any, error) {
	m, err := c.members()
	if err != nil {
		return 0, nil, err
	}
	if m["sub_id"] == nil {
		return 0, nil, invalid("sub_id: required")
	}
	subject, issuer, err := t.user(m["sub_id"])
	if err != nil {
		return 0, nil, err
	}
	if subject == "" {
		return 0, nil, &refusal{status: http.StatusForbidden, description: "the iss of the user is not that of a user of this server"}
	}
	errNoUser := &refusal{status: http.StatusNotFound, description: "there is no such user"}
	missing := false
	if issuer == t.cfg.Issuer { // users of trusted issuers cannot be looked up
		_, err := t.cfg.Account(c.Context(), subject)
		if missing = errors.Is(err, login.ErrNoUser); err != nil && !missing {
			return 0, nil, err
		}
	}
	if missing { // a user who is gone may have left grants; of one who never existed, nothing is recorded and announced
		left, err := t.cfg.Engine.Sessions(c.Context(), subject)
		if err != nil {
			return 0, nil, err
		}
		if len(left) == 0 {
			return 0, nil, errNoUser
		}
	}
	n, err := t.cfg.RevokeUser(c.Context(), subject)
	if errors.Is(err, store.ErrNotFound) { // a client
		return 0, nil, errNoUser
	}
	if err != nil {
		return 0, nil, err
	}
	t.cfg.Audit(c.Context(), "user revoked", slog.String("subject", subject), slog.String("by", c.client), slog.Int("ended", n))
	return http.StatusNoContent, nil, nil
}
