package issuers_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
)

const (
	host       = "https://identity.example.com"
	hostMeta   = host + "/.well-known/openid-configuration"
	duendeKeys = host + "/.well-known/openid-configuration/jwks"
	abpKeys    = host + "/.well-known/jwks"
	springKeys = host + "/oauth2/jwks"
)

// duendeRelatives are tokens of an IdentityServer that the settings for ordersAPI refuse.
var duendeRelatives = []relative{
	{"an ID token", object{"typ": "JWT"}, object{"aud": "web", "client_id": nil, "scope": nil, "jti": nil, "nonce": "n", "at_hash": "h", "idp": "local"}, valetkey.ReasonNotAccessToken},
	{"an ID token of a machine that calls itself like the API", object{"typ": "JWT"}, object{"client_id": nil, "scope": nil}, valetkey.ReasonNotAccessToken},
	{"a token with only the audience of all tokens", nil, object{"aud": host + "/resources"}, valetkey.ReasonAudience},
	{"a token for API scopes without a resource", nil, object{"aud": nil}, valetkey.ReasonClaimMalformed},
}

var frameworkShapes = []shape{
	{
		of: "duende", kind: "a user's token",
		params:   issuers.Params{Issuer: host, Audience: []string{"orders"}},
		metadata: hostMeta, keySet: duendeKeys,
		header: object{"typ": "at+jwt"},
		claims: `{"iss":"` + host + `","nbf":$IAT,"iat":$IAT,"exp":$EXP,"aud":["orders","` + host + `/resources"],"scope":["openid","orders.read","offline_access"],
			"amr":["pwd"],"client_id":"web","sub":"818727","auth_time":$IAT,"idp":"local","sid":"8F3B","jti":"2C56"}`,
		subject: "818727", client: "web", scopes: []string{"openid", "orders.read", "offline_access"},
		relatives: duendeRelatives,
	},
	{
		of: "duende", kind: "a machine's token without jti, with a string as scope",
		params:   issuers.Params{Issuer: host, Audience: []string{"orders"}},
		metadata: hostMeta, keySet: duendeKeys, alg: "ES256",
		header: object{"typ": "at+jwt"},
		claims: `{"iss":"` + host + `","nbf":$IAT,"iat":$IAT,"exp":$EXP,"aud":"orders","scope":"orders.read orders.write","client_id":"m2m"}`,
		client: "m2m", scopes: []string{"orders.read", "orders.write"},
		relatives: duendeRelatives,
	},
	{
		of: "duende", kind: "a token with the audience of all tokens, of a listed client",
		params:   issuers.Params{Issuer: host, Audience: []string{host + "/resources"}, Clients: []string{"m2m"}},
		metadata: hostMeta, keySet: duendeKeys,
		header: object{"typ": "at+jwt"},
		claims: `{"iss":"` + host + `","nbf":$IAT,"iat":$IAT,"exp":$EXP,"aud":"` + host + `/resources","scope":["orders.read"],"client_id":"m2m","jti":"A0"}`,
		client: "m2m", scopes: []string{"orders.read"},
		relatives: []relative{
			{"a token of another client", nil, object{"client_id": "other"}, valetkey.ReasonClient},
			{"an ID token", object{"typ": "JWT"}, object{"aud": "m2m", "client_id": nil, "scope": nil}, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "identityserver_legacy", kind: "a machine's token of IdentityServer3",
		params:   issuers.Params{Issuer: host, Audience: []string{host + "/resources"}, Clients: []string{"chw"}},
		metadata: hostMeta, keySet: host + "/.well-known/jwks",
		header: object{"typ": "JWT", "x5t": "a3rMUgMFv9tPclLa6yF3zAkfquE"},
		claims: `{"client_id":"chw","client_chw:delete":"access","scope":["orders.read","orders.delete"],"iss":"` + host + `","aud":"` + host + `/resources","exp":$EXP,"nbf":$IAT}`,
		client: "chw", scopes: []string{"orders.read", "orders.delete"},
		relatives: []relative{
			{"a token of another client", nil, object{"client_id": "other"}, valetkey.ReasonClient},
			{"an ID token", nil, object{"aud": "chw", "sub": "88421113", "nonce": "n", "client_id": nil, "scope": nil, "iat": past}, valetkey.ReasonNotAccessToken},
			{"an ID token without a nonce", nil, object{"aud": "chw", "sub": "88421113", "client_id": nil, "scope": nil}, valetkey.ReasonClaimMalformed},
			{"a token without scope", nil, object{"scope": nil}, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "identityserver_legacy", kind: "a user's token of IdentityServer4, version 2",
		params:   issuers.Params{Issuer: host, Audience: []string{"orders"}},
		metadata: hostMeta, keySet: duendeKeys,
		header: object{"typ": "JWT"},
		claims: `{"nbf":$IAT,"exp":$EXP,"iss":"` + host + `","aud":["` + host + `/resources","orders"],"client_id":"mvc","sub":"1","auth_time":$IAT,"idp":"local",
			"scope":["openid","profile","orders.read","offline_access"],"amr":["pwd"]}`,
		subject: "1", client: "mvc", scopes: []string{"openid", "profile", "orders.read", "offline_access"},
		relatives: []relative{
			{"an ID token", nil, object{"aud": "mvc", "client_id": nil, "scope": nil, "at_hash": "h"}, valetkey.ReasonNotAccessToken},
			{"an ID token for a client with the API's name", nil, object{"aud": "orders", "scope": nil}, valetkey.ReasonNotAccessToken},
			{"a token with only the audience of all tokens", nil, object{"aud": host + "/resources"}, valetkey.ReasonAudience},
		},
	},
	{
		of: "openiddict", kind: "a user's token",
		params:   issuers.Params{Issuer: host + "/", Audience: []string{"Orders"}},
		metadata: hostMeta, keySet: abpKeys,
		header: object{"typ": "at+jwt", "x5t": "u4PJJ7vZ2GJ6wc0WAFrdMxvSM0U"},
		claims: `{"iss":"` + host + `/","exp":$EXP,"iat":$IAT,"aud":["Orders","Billing"],"scope":"openid offline_access Orders","jti":"e4d20641-529d","sub":"1bcc8a26-4a04",
			"email":"user@example.com","role":"Admin","oi_prst":"Shop_Web","oi_au_id":"f3333ab0-1194","client_id":"Shop_Web","oi_tkn_id":"e2709886-ee95"}`,
		subject: "1bcc8a26-4a04", client: "Shop_Web", scopes: []string{"openid", "offline_access", "Orders"},
		relatives: openIddictRelatives,
	},
	{
		of: "openiddict", kind: "a machine's token without sub, with an issuer that is completed",
		params:   issuers.Params{Issuer: host, Audience: []string{"Orders"}},
		metadata: hostMeta, keySet: abpKeys, issuer: host + "/",
		header: object{"typ": "at+jwt"},
		claims: `{"oi_prst":"Shop_Machine","client_id":"Shop_Machine","oi_tkn_id":"db2e0862-4d44","aud":"Orders","scope":"Orders","jti":"777ce15e-6ad6","iss":"` + host + `/",
			"exp":$EXP,"iat":$IAT}`,
		client: "Shop_Machine", scopes: []string{"Orders"},
		relatives: openIddictRelatives,
	},
	{
		of: "spring_authorization_server", kind: "a user's token with the client as its audience",
		params:   issuers.Params{Issuer: host, Clients: []string{"web"}},
		metadata: hostMeta, keySet: springKeys,
		claims:  `{"sub":"alice","aud":"web","nbf":$IAT,"scope":["openid","orders.read"],"iss":"` + host + `","exp":$EXP,"iat":$IAT,"jti":"5f1f"}`,
		subject: "alice", client: "web", scopes: []string{"openid", "orders.read"},
		relatives: []relative{
			{"an ID token", nil, object{"azp": "web", "auth_time": past, "sid": "s", "scope": nil, "nbf": nil}, valetkey.ReasonNotAccessToken},
			{"an ID token with a nonce", nil, object{"azp": "web", "nonce": "n", "scope": nil, "nbf": nil}, valetkey.ReasonNotAccessToken},
			{"a token of another client", nil, object{"aud": "other"}, valetkey.ReasonAudience},
			{"a token without scope", nil, object{"scope": nil}, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "spring_authorization_server", kind: "a token with an audience from a customizer, without jti",
		params:   issuers.Params{Issuer: host + "/tenant-a", Audience: []string{ordersAPI}, Clients: []string{"web"}},
		metadata: host + "/tenant-a/.well-known/openid-configuration", keySet: host + "/tenant-a/oauth2/jwks",
		header:  object{"typ": "at+jwt"},
		claims:  `{"sub":"alice","aud":"` + ordersAPI + `","client_id":"web","nbf":$IAT,"scope":["orders.read"],"iss":"` + host + `/tenant-a","exp":$EXP,"iat":$IAT}`,
		subject: "alice", client: "web", scopes: []string{"orders.read"},
		relatives: []relative{
			{"an ID token", object{"typ": nil}, object{"aud": "web", "azp": "web", "scope": nil, "client_id": nil}, valetkey.ReasonNotAccessToken},
			{"an ID token that was customized too", object{"typ": nil}, object{"azp": "web", "scope": nil}, valetkey.ReasonNotAccessToken},
			{"a token of another client", nil, object{"client_id": "other"}, valetkey.ReasonClient},
			{"a token that was not customized", nil, object{"aud": "web", "client_id": nil}, valetkey.ReasonAudience},
			{"a token of another tenant", nil, object{"iss": host + "/tenant-b"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "node_oidc_provider", kind: "a user's token for a resource",
		params:   issuers.Params{Issuer: host, Audience: []string{ordersAPI}},
		metadata: hostMeta, keySet: host + "/jwks",
		header:  object{"typ": "at+jwt"},
		claims:  `{"jti":"zNCAoVHX","sub":"alice","iat":$IAT,"exp":$EXP,"scope":"orders:read","client_id":"spa","iss":"` + host + `","aud":"` + ordersAPI + `"}`,
		subject: "alice", client: "spa", scopes: []string{"orders:read"},
		relatives: []relative{
			{"an ID token", object{"typ": "JWT"}, object{"aud": "spa", "client_id": nil, "scope": nil, "jti": nil, "nonce": "n"}, valetkey.ReasonNotAccessToken},
			{"an ID token without a typ", object{"typ": nil}, object{"aud": "spa", "client_id": nil, "scope": nil, "jti": nil}, valetkey.ReasonNotAccessToken},
			{"an introspection response", object{"typ": "token-introspection+jwt"}, object{"token_introspection": object{"active": true}}, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "laravel_passport", kind: "a user's token",
		params:  issuers.Params{Issuer: "https://shop.example.com", Clients: []string{"9d1e2f30-client"}},
		change:  func(c *jwks.Config) { c.JWKSURL = "https://shop.example.com/jwks.json" },
		keySet:  "https://shop.example.com/jwks.json",
		header:  object{"typ": "JWT", "kid": nil},
		claims:  `{"aud":"9d1e2f30-client","jti":"b9aa29e61c47d21e","iat":$IAT.371043,"nbf":$IAT.371046,"exp":$EXP.365184,"sub":"1","scopes":["basic","orders"]}`,
		subject: "1", client: "9d1e2f30-client", scopes: []string{"basic", "orders"},
		relatives: passportRelatives,
	},
	{
		of: "laravel_passport", kind: "a machine's token with an integer as its client, and an empty sub",
		params: issuers.Params{Issuer: "https://shop.example.com", Clients: []string{"3"}},
		change: func(c *jwks.Config) { c.JWKSURL = "https://shop.example.com/jwks.json" },
		keySet: "https://shop.example.com/jwks.json",
		header: object{"typ": "JWT", "kid": nil},
		claims: `{"aud":"3","jti":"f579ca353c27fb3c","iat":$IAT,"nbf":$IAT,"exp":$EXP,"sub":"","scopes":["orders"]}`,
		client: "3", scopes: []string{"orders"},
		relatives: passportRelatives,
	},
	{
		of: "light_oauth2", kind: "a user's token",
		params: issuers.Params{Issuer: "urn:com:networknt:oauth2:v1", Audience: []string{"urn:com.networknt"}},
		change: func(c *jwks.Config) { c.JWKSURL = "https://keys.example.com/light" },
		keySet: "https://keys.example.com/light",
		header: object{"kid": nil},
		claims: `{"iss":"urn:com:networknt:oauth2:v1","aud":"urn:com.networknt","exp":$EXP,"jti":"isQ-aLXhEGmdp6u1QMAclw","iat":$IAT,"nbf":$IAT,"version":"1.0","user_id":"stevehu",
			"user_type":"EMPLOYEE","client_id":"6e9d1db3","scope":["account.r","account.w"]}`,
		client: "6e9d1db3", scopes: []string{"account.r", "account.w"},
		relatives: []relative{
			{"an ID token", nil, object{"scope": nil, "client_id": nil, "sub": "stevehu", "nonce": "n"}, valetkey.ReasonNotAccessToken},
			{"an ID token without a nonce", nil, object{"scope": nil}, valetkey.ReasonNotAccessToken},
			{"a token of another version of the issuer", nil, object{"iss": "urn:com:networknt:oauth2:v2"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "oathkeeper_id_tokens", kind: "a request's token",
		params:  issuers.Params{Issuer: "https://oathkeeper.example.com/", Audience: []string{ordersAPI}},
		keySet:  "https://oathkeeper.example.com/.well-known/jwks.json",
		header:  object{"typ": "JWT"},
		claims:  `{"aud":["` + ordersAPI + `"],"exp":$EXP,"iat":$IAT,"iss":"https://oathkeeper.example.com/","jti":"1a4f7c36","nbf":$IAT,"sub":"alice","session":{"identity":{"id":"9f425a8d"}}}`,
		subject: "alice", client: ordersAPI,
		relatives: []relative{
			{"a token for another API behind it", nil, object{"aud": []string{"https://billing.example.com"}}, valetkey.ReasonAudience},
			{"a token for two APIs", nil, object{"aud": []string{"https://billing.example.com", ordersAPI}}, valetkey.ReasonClient},
			{"a token of a mutator without claims", nil, object{"aud": nil}, valetkey.ReasonClaimMalformed},
			{"a token of another Oathkeeper", nil, object{"iss": "https://oathkeeper.example.net/"}, valetkey.ReasonIssuer},
			{"a token of a client's kind", object{"typ": "at+jwt"}, object{"aud": "https://billing.example.com"}, valetkey.ReasonAudience},
		},
	},
}

var passportRelatives = []relative{
	{"an ID token of a package for OpenID Connect", nil, object{"iss": "https://shop.example.com", "scopes": nil, "nonce": "n"}, valetkey.ReasonNotAccessToken},
	{"an ID token without iss and nonce", nil, object{"scopes": nil}, valetkey.ReasonNotAccessToken},
	{"a token without scopes", nil, object{"scopes": []string{}}, valetkey.ReasonNotAccessToken},
	{"a token of another client", nil, object{"aud": "4"}, valetkey.ReasonAudience},
	{"a token for this client and another", nil, object{"aud": []string{"3", "9d1e2f30-client", "4"}}, valetkey.ReasonClaimMalformed},
}

var openIddictRelatives = []relative{
	{"an ID token", object{"typ": "JWT"}, object{"aud": "Shop_Web", "azp": "Shop_Web", "nonce": "n", "at_hash": "h", "client_id": nil, "scope": nil, "oi_prst": nil}, valetkey.ReasonNotAccessToken},
	{"an authorization code", object{"typ": "oi_auc+jwt"}, nil, valetkey.ReasonNotAccessToken},
	{"a refresh token", object{"typ": "oi_reft+jwt"}, nil, valetkey.ReasonNotAccessToken},
	{"a token of a server at another path", nil, object{"iss": host + "/other/"}, valetkey.ReasonIssuer},
	{"a token without a resource", nil, object{"aud": nil}, valetkey.ReasonClaimMalformed},
}

// By default, OpenIddict encrypts access tokens for the APIs that have its key.
func TestOpenIddictsEncryptedTokens(t *testing.T) {
	cfg, err := issuers.OpenIddict(issuers.Params{Issuer: host, Audience: []string{"Orders"}})
	require.NoError(t, err)
	v, err := jwks.New(cfg)
	require.NoError(t, err)
	defer v.Close()
	_, err = v.Verify(t.Context(), "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZDQkMtSFM1MTIiLCJraWQiOiI2MUY1IiwidHlwIjoiYXQrand0IiwiY3R5IjoiSldUIn0.a2V5.aXY.dGV4dA.dGFn")
	require.ErrorIs(t, err, valetkey.ErrNotApplicable, "an introspection may know it")
	assert.ErrorContains(t, err, "encrypted")
}

func TestIssuersOfFrameworks(t *testing.T) {
	t.Run("OpenIddict's issuer is completed only if it has no path", func(t *testing.T) {
		for given, want := range map[string]string{
			"https://identity.example.com":      "https://identity.example.com/",
			"https://localhost:44395":           "https://localhost:44395/",
			"https://identity.example.com/":     "https://identity.example.com/",
			"https://identity.example.com/auth": "https://identity.example.com/auth",
		} {
			cfg, err := issuers.OpenIddict(issuers.Params{Issuer: given, Audience: []string{"Orders"}})
			require.NoError(t, err)
			assert.Equal(t, want, cfg.Issuer)
		}
	})
	for name, test := range map[string]struct {
		of   string
		p    issuers.Params
		want string
	}{
		"Duende with the audience of all tokens and no clients": {"duende", issuers.Params{Issuer: host, Audience: []string{"orders", host + "/resources"}},
			"issuers: duende: Clients: required with the audience"},
		"IdentityServer3 with the audience of all tokens and no clients": {"identityserver_legacy", issuers.Params{Issuer: host + "/", Audience: []string{host + "/resources"}},
			"issuers: identityserver_legacy: Clients: required with the audience"},
		"Spring without a recipient": {"spring_authorization_server", issuers.Params{Issuer: host},
			"issuers: spring_authorization_server: Audience, Clients: one of them is required"},
	} {
		t.Run(name+" is a mistake", func(t *testing.T) {
			_, err := issuers.Named(test.of, test.p)
			assert.ErrorContains(t, err, test.want)
		})
	}
}

// The tokens that the document on light-oauth2 printed, with the key of its development certificate.
func TestTokensOfLightOAuth2(t *testing.T) {
	data, err := os.ReadFile("../jwks/testdata/light-oauth2.json")
	require.NoError(t, err)
	var light struct {
		Issuer, Audience string
		ValidAt          time.Time `json:"valid_at"`
		JWKS             json.RawMessage
		Tokens           map[string]string
	}
	require.NoError(t, json.Unmarshal(data, &light))
	require.Len(t, light.Tokens, 2)
	cfg, err := issuers.LightOAuth2(issuers.Params{Issuer: light.Issuer, Audience: []string{light.Audience}})
	require.NoError(t, err)
	cfg.JWKS, cfg.Now = light.JWKS, func() time.Time { return light.ValidAt }
	v, err := jwks.New(cfg)
	require.NoError(t, err)
	defer v.Close()
	for name, raw := range light.Tokens {
		t.Run(name+" is accepted", func(t *testing.T) {
			token, err := v.Verify(t.Context(), raw)
			require.NoError(t, err)
			assert.Equal(t, valetkey.NewScopes("account.r", "account.w"), token.Scopes())
		})
	}
}
