package jwks

// Profile lists the parts of RFC 9068, section 2, that an issuer's tokens may lack. The zero value allows no omission. iss,
// exp and aud are always required, and a claim that is present must be valid.
//
// Enable only the settings that your issuer needs. The products named below need a setting in their default configuration;
// most can be configured to send the missing part.
type Profile struct {
	// AllowUntyped accepts the typ "JWT", or no typ, in addition to "at+jwt". ID tokens look much the same, so tokens with
	// the marks of one (nonce, at_hash, ...) are refused, as is every other type. Needed for: Keycloak, Auth0 without the RFC
	// 9068 profile, Entra ID, Okta, Cognito, light-oauth2.
	AllowUntyped bool

	// AllowMissingKeyID accepts tokens without kid. Up to 4 keys that fit the algorithm are tried; if more keys fit, the
	// token is refused. Needed for: light-oauth2, issuers with a single key.
	AllowMissingKeyID bool

	// AllowMissingSubject accepts tokens without sub, which represent a client. Needed for: light-oauth2, and others for the
	// client credentials grant.
	AllowMissingSubject bool

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

// Lenient returns the Profile with every setting on. It accepts tokens from most deployed issuers.
func Lenient() Profile {
	return Profile{
		AllowUntyped:         true,
		AllowMissingKeyID:    true,
		AllowMissingSubject:  true,
		AllowMissingClientID: true,
		AllowMissingID:       true,
		AllowMissingIssuedAt: true,
		AllowScopeArray:      true,
		AllowScp:             true,
	}
}
