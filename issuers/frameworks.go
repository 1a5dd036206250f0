package issuers

import (
	"slices"
	"strings"

	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/jwks"
)

// frameworkProducts are the frameworks with which an authorization server is programmed.
var frameworkProducts = []product{duende, identityServerLegacy, openIddict, springAuthorizationServer}

// Duende returns the settings for the access tokens of Duende IdentityServer, and of IdentityServer4 since version 4. It needs Issuer
// and Audience, the names of the API resources.
//
// The tokens have an array as scope unless EmitScopesAsSpaceDelimitedStringInJwt is set, no jti if the client has IncludeJwtId
// switched off, and no sub if they represent a client. Without an API resource they have no aud and are refused. With
// EmitStaticAudienceClaim, every token of the server has the aud ISSUER/resources. To accept it nevertheless, list it in Audience, and
// the clients in Clients, which is then required. Reference tokens are opaque: use package introspect for them.
func Duende(p Params) (jwks.Config, error) { return duende.build(p) }

var duende = product{
	name:  "duende",
	needs: needsIssuer | needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		identityServer(p, cfg, wrong)
	},
}

// IdentityServerLegacy returns the settings for the access tokens of IdentityServer3, of IdentityServer4 before version 4, and of later
// versions with another AccessTokenJwtType than at+jwt. It needs Issuer and Audience. Prefer [Duende].
//
// In addition to what [Duende] accepts, the tokens have the typ "JWT" or none, and no iat. They must have scope and client_id, which
// ID tokens do not have. The aud of IdentityServer3 is ISSUER/resources for every API, so Clients is then required.
func IdentityServerLegacy(p Params) (jwks.Config, error) { return identityServerLegacy.build(p) }

var identityServerLegacy = product{
	name:  "identityserver_legacy",
	needs: needsIssuer | needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		identityServer(p, cfg, wrong)
		cfg.Profile.AllowUntyped, cfg.Profile.AllowMissingIssuedAt = true, true
		cfg.RequireScope = true
	},
}

func identityServer(p Params, cfg *jwks.Config, wrong *mistakes.List) {
	cfg.Profile.AllowScopeArray, cfg.Profile.AllowMissingID, cfg.Profile.AllowMissingSubject = true, true, true
	static := strings.TrimSuffix(p.Issuer, "/") + "/resources"
	wrong.AddIf(slices.Contains(p.Audience, static) && len(p.Clients) == 0, "Clients",
		"required with the audience %q, which every token of the server can have", static)
}

// OpenIddict returns the settings for the access tokens of OpenIddict since version 3, alone or in ABP and Orchard Core. It needs Issuer
// and Audience, the resources of the tokens (SetResources). An Issuer without a path is completed with the slash that OpenIddict
// appends.
//
// By default, OpenIddict encrypts access tokens: call DisableAccessTokenEncryption at the server, or use package introspect. Reference
// tokens and tokens of Data Protection are opaque, too. The tokens follow RFC 9068 except that those of clients may lack sub.
func OpenIddict(p Params) (jwks.Config, error) { return openIddict.build(p) }

var openIddict = product{
	name:  "openiddict",
	needs: needsIssuer | needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Issuer = withSlash(cfg.Issuer)
		cfg.Profile.AllowMissingSubject = true
	},
}

// withSlash returns issuer with a slash at its end if it is an origin without one.
func withSlash(issuer string) string {
	if _, rest, ok := strings.Cut(issuer, "://"); ok && rest != "" && !strings.ContainsAny(rest, "/?#@{") {
		return issuer + "/"
	}
	return issuer
}

// SpringAuthorizationServer returns the settings for the access tokens of Spring Authorization Server, which is part of Spring Security
// since version 7. It needs Issuer, and Audience or Clients.
//
// The aud of the tokens is the ID of the client unless an OAuth2TokenCustomizer replaces it. With Audience, the customizer must write
// the API's name into the aud of access tokens. If Clients is set as well, it must also write the claim client_id. Without Audience,
// the client is the recipient: any API that receives a token of such a client could use it here.
//
// The tokens have no typ, an array as scope, no client_id, and before version 1.1 no jti. ID tokens have the same aud but no scope.
// Tokens without scope are therefore refused, also those of clients that request no scope.
func SpringAuthorizationServer(p Params) (jwks.Config, error) {
	return springAuthorizationServer.build(p)
}

var springAuthorizationServer = product{
	name:  "spring_authorization_server",
	needs: needsIssuer,
	takes: needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowScopeArray: true, AllowMissingClientID: true, AllowMissingID: true}
		cfg.RequireScope = true
		clientIsAudience(p, cfg, wrong)
	},
}

// clientIsAudience adds the settings for a product that writes the client's ID into aud unless it is configured otherwise. The tokens
// must prove in another way that they are access tokens, since the ID tokens of the client have the same aud.
func clientIsAudience(p Params, cfg *jwks.Config, wrong *mistakes.List) {
	switch {
	case len(p.Audience) > 0: // the aud is configured
	case len(p.Clients) == 0:
		wrong.Add("Audience, Clients", "one of them is required: the aud of the tokens is the client's ID by default")
	default:
		cfg.Audience, cfg.ClientIDClaim = slices.Clone(p.Clients), "aud"
	}
}
