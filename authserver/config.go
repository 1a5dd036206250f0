package authserver

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/config"
)

// Config specifies who issues which tokens to whom. [LoadConfig] reads it from a file, and [Demo] returns an example.
type Config struct {
	_ struct{} // keyed literals only

	// Issuer is the server's identifier and the base URL of its endpoints: https, without a query or a fragment. Required. With
	// http, the host must be a loopback host unless InsecureHTTP is set.
	Issuer string `yaml:"issuer"`

	// InsecureHTTP allows an http issuer that is not on loopback. Secrets and tokens then cross the network in clear text.
	InsecureHTTP bool `yaml:"insecure_http"`

	// Name is the name of the server on its pages. Accent is the color of their buttons, such as #0b6b62. If empty, the pages
	// use defaults.
	Name   string `yaml:"name"`
	Accent string `yaml:"accent"`

	// Logo is an image that the pages show in place of the Name, and Favicon is the icon of their windows: SVG, PNG, JPEG, WebP,
	// GIF or ICO, of at most 256 KiB. A file has their paths. If empty, the pages show the Name and an icon in the Accent color.
	Logo    []byte `yaml:"-"`
	Favicon []byte `yaml:"-"`

	// Links are at the foot of each page.
	Links Links `yaml:"links"`

	// Paths are the paths of the endpoints, below the path of the issuer.
	Paths Paths `yaml:"paths"`

	// APIs are the resource servers that tokens are issued for. At least one is required. Several may have a scope of the same
	// name: a client or a user that may have it may have it at each of them, and a token has it at the one that the token is for.
	APIs []API `yaml:"apis"`

	// DefaultAPI is the audience of a token if a request names no resource, several APIs have its scopes, and the client has no
	// DefaultAPI. Empty: such a request is refused.
	DefaultAPI string `yaml:"default_api"`

	// Clients are applications, and APIs that introspect their tokens. They are fixed for a [Server]; valetkey serve replaces the
	// server when it reloads its file. Others can be registered with [Server.AddClient], Portal and Registration.
	Clients []Client `yaml:"clients"`

	// UserTypes are the kinds of people who log in. If empty, there is one type: customers, in the database.
	UserTypes []UserType `yaml:"-"`

	// Users are people in the database who are fixed for a [Server]. Others are in the store; see [Server.Users]. A user who is
	// removed here, or whose password or hash is changed, loses all grants and sessions at the next start, or reload of valetkey
	// serve. To detect that, the store keeps a hash of each password. Replicas that share a store must have the same users.
	Users []User `yaml:"users"`

	// Login hands log-ins to a page of another party. The zero value: users log in at this server.
	Login Handoff `yaml:"login"`

	// Portal is where developers register applications. The zero value disables it.
	Portal Portal `yaml:"portal"`

	// Registration is dynamic client registration (RFC 7591). The zero value disables it.
	Registration Registration `yaml:"registration"`

	// PrivateUseSchemes are URI schemes without a period, such as cursor, that redirect URIs may have (RFC 8252, section 7.1). Any
	// application on the user's device can claim such a scheme and receive the authorization code; PKCE keeps it from redeeming
	// the code, but it can start its own flow in the client's name. If empty, a registration with such a redirect URI and
	// others is accepted without it. A scheme that is a reversed domain name need not be listed.
	PrivateUseSchemes []string `yaml:"private_use_schemes"`

	// ClientDocuments permits clients that are not registered. The zero value disables it.
	ClientDocuments ClientDocuments `yaml:"client_id_metadata_documents"`

	// TrustedIssuers issue JWTs about their own users, which clients exchange for tokens (RFC 7523, section 2.1).
	TrustedIssuers []TrustedIssuer `yaml:"trusted_issuers"`

	// Signals announces the end of access to other parties. The zero value disables it.
	Signals Signals `yaml:"signals"`

	// Legacy enables grants that are no longer recommended.
	Legacy Legacy `yaml:"legacy"`

	// RequirePAR refuses authorization requests that were not pushed (RFC 9126, section 5), regardless of the client's own
	// setting.
	RequirePAR bool `yaml:"require_pushed_authorization_requests"`

	Lifetimes Lifetimes `yaml:"lifetimes"`
	Keys      Keys      `yaml:"keys"`
	Limits    Limits    `yaml:"limits"`

	// Proxies are the addresses of the trusted reverse proxies. X-Forwarded-For is accepted only from them. It determines whose
	// attempts are counted and which address the audit log records. The proxies must append to that header or set it.
	Proxies []netip.Prefix `yaml:"proxies"`

	// ClientCertificate is the source of the certificate that a client has proven to possess, for certificate-bound tokens (RFC
	// 8705). "tls" is the TLS connection, whose tls.Config must request a certificate. Client-Cert is the header of RFC 9440.
	// Any other value is the name of a header that contains percent-encoded PEM, such as $ssl_client_escaped_cert of nginx.
	// Headers are accepted from the Proxies only, which must remove them from client requests. Empty: no certificates.
	ClientCertificate string `yaml:"client_certificate"`

	// ClientAuthorities are the authorities, in PEM, whose certificates authenticate clients with tls_client_auth (RFC 8705, section
	// 2.1): those that issue the certificates, whether or not they are roots, since only the certificate of the client itself is
	// read. The certificate must be valid now and may not exclude client authentication. Its revocation is not checked. Empty: the
	// method is not offered.
	ClientAuthorities string `yaml:"client_certificate_authorities"`

	// MTLSURL is the URL under which the same endpoints request a certificate, if it is not that of the issuer, whose browsers would
	// otherwise ask their users for one: the metadata names the endpoints there (RFC 8705, section 5). Assertions and DPoP proofs
	// name the endpoints at the issuer's URL. Empty: none.
	MTLSURL string `yaml:"mtls_url"`

	// DPoPNonce requires a server nonce in each DPoP proof for a bound token (RFC 9449, section 8), so that proofs cannot be
	// made in advance. Replicas accept each other's nonces if they have the same Seal.
	DPoPNonce bool `yaml:"dpop_nonce"`

	// Store keeps everything that outlives a request. The caller closes it after [Server.Run] has returned. Nil: memory.
	Store store.Store `yaml:"-"`

	// MaxTokens limits the number of records of each kind, such as tokens, if Store is nil. A record takes about 1.5 KiB. Above
	// the limit, the oldest grants, tokens and sessions of the client that has the most are dropped. A dropped token becomes
	// inactive, but an API that verifies JWTs by their signature does not notice. Used assertions, DPoP proofs and refresh
	// tokens are never dropped: if there is no room for more, requests that would use up another get 503. Zero: 100,000.
	MaxTokens int `yaml:"max_tokens"`

	// Seal is the key that encrypts signing keys in the Store: at least 32 random bytes. Required with a Store, unless
	// InsecureUnsealed is set. SealPrevious is the preceding Seal after a change.
	Seal, SealPrevious []byte `yaml:"-"`

	// InsecureUnsealed allows signing keys in clear text in the Store. Anyone who can read the Store, or a copy of it, can then
	// forge tokens.
	InsecureUnsealed bool `yaml:"insecure_unsealed"`

	// Logger receives failures. It never receives a token or a secret. Nil: no log.
	Logger *slog.Logger `yaml:"-"`

	// Audit receives every grant, refusal, consent, revocation, registration, log-in and key rotation, without secrets. Nil:
	// Logger.
	Audit *slog.Logger `yaml:"-"`

	// PublishRevocation announces the end of a user's access to APIs that verify JWTs locally. Use Publish of a valetredis.Redis
	// that their guards watch, or Revoke of a guard. [Server.RevokeUser], [Server.SetPassword] and [Server.RemoveUser] call it.
	// It is not called when a user revokes one consent or a client revokes a token; a JWT then remains valid until it expires, unless
	// its API receives Signals.
	// The Subject of the revocation is the user, and its Before is the next whole second of this server's clock, because iat has
	// whole seconds. Those methods return after that second has begun, so that a user who logs in again is not affected. They
	// return any error of PublishRevocation and can be called again. Nil: no revocation is published.
	PublishRevocation func(ctx context.Context, r valetkey.Revocation) error `yaml:"-"`
}

// LoadConfig reads a YAML document with the fields of [Config], named by their tags. name is the file name used in errors, or
// empty. UserTypes, Store, Seal, Logger and Audit cannot be given in a document. Parsing is strict: an unknown field, a
// duplicate field, an alias and a second document are mistakes. The error joins a [valetkey.ConfigError] for each mistake,
// including those of [Config.Validate], and its text includes line numbers. It contains no ConfigError if the document is not
// YAML.
func LoadConfig(name string, r io.Reader) (Config, error) {
	var cfg Config
	if err := config.Read(name, r, &cfg, func(*config.Document) error { return cfg.Validate() }); err != nil {
		return Config{}, fmt.Errorf("authserver: read the configuration: %w", err)
	}
	return cfg, nil
}

// Paths are the paths of the endpoints.
type Paths = model.Paths

// An API is a resource server that tokens are issued for.
type API = model.API

// A Scope is a right that users allow applications.
type Scope = model.Scope

// A DetailType is a type of authorization_details (RFC 9396).
type DetailType = model.DetailType

// A Format is the format of an API's tokens. A Profile selects claims of its JWTs.
type (
	Format  = model.Format
	Profile = model.Profile
)

// The token formats. Empty means JWT.
const (
	JWT    = model.JWT
	Opaque = model.Opaque
)

// A Client is a registered application, or an API that introspects its tokens.
type Client = model.Client

// Links are https or http URLs of pages about the server. Empty: no link.
type Links struct {
	Privacy string `yaml:"privacy"` // how the operator uses personal data
	Imprint string `yaml:"imprint"` // who the operator is
	Help    string `yaml:"help"`    // where users get help; may be a mailto URL
}

// A UserType is a group of people who log in the same way.
type UserType struct {
	Type  string // the prefix of subjects, such as customer: 1 to 32 of a-z, 0-9, hyphen and underscore. Required
	Label string // shown on the log-in page. Empty: Type

	// Login verifies these users. Nil: the database, which consists of Users and the users of this type in the store.
	Login login.Login
}

// A User is a person in the database.
type User struct {
	Name     string   `yaml:"name"`          // required
	Type     string   `yaml:"type"`          // empty: the first type whose users are in the database
	Password string   `yaml:"password"`      // 8 to 1,024 bytes. Either Password
	Hash     string   `yaml:"password_hash"` // or Hash is required: argon2id in the PHC string format, or bcrypt
	ID       string   `yaml:"id"`            // the part of the subject after the colon, which must not change. Empty: the name in lower case
	Display  string   `yaml:"display"`       // the name shown on pages. Empty: Name
	Scopes   []string `yaml:"scopes"`        // all scopes, and types of authorization_details, that the user may allow an application. Nil: all
}

// A Handoff hands log-ins to a page of another party, which may use passkeys, a second factor or an upstream provider, and may let
// users register or recover their accounts. This server redirects the browser there with a challenge. The page reads the challenge and
// answers it over the back channel with a JWT that it signs, and sends the browser back. docs/login.md describes the messages.
//
// The page is trusted: its answers identify the users. This server has no other record of them, so UserTypes, Users and the
// password grant cannot be combined with it. When a user leaves, the page has to refuse the log-in, and [Server.RevokeUser] ends the
// sessions and grants.
type Handoff struct {
	// Redirect is the URL of the page: https, or http on loopback. Its query is kept. Empty: no hand-off.
	Redirect string `yaml:"redirect"`

	// PublicKey contains the keys that verify the signatures of the page: PEM with one or more public keys or certificates, or a JWK
	// Set. Required. To change the key, configure the old and the new one for as long as the page may use either.
	PublicKey string `yaml:"public_key"`

	// UserType is the part of subjects before the colon. Empty: customer. Use another one than for users who have logged in to this
	// server, unless they are the same people with the same IDs.
	UserType string `yaml:"user_type"`

	// Logout is a URL of the page where the browser is sent after it has logged out here, so that the page can end its own session:
	// https, or http on loopback. Otherwise the next log-in may need no password. Empty: the browser stays here.
	Logout string `yaml:"logout"`

	// ACRValues are the authentication context class references that the page can answer with. An authorization request whose
	// acr_values contain none of them is refused without a log-in. Empty: none.
	ACRValues []string `yaml:"acr_values"`
}

func (h Handoff) on() bool { return h.Redirect != "" }

// A Portal is where developers register applications and try them out.
type Portal struct {
	Developers []string `yaml:"developers"` // the types of users who may use it. Empty: no portal
	Services   []string `yaml:"services"`   // those of Developers that may register services, which act without a user
}

// A Registration configures dynamic client registration. The operator has not approved a client that was registered this way or
// in the [Portal], and the pages tell its users so. An error that occurs before the user takes part, such as with prompt=none or
// a wrong response_type, is not redirected to the client. Instead, a page names the destination and the user decides whether to
// continue (RFC 9700, section 4.11.2), unless the user has allowed the client something before.
type Registration struct {
	// Open permits anyone to register a client, limited by address. A registered client that remains unused is removed after
	// UnusedFor. Zero: 24 h; negative: never.
	Open      bool          `yaml:"open"`
	UnusedFor time.Duration `yaml:"unused_for"`

	// InitialTokens permit registration without a user account.
	InitialTokens []InitialToken `yaml:"initial_tokens"`

	// Scopes are all scopes that can be registered for. Nil: the scopes of all APIs.
	Scopes []string `yaml:"scopes"`

	// GrantTypes are the grant types that can be registered for. Those by which a client gets tokens without the consent of a user, such
	// as client_credentials, can be registered for only with one of InitialTokens: with Open, anyone would have a token. Nil:
	// authorization_code, refresh_token and the device grant.
	GrantTypes []string `yaml:"grant_types"`

	// StatementIssuers issue software statements (RFC 7591, section 2.3): signed JWTs whose claims replace what the client itself
	// states. Empty: every statement is refused.
	StatementIssuers []StatementIssuer `yaml:"statement_issuers"`
}

// A StatementIssuer issues software statements.
type StatementIssuer struct {
	Issuer string `yaml:"issuer"` // the iss claim, compared exactly. Required
	JWKS   string `yaml:"jwks"`   // its JWK Set, as text. Required
}

func (r Registration) on() bool { return r.Open || len(r.InitialTokens) > 0 }

// ClientDocuments configures Client ID Metadata Documents (draft-ietf-oauth-client-id-metadata-document): a client ID that is an
// https URL identifies the client that is described there. MCP clients prefer this to registration. Scopes and GrantTypes of
// [Registration] apply to these clients, too, except that they get only grants that require the consent of a user, and what it states about clients that the operator has not approved.
//
// Documents are fetched from public addresses only, without redirects, within 5 s, up to 16 KiB, and kept in memory for 5 minutes
// to 24 hours, as their response states, otherwise for an hour. At most 1,000 are held. A client in use keeps the last document
// for another 24 hours while its host fails. Limits.ClientDocuments bounds the fetches that one address causes.
type ClientDocuments struct {
	Enabled bool     `yaml:"enabled"`
	Hosts   []string `yaml:"hosts"` // hosts that may serve documents, such as claude.ai, compared exactly. Empty: all

	// InsecureHTTP fetches the documents instead of a client that connects to public addresses only. It is for tests: otherwise
	// anyone could make the server send requests into its own network. Nil: not used.
	InsecureHTTP *http.Client `yaml:"-"`
}

// An InitialToken permits the registration of clients (RFC 7591, section 1.2). The token must be random.
type InitialToken struct {
	Name    string    `yaml:"name"`    // the recipient, for the audit log
	SHA256  string    `yaml:"sha256"`  // the digest of the token in hexadecimal. Required
	Uses    int       `yaml:"uses"`    // the number of registrations. Zero: unlimited
	Expires time.Time `yaml:"expires"` // zero: never
}

// A TrustedIssuer issues JWTs about its own users.
type TrustedIssuer = model.TrustedIssuer

// A GrantProfile is a kind of JWT that a [TrustedIssuer] issues.
type GrantProfile = model.GrantProfile

// IDJAG is the Identity Assertion JWT Authorization Grant (draft-ietf-oauth-identity-assertion-authz-grant).
const IDJAG = model.IDJAG

// Legacy enables grants that RFC 9700 advises against. Each applies only to clients that have it in their GrantTypes.
type Legacy struct {
	Implicit bool `yaml:"implicit"` // RFC 6749, section 4.2: exposes the token in a URL
	Password bool `yaml:"password"` // RFC 6749, section 4.3: discloses the user's password to the application
}

// Lifetimes are in whole seconds.
type Lifetimes struct {
	Code         time.Duration `yaml:"code"`          // of an authorization code. Zero: 60 s
	Interaction  time.Duration `yaml:"interaction"`   // of a request that waits for its user. Zero: 15 min
	Pushed       time.Duration `yaml:"pushed"`        // of an unused pushed authorization request. Zero: 90 s
	Device       time.Duration `yaml:"device"`        // of a device code. Zero: 10 min
	Refresh      time.Duration `yaml:"refresh"`       // of the ability to renew access, counted from the user's consent. Zero: 30 days
	RefreshGrace time.Duration `yaml:"refresh_grace"` // how long the preceding refresh token remains usable. Zero: not at all
	Session      time.Duration `yaml:"session"`       // of a browser session. Zero: 12 h
}

// Keys configures the rotation of signing keys.
type Keys struct {
	// Rotate is how long a key signs. Zero: until [Server.RotateKeys] is called.
	Rotate time.Duration `yaml:"rotate"`

	// Publish is how long a key is in the key set before it signs. It must be as long as verifiers may cache the key set. Zero:
	// 10 min.
	Publish time.Duration `yaml:"publish"`
}

// Limits are rate limits for attempts. The zero value of each means its default.
type Limits struct {
	LoginName    login.Rate `yaml:"login_name"`    // log-ins with one name. Zero: 10 at once, then one a minute
	LoginAddress login.Rate `yaml:"login_address"` // log-ins from one address. Zero: 100 at once, then one in 2 s
	ClientSecret login.Rate `yaml:"client_secret"` // wrong secrets of one client from one address. Zero: 20 at once, then one in 3 s
	// Pushes limits the authorization requests begun from one address by one client with a secret, or by all other clients
	// together. Zero: 300 at once, then 20 a second.
	Pushes     login.Rate `yaml:"pushes"`
	DeviceCode login.Rate `yaml:"device_code"` // device codes entered from one address. Zero: 10 at once, then one in 30 s
	Register   login.Rate `yaml:"register"`    // open registrations from one address. Zero: 20 at once, then one in 5 min

	// ClientDocuments limits the metadata documents of clients that requests from one address cause to be fetched. Zero: 20 at
	// once, then one in 10 s.
	ClientDocuments login.Rate `yaml:"client_id_metadata_documents"`
}
