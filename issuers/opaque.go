package issuers

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/tokenclaims"
	"github.com/valetkey/valetkey/introspect"
)

// An introspected is the description of one product's introspection endpoint and its responses. Each product needs Issuer and Audience
// and has no use for the other parameters.
type introspected struct {
	name string // in configuration files; that of the product's JWTs

	// config adds the settings of the product to cfg, which contains the parameters already, and mistakes in them to wrong.
	config func(cfg *introspect.Config, wrong *mistakes.List)
}

// build returns the settings for p.
func (x introspected) build(p Params) (introspect.Config, error) {
	wrong := mistakes.List{Package: "issuers: introspection of " + x.name}
	wrong.AddIf(p.Issuer == "", "Issuer", "required")
	if len(p.Audience) == 0 {
		wrong.Add("Audience", "required")
	} else {
		wrong.Within("Audience", tokenclaims.CheckAudience(p.Audience))
	}
	const meaningless = "has no meaning for introspection, which checks issuer and audience"
	wrong.AddIf(len(p.Tenants) > 0, "Tenants", meaningless)
	wrong.AddIf(len(p.Clients) > 0, "Clients", meaningless)
	wrong.AddIf(len(p.Rules) > 0, "Rules", meaningless)
	cfg := introspect.Config{Issuer: p.Issuer, Audience: slices.Clone(p.Audience)}
	x.config(&cfg, &wrong)
	if err := wrong.Err(); err != nil {
		return introspect.Config{}, err
	}
	return cfg, nil
}

// introspections are all products with a constructor for introspection, by name.
var introspections = func(all ...introspected) map[string]introspected {
	byName := make(map[string]introspected, len(all))
	for _, x := range all {
		byName[x.name] = x
	}
	return byName
}(keycloakIntrospection, zitadelIntrospection, hydraIntrospection, duendeIntrospection, springIntrospection, uaaIntrospection)

// IntrospectionNames returns the names by which [NamedIntrospection] knows the products, sorted.
func IntrospectionNames() []string { return slices.Sorted(maps.Keys(introspections)) }

// NamedIntrospection returns what the constructor of the product with this name returns. It is for configuration files: the name of
// [KeycloakIntrospection] is "keycloak". The error lists an unknown name, or every mistake in p.
func NamedIntrospection(name string, p Params) (introspect.Config, error) {
	x, known := introspections[name]
	if !known {
		return introspect.Config{}, fmt.Errorf("issuers: %q is not one of %q", name, IntrospectionNames())
	}
	return x.build(p)
}

// KeycloakIntrospection returns the settings for the introspection of the access tokens of a Keycloak realm, without Auth. It needs Issuer
// (https://HOST/realms/REALM) and Audience. Auth is that of a confidential client for this API. Since version 26.6.2, its client ID must be
// in the aud of the tokens: let an audience mapper include the client, and use its ID as Audience.
//
// It is for lightweight access tokens, which leave most claims to the response. They are JWTs of the realm, which is therefore in
// JWTIssuers: a token of the realm that is not lightweight is introspected, too. The aud of responses is written by an audience mapper
// that has "Add to token introspection" switched on, which is its default. Responses about ID tokens and refresh tokens are refused by
// their typ. The audience "account" is a mistake: the responses about nearly all tokens of the realm have it.
func KeycloakIntrospection(p Params) (introspect.Config, error) {
	return keycloakIntrospection.build(p)
}

var keycloakIntrospection = introspected{
	name: "keycloak",
	config: func(cfg *introspect.Config, wrong *mistakes.List) {
		cfg.JWTIssuers = []string{cfg.Issuer}
		wrong.AddIf(slices.Contains(cfg.Audience, "account"), "Audience", `has "account", which every token of the realm can have, for any API`)
	},
}

// ZitadelIntrospection returns the settings for the introspection of the opaque access tokens of ZITADEL, and of its personal access
// tokens, without Auth. It needs Issuer and Audience, the ID of the project of this API.
//
// Auth is that of an application of the type API in this project: [introspect.BasicAuth], or [introspect.PrivateKeyJWT] with the key ID as
// the kid of the key. ZITADEL reports a token as inactive to all others. The aud has the IDs of all applications of the project, so any API
// of the project could use a token here. A personal access token needs an expiration date: ZITADEL gives one without the exp of the year
// 9999, and a date more than ten years ahead is refused.
func ZitadelIntrospection(p Params) (introspect.Config, error) { return zitadelIntrospection.build(p) }

var zitadelIntrospection = introspected{name: "zitadel", config: unchanged}

// OryHydraIntrospection returns the settings for the introspection of the opaque access tokens of Ory Hydra and of Ory Network, without
// Auth. It needs Issuer, exactly as urls.self.issuer (Hydra 1 adds a slash), and Audience, which the client must be allowed and must
// request: without that, aud is an empty list, and the token is refused.
//
// The endpoint is not in the metadata. The caller must set URL: http://ADMIN:4445/admin/oauth2/introspect on the admin port of Hydra 2,
// /oauth2/introspect of Hydra 1, or https://SLUG.projects.oryapis.com/admin/oauth2/introspect of Ory Network. The port requires no
// credentials: set [introspect.NoAuth], and InsecureHTTP if it has no TLS and is not on loopback. Ory Network requires
// [introspect.BearerAuth] with an API key. Responses about refresh tokens are refused by their token_use or, of Hydra 1, token_type.
func OryHydraIntrospection(p Params) (introspect.Config, error) { return hydraIntrospection.build(p) }

var hydraIntrospection = introspected{name: "ory_hydra", config: unchanged}

// DuendeIntrospection returns the settings for the introspection of the reference tokens of Duende IdentityServer and IdentityServer4,
// without Auth. It needs Issuer and Audience, the name of the ApiResource of this API.
//
// Auth is [introspect.BasicAuth] with this name and one of the resource's ApiSecrets. Responses have only those scopes of a token that
// belong to the resource, and a token without any of them is inactive. A token without an API resource has no aud and is refused. The
// audience ISSUER/resources (EmitStaticAudienceClaim) is a mistake: every token of the server has it.
func DuendeIntrospection(p Params) (introspect.Config, error) { return duendeIntrospection.build(p) }

var duendeIntrospection = introspected{
	name: "duende",
	config: func(cfg *introspect.Config, wrong *mistakes.List) {
		static := strings.TrimSuffix(cfg.Issuer, "/") + "/resources"
		wrong.AddIf(slices.Contains(cfg.Audience, static), "Audience", "has %q, which every token of the server can have, for any API", static)
	},
}

// SpringAuthorizationServerIntrospection returns the settings for the introspection of the reference tokens
// (OAuth2TokenFormat.REFERENCE) of Spring Authorization Server, without Auth. It needs Issuer and Audience.
//
// The aud of a token is the ID of the client unless an OAuth2TokenCustomizer<OAuth2TokenClaimsContext> replaces it. Audience is what the
// customizer writes. Without a customizer, it is the IDs of the clients whose tokens are accepted; any API that receives a token of such a
// client could then use it here. Auth is that of any registered client. Responses about refresh tokens and authorization codes have no aud
// and are refused.
func SpringAuthorizationServerIntrospection(p Params) (introspect.Config, error) {
	return springIntrospection.build(p)
}

var springIntrospection = introspected{name: "spring_authorization_server", config: unchanged}

// CloudFoundryUAAIntrospection returns the settings for the introspection of the opaque access tokens (token_format=opaque) of Cloud
// Foundry's UAA, without Auth. It needs Issuer (https://uaa.HOST) and Audience, the resource ID of the API: the part of its scopes before
// the last dot.
//
// Auth is [introspect.RawBasicAuth], since UAA does not decode the credentials, with a client that has the authority uaa.resource. The
// endpoint is not in the metadata: it is /introspect of the server. The iss of responses is the server's URL with /oauth/token. Their
// scopes are an array. The aud also contains the client's ID, so a client must not have the name of the API. The audience "openid" is a
// mistake: every token with that scope has it.
func CloudFoundryUAAIntrospection(p Params) (introspect.Config, error) {
	return uaaIntrospection.build(p)
}

var uaaIntrospection = introspected{
	name: "cloud_foundry_uaa",
	config: func(cfg *introspect.Config, wrong *mistakes.List) {
		server := strings.TrimSuffix(strings.TrimSuffix(cfg.Issuer, "/"), "/oauth/token")
		cfg.Issuer, cfg.URL = server+"/oauth/token", server+"/introspect"
		cfg.AllowScopeArray = true
		wrong.AddIf(slices.Contains(cfg.Audience, "openid"), "Audience", `has "openid", which every token with that scope has, for any API`)
	},
}

// unchanged is for a product whose responses are those of RFC 7662 and whose endpoint is not known to differ.
func unchanged(*introspect.Config, *mistakes.List) {}
