package authserver

import (
	"cmp"
	"encoding/base64"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/internal/pages"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// The methods below resolve the zero values of a Config. This is the only place that knows the defaults of this package.

const defaultPublish = 10 * time.Minute // the same as in package keys

func (cfg *Config) setDefaults() {
	p := &cfg.Paths
	for _, one := range p.named() {
		*one.field = cmp.Or(one.value, one.standard)
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	cfg.Audit = cmp.Or(cfg.Audit, cfg.Logger)
	cfg.Keys.Publish = cmp.Or(cfg.Keys.Publish, defaultPublish)
	cfg.Lifetimes.Refresh = cmp.Or(cfg.Lifetimes.Refresh, 30*24*time.Hour)
	cfg.InsecureUnsealed = cfg.InsecureUnsealed || cfg.Store == nil
	if cfg.Store == nil {
		cfg.Store = store.NewMemory(cfg.MaxTokens)
	}
	cfg.UserTypes = cfg.userTypes()
	l := &cfg.Limits
	l.DeviceCode = cmp.Or(l.DeviceCode, login.Rate{Burst: 10, Every: 30 * time.Second})
	l.Register = cmp.Or(l.Register, login.Rate{Burst: 20, Every: 5 * time.Minute})
}

// A namedPath is one of Paths.
type namedPath struct {
	name, value, standard string
	field                 *string
}

func (p *Paths) named() []namedPath {
	return []namedPath{
		{"Authorize", p.Authorize, "/oauth2/authorize", &p.Authorize},
		{"Token", p.Token, "/oauth2/token", &p.Token},
		{"Device", p.Device, "/oauth2/device_authorization", &p.Device},
		{"PAR", p.PAR, "/oauth2/par", &p.PAR},
		{"Introspect", p.Introspect, "/oauth2/introspect", &p.Introspect},
		{"Revoke", p.Revoke, "/oauth2/revoke", &p.Revoke},
		{"Register", p.Register, "/oauth2/register", &p.Register},
		{"Keys", p.Keys, "/oauth2/keys", &p.Keys},
	}
}

type namedRate struct {
	field string
	rate  login.Rate
}

// named returns the rates that are set.
func (l *Limits) named() []namedRate {
	all := []namedRate{
		{"Limits.LoginName", l.LoginName}, {"Limits.LoginAddress", l.LoginAddress}, {"Limits.ClientSecret", l.ClientSecret},
		{"Limits.Pushes", l.Pushes},
		{"Limits.DeviceCode", l.DeviceCode}, {"Limits.Register", l.Register},
	}
	return slices.DeleteFunc(all, func(r namedRate) bool { return r.rate == login.Rate{} })
}

// base returns the issuer as the prefix of endpoint URLs. path returns the path of the issuer.
func (cfg *Config) base() string { return strings.TrimSuffix(cfg.Issuer, "/") }

func (cfg *Config) path() string {
	u, err := url.Parse(cfg.Issuer)
	if err != nil {
		return "" // not a valid issuer
	}
	return strings.TrimSuffix(u.Path, "/")
}

func (cfg *Config) userTypes() []UserType {
	if len(cfg.UserTypes) == 0 {
		return []UserType{{Type: "customer", Label: "Customer"}}
	}
	return cfg.UserTypes
}

// subjectTypes returns the prefixes of user subjects, without the colon.
func (cfg *Config) subjectTypes() (all []string) {
	for _, t := range cfg.userTypes() {
		all = append(all, t.Type)
	}
	for _, t := range cfg.TrustedIssuers {
		all = append(all, t.SubjectType)
	}
	return all
}

// typeOf returns the type of a user, or "" if no type has its users in the database.
func (cfg *Config) typeOf(u User) string {
	for _, t := range cfg.userTypes() {
		if t.Login == nil && (u.Type == "" || u.Type == t.Type) {
			return t.Type
		}
	}
	return u.Type
}

// add returns the user in the form that a database accepts. The ID does not depend on the start time of the server.
func (u User) add() login.NewUser {
	return login.NewUser{
		Name: u.Name, Password: u.Password, Hash: u.Hash, ID: cmp.Or(u.ID, login.Fold(u.Name)), Display: u.Display, Scopes: u.Scopes,
	}
}

// scopes returns the names of the scopes.
func (a *API) scopes() []string {
	all := make([]string, len(a.Scopes))
	for i, s := range a.Scopes {
		all[i] = s.Name
	}
	return all
}

func (cfg *Config) scopes() valetkey.Scopes {
	var all []string
	for _, a := range cfg.APIs {
		all = append(all, a.scopes()...)
	}
	return valetkey.NewScopes(all...)
}

// registrable returns the scopes that clients may register for.
func (cfg *Config) registrable() []string {
	if len(cfg.Registration.Scopes) > 0 {
		return cfg.Registration.Scopes
	}
	return cfg.scopes().Slice()
}

var profiles = map[string]engine.Profile{
	"": engine.RFC9068, "rfc9068": engine.RFC9068, "user": engine.User, "permissions": engine.Permissions,
}

// engineAPIs returns the APIs of a valid Config for the engine. pageAPIs returns them for the pages.
func (cfg *Config) engineAPIs() (apis []engine.API) {
	for _, a := range cfg.APIs {
		apis = append(apis, engine.API{
			Audience: a.Audience, Scopes: a.scopes(), Opaque: a.Tokens == Opaque, Profile: profiles[a.Profile],
			Exchange: maps.Clone(a.Exchange), MayAct: a.MayAct,
			Algorithm: cmp.Or(a.Algorithm, "ES256"), Lifetime: cmp.Or(a.Lifetime, defaultLifetime),
		})
	}
	return apis
}

func (cfg *Config) pageAPIs() (apis []pages.API) {
	for _, a := range cfg.APIs {
		p := pages.API{Audience: a.Audience, Name: a.Name, Lifetime: cmp.Or(a.Lifetime, defaultLifetime)}
		for _, s := range a.Scopes {
			p.Scopes = append(p.Scopes, pages.Scope(s))
		}
		apis = append(apis, p)
	}
	return apis
}

// tryURL returns the URL where a trial token of an API is used, or "".
func (cfg *Config) tryURL(audience string) string {
	for _, a := range cfg.APIs {
		if a.Audience == audience {
			return a.TryURL
		}
	}
	return ""
}

// algorithms returns the algorithms that the APIs need keys for, without duplicates.
func algorithms(apis []engine.API) (algs []string) {
	for _, a := range apis {
		algs = append(algs, a.Algorithm)
	}
	slices.Sort(algs)
	return slices.Compact(algs)
}

// registered returns a configured client in the form that the registry uses.
func (c *Client) registered() *clients.Client {
	r := &clients.Client{
		ID: c.ID, AuthMethod: cmp.Or(c.AuthMethod, "client_secret_basic"), AssertionAlg: c.AssertionAlg,
		JWKS: c.JWKS, JWKSURL: c.JWKSURL, Name: c.Name, URI: c.URI, Native: c.Native,
		RedirectURIs: slices.Clone(c.RedirectURIs), GrantTypes: slices.Clone(c.GrantTypes), Scopes: slices.Clone(c.Scopes),
		DefaultAPI: c.DefaultAPI, Introspects: slices.Clone(c.Introspects), Trusted: c.Trusted, WithoutPKCE: c.WithoutPKCE,
		RequirePAR: c.RequirePAR, DPoPBound: c.DPoPBound, CertBound: c.CertBound, AccessLifetime: c.Lifetime,
	}
	switch {
	case r.GrantTypes != nil:
	case len(r.RedirectURIs) > 0:
		r.GrantTypes = []string{"authorization_code", "refresh_token"}
	case len(r.Scopes) > 0:
		r.GrantTypes = []string{"client_credentials"}
	}
	if c.Secret != "" {
		r.SecretDigest = []string{store.Digest(c.Secret)}
	}
	if c.SecretSHA256 != "" {
		r.SecretDigest = append(r.SecretDigest, digest(c.SecretSHA256))
	}
	return r
}

// digest converts a hexadecimal digest to a store.Digest.
func digest(hexadecimal string) string {
	raw, _ := digestOf(hexadecimal) // Validate has checked it
	return base64.RawURLEncoding.EncodeToString(raw)
}

func (cfg *Config) static() (all []clients.Client) {
	for i := range cfg.Clients {
		all = append(all, *cfg.Clients[i].registered())
	}
	return all
}

// grantTypes returns the grant types that the server offers.
func (cfg *Config) grantTypes() []string {
	all := []string{
		"authorization_code", "refresh_token", "client_credentials",
		"urn:ietf:params:oauth:grant-type:device_code", "urn:ietf:params:oauth:grant-type:token-exchange",
	}
	if len(cfg.TrustedIssuers) > 0 {
		all = append(all, "urn:ietf:params:oauth:grant-type:jwt-bearer")
	}
	if cfg.Legacy.Implicit {
		all = append(all, "implicit")
	}
	if cfg.Legacy.Password {
		all = append(all, "password")
	}
	return all
}

func (cfg *Config) trustedIssuers() (all []engine.TrustedIssuer) {
	for _, t := range cfg.TrustedIssuers {
		one := engine.TrustedIssuer{Issuer: t.Issuer, JWKSURL: t.JWKSURL, SubjectType: t.SubjectType, Scopes: slices.Clone(t.Scopes)}
		if t.JWKS != "" {
			one.JWKS = []byte(t.JWKS)
		}
		all = append(all, one)
	}
	return all
}

// warn logs settings that are allowed but not recommended. The engine logs legacy grants.
func (cfg *Config) warn() {
	warn := func(is bool, what, why string) {
		if is {
			cfg.Logger.Warn(what, "why", why)
		}
	}
	warn(cfg.InsecureHTTP, "insecure_http is set", "secrets and tokens cross the network in clear text")
	for _, c := range cfg.Clients {
		warn(c.WithoutPKCE, "a client does not require PKCE: "+c.ID, "anyone who obtains one of its codes can redeem it")
	}
}
