package issuers

import (
	"slices"
	"strings"

	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/jwks"
)

// frameworkProducts are the frameworks with which an authorization server is programmed, and small servers.
var frameworkProducts = []product{
	duende, identityServerLegacy, openIddict, springAuthorizationServer, nodeOIDCProvider, laravelPassport, lightOAuth2, oathkeeperIDTokens,
}

// Duende returns the settings for the access tokens of Duende IdentityServer, and of IdentityServer4 since version 4. It needs Issuer
// and Audience, the names of the API resources.
//
// The tokens have an array as scope unless EmitScopesAsSpaceDelimitedStringInJwt is set, no jti if the client has IncludeJwtId
// switched off, and no sub if they represent a client. Without an API resource they have no aud and are refused. With
// EmitStaticAudienceClaim, every token of the server has the aud ISSUER/resources. To accept it nevertheless, list it in Audience, and
// the clients in Clients, which is then required. Reference tokens are opaque: use [DuendeIntrospection].
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
// Tokens without scope are therefore refused, also those of clients that request no scope. Reference tokens are opaque: use
// [SpringAuthorizationServerIntrospection].
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

// NodeOIDCProvider returns the settings for the access tokens of node-oidc-provider. It needs Issuer and Audience, the audience of the
// resource server that getResourceServerInfo returns.
//
// The tokens are opaque unless the client requests a resource whose accessTokenFormat is jwt; use package introspect for opaque ones.
// Those that are JWTs follow RFC 9068, so nothing is weakened.
func NodeOIDCProvider(p Params) (jwks.Config, error) { return nodeOIDCProvider.build(p) }

var nodeOIDCProvider = product{
	name:   "node_oidc_provider",
	needs:  needsIssuer | needsAudience,
	config: func(Params, *jwks.Config, *mistakes.List) {},
}

// LaravelPassport returns the settings for the access tokens of Laravel Passport. It needs Issuer, a name for the application such as its
// URL, and Clients.
//
// Passport publishes no key set. The caller must set JWKS to one with the key in storage/oauth-public.key, or JWKSURL if the application
// publishes one. The tokens have the typ "JWT", no kid, no iss, no client_id, and no sub if they represent a client before version 13.
// Their scopes are in the claim scopes, which is required: packages for OpenID Connect sign ID tokens with the same key.
//
// The aud of the tokens is the ID of the client: any API that receives a token of such a client could use it here.
func LaravelPassport(p Params) (jwks.Config, error) { return laravelPassport.build(p) }

var laravelPassport = product{
	name:  "laravel_passport",
	needs: needsIssuer | needsClients,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		cfg.Profile = jwks.Profile{
			AllowUntyped:         true,
			AllowMissingIssuer:   true,
			AllowMissingKeyID:    true,
			AllowMissingSubject:  true,
			AllowMissingClientID: true,
		}
		cfg.Scopes, cfg.RequireScope = []string{"scopes"}, true
		cfg.Audience, cfg.ClientIDClaim = slices.Clone(p.Clients), "aud"
		cfg.Rules = append(cfg.Rules, claims.OneOf("aud", p.Clients...))
	},
}

// LightOAuth2 returns the settings for the access tokens of light-oauth2 (networknt). It needs Issuer (such as
// urn:com:networknt:oauth2:v1) and Audience (such as urn:com.networknt).
//
// The server publishes single keys, not a key set: the caller must set JWKS to one with the server's certificate or key. The tokens have
// no typ, no kid, no sub (users are in user_id), and an array as scope, which is required. All APIs of a server share the audience.
func LightOAuth2(p Params) (jwks.Config, error) { return lightOAuth2.build(p) }

var lightOAuth2 = product{
	name:  "light_oauth2",
	needs: needsIssuer | needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingKeyID: true, AllowMissingSubject: true, AllowScopeArray: true}
		cfg.RequireScope = true
	},
}

// OathkeeperIDTokens returns the settings for the tokens of the id_token mutator of Ory Oathkeeper, which it sends to the API behind it in
// place of the client's credentials. It needs Issuer, the issuer_url of the mutator, and Audience, which the mutator's claims must
// contain as aud: {"aud": ["https://api.example.com"]}.
//
// The keys are at ISSUER/.well-known/jwks.json, which Oathkeeper serves at its API port. If that has another address, change JWKSURL.
// The tokens have the typ "JWT", no client and no scopes; they cannot be distinguished from ID tokens. They must have one audience. To
// require more, such as a scope, let the mutator add a claim for it, and add it to Scopes.
func OathkeeperIDTokens(p Params) (jwks.Config, error) { return oathkeeperIDTokens.build(p) }

var oathkeeperIDTokens = product{
	name:  "oathkeeper_id_tokens",
	needs: needsIssuer | needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowIDTokens: true}
		cfg.JWKSURL = strings.TrimSuffix(cfg.Issuer, "/") + "/.well-known/jwks.json"
	},
}
