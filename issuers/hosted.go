package issuers

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/jwks"
)

// hostedProducts are the login services that their vendors operate, and products that resemble them.
var hostedProducts = []product{
	auth0, auth0RFC9068, okta, clerk, clerkOAuth, supabase, workOS, workOSConnect, descope, kinde, logto, fusionAuth,
	fusionAuthEntities, zitadel,
}

// Auth0 returns the settings for the access tokens of an Auth0 API with the default token profile (the dialects access_token and
// access_token_authz). It needs Issuer and Audience, the identifier of the API. Issuer is the domain as the dashboard shows it
// (TENANT.eu.auth0.com, or a custom domain) or its URL; the iss of the tokens, https://DOMAIN/, ends with a slash. A token that was
// requested through another domain of the tenant has that domain as its iss: add it to IssuerAliases.
//
// The tokens have the typ "JWT", no jti, and the client in azp. ID tokens differ by their aud, which is the ID of the client. So an
// Audience that has the form of a client ID (32 letters and digits) is a mistake, and so are the APIs of Auth0 itself: the aud of every
// token with the scope openid contains that of userinfo. A token that was requested without an audience is opaque, or encrypted, and
// only for Auth0's userinfo endpoint.
//
// To use the permissions of RBAC as scopes, add "permissions" to Scopes. An API that signs with HS256 needs Secret and Algorithms.
func Auth0(p Params) (jwks.Config, error) { return auth0.build(p) }

var auth0 = product{
	name:  "auth0",
	needs: needsIssuer | needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		auth0Names(p, cfg, wrong)
		for i, a := range p.Audience {
			wrong.AddIf(auth0Client.MatchString(a), fmt.Sprintf("Audience[%d]", i),
				"%q has the form of a client ID, which is the aud of ID tokens; use the identifier of the API", a)
		}
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingClientID: true, AllowMissingID: true}
	},
}

// Auth0RFC9068 returns the settings for the access tokens of an Auth0 API with the RFC 9068 token profile (the dialects rfc9068_profile
// and rfc9068_profile_authz). It needs the same parameters as [Auth0]. The tokens lack nothing, and those of the default profile are
// refused. Prefer it to [Auth0].
func Auth0RFC9068(p Params) (jwks.Config, error) { return auth0RFC9068.build(p) }

var auth0RFC9068 = product{
	name:   "auth0_rfc9068",
	needs:  needsIssuer | needsAudience,
	config: auth0Names,
}

var auth0Client = regexp.MustCompile(`^[A-Za-z0-9]{32}$`)

// auth0Names completes the issuer, and reports an Audience that is an API of Auth0 itself.
func auth0Names(p Params, cfg *jwks.Config, wrong *mistakes.List) {
	cfg.Issuer = ofDomain(cfg.Issuer)
	for i, a := range p.Audience {
		host, own := strings.CutSuffix(a, "userinfo")
		if !own {
			host, own = strings.CutSuffix(a, "api/v2/")
		}
		wrong.AddIf(own && (host == cfg.Issuer || strings.HasSuffix(host, ".auth0.com/")), fmt.Sprintf("Audience[%d]", i),
			"%q is an API of Auth0 itself; use the identifier of this API", a)
	}
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
		cfg.Issuer = strings.TrimSuffix(cfg.Issuer, "/")
		_, server, _ := strings.Cut(cfg.Issuer, "/oauth2/")
		wrong.AddIf(p.Issuer != "" && (server == "" || server == "v1"), "Issuer",
			"%q is not a custom authorization server (https://HOST/oauth2/ID); the tokens of the org authorization server are for Okta's API only", p.Issuer)
		cfg.Profile.AllowUntyped = true
		cfg.ClientIDClaim, cfg.Scopes, cfg.RequireScope = "cid", []string{"scp"}, true
	},
}

// Clerk returns the settings for the session tokens of Clerk, version 2. It needs Issuer, the Frontend API URL
// (https://clerk.example.com or https://NAME.clerk.accounts.dev), and Clients or Audience.
//
// The tokens have no aud. Clients lists the origins of the frontends that may use this API: the azp of a token is the Origin of the
// request that it was issued to. Without it, any web page of the instance could use the API with its session. Native apps have no
// origin: add the claim aud to the session token (Sessions > Customize session token) and list its value in Audience.
//
// The claim sts must be active and sid present. That excludes sessions that are pending, for example until the user joins an
// organization, tokens of JWT templates, which are for other services, tokens of machines, and version 1 of the session token. The tokens
// have no scope, and many have no jti. The actor of a token is the person who impersonates the user.
func Clerk(p Params) (jwks.Config, error) { return clerk.build(p) }

var clerk = product{
	name:  "clerk",
	needs: needsIssuer,
	takes: needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		cfg.Issuer = withoutSlash(cfg.Issuer)
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingClientID: true, AllowMissingID: true}
		cfg.Markers = []claims.Rule{claims.Equal("sts", "active"), claims.Present("sid")}
		if len(p.Clients) > 0 {
			cfg.Audience, cfg.AudienceClaim = slices.Concat(p.Audience, p.Clients), "azp"
		}
		wrong.AddIf(len(p.Clients) == 0 && len(p.Audience) == 0, "Clients, Audience",
			"one of them is required: the origins of the frontends, or the aud that the session token is customized with")
	},
}

// ClerkOAuth returns the settings for the access tokens that Clerk issues to OAuth applications as JWTs ("Generate access tokens as JWTs"
// in the settings of OAuth applications, on for new ones). It needs Issuer, as [Clerk] does, and Clients, the IDs of the applications.
//
// The tokens have the typ at+jwt but no aud. Without it, the client is the recipient: any API that receives a token of such a client
// could use it here. Audience is optional, for tokens that have an aud. A scope is required. Opaque tokens start with oat_: only
// Clerk's Backend API can verify them.
func ClerkOAuth(p Params) (jwks.Config, error) { return clerkOAuth.build(p) }

var clerkOAuth = product{
	name:  "clerk_oauth",
	needs: needsIssuer | needsClients,
	takes: needsAudience,
	config: func(p Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Issuer = withoutSlash(cfg.Issuer)
		cfg.Profile.AllowScp, cfg.RequireScope = true, true
		cfg.Audience, cfg.AudienceClaim = slices.Concat(p.Audience, p.Clients), "client_id"
	},
}

// Supabase returns the settings for the access tokens of the users of a Supabase project. It needs Issuer, the URL of the project
// (https://REF.supabase.co) or the iss of its tokens (https://REF.supabase.co/auth/v1). Audience is "authenticated" unless it is given.
//
// Every user of the project has this audience, also an anonymous one. To refuse anonymous users, add the rule
// claims.Equal("is_anonymous", "false"). The tokens have no jti and no scope. The role must be authenticated, and session_id present. That
// excludes the anon and service_role keys, which live for years and have the iss "supabase".
//
// Tokens that were issued to OAuth applications of the project have the claim client_id. They are refused unless Clients lists their
// clients; then the sessions of the project's own frontend, which have no client, are refused.
//
// A project that still signs with the legacy secret needs Secret and Algorithms (HS256) in place of JWKSURL. Anyone who holds that secret
// can issue tokens: rotate to an asymmetric key instead.
func Supabase(p Params) (jwks.Config, error) { return supabase.build(p) }

var supabase = product{
	name:  "supabase",
	needs: needsIssuer,
	takes: needsAudience,
	config: func(p Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Issuer = withPath(cfg.Issuer, "/auth/v1")
		cfg.JWKSURL = cfg.Issuer + "/.well-known/jwks.json"
		if len(p.Audience) == 0 {
			cfg.Audience = []string{"authenticated"}
		}
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingID: true}
		cfg.Markers = []claims.Rule{claims.Equal("role", "authenticated"), claims.Present("session_id")}
		if len(p.Clients) == 0 {
			cfg.Profile.AllowMissingClientID = true
			cfg.Markers = append(cfg.Markers, claims.Absent("client_id"))
		}
	},
}

// WorkOS returns the settings for the access tokens of AuthKit sessions. It needs Clients, the client ID of the environment, exactly one.
// Issuer is optional: the custom authentication domain (https://auth.example.com), if there is one.
//
// The tokens have no aud unless a JWT template adds it, no client and no scope. The environment is the recipient: its ID is in the iss or
// in the URL of the key set. Every application of the environment gets such tokens. Audience, the aud of the template, is optional. The
// sid must be that of a session. The iss is accepted in its forms with and without a slash and user_management/CLIENT at its end. To
// use permissions as scopes, add "permissions" to Scopes.
func WorkOS(p Params) (jwks.Config, error) { return workOS.build(p) }

var workOS = product{
	name:  "workos",
	needs: needsClients,
	takes: needsIssuer | needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		if len(p.Clients) != 1 {
			wrong.AddIf(len(p.Clients) > 1, "Clients", "%q is more than the client ID of one environment", p.Clients)
			return
		}
		host, client := "https://api.workos.com", p.Clients[0]
		if p.Issuer != "" {
			host = strings.TrimSuffix(withoutSlash(p.Issuer), "/user_management/"+client)
		}
		cfg.Issuer = host + "/user_management/" + client
		cfg.IssuerAliases = []string{host, host + "/"}
		cfg.JWKSURL = "https://api.workos.com/sso/jwks/" + url.PathEscape(client)
		cfg.Audience, cfg.AudienceClaim = slices.Concat(p.Audience, []string{client, cfg.Issuer}, cfg.IssuerAliases), "iss"
		cfg.Clients = nil // the tokens do not have it
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingClientID: true}
		cfg.Markers = []claims.Rule{claims.Prefix("sid", "session_")}
	},
}

// WorkOSConnect returns the settings for the access tokens that WorkOS Connect issues to OAuth, machine-to-machine and MCP applications.
// It needs Issuer, the AuthKit domain (https://NAME.authkit.app), and Audience: the resource indicator of this API, or the client ID of
// the environment, which tokens of machines and those for no resource have.
//
// The tokens have no typ. The claims client_id and scope are required. ID tokens have the client as their aud, and no scope.
func WorkOSConnect(p Params) (jwks.Config, error) { return workOSConnect.build(p) }

var workOSConnect = product{
	name:  "workos_connect",
	needs: needsIssuer | needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Issuer = withoutSlash(cfg.Issuer)
		cfg.Profile.AllowUntyped, cfg.RequireScope = true, true
	},
}

// Descope returns the settings for the session tokens of a Descope project. It needs Issuer: the ID of the project (P...), or the iss of
// its tokens in a region or at a custom domain (https://api.euc1.descope.com/P...).
//
// The iss of a token is the ID or a URL that ends with it, depending on the JWT template; all are accepted. The tokens have no aud unless
// the template adds it, no client, no jti and no scope. The project is the recipient. Audience, the aud of the template, is optional. The
// claim drn must be DS: the refresh token is a JWT of the same key with DSR. To use permissions as scopes, add "permissions" to Scopes,
// for those of a tenant "tenants.TENANT.permissions".
func Descope(p Params) (jwks.Config, error) { return descope.build(p) }

var descope = product{
	name:  "descope",
	needs: needsIssuer,
	takes: needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		base, project := "https://api.descope.com", p.Issuer
		if u, err := url.Parse(p.Issuer); err == nil && u.Host != "" {
			base, project = u.Scheme+"://"+u.Host, strings.TrimPrefix(strings.TrimPrefix(u.Path, "/v1/apps"), "/")
		}
		if p.Issuer != "" && (!strings.HasPrefix(project, "P") || strings.ContainsAny(project, "/?# ")) {
			wrong.Add("Issuer", "%q is neither the ID of a project (P...) nor a URL that ends with one", p.Issuer)
		}
		cfg.Issuer = project
		cfg.IssuerAliases = []string{base + "/" + project, base + "/v1/apps/" + project}
		cfg.JWKSURL = base + "/" + project + "/.well-known/jwks.json"
		cfg.Audience, cfg.AudienceClaim = slices.Concat(p.Audience, []string{project}, cfg.IssuerAliases), "iss"
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingID: true}
		withoutClient(p, cfg, wrong)
		cfg.Markers = []claims.Rule{claims.Equal("drn", "DS"), claims.Absent("nonce"), claims.Absent("at_hash")}
	},
}

// Kinde returns the settings for the access tokens of Kinde, of users and of machines. It needs Issuer (https://NAME.kinde.com or a custom
// domain), and Audience or Clients.
//
// Audience is that of an API that is registered at Kinde and requested by the client. The aud of other tokens is an empty list. Without
// Audience, the client in azp is the recipient: any API that receives a token of such a client could use it here. The array scp is
// required, which ID tokens do not have. Tokens of machines have no sub. To use permissions as scopes, add "permissions" to Scopes.
func Kinde(p Params) (jwks.Config, error) { return kinde.build(p) }

var kinde = product{
	name:  "kinde",
	needs: needsIssuer,
	takes: needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		cfg.Issuer = withoutSlash(cfg.Issuer)
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingSubject: true}
		cfg.ClientIDClaim, cfg.Scopes, cfg.RequireScope = "azp", []string{"scp"}, true
		if len(p.Audience) == 0 {
			cfg.Audience, cfg.AudienceClaim = slices.Clone(p.Clients), "azp"
		}
		wrong.AddIf(len(p.Clients) == 0 && len(p.Audience) == 0, "Audience, Clients",
			"one of them is required: the audience of an API that is registered at Kinde, or the clients whose tokens are accepted")
	},
}

// Logto returns the settings for the access tokens of Logto. It needs Issuer, the endpoint of the tenant (https://TENANT.logto.app) or the
// iss of its tokens, which ends with /oidc, and Audience, the indicator of the API resource.
//
// The tokens lack nothing, if the client requests the resource. Otherwise they are opaque and for Logto's userinfo endpoint: the
// response of its introspection endpoint names no API. Tokens of an organization without a resource have the audience
// urn:logto:organization:ID. Logto signs with ES384 by default.
func Logto(p Params) (jwks.Config, error) { return logto.build(p) }

var logto = product{
	name:  "logto",
	needs: needsIssuer | needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Issuer = withPath(cfg.Issuer, "/oidc")
	},
}

// FusionAuth returns the settings for the access tokens of FusionAuth users. It needs Issuer, the issuer in the settings of the tenant, and
// Audience, the ID of the application. An issuer that is not a URL, such as acme.com, which is the default, needs JWKSURL
// (https://HOST/.well-known/jwks.json).
//
// The aud is the application for whose users the token was issued: any API that receives such a token could use it here. ID tokens have
// the same aud, but no applicationId since release 1.24, which is required and becomes the client. A user without a registration for the
// application has a token without it, which is refused, too. By default, FusionAuth signs with HS256: select an RSA or EC key for access
// tokens. To use roles as scopes, add "roles" to Scopes. Refresh tokens are opaque.
func FusionAuth(p Params) (jwks.Config, error) { return fusionAuth.build(p) }

var fusionAuth = product{
	name:  "fusionauth",
	needs: needsIssuer | needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Profile.AllowUntyped = true
		cfg.ClientIDClaim = "applicationId"
	},
}

// FusionAuthEntities returns the settings for the access tokens that FusionAuth issues to entities with the client credentials grant. It
// needs Issuer, as [FusionAuth] does, and Audience, the ID of the entity that represents this API.
//
// The entity that requested the token is the subject; there is no client. Tokens with auth_time or applicationId, which those of users
// have, are refused. To use permissions as scopes, add "permissions" to Scopes.
func FusionAuthEntities(p Params) (jwks.Config, error) { return fusionAuthEntities.build(p) }

var fusionAuthEntities = product{
	name:  "fusionauth_entities",
	needs: needsIssuer | needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		cfg.Profile.AllowUntyped = true
		withoutClient(p, cfg, wrong)
		cfg.Markers = []claims.Rule{claims.Absent("auth_time"), claims.Absent("applicationId")}
	},
}

// Zitadel returns the settings for the access tokens of ZITADEL that are JWTs. It needs Issuer (https://NAME.REGION.zitadel.cloud or a
// custom domain) and Audience, the ID of the project of this API.
//
// By default, the tokens are opaque: set the token type of each application and service user to JWT, or use [ZitadelIntrospection]. The aud
// has the IDs of the project and of all its applications: any API of the project accepts them. A client of another project requests this
// one with the scope urn:zitadel:iam:org:project:id:PROJECT:aud.
//
// The tokens have no scope, and those of older releases no client_id. ID tokens have the same aud, but auth_time and no jti: jti is
// required, and a token with auth_time refused. Roles are the names of objects, which cannot be used as scopes: add a claim for them in
// an action.
func Zitadel(p Params) (jwks.Config, error) { return zitadel.build(p) }

var zitadel = product{
	name:  "zitadel",
	needs: needsIssuer | needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Issuer = withoutSlash(cfg.Issuer)
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingClientID: true}
		cfg.Markers = []claims.Rule{claims.Absent("auth_time"), claims.Absent("nonce"), claims.Absent("at_hash")}
	},
}

// withPath returns issuer with path at its end if it is an origin, with or without a slash.
func withPath(issuer, path string) string {
	if origin := withoutSlash(issuer); withSlash(origin) != origin {
		return origin + path
	}
	return issuer
}

// withoutSlash returns issuer without the slash at its end if it is an origin.
func withoutSlash(issuer string) string {
	if origin, cut := strings.CutSuffix(issuer, "/"); cut && withSlash(origin) == issuer {
		return origin
	}
	return issuer
}
