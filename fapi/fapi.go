// Package fapi makes a guard that is a resource server of the FAPI 2.0 Security Profile: every switch is set as the profile
// says, and what contradicts it is refused at start.
//
//	guard, err := fapi.New(fapi.Config{
//		Issuer:     "https://as.example.com",
//		Audience:   []string{"https://api.example.com"},
//		Revocation: fapi.StatusList(statuslist.Config{}),
//		DPoP:       &dpop.Config{},
//		Guard:      middleware.Config{Resource: middleware.Resource{ID: "https://api.example.com"}},
//	})
//	...
//	defer guard.Close()
//
// Section 5.3.4 of the profile asks for tokens in the header only, bound to their sender, verified in full and not revoked;
// section 5.4 for PS256, ES256 or EdDSA. The TLS of the server itself is configured where it listens, see [ServerTLS].
package fapi

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/statuslist"
)

// algorithms returns the signature algorithms of the profile (section 5.4), of which EdDSA has two names.
func algorithms() []string { return []string{"PS256", "ES256", "EdDSA", "Ed25519"} }

// Config is what a guard of the profile is made of. Required are Issuer, Audience, Revocation, and DPoP or
// Guard.ClientCertificate.
type Config struct {
	_ struct{} // keyed literals only

	// Issuer is the iss of the tokens, an https URL, compared byte by byte. Required.
	Issuer string

	// Audience lists the names of this resource server. Required.
	Audience []string

	// JWKSURL is that of the issuer's key set, and JWKS a key set without any network. Neither: the issuer's metadata says.
	JWKSURL string
	JWKS    []byte

	// Algorithms are those of the tokens, a part of [Algorithms]. Nil: all of them.
	Algorithms []string

	// Revocation is how revoked tokens are told from others. Required: [Introspection], [StatusList] or [ShortLived].
	Revocation Revocation

	// DPoP accepts tokens that are bound to a key. Its Algorithms are a part of [Algorithms]; nil: all of them. Nil: no such
	// tokens.
	DPoP *dpop.Config

	// HighValue is for requests that must not be made twice or in advance: a proof needs a nonce of ours, so DPoP.Nonces
	// is required, and is good once in any case.
	HighValue bool

	// Client carries the requests to the issuer. Nil: one with TLS 1.2 or later and the cipher suites of BCP 195.
	Client *http.Client

	// Guard is the rest of the guard: ClientCertificate, Proxies, Resource, Cache and the like. Verifier, DPoP and Methods
	// are the profile's and must not be set.
	Guard middleware.Config
}

// A Guard is a [middleware.Guard] of the profile. It must be closed.
type Guard struct {
	*middleware.Guard
	close []func()
}

// Close ends fetches and timers and waits for them.
func (g *Guard) Close() {
	for _, c := range g.close {
		c()
	}
}

// New returns a guard of the profile. It does no I/O. The error names every mistake in cfg and everything in it that
// contradicts the profile.
func New(cfg Config) (*Guard, error) {
	b := &builder{cfg: cfg, wrong: mistakes.List{Package: "fapi"}}
	g := b.guard()
	if err := b.wrong.Err(); err != nil {
		for _, c := range b.close {
			c()
		}
		return nil, err
	}
	return &Guard{Guard: g, close: b.close}, nil
}

// A builder puts a guard together, and goes on after a mistake so that all are told.
type builder struct {
	cfg   Config
	close []func()
	wrong mistakes.List
}

func (b *builder) guard() *middleware.Guard {
	cfg := b.cfg
	if u, err := url.Parse(cfg.Issuer); err != nil || u.Scheme != "https" {
		b.wrong.Add("Issuer", "is not an https URL")
	}
	b.checkTLS()
	own := cfg.Guard
	if own.Verifier != nil {
		b.wrong.Add("Guard.Verifier", "is made by the profile")
	}
	if own.DPoP != nil {
		b.wrong.Add("Guard.DPoP", "is made by the profile, of DPoP")
	}
	// Section 5.3.4, 2: "shall not accept access tokens in the query parameters"; and no other place but the header.
	if len(own.Methods) > 0 {
		b.wrong.Add("Guard.Methods", "tokens come in the Authorization header only (FAPI 2.0, section 5.3.4)")
	}
	own.Methods = nil
	// 5: "shall support and verify sender-constrained access tokens".
	own.SenderConstrained = true
	if cfg.DPoP == nil && own.ClientCertificate.IsZero() {
		b.wrong.Add("DPoP, Guard.ClientCertificate", "one of them is required (FAPI 2.0, section 5.3.4)")
	}
	own.DPoP = b.proofs()
	if own.DPoP == nil && own.ClientCertificate.IsZero() {
		own.SenderConstrained = false // what is wrong with DPoP is reported
	}
	own.Verifier = b.verifier()
	if b.wrong.Err() != nil {
		own.Verifier = valetkey.First() // a stand-in, so that the mistakes of the rest are told, too
	}
	g, err := middleware.New(own)
	b.wrong.Within("Guard", err)
	return g
}

func (b *builder) proofs() *dpop.Verifier {
	if b.cfg.DPoP == nil {
		if b.cfg.HighValue {
			b.wrong.Add("HighValue", "DPoP is required")
		}
		return nil
	}
	cfg := *b.cfg.DPoP
	cfg.Algorithms = b.algorithms("DPoP.Algorithms", cfg.Algorithms)
	if _, off := cfg.ReplayStore.(dpop.InsecureAllowReplays); off {
		b.wrong.Add("DPoP.ReplayStore", "a proof is good once")
	}
	if b.cfg.HighValue && cfg.Nonces == nil {
		b.wrong.Add("DPoP.Nonces", "required with HighValue")
	}
	v, err := dpop.New(cfg)
	b.wrong.Within("DPoP", err)
	return v
}

// algorithms returns those that are configured, or all of the profile's.
func (b *builder) algorithms(field string, configured []string) []string {
	for i, alg := range configured {
		if !slices.Contains(algorithms(), alg) {
			b.wrong.Add(fmt.Sprintf("%s[%d]", field, i), "%q is none of PS256, ES256 and EdDSA (FAPI 2.0, section 5.4)", alg)
		}
	}
	if len(configured) == 0 {
		return algorithms()
	}
	return configured
}

func (b *builder) verifier() valetkey.Verifier {
	r := b.cfg.Revocation
	if r.name == "" {
		b.wrong.Add("Revocation", "required: Introspection, StatusList or ShortLived (FAPI 2.0, section 5.3.4)")
	}
	if r.opaque {
		if b.cfg.JWKSURL != "" || b.cfg.JWKS != nil || b.cfg.Algorithms != nil {
			b.wrong.Add("JWKSURL, JWKS, Algorithms", "there is nothing to verify of opaque tokens")
		}
		return b.introspection()
	}
	if r.name == "ShortLived" && (r.lifetime <= 0 || r.lifetime > maxShortLived) {
		b.wrong.Add("Revocation.ShortLived", "%v is not within 0 and %v", r.lifetime, maxShortLived)
		r.lifetime = 0
	}
	keys, err := jwks.New(jwks.Config{
		Issuer: b.cfg.Issuer, Audience: b.cfg.Audience, JWKSURL: b.cfg.JWKSURL, JWKS: b.cfg.JWKS, Client: b.cfg.Client,
		Algorithms:  b.algorithms("Algorithms", b.cfg.Algorithms),
		MaxLifetime: r.lifetime,
		Logger:      b.cfg.Guard.Logger, Observer: b.cfg.Guard.Observer, Now: b.cfg.Guard.Now,
	})
	b.wrong.Within("", err)
	if err != nil {
		return nil
	}
	b.close = append(b.close, keys.Close)
	switch {
	case r.introspect != nil:
		if by := b.introspection(); by != nil {
			return valetkey.CrossCheck(keys, by)
		}
	case r.list != nil:
		if v := b.statusList(keys); v != nil {
			return v
		}
	}
	return keys
}

// A Revocation is how a guard learns that a token was revoked before it expires (section 5.3.4, 3).
type Revocation struct {
	name       string
	introspect *introspect.Config
	opaque     bool
	list       *statuslist.Config
	lifetime   time.Duration
}

// Introspection asks the issuer about every JWT that was verified locally (RFC 7662), and again after CacheTTL. What cfg
// does not say of issuer, audience, client and clock is that of the profile.
func Introspection(cfg introspect.Config) Revocation {
	return Revocation{name: "Introspection", introspect: &cfg}
}

// OpaqueTokens asks the issuer about every token, which are not JWTs, and relies on its answer alone.
func OpaqueTokens(cfg introspect.Config) Revocation {
	return Revocation{name: "OpaqueTokens", introspect: &cfg, opaque: true}
}

// StatusList refuses tokens that their issuer's status list calls revoked, and tokens that name no list.
func StatusList(cfg statuslist.Config) Revocation {
	return Revocation{name: "StatusList", list: &cfg}
}

// maxShortLived is the longest lifetime that stands in for the knowledge of revocations.
const maxShortLived = 10 * time.Minute

// ShortLived relies on tokens that live no longer than max, at most 10 min, from their iat: that long a revoked one is
// accepted. It is a decision to be taken with open eyes, and fit for issuers that have no other way.
func ShortLived(max time.Duration) Revocation {
	return Revocation{name: "ShortLived", lifetime: max}
}

func (b *builder) introspection() valetkey.Verifier {
	cfg := *b.cfg.Revocation.introspect
	field := "Revocation." + b.cfg.Revocation.name
	switch {
	case cfg.Issuer == "":
		cfg.Issuer = b.cfg.Issuer
	case cfg.Issuer != b.cfg.Issuer:
		b.wrong.Add(field+".Issuer", "%q is another than that of the tokens", cfg.Issuer)
	}
	if cfg.Audience == nil {
		cfg.Audience = b.cfg.Audience
	}
	if !b.cfg.Revocation.opaque {
		cfg.JWTIssuers = []string{b.cfg.Issuer}
	}
	if cfg.InsecureHTTP {
		b.wrong.Add(field+".InsecureHTTP", "the issuer is asked over TLS only (FAPI 2.0, section 5.2)")
	}
	if cfg.Signed != nil {
		b.algorithms(field+".Signed.Algorithm", []string{cfg.Signed.Algorithm})
	}
	if cfg.Client == nil {
		cfg.Client = b.cfg.Client
	}
	cfg.Logger, cfg.Observer = cmp.Or(cfg.Logger, b.cfg.Guard.Logger), cmp.Or(cfg.Observer, b.cfg.Guard.Observer)
	if cfg.Now == nil {
		cfg.Now = b.cfg.Guard.Now
	}
	v, err := introspect.New(cfg)
	b.wrong.Within(field, err)
	if err != nil {
		return nil
	}
	b.close = append(b.close, v.Close)
	return v
}

func (b *builder) statusList(keys *jwks.Verifier) valetkey.Verifier {
	cfg := *b.cfg.Revocation.list
	if cfg.Verifier != nil || cfg.Issuer != "" || cfg.InsecureHTTP {
		b.wrong.Add("Revocation.StatusList", "Verifier, Issuer and InsecureHTTP are set by the profile")
	}
	cfg.Verifier, cfg.Issuer, cfg.Required = keys, b.cfg.Issuer, true
	if cfg.JWKSURL == "" && cfg.JWKS == nil {
		cfg.JWKSURL, cfg.JWKS = b.cfg.JWKSURL, b.cfg.JWKS
	}
	cfg.Algorithms = b.algorithms("Revocation.StatusList.Algorithms", cfg.Algorithms)
	if cfg.Client == nil {
		cfg.Client = b.cfg.Client
	}
	cfg.Logger, cfg.Observer = cmp.Or(cfg.Logger, b.cfg.Guard.Logger), cmp.Or(cfg.Observer, b.cfg.Guard.Observer)
	v, err := statuslist.New(cfg)
	b.wrong.Within("Revocation.StatusList", err)
	if err != nil {
		return nil
	}
	b.close = append(b.close, v.Close)
	return v
}

// checkTLS sees to the TLS of requests to the issuer (section 5.2).
func (b *builder) checkTLS() {
	if b.cfg.Client == nil {
		t, usual := http.DefaultTransport.(*http.Transport)
		if !usual { // somebody has put one of his own in its place
			t = &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
		}
		t = t.Clone()
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites}
		t.MaxIdleConnsPerHost = 64
		b.cfg.Client = &http.Client{Transport: t}
		return
	}
	t, ok := b.cfg.Client.Transport.(*http.Transport)
	if !ok || t.TLSClientConfig == nil {
		return
	}
	if t.TLSClientConfig.InsecureSkipVerify {
		b.wrong.Add("Client", "InsecureSkipVerify: the issuer's certificate is verified (FAPI 2.0, section 5.2)")
	}
	if v := t.TLSClientConfig.MinVersion; v != 0 && v < tls.VersionTLS12 {
		b.wrong.Add("Client", "MinVersion: TLS 1.2 is the least (FAPI 2.0, section 5.2)")
	}
}

// suites are those of TLS 1.2 that section 5.2.2 of the profile permits. Those of TLS 1.3 all are.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
}

// ServerTLS sets version and cipher suites of a server as section 5.2 of the profile asks, and returns cfg. Nil: a new one.
func ServerTLS(cfg *tls.Config) *tls.Config {
	if cfg == nil {
		cfg = &tls.Config{}
	}
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS12)
	cfg.CipherSuites = slices.Clone(suites)
	return cfg
}
