package issuers_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
)

const (
	realm      = "https://sso.example.com/realms/shop"
	realmKeys  = realm + "/protocol/openid-connect/certs"
	realmMeta  = realm + "/.well-known/openid-configuration"
	ordersAPI  = "https://api.example.com"
	keycloakID = `{"exp":$EXP,"iat":$IAT,"auth_time":$IAT,"jti":"onrtac:8a1c","iss":"` + realm + `","aud":["` + ordersAPI + `","account"],"sub":"f:1:alice",
		"typ":"Bearer","azp":"spa","nonce":"5e0c","sid":"s-1","acr":"1","allowed-origins":["https://shop.example.com"],
		"realm_access":{"roles":["offline_access","orders:admin"]},"resource_access":{"orders":{"roles":["export"]}},
		"scope":"openid orders:read","email_verified":true,"preferred_username":"alice"}`
)

var keycloakRelatives = []relative{
	{"an ID token", nil, object{"typ": "ID", "aud": "spa", "at_hash": "h"}, valetkey.ReasonNotAccessToken},
	{"an ID token for the API", nil, object{"typ": "ID"}, valetkey.ReasonNotAccessToken},
	{"a refresh token", nil, object{"typ": "Refresh", "aud": realm}, valetkey.ReasonNotAccessToken},
	{"an offline token", nil, object{"typ": "Offline", "aud": realm}, valetkey.ReasonNotAccessToken},
	{"a token without its kind", nil, object{"typ": nil}, valetkey.ReasonNotAccessToken},
	{"a token of another realm", nil, object{"iss": "https://sso.example.com/realms/other"}, valetkey.ReasonIssuer},
}

var keycloakShapes = []shape{
	{
		of: "keycloak", kind: "a user's token with a nonce",
		params:   issuers.Params{Issuer: realm, Audience: []string{ordersAPI}},
		metadata: realmMeta, keySet: realmKeys,
		header: object{"typ": "JWT"}, claims: keycloakID,
		subject: "f:1:alice", client: "spa", scopes: []string{"openid", "orders:read"},
		relatives: keycloakRelatives,
	},
	{
		of: "keycloak", kind: "a token with roles as scopes",
		params: issuers.Params{Issuer: realm, Audience: []string{ordersAPI}},
		change: func(c *jwks.Config) {
			c.Scopes = []string{"scope", "realm_access.roles", "resource_access.orders.roles"}
		},
		metadata: realmMeta, keySet: realmKeys,
		header: object{"typ": "JWT"}, claims: keycloakID,
		subject: "f:1:alice", client: "spa", scopes: []string{"openid", "orders:read", "offline_access", "orders:admin", "export"},
		relatives: keycloakRelatives,
	},
	{
		of: "keycloak", kind: "a token of a realm without an audience mapper, over the back channel",
		params: issuers.Params{Issuer: realm, Audience: []string{"account"}, Clients: []string{"spa"}},
		change: func(c *jwks.Config) {
			c.IssuerAliases = []string{"http://keycloak:8080/realms/shop"}
			c.JWKSURL, c.InsecureHTTP = "http://keycloak:8080/realms/shop/protocol/openid-connect/certs", true
		},
		keySet: "http://keycloak:8080/realms/shop/protocol/openid-connect/certs",
		header: object{"typ": "JWT"},
		claims: `{"exp":$EXP,"iat":$IAT,"jti":"1","iss":"http://keycloak:8080/realms/shop","aud":"account","sub":"u","typ":"DPoP","azp":"spa","scope":"email",
			"cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}`,
		subject: "u", client: "spa", scopes: []string{"email"},
		relatives: []relative{
			{"a token of another client", nil, object{"azp": "other"}, valetkey.ReasonClient},
			{"a token of another client with a mapped client_id", nil, object{"azp": "other", "client_id": "spa"}, valetkey.ReasonClient},
			{"a refresh token", nil, object{"typ": "Refresh"}, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "keycloak_lightweight", kind: "a lightweight token",
		params:   issuers.Params{Issuer: realm, Clients: []string{"spa"}},
		metadata: realmMeta, keySet: realmKeys,
		header: object{"typ": "JWT"},
		claims: `{"exp":$EXP,"iat":$IAT,"jti":"onltac:1","iss":"` + realm + `","typ":"Bearer","azp":"spa","sid":"s-1","scope":"orders:read"}`,
		client: "spa", scopes: []string{"orders:read"},
		relatives: []relative{
			{"a token of another client", nil, object{"azp": "other"}, valetkey.ReasonAudience},
			{"an ID token", nil, object{"typ": "ID", "aud": "spa"}, valetkey.ReasonNotAccessToken},
			{"a refresh token", nil, object{"typ": "Refresh", "aud": realm}, valetkey.ReasonNotAccessToken},
			{"a token for another API, by the client", nil, object{"aud": "https://another-api.example.net"}, valetkey.ReasonAudience},
		},
	},
}

func TestParameters(t *testing.T) {
	for name, test := range map[string]struct {
		of   string
		p    issuers.Params
		want []string
	}{
		"an unknown product":            {"keyclock", issuers.Params{}, []string{`issuers: "keyclock" is not one of ["`}},
		"nothing":                       {"keycloak", issuers.Params{}, []string{"issuers: keycloak: Issuer: required", "issuers: keycloak: Audience: required"}},
		"a parameter without a meaning": {"keycloak", issuers.Params{Issuer: realm, Audience: []string{ordersAPI}, Tenants: []string{"t"}}, []string{"issuers: keycloak: Tenants: has no meaning"}},
		"an audience that is empty":     {"keycloak", issuers.Params{Issuer: realm, Audience: []string{""}}, []string{"issuers: keycloak: Audience[0]: is empty"}},
		"the audience of all tokens":    {"keycloak", issuers.Params{Issuer: realm, Audience: []string{"account"}}, []string{"issuers: keycloak: Clients: required with the audience"}},
		"no clients":                    {"cognito", issuers.Params{Issuer: pool}, []string{"issuers: cognito: Clients: required"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := issuers.Named(test.of, test.p)
			for _, want := range test.want {
				assert.ErrorContains(t, err, want)
			}
			assert.Equal(t, jwks.Config{}, cfg)
		})
	}
}
