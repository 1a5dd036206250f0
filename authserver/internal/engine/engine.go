// Package engine implements the protocol endpoints: authorization, tokens, introspection, revocation, pushed requests and
// devices. It is the only importer of github.com/luikyv/go-oidc, and no type of that library is in an exported signature, so
// the library can be replaced.
//
// The library drives the flows. Where it leaves work to its user or deviates from the standards, this package does the work:
//
//   - before the library: strict parsing of requests, authentication of clients, checks of redirect URIs and PKCE ([Engine.Authorize],
//     authenticate, check);
//   - below the library: records that are replaced only by a writer that has read them, families of refresh tokens, no secret in clear
//     text (records, refresh.go);
//   - after the library: statuses, codes and descriptions of errors as RFC 6749 lists them (explain).
//
// For devices, token exchange, assertions of other issuers and passwords, the library only makes the tokens (issue). It is not
// aware of token binding (bind). Introspection and revocation do not use it, because it supports neither tokens with other
// claims nor signed responses.
package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"
	"github.com/luikyv/go-oidc/pkg/provider"

	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/internal/fetch"
)

// An Engine serves the protocol endpoints. It is safe for concurrent use. It runs goroutines only while it fetches the key sets
// of clients and trusted issuers.
type Engine struct {
	cfg       Config
	library   http.Handler
	records   *records
	keySets   keySets
	issuers   keySets // of Config.Issuers
	makeToken func(context.Context, *goidc.Grant) (token string, err error)
	failures  *login.Limiter
	pushes    *login.Limiter

	// polls counts the requests of waiting devices, so that polling writes nothing. It has one key per device, in a bounded
	// table of this process. When the table is full, a new device may be told once to slow down without need.
	polls *login.Limiter
}

// New returns an Engine. The error lists every mistake in cfg.
func New(cfg Config) (*Engine, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	cfg.setDefaults()
	e := &Engine{cfg: cfg, keySets: newKeySets(fetch.Client{HTTP: cfg.KeySets}), issuers: newKeySets(fetch.Client{})}
	e.records = &records{e}
	var errs [3]error
	e.failures, errs[0] = login.NewLimiter(cfg.Failures, 0)
	e.pushes, errs[1] = login.NewLimiter(cfg.Pushes, 0)
	e.polls, errs[2] = login.NewLimiter(login.Rate{Burst: 1, Every: pollEvery*time.Second - pollSlack}, 0)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("engine: Failures, Pushes: %w", err)
	}

	var audiences []string
	var scopes []goidc.Scope
	for _, a := range cfg.APIs {
		audiences = append(audiences, a.Audience)
		for _, s := range a.ScopeNames() {
			scopes = append(scopes, goidc.NewScope(s))
		}
	}
	random := func(context.Context) string { return secret() }
	p, err := provider.New(cfg.Issuer, e.records, e.signingKeys,
		provider.WithTokenEndpoint("/token"),
		provider.WithAuthorizeEndpoint("/authorize"),
		provider.WithPAREndpoint("/par"),
		provider.WithAuthCodeGrant(e.records, e.responseTypes()...),
		provider.WithAuthCodeFunc(random),
		provider.WithAuthCodeLifetime(int(cfg.CodeLifetime/time.Second)),
		provider.WithAuthnSessionIDFunc(random),
		provider.WithAuthSessionLifetime(int(cfg.InteractionLifetime/time.Second)),
		provider.WithPolicies(goidc.NewPolicy("ask", e.prepare, e.ask)),
		provider.WithPKCE(goidc.CodeChallengeMethodSHA256),
		provider.WithIssuerResponseParameter(),
		provider.WithPAR(e.records),
		provider.WithPARIDFunc(random),
		provider.WithPARLifetime(int(cfg.PARLifetime/time.Second)),
		provider.WithPARSessionHandler(e.keepPushed),
		provider.WithClientCredentialsGrant(),
		provider.WithRefreshTokenGrant(e.records),
		provider.WithRefreshTokenRotation(),
		provider.WithRefreshTokenFunc(random),
		// The library would create one with the code, and store it until then; see records.GrantByAuthCode.
		provider.WithRefreshTokenShouldIssue(func(context.Context, *goidc.Client, *goidc.Grant) bool { return false }),
		provider.WithScopes(scopes...),
		provider.WithResourceIndicators(audiences[0], audiences[1:]...),
		provider.WithDCR(e.records), // so that it looks up clients; its endpoint is not reachable
		provider.WithNoneAuthn(),
		provider.WithSecretPostAuthn(), // the result of authenticate, regardless of the client's method
		provider.WithClientSecretVerifier(checked),
		provider.WithOpaqueTokens(e.records),
		provider.WithOpaqueTokenFunc(func(context.Context, *goidc.Grant) string { return secret() }),
		provider.WithGrantHandler(e.decide),
		provider.WithTokenOptions(e.form),
		provider.WithTokenClaims(e.claims),
		provider.WithTokenHandler(e.issued),
		provider.WithErrorHandler(func(ctx context.Context, err error) { callOf(ctx).failed = err }),
		// Without one the library warns through the global logger. It is never called: no assertion reaches the library.
		provider.WithJTIConsumer(func(context.Context, string) error { return errClient }),
	)
	if err != nil {
		return nil, fmt.Errorf("engine: set up the library: %w", err)
	}
	e.library, e.makeToken = p.Handler(), p.MakeToken
	e.warn()
	return e, nil
}

// signingKeys returns the active keys in the form that the library requires. It signs with the first key of an algorithm.
func (e *Engine) signingKeys(context.Context) (set goidc.JSONWebKeySet, err error) {
	for _, a := range e.cfg.APIs {
		k, err := e.cfg.Keys.Signing(a.Algorithm)
		if err != nil {
			return set, err
		}
		set.Keys = append(set.Keys, goidc.JSONWebKey{Key: k.Signer(), KeyID: k.ID(), Algorithm: a.Algorithm, Use: "sig"})
	}
	return set, nil
}

// Routes registers the endpoints, below the path of the issuer. The authorization endpoint is also served at /oauth2/code, for
// clients of servers with that name for it.
func (e *Engine) Routes(mux *http.ServeMux) {
	path, p := e.cfg.path(), e.cfg.Paths
	for _, authorize := range slices.Compact([]string{p.Authorize, "/oauth2/code"}) {
		mux.HandleFunc("GET "+path+authorize, e.Authorize)
		mux.HandleFunc("POST "+path+authorize, e.Authorize) // RFC 6749, section 3.1
	}
	mux.HandleFunc("GET "+path+p.Authorize+"/{interaction}", e.Continue)
	mux.HandleFunc("POST "+path+p.Authorize+"/{interaction}", e.Continue)
	mux.HandleFunc("POST "+path+p.Token, e.Token)
	mux.HandleFunc("POST "+path+p.PAR, e.PAR)
	mux.HandleFunc("POST "+path+p.Device, e.DeviceAuthorization)
	mux.HandleFunc("POST "+path+p.Introspect, e.Introspect)
	mux.HandleFunc("POST "+path+p.Revoke, e.Revoke)
}
