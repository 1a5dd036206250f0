// Package apikey verifies API keys beside access tokens, for clients that cannot obtain tokens.
//
//	keys, err := apikey.New(apikey.Config{Issuer: "https://api.example.com/keys", File: "keys.json"})
//	...
//	guard, err := middleware.New(middleware.Config{
//		Verifier: valetkey.First(keys, tokens),
//		Methods:  []middleware.BearerMethod{middleware.APIKeyHeader("X-Api-Key")},
//	})
//
// An accepted key becomes a [valetkey.Token] with a subject, a client and scopes, so routes require the same of both. Only the digest of
// a key is stored. Keys must be random: [Generate] creates one. A password is not a key, because its digest can be guessed.
package apikey

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/mistakes"
)

// A Digest is the SHA-256 digest of an API key. Its text form is in hex.
type Digest [sha256.Size]byte

// DigestOf returns the digest of an API key.
func DigestOf(key string) Digest { return sha256.Sum256([]byte(key)) }

// MarshalText returns the text form of d.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText parses the text form of d.
func (d *Digest) UnmarshalText(text []byte) error {
	if n, err := hex.Decode(d[:], text[:min(len(text), 2*len(d))]); err != nil || n != len(d) || len(text) != 2*len(d) {
		return errors.New("is not a SHA-256 digest in hex")
	}
	return nil
}

// Generate returns a new API key with 256 random bits, and its digest. The key begins with prefix, by which its holder and tools that
// look for leaked secrets recognize it, such as "orders_". It panics if prefix contains a character other than a letter, a digit, '_'
// or '-'.
func Generate(prefix string) (key string, digest Digest) {
	if strings.Trim(prefix, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		panic("apikey: Generate: the prefix contains a character other than a letter, a digit, '_' or '-'")
	}
	var random [32]byte
	rand.Read(random[:])
	key = prefix + base64.RawURLEncoding.EncodeToString(random[:])
	return key, DigestOf(key)
}

// A Key describes an API key. Only Digest and Subject are required.
type Key struct {
	Digest   Digest         `json:"digest"`
	Subject  string         `json:"subject"`          // whom the key belongs to
	ClientID string         `json:"client_id"`        // the application; empty: unknown
	ID       string         `json:"id"`               // identifies the key in logs and revocations; empty: none
	Scopes   string         `json:"scopes"`           // separated by spaces
	Claims   map[string]any `json:"claims"`           // further claims, for rules; those of the fields above win
	Expiry   time.Time      `json:"expires,omitzero"` // zero: the key does not expire
}

// Config configures a [Verifier]. Issuer is required, and one of Lookup, Keys and File.
type Config struct {
	// Issuer is the issuer of the tokens that the Verifier returns. It must not be that of another verifier, so that a subject of an
	// API key is not mistaken for a user of an issuer.
	Issuer string

	// Lookup returns the key with a digest, for keys in a database; nil and no error if there is none. An error is a failure: the
	// client gets 503. Lookup must be safe for concurrent use and end with ctx.
	Lookup func(ctx context.Context, digest Digest) (*Key, error)

	// Keys are the keys, for a program that knows them.
	Keys []Key

	// File is a JSON file with an array of keys, such as
	//
	//	[{"digest": "9f86d081884c7d65...", "subject": "billing", "scopes": "orders:read", "expires": "2027-01-01T00:00:00Z"}]
	//
	// It is read by New, and again when it has changed, at most every ten seconds. A file that is then missing or invalid is
	// reported by Health, and the keys of the last valid one remain for an hour, after which requests with a key get 503.
	File string

	// CacheTTL is the time for which a result of Lookup may be used without another call, also after the key was deleted. Zero: 1
	// min. Negative: none, each request calls Lookup. It does not apply to Keys and File.
	CacheTTL time.Duration

	// Now is the clock for expiry. Nil: time.Now.
	Now func() time.Time
}

// A Verifier is a [valetkey.Verifier] for API keys. For a text that is not an API key it returns an error that wraps
// [valetkey.ErrNotApplicable]. It is safe for concurrent use.
type Verifier struct {
	cfg  Config
	now  func() time.Time
	keys map[Digest]*Key // of Config.Keys
	file *file           // nil: there is none
}

// New returns a Verifier. It reads File and does no other I/O. The error joins every mistake in cfg, each a [valetkey.ConfigError].
func New(cfg Config) (*Verifier, error) {
	wrong := mistakes.List{Package: "apikey"}
	if cfg.Issuer == "" {
		wrong.Add("Issuer", "required")
	}
	sources := 0
	for _, given := range []bool{cfg.Lookup != nil, cfg.Keys != nil, cfg.File != ""} {
		if given {
			sources++
		}
	}
	if sources != 1 {
		wrong.Add("Lookup", "exactly one of Lookup, Keys and File is required, got %d", sources)
	}
	v := &Verifier{cfg: cfg, now: cfg.Now}
	if v.now == nil {
		v.now = time.Now
	}
	if v.cfg.CacheTTL == 0 {
		v.cfg.CacheTTL = time.Minute
	}
	var err error
	if cfg.Keys != nil {
		if v.keys, err = byDigest(cfg.Keys); err != nil {
			wrong.Add("Keys", "%w", err)
		}
	}
	if cfg.File != "" {
		if v.file, err = open(cfg.File, v.now()); err != nil {
			wrong.Add("File", "%w", err)
		}
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	return v, nil
}

// byDigest returns keys by their digests. The operator bounds their number. The error joins all mistakes in them.
func byDigest(keys []Key) (map[Digest]*Key, error) {
	all := make(map[Digest]*Key, len(keys))
	var mistakes []error
	for i, k := range keys {
		if err := k.validate(); err != nil {
			mistakes = append(mistakes, fmt.Errorf("key %d: %w", i, err))
		} else if all[k.Digest] != nil {
			mistakes = append(mistakes, fmt.Errorf("key %d: another key has the same digest", i))
		}
		all[k.Digest] = &k
	}
	return all, errors.Join(mistakes...)
}

func (k *Key) validate() error {
	switch {
	case k.Digest == Digest{}:
		return errors.New("digest: required")
	case k.Digest == DigestOf(""):
		return errors.New("digest: is that of an empty key")
	case k.Subject == "":
		return errors.New("subject: required")
	}
	_, err := json.Marshal(k.Claims)
	return err
}

// Verify returns the token of an API key, in the form in which a guard reads it, see [Text].
func (v *Verifier) Verify(ctx context.Context, raw string) (*valetkey.Token, error) {
	key, ok := keyOf(raw)
	if !ok {
		return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: reasonNotAPIKey, Err: valetkey.ErrNotApplicable}
	}
	digest := DigestOf(key)
	now := v.now()
	found, fresh, err := v.find(ctx, digest, now)
	switch {
	case err != nil:
		return nil, fmt.Errorf("apikey: %w", err)
	// A map or a database compares in variable time. That reveals nothing about the key: an attacker cannot choose a digest.
	case found == nil || subtle.ConstantTimeCompare(found.Digest[:], digest[:]) != 1:
		return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: reasonUnknown}
	case !found.Expiry.IsZero() && !now.Before(found.Expiry):
		return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonExpired}
	}
	claims := make(map[string]any, len(found.Claims)+6)
	for name, value := range found.Claims {
		claims[name] = value
	}
	for name, value := range map[string]string{"iss": v.cfg.Issuer, "sub": found.Subject, "client_id": found.ClientID, "jti": found.ID, "scope": found.Scopes} {
		if delete(claims, name); value != "" {
			claims[name] = value
		}
	}
	if delete(claims, "exp"); !found.Expiry.IsZero() {
		claims["exp"] = found.Expiry.Unix()
	}
	text, err := json.Marshal(claims)
	if err != nil {
		return nil, fmt.Errorf("apikey: the claims of a key: %w", err)
	}
	return valetkey.NewToken(valetkey.TokenFields{
		Issuer: v.cfg.Issuer, Subject: found.Subject, ClientID: found.ClientID, ID: found.ID,
		Scopes: valetkey.NewScopes(strings.Fields(found.Scopes)...),
		Expiry: found.Expiry, Deadline: found.Expiry, Raw: string(text), Freshness: fresh,
	}), nil
}

// find returns the key with a digest, nil if there is none, and for how long that is true.
func (v *Verifier) find(ctx context.Context, digest Digest, now time.Time) (*Key, valetkey.Freshness, error) {
	switch {
	case v.cfg.Lookup != nil:
		k, err := v.cfg.Lookup(ctx, digest)
		if err == nil && k != nil {
			err = k.validate()
		}
		return k, valetkey.Freshness{Until: now.Add(max(v.cfg.CacheTTL, 0))}, err
	case v.file != nil:
		keys, err := v.file.read(now)
		return keys[digest], valetkey.Freshness{Until: now.Add(rereadInterval)}, err
	default:
		return v.keys[digest], valetkey.Freshness{Until: now.Add(year)}, nil // the cache sets a shorter limit
	}
}

const year = 365 * 24 * time.Hour

// Health returns the state of File. It implements [valetkey.HealthReporter].
func (v *Verifier) Health() []valetkey.Health {
	if v.file == nil {
		return nil
	}
	return []valetkey.Health{v.file.health(v.cfg.Issuer, v.now())}
}

// Ready returns the error of File, if its keys cannot be used. It implements [valetkey.HealthReporter].
func (v *Verifier) Ready(context.Context) error {
	if v.file == nil {
		return nil
	}
	_, err := v.file.read(v.now())
	return err
}

var (
	reasonNotAPIKey = valetkey.NewReason("not_api_key", "the credential is not an API key")
	reasonUnknown   = valetkey.NewReason("unknown_api_key", "the API key is unknown")
)
