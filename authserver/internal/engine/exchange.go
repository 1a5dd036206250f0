package engine

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"github.com/valetkey/valetkey"
)

// Token exchange (RFC 8693): a client, most often an API that was called with a token, gets a token for another API, or with
// less scope, in the name of the same user. The new token never lives longer than the one it stands for, and dies with it.

const (
	accessTokenType = "urn:ietf:params:oauth:token-type:access_token"
	jwtType         = "urn:ietf:params:oauth:token-type:jwt"
)

// What is kept with the grant of a token that was exchanged.
const (
	keptActor  = "act"
	keptParent = "parent" // the grant of the token that it stands for
)

// exchange returns the grant of a token that stands for another one.
func (e *Engine) exchange(c *call) (*goidc.Grant, error) {
	if c.client.Public() { // anybody could have stolen its tokens, and would get rid of what they are bound to
		return nil, errNotTheClients
	}
	if err := checkExchange(c.form); err != nil {
		return nil, err
	}
	subject, err := e.presented(c, "subject_token")
	if err != nil {
		return nil, err
	}
	actor := subject.claims["act"] // who already acts, if nobody else does
	doer := c.client.ID
	if c.form.Has("actor_token") { // section 1.1: delegation
		acting, err := e.presented(c, "actor_token")
		if err != nil {
			return nil, err
		}
		if acting.grant.ClientID != c.client.ID { // an API that was called with it is not its caller
			return nil, errNotItsToken
		}
		doer, _ = acting.claims["sub"].(string)
		actor = actors(doer, actor)
	}
	if only, ok := subject.claims["may_act"].(map[string]any); ok && only["sub"] != doer { // section 4.4
		return nil, errNotItsToken
	}

	limited := *c.client
	limited.DefaultAPI = subject.grant.Resources[0]
	limited.Scopes = slices.DeleteFunc(e.reachable(subject), func(s string) bool { return !slices.Contains(c.client.Scopes, s) })
	api, scopes, err := e.wanted(&limited, append(c.form["resource"], c.form["audience"]...), c.form.Get("scope"))
	if err != nil {
		return nil, err
	}
	if c.until = subject.expires(); time.Until(c.until) < time.Second { // of what is left, a whole number of seconds
		return nil, errNotItsToken
	}
	g := newGrant(c.client, api, scopes)
	g.Subject, _ = subject.claims["sub"].(string)
	g.Username = subject.grant.Username
	for _, name := range []string{keptType, keptAuthTime, keptACR} {
		g.Store[name] = subject.grant.Store[name]
	}
	g.Store[keptParent] = subject.grant.ID
	if actor != nil {
		g.Store[keptActor] = actor
	}
	return g, nil
}

// checkExchange looks at the parameters of section 2.1.
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
		return invalidRequest("subject_token is missing, or subject_token_type not that of an access token or a JWT")
	case p.Has("actor_token") != p.Has("actor_token_type"):
		return invalidRequest("actor_token and actor_token_type go together")
	case p.Has("actor_token") && !known("actor_token_type"):
		return invalidRequest("actor_token_type is not that of an access token or a JWT")
	case p.Has("requested_token_type") && p.Get("requested_token_type") != accessTokenType:
		return invalidRequest("requested_token_type is not that of an access token")
	}
	return nil
}

// presented returns an access token that stands in a parameter. It has to be alive, and the client's: issued to it, or to be
// used at an API that it answers for.
func (e *Engine) presented(c *call, name string) (*accessToken, error) {
	raw := c.form.Get(name)
	if isSecret(raw) && c.form.Get(name+"_type") == jwtType { // an opaque one
		return nil, errNotItsToken
	}
	t, err := e.inspect(c.r.Context(), raw)
	if err != nil {
		return nil, err
	}
	if t == nil || t.grant.ClientID != c.client.ID && !slices.Contains(c.client.Introspects, t.grant.Resources[0]) {
		return nil, errNotItsToken // section 2.2.2: invalid_request
	}
	return t, nil
}

// actors returns the claim act: who acts now, and within it who did before (section 4.1).
func actors(now string, before any) map[string]any {
	act := map[string]any{"sub": now}
	if before != nil {
		act["act"] = before
	}
	return act
}

// reachable returns the scopes that a token can be exchanged for: its own, and those they stand for.
func (e *Engine) reachable(t *accessToken) []string {
	text, _ := t.claims["scope"].(string)
	own := strings.Fields(text)
	all := slices.Clone(own)
	if api, ok := e.api(t.grant.Resources[0]); ok {
		for _, s := range own {
			all = append(all, api.Exchange[s]...)
		}
	}
	return valetkey.NewScopes(all...)
}

// expires returns when the token does.
func (t *accessToken) expires() time.Time {
	switch exp := t.claims["exp"].(type) {
	case int:
		return time.Unix(int64(exp), 0)
	case float64:
		return time.Unix(int64(exp), 0)
	default:
		return time.Time{}
	}
}

// ended reports whether a grant was revoked, or one that its token stands for.
func (e *Engine) ended(ctx context.Context, g *goidc.Grant) (bool, error) {
	for {
		parent, _ := g.Store[keptParent].(string)
		if g.RevokedAt != 0 || parent == "" {
			return g.RevokedAt != 0, nil
		}
		var err error
		if g, err = e.records.Grant(ctx, parent); errors.Is(err, goidc.ErrNotFound) {
			return true, nil
		} else if err != nil {
			return false, err
		}
	}
}
