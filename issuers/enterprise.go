package issuers

import (
	"net/url"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/jwks"
)

// enterpriseProducts are the products that a company operates, or rents, for its own users.
var enterpriseProducts = []product{casdoor, curity, janssen, oracleIAM, pingAM, pingFederate, pingOne, stytch, wso2}

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

// oracleIssuer is the iss of the tokens of every identity domain of Oracle.
const oracleIssuer = "https://identity.oraclecloud.com/"

// OracleIAM returns the settings for the access tokens of an identity domain of Oracle Cloud Infrastructure, or of Oracle Identity Cloud
// Service. It needs Issuer, the URL of the domain (https://idcs-ID.identity.oraclecloud.com), and Audience, the primary audience of the
// resource application.
//
// The iss of the tokens of all domains is https://identity.oraclecloud.com/, so the keys and, if the URL names it, the claim tenant
// prove the domain. For the same reason, the verifiers of two domains cannot be combined with [jwks.ByIssuer]. In the domain's settings,
// Access signing certificate must be switched on. The tokens have no typ. The claim tok_type must be AT.
func OracleIAM(p Params) (jwks.Config, error) { return oracleIAM.build(p) }

var oracleIAM = product{
	name:  "oracle_iam",
	needs: needsIssuer | needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		cfg.Profile.AllowUntyped = true
		cfg.Markers = []claims.Rule{claims.Equal("tok_type", "AT")}
		if p.Issuer == "" {
			return // build reports it
		}
		domain, err := url.Parse(p.Issuer)
		if err != nil || domain.Host == "" || strings.Trim(domain.Path, "/") != "" || domain.Hostname() == "identity.oraclecloud.com" {
			wrong.Add("Issuer", "must be the URL of the identity domain, such as https://idcs-1234.identity.oraclecloud.com")
			return
		}
		cfg.Issuer = oracleIssuer
		cfg.IssuerAliases = []string{strings.TrimSuffix(oracleIssuer, "/"), strings.TrimSuffix(p.Issuer, "/")}
		cfg.JWKSURL = strings.TrimSuffix(p.Issuer, "/") + "/admin/v1/SigningCert/jwk"
		if tenant, _, _ := strings.Cut(domain.Hostname(), "."); strings.HasPrefix(tenant, "idcs-") {
			cfg.Rules = append(cfg.Rules, claims.Equal("tenant", tenant))
		}
	},
}

// CasdoorIDTokens returns the settings for the tokens of Casdoor, which returns the same token as access token and as ID token; see
// jwks.Profile.AllowIDTokens. It needs Issuer (the origin of the server) and Clients, the client IDs of applications.
//
// The aud of the tokens is the ID of the client: any API that receives a token of such a client could use it here. If clients request a
// resource (RFC 8707), list it in Audience. The tokens have the typ "JWT", no client_id, and a nonce if the client sent one. The claim
// tokenType must be access-token, and the client must be in azp.
func CasdoorIDTokens(p Params) (jwks.Config, error) { return casdoor.build(p) }

var casdoor = product{
	name:  "casdoor_id_tokens",
	needs: needsIssuer | needsClients,
	takes: needsAudience,
	config: func(p Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowIDTokens: true}
		cfg.Markers = []claims.Rule{claims.Equal("tokenType", "access-token"), claims.Present("azp")}
		cfg.Audience = slices.Concat(p.Audience, p.Clients)
	},
}

// Stytch returns the settings for the session JWTs of Stytch. It needs Audience, the ID of the project. Issuer is needed only if the
// project has a custom domain.
//
// The tokens have the typ "JWT", no jti, no client and no scopes. All applications of a project share the audience. The claim
// https://stytch.com/session must be there; ID tokens and access tokens of Connected Apps do not have it. To use the roles of members as
// scopes, set Scopes to "https://stytch.com/session.roles". A rule about "https://stytch.com/organization.organization_id" restricts
// organizations. A session JWT lives 5 minutes. It remains valid for that time when the session is revoked.
func Stytch(p Params) (jwks.Config, error) { return stytch.build(p) }

var stytch = product{
	name:  "stytch",
	needs: needsAudience,
	takes: needsIssuer,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingID: true, AllowMissingClientID: true}
		cfg.Markers = []claims.Rule{claims.Present("https://stytch.com/session")}
		wrong.AddIf(len(p.Clients) > 0, "Clients", "has no meaning for this product, whose tokens name no client")
		if len(p.Audience) != 1 || !strings.HasPrefix(p.Audience[0], "project-") {
			wrong.AddIf(len(p.Audience) > 0, "Audience", "must be the ID of one project, which begins with project-")
			return
		}
		project, server := p.Audience[0], "https://api.stytch.com"
		if strings.HasPrefix(project, "project-test-") {
			server = "https://test.stytch.com"
		}
		if p.Issuer == "" {
			cfg.Issuer = "stytch.com/" + project
		}
		cfg.JWKSURL = server + "/v1/sessions/jwks/" + url.PathEscape(project)
	},
}

// Janssen returns the settings for the access tokens of the Janssen Server, Gluu Server and Gluu Flex that are JWTs. It needs Issuer, and
// Audience or Clients.
//
// The tokens are opaque unless the client has accessTokenAsJwt switched on; use package introspect for opaque ones. Their aud is the ID
// of the client, and its additionalAudience, where the API's name belongs. Without Audience, the client is the recipient: any API that
// receives a token of such a client could use it here.
//
// The tokens have the typ "JWT" and an array as scope, which is required: ID tokens have the same aud but no scope. The thumbprint of a
// client certificate is in a claim of the tokens that is not standard, and is not checked. Binding by DPoP is.
func Janssen(p Params) (jwks.Config, error) { return janssen.build(p) }

var janssen = product{
	name:  "janssen",
	needs: needsIssuer,
	takes: needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowScopeArray: true}
		cfg.RequireScope = true
		clientIsAudience(p, cfg, wrong)
		cfg.ClientIDClaim = "" // the tokens name the client in another claim
	},
}
