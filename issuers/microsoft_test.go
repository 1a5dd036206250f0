package issuers_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/valetkeytest"
)

const (
	tenant1  = "aaaabbbb-0000-cccc-1111-dddd2222eeee"
	tenant2  = "bbbbcccc-1111-dddd-2222-eeee3333ffff"
	stranger = "ccccdddd-2222-eeee-3333-ffff4444aaaa"
	entraAPI = "00001111-aaaa-2222-bbbb-3333cccc4444"
	entraApp = "11112222-bbbb-3333-cccc-4444dddd5555"
	login    = "https://login.microsoftonline.com/"

	entraUser = `{"aud":"` + entraAPI + `","iss":"` + login + tenant1 + `/v2.0","iat":$IAT,"nbf":$IAT,"exp":$EXP,"aio":"AXQAi/8TAAAA","azp":"` + entraApp + `",
		"azpacr":"0","name":"Alice","oid":"690222be","preferred_username":"alice@example.com","rh":"0.AXQA","scp":"Orders.Read Orders.Write","sub":"HKZpfaHyWadeOouYlitjrI",
		"tid":"` + tenant1 + `","uti":"fqiBqXLPj0eQa82S-IYFAA","ver":"2.0"}`
	entraMachine = `{"aud":"` + entraAPI + `","iss":"` + login + tenant2 + `/v2.0","iat":$IAT,"nbf":$IAT,"exp":$EXP,"aio":"E2ZgYBBb","azp":"` + entraApp + `",
		"azpacr":"1","idtyp":"app","oid":"5fa1c9a2","rh":"0.AXQA","roles":["Orders.Read.All"],"sub":"5fa1c9a2","tid":"` + tenant2 + `","uti":"x","ver":"2.0"}`
	b2c       = "https://example.b2clogin.com/" + tenant1 + "/v2.0/"
	b2cTFP    = "https://example.b2clogin.com/tfp/" + tenant1 + "/b2c_1_signin/v2.0/"
	b2cClaims = `"exp":$EXP,"nbf":$IAT,"aud":"` + entraAPI + `","sub":"73e70b62","oid":"73e70b62","name":"Alice","emails":["alice@example.com"],
		"nonce":"defaultNonce","scp":"read write","azp":"` + entraApp + `","ver":"1.0","iat":$IAT`
	fs = "http://adfs.example.com/adfs/services/trust"
)

// The ID token of an API that is its own client, as of a single-page application with one registration.
var entraID = object{"azp": nil, "azpacr": nil, "scp": nil, "idtyp": nil, "roles": nil, "nonce": "678910"}

func entraRelatives() []relative {
	withRoles := object{"azp": nil, "azpacr": nil, "scp": nil, "idtyp": nil, "roles": []string{"admin"}}
	return []relative{
		{"an ID token", nil, entraID, valetkey.ReasonNotAccessToken},
		{"an ID token with app roles", nil, withRoles, valetkey.ReasonNotAccessToken},
		{"a token for the Graph", object{"nonce": "lWfBkbaUs"}, object{"aud": "00000003-0000-0000-c000-000000000000"}, valetkey.ReasonAudience},
		{"an application's token without a role", nil, object{"scp": nil, "roles": nil}, valetkey.ReasonNotAccessToken},
		{"a token of another tenant", nil, object{"iss": login + stranger + "/v2.0", "tid": stranger}, valetkey.ReasonIssuer},
		{"a v1 token", nil, object{"iss": "https://sts.windows.net/" + tenant1 + "/", "ver": "1.0"}, valetkey.ReasonIssuer},
	}
}

var foreignTenant = relative{"a token of another tenant", nil, object{"iss": login + stranger + "/v2.0", "tid": stranger}, valetkey.ReasonClaimRule}

var microsoftShapes = []shape{
	{
		of: "entra_id", kind: "a user's token",
		params:   issuers.Params{Tenants: []string{tenant1}, Audience: []string{entraAPI}},
		issuer:   login + tenant1 + "/v2.0",
		metadata: login + tenant1 + "/v2.0/.well-known/openid-configuration", keySet: login + tenant1 + "/discovery/v2.0/keys",
		header: object{"typ": "JWT"}, claims: entraUser,
		subject: "HKZpfaHyWadeOouYlitjrI", client: entraApp, scopes: []string{"Orders.Read", "Orders.Write"},
		relatives: entraRelatives(),
	},
	{
		of: "entra_id", kind: "a token of an issuer as it is displayed",
		params:   issuers.Params{Issuer: login + tenant1 + "/v2.0", Audience: []string{entraAPI}},
		metadata: login + tenant1 + "/v2.0/.well-known/openid-configuration", keySet: login + tenant1 + "/discovery/v2.0/keys",
		header: object{"typ": "JWT"}, claims: entraUser,
		subject: "HKZpfaHyWadeOouYlitjrI", client: entraApp, scopes: []string{"Orders.Read", "Orders.Write"},
		relatives: entraRelatives(),
	},
	{
		of: "entra_id", kind: "an application's token of one of several tenants",
		params: issuers.Params{Tenants: []string{tenant1, tenant2}, Audience: []string{entraAPI}},
		keySet: login + "common/discovery/v2.0/keys", keys: entraKeys("{tenantid}"),
		header: object{"typ": "JWT"}, claims: entraMachine,
		subject: "5fa1c9a2", client: entraApp, scopes: []string{"Orders.Read.All"},
		relatives: []relative{
			foreignTenant,
			{"an ID token", nil, entraID, valetkey.ReasonNotAccessToken},
			{"a token of another tenant that names a listed one", nil, object{"iss": login + stranger + "/v2.0"}, valetkey.ReasonIssuer},
			{"an application's token without a role", nil, object{"roles": nil}, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "entra_id", kind: "a token of a national cloud",
		params: issuers.Params{Issuer: "https://login.microsoftonline.us/{tid}/v2.0", Tenants: []string{tenant1, tenant2}, Audience: []string{entraAPI}},
		keySet: "https://login.microsoftonline.us/common/discovery/v2.0/keys",
		header: object{"typ": "JWT"},
		claims: `{"aud":"` + entraAPI + `","iss":"https://login.microsoftonline.us/` + tenant1 + `/v2.0","iat":$IAT,"nbf":$IAT,"exp":$EXP,"azp":"` + entraApp + `","scp":"Orders.Read",
			"sub":"a","tid":"` + tenant1 + `","ver":"2.0"}`,
		subject: "a", client: entraApp, scopes: []string{"Orders.Read"},
		relatives: []relative{
			{"a token of another cloud", nil, object{"iss": login + tenant1 + "/v2.0"}, valetkey.ReasonIssuer},
			{"an ID token", nil, entraID, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "entra_id", kind: "an application's token by rule",
		params: issuers.Params{Tenants: []string{tenant2}, Audience: []string{entraAPI}, Rules: []claims.Rule{claims.Equal("idtyp", "app")}},
		change: func(c *jwks.Config) { c.JWKSURL = login + tenant2 + "/discovery/v2.0/keys?appid=" + entraAPI }, // the registration has its own key
		keySet: login + tenant2 + "/discovery/v2.0/keys?appid=" + entraAPI,
		header: object{"typ": "JWT"}, claims: entraMachine,
		subject: "5fa1c9a2", client: entraApp, scopes: []string{"Orders.Read.All"},
		relatives: []relative{
			{"a user's token", nil, object{"idtyp": nil, "scp": "Orders.Read", "roles": nil}, valetkey.ReasonClaimRule},
			{"an ID token", nil, entraID, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "entra_id_any_tenant", kind: "an application's token",
		params: issuers.Params{Audience: []string{entraAPI}},
		keySet: login + "common/discovery/v2.0/keys", keys: entraKeys("{tenantid}"),
		header: object{"typ": "JWT"}, claims: entraMachine,
		subject: "5fa1c9a2", client: entraApp, scopes: []string{"Orders.Read.All"},
		relatives: []relative{
			{"an ID token", nil, entraID, valetkey.ReasonNotAccessToken},
			{"a token whose tid is that of another tenant", nil, object{"tid": tenant1}, valetkey.ReasonIssuer},
			{"a token without tid", nil, object{"tid": nil}, valetkey.ReasonIssuer},
			{"a v1 token", nil, object{"iss": "https://sts.windows.net/" + tenant2 + "/"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "entra_id_v1", kind: "a user's token for an application ID URI",
		params: issuers.Params{Tenants: []string{tenant1}, Audience: []string{"api://" + entraAPI, entraAPI}},
		keySet: login + "common/discovery/keys",
		header: object{"typ": "JWT", "x5t": "L1KfKFI_jnXbwWc22xZxw1sUHH0"},
		claims: `{"aud":"api://` + entraAPI + `","iss":"https://sts.windows.net/` + tenant1 + `/","iat":$IAT,"nbf":$IAT,"exp":$EXP,"acr":"1","aio":"AUQAu/8T","amr":["pwd","mfa"],
			"appid":"` + entraApp + `","appidacr":"0","ipaddr":"192.0.2.1","name":"Alice","oid":"690222be","rh":"0.AXQ","scp":"user_impersonation","sub":"HKZ","tid":"` + tenant1 + `",
			"unique_name":"alice@example.com","upn":"alice@example.com","uti":"VyR","ver":"1.0"}`,
		subject: "HKZ", client: entraApp, scopes: []string{"user_impersonation"},
		relatives: []relative{
			{"an ID token", nil, object{"aud": entraAPI, "appid": nil, "appidacr": nil, "scp": nil, "nonce": "n"}, valetkey.ReasonNotAccessToken},
			{"an ID token with app roles", nil, object{"aud": entraAPI, "appid": nil, "scp": nil, "roles": []string{"admin"}}, valetkey.ReasonNotAccessToken},
			{"a token of another tenant", nil, object{"iss": "https://sts.windows.net/" + stranger + "/", "tid": stranger}, valetkey.ReasonIssuer},
			{"a token for Azure's management API", nil, object{"aud": "https://management.azure.com/"}, valetkey.ReasonAudience},
			{"a v2 token", nil, object{"iss": login + tenant1 + "/v2.0", "aud": entraAPI}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "entra_id_v1", kind: "an application's token of one of several tenants, for the client ID",
		params: issuers.Params{Tenants: []string{tenant1, tenant2}, Audience: []string{"api://" + entraAPI, entraAPI}},
		keySet: login + "common/discovery/keys",
		header: object{"typ": "JWT", "x5t": "L1KfKFI_jnXbwWc22xZxw1sUHH0"},
		claims: `{"aud":"` + entraAPI + `","iss":"https://sts.windows.net/` + tenant2 + `/","iat":$IAT,"nbf":$IAT,"exp":$EXP,"appid":"` + entraApp + `","appidacr":"1",
			"idp":"https://sts.windows.net/` + tenant2 + `/","oid":"o","roles":["Orders.Read.All"],"sub":"o","tid":"` + tenant2 + `","uti":"x","ver":"1.0"}`,
		subject: "o", client: entraApp, scopes: []string{"Orders.Read.All"},
		relatives: []relative{
			{"a token of another tenant", nil, object{"iss": "https://sts.windows.net/" + stranger + "/", "tid": stranger}, valetkey.ReasonClaimRule},
			{"an application's token without a role", nil, object{"roles": nil}, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "entra_external_id", kind: "a customer's token",
		params:   issuers.Params{Tenants: []string{tenant1}, Audience: []string{entraAPI}},
		issuer:   "https://" + tenant1 + ".ciamlogin.com/" + tenant1 + "/v2.0",
		metadata: "https://" + tenant1 + ".ciamlogin.com/" + tenant1 + "/v2.0/.well-known/openid-configuration",
		keySet:   "https://" + tenant1 + ".ciamlogin.com/" + tenant1 + "/discovery/v2.0/keys",
		header:   object{"typ": "JWT"},
		claims: `{"aud":"` + entraAPI + `","iss":"https://` + tenant1 + `.ciamlogin.com/` + tenant1 + `/v2.0","iat":$IAT,"nbf":$IAT,"exp":$EXP,"azp":"` + entraApp + `","azpacr":"0",
			"name":"Alice","oid":"o","rh":"1.AXQ","scp":"Orders.Read","sid":"s-1","sub":"cust","tid":"` + tenant1 + `","uti":"x","ver":"2.0"}`,
		subject: "cust", client: entraApp, scopes: []string{"Orders.Read"},
		relatives: []relative{
			{"an ID token", nil, entraID, valetkey.ReasonNotAccessToken},
			{"a token of the workforce tenant", nil, object{"iss": login + tenant1 + "/v2.0"}, valetkey.ReasonIssuer},
			{"a token of another tenant", nil, object{"iss": "https://" + stranger + ".ciamlogin.com/" + stranger + "/v2.0", "tid": stranger}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "azure_ad_b2c", kind: "a token of a user flow",
		params: issuers.Params{Issuer: b2c, Audience: []string{entraAPI}, Rules: []claims.Rule{claims.OneOf("tfp", "B2C_1_signin", "B2C_1_signup")}},
		keySet: "https://example.b2clogin.com/" + tenant1 + "/B2C_1_signin/discovery/v2.0/keys",
		header: object{"typ": "JWT"}, claims: `{"iss":"` + b2c + `","tfp":"B2C_1_signup",` + b2cClaims + `}`,
		subject: "73e70b62", client: entraApp, scopes: []string{"read", "write"},
		relatives: []relative{
			{"an ID token", nil, object{"scp": nil, "azp": nil}, valetkey.ReasonNotAccessToken},
			{"an ID token with azp", nil, object{"scp": nil}, valetkey.ReasonNotAccessToken},
			{"a token of another policy", nil, object{"tfp": "B2C_1_password_reset"}, valetkey.ReasonClaimRule},
			{"a token of another tenant", nil, object{"iss": "https://example.b2clogin.com/" + stranger + "/v2.0/"}, valetkey.ReasonIssuer},
			{"a token of Entra ID for the same tenant", nil, object{"iss": login + tenant1 + "/v2.0"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "azure_ad_b2c", kind: "a token of a custom policy, which is in acr",
		params: issuers.Params{Issuer: b2c, Audience: []string{entraAPI}, Rules: []claims.Rule{claims.Equal("acr", "b2c_1a_signin")}},
		keySet: "https://example.b2clogin.com/" + tenant1 + "/b2c_1a_signin/discovery/v2.0/keys",
		header: object{"typ": "JWT"}, claims: `{"iss":"` + b2c + `","acr":"b2c_1a_signin",` + b2cClaims + `}`,
		subject: "73e70b62", client: entraApp, scopes: []string{"read", "write"},
		relatives: []relative{
			{"an ID token", nil, object{"scp": nil, "azp": nil}, valetkey.ReasonNotAccessToken},
			{"a token of another policy", nil, object{"acr": "b2c_1a_passwordreset"}, valetkey.ReasonClaimRule},
		},
	},
	{
		of: "azure_ad_b2c", kind: "a token with the policy in its issuer",
		params: issuers.Params{Issuer: b2cTFP, Audience: []string{entraAPI}},
		keySet: "https://example.b2clogin.com/" + tenant1 + "/b2c_1_signin/discovery/v2.0/keys",
		header: object{"typ": "JWT"}, claims: `{"iss":"` + b2cTFP + `","tfp":"B2C_1_signin",` + b2cClaims + `}`,
		subject: "73e70b62", client: entraApp, scopes: []string{"read", "write"},
		relatives: []relative{
			{"an ID token", nil, object{"scp": nil, "azp": nil}, valetkey.ReasonNotAccessToken},
			{"a token of another policy", nil, object{"iss": "https://example.b2clogin.com/tfp/" + tenant1 + "/b2c_1_password_reset/v2.0/"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "ad_fs", kind: "a user's token",
		params: issuers.Params{Issuer: "https://adfs.example.com/adfs", Audience: []string{"microsoft:identityserver:" + entraAPI}},
		keySet: "https://adfs.example.com/adfs/discovery/keys",
		header: object{"typ": "JWT", "x5t": "xMLs_kWJ2TyCHGPuR8oQjHoGYoU"},
		claims: `{"aud":"microsoft:identityserver:` + entraAPI + `","iss":"` + fs + `","iat":$IAT,"nbf":$IAT,"exp":$EXP,"sub":"EXAMPLE\\alice","apptype":"Public","appid":"` + entraApp + `",
			"authmethod":"urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport","auth_time":"2026-11-29T10:00:00.000Z","ver":"1.0","scp":"openid orders"}`,
		subject: `EXAMPLE\alice`, client: entraApp, scopes: []string{"openid", "orders"},
		relatives: []relative{
			{"an ID token", nil, object{"iss": "https://adfs.example.com/adfs", "aud": entraApp, "sid": "S-1-5-21", "upn": "alice@example.com"}, valetkey.ReasonIssuer},
			{"an ID token for the API", nil, object{"iss": "https://adfs.example.com/adfs"}, valetkey.ReasonIssuer},
			{"an ID token with the issuer of access tokens", nil, object{"nonce": "n"}, valetkey.ReasonNotAccessToken},
			{"a token for the user info", nil, object{"aud": "urn:microsoft:userinfo"}, valetkey.ReasonAudience},
			{"a token of another farm", nil, object{"iss": "http://fs.example.net/adfs/services/trust"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "ad_fs", kind: "a machine's token",
		params: issuers.Params{Issuer: fs, Audience: []string{"https://api.example.com"}},
		keySet: "https://adfs.example.com/adfs/discovery/keys",
		header: object{"typ": "JWT", "x5t": "xMLs_kWJ2TyCHGPuR8oQjHoGYoU"},
		claims: `{"aud":"https://api.example.com","iss":"` + fs + `","iat":$IAT,"nbf":$IAT,"exp":$EXP,"apptype":"Confidential","appid":"` + entraApp + `",
			"authmethod":"http://schemas.microsoft.com/ws/2008/06/identity/authenticationmethod/password","ver":"1.0","scp":"openid"}`,
		client: entraApp, scopes: []string{"openid"},
		relatives: []relative{
			{"an ID token", nil, object{"iss": "https://adfs.example.com/adfs", "aud": entraApp}, valetkey.ReasonIssuer},
			{"a token without a client", nil, object{"appid": nil}, valetkey.ReasonClaimMalformed},
		},
	},
}

// entraKeys returns the key set as Entra ID publishes it: keys without alg, each with the issuer whose tokens it verifies.
func entraKeys(tenant string) func(*testing.T, []byte) []byte {
	return func(t *testing.T, set []byte) []byte {
		for _, alg := range []string{"RS256", "ES256", "ES384", "EdDSA"} {
			set = bytes.ReplaceAll(set, []byte(`"alg":"`+alg+`",`), nil)
		}
		require.NotContains(t, string(set), `"alg"`)
		return bytes.ReplaceAll(set, []byte(`"use":"sig"`), []byte(`"use":"sig","issuer":"`+login+tenant+`/v2.0"`))
	}
}

// The common key set has the keys of personal accounts too. Without the check, they would verify tokens of every organization.
func TestAKeyOfPersonalAccountsVerifiesNoTokenOfAnOrganization(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.SignWith("RS256"))
	for _, s := range microsoftShapes {
		if s.keys == nil {
			continue
		}
		t.Run(s.of+" "+s.kind, func(t *testing.T) {
			s.keys = entraKeys("9188040d-6c67-4c5b-b112-36a304b66dad")
			_, err := s.open(t, iss).Verify(context.Background(), s.mint(t, iss, nil, nil))
			var e *valetkey.Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, valetkey.ReasonUnknownKey, e.Reason, "%v", err)
		})
	}
}

func TestMicrosoftParameters(t *testing.T) {
	api := []string{entraAPI}
	for name, test := range map[string]struct {
		of   string
		p    issuers.Params
		want string
	}{
		"no tenant":                              {"entra_id", issuers.Params{Audience: api}, "Tenants: required; to accept every tenant, use EntraIDAnyTenant"},
		"a domain as tenant":                     {"entra_id", issuers.Params{Audience: api, Tenants: []string{"example.onmicrosoft.com"}}, `Tenants[0]: "example.onmicrosoft.com" is not a tenant ID`},
		"the issuer of all tenants, and no list": {"entra_id", issuers.Params{Audience: api, Issuer: login + "{tid}/v2.0"}, "Tenants: required"},
		"the common endpoint, and no tenant":     {"entra_id", issuers.Params{Audience: api, Issuer: login + "common/v2.0"}, "Tenants: required"},
		"one issuer, and tenants":                {"entra_id", issuers.Params{Audience: api, Issuer: login + tenant1 + "/v2.0", Tenants: []string{tenant2}}, "Tenants: has no meaning with an Issuer of one tenant"},
		"the issuer of v1 tokens":                {"entra_id", issuers.Params{Audience: api, Issuer: "https://sts.windows.net/" + tenant1 + "/"}, "Issuer: is that of v1 tokens; use EntraIDV1"},
		"any tenant, and one":                    {"entra_id_any_tenant", issuers.Params{Audience: api, Issuer: login + tenant1 + "/v2.0"}, "Issuer: has no {tid}"},
		"two customer tenants":                   {"entra_external_id", issuers.Params{Audience: api, Tenants: []string{tenant1, tenant2}}, "Tenants: required: one tenant"},
		"a customer tenant, and an issuer":       {"entra_external_id", issuers.Params{Audience: api, Tenants: []string{tenant1}, Issuer: "https://login.example.com"}, "Tenants: has no meaning with Issuer"},
		"B2C without the slash":                  {"azure_ad_b2c", issuers.Params{Audience: api, Issuer: b2c[:len(b2c)-1]}, "Issuer: must end with /v2.0/"},
		"B2C without a policy":                   {"azure_ad_b2c", issuers.Params{Audience: api, Issuer: b2c}, "Rules: required with an Issuer of all policies"},
		"B2C with the beginning of a policy":     {"azure_ad_b2c", issuers.Params{Audience: api, Issuer: b2c, Rules: []claims.Rule{claims.Prefix("tfp", "B2C_1_")}}, "Rules: required"},
		"AD FS without the path":                 {"ad_fs", issuers.Params{Audience: api, Issuer: "https://adfs.example.com"}, `Issuer: "https://adfs.example.com" is not https://HOST/adfs`},
		"AD FS without a host":                   {"ad_fs", issuers.Params{Audience: api, Issuer: "/adfs"}, `Issuer: "/adfs" is not`},
		"v1 without a tenant, but for one rule":  {"entra_id_v1", issuers.Params{Audience: api, Rules: []claims.Rule{claims.Equal("tid", tenant1)}}, "Tenants: required"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := issuers.Named(test.of, test.p)
			assert.ErrorContains(t, err, test.want)
		})
	}
	t.Run("the issuers that the metadata of all tenants displays are templates", func(t *testing.T) {
		for _, issuer := range []string{login + "{tenantid}/v2.0", login + "common/v2.0", login + "organizations/v2.0", login + "{tid}/v2.0"} {
			cfg, err := issuers.EntraIDAnyTenant(issuers.Params{Audience: api, Issuer: issuer})
			require.NoError(t, err)
			assert.Equal(t, login+"{tid}/v2.0", cfg.Issuer)
		}
	})
	t.Run("a tenant ID in upper case becomes that of the tokens", func(t *testing.T) {
		cfg, err := issuers.EntraID(issuers.Params{Audience: api, Tenants: []string{"AAAABBBB-0000-CCCC-1111-DDDD2222EEEE"}})
		require.NoError(t, err)
		assert.Equal(t, login+tenant1+"/v2.0", cfg.Issuer)
	})
}
