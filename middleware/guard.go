// Package middleware guards net/http handlers with OAuth 2.0 access tokens (RFC 6750).
//
//	guard, err := middleware.New(middleware.Config{Issuer: "https://as.example.com", Audience: []string{"https://api.example.com"}})
//	...
//	mux.Handle("GET /orders", guard.Handler(listOrders, scopes.All("orders:read")))
//
// A request passes these steps in order:
//
//   - credentials: what does the request claim?
//   - verify: is it true?
//   - prove: does the sender hold the key that the token is bound to?
//   - authorize: is it sufficient for this route, now?
//   - a [Decision], which accepts the request with its token or holds the full response that refuses it.
//
// [Guard.Decide] performs all steps. [Decision.Apply] carries out the Decision for net/http; an adapter for another framework maps
// its status, header and body. Neither decides anything.
//
// A guard does not consider the path or the method, so a requirement applies to the pattern that the router matched. A guard does
// not change the response of an accepted request, with these exceptions: Cache-Control if the token came in a query (RFC 6750,
// section 2.3), a cookie or the header of [HeaderToken] (RFC 9111, section 3.5), the next nonce of a DPoP client with its headers (RFC 9449, section 8.2), and Vary on a route with
// [valetkey.Optional] or for a request without a token. A request that passes because of InsecureReportOnly gets Vary, too, and
// Cache-Control: private if it has a token.
package middleware

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/tokencache"
	"github.com/valetkey/valetkey/jwks"
)

// Config configures a [Guard]. Required: Issuer and Audience, or Verifier.
type Config struct {
	_ struct{} // keyed literals only

	// Issuer is the issuer of the tokens, such as https://as.example.com, and Audience lists the names of this API. The guard then
	// accepts the JWT access tokens (RFC 9068) that [jwks.New] accepts with these two settings, the Logger, Observer, MaxTokenBytes
	// and Now of the guard, and the defaults for everything else. [Guard.Ready] fetches the keys, or the first token does.
	//
	// For the issuers whose tokens need other settings (package issuers), for several issuers and for opaque tokens, set Verifier
	// instead.
	Issuer   string
	Audience []string

	// Verifier verifies tokens, in place of Issuer and Audience. See packages jwks and introspect, and [valetkey.First].
	Verifier valetkey.Verifier

	// Claims is the application's type for the claims of its tokens, see [valetkey.DeclareClaims]. The guard decodes a token once,
	// and again only if the token has not been used for a while. Decoded claims count toward Cache.Bytes. A token whose claims
	// cannot be decoded is refused with 401. Nil: nothing is decoded.
	Claims valetkey.Claims

	// MaxTokenBytes is the maximum length of a token. The Verifier has a limit too, which may need the same setting. Zero:
	// [valetkey.MaxTokenBytes], 16 KiB; at most 64 KiB. Servers and proxies limit the size of a request's headers, often to less.
	MaxTokenBytes int

	// Methods lists places, in addition to the Authorization header, where a request may carry its token: [Form], [Query],
	// [Cookie], [WebSocketProtocol], [WebSocketProtocolBase64URL], [WebSocketProtocolPair]. With [HeaderToken], another header
	// replaces Authorization. A request with tokens in two places is refused with 400. Nil: the Authorization header only.
	Methods []BearerMethod

	// DPoP verifies DPoP proofs, which restrict a token to the holder of a key (RFC 9449). A token bound to a key requires the
	// scheme DPoP and a proof for this request. No other token is accepted with that scheme. Nil: tokens bound to a key are
	// refused. Two guards that check the same request must not share a Verifier, or the second refuses the proof as a replay.
	//
	// A proof that accompanies an unbound bearer token is ignored, because a thief of that token would omit it.
	DPoP *dpop.Verifier

	// ClientCertificate specifies where to find the client's certificate, to which tokens may be bound (RFC 8705):
	// [TLSCertificate], [ClientCertHeader], [PEMHeader], [DERHeader], [XFCCHeader]. The zero value: nowhere; tokens bound to a
	// certificate are refused.
	ClientCertificate ClientCertificate

	// SenderConstrained refuses tokens that are bound neither to a key nor to a certificate (RFC 9700, section 2.2.1).
	SenderConstrained bool

	// URL returns the URL of a request as the client saw it, with or without its query, for proofs:
	//
	//	func(r *http.Request) string { return "https://api.example.com" + r.URL.EscapedPath() }
	//
	// Nil: the scheme and host that the Proxies report, else those of Resource.ID, with the path as sent. The Host header is not
	// used, because the client controls it: another server that receives proofs could replay them here under its own name. So
	// with DPoP, one of URL, Proxies.Forwarded and Resource.ID is required. Without a Resource.ID, a proof is refused if the
	// request did not come through the Proxies, or if they do not report its host.
	URL func(r *http.Request) string

	// Proxies specifies the trusted reverse proxies and the headers accepted from them. The zero value trusts no proxy.
	Proxies Proxies

	// ExposeChallenge sets Access-Control-Expose-Headers, so that pages of other origins can read the challenge and the nonce
	// that they need to respond to it (RFC 9449, section 8). It is for servers whose CORS middleware does not do so.
	ExposeChallenge bool

	// Resource describes the API to clients (RFC 9728), see [Guard.Metadata]. The zero value: no metadata.
	Resource Resource

	// Realm is the realm of the challenges. Empty: "api".
	Realm string

	// ErrorURI is the error_uri of the challenges, the URL of a page that explains errors to client developers. Empty: none.
	ErrorURI string

	// ErrorBody writes the body of a refusal, for status 400, 401, 403 or 503. For 503, e is nil, because the client must not
	// learn the cause. ErrorBody cannot change the status or the challenge. Nil: a line of plain text. See [ProblemJSON].
	ErrorBody func(ctx context.Context, status int, e *valetkey.Error) (contentType string, body []byte)

	// Cache bounds the cache of verified tokens.
	Cache Cache

	// Revocations configures the source of revocations and bounds the memory for them. See [Guard.Revoke] and [Guard.Watch].
	Revocations Revocations

	// Previous is the guard that the new guard replaces in this process, for a configuration that changes while the process runs.
	// From then on, both share their revocations, including the state of the source: each applies what Revoke or Watch of either
	// receives, to its cached tokens and to its requests in progress. Revocations must not be set, because that of Previous
	// applies. Requests that Previous has accepted go on. A guard that is no longer used takes no memory because of Previous.
	//
	// Previous does not hand over used DPoP proofs. Use its dpop.Config.ReplayStore again, or a proof could be used twice. Nil: the
	// guard replaces none.
	Previous *Guard

	// KeepCached reports whether Verifier would accept a token that Previous has cached with the same result, because it contains
	// the verifier that accepted the token, unchanged. Such a token remains cached until it would have been verified again. Nil:
	// no token is taken over.
	KeepCached func(t *valetkey.Token) bool

	// Preflight handles CORS preflights, which browsers send without credentials: OPTIONS with Origin and
	// Access-Control-Request-Method. It runs instead of the guarded handler, in adapters too, so the guarded handler never
	// receives a preflight without a token. Most CORS packages for net/http provide it:
	//
	//	Preflight: cors.Handler(http.NotFoundHandler())
	//
	// Nil: a preflight needs a token like any other request, and gets 401. Preflight is not needed if CORS middleware runs before
	// the guard. That middleware also lets pages of other origins read refusals.
	Preflight http.Handler

	// CancelWithToken cancels the context of a request when its token can no longer be accepted. It is for streams and
	// WebSockets that outlive their token. The context ends
	//   - at the token's Deadline,
	//   - immediately if [Guard.Revoke] revokes the token, or if the token may be revoked, see [Revocations],
	//   - within a minute if verifying the token again is refused, because of a status list, an introspection or a withdrawn key.
	//
	// The guard verifies the token again once a minute, through the cache of verified tokens, as for a new request. It does not
	// check needs and bindings again. A failure does not end the context before the Deadline. When the guard ends the context,
	// [context.Cause] is a [valetkey.Error].
	//
	// A handler must watch the context, and must end operations that do not watch it, such as a hijacked connection or a blocked
	// read from the client. The request's context must end with the request, as that of net/http does.
	CancelWithToken bool

	// OnBehalf lets package onbehalf exchange the token of a request for one with which the handler calls another service. The context
	// of an accepted request then carries the text of its token, which only that package reads and which is never printed. False:
	// the text is dropped after the decision.
	OnBehalf bool

	// InsecureReportOnly lets requests through that the guard would refuse, and reports them as refused to Logger and Observer: see
	// [valetkey.InsecureReportOnly], which does so for one route. It is for the introduction of tokens, scopes and rules to an API
	// that is in use. [Guard.Reject] still refuses.
	InsecureReportOnly bool

	// Logger receives refusals at level Debug and failures at level Error. Refusals that a working client never causes, because
	// the configuration does not fit the tokens or a token is a stranger's, also appear at level Warn, once per reason and minute:
	// another issuer, audience, type or algorithm, an unknown key, a missing claim, a wrong clock ... The line contains the value
	// in the token and the configured one. Logger never receives a token. Nil: slog.Default().
	Logger *slog.Logger

	// Observer receives a [valetkey.RequestDecided] event for each request that the guard checks. Nil: none.
	Observer valetkey.Observer

	// Now is the clock by which the guard decides whether cached tokens and revocations are still valid. Nil: time.Now.
	Now func() time.Time
}

// Cache bounds the cache of verified tokens. The cache holds facts, not decisions, and no token text. An entry never outlives its
// token, its signing key, or MaxAge. The zero value suits most applications.
type Cache struct {
	Entries int           // maximum number of tokens; zero: 65,536; negative: no cache, every request is verified
	Bytes   int64         // maximum memory for them; zero: 64 MiB; negative values are invalid
	MaxAge  time.Duration // time after which a token is verified again; zero: 5 min; negative values are invalid
}

// A Guard passes requests with a sufficient access token to a handler and refuses all others. It is safe for concurrent use. It
// does not need to be closed, except a guard with Config.Issuer that is dropped while the process goes on: see [Guard.Close].
type Guard struct {
	maxToken          int               // bytes
	verifier          valetkey.Verifier // called only through the cache
	close             func()            // of the verifier that New made; nil: the verifier is the caller's
	cache             *tokencache.Cache
	denials           *denials
	alsoFrom          []BearerMethod
	tokenHeader       string         // replaces Authorization; "": that is read
	vary              string         // the headers that may carry a token
	dpop              *dpop.Verifier // nil: no proof is accepted
	clientCertificate ClientCertificate
	senderConstrained bool
	url               func(r *http.Request) string // nil: urlOf derives it
	scheme, host      string                       // of Resource.ID; "": there is no ID
	proxies           Proxies
	exposeChallenge   bool
	resource          Resource
	declared          *declared
	challenge         challenge
	body              func(ctx context.Context, status int, e *valetkey.Error) (string, []byte)
	preflight         http.Handler // nil: a preflight is treated like any other request
	streams           *streams     // nil: requests outlive their tokens
	log               *slog.Logger
	warnings          warnings
	observer          valetkey.Observer // nil: none
	observesAccepted  bool              // observer is called for accepted requests
	reportOnly        bool
	onBehalf          bool // the context of a request carries the text of its token
	now               func() time.Time
}

// New returns a Guard. It does no I/O. The error joins every mistake in cfg, each a [valetkey.ConfigError].
func New(cfg Config) (*Guard, error) {
	wrong := mistakes.List{Package: "middleware"}
	own := cfg.ownVerifier(&wrong)
	maxToken, err := authheader.TokenLimit(cfg.MaxTokenBytes)
	if err != nil {
		wrong.Add("MaxTokenBytes", "%w", err)
	}
	if cfg.Claims != nil {
		if err := cfg.Claims.Check(); err != nil {
			wrong.Add("Claims", "%w", err)
		}
	}
	if !quotable(cfg.Realm) {
		wrong.Add("Realm", "%q contains a character that a challenge cannot carry", cfg.Realm)
	}
	if _, err := url.Parse(cfg.ErrorURI); err != nil || !uriCharacters(cfg.ErrorURI) {
		wrong.Add("ErrorURI", "%q is not a URI reference", cfg.ErrorURI)
	}
	for i, m := range cfg.Methods {
		field := fmt.Sprintf("Methods[%d]", i)
		if m.tokens == nil {
			wrong.Add(field, "is the zero BearerMethod, or was created with an empty name or prefix, or a nil protection")
		}
		if m.mistake != nil {
			wrong.Add(field, "%w", m.mistake)
		}
		if m.scheme && slices.ContainsFunc(cfg.Methods, func(other BearerMethod) bool { return other.header != "" }) {
			wrong.Add(field, "conflicts with the header that replaces Authorization")
		}
		if m.header == "" {
			continue
		}
		if slices.ContainsFunc(cfg.Methods[:i], func(other BearerMethod) bool { return other.header != "" }) {
			wrong.Add(field, "a second header would replace Authorization: one guard reads one header")
		}
		if cfg.DPoP != nil {
			wrong.Add(field, "conflicts with DPoP, whose tokens are sent in Authorization, which %s replaces", m.header)
		}
		if m.header == cfg.ClientCertificate.header {
			wrong.Add(field, "%s is the header of ClientCertificate", m.header)
		}
	}
	cfg.checkBinding(&wrong)
	cfg.Resource.check(&wrong)
	if cfg.Cache.Bytes < 0 {
		wrong.Add("Cache.Bytes", "%d is negative", cfg.Cache.Bytes)
	}
	if cfg.Revocations.Source == nil && cfg.Revocations.AllowBeforeCaughtUp {
		wrong.Add("Revocations.AllowBeforeCaughtUp", "has no effect without Source")
	}
	if cfg.Revocations.Bytes < 0 {
		wrong.Add("Revocations.Bytes", "%d is negative", cfg.Revocations.Bytes)
	}
	if cfg.Revocations.Keep < 0 {
		wrong.Add("Revocations.Keep", "%v is negative", cfg.Revocations.Keep)
	}
	if cfg.Previous != nil && cfg.Revocations != (Revocations{}) {
		wrong.Add("Revocations", "must not be set with Previous, whose Revocations apply")
	}
	if cfg.Previous == nil && cfg.KeepCached != nil {
		wrong.Add("KeepCached", "has no effect without Previous")
	}
	if cfg.Cache.MaxAge < 0 {
		wrong.Add("Cache.MaxAge", "%v is negative", cfg.Cache.MaxAge)
	}
	if err := wrong.Err(); err != nil {
		if own != nil {
			own.Close()
		}
		return nil, err
	}

	g := &Guard{
		verifier:          cfg.Verifier,
		maxToken:          maxToken,
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
		warnings:          newWarnings(),
		observer:          cfg.Observer,
		observesAccepted:  cfg.Observer != nil && valetkey.ObservesAccepted(cfg.Observer),
		reportOnly:        cfg.InsecureReportOnly,
		onBehalf:          cfg.OnBehalf,
		now:               cfg.Now,
	}
	if own != nil {
		g.close = own.Close
	}
	id, _ := url.Parse(cfg.Resource.ID) // check has parsed it
	g.scheme, g.host = id.Scheme, id.Host
	if cfg.takesBearer() {
		g.challenge.schemes = append(g.challenge.schemes, authheader.Bearer)
	}
	if g.dpop != nil {
		g.challenge.schemes = append(g.challenge.schemes, authheader.DPoP)
		g.challenge.algorithms = strings.Join(g.dpop.Algorithms(), " ")
	}
	vary := []string{"Authorization"}
	for _, m := range g.alsoFrom {
		if m.header != "" {
			g.tokenHeader, vary[0] = m.header, m.header
		} else if m.vary != "" && !slices.Contains(vary, m.vary) {
			vary = append(vary, m.vary)
		}
	}
	g.vary = strings.Join(vary, ", ")
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
	if g.reportOnly {
		g.log.Warn("report-only mode: refusals are reported and not enforced")
	}
	if cfg.CancelWithToken {
		g.streams = &streams{guard: g}
	}
	if cfg.Previous != nil {
		g.denials = cfg.Previous.denials
	} else {
		g.denials = newDenials(cfg.Revocations, g)
	}
	g.cache = tokencache.New(tokencache.Config{
		Entries: cfg.Cache.Entries,
		Bytes:   cfg.Cache.Bytes,
		MaxAge:  cfg.Cache.MaxAge,
		Now:     g.now,
		Claims:  cfg.Claims,
	}, uncached{verifier: cfg.Verifier, denials: g.denials, padded: g.tokenHeader != ""})
	g.denials.guards.add(g)
	if cfg.KeepCached != nil {
		g.takeOver(cfg.Previous, cfg.KeepCached)
	}
	return g, nil
}

// ownVerifier sets cfg.Verifier to a new verifier of the tokens of cfg.Issuer, and returns it, if cfg has no Verifier.
func (cfg *Config) ownVerifier(wrong *mistakes.List) *jwks.Verifier {
	configured := cfg.Issuer != "" || cfg.Audience != nil
	switch {
	case cfg.Verifier != nil:
		wrong.AddIf(configured, "Issuer, Audience", "cannot be combined with Verifier, which has its own")
		return nil
	case !configured:
		wrong.Add("Issuer, Audience", "required, or Verifier")
		return nil
	}
	own := jwks.Config{Issuer: cfg.Issuer, Audience: cfg.Audience, Logger: cfg.Logger, Observer: cfg.Observer, Now: cfg.Now}
	if _, err := authheader.TokenLimit(cfg.MaxTokenBytes); err == nil { // New reports the mistake
		own.MaxTokenBytes = cfg.MaxTokenBytes
	}
	v, err := jwks.New(own)
	for _, m := range valetkey.ConfigErrors(err) {
		switch {
		case strings.HasPrefix(m.Field, "Audience") || cfg.Issuer == "":
			wrong.Add(m.Field, "%w", m.Err)
		case m.Field == "Issuer": // it may name another setting, such as InsecureHTTP
			wrong.Add("Issuer", "%w (for the other settings of package jwks, set Verifier)", m.Err)
		default:
			wrong.Add("Issuer", "needs the settings of package jwks: set Verifier: %w", m)
		}
	}
	if err != nil {
		return nil
	}
	cfg.Verifier = v
	return v
}

// Ready returns nil once the verifiers are ready, as by [valetkey.HealthReporter], and at once if they report no health. Call it at
// startup: a wrong issuer is then an error of the start, not a refusal of each token. It waits until ctx is done at the latest, and
// returns the causes of a failure.
func (g *Guard) Ready(ctx context.Context) error {
	if r, ok := g.verifier.(valetkey.HealthReporter); ok {
		return r.Ready(ctx)
	}
	return nil
}

// Close ends the fetches and timers of the verifier that New made of Config.Issuer, and waits for them. Afterwards, requests with a
// token get 503. It does not close Config.Verifier, which belongs to the caller. It may be called more than once.
func (g *Guard) Close() {
	if g.close != nil {
		g.close()
	}
}

// Handler returns a handler that guards next. A request reaches next if its token meets all needs; without needs, any valid token
// is sufficient. With [valetkey.Optional] as the only need, a request without credentials for this guard reaches next too;
// [valetkey.FromContext] then returns nil, even if another guard has attached a token before.
func (g *Guard) Handler(next http.Handler, needs ...valetkey.Requirement) http.Handler {
	g.Declare(needs...)
	return g.handler(next, needs)
}

func (g *Guard) handler(next http.Handler, needs []valetkey.Requirement) http.Handler {
	needs = append([]valetkey.Requirement(nil), needs...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, s, ok := g.Decide(r, needs...).apply(w, r)
		if !ok {
			return
		}
		if s != nil {
			defer s.end(nil)
		}
		next.ServeHTTP(w, r)
	})
}

// Require returns [Guard.Handler] with needs as middleware, in the form that routers such as chi accept.
func (g *Guard) Require(needs ...valetkey.Requirement) func(http.Handler) http.Handler {
	g.Declare(needs...)
	return func(next http.Handler) http.Handler { return g.handler(next, needs) }
}

// preflight reports whether r is a CORS preflight (Fetch standard, "CORS-preflight request"). A plain OPTIONS request is not.
func preflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}
