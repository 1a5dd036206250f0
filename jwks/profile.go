package jwks

// Profile lists the parts of RFC 9068, section 2, that an issuer's tokens may lack. The zero value allows no omission. exp is
// always required, aud too unless [Config.AudienceClaim] or [Config.AudienceHeader] is set, and a claim that is present must be valid.
//
// Package issuers has the settings of most products. Otherwise, enable only the settings that your issuer needs. The products
// named below need a setting in their default configuration; most can be configured to send the missing part.
type Profile struct {
	// AllowUntyped accepts the typ "JWT", or no typ, in addition to "at+jwt". ID tokens look much the same, so tokens with
	// the marks of one (nonce, at_hash, ...) are refused, as is every other type. Needed for: Keycloak, Auth0 without the RFC
	// 9068 profile, Entra ID, Okta, Cognito, light-oauth2.
	AllowUntyped bool

	// AllowIDTokens accepts tokens that are ID tokens, or that cannot be distinguished from them. An ID token tells a client who
	// logged in. It was not issued for an API, has no scopes, and is sent to every party that the client talks to. The client in
	// azp, or the only aud if there is no azp, must be in Config.Clients, or in Config.Audience if Clients is nil. So must the
	// client in client_id, if there is one. Needed for:
	// Google, Firebase, authentik, and others whose users have no access token that an API could verify.
	AllowIDTokens bool

	// AllowMissingIssuer accepts tokens without iss as tokens of Config.Issuer. Config.Rules is then required. Needed for: SPIFFE,
	// whose tokens name the trust domain in sub.
	AllowMissingIssuer bool

	// AllowAnyTenant accepts the tokens of every tenant of a Config.Issuer with a claim in braces, without Rules about that claim.
	// Anyone who can create a tenant at the issuer can then get tokens that are accepted. Needed for: applications that are open to
	// all tenants of Entra ID.
	AllowAnyTenant bool

	// AllowMissingKeyID accepts tokens without kid. Up to 4 keys that fit the algorithm are tried; if more keys fit, the
	// token is refused. Needed for: light-oauth2, issuers with a single key.
	AllowMissingKeyID bool

	// AllowKeyWithoutID accepts tokens whose kid no key has, if exactly one key of the set has no kid and fits the algorithm, and
	// that key verifies them. Needed for: in-house issuers that name the key in tokens but not in the key set.
	AllowKeyWithoutID bool

	// AllowMissingSubject accepts tokens without sub, which represent a client. Needed for: light-oauth2, and others for the
	// client credentials grant.
	AllowMissingSubject bool

	// AllowNumericSubject accepts an integer as sub, which becomes the Subject as it is written. Needed for: some in-house
	// issuers that use the number of a database row.
	AllowNumericSubject bool

	// AllowMissingClientID accepts tokens without client_id. The client is then read from azp (Keycloak, Auth0, Entra ID v2),
	// cid (Okta) or appid (Entra ID v1), whichever is found first.
	AllowMissingClientID bool

	// AllowMissingID accepts tokens without jti. Needed for: Auth0, Entra ID (which has uti).
	AllowMissingID bool

	// AllowMissingIssuedAt accepts tokens without iat. Needed for: some in-house issuers.
	AllowMissingIssuedAt bool

	// AllowScopeArray accepts an array as scope. Needed for: light-oauth2, Spring Authorization Server.
	AllowScopeArray bool

	// AllowScp reads scp, a string or an array, in addition to scope. It has no effect if Config.Scopes is set. Needed for:
	// Okta, Entra ID.
	AllowScp bool
}

// Lenient returns the Profile with every setting on except AllowIDTokens, AllowMissingIssuer and AllowAnyTenant. It is for a first look
// at the tokens of an issuer that package issuers does not have, not for production: it accepts every JWT with the right issuer,
// audience and signature that does not show that it is of another kind. If the issuer writes the API's name into the aud of its refresh
// tokens or of ID tokens without a nonce, Lenient accepts these too. [Config.Markers] and [Config.RequireScope] exclude them.
func Lenient() Profile {
	return Profile{
		AllowUntyped:         true,
		AllowMissingKeyID:    true,
		AllowKeyWithoutID:    true,
		AllowMissingSubject:  true,
		AllowNumericSubject:  true,
		AllowMissingClientID: true,
		AllowMissingID:       true,
		AllowMissingIssuedAt: true,
		AllowScopeArray:      true,
		AllowScp:             true,
	}
}
