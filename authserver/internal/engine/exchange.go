package engine

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
)

// Token exchange (RFC 8693): a client, usually an API that was called with a token, gets a token for another API, or with less
// scope, on behalf of the same user. The new token never outlives the original, and ends with it.
//
// A client may exchange a token that it got by an exchange. To make a chain cost no more than one link, a grant stores the root
// of its chain, which is read with it, and the grants between, which end it when they end: see [Engine.revoke].
//
// The authorization_details of a token are limits of what its user has allowed (RFC 9396), which neither RFC maps to another token. The new
// token has them all or, of those that the request names, these. If the API of the new token does not have the type of one of them, the
// exchange is refused: without the detail, the token could mean more than the user has allowed.

const (
	accessTokenType = "urn:ietf:params:oauth:token-type:access_token"
	jwtType         = "urn:ietf:params:oauth:token-type:jwt"
)

// maxExchanges limits the length of a chain of exchanges, and thus the depth of act (RFC 8693, section 4.1): each service that a
// request passes through may exchange the token once.
const maxExchanges = 8

// exchange returns the grant of a token that replaces another one.
func (e *Engine) exchange(c *call) (*grant, error) {
	if c.client.Public() { // a thief of its tokens could remove their binding
		return nil, errNotTheClients
	}
	if err := checkExchange(c.form); err != nil {
		return nil, err
	}
	subject, err := e.presented(c, "subject_token")
	if err != nil {
		return nil, err
	}
	parents := slices.Clone(subject.grant.Parents)
	if subject.grant.Root != "" {
		parents = append(parents, subject.grant.ID)
	}
	if len(parents) >= maxExchanges {
		return nil, errExchanged
	}
	actor := subject.claims["act"] // the present actor, unless there is an actor_token
	doer := c.client.ID
	if c.form.Has("actor_token") { // section 1.1: delegation
		acting, err := e.presented(c, "actor_token")
		if err != nil {
			return nil, err
		}
		if acting.grant.Client != c.client.ID { // an API that was called with the token is not its caller
			return nil, errNotItsToken
		}
		doer, _ = acting.claims["sub"].(string)
		actor = actors(doer, actor)
	}
	if only, ok := subject.claims["may_act"].(map[string]any); ok && only["sub"] != doer { // section 4.4
		return nil, errNotItsToken
	}

	limited := *c.client
	limited.DefaultAPI = subject.grant.Audience
	limited.Scopes = slices.DeleteFunc(e.reachable(subject, ""), func(s string) bool { return !slices.Contains(c.client.Scopes, s) })
	details, err := c.detailsAmong(subject.details)
	if err != nil {
		return nil, err
	}
	if details == nil {
		details = subject.details
	}
	api, scopes, err := e.exchangedFor(c, &limited, subject, len(details) > 0)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(details, func(d flow.Detail) bool { return api.DetailType(d.Type) == nil }) {
		return nil, errDetails
	}
	if c.until = subject.expires(); time.Until(c.until) < time.Second { // the remaining lifetime in whole seconds
		return nil, errNotItsToken
	}
	g := newGrant(c.client, api, scopes)
	g.identity, g.Details = subject.grant.identity, details
	g.Session = "" // it ends with the root
	g.Root, g.Parents, g.Actor = cmp.Or(subject.grant.Root, subject.grant.ID), parents, actor
	return g, nil
}

// exchangedFor returns the API and the scopes of a token that replaces another one. The client is limited to the scopes that the token can
// be exchanged for. If the token has details, it may be without scopes.
func (e *Engine) exchangedFor(c *call, limited *model.Client, subject *accessToken, detailed bool) (model.API, valetkey.Scopes, error) {
	resources := append(slices.Clone(c.form["resource"]), c.form["audience"]...)
	if detailed && len(limited.Scopes) == 0 && !c.form.Has("scope") {
		if resources == nil {
			resources = []string{subject.grant.Audience}
		}
		api, err := e.choose(limited, resources, valetkey.Scopes{})
		return api, valetkey.Scopes{}, err
	}
	api, scopes, err := e.wanted(limited, resources, c.form.Get("scope"))
	if err != nil {
		return api, scopes, err
	}
	// Another API may have a scope of the same name, which the token does not permit.
	there := e.reachable(subject, api.Audience)
	reached := valetkey.NewScopes(slices.DeleteFunc(scopes.Slice(), func(s string) bool { return !slices.Contains(there, s) })...)
	if reached.Len() == 0 || c.form.Has("scope") && reached.Len() < scopes.Len() {
		return api, scopes, errScope
	}
	return api, reached, nil
}

// checkExchange validates the parameters of section 2.1.
func checkExchange(p url.Values) error {
	for _, r := range p["resource"] {
		// "an absolute URI [...] MUST NOT include a fragment component"
		if u, err := url.Parse(r); err != nil || !u.IsAbs() || strings.Contains(r, "#") {
			return errTarget
		}
	}
	known := func(name string) bool { return p.Get(name) == accessTokenType || p.Get(name) == jwtType }
	switch {
	case !p.Has("subject_token"), !known("subject_token_type"):
		return invalidRequest("subject_token is missing, or subject_token_type is not that of an access token or a JWT")
	case p.Has("actor_token") != p.Has("actor_token_type"):
		return invalidRequest("actor_token and actor_token_type must be sent together")
	case p.Has("actor_token") && !known("actor_token_type"):
		return invalidRequest("actor_token_type is not that of an access token or a JWT")
	case p.Has("requested_token_type") && p.Get("requested_token_type") != accessTokenType:
		return invalidRequest("requested_token_type is not that of an access token")
	}
	return nil
}

// presented returns the access token in a parameter. It must be live, and either issued to the client or for an API that the
// client represents.
func (e *Engine) presented(c *call, name string) (*accessToken, error) {
	raw := c.form.Get(name)
	if isSecret(raw) && c.form.Get(name+"_type") == jwtType { // an opaque one
		return nil, errNotItsToken
	}
	t, err := e.inspect(c.r.Context(), raw)
	if err != nil {
		return nil, err
	}
	if t == nil || t.grant.Client != c.client.ID && !slices.Contains(c.client.Introspects, t.grant.Audience) {
		return nil, errNotItsToken // section 2.2.2: invalid_request
	}
	if stands, err := e.stands(c.r.Context(), t); err != nil {
		return nil, err
	} else if !stands {
		return nil, errNotItsToken
	}
	return t, nil
}

// actors returns the claim act: the present actor, which contains the previous ones (section 4.1).
func actors(now string, before any) map[string]any {
	act := map[string]any{"sub": now}
	if before != nil {
		act["act"] = before
	}
	return act
}

// reachable returns the scopes that a token can be exchanged for at an API: its own there, or those that they map to elsewhere. An
// empty audience means any API.
func (e *Engine) reachable(t *accessToken, audience string) []string {
	text, _ := t.claims["scope"].(string)
	own := strings.Fields(text)
	var all []string
	if audience == "" || audience == t.grant.Audience {
		all = slices.Clone(own)
	}
	if api, ok := e.api(t.grant.Audience); ok && audience != t.grant.Audience {
		for _, s := range own {
			all = append(all, api.Exchange[s]...)
		}
	}
	return valetkey.NewScopes(all...).Slice()
}

// expires returns the expiry of the token.
func (t *accessToken) expires() time.Time {
	exp, _ := t.claims["exp"].(float64)
	return time.Unix(int64(exp), 0)
}

// ended reports whether a grant or the root of its chain of exchanges was revoked. It reads at most one record.
func (e *Engine) ended(ctx context.Context, g *grant) (bool, error) {
	if !g.live() || g.Root == "" {
		return !g.live(), nil
	}
	return e.gone(ctx, g.Root)
}

// gone reports whether the grant with this ID is missing or revoked.
func (e *Engine) gone(ctx context.Context, id string) (bool, error) {
	g, err := e.grant(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return true, nil
	}
	return err == nil && !g.live(), err
}

// confirmExchange is called after the grant of an exchange is stored. One of the original grants may have ended meanwhile, too
// late for the exchange to notice and too early for the revocation to find the new grant. In that case the new grant ends as
// well.
func (e *Engine) confirmExchange(ctx context.Context, g *grant) error {
	for _, id := range append(slices.Clone(g.Parents), g.Root) {
		gone, err := e.gone(ctx, id)
		if err != nil {
			return err
		}
		if gone {
			if _, err := e.revoke(ctx, g); err != nil {
				return err
			}
			return errNotItsToken
		}
	}
	return nil
}
