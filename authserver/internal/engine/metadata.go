package engine

import (
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/internal/jose"
)

// Metadata contains the members of RFC 8414, section 2 that the engine knows. The caller sets others, such as jwks_uri. Empty
// members are omitted (section 3.2).
type Metadata struct {
	Issuer             string   `json:"issuer"`
	Authorization      string   `json:"authorization_endpoint,omitempty"`
	Token              string   `json:"token_endpoint"`
	JWKS               string   `json:"jwks_uri,omitempty"`
	Registration       string   `json:"registration_endpoint,omitempty"`
	Scopes             []string `json:"scopes_supported,omitempty"`
	ResponseTypes      []string `json:"response_types_supported"`
	ResponseModes      []string `json:"response_modes_supported,omitempty"`
	GrantTypes         []string `json:"grant_types_supported"`
	TokenAuth          []string `json:"token_endpoint_auth_methods_supported"`
	TokenAlgorithms    []string `json:"token_endpoint_auth_signing_alg_values_supported,omitempty"`
	Introspection      string   `json:"introspection_endpoint"`
	IntrospectionAuth  []string `json:"introspection_endpoint_auth_methods_supported"`
	IntrospectionAlgs  []string `json:"introspection_endpoint_auth_signing_alg_values_supported,omitempty"`
	IntrospectionSigns []string `json:"introspection_signing_alg_values_supported,omitempty"` // RFC 9701, section 7
	Revocation         string   `json:"revocation_endpoint"`
	RevocationAuth     []string `json:"revocation_endpoint_auth_methods_supported"`
	RevocationAlgs     []string `json:"revocation_endpoint_auth_signing_alg_values_supported,omitempty"`
	ACRs               []string `json:"acr_values_supported,omitempty"`
	Challenges         []string `json:"code_challenge_methods_supported,omitempty"`      // RFC 7636; MCP clients require it
	DetailTypes        []string `json:"authorization_details_types_supported,omitempty"` // RFC 9396, section 10
	PAR                string   `json:"pushed_authorization_request_endpoint,omitempty"`
	RequirePAR         bool     `json:"require_pushed_authorization_requests,omitempty"`
	Device             string   `json:"device_authorization_endpoint,omitempty"`                  // RFC 8628, section 4
	ProofAlgs          []string `json:"dpop_signing_alg_values_supported,omitempty"`              // RFC 9449, section 5.1
	CertBound          bool     `json:"tls_client_certificate_bound_access_tokens,omitempty"`     // RFC 8705, section 3.3
	Aliases            *Aliases `json:"mtls_endpoint_aliases,omitempty"`                          // RFC 8705, section 5
	Iss                bool     `json:"authorization_response_iss_parameter_supported,omitempty"` // RFC 9207, section 3
	ClientDocuments    bool     `json:"client_id_metadata_document_supported,omitempty"`          // set by the caller; draft-ietf-oauth-client-id-metadata-document, section 6
	GrantProfiles      []string `json:"authorization_grant_profiles_supported,omitempty"`         // draft-ietf-oauth-identity-assertion-authz-grant
	Resources          []string `json:"protected_resources,omitempty"`                            // RFC 9728, section 4

	LogoutSupported        bool   `json:"backchannel_logout_supported,omitempty"` // OpenID Connect Back-Channel Logout 1.0, section 2.1
	LogoutSessionSupported bool   `json:"backchannel_logout_session_supported,omitempty"`
	GlobalRevocation       string `json:"global_token_revocation_endpoint,omitempty"` // draft-parecki-oauth-global-token-revocation
}

// Aliases are the URLs of the endpoints that request a certificate (RFC 8705, section 5).
type Aliases struct {
	Token         string `json:"token_endpoint"`
	Introspection string `json:"introspection_endpoint"`
	Revocation    string `json:"revocation_endpoint"`
	PAR           string `json:"pushed_authorization_request_endpoint"`
	Device        string `json:"device_authorization_endpoint"`
}

// Metadata returns the metadata of the engine.
func (e *Engine) Metadata() Metadata {
	base, p := e.cfg.base(), e.cfg.Paths
	secrets := []string{"client_secret_basic", "client_secret_post", "private_key_jwt"}
	if e.cfg.Certificate != nil {
		secrets = append(secrets, "self_signed_tls_client_auth")
		if e.cfg.Authorities != nil {
			secrets = append(secrets, "tls_client_auth")
		}
	}
	var profiles []string
	if slices.ContainsFunc(e.cfg.Issuers, func(t model.TrustedIssuer) bool { return t.GrantProfile == model.IDJAG }) {
		profiles = []string{idJAGProfile}
	}
	var aliases *Aliases
	if at := strings.TrimSuffix(e.cfg.MTLSURL, "/"); at != "" {
		aliases = &Aliases{at + p.Token, at + p.Introspect, at + p.Revoke, at + p.PAR, at + p.Device}
	}
	all := append(slices.Clip(secrets), "none") // last: some clients choose the first one that they support
	var scopes, audiences, algorithms, types []string
	for _, a := range e.cfg.APIs {
		for _, d := range a.DetailTypes {
			if !slices.Contains(types, d.Name) {
				types = append(types, d.Name)
			}
		}
		scopes, audiences, algorithms = append(scopes, a.ScopeNames()...), append(audiences, a.Audience), append(algorithms, a.Algorithm)
	}
	var responseModes, proofAlgs []string
	for _, t := range e.responseTypes() {
		responseModes = append(responseModes, modeOf[t])
	}
	if e.cfg.DPoP != nil {
		proofAlgs = e.cfg.DPoP.Algorithms()
	}
	return Metadata{
		Issuer:             e.cfg.Issuer,
		Authorization:      base + p.Authorize,
		Token:              base + p.Token,
		Scopes:             valetkey.NewScopes(scopes...).Slice(),
		ResponseTypes:      e.responseTypes(),
		ResponseModes:      responseModes,
		GrantTypes:         e.grantTypes,
		TokenAuth:          all,
		TokenAlgorithms:    jose.Algorithms(),
		Introspection:      base + p.Introspect,
		IntrospectionAuth:  secrets,
		IntrospectionAlgs:  jose.Algorithms(),
		IntrospectionSigns: slices.Compact(slices.Sorted(slices.Values(algorithms))),
		Revocation:         base + p.Revoke,
		RevocationAuth:     all,
		RevocationAlgs:     jose.Algorithms(),
		ACRs:               e.cfg.ACRs,
		Challenges:         []string{"S256"},
		DetailTypes:        types,
		PAR:                base + p.PAR,
		RequirePAR:         e.cfg.RequirePAR,
		Device:             base + p.Device,
		ProofAlgs:          proofAlgs,
		CertBound:          e.cfg.Certificate != nil,
		Aliases:            aliases,
		Iss:                true,
		GrantProfiles:      profiles,
		Resources:          audiences,
	}
}
