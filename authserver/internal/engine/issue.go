package engine

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/internal/recorder"
)

// Grant types that the library does not support, or not sufficiently. It only makes their tokens.
const (
	deviceGrant    = "urn:ietf:params:oauth:grant-type:device_code"
	exchangeGrant  = "urn:ietf:params:oauth:grant-type:token-exchange"
	assertionGrant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	passwordGrant  = "password"
)

// grantTypes returns all grant types that are offered.
func (e *Engine) grantTypes() []string {
	all := []string{"authorization_code", "client_credentials", "refresh_token"}
	if e.cfg.Implicit {
		all = append(all, grantOf["token"])
	}
	for _, kind := range []string{deviceGrant, exchangeGrant, assertionGrant, passwordGrant} {
		if e.own(kind) != nil {
			all = append(all, kind)
		}
	}
	return all
}

// own returns the function that creates grants of one of these types; nil: it is another type, or not offered.
func (e *Engine) own(kind string) func(*call) (*goidc.Grant, error) {
	switch {
	case kind == deviceGrant:
		return e.redeemDevice
	case kind == exchangeGrant:
		return e.exchange
	case kind == assertionGrant && len(e.cfg.Issuers) > 0:
		return e.believe
	case kind == passwordGrant && e.cfg.Password != nil:
		return e.logIn
	default:
		return nil
	}
}

// issue responds to a token request with a token for the grant that the function returns.
func (e *Engine) issue(c *call, grant func(*call) (*goidc.Grant, error)) (*recorded, error) {
	if !slices.Contains(c.client.GrantTypes, c.form.Get("grant_type")) {
		return nil, errNotTheClients
	}
	g, err := grant(c)
	if err != nil {
		return nil, err
	}
	if err := c.useProof(); err != nil {
		return nil, err
	}
	heldOf(g).bound = c.holds
	token, err := e.makeToken(context.WithValue(c.r.Context(), callKey{}, c), g)
	if err != nil {
		return nil, err
	}
	if rootOf(g) != "" {
		if err := e.confirmExchange(c.r.Context(), g); err != nil {
			return nil, err
		}
	}
	said := map[string]any{ // RFC 6749, section 5.1
		"access_token": token, "token_type": c.token.Type, "expires_in": c.token.LifetimeSecs(), "scope": c.token.Scopes,
	}
	if g.RefreshToken != "" {
		said["refresh_token"] = g.RefreshToken
	}
	if c.form.Get("grant_type") == exchangeGrant { // RFC 8693, section 2.2.1
		said["issued_token_type"] = accessTokenType
	}
	rec := &recorded{recorder.Response{Status: http.StatusOK}}
	if err := json.NewEncoder(&rec.Body).Encode(said); err != nil {
		return nil, fmt.Errorf("write an answer: %w", err)
	}
	return rec, nil
}

// newGrant returns a grant for a client, without a subject.
func newGrant(c *clients.Client, api model.API, scopes valetkey.Scopes) *goidc.Grant {
	return &goidc.Grant{
		ID: rand.Text(), CreatedAt: int(time.Now().Unix()), ClientID: c.ID,
		Resources: goidc.Resources{api.Audience}, Scopes: scopes.String(), Store: map[string]any{},
	}
}

// allow makes the user of a decision the subject of a grant.
func allow(d *flow.Decision, g *goidc.Grant) {
	g.Subject, g.Username = d.User.Subject, d.User.Name
	g.Store[keptType], g.Store[keptACR] = d.User.Type, d.ACR
	g.Store[keptAuthTime] = strconv.FormatInt(d.AuthTime.Unix(), 10)
	g.Store[keptSince] = sinceText(d.User.Since)
}
