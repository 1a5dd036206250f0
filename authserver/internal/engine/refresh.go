package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/store"
)

// A family is all the refresh tokens of one grant. One of them is live; each use of it yields the next (RFC 9700, section
// 4.14.2). For the others, a digest is kept until the family ends, so that the use of one is detected. Such a use means that
// either the client or a thief has an old token. It cannot be known which, so the family ends with all its access tokens.

// A spent is the record of a refresh token that is no longer the live one of its family.
type spent struct {
	Grant      string    `json:"grant"`
	Generation int       `json:"generation"`
	Grace      time.Time `json:"grace"` // until when it gets another successor; zero: never
}

// startFamily gives a grant its first refresh token, if the client may have one.
func (e *Engine) startFamily(c *call, g *grant) {
	if slices.Contains(c.client.GrantTypes, "refresh_token") {
		g.FamilyEnds = time.Now().Add(e.cfg.RefreshLifetime)
		g.newRefresh = secret()
		g.refresh = store.Digest(g.newRefresh)
	}
}

// rotate gives a grant its next refresh token. The present one is recorded as spent before the grant is saved. After a crash in
// between it is still live, because a live token is looked up first.
func (e *Engine) rotate(ctx context.Context, g *grant) error {
	used := spent{Grant: g.ID, Generation: g.Generation}
	now := time.Now()
	if g.spent != nil { // the live token is replaced by another of its generation, and the grace period remains the same
		used.Grace = g.spent.Grace
	} else {
		g.Generation++
		if e.cfg.RefreshGrace > 0 {
			used.Grace = now.Add(e.cfg.RefreshGrace)
		}
	}
	g.Rotated = now
	text, err := json.Marshal(used)
	if err != nil {
		return fmt.Errorf("write a spent token: %w", err)
	}
	_, err = e.cfg.Store.Put(ctx, store.Record{Kind: kindSpent, ID: g.refresh, Expires: g.FamilyEnds, Value: text})
	if err != nil && !errors.Is(err, store.ErrConflict) { // of two concurrent uses, one saves the grant
		return fmt.Errorf("write a spent token: %w", err)
	}
	g.newRefresh = secret()
	g.refresh = store.Digest(g.newRefresh)
	return nil
}

// redeemRefreshToken returns the grant of a refresh token (RFC 6749, section 6), with the next one.
func (e *Engine) redeemRefreshToken(c *call) (*grant, error) {
	if !c.form.Has("refresh_token") {
		return nil, invalidRequest("refresh_token is missing")
	}
	g, err := e.family(c, c.form.Get("refresh_token"))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, errGrant
	case err != nil:
		return nil, err
	case g.Client != c.client.ID, !g.live(), !time.Now().Before(g.FamilyEnds):
		return nil, errGrant
	}
	if err := c.bindAgain(g); err != nil {
		return nil, err
	}
	if err := e.renew(c, g); err != nil {
		return nil, err
	}
	if err := e.fit(c, g); err != nil {
		return nil, err
	}
	if err := c.narrow(g); err != nil {
		return nil, err
	}
	if err := c.useProof(); err != nil {
		return nil, err
	}
	return g, e.rotate(c.r.Context(), g)
}

// family returns the grant of a refresh token that is live, or was used before and is in its grace period.
func (e *Engine) family(c *call, token string) (*grant, error) {
	ctx := c.r.Context()
	g, err := e.findGrant(ctx, keyRefresh, token)
	if !errors.Is(err, store.ErrNotFound) || !isSecret(token) {
		return g, err
	}
	used, g, err := e.findSpent(ctx, token)
	if err != nil {
		return nil, err
	}
	previous := used.Generation >= g.Generation-1 // or one that was replaced in its grace period
	switch {
	case !g.live():
		return nil, errGrant
	case previous && time.Now().Before(used.Grace):
		g.spent = used
		return g, nil
	case previous && c.at.Before(g.Rotated): // in progress when it was used, such as a request duplicated by the network
		return nil, errGrant
	}
	e.cfg.Audit(ctx, Event{Name: TokenReused, Client: g.Client, Subject: g.Subject, Grant: g.ID})
	if _, err := e.endGrant(ctx, g, endings.Reused, ""); err != nil {
		return nil, err
	}
	return nil, errGrant
}

// findSpent returns a refresh token that is no longer the live one of its family, and its grant. The error wraps [store.ErrNotFound] if
// there is none.
func (e *Engine) findSpent(ctx context.Context, token string) (*spent, *grant, error) {
	if !isSecret(token) {
		return nil, nil, fmt.Errorf("find a spent token: %w", store.ErrNotFound)
	}
	rec, err := e.cfg.Store.Get(ctx, kindSpent, store.Digest(token))
	if err != nil {
		return nil, nil, fmt.Errorf("find a spent token: %w", err)
	}
	used := new(spent)
	if err := json.Unmarshal(rec.Value, used); err != nil {
		return nil, nil, fmt.Errorf("read a spent token: %w", err)
	}
	g, err := e.grant(ctx, used.Grant)
	return used, g, err
}
