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
	pingFed  = "https://sso.example.com:9031"
	pingEnv  = "https://auth.pingone.eu/4631af52-7ec7-48cf-848f-48cf8ca8e1ab/as"
	amAlpha  = "https://am.example.com:8443/am/oauth2/realms/root/realms/alpha"
	curityAS = "https://idsvr.example.com/oauth/v2/oauth-anonymous"
	wso2IS   = "https://is.example.com:9443/oauth2/token"

	jans          = "https://jans.example.com"
	oracleDomain  = "https://idcs-ba024b2844b3.identity.oraclecloud.com"
	oracleKeys    = oracleDomain + "/admin/v1/SigningCert/jwk"
	door          = "https://door.example.com"
	stytchProject = "project-live-d0dbafe6-a019-47ea-8550-d021c1c76ea9"
)

var pingFederateRelatives = []relative{
	{"an ID token", nil, object{"aud": "ac_client", "sub": "joe", "iat": past, "nonce": "n", "at_hash": "h", "client_id": nil, "scope": nil}, valetkey.ReasonNotAccessToken},
	{"an ID token of the typ JWT without a nonce", object{"typ": "JWT"}, object{"aud": "ac_client", "client_id": nil, "scope": nil}, valetkey.ReasonClaimMalformed},
	{"a token of a manager without an audience", nil, object{"aud": nil}, valetkey.ReasonClaimMalformed},
	{"a token of a manager without an issuer", nil, object{"iss": nil}, valetkey.ReasonIssuer},
	{"a token without scope", nil, object{"scope": nil}, valetkey.ReasonNotAccessToken},
}

var pingOneRelatives = []relative{
	{"an ID token", object{"typ": nil}, object{"aud": []string{"adeeb901"}, "nonce": "n", "at_hash": "h", "amr": []string{"pwd"}, "client_id": nil, "scope": nil}, valetkey.ReasonNotAccessToken},
	{"an ID token without a nonce", object{"typ": nil}, object{"aud": []string{"adeeb901"}, "scope": nil}, valetkey.ReasonNotAccessToken},
	{"a token for PingOne's own API", nil, object{"aud": []string{"https://api.pingone.eu"}}, valetkey.ReasonAudience},
	{"a token of another environment", nil, object{"iss": "https://auth.pingone.eu/01d89b06-66d5-430e-9f28-65636843788b/as"}, valetkey.ReasonIssuer},
	{"a token of the environment's name in another region", nil, object{"iss": "https://auth.pingone.com/4631af52-7ec7-48cf-848f-48cf8ca8e1ab/as"}, valetkey.ReasonIssuer},
	{"a token whose act is a text", nil, object{"act": "noActor"}, valetkey.ReasonClaimMalformed},
}

var enterpriseShapes = []shape{
	{
		of: "pingfederate", kind: "a user's token by default, with the keys of its manager",
		params: issuers.Params{Issuer: pingFed, Audience: []string{ordersAPI}},
		change: func(c *jwks.Config) { c.JWKSURL = pingFed + "/ext/orders" },
		keySet: pingFed + "/ext/orders",
		header: object{"pi.atm": "5"},
		claims: `{"scope":["openid","profile","orders:read"],"client_id":"ac_client","iss":"` + pingFed + `","aud":"` + ordersAPI + `","jti":"aBc","Username":"joe","exp":$EXP}`,
		client: "ac_client", scopes: []string{"openid", "profile", "orders:read"},
		relatives: pingFederateRelatives,
	},
	{
		of: "pingfederate", kind: "a token exchanged for an agent, with a centralized key",
		params:   issuers.Params{Issuer: pingFed, Audience: []string{ordersAPI}},
		metadata: pingFed + "/.well-known/openid-configuration", keySet: pingFed + "/pf/JWKS", alg: "ES256",
		header: object{"typ": "at+jwt", "pi.atm": "8dzf"},
		claims: `{"scope":"orders:read","authorization_details":[],"client_id":"agent-3","iss":"` + pingFed + `","iat":$IAT,"sub":"user-042","aud":"` + ordersAPI + `",
			"act":{"sub":"agent-3"},"exp":$EXP}`,
		subject: "user-042", client: "agent-3", scopes: []string{"orders:read"},
		relatives: []relative{
			{"an ID token", object{"typ": "JWT"}, object{"aud": "ac_client", "client_id": nil, "scope": nil, "act": nil}, valetkey.ReasonClaimMalformed},
			{"a token of another server", nil, object{"iss": "https://sso.example.com"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "pingone", kind: "a user's token",
		params:   issuers.Params{Issuer: pingEnv, Audience: []string{ordersAPI}},
		metadata: pingEnv + "/.well-known/openid-configuration", keySet: pingEnv + "/jwks",
		claims: `{"client_id":"adeeb901","iss":"` + pingEnv + `","jti":"ea50083a","iat":$IAT,"exp":$EXP,"aud":["` + ordersAPI + `"],"scope":"openid orders:read","sub":"8ca2b15a",
			"sid":"2fc3e42c","auth_time":$IAT,"acr":"Single_Factor","env":"4631af52-7ec7-48cf-848f-48cf8ca8e1ab","org":"84c4c0c0"}`,
		subject: "8ca2b15a", client: "adeeb901", scopes: []string{"openid", "orders:read"},
		relatives: pingOneRelatives,
	},
	{
		of: "pingone", kind: "a machine's token of the typ at+jwt",
		params:   issuers.Params{Issuer: pingEnv, Audience: []string{ordersAPI}},
		metadata: pingEnv + "/.well-known/openid-configuration", keySet: pingEnv + "/jwks",
		header: object{"typ": "at+jwt"},
		claims: `{"client_id":"adeeb901","iss":"` + pingEnv + `","jti":"722238d2","iat":$IAT,"exp":$EXP,"aud":["` + ordersAPI + `"],"scope":"orders:read",
			"env":"4631af52-7ec7-48cf-848f-48cf8ca8e1ab","org":"84c4c0c0","p1.rid":"722238d2"}`,
		client: "adeeb901", scopes: []string{"orders:read"},
		relatives: pingOneRelatives,
	},
	{
		of: "pingam", kind: "a machine's token with the client as its audience",
		params:   issuers.Params{Issuer: amAlpha, Clients: []string{"m2m"}},
		metadata: amAlpha + "/.well-known/openid-configuration", keySet: amAlpha + "/connect/jwk_uri",
		header: object{"typ": "JWT"},
		claims: `{"sub":"m2m","cts":"OAUTH2_STATELESS_GRANT","auditTrackingId":"306f4090-160448","iss":"` + amAlpha + `","tokenName":"access_token","token_type":"Bearer",
			"authGrantId":"yyChRcvpfgSW","aud":"m2m","nbf":$IAT,"grant_type":"client_credentials","scope":["orders.write","orders.read"],"auth_time":$IAT,"realm":"/alpha",
			"exp":$EXP,"iat":$IAT,"expires_in":3600,"jti":"RzW5jAtx4s01"}`,
		subject: "m2m", client: "m2m", scopes: []string{"orders.write", "orders.read"},
		relatives: []relative{
			{"an ID token", nil, object{"tokenName": "id_token", "tokenType": "JWTToken", "azp": "m2m", "at_hash": "h", "acr": "0", "scope": nil}, valetkey.ReasonNotAccessToken},
			{"a refresh token", nil, object{"tokenName": "refresh_token"}, valetkey.ReasonNotAccessToken},
			{"a token without its kind", nil, object{"tokenName": nil}, valetkey.ReasonNotAccessToken},
			{"a token of another client", nil, object{"aud": "other"}, valetkey.ReasonAudience},
			{"a token of another realm", nil, object{"iss": "https://am.example.com:8443/am/oauth2/realms/root/realms/bravo", "realm": "/bravo"}, valetkey.ReasonIssuer},
			{"a token signed with the default algorithm's name", object{"alg": "HS256"}, nil, valetkey.ReasonAlgorithm},
		},
	},
	{
		of: "pingam", kind: "a user's token with an audience from a script",
		params:   issuers.Params{Issuer: amAlpha, Audience: []string{ordersAPI}},
		metadata: amAlpha + "/.well-known/openid-configuration", keySet: amAlpha + "/connect/jwk_uri", alg: "ES256",
		header: object{"typ": "JWT"},
		claims: `{"sub":"(usr!a0325ea4)","cts":"OAUTH2_STATELESS_GRANT","auth_level":0,"auditTrackingId":"1d7a3317","subname":"a0325ea4","iss":"` + amAlpha + `",
			"tokenName":"access_token","token_type":"Bearer","authGrantId":"sReMmkL0","nonce":"n","aud":"` + ordersAPI + `","nbf":$IAT,"grant_type":"authorization_code",
			"scope":["openid","orders.read"],"auth_time":$IAT,"realm":"/alpha","exp":$EXP,"iat":$IAT,"expires_in":3600,"jti":"MhDJJ0"}`,
		subject: "(usr!a0325ea4)", scopes: []string{"openid", "orders.read"},
		relatives: []relative{
			{"an ID token", nil, object{"tokenName": "id_token", "aud": "spa", "azp": "spa", "s_hash": "h", "scope": nil}, valetkey.ReasonNotAccessToken},
			{"a refresh token", nil, object{"tokenName": "refresh_token"}, valetkey.ReasonNotAccessToken},
			{"a token that no script changed", nil, object{"aud": "spa"}, valetkey.ReasonAudience},
		},
	},
	{
		of: "curity", kind: "a user's token for an API",
		params:   issuers.Params{Issuer: curityAS, Audience: []string{"api.example.com"}},
		metadata: curityAS + "/.well-known/openid-configuration", keySet: curityAS + "/jwks",
		header: object{"x5t": "ZZ0"},
		claims: `{"jti":"3ed02b8d","delegationId":"9dd15191","exp":$EXP,"nbf":$IAT,"scope":"openid profile orders","iss":"` + curityAS + `","sub":"demouser",
			"aud":"api.example.com","iat":$IAT,"purpose":"access_token"}`,
		subject: "demouser", scopes: []string{"openid", "profile", "orders"},
		relatives: []relative{
			{"an ID token", nil, object{"purpose": "id", "aud": "web", "azp": "web", "at_hash": "h", "scope": nil}, valetkey.ReasonNotAccessToken},
			{"an ID token whose audience is the API too", nil, object{"purpose": "id", "aud": []string{"api.example.com", "web"}, "azp": "web", "scope": nil}, valetkey.ReasonNotAccessToken},
			{"a refresh token", nil, object{"purpose": "refresh_token"}, valetkey.ReasonNotAccessToken},
			{"a token without its kind", nil, object{"purpose": nil}, valetkey.ReasonNotAccessToken},
			{"a token of another profile", nil, object{"iss": "https://idsvr.example.com/partners/v2/oauth-anonymous"}, valetkey.ReasonIssuer},
			{"a token whose audience is its client", nil, object{"aud": "web"}, valetkey.ReasonAudience},
		},
	},
	{
		of: "curity", kind: "a token with the client as its audience",
		params:   issuers.Params{Issuer: curityAS, Clients: []string{"demo-web-client"}},
		metadata: curityAS + "/.well-known/openid-configuration", keySet: curityAS + "/jwks",
		claims: `{"jti":"adf9f0fc","delegationId":"cd231bba","exp":$EXP,"nbf":$IAT,"scope":"openid","iss":"` + curityAS + `","sub":"55ace8f2","aud":"demo-web-client",
			"iat":$IAT,"purpose":"access_token"}`,
		subject: "55ace8f2", client: "demo-web-client", scopes: []string{"openid"},
		relatives: []relative{
			{"an ID token", nil, object{"purpose": "id", "azp": "demo-web-client", "scope": nil}, valetkey.ReasonNotAccessToken},
			{"a token of another client", nil, object{"aud": "other"}, valetkey.ReasonAudience},
		},
	},
	{
		of: "wso2", kind: "a user's token with the client as its audience",
		params:   issuers.Params{Issuer: wso2IS, Clients: []string{"jVcW4oLn1Jjb"}},
		metadata: wso2IS + "/.well-known/openid-configuration", keySet: "https://is.example.com:9443/oauth2/jwks",
		header: object{"typ": "at+jwt", "x5t": "ODE3Y2Zh"},
		claims: `{"sub":"32bc4697","aut":"APPLICATION_USER","iss":"` + wso2IS + `","client_id":"jVcW4oLn1Jjb","aud":"jVcW4oLn1Jjb","nbf":$IAT,"act":{"sub":"2d931c9d"},
			"azp":"jVcW4oLn1Jjb","org_id":"10084a8d","scope":"openid orders_list","exp":$EXP,"org_name":"Super","iat":$IAT,"jti":"0728d517"}`,
		subject: "32bc4697", client: "jVcW4oLn1Jjb", scopes: []string{"openid", "orders_list"},
		relatives: []relative{
			{"an ID token", object{"typ": "JWT"}, object{"aut": nil, "at_hash": "h", "isk": "k", "amr": []string{"BasicAuthenticator"}, "client_id": nil, "scope": nil}, valetkey.ReasonNotAccessToken},
			{"an ID token without hashes and typ", object{"typ": nil}, object{"aut": nil, "client_id": nil, "scope": nil}, valetkey.ReasonNotAccessToken},
			{"a token of another application", nil, object{"aud": "YxVcAzqM5OB", "client_id": "YxVcAzqM5OB", "azp": "YxVcAzqM5OB"}, valetkey.ReasonAudience},
			{"a token of another application with this one as a further audience", nil, object{"aud": []string{"YxVcAzqM5OB", "jVcW4oLn1Jjb"}, "client_id": "YxVcAzqM5OB"}, valetkey.ReasonClient},
			{"a token of another tenant", nil, object{"iss": "https://is.example.com:9443/t/acme.com/oauth2/token"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "wso2", kind: "an application's token of API Manager",
		params:   issuers.Params{Issuer: wso2IS, Audience: []string{ordersAPI}},
		metadata: wso2IS + "/.well-known/openid-configuration", keySet: "https://is.example.com:9443/oauth2/jwks",
		claims: `{"sub":"admin@carbon.super","aut":"APPLICATION","aud":["2dVnZ1","` + ordersAPI + `"],"nbf":$IAT,"azp":"2dVnZ1","scope":"am_application_scope default",
			"iss":"` + wso2IS + `","keytype":"PRODUCTION","subscribedAPIs":[],"exp":$EXP,"iat":$IAT,"jti":"b1cbe7b3"}`,
		subject: "admin@carbon.super", client: "2dVnZ1", scopes: []string{"am_application_scope", "default"},
		relatives: []relative{
			{"an ID token", nil, object{"aut": nil, "aud": []string{"2dVnZ1", ordersAPI}, "scope": nil}, valetkey.ReasonNotAccessToken},
			{"a token whose audience is its client", nil, object{"aud": "2dVnZ1"}, valetkey.ReasonAudience},
			{"the assertion of a gateway for its backend", nil, object{"iss": "wso2.org/products/am", "aut": nil, "aud": nil}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "janssen", kind: "a user's token bound by DPoP",
		params:   issuers.Params{Issuer: jans, Audience: []string{ordersAPI}},
		metadata: jans + "/.well-known/openid-configuration", keySet: jans + "/jans-auth/restv1/jwks",
		header: object{"typ": "jwt"},
		claims: `{"scope":["openid","orders.read"],"client_id":"1800.f3a1","username":"Alice","token_type":"DPoP","iss":"` + jans + `","acr_values":null,"auth_time":$IAT,"exp":$EXP,
			"iat":$IAT,"nbf":$IAT,"sub":"n4Mcqb","x5t#S256":"","jti":"c0f5","aud":["1800.f3a1","` + ordersAPI + `"],"cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}`,
		subject: "n4Mcqb", client: "1800.f3a1", scopes: []string{"openid", "orders.read"},
		relatives: []relative{
			{"an ID token", nil, object{"scope": nil, "token_type": nil, "at_hash": "h", "client_id": nil, "grant": "authorization_code"}, valetkey.ReasonNotAccessToken},
			{"an ID token without a hash", nil, object{"scope": nil, "token_type": nil}, valetkey.ReasonNotAccessToken},
			{"a token of a client without the API in its audiences", nil, object{"aud": "1800.f3a1"}, valetkey.ReasonAudience},
			{"a token without scopes", nil, object{"scope": []string{}}, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "janssen", kind: "a machine's token with the client as its audience",
		params:   issuers.Params{Issuer: jans, Clients: []string{"1800.m2m"}},
		metadata: jans + "/.well-known/openid-configuration", keySet: jans + "/jans-auth/restv1/jwks", alg: "ES256",
		header: object{"typ": "JWT"},
		claims: `{"scope":["orders.read"],"client_id":"1800.m2m","username":null,"token_type":"Bearer","iss":"` + jans + `","exp":$EXP,"iat":$IAT,"nbf":$IAT,
			"sub":"1800.m2m","jti":"c0f6","aud":"1800.m2m"}`,
		subject: "1800.m2m", client: "1800.m2m", scopes: []string{"orders.read"},
		relatives: []relative{
			{"an ID token", nil, object{"scope": nil, "token_type": nil, "nonce": "n"}, valetkey.ReasonNotAccessToken},
			{"a token of another client", nil, object{"aud": "1800.web", "client_id": "1800.web"}, valetkey.ReasonAudience},
			{"a token of another client with this one as a further audience", nil, object{"aud": []string{"1800.web", "1800.m2m"}, "client_id": "1800.web"}, valetkey.ReasonClient},
		},
	},
	{
		of: "oracle_iam", kind: "a user's token",
		params: issuers.Params{Issuer: oracleDomain, Audience: []string{ordersAPI}},
		keySet: oracleKeys,
		header: object{"x5t": "IRbmlD-hR3X5vYxfkSu3jrzuh3Y"},
		claims: `{"client_ocid":"ocid1.domainapp.oc1","user_tenantname":"idcs-ba024b2844b3","sub":"alpha user","sub_mappingattr":"userName","iss":"https://identity.oraclecloud.com/",
			"tok_type":"AT","client_id":"ttylsmhrofl","sid":"q1w2e3","sub_type":"user","scope":"orders.read","client_tenantname":"idcs-ba024b2844b3","exp":$EXP,"iat":$IAT,
			"tenant":"idcs-ba024b2844b3","jti":"1ab2cd3ef","gtp":"azc","opc":false,"aud":"` + ordersAPI + `"}`,
		subject: "alpha user", client: "ttylsmhrofl", scopes: []string{"orders.read"},
		relatives: oracleRelatives,
	},
	{
		of: "oracle_iam", kind: "a machine's token without the slash of the issuer",
		params: issuers.Params{Issuer: oracleDomain + ":443/", Audience: []string{ordersAPI}},
		keySet: oracleDomain + ":443/admin/v1/SigningCert/jwk",
		claims: `{"sub":"79b000d7","user.tenant.name":"idcs-ba024b2844b3","iss":"https://identity.oraclecloud.com","tok_type":"AT","client_id":"79b000d7",
			"aud":["` + ordersAPI + `","urn:opc:lbaas:logicalguid=idcs-ba024b2844b3"],"sub_type":"client","scope":"Read","exp":$EXP,"iat":$IAT,
			"client_name":"APIClient","tenant":"idcs-ba024b2844b3","jti":"cffc6fdd"}`,
		subject: "79b000d7", client: "79b000d7", scopes: []string{"Read"},
		relatives: oracleRelatives,
	},
	{
		of: "casdoor_id_tokens", kind: "a user's token with a nonce",
		params:   issuers.Params{Issuer: door, Clients: []string{"014ae4bd048734ca2dea"}},
		metadata: door + "/.well-known/openid-configuration", keySet: door + "/.well-known/jwks",
		header: object{"typ": "JWT"},
		claims: `{"owner":"built-in","name":"admin","id":"9eb20f79","type":"normal-user","password":"","address":[],"groups":[],"tokenType":"access-token","nonce":"n","tag":"staff",
			"scope":"openid orders:read","azp":"014ae4bd048734ca2dea","provider":"","iss":"` + door + `","sub":"9eb20f79","aud":["014ae4bd048734ca2dea"],"exp":$EXP,"nbf":$IAT,
			"iat":$IAT,"jti":"admin/6f5b"}`,
		subject: "9eb20f79", client: "014ae4bd048734ca2dea", scopes: []string{"openid", "orders:read"},
		relatives: []relative{
			{"a refresh token", nil, object{"tokenType": "refresh-token"}, valetkey.ReasonNotAccessToken},
			{"a token without its kind", nil, object{"tokenType": nil}, valetkey.ReasonNotAccessToken},
			{"a token of another application", nil, object{"aud": []string{"b800a86702dd4d29ec4d"}, "azp": "b800a86702dd4d29ec4d"}, valetkey.ReasonAudience},
			{"a token of another application with this one in its audience", nil, object{"azp": "b800a86702dd4d29ec4d"}, valetkey.ReasonClient},
			{"a token of a server without azp", nil, object{"azp": nil}, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "casdoor_id_tokens", kind: "a token for a requested resource",
		params:   issuers.Params{Issuer: door, Audience: []string{ordersAPI}, Clients: []string{"014ae4bd048734ca2dea"}},
		metadata: door + "/.well-known/openid-configuration", keySet: door + "/.well-known/jwks", alg: "ES256",
		header: object{"typ": "JWT"},
		claims: `{"owner":"built-in","name":"admin","tokenType":"access-token","scope":"orders:read","azp":"014ae4bd048734ca2dea","iss":"` + door + `","sub":"9eb20f79",
			"aud":["` + ordersAPI + `"],"exp":$EXP,"nbf":$IAT,"iat":$IAT,"jti":"admin/6f5c"}`,
		subject: "9eb20f79", client: "014ae4bd048734ca2dea", scopes: []string{"orders:read"},
		relatives: []relative{
			{"a refresh token", nil, object{"tokenType": "refresh-token"}, valetkey.ReasonNotAccessToken},
			{"a token of another application", nil, object{"azp": "b800a86702dd4d29ec4d"}, valetkey.ReasonClient},
		},
	},
	{
		of: "stytch", kind: "a user's session",
		params: issuers.Params{Audience: []string{stytchProject}},
		keySet: "https://api.stytch.com/v1/sessions/jwks/" + stytchProject,
		header: object{"typ": "JWT"},
		claims: `{"aud":["` + stytchProject + `"],"exp":$EXP,"https://stytch.com/session":{"id":"session-live-8d63","started_at":"2026-10-01T09:41:40Z","attributes":{"user_agent":"","ip_address":""},
			"authentication_factors":[{"type":"otp"}]},"iat":$IAT,"iss":"stytch.com/` + stytchProject + `","nbf":$IAT,"sub":"user-live-20a1"}`,
		subject:   "user-live-20a1",
		relatives: stytchRelatives,
	},
	{
		of: "stytch", kind: "a member's session with roles, in a test project with a custom domain",
		params: issuers.Params{Issuer: "https://login.example.com", Audience: []string{"project-test-6d902c62"}},
		change: func(c *jwks.Config) { c.Scopes = []string{"https://stytch.com/session.roles"} },
		keySet: "https://test.stytch.com/v1/sessions/jwks/project-test-6d902c62",
		header: object{"typ": "JWT"},
		claims: `{"aud":["project-test-6d902c62"],"exp":$EXP,"https://stytch.com/session":{"id":"member-session-1","roles":["stytch_admin","orders_editor"]},
			"https://stytch.com/organization":{"organization_id":"organization-test-1","slug":"acme"},"iat":$IAT,"iss":"https://login.example.com","nbf":$IAT,"sub":"member-test-1"}`,
		subject: "member-test-1", scopes: []string{"stytch_admin", "orders_editor"},
		relatives: stytchRelatives,
	},
}

var oracleRelatives = []relative{
	{"an ID token", nil, object{"tok_type": "IT", "aud": []string{"https://identity.oraclecloud.com/", "ttylsmhrofl"}, "scope": nil}, valetkey.ReasonNotAccessToken},
	{"a refresh token", nil, object{"tok_type": "RT"}, valetkey.ReasonNotAccessToken},
	{"an assertion of a client", nil, object{"tok_type": "CA"}, valetkey.ReasonNotAccessToken},
	{"a token without its kind", nil, object{"tok_type": nil}, valetkey.ReasonNotAccessToken},
	{"a token of another domain", nil, object{"tenant": "idcs-7e70daa81c09"}, valetkey.ReasonClaimRule},
	{"a token for the domain itself", nil, object{"aud": []string{oracleDomain, "urn:opc:lbaas:logicalguid=idcs-ba024b2844b3"}}, valetkey.ReasonAudience},
}

var stytchRelatives = []relative{
	{"an ID token of a connected app", nil, object{"https://stytch.com/session": nil, "aud": "connected-app-test-d731", "nonce": "n"}, valetkey.ReasonNotAccessToken},
	{"an ID token for the project", nil, object{"https://stytch.com/session": nil}, valetkey.ReasonNotAccessToken},
	{"an access token of a connected app", nil, object{"https://stytch.com/session": nil, "client_id": "connected-app-test-d731", "scope": "openid"}, valetkey.ReasonNotAccessToken},
	{"a session of another project", nil, object{"iss": "stytch.com/project-live-other", "aud": []string{"project-live-other"}}, valetkey.ReasonIssuer},
}

func TestParametersOfEnterpriseProducts(t *testing.T) {
	for name, test := range map[string]struct {
		of   string
		p    issuers.Params
		want string
	}{
		"the issuer of all identity domains":      {"oracle_iam", issuers.Params{Issuer: "https://identity.oraclecloud.com/", Audience: []string{ordersAPI}}, "Issuer: must be the URL of the identity domain"},
		"an identity domain without its scheme":   {"oracle_iam", issuers.Params{Issuer: "idcs-1.identity.oraclecloud.com", Audience: []string{ordersAPI}}, "Issuer: must be the URL of the identity domain"},
		"an identity domain with a path":          {"oracle_iam", issuers.Params{Issuer: oracleDomain + "/ui", Audience: []string{ordersAPI}}, "Issuer: must be the URL of the identity domain"},
		"two projects of Stytch":                  {"stytch", issuers.Params{Audience: []string{"project-live-1", "project-live-2"}}, "Audience: must be the ID of one project"},
		"an API in place of a project of Stytch":  {"stytch", issuers.Params{Audience: []string{ordersAPI}}, "Audience: must be the ID of one project"},
		"clients, which sessions of Stytch lack":  {"stytch", issuers.Params{Audience: []string{"project-live-1"}, Clients: []string{"web"}}, "Clients: has no meaning"},
		"Casdoor without the clients":             {"casdoor_id_tokens", issuers.Params{Issuer: door, Audience: []string{ordersAPI}}, "Clients: required"},
		"PingFederate without the audience value": {"pingfederate", issuers.Params{Issuer: pingFed}, "Audience: required"},
	} {
		t.Run(name+" is a mistake", func(t *testing.T) {
			cfg, err := issuers.Named(test.of, test.p)
			assert.ErrorContains(t, err, "issuers: "+test.of+": "+test.want)
			assert.Equal(t, jwks.Config{}, cfg)
		})
	}
}

func TestRecipientsOfEnterpriseProducts(t *testing.T) {
	for _, of := range []string{"pingam", "curity", "wso2", "janssen", "spring_authorization_server"} {
		t.Run(of+" without a recipient is a mistake", func(t *testing.T) {
			_, err := issuers.Named(of, issuers.Params{Issuer: host})
			assert.ErrorContains(t, err, "issuers: "+of+": Audience, Clients: one of them is required")
		})
		t.Run(of+" with an audience does not accept the clients as recipients", func(t *testing.T) {
			cfg, err := issuers.Named(of, issuers.Params{Issuer: host, Audience: []string{ordersAPI}, Clients: []string{"web"}})
			require.NoError(t, err)
			assert.Equal(t, []string{ordersAPI}, cfg.Audience)
			assert.Equal(t, []string{"web"}, cfg.Clients)
		})
	}
}
