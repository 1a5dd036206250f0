package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
)

// An accessToken is a live access token of this server.
type accessToken struct {
	grant   *grant
	claims  map[string]any // as in a JWT, except for grant_id
	details []flow.Detail  // the claim authorization_details
}

// inspect returns an access token of this server, or nil if there is no live one. A refresh token does not count, because an API
// that introspects it would take it for an access token.
func (e *Engine) inspect(ctx context.Context, raw string) (*accessToken, error) {
	text, err := e.tokenClaims(ctx, raw)
	if text == nil || err != nil {
		return nil, err
	}
	claims, details, err := readClaims(text)
	if err != nil {
		return nil, fmt.Errorf("inspect a token: %w", err)
	}
	id, _ := claims[claimGrant].(string)
	exp, _ := claims["exp"].(float64)
	if claims["iss"] != e.cfg.Issuer || time.Now().Unix() >= int64(exp) || id == "" {
		return nil, nil
	}
	delete(claims, claimGrant)
	if claims["scope"] != nil {
		claims["scope"] = scopeText(claims["scope"])
	}
	g, err := e.grant(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("inspect a token: %w", err)
	}
	if dead, err := e.ended(ctx, g); dead || err != nil {
		return nil, err
	}
	return &accessToken{g, claims, details}, nil
}

// readClaims parses the claims of a token of ours. Details stay in the form that the user has seen: their numbers may be out of the range
// of float64.
func readClaims(text []byte) (claims map[string]any, details []flow.Detail, err error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, nil, err
	}
	claims = make(map[string]any, len(members))
	for name, text := range members {
		if name == claimDetails {
			if err := json.Unmarshal(text, &details); err != nil {
				return nil, nil, err
			}
			claims[name] = details
			continue
		}
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			return nil, nil, err
		}
		claims[name] = v
	}
	return claims, details, nil
}

// tokenClaims returns the claims of a token, as JSON; nil: it is not one of ours.
func (e *Engine) tokenClaims(ctx context.Context, raw string) ([]byte, error) {
	if !isSecret(raw) {
		token, err := jose.Parse(raw)
		if err != nil || !jose.SameType(token.Header.Type, "at+jwt") || !e.signed(token) {
			return nil, nil
		}
		return token.Payload, nil
	}
	rec, err := e.cfg.Store.Get(ctx, kindToken, store.Digest(raw))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("read a token: %w", err)
	}
	return rec.Value, nil
}

// scopeText returns scopes in the form of RFC 7662, section 2.2, from a claim that is an array in the profile User.
func scopeText(claim any) any {
	list, ok := claim.([]any)
	if !ok {
		return claim
	}
	var scopes []string
	for _, s := range list {
		scopes = append(scopes, fmt.Sprint(s))
	}
	return strings.Join(scopes, " ")
}

// signed reports whether one of our keys has signed the token.
func (e *Engine) signed(token *jose.Compact) bool {
	return slices.ContainsFunc(e.cfg.Keys.Keys(), func(k *jose.PrivateKey) bool {
		return k.ID() == token.Header.KeyID && k.Public().Verify(token) == nil
	})
}

// Introspect is the introspection endpoint (RFC 7662), for POST. A request with "Accept: application/token-introspection+jwt"
// gets a signed response (RFC 9701).
func (e *Engine) Introspect(w http.ResponseWriter, r *http.Request) {
	c := e.newCall(r)
	said, err := e.introspect(w, c)
	if err == nil && accepts(r, introspectionType) {
		var signed string
		if signed, err = e.signAnswer(c, said); err == nil {
			answer(w, http.StatusOK, introspectionType, []byte(signed))
			return
		}
	}
	e.respond(w, c, http.StatusOK, said, err)
}

const introspectionType = "application/token-introspection+jwt"

func (e *Engine) introspect(w http.ResponseWriter, c *call) (map[string]any, error) {
	if err := c.readForm(w); err != nil {
		return nil, err
	}
	if err := e.confidential(c, e.cfg.base()+e.cfg.Paths.Introspect); err != nil { // RFC 7662, section 4
		return nil, err
	}
	if !c.form.Has("token") {
		return nil, invalidRequest("token is missing")
	}
	inactive := map[string]any{"active": false}
	t, err := e.inspect(c.r.Context(), c.form.Get("token"))
	if t == nil {
		return inactive, err
	}
	// Section 4: an API gets information about its own tokens only.
	if audience := t.grant.Audience; !slices.Contains(c.client.Introspects, audience) {
		e.cfg.Audit(c.r.Context(), Event{Name: NotItsTokens, Client: c.client.ID, Audience: audience})
		return inactive, nil
	}
	if stands, err := e.stands(c.r.Context(), t); err != nil || !stands {
		return inactive, err
	}
	// Section 2.2.
	t.claims["active"], t.claims["token_type"] = true, "Bearer"
	if t.grant.Username != "" {
		t.claims["username"] = t.grant.Username
	}
	if bound, _ := t.claims["cnf"].(map[string]any); bound["jkt"] != nil { // RFC 9449, section 6.2
		t.claims["token_type"] = "DPoP"
	}
	return t.claims, nil
}

// signAnswer signs with the algorithm of the first API that the client represents (RFC 9701, section 5).
func (e *Engine) signAnswer(c *call, said map[string]any) (string, error) {
	api := e.cfg.APIs[0]
	if len(c.client.Introspects) > 0 {
		if own, ok := e.api(c.client.Introspects[0]); ok {
			api = own
		}
	}
	key, err := e.cfg.Keys.Signing(api.Algorithm)
	if err != nil {
		return "", fmt.Errorf("sign an answer: %w", err)
	}
	// Without sub and exp, it cannot be mistaken for an access token.
	text, err := json.Marshal(map[string]any{
		"iss": e.cfg.Issuer, "aud": c.client.ID, "iat": time.Now().Unix(), "token_introspection": said,
	})
	if err != nil {
		return "", fmt.Errorf("sign an answer: %w", err)
	}
	return key.Sign(map[string]any{"typ": "token-introspection+jwt"}, text)
}
