// Package jwks verifies JWT access tokens locally, against the key set of their issuer.
//
//	keys, err := jwks.New(jwks.Config{
//		Issuer:   "https://as.example.com",
//		Audience: []string{"https://api.example.com"},
//	})
//	...
//	defer keys.Close()
//
// The zero [Profile] is RFC 9068. Issuers that send less need a setting each, see Profile.
//
// The checks that need no key come first: form, issuer, type, algorithm, claims, audience, times. A token that fails one
// costs no signature and no fetch. Keys are looked up in the set of the one issuer that the verifier is for.
//
// [ByIssuer] puts several issuers together, and [Tenants] those that are not known in advance.
//
// Not done here: encrypted and nested tokens, keys or URLs that a token brings along (jwk, jku, x5c, x5u), and issuers that
// neither the configuration nor a lookup of the application names. Whether a subject is one that the application knows is for the application or a
// [valetkey.Requirement] to decide.
package jwks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/claims"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/mistakes"
)

// Config is what a [Verifier] is made of. Issuer and Audience are required.
//
// The keys come from one of four places: discovery at the issuer (if none of the others is given), JWKSURL, JWKS or Secret.
type Config struct {
	_ struct{} // keyed literals only

	// Issuer is the iss of the tokens, compared byte by byte. Required. It may be any string; discovery needs a URL.
	Issuer string

	// Audience lists the names of this resource server, one of which the aud of a token must be or contain. Required.
	// Scopes have a meaning within their audience only: two APIs that share an audience share all scopes.
	Audience []string

	// SoleAudience refuses a token that is for others, too: all of its aud must be in Audience. Another API that takes the
	// same token could use it here.
	SoleAudience bool

	// JWKSURL is that of the key set: https, or http on loopback.
	JWKSURL string

	// JWKS is a key set (RFC 7517, section 5), to be used without any network.
	JWKS []byte

	// Secret is shared with the issuer, for the HMAC algorithms, which Algorithms must then name. It must be random and
	// at least as long as their hash: 32 bytes for HS256 (RFC 7518, section 3.2). Who holds it can make tokens, too. There
	// is only one, so the kid of a token does not matter.
	Secret []byte

	// Algorithms are the signature algorithms allowed. Nil: RS256, PS256, ES256, ES384 and EdDSA; never more than this
	// because of what a key set or metadata says. A key whose JWK has no alg may be used with all that fit it.
	Algorithms []string

	// Profile names what a token may lack of RFC 9068. Zero: nothing. See [Lenient].
	Profile Profile

	// Leeway is how far the clocks of issuer and server may differ: exp, nbf and iat are held against it. Zero: 30 s;
	// negative: none; at most 5 min.
	Leeway time.Duration

	// MaxLifetime is the longest time from iat to exp that is accepted; a token without iat is then refused. Zero: any, but
	// an exp more than ten years ahead is refused, since it is nearly always in milliseconds instead of seconds. To accept
	// such tokens, set a MaxLifetime of more than ten years.
	MaxLifetime time.Duration

	// Scopes are the claims that hold scopes, all of which count: a string of scopes separated by spaces, or an array. A
	// name with dots that is no claim itself is a path into objects: "realm_access.roles". Nil: scope.
	Scopes []string

	// Client carries the requests for keys. Redirects are never followed. Nil: http.DefaultClient.
	Client *http.Client

	// InsecureHTTP allows http URLs on hosts other than loopback: whoever is on the way can then replace the keys.
	InsecureHTTP bool

	// RefreshInterval is the age of a key set that is not exceeded if the issuer answers; it is fetched ahead. It counts where the
	// issuer sends no Cache-Control, whose word is taken from 1 min to 24 h. Zero: 10 min.
	RefreshInterval time.Duration

	// MinRefetchInterval is the time after which tokens with unknown keys may cause another fetch. One more is to spare, for a key
	// that rotates twice; after that, tokens of a new key are refused until the cooldown has passed. Zero: 30 s.
	MinRefetchInterval time.Duration

	// StaleIfError is how long keys are used beyond RefreshInterval while the issuer does not answer, or answers with an empty or
	// malformed key set; after that, tokens get 503. It does not prolong a key that a well-formed set with keys no longer
	// contains, or no longer for signatures: that key ends with the refresh. Zero: 1 h; negative: not at all; at most 24 h.
	StaleIfError time.Duration

	// Logger gets what happens to the key set. Nil: slog.Default().
	Logger *slog.Logger

	// Observer is told of each fetch of the key set: [valetkey.KeySetRefreshed]. Nil: nobody is.
	Observer valetkey.Observer

	// Now is the clock that exp, nbf and iat are held against. Nil: time.Now.
	Now func() time.Time
}

const (
	defaultLeeway = 30 * time.Second
	maxLeeway     = 5 * time.Minute // RFC 9068, section 4: "usually no more than a few minutes"
)

// A Verifier verifies the JWT access tokens of one issuer. It is a [valetkey.Verifier] and a
// [valetkey.HealthReporter], safe for concurrent use, and must be closed.
type Verifier struct {
	issuer      string
	audience    []string
	sole        bool // see Config.SoleAudience
	algorithms  []string
	profile     Profile
	leeway      time.Duration
	maxLifetime time.Duration
	scopes      []string
	now         func() time.Time
	keys        *keyset.Set
	shared      bool // keys holds a shared secret
}

// New returns a Verifier. It does no I/O: the first token, or [Verifier.Ready], fetches the keys. The error names every
// mistake in cfg.
func New(cfg Config) (*Verifier, error) {
	v := &Verifier{
		issuer:      cfg.Issuer,
		audience:    slices.Clone(cfg.Audience),
		sole:        cfg.SoleAudience,
		algorithms:  slices.Clone(cfg.Algorithms),
		profile:     cfg.Profile,
		leeway:      cfg.Leeway,
		maxLifetime: cfg.MaxLifetime,
		scopes:      slices.Clone(cfg.Scopes),
		now:         cfg.Now,
		shared:      cfg.Secret != nil,
	}
	if len(v.algorithms) == 0 && !v.shared {
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

// check adds what is wrong with cfg, but for the keys.
func (cfg *Config) check(wrong *mistakes.List) {
	if cfg.Issuer == "" {
		wrong.Add("Issuer", "required")
	}
	wrong.Within("Audience", claims.CheckAudience(cfg.Audience))
	known, kind := jose.Algorithms(), "a signature algorithm known here"
	if cfg.Secret != nil {
		known, kind = jose.HMACAlgorithms(), "an HMAC algorithm, as Secret needs"
		if len(cfg.Algorithms) == 0 {
			wrong.Add("Algorithms", "required with Secret: one or more of %v", known)
		}
	}
	for i, alg := range cfg.Algorithms {
		if !slices.Contains(known, alg) {
			wrong.Add(fmt.Sprintf("Algorithms[%d]", i), "%q is not %s", alg, kind)
		}
	}
	if cfg.Leeway > maxLeeway {
		wrong.Add("Leeway", "%v is more than %v", cfg.Leeway, maxLeeway)
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

// keys returns the key set that cfg asks for.
func (cfg *Config) keys() (*keyset.Set, error) {
	places := 0
	for _, given := range []bool{cfg.JWKSURL != "", cfg.JWKS != nil, cfg.Secret != nil} {
		if given {
			places++
		}
	}
	switch {
	case places > 1:
		return nil, &valetkey.ConfigError{Field: "JWKSURL, JWKS, Secret", Err: errors.New("at most one of them")}
	case cfg.Secret != nil:
		return cfg.secret()
	case cfg.JWKS != nil:
		keys, dropped, err := keyset.Parse(cfg.JWKS)
		var wrong mistakes.List
		wrong.Within("JWKS", err)
		for _, d := range dropped {
			wrong.Add("JWKS", "kid %q: %w", d.ID, d.Err)
		}
		return keyset.Static(keys...), wrong.Err()
	case cfg.JWKSURL == "" && cfg.Issuer == "":
		return nil, nil // reported as such
	}
	return keyset.New(keyset.Config{
		Issuer:             cfg.Issuer,
		JWKSURL:            cfg.JWKSURL,
		Fetch:              fetch.Client{HTTP: cfg.Client, InsecureHTTP: cfg.InsecureHTTP},
		RefreshInterval:    cfg.RefreshInterval,
		MinRefetchInterval: cfg.MinRefetchInterval,
		StaleIfError:       cfg.StaleIfError,
		Logger:             cfg.Logger,
		Observer:           cfg.Observer,
	})
}

func (cfg *Config) secret() (*keyset.Set, error) {
	key, err := jose.SecretKey("", cfg.Secret)
	if err != nil {
		return nil, &valetkey.ConfigError{Field: "Secret", Err: err}
	}
	for _, alg := range cfg.Algorithms {
		if slices.Contains(jose.HMACAlgorithms(), alg) && !key.Fits(alg) {
			return nil, &valetkey.ConfigError{Field: "Secret", Err: fmt.Errorf("it is too short for %s (RFC 7518, section 3.2)", alg)}
		}
	}
	return keyset.Static(key), nil
}

// Issuer returns Config.Issuer.
func (v *Verifier) Issuer() string { return v.issuer }

// Ready returns nil once keys are held. It fetches them if need be, waits for that until ctx is done, and returns why there
// are none. It suits the start of a program, to wait or to fail, and a readiness probe: while the issuer does not answer, it
// does not fetch more often than the backoff allows.
func (v *Verifier) Ready(ctx context.Context) error {
	if err := v.keys.Ready(ctx); err != nil {
		return fmt.Errorf("jwks: %s: %w", v.issuer, err)
	}
	return nil
}

// Health returns how v is: ready if keys are held and the last fetch was good, or if there is nothing to fetch; degraded if
// keys are held but could not be renewed, or not in time; down if none are held, as before the first fetch. It does no I/O.
func (v *Verifier) Health() []valetkey.Health {
	h := v.keys.Health()
	h.Name = v.issuer
	return []valetkey.Health{h}
}

// Close ends fetches and timers and waits for them. What is verified later gets 503, and remembered tokens are forgotten.
func (v *Verifier) Close() { v.keys.Close() }
