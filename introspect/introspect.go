// Package introspect verifies access tokens by asking their issuer (RFC 7662): opaque ones, which say nothing by
// themselves, and JWTs where that is configured.
//
//	tokens, err := introspect.New(introspect.Config{
//		Issuer:   "https://as.example.com",
//		Audience: []string{"https://api.example.com"},
//		Auth:     introspect.BasicAuth("orders-api", secret),
//	})
//	...
//	defer tokens.Close()
//
// What the issuer answers is checked again here: issuer, audience, times, type and binding. A guard (package middleware)
// remembers a good answer for [Config.CacheTTL] and never past the token's expiry, so a token that is revoked may be
// accepted for that long; Guard.Purge ends it at once. A bad answer is remembered here for
// [Config.NegativeTTL], in a budget of its own, and a failure never. With [Config.SharedCache], the replicas of a server share
// good answers.
//
// Simultaneous questions about one token are one call, which no single caller can cancel. Calls in flight are bounded;
// while the endpoint fails or asks for patience, no calls are made but for a probe now and then. A token that cannot be
// asked about gets [*valetkey.Unavailable], at once.
//
// One token does not affect another. Five different tokens in a row have to fail before the endpoint counts as failing. An
// answer with status 200 and the right media type whose content is at fault (not JSON, nested too deep, too long, cut off,
// compressed, wrongly signed) counts against its token only. A token that has failed five times in a row waits by itself, from a
// second up to a minute.
//
// Not done here: encrypted answers (RFC 9701, section 6), and trying one endpoint after the other. A token that is not
// active is refused for good: with several endpoints, [valetkey.First] asks only the first about opaque tokens.
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
	"github.com/valetkey/valetkey/internal/claims"
	"github.com/valetkey/valetkey/internal/digest"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/mistakes"
)

// Config is what a [Verifier] is made of. Required are URL or Issuer, Audience, and Auth.
type Config struct {
	_ struct{} // keyed literals only

	// URL is that of the introspection endpoint: https, or http on loopback. Empty: the metadata of Issuer names it (RFC
	// 8414), and is asked again when the endpoint has failed for a while.
	URL string

	// Issuer is what the iss of an answer must be, if it has one, compared byte by byte, and becomes [valetkey.Token]'s
	// Issuer. Empty, with URL: the answer's iss is not looked at, and tokens have no Issuer.
	Issuer string

	// Audience lists the names of this resource server, one of which the aud of an answer must be or contain. Required.
	Audience []string

	// SoleAudience refuses a token that is for others, too: all of its aud must be in Audience. Another API that takes the
	// same token could use it here.
	SoleAudience bool

	// AudienceByIssuer accepts an answer without aud, from an issuer that calls a token active only if it is for the
	// resource server that asks (RFC 7662, section 4). An aud that is there still counts.
	AudienceByIssuer bool

	// Auth is how this server makes itself known to the endpoint (RFC 7662, section 2.1). Required; see [BasicAuth] and
	// its siblings.
	Auth Auth

	// JWTIssuers lists the issuers whose JWTs are asked about, too, by their iss, which nobody has verified; [AnyIssuer] is any.
	// Nil: a token in the form of a JWT is refused, with an error that wraps [valetkey.ErrNotApplicable], and nobody is asked.
	JWTIssuers []string

	// TypeHint sends token_type_hint=access_token (RFC 7662, section 2.1).
	TypeHint bool

	// AllowScopeArray accepts an array as scope. RFC 7662 has a string.
	AllowScopeArray bool

	// Signed asks for signed answers (RFC 9701) and accepts no others. Nil: unsigned ones, which TLS protects.
	Signed *Signed

	// CacheTTL is how long a good answer may be relied on, counted from the question, and never past exp. A token that is
	// revoked is accepted for so long, at most. Zero: 30 s; negative: not at all, every request asks.
	CacheTTL time.Duration

	// NegativeTTL is how long a refusal is remembered, for at most 10,000 tokens. Zero: 5 s; negative: not at all; at most
	// 1 min.
	NegativeTTL time.Duration

	// Leeway is how far the clocks of issuer and server may differ: exp, nbf and iat are held against it. Zero: 30 s;
	// negative: none; at most 5 min. A date more than ten years ahead is refused: it is nearly always in milliseconds
	// instead of seconds. An issuer of tokens that do not expire leaves exp out.
	Leeway time.Duration

	// Timeout is that of one question, with discovery if it takes one. Zero: 5 s, which is the most.
	Timeout time.Duration

	// MaxInFlight bounds the calls in flight; when it is reached, a new token gets [*valetkey.Unavailable]. Zero: 64.
	MaxInFlight int

	// SharedCache keeps good answers for all replicas of this server that are configured alike. What one was told is checked by
	// the others as if they had been told it at that time: CacheTTL counts from the question, whichever replica asked, so
	// the bound on a revoked token stays, but for what their clocks differ. A Store gets at most 100 ms for a look-up, and is
	// left alone for 1 s after an error; without it, the endpoint is asked. Nil, or with a negative CacheTTL: none.
	SharedCache Store

	// Client carries the requests. Redirects are never followed. Nil: one of its own, which keeps enough connections.
	Client *http.Client

	// InsecureHTTP allows http URLs on hosts other than loopback: whoever is on the way then reads tokens and
	// credentials, and can make any token good.
	InsecureHTTP bool

	// Logger gets changes of the endpoint's state, and an endpoint that refuses our questions (Error, once a minute). Nil:
	// slog.Default().
	Logger *slog.Logger

	// Observer is told of each call: [valetkey.IssuerAsked]. Nil: nobody is.
	Observer valetkey.Observer

	// Now is the clock that exp, nbf and iat are held against. Nil: time.Now.
	Now func() time.Time
}

// AnyIssuer in [Config.JWTIssuers] stands for every issuer, and for encrypted JWTs, which do not show theirs.
const AnyIssuer = "*"

const (
	defaultCacheTTL    = 30 * time.Second
	defaultNegativeTTL = 5 * time.Second
	maxNegativeTTL     = time.Minute
	defaultLeeway      = 30 * time.Second
	maxLeeway          = 5 * time.Minute
	defaultInFlight    = 64
	idleConnections    = 64 // per host; net/http's 2 cost a new connection for nearly every call of many at a time
)

// A Verifier verifies tokens at one introspection endpoint. It is a [valetkey.Verifier] and a [valetkey.HealthReporter], safe for
// concurrent use, and must be closed.
type Verifier struct {
	cfg       Config // with the defaults filled in
	fetch     fetch.Client
	transport *http.Transport // of its own; nil: the client was configured
	signed    *signed         // nil: answers are not signed
	shared    *shared         // nil: answers are not shared

	ctx     context.Context // of calls; ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu          sync.Mutex // guards what follows; never held during I/O
	closed      bool
	url         string                      // of the endpoint; "" until discovered
	discovery   *discovery                  // in progress; nil: none is
	relocated   time.Time                   // when a known URL was last looked up again
	asking      map[digest.Digest]*question // those that may be joined
	inFlight    int                         // with those that may not
	forgotten   time.Time                   // when Purge was called, by Config.Now
	refused     refusals
	breaker     breaker
	health      valetkey.Health // but for what time alone changes, see healthLocked
	lastCall    time.Time       // when the last one began
	lastErr     error           // why the last one that ended brought no answer of use
	answered    bool            // one was good
	complaining time.Time       // when a complaint is due again
}

// New returns a Verifier. It does no I/O. The error names every mistake in cfg.
func New(cfg Config) (*Verifier, error) {
	v := &Verifier{cfg: cfg.withDefaults(), asking: map[digest.Digest]*question{}, url: cfg.URL}
	v.fetch = fetch.Client{HTTP: cfg.Client, InsecureHTTP: cfg.InsecureHTTP}
	if cfg.Client == nil {
		v.transport = newTransport(v.cfg.MaxInFlight)
		v.fetch.HTTP = &http.Client{Transport: v.transport}
	}
	wrong := mistakes.List{Package: "introspect"}
	cfg.check(&wrong, v.fetch)
	if cfg.Signed != nil {
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

// orDefault returns what a duration of a Config means: zero the default, negative none.
func orDefault(d, zero time.Duration) time.Duration {
	if d == 0 {
		return zero
	}
	return max(0, d)
}

// check adds what is wrong with cfg, but for Signed.
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
			wrong.Add("Issuer", "discovery needs a URL: %w", err)
		}
	}
	wrong.Within("Audience", claims.CheckAudience(cfg.Audience))
	switch {
	case cfg.Auth.err != nil:
		wrong.Add("Auth", "%w", cfg.Auth.err)
	case cfg.Auth.add == nil:
		wrong.Add("Auth", "required; see BasicAuth, and NoAuth for an endpoint that asks for none")
	case cfg.Auth.certificate && (cfg.Client == nil || !strings.HasPrefix(cmp.Or(cfg.URL, cfg.Issuer), "https:")):
		wrong.Add("Auth", "TLSAuth needs https, and a Client whose transport has the certificate")
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

// Ready returns nil if the endpoint is known to answer us. If it has not been asked yet, Ready asks it about a token that
// is none, and so finds wrong credentials before any request does. While the endpoint fails it is not asked more often
// than otherwise, and Ready returns the last reason. It suits the start of a program and a readiness probe.
func (v *Verifier) Ready(ctx context.Context) error {
	v.mu.Lock()
	good := v.answered && v.lastErr == nil && !v.closed && !time.Now().Before(v.breaker.until)
	v.mu.Unlock()
	if good {
		return nil
	}
	_, err := v.ask(ctx, rand.Text())
	if _, refused := errors.AsType[*valetkey.Error](err); refused {
		return nil
	}
	if err == nil {
		return errors.New("introspect: the endpoint calls a token active that nobody has issued")
	}
	return err
}

// status is the state of a Verifier.
type status struct {
	URL       string    // of the endpoint; "" if it is not yet discovered
	InFlight  int       // calls
	Refused   int       // tokens that are remembered as refused, some of which may be due for another question
	Failures  int       // different tokens in a row whose calls brought no answer
	RetryAt   time.Time // the endpoint is not asked before; zero: there is no such limit now
	LastCall  time.Time // when the last one began; zero: none has
	LastError error     // of the last call that ended; nil: it brought an answer of use, or none has ended
}

// status returns the state of v. Health is what others see of it.
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

// Close ends the calls in flight and waits for them. What is verified later gets [*valetkey.Unavailable]. What a guard
// remembers stays good for as long as it was said to be, but not if it was signed. Close may be called more than once.
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
