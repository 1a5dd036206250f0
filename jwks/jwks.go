// Package jwks verifies OAuth 2.0 access tokens that are JWTs locally, against the key set of their issuer.
//
//	keys, err := jwks.New(jwks.Config{
//		Issuer:   "https://as.example.com",
//		Audience: []string{"https://api.example.com"},
//	})
//	...
//	defer keys.Close()
//
// The zero [Profile] accepts RFC 9068 tokens only. The tokens of most products lack parts of it: package
// [github.com/valetkey/valetkey/issuers] returns the Config of a product by its name. For another issuer, enable the matching settings
// of [Config] and [Profile].
//
// The checks that need no key come first: form, issuer, type, algorithm, claims, audience and times. A token that fails one
// of them costs no signature check and no fetch. Keys are looked up only in the key set of the verifier's issuer.
//
// [ByIssuer] combines the verifiers of several issuers. [Tenants] verifies tokens of issuers that are not known in advance.
//
// The package does not support encrypted or nested tokens. It ignores keys and key URLs inside a token (jwk, jku, x5c, x5u).
// It accepts no issuer beyond the configured ones and those that the application's lookup returns. It does not check that the
// application knows the subject: leave that to the application or to a [valetkey.Requirement].
package jwks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// Config configures a [Verifier]. Issuer and Audience are required.
//
// The keys come from JWKSURL, JWKS or Secret, of which at most one may be set. If none is set, the verifier discovers the key
// set from the issuer's metadata. Keys that are fetched may have a beginning in InitialJWKS.
type Config struct {
	_ struct{} // keyed literals only

	// Issuer is the expected iss of the tokens, compared byte by byte. Required. It may be any string, but discovery needs a
	// URL.
	//
	// For an issuer with one key set and many tenants, it may contain the name of a claim in braces, once:
	// https://login.example.com/{tid}/v2.0. Each token must then have that claim, and an iss that contains its value in place of
	// the braces. The value consists of letters, digits, "-", "." and "_". Such an Issuer needs JWKSURL or JWKS, and Rules that
	// list the tenants or Profile.AllowAnyTenant.
	Issuer string

	// IssuerAliases lists further values of iss that stand for Issuer, for an issuer that has several host names. A token with one
	// of them has Issuer as its [valetkey.Token.Issuer], which a [valetkey.Revocation] must name. The keys are those of Issuer. An
	// Issuer with braces has no aliases.
	IssuerAliases []string

	// Audience lists the names of this resource server. The aud of a token must be or contain one of them. Required. Names are
	// compared byte by byte, but an https or http origin is the same with and without a slash at its end: https://api.example.com
	// and https://api.example.com/ (RFC 3986, section 6.2.3). Scopes have meaning only within their audience: two APIs that share
	// an audience share all scopes.
	Audience []string

	// AudienceClaim is the claim that contains the recipient if aud is absent or empty, for example client_id. Its value must then
	// be in Audience. Such a claim states who requested the token, not what the token is for. Every kind of token of that client
	// may have it, so Markers or RequireScope is required too. Empty: aud is required. Needed for: Amazon Cognito and others.
	AudienceClaim string

	// AudienceHeader is the member of the token's JOSE header that contains the recipient, in place of aud and AudienceClaim: these
	// are not read, since an issuer that has the recipient there may let others choose the claims. Empty: aud is required. Needed for:
	// the load balancers of AWS, whose keys are shared by all load balancers of a region and which are named in signer.
	AudienceHeader string

	// SoleAudience refuses tokens that are also meant for other audiences: every aud value must be in Audience. Without it,
	// another API that receives such a token could replay it here.
	SoleAudience bool

	// JWKSURL is the URL of the key set: https, or http on loopback. Of a set with more than 5,000 keys, the first 5,000 are
	// used. A set of more than 8 MiB is an error.
	//
	// If its path contains {kid}, each key has a separate URL: https://keys.example.com/{kid}. A key, in PEM or as a JWK, is fetched
	// with the first token that names it. The kid must consist of at most 128 letters, digits, "-", "_" and "."; others are refused.
	// At most 100 keys are held. Tokens with unknown kids cause at most 10 fetches per MinRefetchInterval; beyond that, they are
	// refused, or get 503 if no key is held. A key ends with an answer of 404 or 410. The default of RefreshInterval is then 24 h.
	// InitialJWKS cannot be set.
	JWKSURL string

	// JWKS is a key set to use without any network access: a JWK Set (RFC 7517, section 5), or an object that has a certificate or
	// public key in PEM under each kid. It has the same limits.
	JWKS []byte

	// InitialJWKS is a key set as in JWKS to start with, for a process that should not wait for the issuer before its first token,
	// such as a serverless function. The key set of JWKSURL, or the discovered one, is fetched in the background from the first use
	// on and replaces it. A token with an unknown kid waits for that fetch as usual. While the issuer does not answer, these keys
	// remain in use for RefreshInterval and StaleIfError.
	InitialJWKS []byte

	// Secret is the key shared with the issuer for HMAC algorithms, which Algorithms must then list. It must be random and at
	// least as long as the hash of each algorithm: 32 bytes for HS256 (RFC 7518, section 3.2). Anyone who holds it can also
	// issue tokens. The kid of a token is ignored, since there is only one key.
	Secret []byte

	// Algorithms lists the allowed signature algorithms. Neither a key set nor metadata can extend it. A key whose JWK has no
	// alg may be used with every allowed algorithm that fits it. Nil: RS256, PS256, ES256, ES384, EdDSA and its newer name
	// Ed25519 (RFC 9864).
	Algorithms []string

	// Types lists further values of the header parameter typ that mark access tokens, compared as media types. at+jwt is always
	// accepted. A token with one of Types is still refused if its claims show that it is of another kind.
	Types []string

	// Markers are rules that the claims of every access token of the issuer meet, and those of its other tokens do not, such as
	// token_use = access. Every one must hold. With a marker that needs a claim to be there, the claims nonce, at_hash, c_hash and
	// s_hash do not count as evidence of an ID token.
	Markers []claims.Rule

	// RequireScope refuses a token that has no scope in the claims in Scopes. It excludes the ID tokens, and often the refresh tokens,
	// of an issuer that marks its access tokens in no other way.
	RequireScope bool

	// Rules are further conditions on the claims. Every one must hold. They are checked once per token, when it is verified. An
	// issuer that issues tokens to anyone needs a rule about the subject.
	Rules []claims.Rule

	// Clients lists the clients whose tokens are accepted. Nil: all of the issuer.
	Clients []string

	// ClientIDHeader is the member of the token's JOSE header that contains the client, in place of every claim. Needed for: the load
	// balancers of AWS.
	ClientIDHeader string

	// ClientIDClaim is the claim that contains the client, in place of client_id. A name with dots is a path, as in Scopes.
	ClientIDClaim string

	// Profile lists the parts of RFC 9068 that tokens may lack. Zero: none.
	Profile Profile

	// AllowPaddedSegments accepts tokens whose header, payload or signature is padded with "=" to a multiple of four characters, which
	// RFC 7515, section 2, forbids. A token then has more than one accepted text. Needed for: the load balancers of AWS (ALB).
	AllowPaddedSegments bool

	// MaxTokenBytes is the maximum length of a token. A guard has a limit too, which may need the same setting. Zero:
	// [valetkey.MaxTokenBytes], 16 KiB; at most 64 KiB. Needed for: issuers that put the groups of users into tokens.
	MaxTokenBytes int

	// Leeway is the tolerated difference between the clocks of the issuer and this server. It applies to exp, nbf and iat.
	// Zero: 30 s; negative: none; at most 5 min.
	Leeway time.Duration

	// MaxLifetime is the longest accepted time from iat to exp. If it is set, a token without iat is refused. Zero: no limit,
	// but an exp more than ten years ahead is refused, since it is nearly always in milliseconds instead of seconds. To
	// accept such tokens, set MaxLifetime to more than ten years.
	MaxLifetime time.Duration

	// Scopes lists the claims that contain scopes; the scopes of all of them apply. A claim is a string of space-separated
	// scopes or an array. A name with dots that is not itself a claim is a path into objects: "realm_access.roles". Nil:
	// scope.
	Scopes []string

	// Client sends the requests for keys. Redirects are never followed. Nil: http.DefaultClient.
	Client *http.Client

	// KeyRequests has what the requests for keys need, such as credentials.
	KeyRequests KeyRequests

	// InsecureHTTP allows http URLs on hosts other than loopback. Anyone on the network path can then replace the keys.
	InsecureHTTP bool

	// RefreshInterval is the maximum age of a key set while the issuer answers; the next one is fetched ahead of time. It
	// applies if the issuer sends no Cache-Control; a Cache-Control lifetime is bounded to 1 min to 24 h. Zero: 10 min, or 24 h if
	// JWKSURL contains {kid}.
	RefreshInterval time.Duration

	// MinRefetchInterval is the minimum time between fetches caused by tokens with unknown keys. One extra fetch is allowed,
	// for a key that rotates twice. After that, tokens with a new key are refused until the interval has passed. Zero: 30 s.
	MinRefetchInterval time.Duration

	// StaleIfError is how long keys remain in use beyond RefreshInterval while the issuer does not answer, or returns an
	// empty or malformed key set. After that, tokens get 503. It does not prolong a key that a well-formed, non-empty set no
	// longer contains or no longer permits for signatures: such a key ends with the refresh. Zero: 1 h; negative: not at all;
	// at most 24 h.
	StaleIfError time.Duration

	// Logger logs failures of fetches and changes of the key set: keys that are broken or do not belong in it (Warn), once each with
	// kid and reason, and keys for another use (Debug). Nil: slog.Default().
	Logger *slog.Logger

	// Observer receives a [valetkey.KeySetRefreshed] event for each fetch of the key set. Nil: none.
	Observer valetkey.Observer

	// Now is the clock for the checks of exp, nbf and iat. Nil: time.Now.
	Now func() time.Time

	maxKeys int  // of the key set; zero: keyset.MaxKeys
	again   bool // another Verifier has logged what is dropped from the keys in this Config
}

// KeyRequests configures the requests for the metadata and the key set of an issuer that does not publish them to everyone, such as
// the API server of Kubernetes. The files are read again for each request, so they may rotate; one that cannot be used is an error
// of [New] at first and of the fetch later.
type KeyRequests struct {
	// Header is added to the requests to the scheme, host and port of Config.JWKSURL or, if keys are discovered, of Config.Issuer.
	// A key set that is elsewhere according to the metadata is requested without it.
	Header http.Header

	// TokenFile contains a bearer token for the same requests, such as
	// /var/run/secrets/kubernetes.io/serviceaccount/token.
	TokenFile string

	// CAFile contains the certificates, in PEM, of the authorities that are trusted in place of the system's. Config.Client must be
	// nil.
	CAFile string

	// CertFile and KeyFile contain the certificate of this client and its private key, in PEM. Both or none; Config.Client must be
	// nil.
	CertFile, KeyFile string
}

const (
	defaultLeeway = 30 * time.Second
	maxLeeway     = 5 * time.Minute // RFC 9068, section 4: "usually no more than a few minutes"
)

// Verifier verifies the JWT access tokens of one issuer. It is a [valetkey.Verifier] and a [valetkey.HealthReporter]. It is
// safe for concurrent use and must be closed.
type Verifier struct {
	issuer      string
	aliases     []string
	template    *template // nil: issuer is complete
	audience    []string
	sole        bool // see Config.SoleAudience
	types       []string
	markers     []claims.Rule
	marked      bool // markers prove an access token
	rules       []claims.Rule
	clients     []string
	algorithms  []string
	profile     Profile
	form        jose.Options // see Config.AllowPaddedSegments and Config.MaxTokenBytes
	leeway      time.Duration
	maxLifetime time.Duration
	scopes      []string

	audienceClaim, clientIDClaim   string
	audienceHeader, clientIDHeader string
	requireScope                   bool

	now    func() time.Time
	keys   keySource
	shared bool // keys holds a shared secret
}

// A keySource is a [keyset.Set] or a [keyset.ByID].
type keySource interface {
	Verify(ctx context.Context, c *jose.Compact, terms keyset.Terms) (*keyset.Key, error)
	Ready(ctx context.Context) error
	Health() valetkey.Health
	Close()
}

// New returns a Verifier. It does no I/O except reading the files of cfg.KeyRequests: the first token or [Verifier.Ready] fetches
// the keys. The error lists every mistake in cfg.
func New(cfg Config) (*Verifier, error) {
	v := &Verifier{
		issuer:      cfg.Issuer,
		aliases:     slices.Clone(cfg.IssuerAliases),
		audience:    slices.Clone(cfg.Audience),
		sole:        cfg.SoleAudience,
		types:       slices.Clone(cfg.Types),
		markers:     slices.Clone(cfg.Markers),
		marked:      slices.ContainsFunc(cfg.Markers, claims.Rule.NeedsClaim),
		rules:       slices.Clone(cfg.Rules),
		clients:     slices.Clone(cfg.Clients),
		algorithms:  slices.Clone(cfg.Algorithms),
		profile:     cfg.Profile,
		leeway:      cfg.Leeway,
		maxLifetime: cfg.MaxLifetime,
		scopes:      slices.Clone(cfg.Scopes),

		audienceClaim:  cfg.AudienceClaim,
		clientIDClaim:  cfg.ClientIDClaim,
		audienceHeader: cfg.AudienceHeader,
		clientIDHeader: cfg.ClientIDHeader,
		requireScope:   cfg.RequireScope,

		now:    cfg.Now,
		shared: cfg.Secret != nil,
	}
	if len(v.algorithms) == 0 { // with Secret, check reports it
		v.algorithms = jose.DefaultAlgorithms()
	}
	if v.leeway == 0 {
		v.leeway = defaultLeeway
	}
	v.leeway = max(0, v.leeway)
	if len(v.scopes) == 0 {
		v.scopes = []string{"scope"}
		if v.profile.AllowScp {
			v.scopes = append(v.scopes, "scp")
		}
	}
	if v.now == nil {
		v.now = time.Now
	}
	v.template, _ = newTemplate(cfg.Issuer) // check reports the error
	v.form.Limit, _ = authheader.TokenLimit(cfg.MaxTokenBytes)
	v.form.AllowPadding = cfg.AllowPaddedSegments
	keys, err := cfg.keys()
	wrong := mistakes.List{Package: "jwks"}
	cfg.check(&wrong)
	wrong.Within("", err)
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	v.keys = keys
	return v, nil
}

// check adds the mistakes in cfg, except those in the sources of keys.
func (cfg *Config) check(wrong *mistakes.List) {
	if cfg.Issuer == "" {
		wrong.Add("Issuer", "required")
	}
	switch t, err := newTemplate(cfg.Issuer); {
	case err != nil:
		wrong.Add("Issuer", "%w", err)
	case t != nil && cfg.Profile.AllowMissingIssuer:
		wrong.Add("Profile.AllowMissingIssuer", "cannot be combined with an issuer with {%s}, since a token without iss is of no tenant", t.claim)
	case t != nil && len(cfg.IssuerAliases) > 0:
		wrong.Add("IssuerAliases", "has no effect with an issuer with {%s}", t.claim)
	case t != nil && !cfg.Profile.AllowAnyTenant && !slices.ContainsFunc(cfg.Rules, func(r claims.Rule) bool { return r.Pins() && r.Claim() == t.claim }):
		wrong.Add("Rules", "need one about %s, which lists the tenants; Profile.AllowAnyTenant accepts them all", t.claim)
	case t != nil && cfg.JWKSURL == "" && cfg.JWKS == nil:
		wrong.Add("JWKSURL", "required, or JWKS, since the metadata of an issuer with {%s} has no URL", t.claim)
	}
	for i, alias := range cfg.IssuerAliases {
		at := fmt.Sprintf("IssuerAliases[%d]", i)
		wrong.AddIf(alias == "", at, "is empty")
		wrong.AddIf(strings.ContainsAny(alias, "{}"), at, "has braces, which only Issuer may have")
	}
	wrong.Within("Audience", tokenclaims.CheckAudience(cfg.Audience))
	if cfg.AudienceClaim != "" && !slices.ContainsFunc(cfg.Markers, claims.Rule.NeedsClaim) && !cfg.RequireScope {
		wrong.Add("AudienceClaim", "needs Markers or RequireScope, since the other tokens of the client have that claim too")
	}
	wrong.AddIf(cfg.AudienceHeader != "" && cfg.AudienceClaim != "", "AudienceHeader", "cannot be combined with AudienceClaim")
	wrong.AddIf(cfg.ClientIDHeader != "" && cfg.ClientIDClaim != "", "ClientIDHeader", "cannot be combined with ClientIDClaim")
	if cfg.Profile.AllowMissingIssuer && len(cfg.Rules) == 0 {
		wrong.Add("Profile.AllowMissingIssuer", "needs Rules that state whose tokens are accepted, such as a prefix of sub")
	}
	for i, t := range cfg.Types {
		wrong.AddIf(t == "" || jose.SameType(t, "JWT"), fmt.Sprintf("Types[%d]", i), "%q marks no kind of token; see Profile.AllowUntyped", t)
	}
	for name, list := range map[string][]claims.Rule{"Markers": cfg.Markers, "Rules": cfg.Rules} {
		for i, r := range list {
			if err := r.Validate(); err != nil {
				wrong.Add(fmt.Sprintf("%s[%d]", name, i), "%w", err)
			}
		}
	}
	for i, id := range cfg.Clients {
		wrong.AddIf(id == "", fmt.Sprintf("Clients[%d]", i), "is empty")
	}
	known, kind := jose.Algorithms(), "a supported signature algorithm"
	if cfg.Secret != nil {
		known, kind = jose.HMACAlgorithms(), "an HMAC algorithm, which Secret requires"
		if len(cfg.Algorithms) == 0 {
			wrong.Add("Algorithms", "required with Secret: one or more of %v", known)
		}
	}
	for i, alg := range cfg.Algorithms {
		if !slices.Contains(known, alg) {
			wrong.Add(fmt.Sprintf("Algorithms[%d]", i), "%q is not %s%s", alg, kind, hint(alg, known))
		}
	}
	if cfg.Leeway > maxLeeway {
		wrong.Add("Leeway", "%v is more than %v", cfg.Leeway, maxLeeway)
	}
	if _, err := authheader.TokenLimit(cfg.MaxTokenBytes); err != nil {
		wrong.Add("MaxTokenBytes", "%w", err)
	}
	if cfg.MaxLifetime < 0 {
		wrong.Add("MaxLifetime", "%v is negative", cfg.MaxLifetime)
	}
	for i, name := range cfg.Scopes {
		if name == "" {
			wrong.Add(fmt.Sprintf("Scopes[%d]", i), "is empty")
		}
	}
}

// hint returns what to do about an algorithm that is not known.
func hint(alg string, known []string) string {
	if slices.Contains(jose.HMACAlgorithms(), alg) {
		return ": HMAC needs the Secret that the issuer shares, and lets whoever verifies tokens issue them too"
	}
	if i := slices.IndexFunc(known, func(name string) bool { return strings.EqualFold(name, alg) }); i >= 0 {
		return "; did you mean " + known[i] + "?"
	}
	return ""
}

// keys returns the keys that cfg configures.
func (cfg *Config) keys() (keySource, error) {
	places := 0
	for _, given := range []bool{cfg.JWKSURL != "", cfg.JWKS != nil, cfg.Secret != nil} {
		if given {
			places++
		}
	}
	switch {
	case places > 1:
		return nil, &valetkey.ConfigError{Field: "JWKSURL, JWKS, Secret", Err: errors.New("set at most one of these")}
	case !cfg.KeyRequests.isZero() && (cfg.JWKS != nil || cfg.Secret != nil):
		return nil, &valetkey.ConfigError{Field: "KeyRequests", Err: errors.New("needs keys that are fetched: remove JWKS and Secret")}
	case cfg.InitialJWKS != nil && (cfg.JWKS != nil || cfg.Secret != nil):
		return nil, &valetkey.ConfigError{Field: "InitialJWKS", Err: errors.New("needs keys that are fetched: remove JWKS and Secret")}
	case cfg.Secret != nil:
		return cfg.secret()
	case cfg.JWKS != nil:
		keys, err := keyset.ParseGiven(cfg.JWKS, cfg.dropLogger())
		var wrong mistakes.List
		wrong.Within("JWKS", err)
		return keyset.Static(keys...), wrong.Err()
	case cfg.JWKSURL == "" && cfg.Issuer == "":
		return nil, nil // check reports it
	}
	var (
		wrong   mistakes.List
		initial []*jose.Key
	)
	if cfg.InitialJWKS != nil {
		keys, err := keyset.ParseGiven(cfg.InitialJWKS, cfg.dropLogger())
		wrong.Within("InitialJWKS", err)
		initial = keys
	}
	client := fetch.Client{HTTP: cfg.Client, InsecureHTTP: cfg.InsecureHTTP, Setting: "InsecureHTTP"}
	wrong.Within("KeyRequests", cfg.KeyRequests.apply(&client, cmp.Or(cfg.JWKSURL, cfg.Issuer)))
	source := keyset.Config{
		Issuer:             cfg.Issuer,
		JWKSURL:            cfg.JWKSURL,
		Initial:            initial,
		Fetch:              client,
		RefreshInterval:    cfg.RefreshInterval,
		MinRefetchInterval: cfg.MinRefetchInterval,
		StaleIfError:       cfg.StaleIfError,
		MaxKeys:            cfg.maxKeys,
		Logger:             cfg.Logger,
		Observer:           cfg.Observer,
	}
	if strings.Contains(cfg.JWKSURL, keyset.KeyIDPlace) {
		wrong.AddIf(cfg.InitialJWKS != nil, "InitialJWKS", "cannot be combined with %s in JWKSURL", keyset.KeyIDPlace)
		keys, err := keyset.NewByID(source)
		wrong.Within("", err)
		return keys, wrong.Err()
	}
	keys, err := keyset.New(source)
	wrong.Within("", err)
	return keys, wrong.Err()
}

// dropLogger returns the logger for keys that are dropped from those in cfg.
func (cfg *Config) dropLogger() *slog.Logger {
	if cfg.again {
		return slog.New(slog.DiscardHandler)
	}
	return cfg.Logger
}

func (r *KeyRequests) isZero() bool {
	return len(r.Header) == 0 && r.TokenFile+r.CAFile+r.CertFile+r.KeyFile == ""
}

// apply makes client send requests as r specifies. url has the origin that credentials are for.
func (r *KeyRequests) apply(client *fetch.Client, url string) error {
	var wrong mistakes.List
	if err := fetch.CheckHeader(r.Header); err != nil {
		wrong.Add("Header", "%w", err)
	}
	if r.TokenFile != "" {
		wrong.AddIf(r.Header.Get("Authorization") != "", "TokenFile", "Header has an Authorization: set one of the two")
		if _, err := fetch.ReadToken(r.TokenFile); err != nil {
			wrong.Add("TokenFile", "%w", err)
		}
	}
	client.Credentials = &fetch.Credentials{URL: url, Header: r.Header.Clone(), TokenFile: r.TokenFile}
	cert, key := r.CertFile, r.KeyFile
	wrong.AddIf(cert != "" && key == "", "KeyFile", "required with CertFile")
	wrong.AddIf(cert == "" && key != "", "CertFile", "required with KeyFile")
	var files []string
	if r.CAFile != "" {
		files = append(files, "CAFile")
	}
	if cert != "" && key != "" {
		files = append(files, "CertFile", "KeyFile")
	} else {
		cert, key = "", ""
	}
	if len(files) == 0 {
		return wrong.Err()
	}
	transport, err := fetch.NewTLSFiles(r.CAFile, cert, key)
	if err != nil {
		wrong.Add(strings.Join(files, ", "), "%w", err)
	}
	wrong.AddIf(client.HTTP != nil, strings.Join(files, ", "), "Client is set: give it the certificates")
	client.HTTP = &http.Client{Transport: transport}
	return wrong.Err()
}

func (cfg *Config) secret() (keySource, error) {
	key, err := jose.SecretKey("", cfg.Secret)
	if err != nil {
		return nil, &valetkey.ConfigError{Field: "Secret", Err: err}
	}
	for _, alg := range cfg.Algorithms {
		if slices.Contains(jose.HMACAlgorithms(), alg) && !key.Fits(alg) {
			return nil, &valetkey.ConfigError{Field: "Secret", Err: fmt.Errorf("too short for %s (RFC 7518, section 3.2)", alg)}
		}
	}
	return keyset.Static(key), nil
}

// Issuer returns Config.Issuer.
func (v *Verifier) Issuer() string { return v.issuer }

// Ready returns nil once keys are available. If none are, it fetches them, waits until ctx is done at the latest, and returns
// the reason for a failure. Use it at startup, to wait or to fail, and in a readiness probe: while the issuer does not
// answer, it fetches no more often than the backoff allows. If each key has its own URL, it returns nil at once, since only tokens
// cause fetches.
func (v *Verifier) Ready(ctx context.Context) error {
	if err := v.keys.Ready(ctx); err != nil {
		return fmt.Errorf("jwks: %s: %w", v.issuer, err)
	}
	return nil
}

// Health returns the state of v: ready if keys are held and the last fetch succeeded, or if there is nothing to fetch;
// degraded if keys are held but the last fetch failed or is overdue; down if none are held, as before the first fetch. If each key
// has its own URL, v is ready before the first fetch and degraded if the last one failed, even if no key is held. It does no
// I/O.
func (v *Verifier) Health() []valetkey.Health {
	h := v.keys.Health()
	h.Name = v.issuer
	return []valetkey.Health{h}
}

// Close ends fetches and timers and waits for them. Afterwards, Verify fails with [*valetkey.Unavailable] (503), and tokens
// that a guard has cached are no longer accepted.
func (v *Verifier) Close() { v.keys.Close() }
