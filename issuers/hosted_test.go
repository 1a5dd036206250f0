package issuers_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
)

const (
	auth0Tenant = "https://shop.eu.auth0.com/"
	auth0Custom = "https://login.example.com/"
	oktaOrg     = "https://example.okta.com"
	oktaServer  = oktaOrg + "/oauth2/default"
)

var (
	auth0IDToken = relative{"an ID token", object{"typ": "JWT"}, object{
		"aud": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja", "azp": nil, "client_id": nil, "scope": nil, "jti": nil, "nonce": "n", "sid": "s", "nickname": "alice",
	}, valetkey.ReasonNotAccessToken}
	auth0Relatives = []relative{
		auth0IDToken,
		{"a token for the management API", nil, object{"aud": auth0Tenant + "api/v2/"}, valetkey.ReasonAudience},
		{"a token of another tenant", nil, object{"iss": "https://other.eu.auth0.com/"}, valetkey.ReasonIssuer},
		{"a token whose issuer has no slash", nil, object{"iss": "https://shop.eu.auth0.com"}, valetkey.ReasonIssuer},
	}
)

var hostedShapes = []shape{
	{
		of: "auth0", kind: "a user's token of the default profile, and the domain of the dashboard",
		params:   issuers.Params{Issuer: "shop.eu.auth0.com", Audience: []string{ordersAPI}},
		metadata: auth0Tenant + ".well-known/openid-configuration", issuer: auth0Tenant, keySet: auth0Tenant + ".well-known/jwks.json",
		header: object{"typ": "JWT"},
		claims: `{"iss":"` + auth0Tenant + `","sub":"auth0|6553da60a54af58e29493993","aud":["` + ordersAPI + `","` + auth0Tenant + `userinfo"],"iat":$IAT,
			"exp":$EXP,"scope":"openid profile orders:read","azp":"K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja","https://example.com/plan":"gold"}`,
		subject: "auth0|6553da60a54af58e29493993", client: "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja", scopes: []string{"openid", "profile", "orders:read"},
		relatives: append([]relative{
			{"an ID token without a nonce", nil, object{"aud": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja", "azp": nil, "scope": nil}, valetkey.ReasonAudience},
			{"a token for userinfo alone", nil, object{"aud": auth0Tenant + "userinfo"}, valetkey.ReasonAudience},
		}, auth0Relatives...),
	},
	{
		of: "auth0", kind: "a machine's token with permissions as scopes, of a custom domain",
		params:   issuers.Params{Issuer: "https://login.example.com", Audience: []string{ordersAPI}, Clients: []string{"awZfdIir8YFdGZWkvCejDoUb7SjTDicx"}},
		change:   func(c *jwks.Config) { c.Scopes = []string{"scope", "permissions"} },
		metadata: auth0Custom + ".well-known/openid-configuration", issuer: auth0Custom, keySet: auth0Custom + ".well-known/jwks.json",
		header: object{"typ": "JWT"},
		claims: `{"iss":"` + auth0Custom + `","sub":"awZfdIir8YFdGZWkvCejDoUb7SjTDicx@clients","aud":"` + ordersAPI + `","iat":$IAT,"exp":$EXP,
			"azp":"awZfdIir8YFdGZWkvCejDoUb7SjTDicx","gty":"client-credentials","permissions":["orders:read","orders:write"]}`,
		subject: "awZfdIir8YFdGZWkvCejDoUb7SjTDicx@clients", client: "awZfdIir8YFdGZWkvCejDoUb7SjTDicx", scopes: []string{"orders:read", "orders:write"},
		relatives: []relative{
			{"a token of another application", nil, object{"azp": "other"}, valetkey.ReasonClient},
			{"a token through the tenant's own domain", nil, object{"iss": auth0Tenant}, valetkey.ReasonIssuer},
			auth0IDToken,
		},
	},
	{
		of: "auth0_rfc9068", kind: "a user's token of the RFC 9068 profile",
		params:   issuers.Params{Issuer: auth0Tenant, Audience: []string{ordersAPI}},
		metadata: auth0Tenant + ".well-known/openid-configuration", keySet: auth0Tenant + ".well-known/jwks.json",
		header: object{"typ": "at+jwt"},
		claims: `{"iss":"` + auth0Tenant + `","sub":"auth0|6553da60a54af58e29493993","aud":["` + ordersAPI + `","` + auth0Tenant + `userinfo"],"iat":$IAT,
			"exp":$EXP,"scope":"openid profile","jti":"73WakrfVbNJBaAmhQtEeDv","client_id":"K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja","permissions":[]}`,
		subject: "auth0|6553da60a54af58e29493993", client: "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja", scopes: []string{"openid", "profile"},
		relatives: append([]relative{
			{"a token of the default profile", object{"typ": "JWT"}, object{"client_id": nil, "azp": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja", "jti": nil}, valetkey.ReasonNotAccessToken},
		}, auth0Relatives...),
	},
	{
		of: "okta", kind: "a user's token of the default server",
		params:   issuers.Params{Issuer: oktaServer, Audience: []string{"api://default"}},
		metadata: oktaServer + "/.well-known/openid-configuration", keySet: oktaServer + "/v1/keys",
		claims: `{"ver":1,"jti":"AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE","iss":"` + oktaServer + `","aud":"api://default","iat":$IAT,"exp":$EXP,
			"cid":"0oabucvyc38HLL1ef0h7","uid":"00ujmkLgagxeRrAg20g3","scp":["openid","orders:read"],"auth_time":$IAT,"sub":"alice@example.com"}`,
		subject: "alice@example.com", client: "0oabucvyc38HLL1ef0h7", scopes: []string{"openid", "orders:read"},
		relatives: []relative{
			{"an ID token", nil, object{"jti": "ID.4eAWJOCMB3SX8XewDfVR", "aud": "0oabucvyc38HLL1ef0h7", "cid": nil, "uid": nil, "scp": nil, "at_hash": "h"}, valetkey.ReasonNotAccessToken},
			{"an ID token for an application named like the API", nil, object{"jti": "ID.4eAWJOCMB3SX8XewDfVR", "cid": nil, "uid": nil, "scp": nil}, valetkey.ReasonClaimMalformed},
			{"an ID token with a cid", nil, object{"jti": "ID.4eAWJOCMB3SX8XewDfVR", "scp": nil}, valetkey.ReasonNotAccessToken},
			{"a token of the org authorization server", object{"typ": "application/okta-internal-at+jwt"}, object{"iss": oktaOrg, "aud": oktaOrg}, valetkey.ReasonIssuer},
			{"a token of the type of the org authorization server", object{"typ": "application/okta-internal-at+jwt"}, nil, valetkey.ReasonNotAccessToken},
			{"a token of another custom server", nil, object{"iss": oktaOrg + "/oauth2/aus9o8wvkhockw9TL0h7"}, valetkey.ReasonIssuer},
			{"a token of another org", nil, object{"iss": "https://other.okta.com/oauth2/default"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "okta", kind: "a machine's token of a custom domain",
		params:   issuers.Params{Issuer: "https://login.example.com/oauth2/aus9o8wvkhockw9TL0h7", Audience: []string{ordersAPI}, Clients: []string{"0oaesxtmvp"}},
		metadata: "https://login.example.com/oauth2/aus9o8wvkhockw9TL0h7/.well-known/openid-configuration",
		keySet:   "https://login.example.com/oauth2/aus9o8wvkhockw9TL0h7/v1/keys",
		claims: `{"ver":1,"jti":"AT.1","iss":"https://login.example.com/oauth2/aus9o8wvkhockw9TL0h7","aud":"` + ordersAPI + `","iat":$IAT,"exp":$EXP,
			"cid":"0oaesxtmvp","scp":["orders:read"],"sub":"0oaesxtmvp"}`,
		subject: "0oaesxtmvp", client: "0oaesxtmvp", scopes: []string{"orders:read"},
		relatives: []relative{
			{"a token of another application", nil, object{"cid": "0oaother", "sub": "0oaother"}, valetkey.ReasonClient},
			{"a token of the org's own domain", nil, object{"iss": oktaOrg + "/oauth2/aus9o8wvkhockw9TL0h7"}, valetkey.ReasonIssuer},
		},
	},
}

func TestIssuersOfHostedProducts(t *testing.T) {
	for name, test := range map[string]struct{ of, issuer, want, mistake string }{
		"Okta's org authorization server":       {"okta", oktaOrg, "", "the tokens of the org authorization server are for Okta's API only"},
		"Okta's domain":                         {"okta", "example.okta.com", "", "is not a custom authorization server"},
		"Okta's server without a name":          {"okta", oktaOrg + "/oauth2/", "", "is not a custom authorization server"},
		"an endpoint of Okta's org":             {"okta", oktaOrg + "/oauth2/v1", "", "is not a custom authorization server"},
		"a custom server of Okta":               {"okta", oktaServer, oktaServer, ""},
		"Auth0's domain":                        {"auth0", "shop.eu.auth0.com", auth0Tenant, ""},
		"Auth0's URL without a slash":           {"auth0", "https://shop.eu.auth0.com", auth0Tenant, ""},
		"Auth0's URL":                           {"auth0", auth0Tenant, auth0Tenant, ""},
		"a custom domain at Auth0":              {"auth0_rfc9068", "login.example.com", auth0Custom, ""},
		"an issuer that is more than an origin": {"auth0", "https://login.example.com/x", "https://login.example.com/x", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := issuers.Named(test.of, issuers.Params{Issuer: test.issuer, Audience: []string{ordersAPI}})
			if test.mistake != "" {
				assert.ErrorContains(t, err, test.mistake)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.want, cfg.Issuer)
		})
	}
}
