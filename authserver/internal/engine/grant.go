package engine

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
)

// The kinds of records. A full store may drop a grant, a token, a request or a device, which is then unknown and allows nothing.
// It may not drop spent tokens. The ID of a request, a token or a spent token is the digest of a secret. The ID of a grant is not
// a secret. Nothing that is saved replaces data that was not read: the version of a record travels with the data, and a conflict
// wraps [store.ErrConflict]. No secret is stored, neither as an ID nor in a value.
const (
	kindGrant   = "grant"
	kindToken   = "token"
	kindRequest = "session"
	kindSpent   = "spent" // refresh tokens that have been used
)

// The keys of grants. The values of code and refresh are digests. A grant that has ended is not found by subject, client and session
// any more: a user may have thousands of them, which the next log-out everywhere would read again.
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

// A grant is what a user, or a client for itself, allows a client at one API. All tokens belong to a grant and end with it.
type grant struct {
	ID       string        `json:"id"`
	Client   string        `json:"client_id"`
	Audience string        `json:"resource"`
	Scopes   string        `json:"scopes"`
	Details  []flow.Detail `json:"authorization_details,omitempty"`
	Revoked  time.Time     `json:"revoked_at,omitzero"`
	identity

	// The authorization code (RFC 6749, section 4.1.2), and the values of its request that the redemption must match.
	CodeEnds    time.Time `json:"code_expires_at,omitzero"`
	Redeemed    time.Time `json:"redeemed,omitzero"`
	RedirectURI string    `json:"redirect_uri,omitempty"`
	Challenge   string    `json:"code_challenge,omitempty"` // S256; empty: a client without PKCE
	CodeKey     string    `json:"dpop_jkt,omitempty"`       // RFC 9449, section 10; empty: any key

	// The family of refresh tokens; see refresh.go.
	Generation int       `json:"generation,omitempty"` // the number of rotations of the refresh token
	Rotated    time.Time `json:"rotated,omitzero"`     // when the refresh token was last rotated
	FamilyEnds time.Time `json:"family_end,omitzero"`  // when refresh tokens expire

	// The chain of token exchanges; see exchange.go.
	Actor   any      `json:"act,omitempty"`
	Root    string   `json:"root,omitempty"`    // the grant at the beginning; empty: the grant was not exchanged
	Parents []string `json:"parents,omitempty"` // the grants between the root and this one, nearest last

	Bound binding `json:"cnf,omitzero"`

	version       int64
	expires       time.Time     // of the record
	listed        bool          // it can be found by subject, client and session
	code, refresh string        // digests, as stored
	spent         *spent        // the token by which the grant was found in its grace period
	newRefresh    string        // the refresh token that the response contains; empty: none
	narrowed      string        // the scopes of the next token; empty: those of the grant
	details       []flow.Detail // the details of the next token; nil: those of the grant
}

// An identity is the user who has given a grant, and the log-in.
type identity struct {
	Subject  string    `json:"sub"`
	Username string    `json:"username,omitempty"`
	UserType string    `json:"type,omitempty"` // empty: the grant is a client's own
	AuthTime int64     `json:"auth_time,omitempty"`
	ACR      string    `json:"acr,omitempty"`
	Since    time.Time `json:"since,omitzero"` // of the user's credential; zero: unknown
	Session  string    `json:"session,omitempty"`
}

// newGrant returns a grant for a client itself.
func newGrant(c *model.Client, api model.API, scopes valetkey.Scopes) *grant {
	return &grant{ID: rand.Text(), Client: c.ID, Audience: api.Audience, Scopes: scopes.String(), listed: true, identity: identity{Subject: c.ID}}
}

// identityOf returns the identity of the user of a decision.
func identityOf(d *flow.Decision) identity {
	return identity{
		Subject: d.User.Subject, Username: d.User.Name, UserType: d.User.Type, AuthTime: d.AuthTime.Unix(), ACR: d.ACR, Since: d.User.Since,
		Session: d.Session,
	}
}

func (g *grant) live() bool { return g.Revoked.IsZero() }

// end ends the grant when it is saved. An exchanged grant stays listed, because an attempt that is interrupted before everything that
// was exchanged for its tokens has ended must find it again: see [Engine.endAgain].
func (g *grant) end() { g.Revoked, g.listed = time.Now(), g.Root != "" }

// saveGrant stores a new grant, or replaces the version that was read. The record lasts until the given time, and no shorter than
// before: nothing of the grant may be live after that.
func (e *Engine) saveGrant(ctx context.Context, g *grant, until time.Time) error {
	text, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("write a grant: %w", err)
	}
	if until.After(g.expires) {
		g.expires = until
	}
	rec := store.Record{Kind: kindGrant, ID: g.ID, Version: g.version, Expires: g.expires, Value: text, MayDrop: true, Owner: g.Client}
	keys := []store.Key{{Name: keyCode, Value: g.code}, {Name: keyRefresh, Value: g.refresh}}
	if g.listed {
		keys = append(keys,
			store.Key{Name: keySubject, Value: g.Subject}, store.Key{Name: keyClient, Value: g.Client}, store.Key{Name: keySession, Value: g.Session})
	}
	for _, k := range keys {
		if k.Value != "" {
			rec.Keys = append(rec.Keys, k)
		}
	}
	for _, id := range g.Parents {
		rec.Keys = append(rec.Keys, store.Key{Name: keyParent, Value: id})
	}
	if g.version, err = e.cfg.Store.Put(ctx, rec); err != nil {
		return fmt.Errorf("write a grant: %w", err)
	}
	return nil
}

// grant returns a grant by its ID. The error wraps [store.ErrNotFound] if there is none.
func (e *Engine) grant(ctx context.Context, id string) (*grant, error) {
	rec, err := e.cfg.Store.Get(ctx, kindGrant, id)
	if err != nil {
		return nil, fmt.Errorf("read a grant: %w", err)
	}
	return readGrant(rec)
}

func readGrant(rec store.Record) (*grant, error) {
	g := &grant{version: rec.Version, expires: rec.Expires}
	if err := json.Unmarshal(rec.Value, g); err != nil {
		return nil, fmt.Errorf("read grant %s: %w", rec.ID, err)
	}
	for _, k := range rec.Keys {
		switch k.Name {
		case keyCode:
			g.code = k.Value
		case keyRefresh:
			g.refresh = k.Value
		case keySubject:
			g.listed = true
		}
	}
	return g, nil
}

// findGrant returns the grant that has a secret. The error wraps [store.ErrNotFound] if there is none.
func (e *Engine) findGrant(ctx context.Context, key, secret string) (*grant, error) {
	if !isSecret(secret) {
		return nil, fmt.Errorf("find a grant: %w", store.ErrNotFound)
	}
	found, err := e.cfg.Store.Find(ctx, kindGrant, store.Key{Name: key, Value: store.Digest(secret)}, "", 1)
	if err == nil && len(found) == 0 {
		err = store.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("find a grant: %w", err)
	}
	return readGrant(found[0])
}

// fit removes from a grant the scopes that the API or the client no longer has, and the details of types that the API no longer
// has. The error is errGrant if no scope is left.
func (e *Engine) fit(c *call, g *grant) error {
	api, _ := e.api(g.Audience)
	g.Details = slices.DeleteFunc(g.Details, func(d flow.Detail) bool { return api.DetailType(d.Type) == nil })
	return g.keep(func(s string) bool { return api.Scope(s) != nil && slices.Contains(c.client.Scopes, s) })
}

// keep removes all other scopes from a grant. The error is errGrant if nothing is left: neither a scope nor, of a grant without
// scopes, a detail.
func (g *grant) keep(may func(scope string) bool) error {
	left := slices.DeleteFunc(strings.Fields(g.Scopes), func(s string) bool { return !may(s) })
	if len(left) == 0 && (g.Scopes != "" || len(g.Details) == 0) {
		return errGrant
	}
	g.Scopes = strings.Join(left, " ")
	return nil
}

// narrow limits the next token to the scopes, the resource and the details that a request names, which must be among those of the
// grant (RFC 6749, section 6; RFC 8707, section 2.2; RFC 9396, section 6).
func (c *call) narrow(g *grant) error {
	for _, r := range c.form["resource"] {
		if r != g.Audience {
			return errTarget
		}
	}
	asked := valetkey.NewScopes(strings.Fields(c.form.Get("scope"))...)
	granted := strings.Fields(g.Scopes)
	for s := range asked.All() {
		if !slices.Contains(granted, s) {
			return errScope
		}
	}
	g.narrowed = asked.String()
	var err error
	g.details, err = c.detailsAmong(g.Details)
	return err
}

// detailsAmong returns the details that a request names, which must be among those granted (RFC 9396, section 6). Nil: it names none.
func (c *call) detailsAmong(granted []flow.Detail) ([]flow.Detail, error) {
	details, err := flow.ReadDetails(c.form.Get(claimDetails))
	if err != nil || slices.ContainsFunc(details, func(d flow.Detail) bool { return !slices.Contains(granted, d) }) {
		return nil, errDetails
	}
	return details, nil
}

// revoke ends a grant that was read from the store, with all its tokens, and reports whether it was live. It also ends everything that
// was exchanged for its tokens. If the grant is the root of the exchanges, they end immediately, because the root is read with each of
// them. Otherwise they end one by one, which costs one write each, at most as many as the exchanges themselves have cost.
func (e *Engine) revoke(ctx context.Context, g *grant) (alive bool, err error) {
	if g.Root == "" {
		return e.revokeOne(ctx, g)
	}
	// The grant ends after the exchanges, so that an interrupted attempt can be repeated, and before those that are made
	// meanwhile.
	if err := e.revokeExchanged(ctx, g.ID); err != nil {
		return false, err
	}
	if alive, err = e.revokeOne(ctx, g); err != nil {
		return alive, err
	}
	return alive, e.revokeExchanged(ctx, g.ID)
}

// revokeExchanged ends the grants whose chain of exchanges includes this one.
func (e *Engine) revokeExchanged(ctx context.Context, id string) error {
	const page = 100
	for after := ""; ; {
		found, err := e.cfg.Store.Find(ctx, kindGrant, store.Key{Name: keyParent, Value: id}, after, page)
		if err != nil {
			return fmt.Errorf("revoke what was exchanged: %w", err)
		}
		for _, rec := range found {
			after = rec.ID
			g, err := readGrant(rec)
			if err != nil {
				return err
			}
			if _, err := e.revokeOne(ctx, g); err != nil {
				return fmt.Errorf("revoke what was exchanged: %w", err)
			}
		}
		if len(found) < page {
			return nil
		}
	}
}

// revokeOne ends a grant without those that were exchanged for its tokens.
func (e *Engine) revokeOne(ctx context.Context, g *grant) (alive bool, err error) {
	for g.live() {
		ended := *g
		ended.end()
		if err := e.saveGrant(ctx, &ended, time.Time{}); !errors.Is(err, store.ErrConflict) {
			return err == nil, err
		}
		// It has just been used: retry.
		if g, err = e.grant(ctx, g.ID); errors.Is(err, store.ErrNotFound) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	return false, nil
}

// endAgain repeats what an interrupted attempt to end a grant may have left, once: it then removes the grant from the lists.
func (e *Engine) endAgain(ctx context.Context, g *grant) error {
	if g.Root == "" || !g.listed {
		return nil
	}
	if err := e.revokeExchanged(ctx, g.ID); err != nil {
		return err
	}
	unlisted := *g
	unlisted.listed = false
	if err := e.saveGrant(ctx, &unlisted, time.Time{}); err != nil && !errors.Is(err, store.ErrConflict) {
		return err
	}
	return nil
}
