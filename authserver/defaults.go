package authserver

import (
	"cmp"
	"crypto/x509"
	"encoding/base64"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// The methods below resolve the zero values of a Config. This is the only place that knows the defaults of this package.

const defaultPublish = 10 * time.Minute // the same as in package keys

func (cfg *Config) setDefaults() {
	cfg.Paths = cfg.Paths.WithDefaults()
	cfg.APIs = slices.Clone(cfg.APIs)
	for i, a := range cfg.APIs {
		cfg.APIs[i] = a.WithDefaults()
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
	l.LoginAddress = cmp.Or(l.LoginAddress, login.Rate{Burst: 100, Every: 2 * time.Second}) // the same as in package login
	l.DeviceCode = cmp.Or(l.DeviceCode, login.Rate{Burst: 10, Every: 30 * time.Second})
	l.Register = cmp.Or(l.Register, login.Rate{Burst: 20, Every: 5 * time.Minute})
	l.ClientDocuments = cmp.Or(l.ClientDocuments, login.Rate{Burst: 20, Every: 10 * time.Second})
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
		{"Limits.ClientDocuments", l.ClientDocuments},
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
	switch {
	case cfg.Login.on():
		return []UserType{{Type: cmp.Or(cfg.Login.UserType, "customer"), Login: elsewhere{}}}
	case len(cfg.UserTypes) == 0:
		return []UserType{{Type: "customer", Label: "Customer"}}
	default:
		return cfg.UserTypes
	}
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

func (cfg *Config) scopes() valetkey.Scopes {
	var all []string
	for _, a := range cfg.APIs {
		all = append(all, a.ScopeNames()...)
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

// algorithms returns the algorithms that the APIs need keys for, without duplicates.
func algorithms(apis []API) (algs []string) {
	for _, a := range apis {
		algs = append(algs, a.Algorithm)
	}
	slices.Sort(algs)
	return slices.Compact(algs)
}

// resolved returns a configured client with its defaults and the digest of its secret, and without what only the server sets.
func resolved(c Client) Client {
	r := c
	r.AuthMethod = cmp.Or(c.AuthMethod, "client_secret_basic")
	r.IssuedAt, r.Owner, r.Expires, r.Static, r.Version = time.Time{}, "", time.Time{}, false, 0
	r.Secret, r.SecretSHA256, r.SecretDigest, r.RegistrationDigest = "", "", nil, ""
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

func (cfg *Config) static() (all []Client) {
	for i := range cfg.Clients {
		all = append(all, resolved(cfg.Clients[i]))
	}
	return all
}

// authMethods returns the authentication methods that clients which the operator does not configure may have.
func (cfg *Config) authMethods() []string {
	methods := []string{"none", "client_secret_basic", "client_secret_post", "private_key_jwt"}
	if cfg.ClientCertificate != "" {
		methods = append(methods, "self_signed_tls_client_auth")
	}
	if cfg.ClientAuthorities != "" {
		methods = append(methods, "tls_client_auth")
	}
	return methods
}

// authorities returns the authorities of clients' certificates, or nil if there are none.
func (cfg *Config) authorities() *x509.CertPool {
	if cfg.ClientAuthorities == "" {
		return nil
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(cfg.ClientAuthorities)) // Validate has checked it
	return pool
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
