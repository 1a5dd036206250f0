// Package engine answers the token, introspection and revocation endpoints. It is the only importer of
// github.com/luikyv/go-oidc, none of whose types stands in an exported signature, so that it can be replaced.
//
// What the library leaves to its user is decided here: the audience of a token, the meaning of an omitted scope, who may
// introspect what, statuses and descriptions of errors as RFC 6749, section 5.2 lists them, bounded storage.
package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"
	"github.com/luikyv/go-oidc/pkg/provider"

	"github.com/valetkey/valetkey"
)

// The endpoints that [Engine.Answer] knows, as paths of the request's URL.
const (
	TokenPath      = "/oauth2/token"
	IntrospectPath = "/oauth2/introspect"
	RevokePath     = "/oauth2/revoke"
)

// Config is what the engine needs to know. It is valid: package authserver has seen to that.
type Config struct {
	Issuer    string
	APIs      []API
	Clients   []Client
	MaxTokens int
	Logger    *slog.Logger
}

// An API is a resource server that tokens are issued for. No two APIs share an audience or a scope.
type API struct {
	Audience  string
	Scopes    []string
	Opaque    bool
	Algorithm string // of its JWTs: ES256 or RS256
	Lifetime  time.Duration
}

// A Client is registered with a digest of its secret, which must have entropy enough to be digested once.
type Client struct {
	ID          string
	Secret      [sha256.Size]byte
	Scopes      []string // none: it gets no tokens
	DefaultAPI  string   // an audience, or ""
	Introspects []string // the audiences it answers for
}

// An Engine is safe for concurrent use.
type Engine struct {
	cfg      Config
	provider http.Handler
	keys     goidc.JSONWebKeySet
}

// New returns an engine with signing keys of its own, made afresh.
func New(cfg Config) (*Engine, error) {
	keys, err := generateKeys(cfg.APIs)
	if err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, keys: keys}
	store := newStore(cfg.MaxTokens, e.grantEnd)

	var audiences []string
	var scopes []goidc.Scope
	for _, a := range cfg.APIs {
		audiences = append(audiences, a.Audience)
		for _, s := range a.Scopes {
			scopes = append(scopes, goidc.NewScope(s))
		}
	}
	clients := make([]*goidc.Client, len(cfg.Clients))
	for i, c := range cfg.Clients {
		clients[i] = register(c)
	}

	p, err := provider.New(cfg.Issuer, store, func(context.Context) (goidc.JSONWebKeySet, error) { return keys, nil },
		provider.WithTokenEndpoint(TokenPath),
		provider.WithTokenIntrospectionEndpoint(IntrospectPath),
		provider.WithTokenRevocationEndpoint(RevokePath),
		provider.WithClientCredentialsGrant(),
		provider.WithScopes(scopes...),
		provider.WithResourceIndicators(audiences[0], audiences[1:]...),
		provider.WithStaticClients(clients[0], clients[1:]...),
		provider.WithSecretPostAuthn(), // Answer is given the credentials in this form, however they were sent
		provider.WithClientSecretVerifier(verifySecret),
		provider.WithOpaqueTokens(store),
		provider.WithOpaqueTokenFunc(func(context.Context, *goidc.Grant) string { return rand.Text() + rand.Text() }),
		provider.WithGrantHandler(e.decide),
		provider.WithTokenOptions(e.form),
		provider.WithTokenHandler(e.issued),
		provider.WithTokenIntrospection(e.mayIntrospect),
		provider.WithTokenRevocation(func(context.Context, *goidc.Client) bool { return true }), // of its own tokens
		provider.WithTokenRevocationRevokeGrantOnAccessToken(),                                  // or a revoked JWT stays active
		provider.WithErrorHandler(func(ctx context.Context, err error) { *ctx.Value(outcome{}).(*error) = err }),
		// Without one the library warns through the global logger. Nothing asks it: no grant or client here sends proofs.
		provider.WithJTIConsumer(func(context.Context, string) error { return errors.New("proofs are not accepted") }),
	)
	if err != nil {
		return nil, fmt.Errorf("set up the engine: %w", err)
	}
	e.provider = p.Handler()
	return e, nil
}

func register(c Client) *goidc.Client {
	meta := goidc.ClientMeta{TokenAuthnMethod: goidc.AuthnMethodSecretPost, ScopeIDs: strings.Join(c.Scopes, " ")}
	if len(c.Scopes) > 0 {
		meta.GrantTypes = []goidc.GrantType{goidc.GrantClientCredentials}
	}
	return &goidc.Client{ID: c.ID, Secret: string(c.Secret[:]), ClientMeta: meta}
}

func verifySecret(_ context.Context, stored, presented string) error {
	digest := sha256.Sum256([]byte(presented))
	if subtle.ConstantTimeCompare([]byte(stored), digest[:]) != 1 {
		return errors.New("the secret is not the client's")
	}
	return nil
}

// decide settles what a grant is for, once the client is known and its scopes are: one API, and at least one scope of it.
func (e *Engine) decide(_ context.Context, _ goidc.GrantType, g *goidc.Grant) error {
	c := e.client(g.ClientID)
	asked := valetkey.NewScopes(strings.Split(g.Scopes, " ")...)
	api, err := e.choose(c, g.Resources, asked)
	if err != nil {
		return err
	}
	granted := asked
	if len(asked) == 0 {
		// RFC 6749, section 3.3: an omitted scope is a default one, here all that the client may have at this API.
		granted = slices.DeleteFunc(valetkey.NewScopes(c.Scopes...), func(s string) bool { return !slices.Contains(api.Scopes, s) })
	}
	if len(granted) == 0 || !api.has(granted) {
		return goidc.NewError(goidc.ErrorCodeInvalidScope, "")
	}
	g.Resources, g.Scopes = goidc.Resources{api.Audience}, granted.String()
	return nil
}

// choose finds the API that a token is for: the resource asked for, or else the one that the scopes asked for belong to,
// or else the client's default, or else its only one (RFC 8707, section 2; RFC 9068, section 3).
func (e *Engine) choose(c Client, resources []string, asked valetkey.Scopes) (API, error) {
	refusal := goidc.ErrorCodeInvalidScope
	switch {
	case len(resources) > 1: // a token good at two APIs could be used by one at the other (RFC 9068, section 5)
		return API{}, goidc.NewError(goidc.ErrorCodeInvalidTarget, "")
	case len(resources) == 1:
		return e.api(resources[0]), nil
	case len(asked) == 0 && c.DefaultAPI != "":
		return e.api(c.DefaultAPI), nil
	case len(asked) == 0:
		asked, refusal = c.Scopes, goidc.ErrorCodeInvalidTarget
	}
	for _, a := range e.cfg.APIs {
		if a.has(asked) {
			return a, nil
		}
	}
	return API{}, goidc.NewError(refusal, "")
}

func (a API) has(scopes []string) bool {
	return !slices.ContainsFunc(scopes, func(s string) bool { return !slices.Contains(a.Scopes, s) })
}

func (e *Engine) form(_ context.Context, g *goidc.Grant, _ *goidc.Client) goidc.TokenOptions {
	api := e.api(g.Resources[0])
	secs := int(api.Lifetime / time.Second)
	if api.Opaque {
		return goidc.NewOpaqueTokenOptions(secs)
	}
	return goidc.NewJWTTokenOptions(goidc.SignatureAlgorithm(api.Algorithm), secs)
}

// grantEnd returns when no token of the grant can be alive any more.
func (e *Engine) grantEnd(g *goidc.Grant) time.Time {
	// A second more: the token's clock may have ticked since the grant's.
	return time.Unix(int64(g.CreatedAt), 0).Add(e.api(g.Resources[0]).Lifetime + time.Second)
}

func (e *Engine) issued(ctx context.Context, t *goidc.Token, _ *goidc.Grant) error {
	e.cfg.Logger.InfoContext(ctx, "token issued", "client", t.ClientID, "audience", t.Resources[0], "scope", t.Scopes,
		"format", t.Format, "expires", time.Unix(int64(t.ExpiresAt), 0).UTC())
	return nil
}

// mayIntrospect lets an API ask about its own tokens only (RFC 7662, section 4).
func (e *Engine) mayIntrospect(ctx context.Context, gc *goidc.Client, info goidc.TokenInfo) bool {
	c := e.client(gc.ID)
	if slices.ContainsFunc(info.ResourceAudiences, func(a string) bool { return slices.Contains(c.Introspects, a) }) {
		return true
	}
	e.cfg.Logger.InfoContext(ctx, "introspection of another API's token", "client", c.ID, "audience", info.ResourceAudiences)
	return false
}

// api returns the API of an audience, or one without scopes.
func (e *Engine) api(audience string) API {
	for _, a := range e.cfg.APIs {
		if a.Audience == audience {
			return a
		}
	}
	return API{}
}

// client returns the client of an id, or one that may do nothing.
func (e *Engine) client(id string) Client {
	for _, c := range e.cfg.Clients {
		if c.ID == id {
			return c
		}
	}
	return Client{}
}

// A Refusal is an error that the client is told (RFC 6749, section 5.2). The description is fixed text.
type Refusal struct {
	Status      int
	Code        string
	Description string
}

func (r *Refusal) Error() string { return r.Code + ": " + r.Description }

// refusals are all that the engine gives; RFC 6749, section 5.2, and RFC 8707, section 2.
var refusals = map[goidc.ErrorCode]*Refusal{
	goidc.ErrorCodeInvalidClient:        {http.StatusUnauthorized, "invalid_client", "the client is unknown or its secret is wrong"},
	goidc.ErrorCodeUnauthorizedClient:   {http.StatusBadRequest, "unauthorized_client", "the client may not use this grant"},
	goidc.ErrorCodeUnsupportedGrantType: {http.StatusBadRequest, "unsupported_grant_type", "this server does not offer the grant"},
	goidc.ErrorCodeInvalidScope:         {http.StatusBadRequest, "invalid_scope", "a scope is not known, not the client's, or not the resource's"},
	goidc.ErrorCodeInvalidTarget:        {http.StatusBadRequest, "invalid_target", "name one known API in the resource parameter"},
	goidc.ErrorCodeInvalidRequest:       {http.StatusBadRequest, "invalid_request", "a parameter is missing or malformed"},
	// The library's word for a token of another client that is to be revoked (RFC 7009, section 2.1).
	goidc.ErrorCodeAccessDenied: {http.StatusBadRequest, "invalid_grant", "the token was issued to another client"},
}

type outcome struct{} // the context key of where the library's error goes

// Answer returns the body of the response: JSON, or nothing. The request's client sends its credentials as client_id and
// client_secret in r.PostForm. An error is a *[Refusal], or else a failure of our own.
func (e *Engine) Answer(r *http.Request) ([]byte, error) {
	var failed error
	var rec recorder
	e.provider.ServeHTTP(&rec, r.WithContext(context.WithValue(r.Context(), outcome{}, &failed)))

	var known goidc.Error
	switch {
	case errors.As(failed, &known) && known.Code == goidc.ErrorCodeAccessDenied && r.URL.Path == IntrospectPath:
		return []byte(`{"active":false}`), nil // RFC 7662, section 2.2: "not allowed to introspect this particular token"
	case refusals[known.Code] != nil:
		return nil, refusals[known.Code]
	case failed != nil:
		return nil, failed
	case rec.status != http.StatusOK:
		return nil, fmt.Errorf("the engine answered %d to %s", rec.status, r.URL.Path)
	default:
		return rec.body.Bytes(), nil
	}
}

// recorder is a ResponseWriter that keeps the response: what the client sees is decided afterwards.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

// KeySet returns the JWK Set (RFC 7517, section 5) of the public keys.
func (e *Engine) KeySet() ([]byte, error) {
	set, err := json.Marshal(e.keys.Public())
	if err != nil {
		return nil, fmt.Errorf("write the key set: %w", err)
	}
	return set, nil
}
