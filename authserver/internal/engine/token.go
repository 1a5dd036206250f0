package engine

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
)

const (
	deviceGrant    = "urn:ietf:params:oauth:grant-type:device_code"
	exchangeGrant  = "urn:ietf:params:oauth:grant-type:token-exchange"
	assertionGrant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
)

// A redeemer returns the grant that a token request is for: a new one, or one that was read. It has checked everything except
// that the DPoP proof is used for the first time.
type redeemer func(*call) (*grant, error)

// offer sets the grant types that are offered, in the order of the metadata.
func (e *Engine) offer() {
	e.redeemers = map[string]redeemer{}
	offer := func(is bool, kind string, r redeemer) {
		if is {
			e.grantTypes, e.redeemers[kind] = append(e.grantTypes, kind), r
		}
	}
	offer(true, "authorization_code", e.redeemCode)
	offer(true, "client_credentials", e.ownGrant)
	offer(true, "refresh_token", e.redeemRefreshToken)
	offer(e.cfg.Implicit, "implicit", nil) // not at the token endpoint
	offer(true, deviceGrant, e.redeemDevice)
	offer(true, exchangeGrant, e.exchange)
	offer(len(e.cfg.Issuers) > 0, assertionGrant, e.believe)
	offer(e.cfg.Password != nil, "password", e.logIn)
}

// Token is the token endpoint (RFC 6749, section 3.2), for POST.
func (e *Engine) Token(w http.ResponseWriter, r *http.Request) {
	c := e.newCall(r)
	said, err := e.token(w, c)
	e.respond(w, c, http.StatusOK, said, err)
}

func (e *Engine) token(w http.ResponseWriter, c *call) (*tokenResponse, error) {
	if err := c.readForm(w); err != nil {
		if err == errTooLong {
			return nil, invalidRequest(errTooLong.description) // RFC 6749, section 5.2: 400
		}
		return nil, err
	}
	kind := c.form.Get("grant_type")
	if kind == "" {
		return nil, invalidRequest("grant_type is missing")
	}
	if err := e.authenticate(c, e.cfg.base()+e.cfg.Paths.Token); err != nil {
		return nil, err
	}
	// RFC 7636, section 4.1.
	if v := c.form.Get("code_verifier"); v != "" && (len(v) < 43 || len(v) > 128 || strings.Trim(v, base64urlAlphabet+".~") != "") {
		return nil, invalidRequest("code_verifier does not conform to RFC 7636")
	}
	if err := e.bind(w, c); err != nil {
		return nil, err
	}
	redeem := e.redeemers[kind]
	if redeem == nil {
		return nil, badRequest("unsupported_grant_type", "this server does not offer the grant")
	}
	if kind != "authorization_code" && !slices.Contains(c.client.GrantTypes, kind) { // redeemCode ends the grant of a real code
		return nil, errNotTheClients
	}
	if c.form.Has(claimDetails) && !slices.Contains([]string{"authorization_code", "refresh_token", deviceGrant, exchangeGrant}, kind) {
		return nil, errDetails // they require a user's consent
	}
	g, err := redeem(c)
	if err != nil {
		return nil, err
	}
	return e.issue(c, g)
}

// ownGrant returns the grant of a client for itself (RFC 6749, section 4.4).
func (e *Engine) ownGrant(c *call) (*grant, error) {
	if c.client.Public() { // "MUST only be used by confidential clients"
		return nil, errNotTheClients
	}
	api, scopes, err := e.wanted(c.client, c.form["resource"], c.form.Get("scope"))
	if err != nil {
		return nil, err
	}
	return newGrant(c.client, api, scopes), nil
}

// A tokenResponse is the response of the token endpoint: RFC 6749, section 5.1, and RFC 8693, section 2.2.1.
type tokenResponse struct {
	AccessToken  string `json:"access_token"`
	IssuedType   string `json:"issued_token_type,omitempty"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	Scope        string `json:"scope,omitempty"` // empty: details only
	RefreshToken string `json:"refresh_token,omitempty"`

	Details []flow.Detail `json:"authorization_details,omitempty"` // RFC 9396, section 7
}

// issue saves the grant and makes a token of it. Only the caller that saves the version that it has read gets one. A client that
// gets a token counts as used.
func (e *Engine) issue(c *call, g *grant) (*tokenResponse, error) {
	ctx := c.r.Context()
	api, ok := e.api(g.Audience)
	if !ok {
		return nil, errGrant
	}
	if err := c.useProof(); err != nil { // before the first record is written
		return nil, err
	}
	now := time.Now()
	life := e.lifetime(c.client, api)
	until := now.Add(life + time.Second) // the token's clock may have ticked since
	if g.FamilyEnds.After(now) {
		until = g.FamilyEnds.Add(life + time.Second)
	}
	g.Bound = c.holds
	if err := e.saveGrant(ctx, g, until); err != nil {
		return nil, err
	}
	if !c.until.IsZero() {
		life = min(life, time.Until(c.until))
	}
	end := now.Unix() + int64(life/time.Second)
	said := &tokenResponse{
		TokenType: "Bearer", ExpiresIn: int64(life / time.Second), Scope: g.tokenScopes(), RefreshToken: g.newRefresh,
		Details: g.tokenDetails(),
	}
	if g.Bound.Key != "" {
		said.TokenType = "DPoP"
	}
	if err := e.cfg.Clients.Keep(ctx, c.client); err != nil {
		return nil, err
	}
	var err error
	if said.AccessToken, err = e.sign(ctx, api, g, e.claims(g, api, now.Unix(), end)); err != nil {
		return nil, err
	}
	if g.Root != "" {
		said.IssuedType = accessTokenType
		if err := e.confirmExchange(ctx, g); err != nil {
			return nil, err
		}
	}
	event := Event{
		Name: Issued, Client: g.Client, Audience: g.Audience, Scope: said.Scope, Format: string(api.Tokens), Grant: g.ID,
		Expires: time.Unix(end, 0),
	}
	if g.Subject != g.Client {
		event.Subject = g.Subject
	}
	e.cfg.Audit(ctx, event)
	return said, nil
}

// tokenScopes returns the scopes of the next token.
func (g *grant) tokenScopes() string {
	if g.narrowed != "" {
		return g.narrowed
	}
	return g.Scopes
}

// tokenDetails returns the details of the next token.
func (g *grant) tokenDetails() []flow.Detail {
	if g.details != nil {
		return g.details
	}
	return g.Details
}

// lifetime returns the lifetime of a client's access tokens at an API.
func (e *Engine) lifetime(c *model.Client, api model.API) time.Duration {
	if c.Lifetime >= time.Second {
		return c.Lifetime
	}
	return api.Lifetime
}

const (
	claimGrant   = "grant_id"
	claimDetails = "authorization_details" // also the name of the parameter
)

// claims returns the claims of a token (RFC 9068, section 2.2). For an opaque token, they are what introspection returns.
func (e *Engine) claims(g *grant, api model.API, issued, expires int64) map[string]any {
	scopes := g.tokenScopes()
	claims := map[string]any{
		"iss": e.cfg.Issuer, "sub": g.Subject, "aud": g.Audience, "client_id": g.Client, "jti": rand.Text(),
		"iat": issued, "exp": expires, claimGrant: g.ID,
	}
	if scopes != "" {
		claims["scope"] = scopes
	}
	if details := g.tokenDetails(); len(details) > 0 { // RFC 9396, section 9.1
		claims[claimDetails] = details
	}
	if g.AuthTime != 0 { // section 2.2.1
		claims["auth_time"] = g.AuthTime
	}
	if g.ACR != "" {
		claims["acr"] = g.ACR
	}
	if sid := sessionOf(g); sid != "" { // OpenID Connect Back-Channel Logout 1.0, section 2.1
		claims["sid"] = sid
	}
	if g.Actor != nil { // RFC 8693, section 4.1
		claims["act"] = g.Actor
	}
	if api.MayAct != "" { // section 4.4
		claims["may_act"] = map[string]any{"sub": api.MayAct}
	}
	if g.Bound != (binding{}) { // RFC 9449, section 6.1; RFC 8705, section 3.1
		claims["cnf"] = g.Bound
	}
	switch api.Profile {
	case model.User:
		if scopes != "" {
			claims["scope"] = strings.Fields(scopes)
		}
		if g.UserType != "" {
			claims["user_type"], claims["user_id"] = g.UserType, strings.TrimPrefix(g.Subject, g.UserType+":")
		}
	case model.Permissions:
		claims["permissions"], claims["azp"] = strings.Fields(scopes), g.Client
	}
	return claims
}

// sign returns a token with the claims: a JWT, or a secret under which they are stored.
func (e *Engine) sign(ctx context.Context, api model.API, g *grant, claims map[string]any) (string, error) {
	text, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	if api.Tokens == model.Opaque {
		raw := secret()
		_, err := e.cfg.Store.Put(ctx, store.Record{
			Kind: kindToken, ID: store.Digest(raw), Expires: time.Unix(claims["exp"].(int64), 0), Value: text, MayDrop: true, Owner: g.Client,
		})
		if err != nil {
			return "", fmt.Errorf("write a token: %w", err)
		}
		return raw, nil
	}
	key, err := e.cfg.Keys.Signing(api.Algorithm)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return key.Sign(map[string]any{"typ": "at+jwt"}, text) // RFC 9068, section 2.1
}

// redeemCode returns the grant of an authorization code (RFC 6749, section 4.1.3). A code that was redeemed before ends its grant
// (section 4.1.2), unless the request was in progress when that happened, such as one duplicated by the network.
func (e *Engine) redeemCode(c *call) (*grant, error) {
	ctx := c.r.Context()
	if !c.form.Has("code") {
		return nil, invalidRequest("code is missing")
	}
	g, err := e.findGrant(ctx, keyCode, c.form.Get("code"))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, errGrant
	case err != nil:
		return nil, err
	case !g.Redeemed.IsZero():
		return nil, e.codeReused(c, g)
	case g.CodeKey != "" && g.CodeKey != c.holds.Key: // RFC 9449, section 10
		return nil, errGrant
	}
	if err := e.renew(c, g); err != nil {
		return nil, err
	}
	if !g.live() {
		return nil, errGrant
	}
	if err := e.checkCode(c, g); err != nil {
		g.end() // the code may be stolen
		if lost := e.saveGrant(ctx, g, time.Time{}); lost != nil {
			return nil, lost
		}
		return nil, err
	}
	g.Redeemed = time.Now()
	e.startFamily(c, g)
	return g, nil
}

// codeReused ends the grant of a code that was redeemed before.
func (e *Engine) codeReused(c *call, g *grant) error {
	if c.at.Before(g.Redeemed) || !g.live() {
		return errGrant
	}
	e.cfg.Audit(c.r.Context(), Event{Name: CodeReused, Client: g.Client, Subject: g.Subject, Grant: g.ID})
	if _, err := e.endGrant(c.r.Context(), g, endings.Reused, ""); err != nil {
		return err
	}
	return errGrant
}

// checkCode compares a redemption with the request that the code was issued for.
func (e *Engine) checkCode(c *call, g *grant) error {
	switch {
	case !slices.Contains(c.client.GrantTypes, "authorization_code"):
		return errNotTheClients
	case g.Client != c.client.ID, !time.Now().Before(g.CodeEnds), c.form.Get("redirect_uri") != g.RedirectURI:
		return errGrant
	case challengeOf(c.form.Get("code_verifier")) != g.Challenge: // RFC 7636, section 4.6
		return errGrant
	}
	if err := e.fit(c, g); err != nil {
		return err
	}
	return c.narrow(g)
}
