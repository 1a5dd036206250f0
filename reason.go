package valetkey

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// A Reason identifies why a token or a request was refused. It is one of the constants below, or was created by the application
// with [NewReason]. The set of Reasons is bounded, so a Reason, such as "expired", is suitable as a metric label and in a switch.
// The text for clients is its [Reason.Description]. The zero value means that there is no reason.
type Reason string

// Reasons for which a request carries no usable token.
const (
	ReasonNoCredentials     Reason = "no_credentials"
	ReasonTwoTokens         Reason = "two_tokens"
	ReasonTwoAuthorizations Reason = "two_authorizations"
	ReasonEmptyToken        Reason = "empty_token"
	ReasonTokenTooLong      Reason = "token_too_long"
	ReasonTokenCharacters   Reason = "token_characters"
	ReasonFormUnreadable    Reason = "form_unreadable"
	ReasonFormTooLong       Reason = "form_too_long"
	ReasonFormMalformed     Reason = "form_malformed"
	ReasonQueryMalformed    Reason = "query_malformed"
	ReasonPathAmbiguous     Reason = "path_ambiguous"
	ReasonConnect           Reason = "connect"
	ReasonTarget            Reason = "target"
	ReasonMethod            Reason = "method"
	ReasonPathNotCanonical  Reason = "path_not_canonical"
	ReasonPathBackslash     Reason = "path_backslash"
	ReasonPathControl       Reason = "path_control"
	ReasonPathDotSegment    Reason = "path_dot_segment"
)

// Reasons for which a token is not an acceptable access token.
const (
	ReasonNotJWT           Reason = "not_jwt"
	ReasonJWT              Reason = "jwt"
	ReasonMalformed        Reason = "malformed"
	ReasonClaimMalformed   Reason = "claim_malformed"
	ReasonNotAccessToken   Reason = "not_access_token"
	ReasonUnknownTokenType Reason = "unknown_token_type"
	ReasonUntrustedIssuer  Reason = "untrusted_issuer"
	ReasonIssuer           Reason = "issuer"
	ReasonAudience         Reason = "audience"
	ReasonNoAudience       Reason = "no_audience"
	ReasonClient           Reason = "client"
	ReasonClaimRule        Reason = "claim_rule"
	ReasonAlgorithm        Reason = "algorithm"
	ReasonNoKeyID          Reason = "no_key_id"
	ReasonUnknownKey       Reason = "unknown_key"
	ReasonSignature        Reason = "signature"
)

// Reasons for which a token is not valid at this time.
const (
	ReasonExpired                 Reason = "expired"
	ReasonExpiredMeanwhile        Reason = "expired_meanwhile"
	ReasonNotYetValid             Reason = "not_yet_valid"
	ReasonLivesTooLong            Reason = "lives_too_long"
	ReasonFarDate                 Reason = "far_date"
	ReasonInactive                Reason = "inactive"
	ReasonRevoked                 Reason = "revoked"
	ReasonPerhapsRevokedMeanwhile Reason = "perhaps_revoked_meanwhile"
	ReasonSuspended               Reason = "suspended"
	ReasonStatus                  Reason = "status"
	ReasonStatusMalformed         Reason = "status_malformed"
	ReasonNoStatusList            Reason = "no_status_list"
	ReasonStatusListOrigin        Reason = "status_list_origin"
	ReasonNotInStatusList         Reason = "not_in_status_list"
)

// Reasons for which the sender of a token is not proven to be its owner.
const (
	ReasonNotBound             Reason = "not_bound"
	ReasonUnknownBinding       Reason = "unknown_binding"
	ReasonBindingsDiffer       Reason = "bindings_differ"
	ReasonBindingMissing       Reason = "binding_missing"
	ReasonBindingType          Reason = "binding_type"
	ReasonDPoPNotAccepted      Reason = "dpop_not_accepted"
	ReasonDPoPNotBound         Reason = "dpop_not_bound"
	ReasonNoProof              Reason = "no_proof"
	ReasonNoCertificate        Reason = "no_certificate"
	ReasonCertificate          Reason = "certificate"
	ReasonTwoCertificates      Reason = "two_certificates"
	ReasonCertificateMalformed Reason = "certificate_malformed"
	ReasonForwardedMalformed   Reason = "forwarded_malformed"
	ReasonNotForwarded         Reason = "not_forwarded"
	ReasonHostMalformed        Reason = "host_malformed"
)

// Reasons for which a DPoP proof is invalid (RFC 9449, section 4.3).
const (
	ReasonProofCount      Reason = "proof_count"
	ReasonProofMalformed  Reason = "proof_malformed"
	ReasonProofType       Reason = "proof_type"
	ReasonProofAlgorithm  Reason = "proof_algorithm"
	ReasonProofClaim      Reason = "proof_claim"
	ReasonProofMethod     Reason = "proof_method"
	ReasonProofURL        Reason = "proof_url"
	ReasonProofToken      Reason = "proof_token"
	ReasonProofKey        Reason = "proof_key"
	ReasonProofSignature  Reason = "proof_signature"
	ReasonProofNonce      Reason = "proof_nonce"
	ReasonProofTooOld     Reason = "proof_too_old"
	ReasonProofFromFuture Reason = "proof_from_future"
	ReasonProofUsed       Reason = "proof_used"
)

// Reasons for which a valid token is not sufficient for a request.
const (
	ReasonScope            Reason = "scope"
	ReasonNoRequirement    Reason = "no_requirement"
	ReasonDetails          Reason = "details"
	ReasonDetailsMalformed Reason = "details_malformed"
	ReasonACR              Reason = "acr"
	ReasonAuthAge          Reason = "auth_age"
	ReasonClaims           Reason = "claims"
	ReasonClaimsForbid     Reason = "claims_forbid"
	ReasonIdentity         Reason = "identity"
)

// Description returns the text for the client, the error_description of a challenge. It is "" for [ReasonNoCredentials], whose
// challenge has none (RFC 6750, section 3.1), and for a Reason that is not [Reason.Known]. It is safe for concurrent use.
func (r Reason) Description() string {
	reasons.RLock()
	defer reasons.RUnlock()
	return reasons.descriptions[r]
}

// Known reports whether r is one of the constants, or was created with [NewReason]. It is safe for concurrent use.
func (r Reason) Known() bool {
	reasons.RLock()
	defer reasons.RUnlock()
	_, known := reasons.descriptions[r]
	return known
}

// NewReason returns a Reason for the refusals of an application. The id has the form of the constants, for example
// "orders_closed". The description is the text for clients. It must be the same for every request and must never quote one. Store
// the Reason in a package variable:
//
//	var reasonClosed = valetkey.NewReason("orders_closed", "orders are closed at the moment")
//
// NewReason panics if id is not 1 to 64 of a-z, 0-9 and _ with a letter first, if description is empty, or if id exists with
// another description. These are mistakes in the source, so they surface when the program starts. NewReason is safe for
// concurrent use.
func NewReason(id, description string) Reason {
	if !reasonID(id) {
		panic(fmt.Sprintf("valetkey: NewReason: id %q: must be 1 to 64 of a-z, 0-9 and _, with a letter first", id))
	}
	if description == "" {
		panic(fmt.Sprintf("valetkey: NewReason: %q: description: required", id))
	}
	reasons.Lock()
	defer reasons.Unlock()
	if other, taken := reasons.descriptions[Reason(id)]; taken && other != description {
		panic(fmt.Sprintf("valetkey: NewReason: id %q: already created, with the description %q", id, other))
	}
	reasons.descriptions[Reason(id)] = description
	return Reason(id)
}

func reasonID(id string) bool {
	return len(id) <= 64 && id != "" && 'a' <= id[0] && id[0] <= 'z' &&
		!strings.ContainsFunc(id, func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' })
}

// Reasons returns every Reason that exists so far, sorted: the constants, and those created with [NewReason]. It is safe for
// concurrent use.
func Reasons() []Reason {
	reasons.RLock()
	defer reasons.RUnlock()
	all := make([]Reason, 0, len(reasons.descriptions))
	for r := range reasons.descriptions {
		all = append(all, r)
	}
	slices.Sort(all)
	return all
}

// reasons maps each Reason to its description. Only calls of NewReason in the program add to it, for constants of the source and for
// messages in its configuration, which bound its size. It is read when a request is refused, never when one is accepted.
var reasons = struct {
	sync.RWMutex
	descriptions map[Reason]string
}{descriptions: map[Reason]string{
	ReasonNoCredentials:           "",
	ReasonTwoTokens:               "the request carries more than one access token",
	ReasonTwoAuthorizations:       "the request carries more than one Authorization header",
	ReasonEmptyToken:              "the access token is empty",
	ReasonTokenTooLong:            "the token is too long",
	ReasonTokenCharacters:         "the access token contains a character that is not allowed",
	ReasonFormUnreadable:          "the request body cannot be read",
	ReasonFormTooLong:             "the form body is too long",
	ReasonFormMalformed:           "the form body is malformed",
	ReasonQueryMalformed:          "the query is malformed",
	ReasonPathAmbiguous:           "the path reads differently once it is decoded",
	ReasonConnect:                 "CONNECT is not supported",
	ReasonTarget:                  "the target of the request is not a path",
	ReasonMethod:                  "the method is malformed",
	ReasonPathNotCanonical:        "the path has a dot segment or an empty one, or its final slash is missing",
	ReasonPathBackslash:           "the path contains a backslash",
	ReasonPathControl:             "the path contains a control character",
	ReasonPathDotSegment:          "the path contains a dot segment with a parameter",
	ReasonNotJWT:                  "the token is not a JWT",
	ReasonJWT:                     "the token is a JWT",
	ReasonMalformed:               "the token is malformed",
	ReasonClaimMalformed:          "a claim of the token is missing or malformed",
	ReasonNotAccessToken:          "the token is not an access token",
	ReasonUnknownTokenType:        "the token is of a type that is not known here",
	ReasonUntrustedIssuer:         "no trusted issuer vouches for the token",
	ReasonIssuer:                  "the token is of another issuer",
	ReasonAudience:                "the token is for another audience",
	ReasonNoAudience:              "the token names no audience",
	ReasonClient:                  "the token was issued to a client that is not accepted here",
	ReasonClaimRule:               "the claims of the token do not meet the rules of this API",
	ReasonAlgorithm:               "the signature algorithm of the token is not allowed",
	ReasonNoKeyID:                 "the token names no key",
	ReasonUnknownKey:              "the key of the token is unknown",
	ReasonSignature:               "the signature of the token is wrong",
	ReasonExpired:                 "the token has expired",
	ReasonExpiredMeanwhile:        "the token expired while the request was served",
	ReasonNotYetValid:             "the token is not yet valid",
	ReasonLivesTooLong:            "the token lives too long",
	ReasonFarDate:                 "a date of the token is more than ten years ahead; it may be in milliseconds instead of seconds",
	ReasonInactive:                "the token is not active",
	ReasonRevoked:                 "the token has been revoked",
	ReasonPerhapsRevokedMeanwhile: "the token may have been revoked while the request was served",
	ReasonSuspended:               "the token is suspended",
	ReasonStatus:                  "the status of the token is not accepted",
	ReasonStatusMalformed:         "the status of the token is malformed",
	ReasonNoStatusList:            "the token names no status list",
	ReasonStatusListOrigin:        "the status list of the token is not one of its issuer's",
	ReasonNotInStatusList:         "the token has no place in its status list",
	ReasonNotBound:                "the token is not bound to a key or certificate, and this API accepts bound tokens only",
	ReasonUnknownBinding:          "the token is bound in a way that cannot be checked here",
	ReasonBindingsDiffer:          "two verifiers report different bindings for the token",
	ReasonBindingMissing:          "the token must be bound to a key but names none",
	ReasonBindingType:             "the token is bound to a key and should be of the type DPoP",
	ReasonDPoPNotAccepted:         "the scheme DPoP is not accepted here",
	ReasonDPoPNotBound:            "the token is bound to no key, and was sent with the scheme DPoP",
	ReasonNoProof:                 "the token is bound to a key that this request does not prove",
	ReasonNoCertificate:           "the token is bound to a certificate that this request does not come with",
	ReasonCertificate:             "the token is bound to another certificate than that of this request",
	ReasonTwoCertificates:         "the request carries more than one client certificate header",
	ReasonCertificateMalformed:    "the certificate of the client is malformed",
	ReasonForwardedMalformed:      "the forwarded URL of the request is malformed",
	ReasonNotForwarded:            "the request did not come through a proxy that reports its URL",
	ReasonHostMalformed:           "the host of the request's URL is malformed",
	ReasonProofCount:              "a request needs exactly one DPoP proof",
	ReasonProofMalformed:          "the DPoP proof is malformed",
	ReasonProofType:               "the DPoP proof is of another type",
	ReasonProofAlgorithm:          "the DPoP proof is signed with an algorithm that is not accepted",
	ReasonProofClaim:              "the DPoP proof lacks a claim or has one that is malformed",
	ReasonProofMethod:             "the DPoP proof is for another method",
	ReasonProofURL:                "the DPoP proof is for another URL",
	ReasonProofToken:              "the DPoP proof is for another access token",
	ReasonProofKey:                "the access token is bound to another key than that of the DPoP proof",
	ReasonProofSignature:          "the DPoP proof is not signed with its key",
	ReasonProofNonce:              "the DPoP proof needs a current nonce of this server",
	ReasonProofTooOld:             "the DPoP proof is too old",
	ReasonProofFromFuture:         "the DPoP proof is from the future",
	ReasonProofUsed:               "the DPoP proof was used before",
	ReasonScope:                   "the token lacks a scope that this request needs",
	ReasonNoRequirement:           "no token is sufficient for this request",
	ReasonDetails:                 "the authorization details of the token do not allow this request",
	ReasonDetailsMalformed:        "the authorization details of the token are malformed",
	ReasonACR:                     "the user's login does not meet the required authentication context",
	ReasonAuthAge:                 "the user logged in too long ago",
	ReasonClaims:                  "the claims of the token are not what this API expects",
	ReasonClaimsForbid:            "the claims of the token do not allow this request",
	ReasonIdentity:                "the token contains a name that no header can carry",
}}
