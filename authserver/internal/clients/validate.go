package clients

import (
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/scopes"
)

// The error codes of RFC 7591, section 3.2.2.
const (
	InvalidRedirectURI  = "invalid_redirect_uri"
	InvalidMetadata     = "invalid_client_metadata"
	InvalidStatement    = "invalid_software_statement"
	UnapprovedStatement = "unapproved_software_statement"
)

// An Invalid reports why a client cannot be registered. It quotes nothing that was sent.
type Invalid struct {
	Code    string
	Member  string // of RFC 7591; "": none in particular
	Index   int    // of the element of Member, counted from 1; zero: the member as a whole
	Problem string // continues the name of the member: "is too long"
}

func (e *Invalid) Error() string { return e.Code + ": " + e.Description() }

// Description returns the error_description (RFC 7591, section 3.2.2).
func (e *Invalid) Description() string {
	switch {
	case e.Member == "":
		return e.Problem
	case e.Index > 0:
		return e.Member + ": one " + e.Problem
	}
	return e.Member + ": " + e.Problem
}

// The limits of registered metadata.
const (
	maxName      = 100 // characters
	maxURI       = 2000
	maxRedirects = 20
	maxScopes    = 100
	maxKeySet    = 32 << 10
)

// The grants that a client may be registered for, whether or not the server offers them.
const (
	authorizationCode = "authorization_code"
	implicit          = "implicit"
	clientCredentials = "client_credentials"
)

var grantTypes = []string{
	authorizationCode, implicit, clientCredentials, "password", "refresh_token",
	"urn:ietf:params:oauth:grant-type:device_code",
	"urn:ietf:params:oauth:grant-type:token-exchange",
	"urn:ietf:params:oauth:grant-type:jwt-bearer",
}

// withConsent are the grant types that require the consent of a user, and refresh_token, which follows it.
var withConsent = []string{authorizationCode, "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"}

// RequiresConsent reports whether a client gets tokens by a grant type only after a user has allowed it. A stranger may register for these
// only: with others, such as client_credentials, anyone would have a token of the APIs.
func RequiresConsent(grantType string) bool {
	return grantType == implicit || slices.Contains(withConsent, grantType)
}

func requiringConsent(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(g string) bool { return !RequiresConsent(g) })
}

var authMethods = []string{"none", "client_secret_basic", "client_secret_post", "private_key_jwt", "self_signed_tls_client_auth", tlsClientAuth}

// Validate returns the mistakes in a client's metadata: several joined [*Invalid], each with the name of the member in RFC
// 7591. Redirect URIs come first.
func Validate(c *Client) error {
	var errs []error
	refuse := func(code, member, why string) {
		errs = append(errs, &Invalid{Code: code, Member: member, Problem: why})
	}
	wrong := func(is bool, member, why string) {
		if is {
			refuse(InvalidMetadata, member, why)
		}
	}

	if len(c.RedirectURIs) > maxRedirects {
		refuse(InvalidRedirectURI, "redirect_uris", "are too many")
	}
	for i, uri := range c.RedirectURIs {
		if err := ValidRedirectURI(uri, c.Native, c.PrivateUse...); err != nil {
			errs = append(errs, &Invalid{InvalidRedirectURI, "redirect_uris", i + 1, err.Error()})
		}
	}
	// RFC 7591, section 2: "Clients using flows with redirection MUST register their redirection URI values."
	if len(c.RedirectURIs) == 0 && (has(c, authorizationCode) || has(c, implicit)) {
		refuse(InvalidRedirectURI, "redirect_uris", "are required by the grant")
	}

	wrong(!isText(c.Name), "client_name", "is too long or not printable")
	wrong(c.URI != "" && !isWebsite(c.URI), "client_uri", "is not the https or http URL of a website")
	wrong(!isText(c.SoftwareID), "software_id", "is too long or not printable")
	wrong(!isText(c.SoftwareVersion), "software_version", "is too long or not printable")
	wrong(len(c.SoftwareStatement) > jose.MaxToken, "software_statement", "is too long")
	wrong(unknown(c.GrantTypes, grantTypes), "grant_types", "one is not known")
	wrong(unknown([]string{c.AuthMethod}, authMethods), "token_endpoint_auth_method", "is not known")
	// RFC 6749, section 4.4.
	wrong(c.Public() && has(c, clientCredentials), "token_endpoint_auth_method", "none cannot be combined with client_credentials")
	wrong(c.AssertionAlg != "" && unknown([]string{c.AssertionAlg}, jose.Algorithms()), "token_endpoint_auth_signing_alg", "is not known")
	wrong(c.Trusted && slices.ContainsFunc(c.RedirectURIs, func(uri string) bool { return !c.Assured(uri, has(c, implicit)) }), "trusted",
		"any application on the user's machine could impersonate this client and get tokens without consent (RFC 8252, section 8.6): "+
			"remove trusted, let the client authenticate, or use https redirect URIs only")
	wrong(c.Lifetime < 0, "access_lifetime", "is negative")

	wrong(len(c.Scopes) > maxScopes, "scope", "has too many scopes")
	wrong(slices.ContainsFunc(c.Scopes, func(s string) bool { return scopes.Validate(s) != nil }), "scope", "has an invalid scope")

	// RFC 7591, section 2: "The "jwks_uri" and "jwks" parameters MUST NOT both be present".
	wrong(c.JWKS != "" && c.JWKSURL != "", "jwks", "and jwks_uri cannot be combined")
	wrong(c.JWKSURL != "" && !isKeySetURL(c.JWKSURL), "jwks_uri", "is not an https URL")
	if c.JWKS != "" {
		if err := validKeySet(c.JWKS); err != nil {
			refuse(InvalidMetadata, "jwks", err.Error())
		}
	}
	wrong(c.LogoutURI != "" && !isLogoutURI(c.LogoutURI), "backchannel_logout_uri", "is neither https with a host nor http to loopback, without a fragment")
	wrong(c.LogoutSession && c.LogoutURI == "", "backchannel_logout_session_required", "requires backchannel_logout_uri")
	validateSubject(c, refuse)
	needsKeys := c.AuthMethod == "private_key_jwt" || c.AuthMethod == "self_signed_tls_client_auth"
	wrong(needsKeys && c.JWKS == "" && c.JWKSURL == "", "jwks", "or jwks_uri is required by the authentication method")
	// RFC 8705, section 2.2: the certificates are those of the keys.
	wrong(c.AuthMethod == "self_signed_tls_client_auth" && c.JWKS != "" && !hasCertificates(c.JWKS), "jwks", "has a key without x5c")
	return errors.Join(errs...)
}

func unknown(list, known []string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return !slices.Contains(known, s) })
}

// isText reports whether s can be displayed as it is: it has no control characters, including those that change the text
// direction.
func isText(s string) bool {
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= maxName && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func isWebsite(uri string) bool {
	u, err := webURI(uri)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != ""
}

func isKeySetURL(uri string) bool {
	u, err := webURI(uri)
	return err == nil && u.Scheme == "https" && u.Hostname() != "" && u.Fragment == ""
}

// isLogoutURI reports whether uri can receive logout tokens (OpenID Connect Back-Channel Logout 1.0, section 2.2). Whether the server
// connects to its address is checked when a token is sent.
func isLogoutURI(uri string) bool {
	u, err := webURI(uri)
	return err == nil && !strings.Contains(uri, "#") && u.Hostname() != "" && (u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()))
}

// validKeySet accepts a set of public keys only, at least one of which is usable.
func validKeySet(set string) error {
	if len(set) > maxKeySet {
		return errors.New("is too long")
	}
	_, dropped, err := keyset.Parse([]byte(set), keyset.MaxForeignKeys)
	switch {
	case slices.ContainsFunc(dropped, keyset.Dropped.Forbidden): // a client must not disclose private keys
		return errors.New("has a key that is private, shared, or one too many")
	case err != nil:
		return errors.New("is not a JWK Set with a public key that can be used")
	}
	return nil
}

// hasCertificates reports whether each key of a valid set has its certificate.
func hasCertificates(set string) bool {
	var keys []strictjson.Value
	err := strictjson.Object([]byte(set), func(name string, v strictjson.Value) error {
		if name == "keys" {
			keys, _ = v.Elements()
		}
		return nil
	})
	return err == nil && !slices.ContainsFunc(keys, func(key strictjson.Value) bool {
		has := false
		err := strictjson.Object(key, func(name string, v strictjson.Value) error {
			chain, ok := v.Strings()
			has = has || name == "x5c" && ok && len(chain) > 0
			return nil
		})
		return err != nil || !has
	})
}
