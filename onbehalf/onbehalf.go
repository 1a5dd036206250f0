// Package onbehalf gets tokens for calls to other services, for the user whose request is being served.
//
// A service that calls another one must not pass on the token that it received: that token is for another audience, and the other
// service could use it here. It exchanges the token for one that is for the other service only and still names the user: by token
// exchange (RFC 8693) or by the on-behalf-of flow of Microsoft Entra ID.
//
//	stock, err := onbehalf.New(onbehalf.Config{
//		Issuer:        "https://as.example.com",
//		Auth:          introspect.BasicAuth("orders", secret),
//		Resource:      []string{"https://stock.example.com"},
//		InputAudience: []string{"https://orders.example.com"},
//		Targets:       []string{"https://stock.example.com"},
//	})
//	...
//	defer stock.Close()
//	guard, err := middleware.New(middleware.Config{Verifier: keys, OnBehalf: true})
//	client := &http.Client{Transport: stock.Transport(nil)}
//	...
//	r, err := http.NewRequestWithContext(ctx, "GET", "https://stock.example.com/items/7", nil) // ctx of the request being served
//	response, err := client.Do(r)
//
// The guard that accepts a request must have OnBehalf set: the context then carries the token's text for this package alone.
//
// # Cache
//
// A Client caches the tokens that it obtains, by the token that they were obtained for and everything that was asked for, never by
// the user. A token is used no longer than it lives, than its input lives, and than a guard accepts its input: after
// [middleware.Guard.Revoke] it is neither used nor kept. Concurrent calls with one input share one exchange, which no single caller
// can cancel.
//
// # Errors
//
// [WriteError] writes the response that an error of a Client calls for. An error wraps one of these:
//
//   - [*valetkey.Error]: the client of this service can do something about it, such as logging in again. 401 or 403 with a challenge.
//   - [*valetkey.Unavailable]: the authorization server did not answer, or asks for a delay. 503.
//   - [*Error]: this service is not configured as the authorization server requires. 500.
//
// # Why not golang.org/x/oauth2
//
// Its clientcredentials package fits a service that calls others for itself, authenticates with a secret and receives bearer tokens.
// It has no token exchange, no private_key_jwt and no DPoP, follows redirects with the credentials, and lets one caller's context
// cancel the request that others wait for. So this package uses its own cache for client credentials too.
package onbehalf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/clientauth"
	"github.com/valetkey/valetkey/internal/digest"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/heldtoken"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/ratelog"
	"github.com/valetkey/valetkey/introspect"
)

// A Dialect is how a [Client] gets a token. The zero value is RFC8693.
type Dialect string

const (
	// RFC8693 is token exchange, as most authorization servers support it.
	RFC8693 Dialect = ""

	// EntraOBO is the on-behalf-of flow of Microsoft Entra ID: the grant jwt-bearer (RFC 7523) with requested_token_use. It works
	// for users only. Set Scope to scopes of one API, such as "api://stock/.default".
	EntraOBO Dialect = "entra_obo"

	// ClientCredentials gets a token for this service itself (RFC 6749, section 4.4), whether or not there is a user. The called
	// service cannot know for whom it is called.
	ClientCredentials Dialect = "client_credentials"

	// InsecureForward sends the incoming token itself to the Targets. The called service can then call this one, and every other
	// service in the aud of the token, as the user. It is for services that share an audience and a trust domain. Only tokens with
	// one of Config.Audience in their aud are forwarded, and bound ones never are: their proofs are for this service. There is no
	// authorization server, so TokenURL, Auth, Resource and Scope must not be set.
	InsecureForward Dialect = "insecure_forward"
)

// AnyIssuer in [Config.InputIssuers] matches every issuer that the guard trusts.
const AnyIssuer = "*"

// Config configures a [Client].
type Config struct {
	_ struct{} // keyed literals only

	// TokenURL is the token endpoint: https, or http on loopback. Empty: the URL comes from the metadata of Issuer (RFC 8414).
	TokenURL string

	// Issuer is the authorization server. TokenURL or Issuer is required.
	Issuer string

	// Auth authenticates this service to the token endpoint, with a function of package introspect such as
	// [introspect.PrivateKeyJWT]. The certificate of [introspect.TLSAuth] is that of Client. Required; BearerAuth and NoAuth do not
	// apply.
	Auth introspect.Auth

	// Dialect is how tokens are obtained. Empty: RFC8693.
	Dialect Dialect

	// Audience and Resource name the called service: by the name that the authorization server knows (RFC 8693, section 2.1), and by
	// its URI (RFC 8707). Which of them an authorization server reads is in docs/onbehalf.md. Nil: the authorization server decides.
	Audience, Resource []string

	// Scope lists the requested scopes. Nil: the authorization server decides. Required with EntraOBO.
	Scope []string

	// InputAudience lists the names of this service. Only a token whose aud is or contains one of them is exchanged. It must not be
	// used by another service. Required, except with ClientCredentials, which has no input.
	InputAudience []string

	// InputIssuers lists the issuers whose tokens are sent to the token endpoint. Nil: Issuer. Required if that is empty too. API
	// keys and tokens of other issuers are never sent. See [AnyIssuer].
	InputIssuers []string

	// ActorToken returns an access token of this service, which the authorization server records as the actor (act, RFC 8693,
	// section 4.1). It is called for each exchange and must be safe for concurrent use. The method Text of another Client with
	// ClientCredentials is such a function. Nil: none is sent; some authorization servers record the client as the actor anyway. For
	// RFC8693 only.
	ActorToken func(ctx context.Context) (string, error)

	// Targets lists the base URLs to which [Client.Transport] may send tokens: https, or http on loopback. A request matches if its
	// scheme, host and port are the same and its path begins with the segments of the target's. Nil: the Transport refuses every
	// request, which suits a service that uses [Client.Token] only.
	Targets []string

	// DPoP requests tokens that are bound to a key (RFC 9449), which this Client creates and which never leaves it. Each request of
	// the Transport carries a proof. A token that is not bound is then refused. Without DPoP, a bound one is refused.
	DPoP bool

	// CacheBytes is the maximum memory for cached tokens. When it is full, the token that was not used for the longest time is
	// removed. Zero: 32 MiB, about 10,000 tokens.
	CacheBytes int64

	// MaxInFlight bounds the exchanges in flight; one caller, by subject and client, may have an eighth of them. Zero: 64.
	MaxInFlight int

	// MaxWaiting bounds the calls that wait for an exchange; one caller may have an eighth of them. Further calls get
	// [*valetkey.Unavailable]. Zero: 2,048.
	MaxWaiting int

	// Timeout bounds one exchange, including discovery if it is needed. Zero: 5 s, which is also the maximum.
	Timeout time.Duration

	// Client sends the requests to the token endpoint, and those of the Transport if its base is nil. Redirects are never followed.
	// A certificate of its transport therefore proves tokens that are bound to it (RFC 8705). Nil: a separate client.
	Client *http.Client

	// InsecureHTTP allows http URLs on hosts other than loopback. Anyone on the network path can then read tokens and credentials.
	InsecureHTTP bool

	// Logger receives a line at level Error when the authorization server rejects this service, at most once a minute. Nil:
	// slog.Default().
	Logger *slog.Logger

	// Now is the clock for lifetimes. Nil: time.Now.
	Now func() time.Time
}

const (
	defaultBytes    = 32 << 20
	defaultInFlight = 64
	defaultWaiting  = 2048
	share           = 8 // one caller's part of MaxInFlight and MaxWaiting is one eighth

	// margin is how long before its end a token is no longer used, since a call takes time: at most a tenth of its lifetime.
	margin = 10 * time.Second

	// longest is the longest time for which a token is cached, so that a wrong expires_in does not keep it forever.
	longest = 12 * time.Hour
)

// A Client gets tokens for calls to one service, see [New]. It is safe for concurrent use and must be closed.
type Client struct {
	cfg       Config // with the defaults filled in
	fetch     fetch.Client
	transport *http.Transport // of the default client; nil: Config.Client is set
	targets   []*url.URL
	what      digest.Digest // of everything that is asked for, see key
	proofs    *prover       // nil: without DPoP
	dependent *heldtoken.Dependent

	ctx     context.Context // of exchanges; ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup

	complaint ratelog.Limit // about an endpoint that rejects this service
	table     table
	endpoint  endpoint
}

// New returns a Client. It does no I/O. The error joins every mistake in cfg, each a [valetkey.ConfigError].
func New(cfg Config) (*Client, error) {
	wrong := mistakes.List{Package: "onbehalf"}
	c := &Client{cfg: cfg.withDefaults()}
	c.fetch = fetch.Client{HTTP: cfg.Client, InsecureHTTP: cfg.InsecureHTTP, Setting: "InsecureHTTP"}
	cfg.check(&wrong, c.fetch)
	for i, t := range cfg.Targets {
		u, err := target(t, c.fetch)
		if err != nil {
			wrong.Add(fmt.Sprintf("Targets[%d]", i), "%w", err)
		}
		c.targets = append(c.targets, u)
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	if cfg.DPoP {
		signer, err := jose.GenerateKey("ES256", "")
		if err != nil {
			return nil, fmt.Errorf("onbehalf: creating a key: %w", err)
		}
		c.proofs = newProver(signer, c.cfg.Now)
	}
	if cfg.Client == nil {
		c.transport = &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: max(64, c.cfg.MaxInFlight), // with net/http's default of 2, nearly every one of many calls opens a connection
			IdleConnTimeout:     90 * time.Second,
		}
		c.fetch.HTTP = &http.Client{Transport: c.transport}
	}
	c.what = digest.Of(fmt.Sprintf("%q", []any{cfg.Dialect, cfg.TokenURL, cfg.Issuer, clientauth.ID(cfg.Auth), cfg.DPoP,
		sorted(cfg.Audience), sorted(cfg.Resource), sorted(cfg.Scope)}))
	c.table.init(c.cfg)
	c.endpoint.url = cfg.TokenURL
	c.dependent = &heldtoken.Dependent{Purge: c.purge}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }

func (cfg Config) withDefaults() Config {
	for _, list := range []*[]string{&cfg.Audience, &cfg.Resource, &cfg.Scope, &cfg.InputAudience, &cfg.InputIssuers} {
		*list = slices.Clone(*list)
	}
	if cfg.InputIssuers == nil && cfg.Issuer != "" {
		cfg.InputIssuers = []string{cfg.Issuer}
	}
	cfg.CacheBytes = cmp.Or(cfg.CacheBytes, defaultBytes)
	cfg.MaxInFlight = cmp.Or(cfg.MaxInFlight, defaultInFlight)
	cfg.MaxWaiting = cmp.Or(cfg.MaxWaiting, defaultWaiting)
	cfg.Timeout = cmp.Or(cfg.Timeout, fetch.Timeout)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return cfg
}

// check adds the mistakes in cfg, except those in Targets.
func (cfg *Config) check(wrong *mistakes.List, client fetch.Client) {
	forwards := cfg.Dialect == InsecureForward
	switch cfg.Dialect {
	case RFC8693, EntraOBO, ClientCredentials, InsecureForward:
	default:
		wrong.Add("Dialect", "%q is not a known one", cfg.Dialect)
	}
	switch {
	case forwards:
		for field, set := range map[string]bool{"TokenURL": cfg.TokenURL != "", "Auth": !clientauth.IsZero(cfg.Auth), "Resource": cfg.Resource != nil,
			"Scope": cfg.Scope != nil, "DPoP": cfg.DPoP} {
			wrong.AddIf(set, field, "has no effect with InsecureForward")
		}
		wrong.AddIf(len(cfg.Audience) == 0, "Audience", "required with InsecureForward: the names of the called service in aud")
	case cfg.TokenURL == "" && cfg.Issuer == "":
		wrong.Add("TokenURL, Issuer", "one of them is required")
	case cfg.TokenURL != "":
		if err := client.Allowed(cfg.TokenURL); err != nil {
			wrong.Add("TokenURL", "%w", err)
		}
	default:
		if err := client.Discoverable(cfg.Issuer); err != nil {
			wrong.Add("Issuer", "cannot be discovered: %w", err)
		}
	}
	switch {
	case forwards:
	case clientauth.Err(cfg.Auth) != nil:
		wrong.Add("Auth", "%w", clientauth.Err(cfg.Auth))
	case clientauth.IsZero(cfg.Auth):
		wrong.Add("Auth", "required")
	case clientauth.ID(cfg.Auth) == "":
		wrong.Add("Auth", "BearerAuth and NoAuth name no client; use another method")
	case clientauth.ByCertificate(cfg.Auth) && (cfg.Client == nil || !strings.HasPrefix(cmp.Or(cfg.TokenURL, cfg.Issuer), "https:")):
		wrong.Add("Auth", "TLSAuth requires an https URL, and a Client whose transport has the certificate")
	}
	if cfg.Dialect == EntraOBO {
		wrong.AddIf(len(cfg.Scope) == 0, "Scope", "required with EntraOBO, such as api://stock/.default")
		wrong.AddIf(len(cfg.Audience)+len(cfg.Resource) > 0, "Audience, Resource", "have no effect with EntraOBO, where Scope names the API")
	}
	wrong.AddIf(cfg.ActorToken != nil && cfg.Dialect != RFC8693, "ActorToken", "has no effect without RFC8693")
	if cfg.Dialect == ClientCredentials {
		wrong.AddIf(len(cfg.InputAudience)+len(cfg.InputIssuers) > 0, "InputAudience, InputIssuers", "have no effect with ClientCredentials, which has no input")
	} else {
		wrong.AddIf(len(cfg.InputAudience) == 0, "InputAudience", "required: the names of this service in the aud of tokens")
		wrong.AddIf(len(cfg.InputIssuers) == 0 && cfg.Issuer == "", "InputIssuers", "required without Issuer")
	}
	for field, list := range map[string][]string{"Audience": cfg.Audience, "Resource": cfg.Resource, "Scope": cfg.Scope,
		"InputAudience": cfg.InputAudience} {
		wrong.AddIf(slices.Contains(list, ""), field, "contains an empty string")
	}
	if cfg.Timeout < 0 || cfg.Timeout > fetch.Timeout {
		wrong.Add("Timeout", "%v is not between 0 and %v", cfg.Timeout, fetch.Timeout)
	}
	wrong.AddIf(cfg.CacheBytes < 0, "CacheBytes", "%d is negative", cfg.CacheBytes)
	wrong.AddIf(cfg.MaxInFlight < 0, "MaxInFlight", "%d is negative", cfg.MaxInFlight)
	wrong.AddIf(cfg.MaxWaiting < 0, "MaxWaiting", "%d is negative", cfg.MaxWaiting)
}

// Close cancels the exchanges in flight and waits for them. Afterwards, calls fail with [*valetkey.Unavailable], unless their token is
// cached. Close may be called more than once.
func (c *Client) Close() {
	c.table.close()
	c.cancel()
	c.running.Wait()
	if c.transport != nil {
		c.transport.CloseIdleConnections()
	}
}

// A Token is one for calls to the target. Printing it does not reveal its text.
type Token struct {
	text   func() string // a function, so that nothing that prints values finds the text
	scheme string
	expiry time.Time
}

// Authorization returns the value of the header Authorization, or of the metadata authorization of a gRPC call. With Config.DPoP, the
// request needs a proof too, which only [Client.Transport] adds.
func (t Token) Authorization() string { return t.scheme + " " + t.text() }

// Expiry returns when the token expires; zero if the authorization server does not report it.
func (t Token) Expiry() time.Time { return t.expiry }

// Format implements [fmt.Formatter]. It prints no text for any verb.
func (t Token) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[token]") }

// Token returns a token for calls to the target, for the user of the request that ctx belongs to. It may be used at once, and should
// be requested again for each call. For errors see the package documentation.
func (c *Client) Token(ctx context.Context) (Token, error) {
	got, err := c.get(ctx)
	if err != nil {
		return Token{}, err
	}
	return Token{func() string { return got.text }, got.scheme, got.expiry}, nil
}

// Text returns the bare text of the token, for [Config].ActorToken and for protocols without a scheme. It refuses tokens that are bound
// to a key, because the recipient could not use them.
func (c *Client) Text(ctx context.Context) (string, error) {
	got, err := c.get(ctx)
	switch {
	case err != nil:
		return "", err
	case c.proofs != nil:
		return "", &Error{Err: errors.New("a token that is bound to a key is of no use without its scheme and a proof")}
	}
	return got.text, nil
}

// Purge discards all cached tokens. The results of exchanges in progress are not cached.
func (c *Client) Purge() { c.table.purge(nil) }

// purge discards what depends on a token for which match returns true.
func (c *Client) purge(match func(t *valetkey.Token) bool) { c.table.purge(match) }
