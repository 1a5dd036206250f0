package engine

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/store"
)

// The kinds of records. A full store may drop a grant, a token, a session or a device, which is then unknown and allows nothing.
// It may not drop spent tokens. The ID of a session, a token or a spent token is the digest of the secret. The ID of a grant is
// not a secret.
const (
	kindGrant   = "grant"
	kindToken   = "token"
	kindSession = "session"
	kindSpent   = "spent" // refresh tokens that have been used
)

// The keys of grants. The values of code and refresh are digests.
const (
	keyCode    = "code"
	keyRefresh = "refresh"
	keySubject = "subject"
	keyClient  = "client"
	keyParent  = "parent" // a grant between this one and the root of its chain of exchanges
	keySession = "session"
)

// secret returns a new secret of 260 random bits (RFC 6749, section 10.10), in 52 letters and digits.
func secret() string { return rand.Text() + rand.Text() }

// isSecret reports whether s has the form of a secret, so that it can be digested and looked up.
func isSecret(s string) bool {
	return len(s) == 52 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// records stores the library's grants, sessions and opaque tokens. Nothing that it saves replaces data that it has not read: the
// version of a record travels with the data, and a conflict wraps [store.ErrConflict]. No secret is stored, neither as an ID nor
// in a value.
type records struct{ *Engine }

// A held is the state of a record in addition to the library's value. It travels in the Store of that value, under heldKey.
type held struct {
	version int64
	expires time.Time
	code    string // digests, as stored
	refresh string
	bound   binding
	spent   *spent // the token by which the grant was found in its grace period
	grantState
}

const heldKey = "held"

// A grantState is stored with a grant in addition to the library's value.
type grantState struct {
	Generation int       `json:"generation,omitempty"` // the number of rotations of the refresh token
	Redeemed   time.Time `json:"redeemed,omitzero"`    // when the code was redeemed
	Rotated    time.Time `json:"rotated,omitzero"`     // when the refresh token was last rotated
	FamilyEnd  int       `json:"family_end,omitempty"` // when refresh tokens expire, in Unix seconds
}

type grantValue struct {
	Grant goidc.Grant `json:"grant"`
	grantState
}

func heldOf(g *goidc.Grant) *held {
	if h, ok := g.Store[heldKey].(*held); ok {
		return h
	}
	h := new(held)
	g.Store = without(g.Store)
	g.Store[heldKey] = h
	return h
}

// without returns a copy of the values to be stored.
func without(kept map[string]any) map[string]any {
	copied := maps.Clone(kept)
	if copied == nil {
		copied = map[string]any{}
	}
	delete(copied, heldKey)
	return copied
}

// SaveGrant stores a new grant, or replaces the version that was read.
func (m *records) SaveGrant(ctx context.Context, g *goidc.Grant) error {
	h := heldOf(g)
	now := time.Now()
	if g.AuthCode != "" {
		h.code = store.Digest(g.AuthCode)
	}
	if g.AuthCodeConsumedAt != 0 && h.Redeemed.IsZero() {
		h.Redeemed = now
	}
	if err := m.rotate(ctx, g, h, now); err != nil {
		return err
	}
	g.JWKThumbprint, g.CertThumbprint = h.bound.key, h.bound.certificate
	value := grantValue{*g, h.grantState}
	value.Grant.AuthCode, value.Grant.RefreshToken = "", ""
	value.Grant.Store = without(g.Store)
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write a grant: %w", err)
	}
	rec := store.Record{Kind: kindGrant, ID: g.ID, Version: h.version, Expires: m.end(ctx, g, h, now), Value: text, MayDrop: true, Owner: g.ClientID}
	rec.Keys = append(rec.Keys, store.Key{Name: keySubject, Value: g.Subject}, store.Key{Name: keyClient, Value: g.ClientID})
	if session, _ := g.Store[keptSession].(string); session != "" {
		rec.Keys = append(rec.Keys, store.Key{Name: keySession, Value: session})
	}
	if h.code != "" {
		rec.Keys = append(rec.Keys, store.Key{Name: keyCode, Value: h.code})
	}
	if h.refresh != "" {
		rec.Keys = append(rec.Keys, store.Key{Name: keyRefresh, Value: h.refresh})
	}
	for _, id := range parentsOf(g) {
		rec.Keys = append(rec.Keys, store.Key{Name: keyParent, Value: id})
	}
	if h.version, err = m.cfg.Store.Put(ctx, rec); err != nil {
		return fmt.Errorf("write a grant: %w", err)
	}
	h.expires = rec.Expires
	return nil
}

// end returns when nothing of the grant can be live any more.
func (m *records) end(ctx context.Context, g *goidc.Grant, h *held, now time.Time) time.Time {
	var life time.Duration
	if c, ok := ctx.Value(callKey{}).(*call); ok && len(g.Resources) > 0 {
		api, _ := m.api(g.Resources[0])
		life = m.lifetime(c.client, api) + time.Second // the token's clock may have ticked since
	}
	end := h.expires
	last := max(g.AuthCodeExpiresAt, g.DeviceCodeExpiresAt, g.RefreshTokenExpiresAt)
	for _, t := range []time.Time{now, time.Unix(int64(last), 0)} {
		if t = t.Add(life); t.After(end) && g.RevokedAt == 0 {
			end = t
		}
	}
	return end
}

// Grant returns a grant by its ID.
func (m *records) Grant(ctx context.Context, id string) (*goidc.Grant, error) {
	rec, err := m.cfg.Store.Get(ctx, kindGrant, id)
	if err != nil {
		return nil, notFound(err)
	}
	return readGrant(rec)
}

func readGrant(rec store.Record) (*goidc.Grant, error) {
	var v grantValue
	if err := json.Unmarshal(rec.Value, &v); err != nil {
		return nil, fmt.Errorf("read grant %s: %w", rec.ID, err)
	}
	h := heldOf(&v.Grant)
	h.bound = binding{v.Grant.JWKThumbprint, v.Grant.CertThumbprint}
	v.Grant.JWKThumbprint, v.Grant.CertThumbprint = "", ""
	h.version, h.expires, h.grantState = rec.Version, rec.Expires, v.grantState
	for _, k := range rec.Keys {
		switch k.Name {
		case keyCode:
			h.code = k.Value
		case keyRefresh:
			h.refresh = k.Value
		}
	}
	return &v.Grant, nil
}

// find returns the grant that has a secret.
func (m *records) find(ctx context.Context, key, secret string) (*goidc.Grant, error) {
	if !isSecret(secret) {
		return nil, goidc.ErrNotFound
	}
	found, err := m.cfg.Store.Find(ctx, kindGrant, store.Key{Name: key, Value: store.Digest(secret)}, "", 1)
	if err != nil {
		return nil, fmt.Errorf("find a grant: %w", err)
	}
	if len(found) == 0 {
		return nil, goidc.ErrNotFound
	}
	return readGrant(found[0])
}

// GrantByAuthCode returns the grant of a code that is to be redeemed, with its refresh token, which is created only now because
// no plain one is stored. If the code was redeemed before, it ends the grant. But a request that was in progress when
// that happened, such as one duplicated by the network, is only refused (RFC 6749, section 4.1.2).
func (m *records) GrantByAuthCode(ctx context.Context, code string) (*goidc.Grant, error) {
	g, err := m.find(ctx, keyCode, code)
	if err != nil {
		return nil, err
	}
	c, h := callOf(ctx), heldOf(g)
	if g.AuthCodeConsumedAt == 0 {
		m.giveRefreshToken(c, g)
		err := c.bindCode(g)
		if err == nil {
			err = m.renew(c, g)
		}
		if err == nil && g.RevokedAt == 0 && g.ClientID == c.client.ID { // else the library refuses it
			err = c.useProof()
			c.outage = err
		}
		return g, err
	}
	if c.at.Before(h.Redeemed) {
		return nil, fmt.Errorf("%w: the code is being redeemed", goidc.ErrNotFound)
	}
	if g.RevokedAt == 0 {
		m.cfg.Audit(ctx, Event{Name: CodeReused, Client: g.ClientID, Subject: g.Subject, Grant: g.ID})
		if _, err := m.Engine.endGrant(ctx, g, endings.Reused, ""); err != nil {
			c.outage = err
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: the code was redeemed before", goidc.ErrNotFound)
}

// Token returns an opaque token.
func (m *records) Token(ctx context.Context, id string) (*goidc.Token, error) {
	if !isSecret(id) {
		return nil, goidc.ErrNotFound
	}
	rec, err := m.cfg.Store.Get(ctx, kindToken, store.Digest(id))
	if err != nil {
		return nil, notFound(err)
	}
	t := new(goidc.Token)
	if err := json.Unmarshal(rec.Value, t); err != nil {
		return nil, fmt.Errorf("read a token: %w", err)
	}
	t.ID = id
	return t, nil
}

// SaveToken stores a new opaque token.
func (m *records) SaveToken(ctx context.Context, t *goidc.Token) error {
	kept := *t
	kept.ID = ""
	text, err := json.Marshal(kept)
	if err != nil {
		return fmt.Errorf("write a token: %w", err)
	}
	_, err = m.cfg.Store.Put(ctx, store.Record{
		Kind: kindToken, ID: store.Digest(t.ID), Expires: time.Unix(int64(t.ExpiresAt), 0), Value: text,
		MayDrop: true, Owner: t.ClientID,
	})
	if err != nil {
		return fmt.Errorf("write a token: %w", err)
	}
	return nil
}

// A sessionValue is a stored session. The ID of a pushed one is that of the request_uri, a secret of the client and its user's
// browser.
type sessionValue struct {
	Session goidc.AuthnSession `json:"session"`
	Pushed  bool               `json:"pushed,omitempty"`
}

// SaveSession stores a new session, or replaces the version that was read.
func (m *records) SaveSession(ctx context.Context, as *goidc.AuthnSession) error {
	if as.PushedAuthReqID != "" {
		as.ID = as.PushedAuthReqID
	}
	h, _ := as.Store[heldKey].(*held)
	if h == nil {
		h = new(held)
		as.Store = without(as.Store)
		as.Store[heldKey] = h
	}
	value := sessionValue{*as, as.PushedAuthReqID != ""}
	value.Session.ID, value.Session.PushedAuthReqID = "", ""
	value.Session.Store = without(as.Store)
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write a session: %w", err)
	}
	h.version, err = m.cfg.Store.Put(ctx, store.Record{
		Kind: kindSession, ID: store.Digest(as.ID), Version: h.version, Expires: time.Unix(int64(as.ExpiresAt), 0), Value: text,
		MayDrop: true, Owner: as.ClientID,
	})
	if err != nil {
		return fmt.Errorf("write a session: %w", err)
	}
	return nil
}

// Session returns a session that waits for its user.
func (m *records) Session(ctx context.Context, id string) (*goidc.AuthnSession, error) {
	v, err := m.session(ctx, id)
	if err != nil {
		return nil, err
	}
	if v.Session.Status != goidc.StatusPending { // answered: the library would ask, and grant, again
		return nil, goidc.ErrNotFound
	}
	return &v.Session, nil
}

// SessionByPushedAuthReqID returns a pushed session.
func (m *records) SessionByPushedAuthReqID(ctx context.Context, id string) (*goidc.AuthnSession, error) {
	v, err := m.session(ctx, id)
	if err != nil {
		return nil, err
	}
	if !v.Pushed {
		return nil, goidc.ErrNotFound
	}
	return &v.Session, nil
}

func (m *records) session(ctx context.Context, id string) (*sessionValue, error) {
	if !isSecret(id) {
		return nil, goidc.ErrNotFound
	}
	rec, err := m.cfg.Store.Get(ctx, kindSession, store.Digest(id))
	if err != nil {
		return nil, notFound(err)
	}
	v := new(sessionValue)
	if err := json.Unmarshal(rec.Value, v); err != nil {
		return nil, fmt.Errorf("read a session: %w", err)
	}
	as := &v.Session
	if as.ID = id; v.Pushed {
		as.PushedAuthReqID = id
	}
	as.Store = without(as.Store)
	as.Store[heldKey] = &held{version: rec.Version}
	return v, nil
}

// Client returns the client of a call in the library's form.
func (m *records) Client(ctx context.Context, id string) (*goidc.Client, error) {
	c := callOf(ctx)
	if c.client != nil && c.client.ID == id {
		return m.clientFor(c, c.client), nil
	}
	client, err := m.cfg.Clients.Get(ctx, id)
	if err != nil {
		return nil, notFound(err)
	}
	return m.clientFor(c, client), nil
}

var errRegistration = errors.New("the library does not register clients")

// SaveClient is not used: clients are registered elsewhere.
func (m *records) SaveClient(context.Context, *goidc.Client) error { return errRegistration }

// DeleteClient is not used either.
func (m *records) DeleteClient(context.Context, string) error { return errRegistration }

// notFound translates a [store.ErrNotFound] into the library's error.
func notFound(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %w", goidc.ErrNotFound, err)
	}
	return err
}
