package issuers_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
)

const (
	auth0Tenant = "https://shop.eu.auth0.com/"
	auth0Custom = "https://login.example.com/"
	oktaOrg     = "https://example.okta.com"
	oktaServer  = oktaOrg + "/oauth2/default"

	clerkHost  = "https://clerk.example.com"
	shopOrigin = "https://shop.example.com"
	clerkUser  = `{"azp":"` + shopOrigin + `","exp":$EXP,"fva":[5,-1],"iat":$IAT,"iss":"` + clerkHost + `","nbf":$IAT,"pla":"u:free",
		"fea":"u:widgets","o":{"id":"org_1","rol":"admin","slg":"example","per":"read","fpm":"1"},"sid":"sess_2","sts":"active","sub":"user_3","v":2}`

	supabaseProject = "https://abcdefghijklmnopqrst.supabase.co"
	supabaseAuth    = supabaseProject + "/auth/v1"
	supabaseUser    = `"aal":"aal1","amr":[{"method":"password","timestamp":$IAT}],"app_metadata":{"provider":"email"},"aud":"authenticated",
		"email":"alice@example.com","exp":$EXP,"iat":$IAT,"iss":"` + supabaseAuth + `","phone":"","role":"authenticated",
		"session_id":"5f4d","sub":"1f9a","user_metadata":{}`

	workOSClient = "client_01HBEQ"
	workOSKeys   = "https://api.workos.com/sso/jwks/" + workOSClient
	authKit      = "https://example.authkit.app"

	descopeProject = "P2abcDEF123ghiJKL456mnoPQR78"
	descopeKeys    = "https://api.descope.com/" + descopeProject + "/.well-known/jwks.json"

	kindeHost   = "https://example.kinde.com"
	logtoIssuer = "https://example.logto.app/oidc"
	fusionHost  = "https://auth.example.com"
	fusionApp   = "e9fdb985-9173-4e01-9d73-ac2d60d1dc8e"
	zitadelHost = "https://example-w4a8z2.us1.zitadel.cloud"
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
	{
		of: "clerk", kind: "a session token",
		params:   issuers.Params{Issuer: clerkHost + "/", Clients: []string{shopOrigin}},
		metadata: clerkHost + "/.well-known/openid-configuration", issuer: clerkHost, keySet: clerkHost + "/.well-known/jwks.json",
		header: object{"typ": "JWT", "cat": "cl_B7d4PD111AAA"}, claims: clerkUser,
		subject: "user_3", client: shopOrigin,
		relatives: append([]relative{
			{"a session token of another origin", nil, object{"azp": "https://evil.example.net"}, valetkey.ReasonAudience},
			{"a session token without an origin", nil, object{"azp": nil}, valetkey.ReasonClaimMalformed},
		}, clerkRelatives...),
	},
	{
		of: "clerk", kind: "a session token of an app without an origin, with a custom aud, by an impersonator",
		params:   issuers.Params{Issuer: clerkHost, Audience: []string{ordersAPI}},
		metadata: clerkHost + "/.well-known/openid-configuration", keySet: clerkHost + "/.well-known/jwks.json",
		header: object{"typ": "JWT"},
		claims: `{"aud":"` + ordersAPI + `","exp":$EXP,"iat":$IAT,"iss":"` + clerkHost + `","jti":"8f6a","nbf":$IAT,"sid":"sess_2","sts":"active","sub":"user_3","v":2,
			"act":{"iss":"https://dashboard.clerk.com","sid":"sess_4","sub":"user_5"}}`,
		subject: "user_3",
		relatives: append([]relative{
			{"a session token without an aud", nil, object{"aud": nil}, valetkey.ReasonClaimMalformed},
		}, clerkRelatives...),
	},
	{
		of: "clerk_oauth", kind: "an access token of an OAuth application",
		params:   issuers.Params{Issuer: clerkHost, Clients: []string{"client_2xhF"}},
		metadata: clerkHost + "/.well-known/openid-configuration", keySet: clerkHost + "/.well-known/jwks.json",
		header:  object{"typ": "at+jwt"},
		claims:  `{"client_id":"client_2xhF","exp":$EXP,"iat":$IAT,"iss":"` + clerkHost + `","jti":"oat_0ef5","nbf":$IAT,"scope":"profile email","sub":"user_3"}`,
		subject: "user_3", client: "client_2xhF", scopes: []string{"profile", "email"},
		relatives: []relative{
			{"a token of another OAuth application", nil, object{"client_id": "client_other"}, valetkey.ReasonAudience},
			{"a session token", object{"typ": "JWT"}, object{"client_id": nil, "azp": shopOrigin, "sid": "sess_2", "sts": "active"}, valetkey.ReasonNotAccessToken},
			{"an ID token", object{"typ": "JWT"}, object{"aud": "client_2xhF", "nonce": "n", "scope": nil}, valetkey.ReasonNotAccessToken},
			{"a token without a scope", nil, object{"scope": nil}, valetkey.ReasonNotAccessToken},
			{"a token for another API", nil, object{"aud": "https://another-api.example.net"}, valetkey.ReasonAudience},
		},
	},
	{
		of: "clerk_oauth", kind: "an access token with an aud and an array of scopes",
		params:   issuers.Params{Issuer: clerkHost + "/", Audience: []string{ordersAPI}, Clients: []string{"client_2xhF"}},
		metadata: clerkHost + "/.well-known/openid-configuration", issuer: clerkHost, keySet: clerkHost + "/.well-known/jwks.json",
		header: object{"typ": "application/at+jwt"},
		claims: `{"aud":"` + ordersAPI + `","client_id":"client_2xhF","exp":$EXP,"iat":$IAT,"iss":"` + clerkHost + `","jti":"oat_0ef5","scp":["profile"],
			"sub":"user_3"}`,
		subject: "user_3", client: "client_2xhF", scopes: []string{"profile"},
		relatives: []relative{
			{"a token of another OAuth application", nil, object{"client_id": "client_other"}, valetkey.ReasonClient},
			{"a token without a scope", nil, object{"scp": nil}, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "supabase", kind: "a user's token, and the URL of the project",
		params: issuers.Params{Issuer: supabaseProject},
		keySet: supabaseAuth + "/.well-known/jwks.json", alg: "ES256",
		header: object{"typ": "JWT"}, claims: `{` + supabaseUser + `,"is_anonymous":false}`,
		subject: "1f9a",
		relatives: append([]relative{
			{"a token of an OAuth application", nil, object{"client_id": "9a8b"}, valetkey.ReasonNotAccessToken},
			{"an ID token for an OAuth application", nil, object{"aud": "9a8b", "role": nil, "session_id": nil, "nonce": "n"}, valetkey.ReasonNotAccessToken},
		}, supabaseRelatives...),
	},
	{
		of: "supabase", kind: "a token of an OAuth application, where anonymous users are refused",
		params: issuers.Params{Issuer: supabaseAuth, Clients: []string{"9a8b"}, Rules: []claims.Rule{claims.Equal("is_anonymous", "false")}},
		keySet: supabaseAuth + "/.well-known/jwks.json", alg: "ES256",
		header: object{"typ": "JWT"}, claims: `{` + supabaseUser + `,"is_anonymous":false,"client_id":"9a8b","user_id":"1f9a"}`,
		subject: "1f9a", client: "9a8b",
		relatives: append([]relative{
			{"a token of another OAuth application", nil, object{"client_id": "other"}, valetkey.ReasonClient},
			{"a token of the project's own frontend", nil, object{"client_id": nil}, valetkey.ReasonClaimMalformed},
			{"a token of an anonymous user", nil, object{"is_anonymous": true}, valetkey.ReasonClaimRule},
		}, supabaseRelatives...),
	},
	{
		of: "workos", kind: "a session's token with permissions as scopes",
		params: issuers.Params{Clients: []string{workOSClient}},
		change: func(c *jwks.Config) { c.Scopes = []string{"permissions"} },
		keySet: workOSKeys,
		claims: `{"iss":"https://api.workos.com/user_management/` + workOSClient + `","sub":"user_01","act":{"sub":"admin@example.com"},"org_id":"org_01","role":"member",
			"roles":["member"],"permissions":["orders:read","orders:write"],"entitlements":["audit-logs"],"sid":"session_01","jti":"01HQ","exp":$EXP,"iat":$IAT}`,
		subject: "user_01", scopes: []string{"orders:read", "orders:write"},
		relatives: append([]relative{
			{"a token of a custom domain that is not configured", nil, object{"iss": "https://auth.example.com"}, valetkey.ReasonIssuer},
		}, workOSRelatives...),
	},
	{
		of: "workos", kind: "a session's token of the issuer of all, with the aud of a JWT template",
		params:    issuers.Params{Clients: []string{workOSClient}, Audience: []string{ordersAPI}},
		keySet:    workOSKeys,
		claims:    `{"iss":"https://api.workos.com","aud":"` + ordersAPI + `","sub":"user_01","sid":"session_01","jti":"01HQ","exp":$EXP,"iat":$IAT}`,
		subject:   "user_01",
		relatives: workOSRelatives,
	},
	{
		of: "workos", kind: "a session's token of a custom domain",
		params:  issuers.Params{Issuer: "https://auth.example.com/", Clients: []string{workOSClient}},
		keySet:  workOSKeys,
		claims:  `{"iss":"https://auth.example.com/user_management/` + workOSClient + `","sub":"user_01","sid":"session_01","jti":"01HQ","exp":$EXP,"iat":$IAT}`,
		subject: "user_01",
		relatives: append([]relative{
			{"a token of the vendor's domain", nil, object{"iss": "https://api.workos.com"}, valetkey.ReasonIssuer},
		}, workOSRelatives...),
	},
	{
		of: "workos_connect", kind: "a user's token for a resource",
		params:   issuers.Params{Issuer: authKit, Audience: []string{ordersAPI}},
		metadata: authKit + "/.well-known/oauth-authorization-server", keySet: authKit + "/oauth2/jwks",
		claims: `{"iss":"` + authKit + `","aud":"` + ordersAPI + `","sub":"user_01","client_id":"client_app","org_id":"org_01","sid":"app_consent_01",
			"scope":"openid orders:read","jti":"01HQ","exp":$EXP,"iat":$IAT}`,
		subject: "user_01", client: "client_app", scopes: []string{"openid", "orders:read"},
		relatives: []relative{
			{"an ID token", nil, object{"aud": "client_app", "client_id": nil, "scope": nil, "nonce": "n"}, valetkey.ReasonNotAccessToken},
			{"an ID token without a nonce", nil, object{"client_id": nil, "jti": nil}, valetkey.ReasonClaimMalformed},
			{"a token without a scope", nil, object{"scope": nil}, valetkey.ReasonNotAccessToken},
			{"a token for no resource", nil, object{"aud": workOSClient}, valetkey.ReasonAudience},
			{"a session's token", nil, object{"iss": "https://api.workos.com", "client_id": nil, "sid": "session_01"}, valetkey.ReasonIssuer},
			{"a token of another environment", nil, object{"iss": "https://other.authkit.app"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "workos_connect", kind: "a machine's token",
		params:   issuers.Params{Issuer: authKit + "/", Audience: []string{workOSClient}, Clients: []string{"client_machine"}},
		metadata: authKit + "/.well-known/oauth-authorization-server", issuer: authKit, keySet: authKit + "/oauth2/jwks",
		claims: `{"iss":"` + authKit + `","aud":"` + workOSClient + `","sub":"client_machine","client_id":"client_machine","org_id":"org_01",
			"scope":"orders:read","jti":"01HQ","exp":$EXP,"iat":$IAT}`,
		subject: "client_machine", client: "client_machine", scopes: []string{"orders:read"},
		relatives: []relative{
			{"a token of another application", nil, object{"sub": "client_other", "client_id": "client_other"}, valetkey.ReasonClient},
			{"a token without a scope", nil, object{"scope": nil}, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "descope", kind: "a session token with the project as its issuer",
		params: issuers.Params{Issuer: descopeProject},
		keySet: descopeKeys,
		header: object{"typ": "JWT"},
		claims: `{"amr":["email"],"drn":"DS","exp":$EXP,"iat":$IAT,"iss":"` + descopeProject + `","rexp":"2026-12-29T12:00:00Z","sub":"U2xyz",
			"tenants":{"T2abc":{"roles":["admin"],"permissions":["orders:read"]}},"dct":"T2abc"}`,
		subject: "U2xyz", relatives: descopeRelatives,
	},
	{
		of: "descope", kind: "a session token with a URL as its issuer and the permissions of a tenant as scopes",
		params: issuers.Params{Issuer: descopeProject, Audience: []string{ordersAPI}},
		change: func(c *jwks.Config) { c.Scopes = []string{"tenants.T2abc.permissions"} },
		keySet: descopeKeys,
		header: object{"typ": "JWT"},
		claims: `{"amr":["oauth"],"aud":["` + ordersAPI + `"],"drn":"DS","exp":$EXP,"iat":$IAT,"iss":"https://api.descope.com/` + descopeProject + `","sub":"U2xyz",
			"tenants":{"T2abc":{"roles":["admin"],"permissions":["orders:read"]}}}`,
		subject: "U2xyz", scopes: []string{"orders:read"}, relatives: descopeRelatives,
	},
	{
		of: "descope", kind: "a session token of a region",
		params:  issuers.Params{Issuer: "https://api.euc1.descope.com/v1/apps/" + descopeProject},
		keySet:  "https://api.euc1.descope.com/" + descopeProject + "/.well-known/jwks.json",
		header:  object{"typ": "JWT"},
		claims:  `{"aud":"` + descopeProject + `","drn":"DS","exp":$EXP,"iat":$IAT,"iss":"https://api.euc1.descope.com/v1/apps/` + descopeProject + `","sub":"U2xyz"}`,
		subject: "U2xyz",
		relatives: append([]relative{
			{"a token of another region", nil, object{"iss": "https://api.descope.com/" + descopeProject}, valetkey.ReasonIssuer},
		}, descopeRelatives...),
	},
	{
		of: "kinde", kind: "a user's token for a registered API",
		params:   issuers.Params{Issuer: kindeHost, Audience: []string{ordersAPI}},
		metadata: kindeHost + "/.well-known/openid-configuration", keySet: kindeHost + "/.well-known/jwks",
		header: object{"typ": "JWT"},
		claims: `{"aud":["` + ordersAPI + `"],"azp":"d4d3c5b7","exp":$EXP,"iat":$IAT,"iss":"` + kindeHost + `","jti":"f95e","org_code":"org_1",
			"permissions":["orders:write"],"scp":["openid","orders:read"],"sub":"kp_1"}`,
		subject: "kp_1", client: "d4d3c5b7", scopes: []string{"openid", "orders:read"},
		relatives: append([]relative{
			{"a token for no API", nil, object{"aud": []string{}}, valetkey.ReasonClaimMalformed},
		}, kindeRelatives...),
	},
	{
		of: "kinde", kind: "a machine's token for no API",
		params:   issuers.Params{Issuer: kindeHost + "/", Clients: []string{"d4d3c5b7"}},
		metadata: kindeHost + "/.well-known/openid-configuration", issuer: kindeHost, keySet: kindeHost + "/.well-known/jwks",
		header: object{"typ": "JWT"},
		claims: `{"aud":[],"azp":"d4d3c5b7","exp":$EXP,"gty":["client_credentials"],"iat":$IAT,"iss":"` + kindeHost + `","jti":"f95e",
			"scope":"read:users write:flags","scp":["read:users","write:flags"],"v":"2"}`,
		client: "d4d3c5b7", scopes: []string{"read:users", "write:flags"},
		relatives: append([]relative{
			{"a token of another application", nil, object{"azp": "other"}, valetkey.ReasonAudience},
		}, kindeRelatives...),
	},
	{
		of: "logto", kind: "a user's token for a resource, and the endpoint of the tenant",
		params:   issuers.Params{Issuer: "https://example.logto.app/", Audience: []string{ordersAPI}},
		metadata: logtoIssuer + "/.well-known/openid-configuration", issuer: logtoIssuer, keySet: logtoIssuer + "/jwks", alg: "ES384",
		header:  object{"typ": "at+jwt"},
		claims:  `{"jti":"a1","sub":"foo","iat":$IAT,"exp":$EXP,"scope":"orders:read","client_id":"app1","iss":"` + logtoIssuer + `","aud":"` + ordersAPI + `"}`,
		subject: "foo", client: "app1", scopes: []string{"orders:read"},
		relatives: []relative{
			{"an ID token", object{"typ": nil}, object{"aud": "app1", "at_hash": "h", "scope": nil, "client_id": nil}, valetkey.ReasonNotAccessToken},
			{"a token for an organization", nil, object{"aud": "urn:logto:organization:1"}, valetkey.ReasonAudience},
			{"a token of another tenant", nil, object{"iss": "https://other.logto.app/oidc"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "fusionauth", kind: "a user's token with roles as scopes",
		params:   issuers.Params{Issuer: fusionHost, Audience: []string{fusionApp}},
		change:   func(c *jwks.Config) { c.Scopes = []string{"scope", "roles"} },
		metadata: fusionHost + "/.well-known/openid-configuration", keySet: fusionHost + "/.well-known/jwks.json",
		header: object{"typ": "JWT", "gty": []string{"authorization_code"}},
		claims: `{"aud":"` + fusionApp + `","exp":$EXP,"iat":$IAT,"iss":"` + fusionHost + `","sub":"0000-1111","jti":"2e22","authenticationType":"PASSWORD",
			"email":"alice@example.com","email_verified":true,"applicationId":"` + fusionApp + `","scope":"offline_access openid","roles":["clerk"],"sid":"0abe",
			"auth_time":$IAT,"tid":"d7d0","tty":"at"}`,
		subject: "0000-1111", client: fusionApp, scopes: []string{"offline_access", "openid", "clerk"},
		relatives: fusionRelatives,
	},
	{
		of: "fusionauth", kind: "a user's token of a tenant whose issuer is a name",
		params: issuers.Params{Issuer: "acme.com", Audience: []string{fusionApp}},
		change: func(c *jwks.Config) { c.JWKSURL = fusionHost + "/.well-known/jwks.json" },
		keySet: fusionHost + "/.well-known/jwks.json", alg: "ES256",
		header: object{"typ": "JWT"},
		claims: `{"aud":"` + fusionApp + `","exp":$EXP,"iat":$IAT,"iss":"acme.com","sub":"0000-1111","jti":"2e22","authenticationType":"PASSWORD",
			"applicationId":"` + fusionApp + `","roles":["clerk"]}`,
		subject: "0000-1111", client: fusionApp,
		relatives: fusionRelatives,
	},
	{
		of: "fusionauth_entities", kind: "an entity's token with permissions as scopes",
		params:   issuers.Params{Issuer: fusionHost, Audience: []string{"092dbded-30af-4149-9c61-b578f2c72f59"}},
		change:   func(c *jwks.Config) { c.Scopes = []string{"permissions"} },
		metadata: fusionHost + "/.well-known/openid-configuration", keySet: fusionHost + "/.well-known/jwks.json",
		header: object{"typ": "JWT", "gty": []string{"client_credentials"}},
		claims: `{"aud":"092dbded-30af-4149-9c61-b578f2c72f59","exp":$EXP,"iat":$IAT,"iss":"` + fusionHost + `","sub":"cebd5d35","jti":"2e22",
			"permissions":["read"],"scope":"target-entity:092dbded-30af-4149-9c61-b578f2c72f59:read","tid":"d7d0"}`,
		subject: "cebd5d35", scopes: []string{"read"},
		relatives: []relative{
			{"a user's token", nil, object{"applicationId": fusionApp}, valetkey.ReasonNotAccessToken},
			{"an ID token", nil, object{"auth_time": start.Unix()}, valetkey.ReasonNotAccessToken},
			{"a token for another entity", nil, object{"aud": "other"}, valetkey.ReasonAudience},
			{"a token of another tenant", nil, object{"iss": "other.example.com"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "zitadel", kind: "a user's token",
		params:   issuers.Params{Issuer: zitadelHost, Audience: []string{"231402830936789415"}},
		metadata: zitadelHost + "/.well-known/openid-configuration", keySet: zitadelHost + "/oauth/v2/keys",
		header: object{"typ": "JWT"},
		claims: `{"aud":["231402830936789416","231402830936789417","231402830936789415"],"client_id":"231402830936789416","exp":$EXP,"iat":$IAT,
			"iss":"` + zitadelHost + `","jti":"V2_2843-at_2844","nbf":$IAT,"sub":"2314","urn:zitadel:iam:org:project:roles":{"admin":{"id1":"example.com"}}}`,
		subject: "2314", client: "231402830936789416", relatives: zitadelRelatives,
	},
	{
		of: "zitadel", kind: "a service user's token without a client",
		params:   issuers.Params{Issuer: zitadelHost + "/", Audience: []string{"231402830936789415"}},
		metadata: zitadelHost + "/.well-known/openid-configuration", issuer: zitadelHost, keySet: zitadelHost + "/oauth/v2/keys",
		header:  object{"typ": "JWT"},
		claims:  `{"iss":"` + zitadelHost + `","aud":["231402830936789415"],"exp":$EXP,"iat":$IAT,"nbf":$IAT,"jti":"V2_2843-at_2845","sub":"2315"}`,
		subject: "2315", relatives: zitadelRelatives,
	},
}

var (
	clerkRelatives = []relative{
		{"a session token that is pending", nil, object{"sts": "pending"}, valetkey.ReasonNotAccessToken},
		{"a session token without its session", nil, object{"sid": nil}, valetkey.ReasonNotAccessToken},
		{"a session token of version 1", nil, object{"sts": nil, "v": nil}, valetkey.ReasonNotAccessToken},
		{"a token of a JWT template", nil, object{"sts": nil, "sid": nil, "v": nil, "aud": "hasura"}, valetkey.ReasonNotAccessToken},
		{"a token of a machine", nil, object{"sub": "mch_1", "sid": nil, "sts": nil, "azp": nil, "aud": []string{"mch_2"}}, valetkey.ReasonNotAccessToken},
		{"an ID token", nil, object{"sid": nil, "sts": nil, "azp": nil, "aud": "client_2xhF", "nonce": "n", "at_hash": "h"}, valetkey.ReasonNotAccessToken},
		{"an ID token with a session", nil, object{"azp": nil, "aud": "client_2xhF", "nonce": "n", "at_hash": "h"}, valetkey.ReasonAudience},
		{"a token of another instance", nil, object{"iss": "https://other.clerk.accounts.dev"}, valetkey.ReasonIssuer},
	}
	supabaseRelatives = []relative{
		{"the anon key", nil, object{"iss": "supabase", "ref": "abcdefghijklmnopqrst", "role": "anon", "aud": nil, "sub": nil, "session_id": nil}, valetkey.ReasonIssuer},
		{"a token with the role of the service", nil, object{"role": "service_role", "session_id": nil}, valetkey.ReasonNotAccessToken},
		{"a token with the role of no user", nil, object{"role": "anon", "aud": "anon"}, valetkey.ReasonNotAccessToken},
		{"a token without a session", nil, object{"session_id": nil}, valetkey.ReasonNotAccessToken},
		{"a token of another project", nil, object{"iss": "https://zyxwvutsrqponmlkjihg.supabase.co/auth/v1"}, valetkey.ReasonIssuer},
	}
	workOSRelatives = []relative{
		{"a token of another environment", nil, object{"iss": "https://api.workos.com/user_management/client_other"}, valetkey.ReasonIssuer},
		{"a token of a Connect application", nil, object{"sid": "app_consent_01", "client_id": "client_app"}, valetkey.ReasonNotAccessToken},
		{"a token without a session", nil, object{"sid": nil}, valetkey.ReasonNotAccessToken},
		{"a token for another application, by its JWT template", nil, object{"aud": "https://another-api.example.net"}, valetkey.ReasonAudience},
	}
	descopeRelatives = []relative{
		{"a refresh token", nil, object{"drn": "DSR"}, valetkey.ReasonNotAccessToken},
		{"a token without drn", nil, object{"drn": nil}, valetkey.ReasonNotAccessToken},
		{"an ID token", nil, object{"drn": nil, "aud": "client", "nonce": "n"}, valetkey.ReasonNotAccessToken},
		{"an ID token with drn and a nonce", nil, object{"nonce": "n"}, valetkey.ReasonNotAccessToken},
		{"an ID token with drn and a hash", nil, object{"at_hash": "h"}, valetkey.ReasonNotAccessToken},
		{"a token of another project", nil, object{"iss": "P2other"}, valetkey.ReasonIssuer},
		{"a token of another project at the same host", nil, object{"iss": "https://api.descope.com/P2other"}, valetkey.ReasonIssuer},
		{"a token for another API, by its JWT template", nil, object{"aud": "https://another-api.example.net"}, valetkey.ReasonAudience},
	}
	kindeRelatives = []relative{
		{"an ID token", nil, object{"aud": []string{kindeHost, "d4d3c5b7"}, "scp": nil, "scope": nil, "at_hash": "h", "sub": "kp_1"}, valetkey.ReasonNotAccessToken},
		{"an ID token without a hash", nil, object{"scp": nil, "scope": nil, "sub": "kp_1"}, valetkey.ReasonNotAccessToken},
		{"a token of another business", nil, object{"iss": "https://other.kinde.com"}, valetkey.ReasonIssuer},
	}
	fusionRelatives = []relative{
		{"an ID token", nil, object{"applicationId": nil, "roles": nil, "at_hash": "h", "c_hash": "c"}, valetkey.ReasonNotAccessToken},
		{"an ID token without a hash", nil, object{"applicationId": nil, "roles": nil}, valetkey.ReasonClaimMalformed},
		{"an ID token with what a lambda adds", nil, object{"at_hash": "h"}, valetkey.ReasonNotAccessToken},
		{"a token of a user who is not registered", nil, object{"applicationId": nil, "roles": nil, "scope": nil}, valetkey.ReasonClaimMalformed},
		{"a token of another application", nil, object{"aud": "3c219e58", "applicationId": "3c219e58"}, valetkey.ReasonAudience},
		{"a token of another tenant", nil, object{"iss": "other.example.com"}, valetkey.ReasonIssuer},
	}
	zitadelRelatives = []relative{
		{"an ID token", nil, object{"jti": nil, "azp": "231402830936789416", "amr": []string{"pwd"}, "at_hash": "h", "nonce": "n"}, valetkey.ReasonNotAccessToken},
		{"an ID token without a hash", nil, object{"jti": nil, "azp": "231402830936789416", "amr": []string{"pwd"}, "auth_time": start.Unix()}, valetkey.ReasonNotAccessToken},
		{"an ID token with jti and a nonce", nil, object{"nonce": "n"}, valetkey.ReasonNotAccessToken},
		{"an ID token with jti and a hash", nil, object{"at_hash": "h"}, valetkey.ReasonNotAccessToken},
		{"an ID token without the time of its login", nil, object{"jti": nil, "azp": "231402830936789416"}, valetkey.ReasonClaimMalformed},
		{"a token of another project", nil, object{"aud": []string{"99"}}, valetkey.ReasonAudience},
		{"a token of another instance", nil, object{"iss": "https://other.us1.zitadel.cloud"}, valetkey.ReasonIssuer},
	}
)

func TestIssuersOfHostedProducts(t *testing.T) {
	for name, test := range map[string]struct{ of, issuer, want, mistake string }{
		"Okta's org authorization server":       {"okta", oktaOrg, "", "the tokens of the org authorization server are for Okta's API only"},
		"Okta's domain":                         {"okta", "example.okta.com", "", "is not a custom authorization server"},
		"Okta's server without a name":          {"okta", oktaOrg + "/oauth2/", "", "is not a custom authorization server"},
		"an endpoint of Okta's org":             {"okta", oktaOrg + "/oauth2/v1", "", "is not a custom authorization server"},
		"a Descope project in another form":     {"descope", "https://api.descope.com/v1/apps/p", "", "is neither the ID of a project (P...) nor a URL that ends with one"},
		"an MCP server at Descope":              {"descope", "https://api.descope.com/v1/apps/agentic/" + descopeProject + "/M2x", "", "is neither the ID of a project"},
		"a Descope project with a query":        {"descope", descopeProject + "?x", "", "is neither the ID of a project"},
		"a Descope project":                     {"descope", "https://api.descope.com/" + descopeProject, descopeProject, ""},
		"Supabase's project":                    {"supabase", supabaseProject + "/", supabaseAuth, ""},
		"Supabase's issuer":                     {"supabase", supabaseAuth, supabaseAuth, ""},
		"Logto's endpoint":                      {"logto", "https://example.logto.app", logtoIssuer, ""},
		"Logto at a custom domain with a path":  {"logto", "https://example.com/login/oidc", "https://example.com/login/oidc", ""},
		"ZITADEL's URL with a slash":            {"zitadel", zitadelHost + "/", zitadelHost, ""},
		"FusionAuth's issuer, a name":           {"fusionauth", "acme.com", "acme.com", ""},
		"a custom server of Okta with a slash":  {"okta", oktaServer + "/", oktaServer, ""},
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

func TestParametersOfHostedProducts(t *testing.T) {
	for name, test := range map[string]struct {
		of   string
		p    issuers.Params
		want string
	}{
		"Auth0 with a client as the API": {"auth0", issuers.Params{Issuer: auth0Tenant, Audience: []string{"K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja"}},
			"issuers: auth0: Audience[0]: \"K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja\" has the form of a client ID, which is the aud of ID tokens"},
		"Auth0 with a client beside the API": {"auth0", issuers.Params{Issuer: auth0Tenant, Audience: []string{ordersAPI, "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja"}},
			"issuers: auth0: Audience[1]"},
		"Auth0 with userinfo as the API": {"auth0", issuers.Params{Issuer: "shop.eu.auth0.com", Audience: []string{auth0Tenant + "userinfo"}},
			"issuers: auth0: Audience[0]: \"" + auth0Tenant + "userinfo\" is an API of Auth0 itself"},
		"Auth0's management API": {"auth0_rfc9068", issuers.Params{Issuer: auth0Custom, Audience: []string{auth0Tenant + "api/v2/"}},
			"issuers: auth0_rfc9068: Audience[0]"},
		"Auth0's userinfo of a custom domain": {"auth0_rfc9068", issuers.Params{Issuer: auth0Custom, Audience: []string{auth0Custom + "userinfo"}},
			"issuers: auth0_rfc9068: Audience[0]"},
		"Clerk without origins":           {"clerk", issuers.Params{Issuer: clerkHost}, "issuers: clerk: Clients, Audience: one of them is required"},
		"Clerk's applications, no client": {"clerk_oauth", issuers.Params{Issuer: clerkHost, Audience: []string{ordersAPI}}, "issuers: clerk_oauth: Clients: required"},
		"Kinde without a recipient":       {"kinde", issuers.Params{Issuer: kindeHost}, "issuers: kinde: Audience, Clients: one of them is required"},
		"WorkOS without an environment":   {"workos", issuers.Params{}, "issuers: workos: Clients: required"},
		"WorkOS with two environments":    {"workos", issuers.Params{Clients: []string{"client_a", "client_b"}}, "is more than the client ID of one environment"},
		"Descope with clients":            {"descope", issuers.Params{Issuer: descopeProject, Clients: []string{"app"}}, "issuers: descope: Clients: has no meaning for this product: its tokens have no client"},
		"FusionAuth's entities, clients":  {"fusionauth_entities", issuers.Params{Issuer: fusionHost, Audience: []string{"e"}, Clients: []string{"app"}}, "issuers: fusionauth_entities: Clients: has no meaning"},
		"Supabase without a project":      {"supabase", issuers.Params{}, "issuers: supabase: Issuer: required"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := issuers.Named(test.of, test.p)
			assert.ErrorContains(t, err, test.want)
			assert.Equal(t, jwks.Config{}, cfg)
		})
	}
}

func TestAPIsOfAuth0(t *testing.T) {
	for _, api := range []string{ordersAPI, "orders", "https://api.example.com/userinfo", "https://api.example.com/api/v2/", "6553da60a54af58e29493993"} {
		_, err := issuers.Auth0(issuers.Params{Issuer: auth0Tenant, Audience: []string{api}})
		assert.NoError(t, err, api)
	}
}

// TestSupabaseWithTheLegacySecret follows the documentation for a project that signs with the secret. The keys of the project, which
// are public or for its servers, are tokens of the same secret.
func TestSupabaseWithTheLegacySecret(t *testing.T) {
	cfg, err := issuers.Supabase(issuers.Params{Issuer: supabaseProject})
	require.NoError(t, err)
	cfg.JWKSURL, cfg.Secret, cfg.Algorithms = "", []byte("super-secret-jwt-token-with-at-least-32-characters"), []string{"HS256"}
	v, err := jwks.New(cfg)
	require.NoError(t, err)
	t.Cleanup(v.Close)
	sign := func(claims string) string {
		iat, exp := strconv.FormatInt(start.Unix(), 10), strconv.FormatInt(start.Add(time.Hour).Unix(), 10)
		input := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"t1lq","typ":"JWT"}`)) + "." +
			base64.RawURLEncoding.EncodeToString([]byte(strings.NewReplacer("$IAT", iat, "$EXP", exp).Replace(claims)))
		mac := hmac.New(sha256.New, cfg.Secret)
		mac.Write([]byte(input))
		return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	for name, claims := range map[string]string{
		"the anon key":         `{"iss":"supabase","ref":"abcdefghijklmnopqrst","role":"anon","iat":$IAT,"exp":$EXP}`,
		"the service_role key": `{"iss":"supabase","ref":"abcdefghijklmnopqrst","role":"service_role","iat":$IAT,"exp":$EXP}`,
		"a key that names the project as its issuer": `{"iss":"` + supabaseAuth + `","aud":"authenticated","sub":"1f9a","role":"service_role",
			"session_id":"s","iat":$IAT,"exp":$EXP}`,
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			_, err := v.Verify(t.Context(), sign(claims))
			assert.Error(t, err)
		})
	}
	t.Run("a user's token is accepted", func(t *testing.T) {
		token, err := v.Verify(t.Context(), sign(`{`+supabaseUser+`}`))
		require.NoError(t, err)
		assert.Equal(t, "1f9a", token.Subject())
	})
}

// TestTheRecipientOfSupabase holds that an audience that is given replaces the one that every user has.
func TestTheRecipientOfSupabase(t *testing.T) {
	cfg, err := issuers.Supabase(issuers.Params{Issuer: supabaseProject, Audience: []string{ordersAPI}})
	require.NoError(t, err)
	assert.Equal(t, []string{ordersAPI}, cfg.Audience)
}
