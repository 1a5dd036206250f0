package authserver

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/config"
)

// Config says who issues which tokens to whom. See [LoadConfig] for the file, [Demo] for an example.
type Config struct {
	_ struct{} // keyed literals only

	// Issuer is the server's identifier and the URL that its endpoints are reached at: https, no query, no fragment.
	// Required. With http, its host must be a loopback one unless InsecureHTTP is set.
	Issuer string `yaml:"issuer"`

	// InsecureHTTP allows an http issuer that is not on loopback: secrets and tokens cross the network in clear text.
	InsecureHTTP bool `yaml:"insecure_http"`

	// Name is what pages call the server, Accent the colour of their buttons, such as #0b6b62. Empty: see the pages.
	Name   string `yaml:"name"`
	Accent string `yaml:"accent"`

	// Paths are where endpoints are, behind the path of the issuer.
	Paths Paths `yaml:"paths"`

	// APIs are the resource servers that tokens are issued for. At least one is required. Audiences and scopes are
	// unique among them, so that a scope means one thing.
	APIs []API `yaml:"apis"`

	// Clients are applications, and APIs that introspect their tokens. Others can be registered, see [Server.AddClient],
	// Portal and Registration; these cannot be changed while the server runs.
	Clients []Client `yaml:"clients"`

	// UserTypes are the kinds of people that log in. None: customers, of the database.
	UserTypes []UserType `yaml:"-"`

	// Users are people of the database who cannot be changed while the server runs. Others are in the store, see
	// [Server.Users]. A user who is removed here, or gets another password or hash, loses grants and sessions at the next start:
	// the store keeps a hash of each password to notice that. Replicas on one store need the same users.
	Users []User `yaml:"users"`

	// Portal is where developers register applications. The zero value: there is none.
	Portal Portal `yaml:"portal"`

	// Registration is that of clients by themselves (RFC 7591). The zero value: there is none.
	Registration Registration `yaml:"registration"`

	// TrustedIssuers make JWTs about users of theirs, with which clients get tokens (RFC 7523, section 2.1).
	TrustedIssuers []TrustedIssuer `yaml:"trusted_issuers"`

	// Legacy are grants that nobody should use any more.
	Legacy Legacy `yaml:"legacy"`

	// RequirePAR refuses authorization requests that were not pushed (RFC 9126, section 5), whatever the client says.
	RequirePAR bool `yaml:"require_pushed_authorization_requests"`

	Lifetimes Lifetimes `yaml:"lifetimes"`
	Keys      Keys      `yaml:"keys"`
	Limits    Limits    `yaml:"limits"`

	// Proxies are the addresses of the reverse proxies in front, which alone are believed what X-Forwarded-For says: whose
	// attempts are counted, and whom the audit log names, depends on it. They have to add to that header, or to set it.
	Proxies []netip.Prefix `yaml:"proxies"`

	// ClientCertificate is where the certificate is that a client has proven to hold, for tokens that are bound to it (RFC
	// 8705): "tls" for the TLS connection, whose tls.Config has to ask for one; Client-Cert, the header of RFC 9440; or another
	// header with PEM that is percent-encoded, as nginx has in $ssl_client_escaped_cert. Headers are the Proxies' to set, and to
	// remove from what clients send. Empty: there is none.
	ClientCertificate string `yaml:"client_certificate"`

	// DPoPNonce makes clients that want a token bound to a key put a nonce of the server into their proofs (RFC 9449, section 8),
	// so that no proof can be made in advance. Replicas have the same nonces if they have the same Seal.
	DPoPNonce bool `yaml:"dpop_nonce"`

	// Store keeps all that outlives a request; the caller closes it after [Server.Run] has returned. Nil: memory.
	Store store.Store `yaml:"-"`

	// MaxTokens bounds how many records of a kind, tokens for one, are kept if Store is nil: about 1.5 KiB for each. If
	// there are more, the oldest grants, tokens and sessions of the client that has most of them are forgotten, and such a
	// token becomes inactive: an API that verifies JWTs by their signature does not notice. What was used up (assertions, DPoP
	// proofs, refresh tokens) is never forgotten; with no room left for more, requests that would use up another get 503.
	// Zero: 100,000.
	MaxTokens int `yaml:"max_tokens"`

	// Seal is what signing keys are encrypted under in the Store: 32 random bytes or more. Required with a Store, unless
	// InsecureUnsealed is set. SealPrevious is the Seal before it, if that has been changed.
	Seal, SealPrevious []byte `yaml:"-"`

	// InsecureUnsealed allows signing keys in clear text in the Store: who reads it, or a copy of it, makes tokens.
	InsecureUnsealed bool `yaml:"insecure_unsealed"`

	// Logger is told of failures, never of a token or a secret. Nil: no log.
	Logger *slog.Logger `yaml:"-"`

	// Audit is told of every grant, refusal, consent, revocation, registration, log-in and key rotation, without secrets.
	// Nil: Logger.
	Audit *slog.Logger `yaml:"-"`

	// PublishRevocation makes the end of a user known to APIs that verify JWTs by themselves, such as Publish of a valetredis.Redis
	// that their guards watch, or Revoke of a guard. It is called by [Server.RevokeUser], [Server.SetPassword] and
	// [Server.RemoveUser], not when a user takes back one consent or a client revokes a token: a JWT then lasts until it expires.
	// The revocation has the user as its Subject, and as its Before the next whole second of this server's clock, since an iat has
	// whole seconds; those methods return after that second has begun, so that a user who logs in again is not affected. An error
	// becomes theirs, and they can be called again. Nil: no revocation is published.
	PublishRevocation func(ctx context.Context, r valetkey.Revocation) error `yaml:"-"`
}

// LoadConfig reads a YAML document with the fields of [Config], as their tags name them. name is that of its file, for errors;
// empty: it has none. UserTypes, Store, Seal, Logger and Audit cannot be given in a document. The reading is strict: an unknown
// field, a field given twice, an alias and a second document are mistakes. The error joins a [valetkey.ConfigError] for each
// mistake, those of [Config.Validate] among them, and its text has their lines; or the document is no YAML at all.
func LoadConfig(name string, r io.Reader) (Config, error) {
	var cfg Config
	if err := config.Read(name, r, &cfg, func(*config.Document) error { return cfg.Validate() }); err != nil {
		return Config{}, fmt.Errorf("authserver: read the configuration: %w", err)
	}
	return cfg, nil
}

// Paths are those of the endpoints, such as /oauth2/token. None of them lies below another one, or where pages are.
type Paths struct {
	Authorize  string `yaml:"authorize"`  // empty: /oauth2/authorize; /oauth2/code answers too
	Token      string `yaml:"token"`      // empty: /oauth2/token
	Device     string `yaml:"device"`     // empty: /oauth2/device_authorization
	PAR        string `yaml:"par"`        // empty: /oauth2/par
	Introspect string `yaml:"introspect"` // empty: /oauth2/introspect
	Revoke     string `yaml:"revoke"`     // empty: /oauth2/revoke
	Register   string `yaml:"register"`   // empty: /oauth2/register
	Keys       string `yaml:"keys"`       // empty: /oauth2/keys
}

// A Format is the kind of an API's tokens.
type Format string

// The formats. An empty one means JWT.
const (
	JWT    Format = "jwt"    // RFC 9068: the API verifies it by itself
	Opaque Format = "opaque" // the API has to introspect it
)

// An API is a resource server that tokens are issued for.
type API struct {
	// Audience is the aud of its tokens and the resource that clients name: an absolute URI without a fragment
	// (RFC 8707, section 2). Required.
	Audience string `yaml:"audience"`

	// Name is shown to people. Empty: the audience.
	Name string `yaml:"name"`

	// Scopes are the rights that the API knows, each with its description for people. At least one is required.
	Scopes map[string]string `yaml:"scopes"`

	// Tokens is [JWT], if empty, or [Opaque].
	Tokens Format `yaml:"tokens"`

	// Algorithm signs its JWTs: ES256, if empty, RS256 or EdDSA.
	Algorithm string `yaml:"algorithm"`

	// Lifetime is that of its tokens, in whole seconds: "10m" in a file. Zero: 10 minutes. At most 24 hours.
	Lifetime time.Duration `yaml:"lifetime"`

	// Profile is the shape of the claims of its JWTs, besides those of RFC 9068. Empty, or rfc9068: no more. user: user_id and
	// user_type, with scope as an array. permissions: the scopes in an array of that name, and azp, the client.
	Profile string `yaml:"profile"`

	// Exchange are the scopes of other APIs that a token with a scope of this one may be exchanged for (RFC 8693), by scope: for
	// an API that has been called and calls another one for the same user. Without it, no more is got than the token has.
	Exchange map[string][]string `yaml:"exchange"`

	// MayAct is the id of the only client that may exchange tokens for this API. Empty: any client with that grant type that
	// introspects for it, or which the token was issued to.
	MayAct string `yaml:"may_act"`

	// TryURL is a URL of it that the portal uses a trial token at, with GET. Empty: the developer is told how to.
	TryURL string `yaml:"try_url"`
}

// A Client is an application that is registered, or an API that introspects its tokens. Where RFC 7591, section 2 has a name
// for a member, files use it, but for those that begin with client_.
type Client struct {
	ID string `yaml:"id"` // required; not like the subject of a user: a type of users and a colon

	// Secret is the client's, 16 printable ASCII characters or more, and a random one: only its SHA-256 digest is kept,
	// which does not hide one that can be guessed. SecretSHA256 is that digest in hexadecimal, for a file that gives
	// nothing away. One of the two is required by an AuthMethod that is empty.
	Secret       string `yaml:"secret"`
	SecretSHA256 string `yaml:"secret_sha256"`

	// AuthMethod is how it authenticates: none for an application that cannot keep a secret, client_secret_basic,
	// client_secret_post, private_key_jwt with one of JWKS and JWKSURL. Empty: client_secret_basic, for which
	// client_secret_post may stand in.
	AuthMethod   string `yaml:"token_endpoint_auth_method"`
	AssertionAlg string `yaml:"token_endpoint_auth_signing_alg"` // empty: any that its keys fit
	JWKS         string `yaml:"jwks"`                            // a JWK Set, as text
	JWKSURL      string `yaml:"jwks_uri"`                        // https, at a public address

	Name         string   `yaml:"name"`
	URI          string   `yaml:"uri"`    // its website
	Native       bool     `yaml:"native"` // on the user's device: the port of a loopback redirect URI is free (RFC 8252, section 7.3)
	RedirectURIs []string `yaml:"redirect_uris"`

	// GrantTypes are those it may use. Nil: with RedirectURIs authorization_code and refresh_token; or else, with Scopes,
	// client_credentials.
	GrantTypes []string `yaml:"grant_types"`

	// Scopes are all that the client may ask for; it gets all of an API's if it asks for none. Empty: no tokens.
	Scopes []string `yaml:"scopes"`

	// DefaultAPI is the audience of the token if the client asks for neither a resource nor a scope. It is needed only
	// where Scopes are those of several APIs.
	DefaultAPI string `yaml:"default_api"`

	// Introspects are the audiences that the client answers for: it may introspect their tokens and no others.
	Introspects []string `yaml:"introspects"`

	// Trusted clients are ours: users are not asked for consent. It is a mistake with a redirect URI on loopback or of a
	// private-use scheme if the client does not authenticate, or has the grant type implicit: any application of the user's
	// machine could take its place (RFC 8252, section 8.6).
	Trusted bool `yaml:"trusted"`

	WithoutPKCE bool          `yaml:"without_pkce"` // for old clients only: a code that leaks can be used by others
	RequirePAR  bool          `yaml:"require_pushed_authorization_requests"`
	DPoPBound   bool          `yaml:"dpop_bound_access_tokens"`
	CertBound   bool          `yaml:"tls_client_certificate_bound_access_tokens"`
	Lifetime    time.Duration `yaml:"lifetime"` // of its tokens. Zero: the API's; at most 24 hours
}

// A UserType is people who log in in one way.
type UserType struct {
	Type  string // what subjects begin with: customer. 1 to 32 of a-z, 0-9, hyphen and underscore. Required
	Label string // as people call themselves. Empty: Type

	// Login knows them. Nil: the database, which is Users and those of the type in the store.
	Login login.Login
}

// A User is a person of the database.
type User struct {
	Name     string   `yaml:"name"`          // Required.
	Type     string   `yaml:"type"`          // empty: the first type whose people are of the database
	Password string   `yaml:"password"`      // 8 to 1,024 bytes; this
	Hash     string   `yaml:"password_hash"` // or this is required: argon2id in the PHC string format, or bcrypt
	ID       string   `yaml:"id"`            // the subject's part after the colon, which must not change. Empty: the name in lower case
	Display  string   `yaml:"display"`       // as pages call them. Empty: Name
	Scopes   []string `yaml:"scopes"`        // all that the user may allow an application. Nil: whatever the API has
}

// A Portal is where developers register applications and try them.
type Portal struct {
	Developers []string `yaml:"developers"` // the types of users who may; none: nobody
	Services   []string `yaml:"services"`   // those of them who may register services, which act without a user
}

// A Registration is how clients register themselves. The operator has not approved such a client, nor one of the [Portal], which
// is what its users read. An error that they have had no part in, as with prompt=none or a wrong response_type, is no redirect to
// it: a page names where it leads, and the user goes on or not (RFC 9700, section 4.11.2), unless they have allowed the client
// something before.
type Registration struct {
	// Open is registration by anybody, limited by address. What nobody then uses is dropped after UnusedFor. Zero: 24 h;
	// negative: never.
	Open      bool          `yaml:"open"`
	UnusedFor time.Duration `yaml:"unused_for"`

	// InitialTokens allow to register without being anybody.
	InitialTokens []InitialToken `yaml:"initial_tokens"`

	// Scopes are all that can be registered for. Nil: those of all APIs.
	Scopes []string `yaml:"scopes"`

	// GrantTypes can be registered for. Nil: authorization_code, refresh_token and the device grant, for which a user has to
	// agree.
	GrantTypes []string `yaml:"grant_types"`
}

func (r Registration) on() bool { return r.Open || len(r.InitialTokens) > 0 }

// An InitialToken allows to register clients (RFC 7591, section 1.2). It must be random.
type InitialToken struct {
	Name    string    `yaml:"name"`    // of whom it was given to, for the audit log
	SHA256  string    `yaml:"sha256"`  // in hexadecimal. Required
	Uses    int       `yaml:"uses"`    // zero: any number
	Expires time.Time `yaml:"expires"` // zero: never
}

// A TrustedIssuer makes JWTs about users.
type TrustedIssuer struct {
	Issuer      string   `yaml:"issuer"`       // iss, compared as it is. Required
	JWKS        string   `yaml:"jwks"`         // its JWK Set, as text; this
	JWKSURL     string   `yaml:"jwks_uri"`     // or this, https at a public address, is required
	SubjectType string   `yaml:"subject_type"` // a sub of bob becomes the subject partner:bob. No type of users; required
	Scopes      []string `yaml:"scopes"`       // all that clients may get by it. At least one is required
}

// Legacy are grants that RFC 9700 advises against. Each is for clients that have it among their GrantTypes.
type Legacy struct {
	Implicit bool `yaml:"implicit"` // RFC 6749, section 4.2: the token stands in a URL
	Password bool `yaml:"password"` // RFC 6749, section 4.3: the application learns the user's password
}

// Lifetimes are in whole seconds.
type Lifetimes struct {
	Code         time.Duration `yaml:"code"`          // of an authorization code. Zero: 60 s
	Interaction  time.Duration `yaml:"interaction"`   // of a request that waits for its user. Zero: 15 min
	Pushed       time.Duration `yaml:"pushed"`        // of a pushed request that nobody has used. Zero: 90 s
	Device       time.Duration `yaml:"device"`        // of a device's code. Zero: 10 min
	Refresh      time.Duration `yaml:"refresh"`       // of the right to renew access, from the user's consent on. Zero: 30 days
	RefreshGrace time.Duration `yaml:"refresh_grace"` // how long the refresh token before the last one still works. Zero: no time
	Session      time.Duration `yaml:"session"`       // how long people stay logged in. Zero: 12 h
}

// Keys are how signing keys change.
type Keys struct {
	// Rotate is how long a key signs. Zero: until [Server.RotateKeys] is called.
	Rotate time.Duration `yaml:"rotate"`

	// Publish is how long a key stands in the key set before it signs: as long as others may keep a set. Zero: 10 min.
	Publish time.Duration `yaml:"publish"`
}

// Limits are how often something may be tried. The zero value of each has a default.
type Limits struct {
	LoginName    login.Rate `yaml:"login_name"`    // log-ins with one name: 10 at once, then one a minute
	LoginAddress login.Rate `yaml:"login_address"` // log-ins from one address: 100 at once, then one in 2 s
	ClientSecret login.Rate `yaml:"client_secret"` // wrong secrets of one client from one address: 20 at once, then one in 3 s
	Pushes       login.Rate `yaml:"pushes"`        // requests for authorization that one client with a secret, or all others together, begin from one address: 300 at once, then 20 a second
	DeviceCode   login.Rate `yaml:"device_code"`   // codes of devices typed at one address: 10 at once, then one in 30 s
	Register     login.Rate `yaml:"register"`      // registrations of anybody from one address: 20 at once, then one in 5 min
}
