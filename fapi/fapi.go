// Package fapi builds a guard that is a resource server of the FAPI 2.0 Security Profile. It sets every option as the profile
// requires, and rejects a configuration that contradicts the profile.
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
// Section 5.3.4 of the profile requires tokens to be sent only in the header, sender-constrained, fully verified and not
// revoked. Section 5.4 requires PS256, ES256 or EdDSA. The TLS settings of the server are configured where it listens; see
// [ServerTLS].
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
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/statuslist"
)

// algorithms returns the signature algorithms of the profile (section 5.4). EdDSA has two names.
func algorithms() []string { return []string{"PS256", "ES256", "EdDSA", "Ed25519"} }

// Config configures a [Guard]. Issuer, Audience, Revocation, and DPoP or Guard.ClientCertificate are required.
type Config struct {
	_ struct{} // keyed literals only

	// Issuer is the expected iss of the tokens: an https URL, compared byte by byte. Required.
	Issuer string

	// Audience lists the names of this resource server, compared as those of [jwks.Config]. Required.
	Audience []string

	// SoleAudience, Clients and Rules restrict the tokens further, as those of [jwks.Config]. Opaque tokens cannot be restricted so.
	SoleAudience bool
	Clients      []string
	Rules        []claims.Rule

	// JWKSURL is the URL of the issuer's key set. JWKS is a key set to use without any network access. At most one may be
	// set; if neither is, the URL comes from the issuer's metadata.
	JWKSURL string
	JWKS    []byte

	// Algorithms lists the accepted signature algorithms of tokens: a subset of PS256, ES256, EdDSA and Ed25519. Nil: all of
	// them.
	Algorithms []string

	// Revocation is how the guard detects revoked tokens. Required: [Introspection], [OpaqueTokens], [StatusList] or
	// [ShortLived].
	Revocation Revocation

	// DPoP accepts tokens that are bound to a key. Its Algorithms must be a subset of PS256, ES256, EdDSA and Ed25519; nil:
	// all of them. Nil: such tokens are refused.
	DPoP *dpop.Config

	// RequireNonce makes DPoP.Nonces mandatory, so that proofs cannot be made in advance (RFC 9449, sections 9 and 11.2). Every
	// proof then contains a nonce of the server. Each proof is accepted once, with or without RequireNonce.
	RequireNonce bool

	// Client sends the requests to the issuer. Nil: a client with TLS 1.2 or later and the cipher suites of BCP 195.
	Client *http.Client

	// Guard is the rest of the guard's configuration: ClientCertificate, Proxies, Resource, Cache and so on. Issuer, Audience,
	// Verifier, DPoP and Methods are set by the profile and must be zero.
	Guard middleware.Config
}

// Guard is a [middleware.Guard] that follows the profile. It must be closed.
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

// New returns a Guard. It does no I/O. The error lists every mistake in cfg and everything in it that contradicts the
// profile.
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

// A builder assembles a guard. It continues after a mistake, so that all mistakes are reported.
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
	if own.Issuer != "" || own.Audience != nil {
		b.wrong.Add("Guard.Issuer, Guard.Audience", "set Issuer and Audience instead, for which the profile makes the verifier")
	}
	own.Issuer, own.Audience = "", nil
	if own.DPoP != nil {
		b.wrong.Add("Guard.DPoP", "is made by the profile, of DPoP")
	}
	// Section 5.3.4, 2: "shall not accept access tokens in the query parameters"; and no other place but the header.
	if len(own.Methods) > 0 {
		b.wrong.Add("Guard.Methods", "tokens come in the Authorization header only (FAPI 2.0, section 5.3.4)")
	}
	own.Methods = nil
	if own.InsecureReportOnly {
		b.wrong.Add("Guard.InsecureReportOnly", "a guard that enforces nothing does not follow the profile")
	}
	// 5: "shall support and verify sender-constrained access tokens".
	own.SenderConstrained = true
	if cfg.DPoP == nil && own.ClientCertificate.IsZero() {
		b.wrong.Add("DPoP, Guard.ClientCertificate", "one of them is required (FAPI 2.0, section 5.3.4)")
	}
	own.DPoP = b.proofs()
	if own.DPoP == nil && own.ClientCertificate.IsZero() {
		own.SenderConstrained = false // the mistake in DPoP is already reported
	}
	own.Verifier = b.verifier()
	if b.wrong.Err() != nil {
		own.Verifier = valetkey.First() // a placeholder, so that mistakes in the rest are reported too
	}
	g, err := middleware.New(own)
	b.wrong.Within("Guard", err)
	return g
}

func (b *builder) proofs() *dpop.Verifier {
	if b.cfg.DPoP == nil {
		if b.cfg.RequireNonce {
			b.wrong.Add("RequireNonce", "DPoP is required")
		}
		return nil
	}
	cfg := *b.cfg.DPoP
	cfg.Algorithms = b.algorithms("DPoP.Algorithms", cfg.Algorithms)
	if _, off := cfg.ReplayStore.(dpop.InsecureAllowReplays); off {
		b.wrong.Add("DPoP.ReplayStore", "a proof is good once")
	}
	if b.cfg.RequireNonce && cfg.Nonces == nil {
		b.wrong.Add("DPoP.Nonces", "required with RequireNonce")
	}
	v, err := dpop.New(cfg)
	b.wrong.Within("DPoP", err)
	return v
}

// algorithms returns the configured algorithms or, if there are none, all algorithms of the profile.
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
		if b.cfg.SoleAudience || b.cfg.Clients != nil || b.cfg.Rules != nil {
			b.wrong.Add("SoleAudience, Clients, Rules", "opaque tokens cannot be restricted")
		}
		return b.introspection()
	}
	if r.name == "ShortLived" && (r.lifetime <= 0 || r.lifetime > maxShortLived) {
		b.wrong.Add("Revocation.ShortLived", "%v is not within 0 and %v", r.lifetime, maxShortLived)
		r.lifetime = 0
	}
	keys, err := jwks.New(jwks.Config{
		Issuer: b.cfg.Issuer, Audience: b.cfg.Audience, JWKSURL: b.cfg.JWKSURL, JWKS: b.cfg.JWKS, Client: b.cfg.Client,
		Algorithms:   b.algorithms("Algorithms", b.cfg.Algorithms),
		SoleAudience: b.cfg.SoleAudience, Clients: b.cfg.Clients, Rules: b.cfg.Rules,
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

// Revocation is the way in which a guard detects that a token was revoked before it expires (section 5.3.4, 3). The zero
// value is invalid: use [Introspection], [OpaqueTokens], [StatusList] or [ShortLived].
type Revocation struct {
	name       string
	introspect *introspect.Config
	opaque     bool
	list       *statuslist.Config
	lifetime   time.Duration
}

// Introspection asks the issuer about every JWT that was verified locally (RFC 7662), and again after CacheTTL. Where cfg
// does not set the issuer, audience, client and clock, those of [Config] apply.
func Introspection(cfg introspect.Config) Revocation {
	return Revocation{name: "Introspection", introspect: &cfg}
}

// OpaqueTokens asks the issuer about every token and relies on its response alone. It is for issuers whose tokens are not
// JWTs.
func OpaqueTokens(cfg introspect.Config) Revocation {
	return Revocation{name: "OpaqueTokens", introspect: &cfg, opaque: true}
}

// StatusList refuses tokens that are revoked in the issuer's status list, and tokens that refer to no list. Verifier, Issuer
// and InsecureHTTP of cfg must be zero.
func StatusList(cfg statuslist.Config) Revocation {
	return Revocation{name: "StatusList", list: &cfg}
}

// maxShortLived is the longest lifetime that is accepted in place of a check for revocation.
const maxShortLived = 10 * time.Minute

// ShortLived relies on the short lifetime of tokens: at most max from iat to exp, with a max of at most 10 min. A revoked
// token is accepted until it expires. Use it only as a deliberate decision, for an issuer that offers nothing better.
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

// checkTLS checks the TLS settings of requests to the issuer (section 5.2), and provides the default client.
func (b *builder) checkTLS() {
	if b.cfg.Client == nil {
		t, usual := http.DefaultTransport.(*http.Transport)
		if !usual { // the application has replaced http.DefaultTransport
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

// suites lists the TLS 1.2 cipher suites that section 5.2.2 of the profile permits. It permits all suites of TLS 1.3.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
}

// ServerTLS sets the minimum version and the cipher suites of a server's configuration as section 5.2 of the profile
// requires, and returns cfg. If cfg is nil, it returns a new configuration.
func ServerTLS(cfg *tls.Config) *tls.Config {
	if cfg == nil {
		cfg = &tls.Config{}
	}
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS12)
	cfg.CipherSuites = slices.Clone(suites)
	return cfg
}
