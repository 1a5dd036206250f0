package issuers

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/jwks"
)

var microsoftProducts = []product{entraID, entraIDAnyTenant, entraIDV1, entraExternalID, azureADB2C, adfs}

// EntraID returns the settings for the v2 access tokens of Microsoft Entra ID, of users and of applications. It needs Tenants, the
// tenant IDs, and Audience, the client ID of the API. In place of a single tenant, Issuer
// (https://login.microsoftonline.com/TENANT/v2.0) may be set. In a national cloud, set Issuer to the issuer with {tid} in place of
// the tenant ID.
//
// The API receives v2 tokens if requestedAccessTokenVersion is 2 in the manifest of its app registration. Otherwise it receives v1
// tokens; see [EntraIDV1].
//
// The tokens have the typ "JWT" and no jti. The client is in azp, which ID tokens do not have. Scopes are the delegated permissions
// in scp and the app roles in roles, so give the two different names. A token without either is refused: any application of the
// tenant can get one. To accept only applications, add claims.Equal("idtyp", "app") to Rules, which needs the optional claim idtyp.
// If the app registration has its own signing key, set JWKSURL to the URL of the keys with ?appid=CLIENT-ID.
func EntraID(p Params) (jwks.Config, error) { return entraID.build(p) }

const entraIssuer = "https://login.microsoftonline.com/{tid}/v2.0"

var entraID = product{
	name:  "entra_id",
	needs: needsAudience,
	takes: needsIssuer | needsTenants,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		entraMarks(cfg, "azp")
		p.Issuer = entraTemplate(p.Issuer)
		many := p.Issuer == "" || strings.Contains(p.Issuer, "{tid}")
		wrong.AddIf(many && len(p.Tenants) == 0, "Tenants", "required; to accept every tenant, use EntraIDAnyTenant (entra_id_any_tenant)")
		wrong.AddIf(!many && len(p.Tenants) > 0, "Tenants", "has no meaning with an Issuer of one tenant")
		wrong.AddIf(strings.Contains(p.Issuer, "//sts."), "Issuer", "is that of v1 tokens; use EntraIDV1 (entra_id_v1)")
		if many {
			entraTenants(p, cfg, wrong, "/common/discovery/v2.0/keys")
		}
	},
}

// EntraIDAnyTenant returns the settings for the v2 access tokens of all tenants of Microsoft Entra ID, and of personal accounts. It
// needs Audience, the client ID of the API. In a national cloud, set Issuer as for [EntraID].
//
// Anyone can create a tenant and consent to a multitenant application there. The API must therefore keep the data of tenants apart:
// the tenant is in the claim tid and in [valetkey.Token.Issuer]. The tokens are those of [EntraID].
//
// [valetkey.Token.Issuer]: https://pkg.go.dev/github.com/valetkey/valetkey#Token.Issuer
func EntraIDAnyTenant(p Params) (jwks.Config, error) { return entraIDAnyTenant.build(p) }

var entraIDAnyTenant = product{
	name:  "entra_id_any_tenant",
	needs: needsAudience,
	takes: needsIssuer,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		entraMarks(cfg, "azp")
		cfg.Profile.AllowAnyTenant = true
		p.Issuer = entraTemplate(p.Issuer)
		wrong.AddIf(p.Issuer != "" && !strings.Contains(p.Issuer, "{tid}"), "Issuer", "has no {tid}; for one tenant, use EntraID (entra_id)")
		entraTenants(p, cfg, wrong, "/common/discovery/v2.0/keys")
	},
}

// EntraIDV1 returns the settings for the v1 access tokens of Microsoft Entra ID. It needs Tenants, the tenant IDs, and Audience: the
// application ID URI of the API (api://...), its client ID, or both, since the client decides which of them a token has. Prefer v2
// tokens; see [EntraID].
//
// The issuer is https://sts.windows.net/TENANT/. The client is in appid, which ID tokens do not have. In other respects the tokens
// are those of [EntraID]. In a national cloud, change Issuer and JWKSURL.
func EntraIDV1(p Params) (jwks.Config, error) { return entraIDV1.build(p) }

var entraIDV1 = product{
	name:  "entra_id_v1",
	needs: needsTenants | needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		entraMarks(cfg, "appid")
		cfg.Issuer = "https://sts.windows.net/{tid}/"
		p.Issuer = cfg.Issuer
		entraTenants(p, cfg, wrong, "")
		cfg.JWKSURL = "https://login.microsoftonline.com/common/discovery/keys"
	},
}

// EntraExternalID returns the settings for the access tokens of a Microsoft Entra External ID tenant (ciamlogin.com). It needs
// Tenants, the one tenant ID, and Audience, the client ID of the API. In place of Tenants, Issuer
// (https://TENANT.ciamlogin.com/TENANT/v2.0, with the tenant ID twice) may be set. The tokens are those of [EntraID].
func EntraExternalID(p Params) (jwks.Config, error) { return entraExternalID.build(p) }

var entraExternalID = product{
	name:  "entra_external_id",
	needs: needsAudience,
	takes: needsIssuer | needsTenants,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		entraMarks(cfg, "azp")
		wrong.AddIf(p.Issuer == "" && len(p.Tenants) != 1, "Tenants", "required: one tenant, or Issuer")
		wrong.AddIf(p.Issuer != "" && len(p.Tenants) > 0, "Tenants", "has no meaning with Issuer")
		tenants := tenantIDs(p, wrong)
		if p.Issuer == "" && len(tenants) == 1 {
			cfg.Issuer = "https://" + tenants[0] + ".ciamlogin.com/" + tenants[0] + "/v2.0"
		}
	},
}

// entraMarks adds what the tokens of Entra ID have in common.
func entraMarks(cfg *jwks.Config, client string) {
	cfg.Profile.AllowUntyped, cfg.Profile.AllowMissingID = true, true
	cfg.ClientIDClaim = client
	cfg.Markers = []claims.Rule{claims.Present(client)}
	cfg.Scopes, cfg.RequireScope = []string{"scp", "roles"}, true
}

// entraTemplate returns issuer with the name of the claim in braces. The metadata of all tenants has another name there, and those
// who copy the URL of that metadata have the name of the group of tenants.
func entraTemplate(issuer string) string {
	return strings.NewReplacer("{tenantid}", "{tid}", "/common/", "/{tid}/", "/organizations/", "/{tid}/").Replace(issuer)
}

// entraTenants sets the issuer of the tenants in p, of all tenants if there are none. The keys of several tenants are at path on the
// host of the issuer. For one tenant, they are discovered.
func entraTenants(p Params, cfg *jwks.Config, wrong *mistakes.List, path string) {
	if cfg.Issuer = p.Issuer; cfg.Issuer == "" {
		cfg.Issuer = entraIssuer
	}
	tenants := tenantIDs(p, wrong)
	if len(tenants) == 1 {
		cfg.Issuer = strings.Replace(cfg.Issuer, "{tid}", tenants[0], 1)
		return
	}
	if len(tenants) > 1 {
		cfg.Rules = append(cfg.Rules, claims.OneOf("tid", tenants...))
	}
	if u, err := url.Parse(cfg.Issuer); err == nil {
		cfg.JWKSURL = u.Scheme + "://" + u.Host + path
	}
}

var tenantID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// tenantIDs returns the tenants in p as they are in tid and iss.
func tenantIDs(p Params, wrong *mistakes.List) (ids []string) {
	for i, t := range p.Tenants {
		id := strings.ToLower(t)
		wrong.AddIf(!tenantID.MatchString(id), fmt.Sprintf("Tenants[%d]", i), "%q is not a tenant ID, such as 72f988bf-86f1-41af-91ab-2d7cd011db47", t)
		ids = append(ids, id)
	}
	return ids
}

// AzureADB2C returns the settings for the access tokens of an Azure AD B2C tenant. It needs Issuer and Audience, the client ID of the
// API.
//
// Issuer is either https://NAME.b2clogin.com/tfp/TENANT-ID/POLICY/v2.0/ (policy setting "Issuer (iss) claim" with tfp) or, by default,
// https://NAME.b2clogin.com/TENANT-ID/v2.0/. The second one is that of all policies, among them those for the reset of a password, so
// Rules must pin the policy in tfp or acr: claims.Equal("tfp", "B2C_1_signin"). The keys are those of this policy. Of several policies
// in the rule, they are those of the first.
//
// The tokens have the typ "JWT" and no jti. The client is in azp. They may have the nonce of the login. Scopes are in scp, which ID
// tokens do not have.
func AzureADB2C(p Params) (jwks.Config, error) { return azureADB2C.build(p) }

var azureADB2C = product{
	name:  "azure_ad_b2c",
	needs: needsIssuer | needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		cfg.Profile.AllowUntyped, cfg.Profile.AllowMissingID = true, true
		cfg.ClientIDClaim = "azp"
		cfg.Markers = []claims.Rule{claims.Present("azp"), claims.Present("scp")}
		cfg.Scopes, cfg.RequireScope = []string{"scp"}, true
		tenant, ok := strings.CutSuffix(p.Issuer, "/v2.0/")
		wrong.AddIf(p.Issuer != "" && !ok, "Issuer", "must end with /v2.0/, as the iss of the tokens does")
		const keys = "/discovery/v2.0/keys"
		if strings.Contains(p.Issuer, "/tfp/") { // the policy is in the issuer
			cfg.JWKSURL = strings.Replace(tenant, "/tfp/", "/", 1) + keys
			return
		}
		for _, r := range p.Rules {
			policies, beginnings := r.Values()
			if r.Pins() && !beginnings && len(policies) > 0 && (r.Claim() == "tfp" || r.Claim() == "acr") {
				cfg.JWKSURL = tenant + "/" + url.PathEscape(policies[0]) + keys
				return
			}
		}
		wrong.Add("Rules", "required with an Issuer of all policies: tfp = POLICY, or acr = POLICY")
	},
}

// ADFS returns the settings for the access tokens of Active Directory Federation Services, 2016 and later. It needs Issuer
// (https://HOST/adfs, as the metadata has it, or the federation service identifier http://HOST/adfs/services/trust) and Audience, the
// identifier of the Web API in its application group.
//
// The iss of access tokens is http://HOST/adfs/services/trust, which the metadata has in access_token_issuer. That of ID tokens is
// https://HOST/adfs. In other respects ID tokens may look like access tokens, with appid and scp, so never add their iss to
// IssuerAliases. If the federation service identifier has been changed, change Issuer. The tokens have the typ "JWT", no jti, and no
// sub unless a claim rule issues one. The client is in appid, scopes are in scp.
func ADFS(p Params) (jwks.Config, error) { return adfs.build(p) }

var adfs = product{
	name:  "ad_fs",
	needs: needsIssuer | needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		cfg.Profile.AllowUntyped, cfg.Profile.AllowMissingID, cfg.Profile.AllowMissingSubject = true, true, true
		cfg.ClientIDClaim = "appid" // no marker: ID tokens have it too, so their nonce still counts
		cfg.Scopes = []string{"scp"}
		_, address, _ := strings.Cut(p.Issuer, "://")
		host, ok := strings.CutSuffix(strings.TrimSuffix(address, "/services/trust"), "/adfs")
		wrong.AddIf(p.Issuer != "" && (!ok || host == ""), "Issuer", "%q is not https://HOST/adfs", p.Issuer)
		cfg.Issuer = "http://" + host + "/adfs/services/trust"
		cfg.JWKSURL = "https://" + host + "/adfs/discovery/keys"
	},
}
