package issuers

import (
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/jwks"
)

// enterpriseProducts are the products that a company operates, or rents, for its own users.
var enterpriseProducts = []product{curity, pingAM, pingFederate, pingOne, wso2}

// PingFederate returns the settings for the access tokens of PingFederate's access token managers of the type JSON Web Tokens. It needs
// Issuer and Audience, which are the values of the manager's fields Issuer Claim Value and Audience Claim Value; both are empty by
// default, and tokens without them are refused.
//
// The keys are discovered if the manager has Use Centralized Signing Key switched on. Otherwise, set JWKSURL to https://HOST/ext/PATH
// with its JWKS Endpoint Path. The tokens have no typ unless Type Header Value is set, an array as scope unless Space Delimit Scope
// Values is on, and may lack iat and jti. They have sub only if the attribute contract does. They must have scope and client_id, which
// ID tokens do not have. Internally managed reference tokens are opaque: use package introspect for them.
func PingFederate(p Params) (jwks.Config, error) { return pingFederate.build(p) }

var pingFederate = product{
	name:  "pingfederate",
	needs: needsIssuer | needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Profile = jwks.Profile{
			AllowUntyped:         true,
			AllowScopeArray:      true,
			AllowMissingID:       true,
			AllowMissingIssuedAt: true,
			AllowMissingSubject:  true,
		}
		cfg.RequireScope = true
	},
}

// PingOne returns the settings for the access tokens of a PingOne environment. It needs Issuer (https://auth.pingone.REGION/ENV/as, or
// https://DOMAIN/as with a custom domain) and Audience, the audience of the custom resource. A token that only has OpenID scopes is for
// PingOne's own API.
//
// The tokens have no typ unless the resource is set to send it, and no sub if they represent a client. They must have scope, which ID
// tokens do not have.
func PingOne(p Params) (jwks.Config, error) { return pingOne.build(p) }

var pingOne = product{
	name:  "pingone",
	needs: needsIssuer | needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingSubject: true}
		cfg.RequireScope = true
	},
}

// PingAM returns the settings for the client-side access tokens of PingAM (formerly ForgeRock AM) and PingOne Advanced Identity Cloud.
// It needs Issuer (https://HOST/am/oauth2/realms/root/realms/REALM), and Audience or Clients.
//
// In the OAuth2 Provider service, switch on Use Client-Side Access & Refresh Tokens, and set OAuth2 Token Signing Algorithm to RS256 or
// ES256: the default is HS256. Server-side tokens are opaque: use package introspect for them.
//
// The aud of the tokens is the ID of the client unless an access token modification script replaces it. With Audience, the script must
// write the API's name into aud, and client_id too if Clients is set. Without Audience, the client is the recipient: any API that
// receives a token of such a client could use it here. The tokens have the typ "JWT", an array as scope and no client_id. The claim
// tokenName must be access_token.
func PingAM(p Params) (jwks.Config, error) { return pingAM.build(p) }

var pingAM = product{
	name:  "pingam",
	needs: needsIssuer,
	takes: needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowScopeArray: true, AllowMissingClientID: true}
		cfg.Markers = []claims.Rule{claims.Equal("tokenName", "access_token")}
		clientIsAudience(p, cfg, wrong)
	},
}

// Curity returns the settings for the access tokens of the Curity Identity Server that are JWTs. It needs Issuer
// (https://HOST/oauth/v2/oauth-anonymous), and Audience or Clients.
//
// Clients receive opaque tokens by default. A gateway exchanges them for JWTs (the phantom token approach), which this constructor is
// for; without a gateway, use package introspect or a token issuer that issues JWTs. The aud of the tokens is the ID of the client
// unless the scope or the client has an audience. Without Audience, the client is the recipient: any API that receives a token of such a
// client could use it here. With both Audience and Clients, the tokens need the claim client_id.
//
// The tokens have no typ, and no client_id by default. The claim purpose must be access_token.
func Curity(p Params) (jwks.Config, error) { return curity.build(p) }

var curity = product{
	name:  "curity",
	needs: needsIssuer,
	takes: needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingClientID: true}
		cfg.Markers = []claims.Rule{claims.Equal("purpose", "access_token")}
		clientIsAudience(p, cfg, wrong)
	},
}

// WSO2 returns the settings for the access tokens of the type JWT of WSO2 Identity Server, Asgardeo and WSO2 API Manager. It needs
// Issuer (https://HOST/oauth2/token, or https://HOST/t/TENANT/oauth2/token), and Audience or Clients, the consumer keys of applications.
//
// Applications receive opaque tokens by default in Identity Server: set the access token type to JWT, or use package introspect. The
// aud of the tokens is the ID of the client; audiences of the application are added to it. Without Audience, the client is the
// recipient: any API that receives a token of such a client could use it here.
//
// Tokens of API Manager and of older servers have no typ "at+jwt", and the client in azp. The claim aut must be APPLICATION,
// APPLICATION_USER or AGENT; ID tokens do not have it.
func WSO2(p Params) (jwks.Config, error) { return wso2.build(p) }

var wso2 = product{
	name:  "wso2",
	needs: needsIssuer,
	takes: needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingClientID: true}
		cfg.Markers = []claims.Rule{claims.OneOf("aut", "APPLICATION", "APPLICATION_USER", "AGENT")}
		clientIsAudience(p, cfg, wrong)
		cfg.ClientIDClaim = "" // the tokens name the client in another claim
	},
}
