package jwks

// Profile names what an issuer's tokens lack of RFC 9068, section 2. The zero value: nothing. iss, exp and aud are always
// required, and what is there must be right.
//
// Set what your issuer needs and no more. The names are those of products as they come; most can be configured to send
// more.
type Profile struct {
	// AllowUntyped accepts the typ "JWT" or none beside "at+jwt". An ID token looks much the same, so what has the marks of one
	// is refused (nonce, at_hash, ...), and so is every other type. Who needs it: Keycloak, Auth0 without the RFC 9068
	// profile, Entra ID, Okta, Cognito, light-oauth2.
	AllowUntyped bool

	// AllowMissingKeyID accepts a token without kid: of the keys that fit its algorithm, up to 4 are tried, and with more it is
	// refused. Who needs it: light-oauth2, issuers with a single key.
	AllowMissingKeyID bool

	// AllowMissingSubject accepts a token without sub: it stands for a client. Who needs it: light-oauth2 and others for client
	// credentials.
	AllowMissingSubject bool

	// AllowMissingClientID accepts a token without client_id. The client is then read from azp (Keycloak, Auth0, Entra ID v2), cid
	// (Okta) or appid (Entra ID v1), the first there is.
	AllowMissingClientID bool

	// AllowMissingID accepts a token without jti. Who needs it: Auth0, Entra ID (which has uti).
	AllowMissingID bool

	// AllowMissingIssuedAt accepts a token without iat. Who needs it: some home-grown issuers.
	AllowMissingIssuedAt bool

	// AllowScopeArray accepts an array as scope. Who needs it: light-oauth2, Spring Authorization Server.
	AllowScopeArray bool

	// AllowScp reads scp as well as scope, a string or an array, unless Config.Scopes says which claims are read. Who needs it:
	// Okta, Entra ID.
	AllowScp bool
}

// Lenient returns the Profile with every setting on: what most of the field's issuers get through with.
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
