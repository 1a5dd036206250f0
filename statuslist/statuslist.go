// Package statuslist refuses tokens that their issuer has revoked or suspended in a Token Status List
// (draft-ietf-oauth-status-list): one compressed list of bits for many tokens, which is fetched now and then, so that no
// request has to ask anybody.
//
//	keys, err := jwks.New(jwks.Config{Issuer: issuer, Audience: audience})
//	...
//	verifier, err := statuslist.New(statuslist.Config{Verifier: keys, Issuer: issuer})
//	...
//	defer verifier.Close()
//	guard, err := middleware.New(middleware.Config{Verifier: verifier})
//
// A list is fetched when the first token names it, and again ahead of its age for as long as tokens of it are in use. What a
// guard remembers is held against the list of the moment on every request, which costs a few nanoseconds: a token ends with
// the refresh that says so. A list that is too old vouches for nothing.
//
// Not done here: lists in the form of CWT, and status mechanisms of other names.
package statuslist

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/refresh"
)

// Config is what a [Verifier] is made of. Verifier and Issuer are required.
type Config struct {
	_ struct{} // keyed literals only

	// Verifier decides everything else about a token, and first: the list of a token that it refuses is not fetched. Required.
	Verifier valetkey.Verifier

	// Issuer is whose keys sign the lists, and their iss, if they have one. It is compared byte by byte. Required.
	Issuer string

	// JWKSURL is that of the issuer's key set. Empty: the issuer's metadata names it.
	JWKSURL string

	// JWKS is a key set (RFC 7517, section 5), to be used instead, without any network.
	JWKS []byte

	// Algorithms are the signature algorithms of lists. Nil: RS256, PS256, ES256, ES384 and EdDSA.
	Algorithms []string

	// Origins are where lists may be fetched from, such as https://status.example.com: a token that names another place is
	// refused, and nothing is fetched. Nil: the origin of Issuer.
	Origins []string

	// Required refuses tokens that name no list. Off: they are accepted, and nobody can revoke them.
	Required bool

	// Allow accepts statuses other than valid (0) and invalid (1), which are suspended (2) and what an issuer and its
	// resource servers have agreed on. It must be fast and safe for concurrent use. Nil: none.
	Allow func(status uint8) bool

	// RefreshInterval is how long a list is relied on that has no ttl. Zero: 5 min.
	RefreshInterval time.Duration

	// MinTTL and MaxTTL bound the ttl of lists: issuers must not make us fetch all the time, nor never. Zero: 30 s and 1 h.
	MinTTL, MaxTTL time.Duration

	// StaleIfError is how long a list is relied on past its ttl, while the issuer does not answer; never past its exp. Zero: not
	// at all.
	StaleIfError time.Duration

	// MaxLists is the most lists that are held, the least recently needed of which gives way. Zero: 64.
	MaxLists int

	// MaxBytes is the size of the longest list, unpacked; a byte holds one to eight tokens. Zero: 4 MiB.
	MaxBytes int

	// Client carries the requests. Redirects are never followed. Nil: http.DefaultClient.
	Client *http.Client

	// InsecureHTTP allows http URLs on hosts other than loopback.
	InsecureHTTP bool

	// Logger gets lists that could not be fetched. Nil: slog.Default().
	Logger *slog.Logger

	// Observer is told of each fetch: [valetkey.StatusListRead], [valetkey.KeySetRefreshed]. Nil: nobody is.
	Observer valetkey.Observer
}

const (
	defaultFresh    = 5 * time.Minute
	defaultMinTTL   = 30 * time.Second
	defaultMaxTTL   = time.Hour
	defaultMaxLists = 64
	defaultMaxBytes = 4 << 20
)

// A Verifier accepts what another one accepts and a status list calls valid. It is safe for concurrent use and must be
// closed. It is a [valetkey.HealthReporter] and a [valetkey.Purger].
type Verifier struct {
	cfg     Config
	origins []string
	fetch   fetch.Client
	keys    *keyset.Set
	lists   *refresh.Pool[snapshot]
}

// New returns a Verifier. It does no I/O. The error names every mistake in cfg.
func New(cfg Config) (*Verifier, error) {
	wrong := mistakes.List{Package: "statuslist"}
	v := &Verifier{cfg: cfg}
	v.fetch = fetch.Client{HTTP: cfg.Client, InsecureHTTP: cfg.InsecureHTTP}
	if cfg.Verifier == nil {
		wrong.Add("Verifier", "required")
	}
	if cfg.Issuer == "" {
		wrong.Add("Issuer", "required")
	}
	for i, alg := range cfg.Algorithms {
		if !slices.Contains(jose.Algorithms(), alg) {
			wrong.Add(fmt.Sprintf("Algorithms[%d]", i), "%q is not a signature algorithm known here", alg)
		}
	}
	if len(cfg.Origins) == 0 {
		if origin, err := originOf(cfg.Issuer); err == nil {
			v.origins = []string{origin}
		} else if cfg.Issuer != "" {
			wrong.Add("Origins", "required, as Issuer is not a URL")
		}
	}
	for i, o := range cfg.Origins {
		origin, err := originOf(o)
		switch {
		case err != nil:
		case origin != o:
			err = errors.New("not an origin, which is a scheme, a host, and a port if need be")
		default:
			err = v.fetch.Allowed(o)
		}
		if err != nil {
			wrong.Add(fmt.Sprintf("Origins[%d]", i), "%w", err)
		}
		v.origins = append(v.origins, origin)
	}
	for _, d := range []struct {
		name string
		set  *time.Duration
		zero time.Duration
	}{
		{"RefreshInterval", &v.cfg.RefreshInterval, defaultFresh}, {"MinTTL", &v.cfg.MinTTL, defaultMinTTL},
		{"MaxTTL", &v.cfg.MaxTTL, defaultMaxTTL}, {"StaleIfError", &v.cfg.StaleIfError, 0},
	} {
		if *d.set < 0 {
			wrong.Add(d.name, "%v is negative", *d.set)
		}
		if *d.set == 0 {
			*d.set = d.zero
		}
	}
	if v.cfg.MinTTL > v.cfg.MaxTTL {
		wrong.Add("MinTTL", "%v is above the upper bound, %v", v.cfg.MinTTL, v.cfg.MaxTTL)
	}
	for _, n := range []struct {
		name string
		set  *int
		zero int
	}{{"MaxLists", &v.cfg.MaxLists, defaultMaxLists}, {"MaxBytes", &v.cfg.MaxBytes, defaultMaxBytes}} {
		if *n.set < 0 {
			wrong.Add(n.name, "%d is negative", *n.set)
		}
		if *n.set == 0 {
			*n.set = n.zero
		}
	}
	var err error
	v.keys, err = v.newKeys()
	wrong.Within("", err)
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	if len(v.cfg.Algorithms) == 0 {
		v.cfg.Algorithms = jose.DefaultAlgorithms()
	}
	if v.cfg.Logger == nil {
		v.cfg.Logger = slog.Default()
	}
	v.lists = refresh.NewPool(v.cfg.MaxLists, v.describe)
	return v, nil
}

func (v *Verifier) newKeys() (*keyset.Set, error) {
	switch {
	case v.cfg.JWKS != nil && v.cfg.JWKSURL != "":
		return nil, &valetkey.ConfigError{Field: "JWKSURL, JWKS", Err: errors.New("at most one of them")}
	case v.cfg.JWKS != nil:
		keys, dropped, err := keyset.Parse(v.cfg.JWKS)
		if err != nil {
			return nil, &valetkey.ConfigError{Field: "JWKS", Err: err}
		}
		if len(dropped) > 0 {
			return nil, &valetkey.ConfigError{Field: "JWKS", Err: fmt.Errorf("kid %q: %w", dropped[0].ID, dropped[0].Err)}
		}
		return keyset.Static(keys...), nil
	case v.cfg.Issuer == "" && v.cfg.JWKSURL == "":
		return nil, nil // reported as such
	}
	return keyset.New(keyset.Config{
		Issuer: v.cfg.Issuer, JWKSURL: v.cfg.JWKSURL, Fetch: v.fetch, Logger: v.cfg.Logger, Observer: v.cfg.Observer,
	})
}

// originOf returns scheme, host and port of an http URL.
func originOf(u string) (string, error) {
	parsed, err := url.Parse(u)
	if err != nil || parsed.Host == "" || parsed.User != nil {
		return "", errors.New("not a URL with a host")
	}
	return parsed.Scheme + "://" + parsed.Host, nil
}

// Close ends fetches and waits for them. What is verified later gets 503, and remembered tokens are forgotten.
func (v *Verifier) Close() {
	v.lists.Close()
	v.keys.Close()
}

// Purge makes v fetch every list again before it relies on it.
func (v *Verifier) Purge() {
	if f, ok := v.cfg.Verifier.(valetkey.Purger); ok {
		f.Purge()
	}
	v.lists.Purge()
}

// Health returns how the verifier within is, and how the lists are: ready if all that are in use could be fetched, degraded
// if one is relied on that could not be renewed, down if one is needed and not held. It does no I/O.
func (v *Verifier) Health() []valetkey.Health {
	var all []valetkey.Health
	if r, ok := v.cfg.Verifier.(valetkey.HealthReporter); ok {
		all = r.Health()
	}
	return append(all, v.health())
}

// Ready makes the verifier within ready and fetches the keys of the lists. Which lists there are only tokens tell.
func (v *Verifier) Ready(ctx context.Context) error {
	var inner error
	if r, ok := v.cfg.Verifier.(valetkey.HealthReporter); ok {
		inner = r.Ready(ctx)
	}
	if err := v.keys.Ready(ctx); err != nil {
		return errors.Join(inner, fmt.Errorf("statuslist: %s: %w", v.cfg.Issuer, err))
	}
	return inner
}
