package proxy

import (
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
)

// A check is one condition that a request must meet, with the reasons of the refusals if it does not.
type check struct {
	name     string
	section  string
	refusals []valetkey.Reason
}

// refuses reports whether c is the check that refuses with a reason. Those of rules with a message begin with that of rules without one.
func (c check) refuses(reason valetkey.Reason) bool {
	for _, base := range []valetkey.Reason{valetkey.ReasonClaimRule, valetkey.ReasonClaimsForbid} {
		if strings.HasPrefix(string(reason), string(base)+"_") {
			reason = base
		}
	}
	return slices.Contains(c.refusals, reason)
}

// Checks, in the order in which they are made.
var (
	pathChecks = []check{
		{"its path is unambiguous", "RFC 9110, section 4.2.3; RFC 3986, section 6.2", []valetkey.Reason{
			valetkey.ReasonConnect, valetkey.ReasonTarget, valetkey.ReasonMethod, valetkey.ReasonPathBackslash, valetkey.ReasonPathControl,
			valetkey.ReasonPathDotSegment, valetkey.ReasonPathNotCanonical, valetkey.ReasonPathAmbiguous}},
		{"it carries exactly one token", "RFC 6750, section 2", []valetkey.Reason{
			valetkey.ReasonTwoTokens, valetkey.ReasonTwoAuthorizations,
			valetkey.ReasonEmptyToken, valetkey.ReasonTokenTooLong, valetkey.ReasonTokenCharacters}},
	}

	// for JWTs that are verified with the keys of their issuer: jwks
	jwtChecks = []check{
		{"the token is a signed JWT", "RFC 7515, section 5.2; RFC 7519, section 7.2", []valetkey.Reason{valetkey.ReasonNotJWT, valetkey.ReasonMalformed}},
		{"its issuer is trusted", "RFC 9068, section 4", []valetkey.Reason{valetkey.ReasonIssuer, valetkey.ReasonUntrustedIssuer}},
		{"it is an access token", "RFC 9068, section 4; RFC 8725, section 3.11", []valetkey.Reason{valetkey.ReasonNotAccessToken}},
		{"its algorithm is allowed", "RFC 8725, section 3.1", []valetkey.Reason{valetkey.ReasonAlgorithm}},
		{"it names its key", "RFC 7515, section 4.1.4", []valetkey.Reason{valetkey.ReasonNoKeyID}},
		{"its required claims are present and well-formed", "RFC 9068, section 2.2", []valetkey.Reason{valetkey.ReasonClaimMalformed}},
		{"it is for this API", "RFC 9068, section 4; RFC 9700, section 2.3", []valetkey.Reason{valetkey.ReasonAudience}},
		{"its client and claims are accepted here", "RFC 9068, section 4", []valetkey.Reason{valetkey.ReasonClient, valetkey.ReasonClaimRule}},
		{"it is valid at this time", "RFC 7519, sections 4.1.4 and 4.1.5", []valetkey.Reason{
			valetkey.ReasonExpired, valetkey.ReasonNotYetValid, valetkey.ReasonLivesTooLong, valetkey.ReasonFarDate}},
		{"its signature is of a key of its issuer", "RFC 7515, section 5.2; RFC 9068, section 4", []valetkey.Reason{
			valetkey.ReasonSignature, valetkey.ReasonUnknownKey}},
	}

	statusChecks = []check{
		{"its status list marks it valid", "draft-ietf-oauth-status-list, section 8.3", []valetkey.Reason{
			valetkey.ReasonStatusMalformed, valetkey.ReasonNoStatusList,
			valetkey.ReasonStatusListOrigin, valetkey.ReasonNotInStatusList,
			valetkey.ReasonRevoked, valetkey.ReasonSuspended, valetkey.ReasonStatus}},
	}

	// for tokens that are introspected: introspect
	askedChecks = []check{
		{"an introspection endpoint accepts the token", "RFC 7662, section 2", []valetkey.Reason{
			valetkey.ReasonJWT, valetkey.ReasonUntrustedIssuer, valetkey.ReasonMalformed}},
		{"its issuer reports it active", "RFC 7662, section 2.2", []valetkey.Reason{valetkey.ReasonInactive}},
		{"its issuer is trusted", "RFC 7662, section 2.2", []valetkey.Reason{valetkey.ReasonIssuer}},
		{"it is for this API", "RFC 7662, section 4; RFC 9700, section 2.3", []valetkey.Reason{
			valetkey.ReasonNoAudience, valetkey.ReasonAudience}},
		{"it is an access token whose type matches its binding", "RFC 6749, section 7.1; RFC 9449, section 6.2", []valetkey.Reason{
			valetkey.ReasonNotAccessToken, valetkey.ReasonUnknownTokenType,
			valetkey.ReasonBindingMissing, valetkey.ReasonBindingType}},
		{"it is valid at this time", "RFC 7662, section 4", []valetkey.Reason{valetkey.ReasonExpired, valetkey.ReasonNotYetValid, valetkey.ReasonFarDate}},
	}

	// for tokens that are introspected and must meet rules
	ruleChecks = []check{
		{"its claims are accepted here", "RFC 7662, section 4", []valetkey.Reason{valetkey.ReasonClaimRule}},
	}

	schemeChecks = []check{
		{"it is sent as its binding requires", "RFC 9449, sections 7.1 and 7.2; RFC 7800, section 3.1", []valetkey.Reason{
			valetkey.ReasonDPoPNotAccepted, valetkey.ReasonDPoPNotBound,
			valetkey.ReasonNotBound,
			valetkey.ReasonUnknownBinding,
			valetkey.ReasonNoProof}},
	}

	certificateChecks = []check{
		{"the certificate is the one that it is bound to", "RFC 8705, section 3", []valetkey.Reason{
			valetkey.ReasonNoCertificate,
			valetkey.ReasonCertificate,
			valetkey.ReasonTwoCertificates, valetkey.ReasonCertificateMalformed}},
	}

	// all of RFC 9449
	proofChecks = []check{
		{"there is exactly one proof", "RFC 9449, section 4.3, check 1", []valetkey.Reason{valetkey.ReasonProofCount}},
		{"the proof is a signed JWT with its public key", "RFC 9449, section 4.3, checks 2 and 7", []valetkey.Reason{valetkey.ReasonProofMalformed}},
		{"its typ is dpop+jwt", "RFC 9449, section 4.3, check 4", []valetkey.Reason{valetkey.ReasonProofType}},
		{"its algorithm is accepted", "RFC 9449, section 4.3, check 5", []valetkey.Reason{valetkey.ReasonProofAlgorithm}},
		{"its required claims are present and well-formed", "RFC 9449, section 4.3, check 3", []valetkey.Reason{valetkey.ReasonProofClaim}},
		{"its htm is the method", "RFC 9449, section 4.3, check 8", []valetkey.Reason{valetkey.ReasonProofMethod}},
		{"its htu is the URL", "RFC 9449, section 4.3, check 9", []valetkey.Reason{
			valetkey.ReasonProofURL, valetkey.ReasonNotForwarded}},
		{"its ath is the hash of the token", "RFC 9449, section 4.3, check 12", []valetkey.Reason{valetkey.ReasonProofToken}},
		{"its key is the one that the token is bound to", "RFC 9449, section 4.3, check 12", []valetkey.Reason{
			valetkey.ReasonProofKey}},
		{"its nonce or its time is valid", "RFC 9449, section 4.3, checks 10 and 11", []valetkey.Reason{
			valetkey.ReasonProofNonce, valetkey.ReasonProofTooOld, valetkey.ReasonProofFromFuture}},
		{"it is signed with its key", "RFC 9449, section 4.3, check 6", []valetkey.Reason{valetkey.ReasonProofSignature}},
	}

	// for routes that require them
	detailChecks = []check{
		{"its authorization details are sufficient", "RFC 9396, section 9", []valetkey.Reason{valetkey.ReasonDetails, valetkey.ReasonDetailsMalformed}},
	}
	loginChecks = []check{
		{"its user has logged in as required", "RFC 9470, section 3", []valetkey.Reason{valetkey.ReasonACR, valetkey.ReasonAuthAge}},
	}

	routeChecks = []check{
		{"its scopes are sufficient for the request", "RFC 6750, section 3.1", []valetkey.Reason{valetkey.ReasonScope}},
		{"its claims allow the request", "RFC 9110, section 15.5.4", []valetkey.Reason{valetkey.ReasonClaimsForbid}},
		{"headers can carry its identity", "RFC 9110, section 5.5", []valetkey.Reason{valetkey.ReasonIdentity}},
	}
)
