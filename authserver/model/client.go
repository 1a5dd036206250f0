package model

import (
	"crypto/subtle"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
)

// A Client is a registered application, or an API that introspects its tokens. Files use the member names of RFC 7591, section 2
// where there is one, except for those that begin with client_.
type Client struct {
	ID string `yaml:"id" json:"client_id"` // required; must not look like the subject of a user: a user type and a colon

	// Secret is the client secret: at least 16 printable ASCII characters. It must be random, because only its SHA-256 digest is
	// stored, which does not protect a secret that can be guessed. SecretSHA256 is that digest in hexadecimal, for files that
	// must not contain the secret. Exactly one of the two is required if AuthMethod is empty.
	Secret       string `yaml:"secret" json:"-"`
	SecretSHA256 string `yaml:"secret_sha256" json:"-"`

	// AuthMethod is the client authentication method: none for an application that cannot keep a secret, client_secret_basic,
	// client_secret_post, private_key_jwt or self_signed_tls_client_auth with either JWKS or JWKSURL, or tls_client_auth with one
	// of the subjects below. Empty: client_secret_basic. A client_secret_basic client may also use client_secret_post.
	AuthMethod   string `yaml:"token_endpoint_auth_method" json:"token_endpoint_auth_method,omitempty"`
	AssertionAlg string `yaml:"token_endpoint_auth_signing_alg" json:"token_endpoint_auth_signing_alg,omitempty"` // empty: any algorithm that its keys support
	JWKS         string `yaml:"jwks" json:"jwks,omitempty"`                                                       // a JWK Set, as text
	JWKSURL      string `yaml:"jwks_uri" json:"jwks_uri,omitempty"`                                               // https, at a public address

	// The subject of the client's certificate, for tls_client_auth (RFC 8705, section 2.1.2): exactly one. TLSSubjectDN is the
	// distinguished name (RFC 4514), such as CN=client,O=Example. The others are names of the extension subjectAltName, compared
	// exactly; a wildcard in the certificate matches nothing else.
	TLSSubjectDN string `yaml:"tls_client_auth_subject_dn" json:"tls_client_auth_subject_dn,omitempty"`
	TLSSANDNS    string `yaml:"tls_client_auth_san_dns" json:"tls_client_auth_san_dns,omitempty"`
	TLSSANURI    string `yaml:"tls_client_auth_san_uri" json:"tls_client_auth_san_uri,omitempty"`
	TLSSANIP     string `yaml:"tls_client_auth_san_ip" json:"tls_client_auth_san_ip,omitempty"`
	TLSSANEmail  string `yaml:"tls_client_auth_san_email" json:"tls_client_auth_san_email,omitempty"`

	Name         string   `yaml:"name" json:"client_name,omitempty"`
	URI          string   `yaml:"uri" json:"client_uri,omitempty"` // its website
	Native       bool     `yaml:"native" json:"native,omitempty"`  // runs on the user's device: any port of a loopback redirect URI matches (RFC 8252, section 7.3)
	RedirectURIs []string `yaml:"redirect_uris" json:"redirect_uris,omitempty"`

	// GrantTypes are the grant types that the client may use. Nil: authorization_code and refresh_token if it has RedirectURIs;
	// otherwise client_credentials if it has Scopes.
	GrantTypes []string `yaml:"grant_types" json:"grant_types,omitempty"`

	// Scopes are all scopes that the client may request. If it requests none, it gets all of its scopes at one API. Empty: the
	// client gets no tokens.
	Scopes []string `yaml:"scopes" json:"scopes,omitempty"`

	// DefaultAPI is the audience of a token if the client names no resource, and no scope or one of several APIs.
	DefaultAPI string `yaml:"default_api" json:"default_api,omitempty"`

	// LogoutURI receives a logout token when a session of a user at the client has ended (OpenID Connect Back-Channel Logout 1.0),
	// if the server transmits signals: https, with restrictions like those of a receiver of signals. With LogoutSession, each logout
	// token names one session by the sid of its access tokens; otherwise some mean all sessions of the user.
	LogoutURI     string `yaml:"backchannel_logout_uri" json:"backchannel_logout_uri,omitempty"`
	LogoutSession bool   `yaml:"backchannel_logout_session_required" json:"backchannel_logout_session_required,omitempty"`

	// Introspects are the audiences that the client represents. It may introspect their tokens and no others.
	Introspects []string `yaml:"introspects" json:"introspects,omitempty"`

	// Trusted marks a first-party client: users are not asked for consent. It is a mistake for a client that has a redirect URI
	// on loopback or with a private-use scheme and that does not authenticate or has the grant type implicit: any application on
	// the user's machine could impersonate it (RFC 8252, section 8.6).
	Trusted bool `yaml:"trusted" json:"trusted,omitempty"`

	WithoutPKCE bool          `yaml:"without_pkce" json:"without_pkce,omitempty"` // for old clients only: anyone who obtains a code can redeem it
	RequirePAR  bool          `yaml:"require_pushed_authorization_requests" json:"require_pushed_authorization_requests,omitempty"`
	DPoPBound   bool          `yaml:"dpop_bound_access_tokens" json:"dpop_bound_access_tokens,omitempty"`
	CertBound   bool          `yaml:"tls_client_certificate_bound_access_tokens" json:"tls_client_certificate_bound_access_tokens,omitempty"`
	Lifetime    time.Duration `yaml:"lifetime" json:"access_lifetime,omitempty"` // of its tokens, in whole seconds. Zero: the API's. At most 24 hours

	// The fields below are set by the server. It ignores them in a configuration and in a client that is added.

	IssuedAt time.Time `yaml:"-" json:"issued_at"`               // zero: it is in the configuration
	Owner    string    `yaml:"-" json:"owner,omitempty"`         // the subject of the developer who registered it in the portal; empty: none
	Expires  time.Time `yaml:"-" json:"-"`                       // when it is removed if it remains unused; zero: never
	Static   bool      `yaml:"-" json:"-"`                       // it is in the configuration
	Version  int64     `yaml:"-" json:"-"`                       // of the record that was read; zero: not read
	Document bool      `yaml:"-" json:"-"`                       // not registered: its metadata is in a document at its ID, which is a URL
	Initial  bool      `yaml:"-" json:"initial_token,omitempty"` // it was registered with an initial access token (RFC 7591)

	// PrivateUse are further schemes of its redirect URIs: those that the server accepts.
	PrivateUse []string `yaml:"-" json:"-"`

	SecretDigest       []string `yaml:"-" json:"secret_digest,omitempty"`       // the store.Digest of each valid secret
	RegistrationDigest string   `yaml:"-" json:"registration_digest,omitempty"` // of the registration access token (RFC 7592)

	SoftwareID        string `yaml:"-" json:"software_id,omitempty"`
	SoftwareVersion   string `yaml:"-" json:"software_version,omitempty"`
	SoftwareStatement string `yaml:"-" json:"software_statement,omitempty"` // as sent; its claims are in the fields above
}

// Public reports whether the client has no way to authenticate itself.
func (c *Client) Public() bool { return c.AuthMethod == "none" }

// Assured reports whether only the client can receive its tokens at the redirect URI: because only the client is reached there,
// over https, or because it must authenticate before it gets a token. Any application on a user's machine can listen on loopback
// or claim a private-use scheme (RFC 8252, section 8.6). implicit reports whether the token itself is sent there.
func (c *Client) Assured(redirectURI string, implicit bool) bool {
	return strings.HasPrefix(redirectURI, "https://") || !c.Public() && !implicit
}

// Approved reports whether the operator has added the client, in the configuration or with the command, and thus knows where its
// redirect URIs lead. Other clients registered themselves (RFC 7591), with or without an initial access token, were registered by
// a developer in the portal, or are not registered.
func (c *Client) Approved() bool {
	return c.Static || c.Owner == "" && c.RegistrationDigest == "" && !c.Document
}

// HasSecret reports whether secret is one of the client's. It takes the same time for every secret.
func (c *Client) HasSecret(secret string) bool {
	has := 0
	for _, digest := range c.SecretDigest {
		has |= subtle.ConstantTimeCompare([]byte(digest), []byte(store.Digest(secret)))
	}
	return has == 1
}
