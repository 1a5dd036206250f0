// Package introspect verifies OAuth 2.0 access tokens by asking their issuer (RFC 7662). It is for opaque tokens, which carry no
// readable claims, and for JWTs where that is configured.
//
//	tokens, err := introspect.New(introspect.Config{
//		Issuer:   "https://as.example.com",
//		Audience: []string{"https://api.example.com"},
//		Auth:     introspect.BasicAuth("orders-api", secret),
//	})
//	...
//	defer tokens.Close()
//
// The package checks the issuer's response again: issuer, audience, times, type and binding. A guard (package middleware)
// caches a positive response for [Config.CacheTTL], but never past the token's expiry. A revoked token may be accepted for
// that long; Guard.Purge ends it immediately. This package caches a negative response for [Config.NegativeTTL], in a separate
// and bounded memory. It never caches a failure. With [Config.SharedCache], the replicas of a server share positive
// responses.
//
// Concurrent calls of Verify for one token share one request to the endpoint, which no single caller can cancel. The number
// of requests in flight is bounded. While the endpoint fails or asks for a delay (Retry-After), no requests are sent except
// an occasional probe. A token for which no request can be sent gets [*valetkey.Unavailable] without waiting.
//
// One token does not affect another. The endpoint counts as failing only after five different tokens in a row have failed. A
// response with status 200 and the right media type but unusable content (not JSON, nested too deep, too long, truncated,
// wrongly signed) counts against its token only. A token that has failed five times in a row is delayed
// separately, for a second at first and up to a minute.
//
// The package does not support encrypted responses (RFC 9701, section 6) or a list of endpoints to try in turn. An
// inactive token is a final refusal, so [valetkey.First] does not go on to a second introspection endpoint.
package introspect

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/clientauth"
	"github.com/valetkey/valetkey/internal/digest"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/flight"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/ratelog"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// Config configures a [Verifier]. Audience, Auth, and URL or Issuer are required.
type Config struct {
	_ struct{} // keyed literals only

	// URL is the introspection endpoint: https, or http on loopback. Empty: the URL comes from the metadata of Issuer (RFC
	// 8414), which is fetched again after the endpoint has failed for a while.
	URL string

	// Issuer is the required iss of a response that has one, compared byte by byte, and becomes [valetkey.Token]'s Issuer.
	// Empty, with URL: the iss of responses is ignored, and tokens have no Issuer.
	Issuer string

	// Audience lists the names of this resource server. The aud of a response must be or contain one of them. Required. Names
	// are compared byte by byte, but an https or http origin is the same with and without a slash at its end (RFC 3986, section
	// 6.2.3).
	Audience []string

	// SoleAudience refuses tokens that are also meant for other audiences: every aud value must be in Audience. Without it,
	// another API that receives such a token could replay it here.
	SoleAudience bool

	// AudienceByIssuer accepts a response without aud. Set it only if the issuer reports a token as active only to the
	// resource servers that the token is for (RFC 7662, section 4). An aud that is present is still checked.
	AudienceByIssuer bool

	// Auth authenticates this server to the endpoint (RFC 7662, section 2.1). Required; see [BasicAuth] and the other
	// functions that return an Auth.
	Auth Auth

	// JWTIssuers lists the issuers whose JWTs are also sent to the endpoint. They are selected by their iss, which is not
	// verified; [AnyIssuer] matches every issuer. Nil: a token in JWT form is refused without a request, with an error that
	// wraps [valetkey.ErrNotApplicable].
	JWTIssuers []string

	// MaxTokenBytes is the maximum length of a token. A guard has a limit too, which may need the same setting. Zero:
	// [valetkey.MaxTokenBytes], 16 KiB; at most 64 KiB.
	MaxTokenBytes int

	// TypeHint sends token_type_hint=access_token (RFC 7662, section 2.1).
	TypeHint bool

	// AllowScopeArray accepts an array as scope. RFC 7662 specifies a string.
	AllowScopeArray bool

	// Signed requests signed responses (RFC 9701) and accepts no others. Nil: responses are unsigned and protected by TLS
	// only.
	Signed *Signed

	// CacheTTL is how long a positive response may be relied on. It counts from the time of the request and never extends
	// past exp. A revoked token is accepted for at most this long. Zero: 30 s; negative: not at all, so every use of a token
	// sends a request.
	CacheTTL time.Duration

	// NegativeTTL is how long a refusal is cached, for at most 10,000 tokens. Zero: 5 s; negative: not at all; at most 1 min.
	NegativeTTL time.Duration

	// Leeway is the tolerated difference between the clocks of the issuer and this server. It applies to exp, nbf and iat.
	// Zero: 30 s; negative: none; at most 5 min. A date more than ten years ahead is refused, since it is nearly always in
	// milliseconds instead of seconds. An issuer whose tokens do not expire must omit exp.
	Leeway time.Duration

	// Timeout bounds one request, including discovery if it is needed. Zero: 5 s, which is also the maximum.
	Timeout time.Duration

	// MaxInFlight bounds the requests in flight. When it is reached, a new token gets [*valetkey.Unavailable]. Zero: 64.
	MaxInFlight int

	// SharedCache stores positive responses for all replicas of this server that have the same configuration. A replica
	// checks a shared response as if it had received it itself at the original time: CacheTTL counts from the request,
	// whichever replica sent it. The bound on revoked tokens therefore stays the same, except for the difference between the
	// replicas' clocks. A look-up in the Store may take at most 100 ms, and the Store is not used for 1 s after an error;
	// meanwhile the endpoint is asked. Nil, or a negative CacheTTL: no sharing.
	SharedCache Store

	// Client sends the requests. Redirects are never followed. Nil: a separate client with a sufficient pool of idle
	// connections.
	Client *http.Client

	// InsecureHTTP allows http URLs on hosts other than loopback. Anyone on the network path can then read tokens and
	// credentials, and make any token valid.
	InsecureHTTP bool

	// Logger logs changes in the state of the endpoint, and an endpoint that rejects this server's requests (level Error, at
	// most once a minute). Nil: slog.Default().
	Logger *slog.Logger

	// Observer receives a [valetkey.IssuerAsked] event for each request. Nil: none.
	Observer valetkey.Observer

	// Now is the clock for the checks of exp, nbf and iat. Nil: time.Now.
	Now func() time.Time
}

// AnyIssuer in [Config.JWTIssuers] matches every issuer. It also matches encrypted JWTs, whose issuer cannot be read.
const AnyIssuer = "*"

const (
	defaultCacheTTL    = 30 * time.Second
	defaultNegativeTTL = 5 * time.Second
	maxNegativeTTL     = time.Minute
	defaultLeeway      = 30 * time.Second
	maxLeeway          = 5 * time.Minute
	defaultInFlight    = 64
	idleConnections    = 64 // per host; with net/http's default of 2, nearly every one of many concurrent calls opens a connection
)

// Verifier verifies tokens at one introspection endpoint. It is a [valetkey.Verifier], a [valetkey.HealthReporter] and a
// [valetkey.Purger]. It is safe for concurrent use and must be closed.
type Verifier struct {
	maxToken  int    // bytes
	cfg       Config // with the defaults filled in
	fetch     fetch.Client
	transport *http.Transport // of the default client; nil: Config.Client is set
	signed    *signed         // nil: answers are not signed
	shared    *shared         // nil: answers are not shared

	ctx     context.Context // of calls; ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup

	complaint ratelog.Limit // about an endpoint that rejects this server's requests

	mu        sync.Mutex // guards what follows; never held during I/O
	closed    bool
	url       string                                // of the endpoint; "" until discovered
	discovery *discovery                            // in progress; nil: none
	relocated time.Time                             // when a known URL was last looked up again
	asking    flight.Table[digest.Digest, answered] // bounded by inFlight
	inFlight  int                                   // at most MaxInFlight: questions, including those that callers may not join
	forgotten time.Time                             // when Purge was called, by Config.Now
	refused   refusals
	breaker   breaker
	health    valetkey.Health // without changes caused by time alone, see healthLocked
	lastCall  time.Time       // when the last one began
	lastErr   error           // why the last one that ended brought no usable answer
	answered  bool            // the last one that ended brought a usable answer
}

// New returns a Verifier. It does no I/O. The error lists every mistake in cfg.
func New(cfg Config) (*Verifier, error) {
	v := &Verifier{cfg: cfg.withDefaults(), asking: flight.Table[digest.Digest, answered]{}, url: cfg.URL}
	v.maxToken, _ = authheader.TokenLimit(cfg.MaxTokenBytes) // check reports the error
	v.fetch = fetch.Client{HTTP: cfg.Client, InsecureHTTP: cfg.InsecureHTTP, Setting: "InsecureHTTP"}
	if cfg.Client == nil {
		v.transport = newTransport(v.cfg.MaxInFlight)
		v.fetch.HTTP = &http.Client{Transport: v.transport}
	}
	wrong := mistakes.List{Package: "introspect"}
	cfg.check(&wrong, v.fetch)
	if cfg.Signed != nil {
		wrong.AddIf(cfg.Issuer == "", "Issuer", "required with Signed: it must be the iss of every signed response")
		var err error
		v.signed, err = v.newSigned()
		wrong.Within("Signed", err)
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	v.shared = newShared(v.cfg)
	v.health = valetkey.Health{Name: cfg.name(), State: valetkey.Ready, Since: time.Now()}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	return v, nil
}

func (cfg Config) withDefaults() Config {
	cfg.Audience = slices.Clone(cfg.Audience)
	cfg.JWTIssuers = slices.Clone(cfg.JWTIssuers)
	cfg.CacheTTL = orDefault(cfg.CacheTTL, defaultCacheTTL)
	cfg.NegativeTTL = orDefault(cfg.NegativeTTL, defaultNegativeTTL)
	cfg.Leeway = orDefault(cfg.Leeway, defaultLeeway)
	cfg.Timeout = orDefault(cfg.Timeout, fetch.Timeout)
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = defaultInFlight
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return cfg
}

// orDefault returns the effective value of a duration in a Config: zero means the default, negative means none.
func orDefault(d, zero time.Duration) time.Duration {
	if d == 0 {
		return zero
	}
	return max(0, d)
}

// check adds the mistakes in cfg, except those in Signed.
func (cfg *Config) check(wrong *mistakes.List, client fetch.Client) {
	switch {
	case cfg.URL == "" && cfg.Issuer == "":
		wrong.Add("URL, Issuer", "one of them is required")
	case cfg.URL != "":
		if err := client.Allowed(cfg.URL); err != nil {
			wrong.Add("URL", "%w", err)
		}
	default:
		if err := client.Discoverable(cfg.Issuer); err != nil {
			wrong.Add("Issuer", "cannot be discovered: %w", err)
		}
	}
	if _, err := authheader.TokenLimit(cfg.MaxTokenBytes); err != nil {
		wrong.Add("MaxTokenBytes", "%w", err)
	}
	wrong.Within("Audience", tokenclaims.CheckAudience(cfg.Audience))
	switch {
	case clientauth.Err(cfg.Auth) != nil:
		wrong.Add("Auth", "%w", clientauth.Err(cfg.Auth))
	case clientauth.IsZero(cfg.Auth):
		wrong.Add("Auth", "required; use NoAuth for an endpoint that requires no credentials")
	case clientauth.ByCertificate(cfg.Auth) && (cfg.Client == nil || !strings.HasPrefix(cmp.Or(cfg.URL, cfg.Issuer), "https:")):
		wrong.Add("Auth", "TLSAuth requires an https URL, and a Client whose transport has the certificate")
	}
	for i, iss := range cfg.JWTIssuers {
		if iss == "" {
			wrong.Add(fmt.Sprintf("JWTIssuers[%d]", i), "is empty")
		}
	}
	if cfg.NegativeTTL > maxNegativeTTL {
		wrong.Add("NegativeTTL", "%v is more than %v", cfg.NegativeTTL, maxNegativeTTL)
	}
	if cfg.Leeway > maxLeeway {
		wrong.Add("Leeway", "%v is more than %v", cfg.Leeway, maxLeeway)
	}
	if cfg.Timeout < 0 || cfg.Timeout > fetch.Timeout {
		wrong.Add("Timeout", "%v is not between 0 and %v", cfg.Timeout, fetch.Timeout)
	}
	if cfg.MaxInFlight < 0 {
		wrong.Add("MaxInFlight", "%d is negative", cfg.MaxInFlight)
	}
}

func newTransport(inFlight int) *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: max(idleConnections, inFlight),
		IdleConnTimeout:     90 * time.Second,
	}
}

// Issuer returns Config.Issuer.
func (v *Verifier) Issuer() string { return v.cfg.Issuer }

// Ready returns nil if the last request to the endpoint succeeded. Otherwise it sends a request about a made-up token, which
// reveals wrong credentials before any client's request does. While the endpoint fails, Ready causes no more requests than
// tokens do, and returns the last error. Use it at startup and in a readiness probe.
func (v *Verifier) Ready(ctx context.Context) error {
	v.mu.Lock()
	good := v.answered && !v.closed && !time.Now().Before(v.breaker.until)
	v.mu.Unlock()
	if good {
		return nil
	}
	_, err := v.ask(ctx, rand.Text())
	if _, refused := errors.AsType[*valetkey.Error](err); refused {
		return nil
	}
	if err == nil {
		return errors.New("introspect: the endpoint reports a made-up token as active")
	}
	return err
}

// status is the state of a Verifier.
type status struct {
	URL       string    // of the endpoint; "" if it is not yet discovered
	InFlight  int       // calls
	Refused   int       // tokens with a cached refusal, which may have expired
	Failures  int       // different tokens in a row whose calls brought no answer
	RetryAt   time.Time // no request is sent before this time; zero: no such limit
	LastCall  time.Time // when the last one began; zero: none has begun
	LastError error     // of the last call that ended; nil: it brought a usable answer, or none has ended
}

// status returns the state of v. Health is its exported form.
func (v *Verifier) status() status {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := status{
		URL:       v.url,
		InFlight:  v.inFlight,
		Refused:   len(v.refused.known),
		Failures:  v.breaker.failures,
		LastCall:  v.lastCall,
		LastError: v.lastErr,
	}
	if until := v.breaker.until; time.Now().Before(until) {
		s.RetryAt = until
	}
	return s
}

// Close cancels the requests in flight and waits for them. Afterwards, Verify fails with [*valetkey.Unavailable]. Tokens that
// a guard has cached stay valid until their CacheTTL has passed, except those from signed responses, which are no longer
// accepted. Close may be called more than once.
func (v *Verifier) Close() {
	v.mu.Lock()
	v.changeLocked(time.Now(), func() { v.closed = true })
	v.mu.Unlock()
	v.cancel()
	v.running.Wait()
	if v.signed != nil {
		v.signed.keys.Close()
	}
	if v.transport != nil {
		v.transport.CloseIdleConnections()
	}
}
