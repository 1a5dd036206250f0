package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"

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

// giveRefreshToken gives a grant its first refresh token, if the client may have one.
func (e *Engine) giveRefreshToken(c *call, g *goidc.Grant) {
	if c.client == nil || c.client.ID != g.ClientID || !slices.Contains(c.client.GrantTypes, "refresh_token") {
		return
	}
	h := heldOf(g)
	h.FamilyEnd = int(time.Now().Add(e.cfg.RefreshLifetime).Unix())
	g.RefreshToken, g.RefreshTokenExpiresAt = secret(), h.FamilyEnd
}

// rotate registers the grant's refresh token if it differs from the stored one. The old one is recorded as spent before the
// grant is saved. After a crash in between it is still live, because a live token is looked up first.
func (m *records) rotate(ctx context.Context, g *goidc.Grant, h *held, now time.Time) error {
	if g.RefreshToken == "" {
		return nil
	}
	next := store.Digest(g.RefreshToken)
	old := h.refresh
	if next == old {
		return nil
	}
	h.refresh = next
	if old == "" {
		return nil
	}
	used := spent{Grant: g.ID, Generation: h.Generation}
	switch {
	case h.spent != nil: // the live token is replaced by another of its generation, and the grace period remains the same
		used.Grace = h.spent.Grace
	case m.cfg.RefreshGrace > 0:
		used.Grace = now.Add(m.cfg.RefreshGrace)
		fallthrough
	default:
		h.Generation++
	}
	h.Rotated = now
	text, err := json.Marshal(used)
	if err != nil {
		return fmt.Errorf("write a spent token: %w", err)
	}
	_, err = m.cfg.Store.Put(ctx, store.Record{Kind: kindSpent, ID: old, Expires: time.Unix(int64(h.FamilyEnd), 0), Value: text})
	if err != nil && !errors.Is(err, store.ErrConflict) { // of two concurrent uses, one saves the grant
		return fmt.Errorf("write a spent token: %w", err)
	}
	return nil
}

// GrantByRefreshToken returns the grant of a refresh token that is to be used.
func (m *records) GrantByRefreshToken(ctx context.Context, token string) (*goidc.Grant, error) {
	c := callOf(ctx)
	g, err := m.family(ctx, token)
	if err == nil {
		err = c.bindAgain(g)
	}
	if err == nil {
		err = m.renew(c, g)
	}
	if err == nil && g.RevokedAt == 0 && g.ClientID == c.client.ID { // else the library refuses it
		err = c.useProof()
	}
	if err != nil && !errors.Is(err, goidc.ErrNotFound) {
		c.outage = err // otherwise the client would discard its token as invalid
	}
	return g, err
}

func (m *records) family(ctx context.Context, token string) (*goidc.Grant, error) {
	g, err := m.find(ctx, keyRefresh, token)
	if err == nil {
		g.RefreshToken = token
		return g, nil
	}
	if !errors.Is(err, goidc.ErrNotFound) || !isSecret(token) {
		return nil, err
	}
	rec, err := m.cfg.Store.Get(ctx, kindSpent, store.Digest(token))
	if err != nil {
		return nil, notFound(err)
	}
	used := new(spent)
	if err := json.Unmarshal(rec.Value, used); err != nil {
		return nil, fmt.Errorf("read a spent token: %w", err)
	}
	if g, err = m.Grant(ctx, used.Grant); err != nil {
		return nil, err
	}
	return m.again(ctx, g, used)
}

// again decides about a refresh token that was used before.
func (m *records) again(ctx context.Context, g *goidc.Grant, used *spent) (*goidc.Grant, error) {
	c, h := callOf(ctx), heldOf(g)
	previous := used.Generation >= h.Generation-1 // or one that was replaced in its grace period
	switch {
	case g.RevokedAt != 0:
		return g, nil // the library refuses it
	case previous && time.Now().Before(used.Grace):
		h.spent = used
		return g, nil
	case previous && c.at.Before(h.Rotated): // in progress when it was used, such as a request duplicated by the network
		return nil, fmt.Errorf("%w: the refresh token is being used", goidc.ErrNotFound)
	}
	m.cfg.Audit(ctx, Event{Name: TokenReused, Client: g.ClientID, Subject: g.Subject, Grant: g.ID})
	if _, err := m.Engine.endGrant(ctx, g, endings.Reused, ""); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: the refresh token was used before", goidc.ErrNotFound)
}

// revoke ends a grant with all its tokens, and reports whether it was live. It also ends everything that was exchanged for its
// tokens. If the grant is the root of the exchanges, they end immediately, because the root is read with each of them. Otherwise
// they end one by one, which costs one write each, at most as many as the exchanges themselves have cost.
func (m *records) revoke(ctx context.Context, id string) (alive bool, err error) {
	g, err := m.Grant(ctx, id)
	switch {
	case errors.Is(err, goidc.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case rootOf(g) == "":
		return m.revokeOne(ctx, id)
	}
	// The grant ends after the exchanges, so that an interrupted attempt can be repeated, and before those that are made
	// meanwhile.
	if err := m.revokeExchanged(ctx, id); err != nil {
		return false, err
	}
	if alive, err = m.revokeOne(ctx, id); err != nil {
		return alive, err
	}
	return alive, m.revokeExchanged(ctx, id)
}

// revokeExchanged ends the grants whose chain of exchanges includes this one.
func (m *records) revokeExchanged(ctx context.Context, id string) error {
	const page = 100
	for after := ""; ; {
		found, err := m.cfg.Store.Find(ctx, kindGrant, store.Key{Name: keyParent, Value: id}, after, page)
		if err != nil {
			return fmt.Errorf("revoke what was exchanged: %w", err)
		}
		for _, rec := range found {
			after = rec.ID
			if _, err := m.revokeOne(ctx, rec.ID); err != nil {
				return fmt.Errorf("revoke what was exchanged: %w", err)
			}
		}
		if len(found) < page {
			return nil
		}
	}
}

// revokeOne ends a grant without those that were exchanged for its tokens.
func (m *records) revokeOne(ctx context.Context, id string) (alive bool, err error) {
	for {
		g, err := m.Grant(ctx, id)
		if errors.Is(err, goidc.ErrNotFound) {
			return false, nil
		}
		if err != nil || g.RevokedAt != 0 {
			return false, err
		}
		g.RevokedAt = int(time.Now().Unix())
		if err := m.SaveGrant(ctx, g); !errors.Is(err, store.ErrConflict) {
			return err == nil, err
		} // else it has just been used: retry
	}
}
