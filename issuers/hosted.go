package issuers

import (
	"strings"

	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/jwks"
)

// hostedProducts are the login services that their vendors operate, and products that resemble them.
var hostedProducts = []product{auth0, auth0RFC9068, okta}

// Auth0 returns the settings for the access tokens of an Auth0 API with the default token profile (the dialects access_token and
// access_token_authz). It needs Issuer and Audience, the identifier of the API. Issuer is the domain as the dashboard shows it
// (TENANT.eu.auth0.com, or a custom domain) or its URL; the iss of the tokens, https://DOMAIN/, ends with a slash. A token that was
// requested through another domain of the tenant has that domain as its iss: add it to IssuerAliases.
//
// The tokens have the typ "JWT", no jti, and the client in azp. ID tokens have the ID of the client as their aud. A token that was
// requested without an audience is opaque, or encrypted, and only for Auth0's userinfo endpoint.
//
// To use the permissions of RBAC as scopes, add "permissions" to Scopes. An API that signs with HS256 needs Secret and Algorithms.
func Auth0(p Params) (jwks.Config, error) { return auth0.build(p) }

var auth0 = product{
	name:  "auth0",
	needs: needsIssuer | needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Issuer = ofDomain(cfg.Issuer)
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingClientID: true, AllowMissingID: true}
	},
}

// Auth0RFC9068 returns the settings for the access tokens of an Auth0 API with the RFC 9068 token profile (the dialects rfc9068_profile
// and rfc9068_profile_authz). It needs the same parameters as [Auth0]. The tokens lack nothing, and those of the default profile are
// refused. Prefer it to [Auth0].
func Auth0RFC9068(p Params) (jwks.Config, error) { return auth0RFC9068.build(p) }

var auth0RFC9068 = product{
	name:  "auth0_rfc9068",
	needs: needsIssuer | needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Issuer = ofDomain(cfg.Issuer)
	},
}

// ofDomain returns the issuer of a domain, https://DOMAIN/. It leaves everything else as it is, except for the slash of an origin.
func ofDomain(issuer string) string {
	if issuer != "" && !strings.ContainsAny(issuer, ":/?#@{ ") {
		issuer = "https://" + issuer
	}
	return withSlash(issuer)
}

// Okta returns the settings for the access tokens of an Okta custom authorization server, also of the one named default. It needs Issuer
// (https://ORG.okta.com/oauth2/default, or the same of a custom domain) and Audience. Every API of the server named default has the
// audience api://default unless the server is changed. To separate two APIs, use two servers.
//
// The tokens have no typ. The client is in cid and the scopes in scp, which ID tokens do not have. Both are required. sub is the login
// of the user; the ID of the user is in uid. To use groups as scopes, add a groups claim to access tokens, and "groups" to Scopes.
//
// The tokens of the org authorization server, whose issuer is https://ORG.okta.com, are for Okta's own API. Okta does not publish all of
// its keys. Such an Issuer is a mistake.
func Okta(p Params) (jwks.Config, error) { return okta.build(p) }

var okta = product{
	name:  "okta",
	needs: needsIssuer | needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		_, server, custom := strings.Cut(p.Issuer, "/oauth2/")
		if p.Issuer != "" && (!custom || server == "" || server == "v1") {
			wrong.Add("Issuer", "%q is not a custom authorization server (https://HOST/oauth2/ID); the tokens of the org authorization server are for Okta's API only", p.Issuer)
		}
		cfg.Profile.AllowUntyped = true
		cfg.ClientIDClaim, cfg.Scopes, cfg.RequireScope = "cid", []string{"scp"}, true
	},
}
