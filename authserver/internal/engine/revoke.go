package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"github.com/valetkey/valetkey/authserver/store"
)

// Revoke is the revocation endpoint (RFC 7009), for POST. A token of either kind ends its grant: the refresh token and all
// access tokens, including JWTs as far as introspection reports them (section 2.1). The token_type_hint is not needed.
func (e *Engine) Revoke(w http.ResponseWriter, r *http.Request) {
	c := e.newCall(r)
	if err := e.revokeToken(w, c); err != nil {
		e.refuse(w, c, err)
		return
	}
	answer(w, http.StatusOK, "", nil)
}

func (e *Engine) revokeToken(w http.ResponseWriter, c *call) error {
	if err := c.readForm(w); err != nil {
		return err
	}
	if err := e.authenticate(c, e.cfg.base()+e.cfg.Paths.Revoke); err != nil {
		return err
	}
	if !c.form.Has("token") {
		return invalidRequest("token is missing")
	}
	ctx, raw := c.r.Context(), c.form.Get("token")
	g, err := e.records.find(ctx, keyRefresh, raw)
	if errors.Is(err, goidc.ErrNotFound) {
		var t *accessToken
		if t, err = e.inspect(ctx, raw); t != nil {
			g = t.grant
		}
	}
	if err != nil || g == nil {
		return err // RFC 7009, section 2.2: an unknown token is not an error
	}
	if g.ClientID != c.client.ID { // section 2.1
		return badRequest("invalid_grant", "the token was issued to another client")
	}
	revoked, err := e.records.revoke(ctx, g.ID)
	if revoked {
		e.cfg.Audit(ctx, Event{Name: Revoked, Path: c.path, Client: g.ClientID, Subject: g.Subject, Grant: g.ID})
	}
	return err
}

// RevokeGrants ends all grants of a user to a client, and returns their number. An empty subject means all grants of the client,
// including its own; an empty client ID means all grants of the user.
func (e *Engine) RevokeGrants(ctx context.Context, subject, clientID string) (n int, err error) {
	key := store.Key{Name: keySubject, Value: subject}
	switch {
	case subject == "" && clientID == "":
		return 0, errors.New("revoke grants: of neither a user nor a client")
	case subject == "":
		key = store.Key{Name: keyClient, Value: clientID}
	}
	const page = 100
	for after := ""; ; {
		found, err := e.cfg.Store.Find(ctx, kindGrant, key, after, page)
		if err != nil {
			return n, fmt.Errorf("revoke grants: %w", err)
		}
		for _, rec := range found {
			after = rec.ID
			g, err := readGrant(rec)
			if err != nil {
				return n, err
			}
			if clientID != "" && g.ClientID != clientID {
				continue
			}
			revoked, err := e.records.revoke(ctx, rec.ID)
			if err != nil {
				return n, fmt.Errorf("revoke grants: %w", err)
			}
			if revoked {
				n++
			}
		}
		if len(found) < page {
			break
		}
	}
	if n > 0 {
		e.cfg.Audit(ctx, Event{Name: Revoked, Client: clientID, Subject: subject, Count: n})
	}
	return n, nil
}
