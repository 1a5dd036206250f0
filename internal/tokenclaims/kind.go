package tokenclaims

import "strings"

// KindClaims lists the claims in which products state the kind of a token: Keycloak, Amazon Cognito, PingAM, Casdoor, Curity, Descope and
// others.
var KindClaims = []string{"typ", "token_use", "tokenName", "tokenType", "purpose", "drn", "tok_type", "token_type", "type"}

// A Kind is the kind of a token. The zero value is unknown.
type Kind string

// The kinds that [KindOf] knows.
const (
	AccessToken  Kind = "an access token"
	IDToken      Kind = "an ID token"
	RefreshToken Kind = "a refresh token"
	LogoutToken  Kind = "a logout token"
)

// KindOf returns the kind of token that value, that of one of [KindClaims], names. Products write it in either letter case, with "-" or "_".
func KindOf(value string) Kind {
	switch strings.ReplaceAll(strings.ToLower(value), "-", "_") {
	case "bearer", "dpop", "access", "access_token", "at", "ds":
		return AccessToken
	case "id", "id_token":
		return IDToken
	case "refresh", "refresh_token", "rt", "dsr", "offline":
		return RefreshToken
	case "logout":
		return LogoutToken
	default:
		return ""
	}
}
