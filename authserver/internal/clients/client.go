// Package clients manages the clients: those in the configuration, which do not change, and those that were registered, which
// are in the store.
package clients

import (
	"crypto/subtle"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
)

// A Client is a registered application, or an API that introspects its tokens. Its members have the names of RFC 7591, section
// 2.
type Client struct {
	ID           string    `json:"client_id"`
	SecretDigest []string  `json:"secret_digest,omitempty"` // store.Digest of each valid secret; empty: a public client, or one with keys
	IssuedAt     time.Time `json:"issued_at"`
	Owner        string    `json:"owner,omitempty"` // the subject who registered it in the portal; empty: none
	Static       bool      `json:"-"`               // in the configuration
	PrivateUse   []string  `json:"-"`               // further schemes of its redirect URIs; see NewRegistry
	Expires      time.Time `json:"-"`               // when the registration expires if it remains unused, see Registry.Keep; zero: never

	Name         string   `json:"client_name,omitempty"`
	URI          string   `json:"client_uri,omitempty"`
	Native       bool     `json:"native,omitempty"` // application_type native: any port of a loopback redirect URI matches (RFC 8252, 7.3)
	RedirectURIs []string `json:"redirect_uris,omitempty"`
	GrantTypes   []string `json:"grant_types,omitempty"`
	AuthMethod   string   `json:"token_endpoint_auth_method,omitempty"`      // none, client_secret_basic (which allows post too), private_key_jwt, tls_client_auth ...
	AssertionAlg string   `json:"token_endpoint_auth_signing_alg,omitempty"` // of its assertions, for private_key_jwt; empty: any that its keys support
	JWKS         string   `json:"jwks,omitempty"`                            // a JWK Set, for private_key_jwt
	JWKSURL      string   `json:"jwks_uri,omitempty"`                        // to be fetched through KeySetClient only
	Scopes       []string `json:"scopes,omitempty"`                          // all scopes that it may request

	DefaultAPI     string        `json:"default_api,omitempty"` // the audience if it requests none
	Introspects    []string      `json:"introspects,omitempty"` // the audiences that it represents
	Trusted        bool          `json:"trusted,omitempty"`     // first-party: users are not asked for consent where it is Assured
	WithoutPKCE    bool          `json:"without_pkce,omitempty"`
	RequirePAR     bool          `json:"require_pushed_authorization_requests,omitempty"`
	DPoPBound      bool          `json:"dpop_bound_access_tokens,omitempty"`
	CertBound      bool          `json:"tls_client_certificate_bound_access_tokens,omitempty"`
	AccessLifetime time.Duration `json:"access_lifetime,omitempty"` // zero: the API's

	SoftwareID        string `json:"software_id,omitempty"`
	SoftwareVersion   string `json:"software_version,omitempty"`
	SoftwareStatement string `json:"software_statement,omitempty"` // as sent; its claims are in the fields above

	RegistrationDigest string `json:"registration_digest,omitempty"` // of the registration access token (RFC 7592)

	version int64 // of the record that was read; zero: not read
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
// redirect URIs lead. Other clients registered themselves (RFC 7591), with or without an initial access token, or were
// registered by a developer in the portal.
func (c *Client) Approved() bool { return c.Static || c.Owner == "" && c.RegistrationDigest == "" }

// HasSecret reports whether secret is one of the client's. It takes the same time for every secret.
func (c *Client) HasSecret(secret string) bool {
	has := 0
	for _, digest := range c.SecretDigest {
		has |= sameDigest(digest, secret)
	}
	return has == 1
}

// sameDigest returns 1 if digest is that of secret, and 0 otherwise.
func sameDigest(digest, secret string) int {
	return subtle.ConstantTimeCompare([]byte(digest), []byte(store.Digest(secret)))
}

// usesSecret reports whether clients with an authentication method have a secret.
func usesSecret(method string) bool {
	return method == "client_secret_basic" || method == "client_secret_post"
}
