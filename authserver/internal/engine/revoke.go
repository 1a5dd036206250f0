package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/endings"
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
	var id string
	g, err := e.findGrant(ctx, keyRefresh, raw)
	if errors.Is(err, store.ErrNotFound) {
		// A client that has lost the response to a refresh, and logs its user out, has no other token than the spent one. It is valid
		// until its grace period ends; after that it is an invalid token, whose revocation changes nothing (section 2.2).
		var used *spent
		if used, g, err = e.findSpent(ctx, raw); err == nil && !time.Now().Before(used.Grace) {
			return nil
		}
	}
	if errors.Is(err, store.ErrNotFound) {
		var t *accessToken
		if t, err = e.inspect(ctx, raw); t != nil {
			g = t.grant
			id, _ = t.claims["jti"].(string)
		}
	}
	if err != nil || g == nil {
		return err // RFC 7009, section 2.2: an unknown token is not an error
	}
	if g.Client != c.client.ID { // section 2.1
		return badRequest("invalid_grant", "the token was issued to another client")
	}
	revoked, err := e.endGrant(ctx, g, endings.TokenRevoked, id)
	if revoked {
		e.cfg.Audit(ctx, Event{Name: Revoked, Path: c.path, Client: g.Client, Subject: g.Subject, Grant: g.ID})
	}
	return err
}

// RevokeGrants ends all grants of a user to a client, and returns their number. An empty subject means all grants of the client,
// including its own; an empty client ID means all grants of the user.
func (e *Engine) RevokeGrants(ctx context.Context, subject, clientID string) (n int, err error) {
	key, cause := store.Key{Name: keySubject, Value: subject}, endings.ConsentRevoked
	switch {
	case subject == "" && clientID == "":
		return 0, errors.New("revoke grants: of neither a user nor a client")
	case subject == "":
		key, cause = store.Key{Name: keyClient, Value: clientID}, endings.ClientRemoved
	case clientID == "":
		if err := e.endAssertions(ctx, subject); err != nil { // first: otherwise one could renew a grant that has ended
			return 0, err
		}
	}
	n, err = e.endAll(ctx, key, clientID, cause)
	if n > 0 && err == nil {
		e.cfg.Audit(ctx, Event{Name: Revoked, Client: clientID, Subject: subject, Count: n})
	}
	return n, err
}

// EndSession ends all grants that began in a browser session, named as in Decision.Session, and returns their number.
func (e *Engine) EndSession(ctx context.Context, session string, cause endings.Cause) (n int, err error) {
	if session == "" {
		return 0, nil
	}
	return e.endAll(ctx, store.Key{Name: keySession, Value: session}, "", cause)
}

// endAll ends all grants with a key: those of the client, or of all clients if it is empty.
func (e *Engine) endAll(ctx context.Context, key store.Key, clientID string, cause endings.Cause) (n int, err error) {
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
			if clientID != "" && g.Client != clientID {
				continue
			}
			revoked, err := e.endGrant(ctx, g, cause, "")
			if err != nil {
				return n, fmt.Errorf("revoke grants: %w", err)
			}
			if revoked {
				n++
			}
		}
		if len(found) < page {
			return n, nil
		}
	}
}

// endGrant ends a grant that was read from the store, for a reason and with all its tokens, and reports whether it was live. Every end of
// a grant that has to be reported to others passes through it. id is the jti of the token that was presented, or empty.
func (e *Engine) endGrant(ctx context.Context, g *grant, cause endings.Cause, id string) (alive bool, err error) {
	if !g.live() {
		return false, e.endAgain(ctx, g)
	}
	ending := endings.Ending{Cause: cause, Client: g.Client}
	if g.UserType != "" {
		ending.Subject = g.Subject
	}
	switch {
	case cause.OfUser():
	case g.Root == "" && ending.Subject != "":
		ending.Session = sessionOf(g)
	default:
		ending.Token = id // the sid, if any, is that of the root, which does not end
	}
	err = e.cfg.Endings.Do(ctx, ending, func(ctx context.Context) (bool, error) {
		alive, err = e.revoke(ctx, g)
		return alive, err
	})
	return alive, err
}

// sessionOf returns the sid of the tokens of a grant: the ID of the grant or, if it was exchanged, of the grant at the beginning.
// It is a session of the user at one application, so that the end of a grant can be announced without affecting others. It is
// empty if the grant is a client's own.
func sessionOf(g *grant) string {
	if g.UserType == "" {
		return ""
	}
	return cmp.Or(g.Root, g.ID)
}

// Sessions returns the sessions that a user has now.
func (e *Engine) Sessions(ctx context.Context, subject string) (all []endings.Session, err error) {
	const page = 100
	for after := ""; ; {
		found, err := e.cfg.Store.Find(ctx, kindGrant, store.Key{Name: keySubject, Value: subject}, after, page)
		if err != nil {
			return nil, fmt.Errorf("find the sessions of a user: %w", err)
		}
		for _, rec := range found {
			after = rec.ID
			g, err := readGrant(rec)
			if err != nil {
				return nil, err
			}
			if sid := sessionOf(g); sid == g.ID && g.live() {
				all = append(all, endings.Session{Client: g.Client, ID: sid})
			}
		}
		if len(found) < page {
			return all, nil
		}
	}
}

// Claims returns the claims of a live access token of this server as introspection reports them, for the server's own APIs; nil: the
// token is not one.
func (e *Engine) Claims(ctx context.Context, raw string) (map[string]any, error) {
	t, err := e.inspect(ctx, raw)
	if t == nil {
		return nil, err
	}
	if stands, err := e.stands(ctx, t); err != nil || !stands {
		return nil, err
	}
	return t.claims, nil
}
