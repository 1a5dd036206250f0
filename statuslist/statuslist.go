// Package statuslist refuses tokens that their issuer has revoked or suspended in a Token Status List
// (draft-ietf-oauth-status-list): a compressed list of bits for many tokens. The list is fetched periodically, so requests do
// not wait for the issuer.
//
//	keys, err := jwks.New(jwks.Config{Issuer: issuer, Audience: audience})
//	...
//	verifier, err := statuslist.New(statuslist.Config{Verifier: keys, Issuer: issuer})
//	...
//	defer verifier.Close()
//	guard, err := middleware.New(middleware.Config{Verifier: verifier})
//
// A list is fetched when the first token refers to it, and refetched ahead of its expiry for as long as its tokens are in
// use. For a token in a guard's cache, every request checks the current list, which costs a few nanoseconds. A revoked token
// is therefore refused from the refresh that reports it. A list that is too old is not used.
//
// The package does not support lists in CWT form or other status mechanisms.
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

// Config configures a [Verifier]. Verifier and Issuer are required.
type Config struct {
	_ struct{} // keyed literals only

	// Verifier makes all other checks of a token. It runs first: if it refuses the token, no list is fetched. Required.
	Verifier valetkey.Verifier

	// Issuer is the issuer whose keys sign the lists, and the iss of lists that have one. It is compared byte by byte.
	// Required.
	Issuer string

	// JWKSURL is the URL of the issuer's key set. Empty: the URL comes from the issuer's metadata.
	JWKSURL string

	// JWKS is a key set (RFC 7517, section 5) to use instead, without any network access.
	JWKS []byte

	// Algorithms lists the accepted signature algorithms of lists. Nil: RS256, PS256, ES256, ES384, EdDSA and its
	// newer name Ed25519 (RFC 9864).
	Algorithms []string

	// Origins lists the origins that lists may be fetched from, such as https://status.example.com. A token that refers to
	// another origin is refused without a fetch. Nil: the origin of Issuer.
	Origins []string

	// Required refuses tokens that refer to no list. Off: they are accepted, and cannot be revoked.
	Required bool

	// Allow reports whether a status other than valid (0) and invalid (1) is accepted: suspended (2), or one that the issuer
	// and its resource servers have agreed on. It must be fast and safe for concurrent use. Nil: none is accepted.
	Allow func(status uint8) bool

	// RefreshInterval is how long a list without ttl is used. Zero: 5 min.
	RefreshInterval time.Duration

	// MinTTL and MaxTTL bound the ttl of lists, so that an issuer can cause neither constant fetches nor a list that is never
	// renewed. Zero: 30 s and 1 h.
	MinTTL, MaxTTL time.Duration

	// StaleIfError is how long a list is used past its ttl while the issuer does not answer, but never past its exp. Zero:
	// not at all.
	StaleIfError time.Duration

	// MaxLists is the maximum number of lists held. When it is exceeded, the least recently used list is removed. Zero: 64.
	MaxLists int

	// MaxBytes is the maximum size of an uncompressed list; a byte holds one to eight tokens. Zero: 4 MiB.
	MaxBytes int

	// Client sends the requests. Redirects are never followed. Nil: http.DefaultClient.
	Client *http.Client

	// InsecureHTTP allows http URLs on hosts other than loopback.
	InsecureHTTP bool

	// Logger logs failures to fetch a list. Nil: slog.Default().
	Logger *slog.Logger

	// Observer receives an event for each fetch: [valetkey.StatusListRead] or [valetkey.KeySetRefreshed]. Nil: none.
	Observer valetkey.Observer
}

const (
	defaultFresh    = 5 * time.Minute
	defaultMinTTL   = 30 * time.Second
	defaultMaxTTL   = time.Hour
	defaultMaxLists = 64
	defaultMaxBytes = 4 << 20
)

// Verifier accepts tokens that Config.Verifier accepts and whose status in a status list is acceptable. It is a
// [valetkey.Verifier], a [valetkey.HealthReporter] and a [valetkey.Purger]. It is safe for concurrent use and must be closed.
type Verifier struct {
	cfg     Config
	origins []string
	fetch   fetch.Client
	keys    *keyset.Set
	lists   *refresh.Pool[snapshot]
}

// New returns a Verifier. It does no I/O. The error lists every mistake in cfg.
func New(cfg Config) (*Verifier, error) {
	wrong := mistakes.List{Package: "statuslist"}
	v := &Verifier{cfg: cfg}
	v.fetch = fetch.Client{HTTP: cfg.Client, InsecureHTTP: cfg.InsecureHTTP, Setting: "InsecureHTTP"}
	if cfg.Verifier == nil {
		wrong.Add("Verifier", "required")
	}
	if cfg.Issuer == "" {
		wrong.Add("Issuer", "required")
	}
	for i, alg := range cfg.Algorithms {
		if !slices.Contains(jose.Algorithms(), alg) {
			wrong.Add(fmt.Sprintf("Algorithms[%d]", i), "%q is not a supported signature algorithm", alg)
		}
	}
	if len(cfg.Origins) == 0 {
		if origin, err := originOf(cfg.Issuer); err == nil {
			v.origins = []string{origin}
		} else if cfg.Issuer != "" {
			wrong.Add("Origins", "required because Issuer is not a URL")
		}
	}
	for i, o := range cfg.Origins {
		origin, err := originOf(o)
		switch {
		case err != nil:
		case origin != o:
			err = errors.New("not an origin: only a scheme, a host and an optional port are allowed")
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
		wrong.Add("MinTTL", "%v is more than the maximum TTL, %v", v.cfg.MinTTL, v.cfg.MaxTTL)
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
		return nil, &valetkey.ConfigError{Field: "JWKSURL, JWKS", Err: errors.New("set at most one of these")}
	case v.cfg.JWKS != nil:
		keys, err := keyset.ParseGiven(v.cfg.JWKS, v.cfg.Logger)
		var wrong mistakes.List
		wrong.Within("JWKS", err)
		return keyset.Static(keys...), wrong.Err()
	case v.cfg.Issuer == "" && v.cfg.JWKSURL == "":
		return nil, nil // New reports it
	}
	return keyset.New(keyset.Config{
		Issuer: v.cfg.Issuer, JWKSURL: v.cfg.JWKSURL, Fetch: v.fetch, Logger: v.cfg.Logger, Observer: v.cfg.Observer,
	})
}

// originOf returns the scheme, host and port of a URL.
func originOf(u string) (string, error) {
	parsed, err := url.Parse(u)
	if err != nil || parsed.Host == "" || parsed.User != nil {
		return "", errors.New("not a URL with a host")
	}
	return parsed.Scheme + "://" + parsed.Host, nil
}

// Close cancels fetches and waits for them. It does not close Config.Verifier. Afterwards, Verify of a token that refers to a
// list fails with [*valetkey.Unavailable] (503), and such tokens in a guard's cache are no longer accepted.
func (v *Verifier) Close() {
	v.lists.Close()
	v.keys.Close()
}

// Purge requires every list to be fetched again before it is used. It also purges Config.Verifier, if that is a
// [valetkey.Purger].
func (v *Verifier) Purge() {
	if f, ok := v.cfg.Verifier.(valetkey.Purger); ok {
		f.Purge()
	}
	v.lists.Purge()
}

// Health returns the state of Config.Verifier, if it reports one, and of the lists: ready if all lists in use were fetched;
// degraded if a list in use could not be renewed; down if a list is needed and not held. It does no I/O.
func (v *Verifier) Health() []valetkey.Health {
	var all []valetkey.Health
	if r, ok := v.cfg.Verifier.(valetkey.HealthReporter); ok {
		all = r.Health()
	}
	return append(all, v.health())
}

// Ready makes Config.Verifier ready, if it is a [valetkey.HealthReporter], and fetches the keys of the lists. It fetches no
// list, since only tokens reveal which lists exist.
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
