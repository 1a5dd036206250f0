package introspect

import (
	"context"

	"github.com/valetkey/valetkey/internal/clientauth"
)

// Auth authenticates this resource server to an introspection endpoint, and to the token endpoint in package onbehalf. The zero
// value is invalid in a [Config]. Printing an Auth does not reveal the secret.
type Auth = clientauth.Auth

// BasicAuth returns the method client_secret_basic: id and secret are form-encoded and then sent by HTTP Basic (RFC 6749,
// section 2.3.1). For endpoints that do not decode them, see [RawBasicAuth].
func BasicAuth(id, secret string) Auth { return clientauth.Basic(id, secret) }

// RawBasicAuth sends id and secret by HTTP Basic as they are (RFC 7617), without the form-encoding of RFC 6749, section 2.3.1. It
// is for endpoints that do not decode them, such as Cloud Foundry UAA, HCL Domino and authorization servers built on the retired
// Spring Security OAuth. They report that the client is unknown or that its secret is wrong, because of a character other than
// letters, digits and "-._~". For all other IDs and secrets, RawBasicAuth and [BasicAuth] send the same. id must not contain a
// colon, and neither may contain a control character (RFC 7617, section 2).
func RawBasicAuth(id, secret string) Auth { return clientauth.RawBasic(id, secret) }

// PostAuth returns the method client_secret_post: id and secret are sent in the form (RFC 6749, section 2.3.1).
func PostAuth(id, secret string) Auth { return clientauth.Post(id, secret) }

// BearerAuth authenticates with an access token of this server, which token returns (RFC 7662, section 2.1). token is called
// for every request to the endpoint and must be safe for concurrent use. It should cache the access token until shortly
// before its expiry, and must not put it into an error.
func BearerAuth(token func(ctx context.Context) (string, error)) Auth {
	return clientauth.Bearer(token)
}

// PrivateKeyJWT returns the method private_key_jwt: each request carries a new assertion, signed with this server's private
// key (RFC 7523, section 2.2). The audience of the assertion is Config.Issuer or, if that is empty, the URL of the endpoint.
// jwk is a private JWK; alg may be empty if the JWK has one.
func PrivateKeyJWT(id string, jwk []byte, alg string) Auth {
	return clientauth.PrivateKeyJWT(id, jwk, alg)
}

// TLSAuth sends only the client ID. The certificate that Config.Client presents authenticates it (RFC 8705, section 2).
func TLSAuth(id string) Auth { return clientauth.TLS(id) }

// NoAuth sends no credentials, for an endpoint that requires none. RFC 7662, section 2.1, forbids such endpoints, since
// anyone can try out tokens there.
func NoAuth() Auth { return clientauth.None() }
