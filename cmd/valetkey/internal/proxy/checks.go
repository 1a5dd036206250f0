package proxy

import (
	"slices"

	"github.com/valetkey/valetkey/internal/claims"
)

// A check is one that a request has to pass, and what is said if it does not.
type check struct {
	name     string
	section  string
	refusals []string // descriptions of a valetkey.Error
}

func (c check) refuses(description string) bool { return slices.Contains(c.refusals, description) }

const noIssuer = "no trusted issuer vouches for the token"

// The checks, in the order in which they are made.
var (
	pathChecks = []check{
		{"its path can be read in one way only", "RFC 9110, section 4.2.3; RFC 3986, section 6.2", []string{
			"CONNECT is not served", "the target is not a path", "the path holds a backslash", "the path holds a control character",
			"the path holds a dot segment with a parameter", "the path reads differently once it is decoded"}},
		{"it carries one token", "RFC 6750, section 2", []string{
			"the request carries more than one access token", "the request carries more than one Authorization header",
			"the access token is empty", "the token is too long", "the access token holds a character that none may hold"}},
	}

	// of a JWT that is verified with the keys of its issuer: jwks
	jwtChecks = []check{
		{"the token is a signed JWT", "RFC 7515, section 5.2; RFC 7519, section 7.2", []string{"the token is not a JWT", "the token is malformed"}},
		{"its issuer is trusted", "RFC 9068, section 4", []string{"the token is of another issuer", noIssuer}},
		{"it is an access token", "RFC 9068, section 4; RFC 8725, section 3.11", []string{"the token is not an access token"}},
		{"its algorithm is allowed", "RFC 8725, section 3.1", []string{"the signature algorithm of the token is not allowed"}},
		{"it names its key", "RFC 7515, section 4.1.4", []string{"the token names no key"}},
		{"its claims are there and well-formed", "RFC 9068, section 2.2", []string{"a claim of the token is missing or malformed"}},
		{"it is for this API", "RFC 9068, section 4; RFC 9700, section 2.3", []string{"the token is for another audience"}},
		{"it is good at this time", "RFC 7519, sections 4.1.4 and 4.1.5", []string{
			"the token has expired", "the token is not yet valid", "the token lives too long", claims.FarAhead}},
		{"its signature is of a key of its issuer", "RFC 7515, section 5.2; RFC 9068, section 4", []string{
			"the signature of the token is wrong", "the key of the token is unknown"}},
	}

	statusChecks = []check{
		{"its status list calls it good", "draft-ietf-oauth-status-list, section 8.3", []string{
			"the status of the token is malformed", "the token names no status list",
			"the status list of the token is not one of its issuer's", "the token has no place in its status list",
			"the token has been revoked", "the token is suspended", "the status of the token is none that is accepted"}},
	}

	// of a token that the issuer is asked about: introspect
	askedChecks = []check{
		{"there is somebody to ask about the token", "RFC 7662, section 2", []string{
			"the token is a JWT", noIssuer, "the token is malformed"}},
		{"its issuer calls it active", "RFC 7662, section 2.2", []string{"the token is not active"}},
		{"its issuer is trusted", "RFC 7662, section 2.2", []string{"the token is of another issuer"}},
		{"it is for this API", "RFC 7662, section 4; RFC 9700, section 2.3", []string{
			"the token names no audience", "the token is for another audience"}},
		{"it is an access token, of a type that says how it is bound", "RFC 6749, section 7.1; RFC 9449, section 6.2", []string{
			"the token is not an access token", "the token is of a type that is not known here",
			"the token should be bound to a key and names none", "the token is bound to a key and should be of the type DPoP"}},
		{"it is good at this time", "RFC 7662, section 4", []string{"the token has expired", "the token is not yet valid", claims.FarAhead}},
	}

	schemeChecks = []check{
		{"it is sent in the way that it is bound", "RFC 9449, sections 7.1 and 7.2; RFC 7800, section 3.1", []string{
			"the scheme DPoP is not accepted here", "the token is bound to no key, and was sent with the scheme DPoP",
			"the token is bound to nothing, and this API takes bound tokens only",
			"the token is bound in a way that cannot be checked here",
			"the token is bound to a key that this request does not prove"}},
	}

	certificateChecks = []check{
		{"the certificate is the one that it is bound to", "RFC 8705, section 3", []string{
			"the token is bound to a certificate that this request does not come with",
			"the token is bound to another certificate than that of this request",
			"the certificate of the client is told more than once", "the certificate of the client is malformed"}},
	}

	// all of RFC 9449
	proofChecks = []check{
		{"there is one proof", "RFC 9449, section 4.3, check 1", []string{"a request needs exactly one DPoP proof"}},
		{"the proof is a signed JWT that brings its public key", "RFC 9449, section 4.3, checks 2 and 7", []string{"the DPoP proof is malformed"}},
		{"its typ is dpop+jwt", "RFC 9449, section 4.3, check 4", []string{"the DPoP proof is of another type"}},
		{"its algorithm is accepted", "RFC 9449, section 4.3, check 5", []string{"the DPoP proof is signed with an algorithm that is not accepted"}},
		{"its claims are there and well-formed", "RFC 9449, section 4.3, check 3", []string{"the DPoP proof lacks a claim or has one that is malformed"}},
		{"its htm is the method", "RFC 9449, section 4.3, check 8", []string{"the DPoP proof is for another method"}},
		{"its htu is the URL", "RFC 9449, section 4.3, check 9", []string{
			"the DPoP proof is for another URL", "the request did not come through a proxy that reports its URL"}},
		{"its ath is the hash of the token", "RFC 9449, section 4.3, check 12", []string{"the DPoP proof is for another access token"}},
		{"its key is the one that the token is bound to", "RFC 9449, section 4.3, check 12", []string{
			"the access token is bound to another key than that of the DPoP proof"}},
		{"its nonce, or its time, is good", "RFC 9449, section 4.3, checks 10 and 11", []string{
			"the DPoP proof needs a current nonce of this server", "the DPoP proof is too old", "the DPoP proof is from the future"}},
		{"it is signed with its key", "RFC 9449, section 4.3, check 6", []string{"the DPoP proof is not signed with its key"}},
	}

	routeChecks = []check{
		{"its scopes are enough for the request", "RFC 6750, section 3.1", []string{"the token lacks a scope that this request needs"}},
		{"headers can say whom it names", "RFC 9110, section 5.5", []string{errNoName.Description}},
	}
)
