package engine

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/scopes"
)

// wanted resolves the request of a client to one API and at least one of its scopes, all of which the client may have.
func (e *Engine) wanted(c *clients.Client, resources []string, scope string) (model.API, valetkey.Scopes, error) {
	asked := valetkey.NewScopes(strings.Split(scope, " ")...)
	for s := range asked.All() {
		if scopes.Validate(s) != nil || !slices.Contains(c.Scopes, s) {
			return model.API{}, valetkey.Scopes{}, errScope
		}
	}
	api, err := e.choose(c, resources, asked)
	if err != nil {
		return model.API{}, valetkey.Scopes{}, err
	}
	if asked.Len() == 0 {
		// RFC 6749, section 3.3: an omitted scope means a default, here all scopes that the client may have at this API.
		asked = api.Among(c.Scopes)
	}
	if asked.Len() == 0 || !api.Has(asked) {
		return model.API{}, valetkey.Scopes{}, errScope
	}
	return api, asked, nil
}

// choose finds the API that a token is for: the requested resource, otherwise the API of the requested scopes, otherwise the
// client's default, otherwise its only API (RFC 8707, section 2; RFC 9068, section 3).
func (e *Engine) choose(c *clients.Client, resources []string, asked valetkey.Scopes) (model.API, error) {
	refusal := errScope
	switch {
	case len(resources) > 1: // with a token for two APIs, one could use it at the other (RFC 9068, section 5)
		return model.API{}, errTarget
	case len(resources) == 1:
		if api, ok := e.api(resources[0]); ok {
			return api, nil
		}
		return model.API{}, errTarget
	case asked.Len() == 0 && c.DefaultAPI != "":
		api, _ := e.api(c.DefaultAPI)
		return api, nil
	case asked.Len() == 0:
		asked, refusal = valetkey.NewScopes(c.Scopes...), errTarget
	}
	for _, a := range e.cfg.APIs {
		if a.Has(asked) {
			return a, nil
		}
	}
	return model.API{}, refusal
}

// api returns the API with this audience.
func (e *Engine) api(audience string) (model.API, bool) {
	i := slices.IndexFunc(e.cfg.APIs, func(a model.API) bool { return a.Audience == audience })
	if i < 0 {
		return model.API{}, false
	}
	return e.cfg.APIs[i], true
}

// decide is the library's hook for a grant that is created or about to be refreshed.
func (e *Engine) decide(ctx context.Context, kind goidc.GrantType, g *goidc.Grant) error {
	c := callOf(ctx)
	switch kind {
	case goidc.GrantRefreshToken:
		return e.decideAgain(c, g)
	case goidc.GrantAuthorizationCode, goidc.GrantImplicit:
		kept := map[string]any{}
		for _, name := range []string{keptType, keptAuthTime, keptACR, keptSince, keptKey, keptSession} {
			kept[name] = g.Store[name]
		}
		g.Store = kept // without the other values of the session
		c.granted = &Event{
			Name: Granted, Path: c.path, Client: g.ClientID, Subject: g.Subject, Audience: g.Resources[0], Scope: g.Scopes, Grant: g.ID,
		}
		return nil
	}
	api, granted, err := e.wanted(c.client, g.Resources, g.Scopes)
	if err != nil {
		return err
	}
	g.Resources, g.Scopes = goidc.Resources{api.Audience}, granted.String()
	heldOf(g).bound = c.holds
	c.outage = c.useProof()
	return c.outage
}

// decideAgain removes from a grant the scopes that the API or the client no longer has, and restores its expiry, which the
// library changes.
func (e *Engine) decideAgain(c *call, g *goidc.Grant) error {
	api, ok := e.api(g.Resources[0])
	left := slices.DeleteFunc(strings.Fields(g.Scopes), func(s string) bool {
		return api.Scope(s) == nil || !slices.Contains(c.client.Scopes, s)
	})
	if !ok || len(left) == 0 {
		return errGrant
	}
	g.Scopes = strings.Join(left, " ")
	g.RefreshTokenExpiresAt = heldOf(g).FamilyEnd
	return nil
}

// form is the library's hook for the format of a token.
func (e *Engine) form(ctx context.Context, g *goidc.Grant, _ *goidc.Client) goidc.TokenOptions {
	api, _ := e.api(g.Resources[0])
	c := callOf(ctx)
	life := e.lifetime(c.client, api)
	if !c.until.IsZero() {
		life = min(life, time.Until(c.until))
	}
	secs := int(life / time.Second)
	if api.Tokens == model.Opaque {
		return goidc.NewOpaqueTokenOptions(secs)
	}
	return goidc.NewJWTTokenOptions(goidc.SignatureAlgorithm(api.Algorithm), secs)
}

// lifetime returns the lifetime of a client's access tokens at an API.
func (e *Engine) lifetime(c *clients.Client, api model.API) time.Duration {
	if c != nil && c.Lifetime >= time.Second {
		return c.Lifetime
	}
	return api.Lifetime
}

// claims is the library's hook for the claims of a JWT. Introspection returns them for opaque tokens, too.
func (e *Engine) claims(_ context.Context, t *goidc.Token, g *goidc.Grant) map[string]any {
	more := map[string]any{}
	text := func(name string) string { s, _ := g.Store[name].(string); return s }
	// RFC 9068, section 2.2.1.
	if at, err := strconv.ParseInt(text(keptAuthTime), 10, 64); err == nil {
		more["auth_time"] = at
	}
	if sid := sessionOf(g); sid != "" { // OpenID Connect Back-Channel Logout 1.0, section 2.1
		more["sid"] = sid
	}
	if acr := text(keptACR); acr != "" {
		more["acr"] = acr
	}
	if actor := g.Store[keptActor]; actor != nil { // RFC 8693, section 4.1
		more["act"] = actor
	}
	api, _ := e.api(t.Resources[0])
	if api.MayAct != "" { // section 4.4
		more["may_act"] = map[string]any{"sub": api.MayAct}
	}
	switch api.Profile {
	case model.User:
		more["scope"] = strings.Fields(t.Scopes)
		if kind := text(keptType); kind != "" {
			more["user_type"], more["user_id"] = kind, strings.TrimPrefix(g.Subject, kind+":")
		}
	case model.Permissions:
		more["permissions"], more["azp"] = strings.Fields(t.Scopes), t.ClientID
	}
	return more
}

// issued is the library's hook for a token that is about to be returned. A client that gets a token counts as used.
func (e *Engine) issued(ctx context.Context, t *goidc.Token, g *goidc.Grant) error {
	if callOf(ctx).proof != nil { // the proof could be used again for another token
		return errors.New("a token was made before the proof was used up")
	}
	if err := e.cfg.Clients.Keep(ctx, callOf(ctx).client); err != nil {
		return err
	}
	event := Event{
		Name: Issued, Client: t.ClientID, Audience: t.Resources[0], Scope: t.Scopes, Format: string(t.Format), Grant: g.ID,
		Expires: time.Unix(int64(t.ExpiresAt), 0),
	}
	if t.Subject != t.ClientID {
		event.Subject = t.Subject
	}
	e.cfg.Audit(ctx, event)
	callOf(ctx).token = t
	return nil
}

// clientFor returns a client in the library's form.
func (e *Engine) clientFor(c *call, client *clients.Client) *goidc.Client {
	meta := goidc.ClientMeta{
		TokenAuthnMethod: goidc.AuthnMethodSecretPost, // see authenticate
		ScopeIDs:         strings.Join(client.Scopes, " "),
		ResponseTypes:    e.responseTypes(),
	}
	if client.Public() {
		meta.TokenAuthnMethod = goidc.AuthnMethodNone
	}
	for _, g := range client.GrantTypes {
		if g == "client_credentials" && client.Public() {
			continue // RFC 6749, section 4.4: "MUST only be used by confidential clients"
		}
		meta.GrantTypes = append(meta.GrantTypes, goidc.GrantType(g))
	}
	if c.redirect != "" {
		meta.RedirectURIs = []string{canonical(c.redirect)} // known to be valid
	}
	return &goidc.Client{ID: client.ID, ClientMeta: meta}
}
