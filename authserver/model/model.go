// Package model declares the parties that an authorization server deals with: APIs, clients and trusted issuers. Package
// authserver has the same types under the same names; use those. They are declared here because the parts of the server share
// them.
package model

import (
	"cmp"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
)

// Paths are the paths of the endpoints, such as /oauth2/token. No path may lie below another one or overlap that of a page.
type Paths struct {
	Authorize  string `yaml:"authorize"`  // empty: /oauth2/authorize; /oauth2/code is always served too
	Token      string `yaml:"token"`      // empty: /oauth2/token
	Device     string `yaml:"device"`     // empty: /oauth2/device_authorization
	PAR        string `yaml:"par"`        // empty: /oauth2/par
	Introspect string `yaml:"introspect"` // empty: /oauth2/introspect
	Revoke     string `yaml:"revoke"`     // empty: /oauth2/revoke
	Register   string `yaml:"register"`   // empty: /oauth2/register
	Keys       string `yaml:"keys"`       // empty: /oauth2/keys
}

// WithDefaults returns the paths with those that are empty filled in.
func (p Paths) WithDefaults() Paths {
	return Paths{
		Authorize:  cmp.Or(p.Authorize, "/oauth2/authorize"),
		Token:      cmp.Or(p.Token, "/oauth2/token"),
		Device:     cmp.Or(p.Device, "/oauth2/device_authorization"),
		PAR:        cmp.Or(p.PAR, "/oauth2/par"),
		Introspect: cmp.Or(p.Introspect, "/oauth2/introspect"),
		Revoke:     cmp.Or(p.Revoke, "/oauth2/revoke"),
		Register:   cmp.Or(p.Register, "/oauth2/register"),
		Keys:       cmp.Or(p.Keys, "/oauth2/keys"),
	}
}

// A Format is the format of an API's tokens.
type Format string

// The token formats. Empty means JWT.
const (
	JWT    Format = "jwt"    // RFC 9068: the API verifies it locally
	Opaque Format = "opaque" // the API must introspect it
)

// A Profile selects the claims of an API's JWTs, in addition to those of RFC 9068, section 2.2.
type Profile string

// The profiles. Empty means RFC9068.
const (
	RFC9068     Profile = "rfc9068"
	User        Profile = "user"        // adds user_id and user_type, with scope as an array
	Permissions Profile = "permissions" // adds permissions, an array of the scopes, and azp, the client
)

// An API is a resource server that tokens are issued for.
type API struct {
	// Audience is the aud claim of the API's tokens and the resource parameter that selects the API: an absolute URI without a
	// fragment (RFC 8707, section 2). Required. The parameter may have or lack the slash after an origin, regardless of Audience.
	Audience string `yaml:"audience"`

	// Name is the name of the API on pages. Empty: the audience.
	Name string `yaml:"name"`

	// Scopes are the scopes of the API, in the order in which pages show them. At least one is required.
	Scopes []Scope `yaml:"scopes"`

	// DetailTypes are the types of authorization_details that the API understands (RFC 9396). Users are asked about each detail,
	// except at a trusted client. A client requests them instead of scopes, or together with some. An exchanged token (RFC 8693) has the
	// details of the token that it replaces; the exchange is refused if its API does not have the type of one. Empty: none.
	DetailTypes []DetailType `yaml:"authorization_details_types"`

	// Tokens is the format of the API's tokens. Empty: [JWT].
	Tokens Format `yaml:"tokens"`

	// Algorithm is the signature algorithm of the API's JWTs, and of its signed introspection responses: ES256, RS256 or EdDSA.
	// Empty: ES256.
	Algorithm string `yaml:"algorithm"`

	// Lifetime is the lifetime of the API's tokens, in whole seconds, such as "10m" in a file. Zero: 10 minutes. At most 24 hours.
	Lifetime time.Duration `yaml:"lifetime"`

	// Profile adds claims to those of RFC 9068 in the API's JWTs. Empty or rfc9068: none. user: user_id and user_type, with
	// scope as an array. permissions: the scopes in an array of that name, and azp, the client.
	Profile Profile `yaml:"profile"`

	// Exchange maps a scope of this API to the scopes of other APIs that a token with it may be exchanged for (RFC 8693). It is
	// for an API that calls another one for the same user. If empty, an exchange yields no more than the token has.
	Exchange map[string][]string `yaml:"exchange"`

	// MayAct is the ID of the only client that may exchange tokens for this API, as stated in the claim may_act (RFC 8693,
	// section 4.4). Empty: any client with the token exchange grant type that introspects for the API or that the token was
	// issued to.
	MayAct string `yaml:"may_act"`

	// TryURL is a URL of the API that the portal requests with GET and a trial token. Empty: the portal explains how to do it.
	TryURL string `yaml:"try_url"`
}

// WithDefaults returns the API with the members that are empty and have a default filled in.
func (a API) WithDefaults() API {
	a.Tokens = cmp.Or(a.Tokens, JWT)
	a.Algorithm = cmp.Or(a.Algorithm, "ES256")
	a.Lifetime = cmp.Or(a.Lifetime, 10*time.Minute)
	a.Profile = cmp.Or(a.Profile, RFC9068)
	return a
}

// ScopeNames returns the names of the scopes, in their order.
func (a API) ScopeNames() []string {
	all := make([]string, len(a.Scopes))
	for i, s := range a.Scopes {
		all[i] = s.Name
	}
	return all
}

// Scope returns the scope with this name, or nil.
func (a API) Scope(name string) *Scope {
	for i := range a.Scopes {
		if a.Scopes[i].Name == name {
			return &a.Scopes[i]
		}
	}
	return nil
}

// Has reports whether all of the scopes belong to the API.
func (a API) Has(scopes valetkey.Scopes) bool { return a.Among(scopes.Slice()).Len() == scopes.Len() }

// Among returns the scopes that belong to the API.
func (a API) Among(scopes []string) valetkey.Scopes {
	return valetkey.NewScopes(slices.DeleteFunc(slices.Clone(scopes), func(s string) bool { return a.Scope(s) == nil })...)
}

// Title returns the name of the API for users.
func (a API) Title() string { return cmp.Or(a.Name, a.Audience) }

// A Scope is a right that users allow applications. A file has the scopes of an API as a mapping by name, in which a string is the
// Description alone.
type Scope struct {
	Name        string `yaml:",key"`              // required
	Description string `yaml:"description,short"` // for users. Empty: Name

	// Descriptions are translations of Description, by language tag (BCP 47), such as de. Users of other languages see
	// Description.
	Descriptions map[string]string `yaml:"descriptions"`

	// Sensitive marks a scope that users select themselves: on the consent page it is explained and not selected in advance. A
	// Trusted client gets it without a question, as any other scope.
	Sensitive bool `yaml:"sensitive"`
}

// A DetailType is a type of authorization_details. A file has the types of an API as a mapping by name, in which a string is the
// Description alone.
type DetailType struct {
	Name         string            `yaml:",key"`              // required
	Description  string            `yaml:"description,short"` // for users, who see the detail itself below it. Empty: Name
	Descriptions map[string]string `yaml:"descriptions"`      // translations, as in a [Scope]
}

// DetailType returns the type with this name, or nil.
func (a API) DetailType(name string) *DetailType {
	for i := range a.DetailTypes {
		if a.DetailTypes[i].Name == name {
			return &a.DetailTypes[i]
		}
	}
	return nil
}

// A TrustedIssuer issues JWTs about its own users, which clients exchange for tokens (RFC 7523, section 2.1).
type TrustedIssuer struct {
	Issuer      string   `yaml:"issuer"`       // the iss claim, compared exactly. Required
	JWKS        string   `yaml:"jwks"`         // its JWK Set, as text. Either JWKS
	JWKSURL     string   `yaml:"jwks_uri"`     // or JWKSURL, https at a public address, is required
	SubjectType string   `yaml:"subject_type"` // for partner, the sub bob becomes the subject partner:bob. Required, and must not be a UserType
	Scopes      []string `yaml:"scopes"`       // all scopes that clients may obtain with its JWTs. At least one is required

	// GrantProfile is the kind of its JWTs. Empty: JWTs of RFC 7523, which any client with the grant type may present, once each.
	// [IDJAG]: identity assertions of an enterprise's identity provider (draft-ietf-oauth-identity-assertion-authz-grant), each for
	// one client, which must authenticate itself and may present it until it expires, or until the operator revokes the user.
	GrantProfile GrantProfile `yaml:"grant_profile"`
}

// A GrantProfile is a kind of JWT that a [TrustedIssuer] issues.
type GrantProfile string

// IDJAG is the Identity Assertion JWT Authorization Grant.
const IDJAG GrantProfile = "id-jag"
