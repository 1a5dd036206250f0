package issuers_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/issuers"
)

const (
	autheliaHost  = "https://auth.example.com"
	authentikApp  = "https://authentik.example.com/application/o/orders/"
	authentikUser = `{"iss":"` + authentikApp + `","sub":"8b2a","aud":"Yk3c","exp":$EXP,"iat":$IAT,"auth_time":$IAT,"acr":"goauthentik.io/providers/oauth2/default",
		"amr":["pwd"],"nonce":"n","at_hash":"h","sid":"s","email":"alice@example.com","email_verified":true,"groups":["ops"],"azp":"Yk3c","uid":"u1"}`
	dexHost   = "https://dex.example.com/dex"
	dexUser   = "CiQwOGE4Njg0Yi1kYjg4LTRiNzMtOTBhOS0zY2QxNjYxZjU0NjYSBWxvY2Fs"
	hydraHost = "https://hydra.example.com"
)

var selfHostedShapes = []shape{
	{
		of: "authelia", kind: "a user's token",
		params:   issuers.Params{Issuer: autheliaHost, Audience: []string{ordersAPI}},
		metadata: autheliaHost + "/.well-known/openid-configuration", keySet: autheliaHost + "/jwks.json",
		header: object{"typ": "at+jwt"},
		claims: `{"iss":"` + autheliaHost + `","sub":"0f6f","aud":["` + ordersAPI + `"],"client_id":"shop","scp":["openid","orders:read"],"jti":"j","iat":$IAT,"nbf":$IAT,
			"exp":$EXP}`,
		subject: "0f6f", client: "shop", scopes: []string{"openid", "orders:read"},
		relatives: []relative{
			{"an ID token", object{"typ": "JWT"}, object{"aud": []string{"shop"}, "azp": "shop", "nonce": "n", "scp": nil, "client_id": nil}, valetkey.ReasonNotAccessToken},
			{"a signed answer of userinfo", object{"typ": "JWT"}, object{"aud": []string{"shop"}, "scp": nil, "client_id": nil}, valetkey.ReasonNotAccessToken},
			{"a signed introspection answer", object{"typ": "token-introspection+jwt"}, object{"token_introspection": object{"active": true}}, valetkey.ReasonNotAccessToken},
			{"a token without an audience", nil, object{"aud": nil}, valetkey.ReasonClaimMalformed},
		},
	},
	{
		of: "authentik_id_tokens", kind: "a user's token",
		params:   issuers.Params{Issuer: authentikApp, Audience: []string{"Yk3c"}},
		metadata: authentikApp + ".well-known/openid-configuration", keySet: authentikApp + "jwks/",
		header: object{"typ": "JWT"}, claims: authentikUser,
		subject: "8b2a", client: "Yk3c",
		relatives: []relative{
			{"an ID token", nil, object{"azp": nil, "uid": nil}, valetkey.ReasonNotAccessToken},
			{"a token of another application", nil, object{"iss": "https://authentik.example.com/application/o/other/", "aud": "Zz9", "azp": "Zz9"}, valetkey.ReasonIssuer},
			{"a token of another application, with one issuer for all", nil, object{"aud": "Zz9", "azp": "Zz9"}, valetkey.ReasonAudience},
			{"a token that another application got for this one", nil, object{"azp": "Zz9"}, valetkey.ReasonClient},
		},
	},
	{
		of: "authentik_id_tokens", kind: "a token whose aud is from a scope mapping",
		params:   issuers.Params{Issuer: authentikApp, Audience: []string{ordersAPI}, Clients: []string{"app"}, Rules: []claims.Rule{claims.Contains("groups", "ops")}},
		metadata: authentikApp + ".well-known/openid-configuration", keySet: authentikApp + "jwks/",
		alg: "ES256", header: object{"typ": "JWT"},
		claims: `{"iss":"` + authentikApp + `","sub":"user-1","aud":"` + ordersAPI + `","exp":$EXP,"iat":$IAT,"auth_time":$IAT,"azp":"app","uid":"u","groups":["ops"],
			"nonce":"n","at_hash":"h"}`,
		subject: "user-1", client: "app",
		relatives: []relative{
			{"an ID token", nil, object{"aud": "app", "azp": nil, "uid": nil}, valetkey.ReasonNotAccessToken},
			{"a token of another application", nil, object{"azp": "other"}, valetkey.ReasonClient},
			{"a token of a user of another group", nil, object{"groups": []string{"dev"}}, valetkey.ReasonClaimRule},
		},
	},
	{
		of: "dex_id_tokens", kind: "a user's token for its own client",
		params:   issuers.Params{Issuer: dexHost, Audience: []string{"orders"}},
		metadata: dexHost + "/.well-known/openid-configuration", keySet: dexHost + "/keys",
		claims: `{"iss":"` + dexHost + `","sub":"` + dexUser + `","aud":"orders","exp":$EXP,"iat":$IAT,"nonce":"n","at_hash":"h","email":"alice@example.com",
			"email_verified":true,"groups":["ops"],"name":"alice"}`,
		subject: dexUser, client: "orders",
		relatives: []relative{
			{"a token for another client", nil, object{"aud": "shop"}, valetkey.ReasonAudience},
			{"a token that another client got for this one", nil, object{"aud": []string{"orders", "shop"}, "azp": "shop"}, valetkey.ReasonClient},
			{"a token for two clients, without the one that got it", nil, object{"aud": []string{"orders", "shop"}}, valetkey.ReasonClient},
		},
	},
	{
		of: "dex_id_tokens", kind: "a token that a trusted peer got for the API",
		params:   issuers.Params{Issuer: dexHost, Audience: []string{"orders"}, Clients: []string{"shop"}, Rules: []claims.Rule{claims.Contains("groups", "ops")}},
		metadata: dexHost + "/.well-known/openid-configuration", keySet: dexHost + "/keys",
		claims: `{"iss":"` + dexHost + `","sub":"` + dexUser + `","aud":["orders","shop"],"azp":"shop","exp":$EXP,"iat":$IAT,"at_hash":"h","groups":["ops","dev"],
			"federated_claims":{"connector_id":"ldap","user_id":"alice"}}`,
		subject: dexUser, client: "shop",
		relatives: []relative{
			{"a token of another peer", nil, object{"aud": []string{"orders", "other"}, "azp": "other"}, valetkey.ReasonClient},
			{"a token of the peer for itself", nil, object{"aud": "shop", "azp": nil}, valetkey.ReasonAudience},
			{"a token of a user of another group", nil, object{"groups": []string{"dev"}}, valetkey.ReasonClaimRule},
		},
	},
	{
		of: "ory_hydra", kind: "a user's token",
		params:   issuers.Params{Issuer: hydraHost, Audience: []string{ordersAPI}},
		metadata: hydraHost + "/.well-known/openid-configuration", keySet: hydraHost + "/.well-known/jwks.json",
		header: object{"typ": "JWT"},
		claims: `{"aud":["` + ordersAPI + `"],"client_id":"5c2d","exp":$EXP,"ext":{},"iat":$IAT,"iss":"` + hydraHost + `","jti":"6d1f","nbf":$IAT,
			"scp":["openid","orders:read"],"sub":"alice"}`,
		subject: "alice", client: "5c2d", scopes: []string{"openid", "orders:read"},
		relatives: []relative{
			{"an ID token", nil, object{"aud": []string{"5c2d"}, "client_id": nil, "scp": nil, "ext": nil, "at_hash": "h", "nonce": "n", "rat": past, "sid": "s"}, valetkey.ReasonNotAccessToken},
			{"an ID token for the API", nil, object{"client_id": nil, "scp": nil, "at_hash": "h"}, valetkey.ReasonNotAccessToken},
			{"a token without an audience", nil, object{"aud": []string{}}, valetkey.ReasonClaimMalformed},
			{"a token of the JWT bearer grant, without a client", nil, object{"client_id": ""}, valetkey.ReasonClaimMalformed},
			{"a token without scopes", nil, object{"scp": []string{}}, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "ory_hydra", kind: "a machine's token without an audience, of Hydra 1",
		params:   issuers.Params{Issuer: hydraHost + "/", Clients: []string{"worker"}},
		metadata: hydraHost + "/.well-known/openid-configuration", keySet: hydraHost + "/.well-known/jwks.json",
		header: object{"typ": "JWT"},
		claims: `{"aud":[],"client_id":"worker","exp":$EXP,"ext":{},"iat":$IAT,"iss":"` + hydraHost + `/","jti":"6d1f","nbf":$IAT,"scope":"orders:read",
			"scp":["orders:read"],"sub":"worker"}`,
		subject: "worker", client: "worker", scopes: []string{"orders:read"},
		relatives: []relative{
			{"a token of another client", nil, object{"client_id": "shop", "sub": "shop"}, valetkey.ReasonAudience},
			{"an ID token", nil, object{"aud": []string{"worker"}, "client_id": nil, "scp": nil, "scope": nil, "at_hash": "h"}, valetkey.ReasonNotAccessToken},
		},
	},
}

func TestSelfHostedParameters(t *testing.T) {
	t.Run("Hydra without a recipient is a mistake", func(t *testing.T) {
		_, err := issuers.OryHydra(issuers.Params{Issuer: hydraHost})
		assert.EqualError(t, err, "issuers: ory_hydra: Audience, Clients: one of them is required: an audience that clients request, or the clients whose tokens are accepted")
	})
	t.Run("Hydra with an audience does not accept the clients as recipients", func(t *testing.T) {
		cfg, err := issuers.OryHydra(issuers.Params{Issuer: hydraHost, Audience: []string{ordersAPI}, Clients: []string{"worker"}})
		require.NoError(t, err)
		assert.Empty(t, cfg.AudienceClaim)
		assert.Equal(t, []string{ordersAPI}, cfg.Audience)
	})
	t.Run("the slash of an authentik issuer is completed", func(t *testing.T) {
		cfg, err := issuers.AuthentikIDTokens(issuers.Params{Issuer: strings.TrimSuffix(authentikApp, "/"), Audience: []string{"app"}})
		require.NoError(t, err)
		assert.Equal(t, authentikApp, cfg.Issuer)
	})
	t.Run("ID tokens are accepted only by constructors whose names state it", func(t *testing.T) {
		for _, s := range shapes {
			cfg, err := issuers.Named(s.of, s.params)
			require.NoError(t, err)
			if cfg.Profile.AllowIDTokens {
				assert.Contains(t, s.of, "id_token")
			}
		}
	})
}
