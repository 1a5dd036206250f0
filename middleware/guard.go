// Package middleware guards net/http handlers with access tokens (RFC 6750).
//
//	guard, err := middleware.New(middleware.Config{Verifier: keys})
//	...
//	mux.Handle("GET /orders", guard.Handler(listOrders, scopes.All("orders:read")))
//
// A request takes one way, without a step back, each step in one file:
//
//   - credentials: what does the request claim?
//   - verify: is it true?
//   - prove: does the sender hold what the token is bound to?
//   - authorize: is it sufficient for this route, now?
//   - a [Decision], which lets the request through with its token or holds the whole response that refuses it.
//
// [Guard.Decide] is all of them. What carries a Decision decides nothing: [Decision.Apply] does so for net/http, and an adapter for
// anything else maps its status, header and body.
//
// A guard does not look at the path or method, so a rule holds for the pattern that the router matched. It leaves the
// response of an accepted request alone, except for Cache-Control where the token came in a query (RFC 6750, section 2.3) and
// the nonce that a client needs next (RFC 9449, section 8.2).
package middleware

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/denylist"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/tokencache"
)

// Config is what a [Guard] is made of. Only Verifier is required.
type Config struct {
	_ struct{} // keyed literals only

	// Verifier decides whether a token is true. Required. See packages jwks and [valetkey.First].
	Verifier valetkey.Verifier

	// Claims is the application's type for the claims of its tokens, see [valetkey.DeclareClaims]. A token is decoded into it once, and
	// again only after it has not come for a while; what is decoded counts as part of Cache.Bytes. A token whose claims do not fit is
	// refused with 401. Nil: nothing is decoded.
	Claims valetkey.Claims

	// Methods lists places beside the Authorization header where a request may carry its token: [Form], [Query], [Cookie],
	// [WebSocketProtocol]. A request that fills two places is refused with 400. Nil: the header alone.
	Methods []BearerMethod

	// DPoP verifies proofs, which make tokens of use only to the holder of a key (RFC 9449). Such a token is accepted with the
	// scheme DPoP and a proof for the very request, and no other with that scheme. Nil: tokens bound to a key are refused. Two
	// guards that see the same request must not share one, or the second takes the proof for a replay.
	//
	// A proof beside a bearer token that is bound to nothing is not looked at: whoever stole that token would leave it off.
	DPoP *dpop.Verifier

	// ClientCertificate says where the certificate of a client is, of which tokens may be bound to one (RFC 8705):
	// [TLSCertificate], [ClientCertHeader], [PEMHeader]. The zero value: nowhere, and tokens so bound are refused.
	ClientCertificate ClientCertificate

	// SenderConstrained refuses tokens that are bound neither to a key nor to a certificate (RFC 9700, section 2.2.1).
	SenderConstrained bool

	// URL returns the URL of a request as the client saw it, with or without its query, for proofs:
	//
	//	func(r *http.Request) string { return "https://api.example.com" + r.URL.EscapedPath() }
	//
	// Nil: what Proxies report, else scheme and host of Resource.ID, with the path as sent. The Host header does not count, because
	// the client determines it: a server that clients send proofs to could use them here under its own name. So with DPoP, one
	// of URL, Proxies.Forwarded and Resource.ID is required. Without a Resource.ID, a proof is refused in a request that did not come
	// through the Proxies, or whose host they do not report.
	URL func(r *http.Request) string

	// Proxies are the reverse proxies before the guard, and what they are believed. The zero value: there are none.
	Proxies Proxies

	// ExposeChallenge lets pages of other origins read the challenge and the nonce that they need to answer it, with
	// Access-Control-Expose-Headers (RFC 9449, section 8). It is for servers whose CORS middleware does not do so.
	ExposeChallenge bool

	// Resource describes the API to clients (RFC 9728), see [Guard.Metadata]. The zero value: nothing does.
	Resource Resource

	// Realm is the realm of the challenges. Empty: "api".
	Realm string

	// ErrorURI is the error_uri of the challenges, a page that explains errors to client developers. Empty: none.
	ErrorURI string

	// ErrorBody writes the body of a refusal, for status 400, 401, 403 or 503; e is nil for 503, whose cause is not the
	// client's business. It cannot change the status or the challenge. Nil: a line of plain text. See [ProblemJSON].
	ErrorBody func(ctx context.Context, status int, e *valetkey.Error) (contentType string, body []byte)

	// Cache bounds the memory of verified tokens.
	Cache Cache

	// Revocations configures where revocations come from, and bounds the memory of them. See [Guard.Revoke] and [Guard.Watch].
	Revocations Revocations

	// Preflight answers CORS preflights, which browsers send without credentials: OPTIONS with Origin and
	// Access-Control-Request-Method. It runs in place of the guarded handler, which never gets a request without a token for that
	// reason, also in adapters. Most CORS packages for net/http provide it:
	//
	//	Preflight: cors.Handler(http.NotFoundHandler())
	//
	// Nil: a preflight needs a token as any other request, and gets 401. It is not needed where a CORS middleware stands before
	// the guard, which also lets pages of other origins read refusals.
	Preflight http.Handler

	// CancelWithToken ends the context of a request when its token can no longer be accepted, for streams and WebSockets that
	// outlive it: at the token's Deadline, at once when [Guard.Revoke] revokes it or finds no room to tell, and within a minute when verifying it
	// again is refused, for a status list, an introspection or a withdrawn key. That is done once a minute, through the memory of
	// verified tokens, as for a new request; needs and bindings are not looked at again. A failure ends nothing before the Deadline.
	// [context.Cause] is then a [valetkey.Error]. A handler has to watch the context, and to end what does not: a connection that it
	// has hijacked, a read that waits for the client. The request's context must end with the request, as that of net/http does.
	CancelWithToken bool

	// Logger gets refusals at level Debug and failures at level Error, never a token. Nil: slog.Default().
	Logger *slog.Logger

	// Observer is told of every request that is checked. Nil: nobody is.
	Observer valetkey.Observer

	// Now is the clock that remembered tokens are held against. Nil: time.Now.
	Now func() time.Time
}

// Cache bounds the memory of verified tokens. It holds facts and no decisions, keeps no token's text, and an entry
// never outlives its token, its signing key, or MaxAge. The zero value is good for most.
type Cache struct {
	Entries int           // at most so many tokens; zero: 65,536; negative: every request is verified anew
	Bytes   int64         // of at most so many bytes together; zero: 64 MiB
	MaxAge  time.Duration // a token is verified again after so long; zero: 5 min
}

// A Guard lets requests with a sufficient access token through to a handler and refuses all others. It is safe for
// concurrent use and needs no closing.
type Guard struct {
	verifier          valetkey.Verifier // asked through the cache only
	cache             *tokencache.Cache
	denials           *denials
	alsoFrom          []BearerMethod
	dpop              *dpop.Verifier // nil: no proof is accepted
	clientCertificate ClientCertificate
	senderConstrained bool
	url               func(r *http.Request) string // nil: urlOf finds out
	scheme, host      string                       // of Resource.ID; "": it has none
	proxies           Proxies
	exposeChallenge   bool
	resource          Resource
	declared          *declared
	challenge         challenge
	body              func(ctx context.Context, status int, e *valetkey.Error) (string, []byte)
	preflight         http.Handler // nil: a preflight is a request as any other
	streams           *streams     // nil: requests outlive their tokens
	log               *slog.Logger
	observer          valetkey.Observer // nil: none
	now               func() time.Time
}

// New returns a Guard. It does no I/O. The error names every mistake in cfg.
func New(cfg Config) (*Guard, error) {
	wrong := mistakes.List{Package: "middleware"}
	if cfg.Verifier == nil {
		wrong.Add("Verifier", "required")
	}
	if cfg.Claims != nil {
		if err := cfg.Claims.Check(); err != nil {
			wrong.Add("Claims", "%w", err)
		}
	}
	if !quotable(cfg.Realm) {
		wrong.Add("Realm", "%q holds a character that a challenge cannot carry", cfg.Realm)
	}
	if _, err := url.Parse(cfg.ErrorURI); err != nil || !uriCharacters(cfg.ErrorURI) {
		wrong.Add("ErrorURI", "%q is not a URI reference", cfg.ErrorURI)
	}
	for i, s := range cfg.Methods {
		if s.tokens == nil {
			wrong.Add(fmt.Sprintf("Methods[%d]", i), "is the zero Source, or was made of an empty name")
		}
	}
	cfg.checkBinding(&wrong)
	cfg.Resource.check(&wrong)
	if cfg.Cache.Bytes < 0 {
		wrong.Add("Cache.Bytes", "%d is negative", cfg.Cache.Bytes)
	}
	if cfg.Revocations.Source == nil && cfg.Revocations.AllowBeforeCaughtUp {
		wrong.Add("Revocations.AllowBeforeCaughtUp", "there is no Source")
	}
	if cfg.Revocations.Bytes < 0 {
		wrong.Add("Revocations.Bytes", "%d is negative", cfg.Revocations.Bytes)
	}
	if cfg.Cache.MaxAge < 0 {
		wrong.Add("Cache.MaxAge", "%v is negative", cfg.Cache.MaxAge)
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}

	g := &Guard{
		verifier:          cfg.Verifier,
		alsoFrom:          append([]BearerMethod(nil), cfg.Methods...),
		dpop:              cfg.DPoP,
		clientCertificate: cfg.ClientCertificate,
		senderConstrained: cfg.SenderConstrained,
		url:               cfg.URL,
		proxies:           cfg.Proxies.clone(),
		exposeChallenge:   cfg.ExposeChallenge,
		resource:          cfg.Resource.clone(),
		declared:          new(declared),
		challenge:         challenge{realm: cfg.Realm, errorURI: cfg.ErrorURI, metadata: cfg.Resource.metadataURL()},
		body:              cfg.ErrorBody,
		preflight:         cfg.Preflight,
		log:               cfg.Logger,
		observer:          cfg.Observer,
		now:               cfg.Now,
	}
	if id, err := url.Parse(cfg.Resource.ID); err == nil {
		g.scheme, g.host = id.Scheme, id.Host
	}
	if cfg.takesBearer() {
		g.challenge.schemes = append(g.challenge.schemes, authheader.Bearer)
	}
	if g.dpop != nil {
		g.challenge.schemes = append(g.challenge.schemes, authheader.DPoP)
		g.challenge.algorithms = strings.Join(g.dpop.Algorithms(), " ")
	}
	if g.challenge.realm == "" {
		g.challenge.realm = "api"
	}
	if g.body == nil {
		g.body = plainText
	}
	if g.log == nil {
		g.log = slog.Default()
	}
	if g.now == nil {
		g.now = time.Now
	}
	if cfg.CancelWithToken {
		g.streams = &streams{guard: g}
	}
	g.denials = &denials{list: denylist.New(denylist.Config{Bytes: cfg.Revocations.Bytes}), now: g.now, log: g.log}
	if source := cfg.Revocations.Source; source != nil {
		g.denials.watched = &watched{source: source, allow: cfg.Revocations.AllowBeforeCaughtUp, now: g.now, since: g.now(), err: errNotWatched}
	}
	g.cache = tokencache.New(tokencache.Config{
		Entries: cfg.Cache.Entries,
		Bytes:   cfg.Cache.Bytes,
		MaxAge:  cfg.Cache.MaxAge,
		Now:     g.now,
		Claims:  cfg.Claims,
	}, uncached{cfg.Verifier, g.denials})
	return g, nil
}

// Handler guards next: a request reaches it with a token that meets all needs, or, without needs, with any valid token. With
// [valetkey.Optional] as the only need, a request without credentials for this guard reaches it too; [valetkey.FromContext] then
// returns nil, also where another guard before this one has attached a token.
func (g *Guard) Handler(next http.Handler, needs ...valetkey.Requirement) http.Handler {
	needs = append([]valetkey.Requirement(nil), needs...)
	g.Declare(needs...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r, ok := g.Decide(r, needs...).Apply(w, r); ok {
			next.ServeHTTP(w, r)
		}
	})
}

// Require is [Guard.Handler] in the form that routers such as chi take as middleware.
func (g *Guard) Require(needs ...valetkey.Requirement) func(http.Handler) http.Handler {
	g.Declare(needs...)
	return func(next http.Handler) http.Handler { return g.Handler(next, needs...) }
}

// preflight reports whether r is a CORS preflight (Fetch standard, "CORS-preflight request"), not a mere OPTIONS.
func preflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}
