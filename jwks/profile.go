package jwks

// Profile names what an issuer's tokens lack of RFC 9068, section 2. The zero value: nothing. iss, exp and aud are always
// required, and what is there must be right.
//
// Set what your issuer needs and no more. The names are those of products as they come; most can be configured to send
// more.
type Profile struct {
	// Untyped accepts the typ "JWT" or none beside "at+jwt". An ID token looks much the same, so what has the marks of one
	// is refused (nonce, at_hash, ...), and so is every other type. Who needs it: Keycloak, Auth0 without the RFC 9068
	// profile, Entra ID, Okta, Cognito, light-oauth2.
	Untyped bool

	// NoKeyID accepts a token without kid: of the keys that fit its algorithm, up to 4 are tried, and with more it is
	// refused. Who needs it: light-oauth2, issuers with a single key.
	NoKeyID bool

	// NoSubject accepts a token without sub: it stands for a client. Who needs it: light-oauth2 and others for client
	// credentials.
	NoSubject bool

	// NoClientID accepts a token without client_id. The client is then read from azp (Keycloak, Auth0, Entra ID v2), cid
	// (Okta) or appid (Entra ID v1), the first there is.
	NoClientID bool

	// NoID accepts a token without jti. Who needs it: Auth0, Entra ID (which has uti).
	NoID bool

	// NoIssuedAt accepts a token without iat. Who needs it: some home-grown issuers.
	NoIssuedAt bool

	// ScopeArray accepts an array as scope. Who needs it: light-oauth2, Spring Authorization Server.
	ScopeArray bool

	// Scp reads scp as well as scope, a string or an array, unless Config.Scopes says which claims are read. Who needs it:
	// Okta, Entra ID.
	Scp bool
}

// Lenient returns the Profile with every setting on: what most of the field's issuers get through with.
func Lenient() Profile {
	return Profile{
		Untyped:    true,
		NoKeyID:    true,
		NoSubject:  true,
		NoClientID: true,
		NoID:       true,
		NoIssuedAt: true,
		ScopeArray: true,
		Scp:        true,
	}
}
