// Package engine answers the endpoints of the protocol: authorization, tokens, introspection, revocation, pushed requests,
// devices. It is the only importer of github.com/luikyv/go-oidc, none of whose types stands in an exported signature, so that
// it can be replaced.
//
// The library drives the flows. What it leaves to its user, or does otherwise than the standards say, is done around it:
//
//   - before it, requests are read strictly, clients authenticated, redirect URIs and PKCE checked ([Engine.Authorize],
//     authenticate, check);
//   - under it, records that are only ever replaced by who has read them, families of refresh tokens, no secret in clear
//     text (records, refresh.go);
//   - after it, statuses, codes and descriptions of errors as RFC 6749 lists them (explain).
//
// It only makes the tokens of devices, token exchange, assertions of other issuers and passwords (issue), and knows nothing of
// what tokens are bound to (bind). Introspection and revocation do not use it: it knows neither tokens with other claims nor
// signed answers.
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

// An Engine is safe for concurrent use. It runs goroutines only while it fetches the key sets of clients and trusted issuers.
type Engine struct {
	cfg       Config
	library   http.Handler
	records   *records
	keySets   keySets
	issuers   keySets // of Config.Issuers
	makeToken func(context.Context, *goidc.Grant) (token string, err error)
	failures  *login.Limiter
	pushes    *login.Limiter

	// polls counts the requests of devices that wait, so that these write nothing: as many keys as there are devices, in a
	// bounded table of this process. When it is full, a new device may be told to slow down once without need.
	polls *login.Limiter
}

// New returns an engine. The error names every mistake in cfg.
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
		for _, s := range a.Scopes {
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
		// It would make one with the code, and want it stored until then: see records.GrantByAuthCode.
		provider.WithRefreshTokenShouldIssue(func(context.Context, *goidc.Client, *goidc.Grant) bool { return false }),
		provider.WithScopes(scopes...),
		provider.WithResourceIndicators(audiences[0], audiences[1:]...),
		provider.WithDCR(e.records), // to be asked for clients; its endpoint is not reachable
		provider.WithNoneAuthn(),
		provider.WithSecretPostAuthn(), // of authenticate, whatever the client has done
		provider.WithClientSecretVerifier(checked),
		provider.WithOpaqueTokens(e.records),
		provider.WithOpaqueTokenFunc(func(context.Context, *goidc.Grant) string { return secret() }),
		provider.WithGrantHandler(e.decide),
		provider.WithTokenOptions(e.form),
		provider.WithTokenClaims(e.claims),
		provider.WithTokenHandler(e.issued),
		provider.WithErrorHandler(func(ctx context.Context, err error) { callOf(ctx).failed = err }),
		// Without one the library warns through the global logger. Nothing asks it: no assertion reaches the library.
		provider.WithJTIConsumer(func(context.Context, string) error { return errClient }),
	)
	if err != nil {
		return nil, fmt.Errorf("engine: set up the library: %w", err)
	}
	e.library, e.makeToken = p.Handler(), p.MakeToken
	e.warn()
	return e, nil
}

// signingKeys returns the active keys as the library takes them. It signs with the first of an algorithm.
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

// Routes registers the endpoints, below the path of the issuer. The authorization endpoint also answers at /oauth2/code, for
// clients of servers that name it so.
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
