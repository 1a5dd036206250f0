package issuers_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

const (
	google      = "https://accounts.google.com"
	googleMeta  = google + "/.well-known/openid-configuration"
	googleKeys  = "https://www.googleapis.com/oauth2/v3/certs"
	webApp      = "407408718192-web.apps.googleusercontent.com"
	androidApp  = "407408718192-android.apps.googleusercontent.com"
	bot         = "deployer@example-project.iam.gserviceaccount.com"
	serviceAcct = `{"iss":"` + google + `","aud":"` + ordersAPI + `","azp":"113774264463038321964","email":"` + bot + `","email_verified":true,
		"sub":"113774264463038321964","iat":$IAT,"exp":$EXP}`
	securetoken = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
	team        = "https://example.cloudflareaccess.com"
	audTag      = "32eafc7626e974616deaf0dc3ce63d7bcbed58a2731e84d06bc3cdf1b53c4228"
	org         = "https://example.my.salesforce.com"
	balancer    = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/orders/50dc6c495c0c9188"
	govBalancer = "arn:aws-us-gov:elasticloadbalancing:us-gov-west-1:123456789012:loadbalancer/app/orders/50dc6c495c0c9188"
	userPool    = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_MyRrOCHQw"
	xsuaa       = "https://shop.authentication.eu10.hana.ondemand.com"
)

var cloudShapes = []shape{
	{
		of: "google_id_tokens", kind: "a user's ID token",
		params: issuers.Params{Audience: []string{webApp}},
		issuer: google, metadata: googleMeta, keySet: googleKeys,
		header: object{"typ": "JWT"},
		claims: `{"iss":"accounts.google.com","azp":"` + webApp + `","aud":"` + webApp + `","sub":"10769150350006150715113082367","hd":"example.com","email":"alice@example.com",
			"email_verified":true,"at_hash":"HK6E_P6Dh8Y93mRNtsDB1Q","nonce":"0394852-3190485","name":"Alice","iat":$IAT,"exp":$EXP}`,
		subject: "10769150350006150715113082367", client: webApp,
		relatives: []relative{
			{"an ID token for another application", nil, object{"aud": "other.apps.googleusercontent.com", "azp": "other.apps.googleusercontent.com"}, valetkey.ReasonAudience},
			{"an ID token that another application got for this one", nil, object{"azp": "other.apps.googleusercontent.com"}, valetkey.ReasonClient},
			{"a service account's ID token for this application", nil, object{"azp": "113774264463038321964", "email": bot}, valetkey.ReasonClient},
			{"an assertion of the proxy", nil, object{"iss": "https://cloud.google.com/iap"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "google_id_tokens", kind: "an ID token of an Android application, of one organization",
		params: issuers.Params{Audience: []string{webApp}, Clients: []string{webApp, androidApp}, Rules: []claims.Rule{claims.Equal("hd", "example.com")}},
		issuer: google, metadata: googleMeta, keySet: googleKeys,
		header: object{"typ": "JWT"},
		claims: `{"iss":"` + google + `","azp":"` + androidApp + `","aud":"` + webApp + `","sub":"107","hd":"example.com","email":"alice@example.com","email_verified":true,
			"iat":$IAT,"nbf":$IAT,"exp":$EXP,"jti":"161a39d5"}`,
		subject: "107", client: androidApp,
		relatives: []relative{
			{"an ID token of another organization", nil, object{"hd": "example.net"}, valetkey.ReasonClaimRule},
			{"an ID token of a private account", nil, object{"hd": nil}, valetkey.ReasonClaimRule},
			{"an ID token that another application got for this one", nil, object{"azp": "other.apps.googleusercontent.com"}, valetkey.ReasonClient},
		},
	},
	{
		of: "google_service_account_id_tokens", kind: "a service account's ID token, by its email",
		params: issuers.Params{Audience: []string{ordersAPI}, Rules: []claims.Rule{claims.Equal("email", bot)}},
		issuer: google, metadata: googleMeta, keySet: googleKeys,
		header: object{"typ": "JWT"}, claims: serviceAcct,
		subject: "113774264463038321964", client: "113774264463038321964",
		relatives: []relative{
			{"a token of another account", nil, object{"email": "deployer@evil.iam.gserviceaccount.com"}, valetkey.ReasonClaimRule},
			{"a token without an email", nil, object{"email": nil, "email_verified": nil}, valetkey.ReasonClaimRule},
			{"a token with an unverified email", nil, object{"email_verified": false}, valetkey.ReasonClaimRule},
			{"a user's ID token", nil, object{"azp": webApp, "aud": webApp, "email": "alice@example.com"}, valetkey.ReasonAudience},
		},
	},
	{
		of: "google_service_account_id_tokens", kind: "a service account's ID token, by its unique ID",
		params: issuers.Params{Audience: []string{ordersAPI}, Rules: []claims.Rule{claims.OneOf("sub", "113774264463038321964", "1")}},
		issuer: google, metadata: googleMeta, keySet: googleKeys,
		header:  object{"typ": "JWT"},
		claims:  `{"iss":"` + google + `","aud":"` + ordersAPI + `","azp":"113774264463038321964","sub":"113774264463038321964","iat":$IAT,"exp":$EXP}`,
		subject: "113774264463038321964", client: "113774264463038321964",
		relatives: []relative{
			{"a token of another account", nil, object{"sub": "2", "azp": "2"}, valetkey.ReasonClaimRule},
			{"a token of another account with the unique ID in azp", nil, object{"sub": "2"}, valetkey.ReasonClaimRule},
		},
	},
	{
		of: "google_iap", kind: "an assertion about a user",
		params: issuers.Params{Audience: []string{"/projects/123456789/apps/example-project"}},
		keySet: "https://www.gstatic.com/iap/verify/public_key-jwk",
		alg:    "ES256", header: object{"typ": "JWT"},
		claims: `{"aud":"/projects/123456789/apps/example-project","azp":"/projects/123456789/apps/example-project","email":"alice@example.com","exp":$EXP,
			"google":{"access_levels":["accessPolicies/1/accessLevels/office"]},"hd":"example.com","iat":$IAT,"iss":"https://cloud.google.com/iap","sub":"accounts.google.com:107"}`,
		subject: "accounts.google.com:107", client: "/projects/123456789/apps/example-project",
		relatives: []relative{
			{"an assertion for another application", nil, object{"aud": "/projects/123456789/global/backendServices/1"}, valetkey.ReasonAudience},
			{"an assertion for another project", nil, object{"aud": "/projects/987654321/apps/example-project"}, valetkey.ReasonAudience},
			{"the ID token that the user sent to the proxy", nil, object{"iss": google}, valetkey.ReasonIssuer},
			{"an assertion in another algorithm", object{"alg": "RS256"}, nil, valetkey.ReasonAlgorithm},
		},
	},
	{
		of: "aws_load_balancer", kind: "the claims of a user of Cognito",
		params: issuers.Params{Issuer: userPool, Audience: []string{balancer}},
		keySet: "https://public-keys.auth.elb.eu-central-1.amazonaws.com/{kid}",
		alg:    "ES256", header: balancerHeader(balancer, userPool),
		claims: `{"sub":"23d498b2-3031-70d2-8a15-49dd886a087b","email_verified":"true","email":"alice@example.com",
			"username":"23d498b2-3031-70d2-8a15-49dd886a087b","exp":$EXP,"iss":"` + userPool + `"}`,
		subject: "23d498b2-3031-70d2-8a15-49dd886a087b", client: "4fmvht22tjrgd7d3k3tghttct7",
		relatives: []relative{
			{"the claims from a load balancer of a stranger", object{"signer": strings.Replace(balancer, "123456789012", "999999999999", 1)}, nil, valetkey.ReasonAudience},
			{"the claims from a stranger, which name this load balancer", object{"signer": strings.Replace(balancer, "123456789012", "999999999999", 1)},
				object{"aud": balancer, "signer": balancer}, valetkey.ReasonAudience},
			{"the claims from another load balancer of the account", object{"signer": strings.Replace(balancer, "orders", "billing", 1)}, nil, valetkey.ReasonAudience},
			{"claims without a signer", object{"signer": nil}, object{"aud": balancer}, valetkey.ReasonClaimMalformed},
			{"claims without a client", object{"client": nil}, object{"client_id": "4fmvht22tjrgd7d3k3tghttct7"}, valetkey.ReasonClaimMalformed},
			{"the claims from another user pool", object{"iss": userPool + "2"}, object{"iss": userPool + "2"}, valetkey.ReasonIssuer},
			{"a kid that is not published", object{"kid": "c2f80c8b-c05c-4068-af14-17299f7896b1"}, nil, valetkey.ReasonUnknownKey},
			{"a kid that leaves the folder of the keys", object{"kid": "../another-bucket/key"}, nil, valetkey.ReasonUnknownKey},
			{"the user context of AWS Verified Access", object{"alg": "ES384", "signer": "arn:aws:ec2:eu-central-1:123456789012:verified-access-instance/vai-abc123xzy321a2b3c"},
				nil, valetkey.ReasonAlgorithm},
			{"the access token of the user, in X-Amzn-Oidc-Accesstoken", object{"alg": "RS256", "signer": nil, "client": nil}, object{"token_use": "access", "jti": "j"}, valetkey.ReasonAlgorithm},
		},
	},
	{
		of: "aws_load_balancer", kind: "the claims of a user, of a listed client in GovCloud",
		params: issuers.Params{Issuer: "https://idp.example.com", Audience: []string{govBalancer, govBalancer[:len(govBalancer)-1] + "9"}, Clients: []string{"4fmvht22tjrgd7d3k3tghttct7"}},
		keySet: "https://s3-us-gov-west-1.amazonaws.com/aws-elb-public-keys-prod-us-gov-west-1/{kid}",
		alg:    "ES256", header: balancerHeader(govBalancer, "https://idp.example.com"),
		claims:  `{"sub":"alice","name":"Alice","azp":"portal","exp":$EXP,"iss":"https://idp.example.com"}`,
		subject: "alice", client: "4fmvht22tjrgd7d3k3tghttct7",
		relatives: []relative{
			{"the claims of a user of another client", object{"client": "portal"}, object{"client_id": "4fmvht22tjrgd7d3k3tghttct7"}, valetkey.ReasonClient},
			{"the claims from a load balancer of another partition", object{"signer": balancer}, nil, valetkey.ReasonAudience},
		},
	},
	{
		of: "firebase_id_tokens", kind: "a user's ID token",
		params: issuers.Params{Audience: []string{"example-project"}},
		keySet: securetoken,
		header: object{"typ": "JWT"},
		claims: `{"iss":"https://securetoken.google.com/example-project","aud":"example-project","auth_time":$IAT,"user_id":"aX9","sub":"aX9","iat":$IAT,"exp":$EXP,
			"email":"alice@example.com","email_verified":false,"firebase":{"identities":{"email":["alice@example.com"]},"sign_in_provider":"password"}}`,
		subject: "aX9", client: "example-project",
		relatives: []relative{
			{"an ID token of another project", nil, object{"iss": "https://securetoken.google.com/other", "aud": "other"}, valetkey.ReasonIssuer},
			{"an ID token of another project for this one", nil, object{"iss": "https://securetoken.google.com/other"}, valetkey.ReasonIssuer},
			{"a session cookie", nil, object{"iss": "https://session.firebase.google.com/example-project"}, valetkey.ReasonIssuer},
			{"a custom token", nil, object{"iss": "firebase-adminsdk@example-project.iam.gserviceaccount.com", "aud": "https://identitytoolkit.googleapis.com/google.identity.identitytoolkit.v1.IdentityToolkit", "firebase": nil}, valetkey.ReasonIssuer},
			{"an ID token without a user", nil, object{"sub": ""}, valetkey.ReasonClaimMalformed},
			{"a token of another kind", nil, object{"firebase": nil}, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "firebase_id_tokens", kind: "an ID token of a tenant of Identity Platform",
		params: issuers.Params{Audience: []string{"example-project"}, Rules: []claims.Rule{claims.Equal("firebase.tenant", "shop-1")}},
		keySet: securetoken,
		header: object{"typ": "JWT"},
		claims: `{"iss":"https://securetoken.google.com/example-project","aud":"example-project","auth_time":$IAT,"user_id":"b","sub":"b","iat":$IAT,"exp":$EXP,
			"firebase":{"identities":{},"sign_in_provider":"saml.corp","tenant":"shop-1"}}`,
		subject: "b", client: "example-project",
		relatives: []relative{
			{"an ID token of another tenant", nil, object{"firebase": object{"sign_in_provider": "password", "tenant": "shop-2"}}, valetkey.ReasonClaimRule},
			{"an ID token of no tenant", nil, object{"firebase": object{"sign_in_provider": "password"}}, valetkey.ReasonClaimRule},
		},
	},
	{
		of: "cloudflare_access", kind: "a user's token",
		params: issuers.Params{Issuer: team, Audience: []string{audTag}},
		keySet: team + "/cdn-cgi/access/certs", keys: accessCerts,
		header: object{"typ": "JWT"},
		claims: `{"aud":["` + audTag + `"],"email":"alice@example.com","exp":$EXP,"iat":$IAT,"nbf":$IAT,"iss":"` + team + `","type":"app","identity_nonce":"6ei69kawdKzMIAPF",
			"sub":"7335d417-61da-459d-899c-0a01c76a2f94","country":"US"}`,
		subject: "7335d417-61da-459d-899c-0a01c76a2f94",
		relatives: []relative{
			{"the token of the login to the team", nil, object{"type": "org"}, valetkey.ReasonNotAccessToken},
			{"a token without its kind", nil, object{"type": nil}, valetkey.ReasonNotAccessToken},
			{"a token for another application", nil, object{"aud": []string{"97e2aae120121f902df8bc99fc345913"}}, valetkey.ReasonAudience},
			{"a token of another team", nil, object{"iss": "https://evil.cloudflareaccess.com"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "cloudflare_access", kind: "the token of a listed service token",
		params: issuers.Params{Issuer: team + "/", Audience: []string{audTag}, Clients: []string{"e367826f93b8d71185e03fe518aff3b4.access"}},
		keySet: team + "/cdn-cgi/access/certs", keys: accessCerts,
		header: object{"typ": "JWT"},
		claims: `{"type":"app","aud":"` + audTag + `","exp":$EXP,"iss":"` + team + `","common_name":"e367826f93b8d71185e03fe518aff3b4.access","iat":$IAT,"sub":""}`,
		client: "e367826f93b8d71185e03fe518aff3b4.access",
		relatives: []relative{
			{"the token of another service token", nil, object{"common_name": "09fe267ad20b0775ed49b8574b1a8aa5.access"}, valetkey.ReasonClient},
			{"a user's token", nil, object{"common_name": nil, "sub": "alice"}, valetkey.ReasonClient},
		},
	},
	{
		of: "cloudflare_access", kind: "a user's token, without service tokens",
		params: issuers.Params{Issuer: team, Audience: []string{audTag}, Rules: []claims.Rule{claims.Absent("common_name")}},
		keySet: team + "/cdn-cgi/access/certs", keys: accessCerts,
		header: object{"typ": "JWT"},
		claims: `{"aud":["` + audTag + `"],"email":"alice@example.com","exp":$EXP,"iat":$IAT,"nbf":$IAT,"iss":"` + team + `","type":"app","sub":"alice"}`,

		subject: "alice",
		relatives: []relative{
			{"the token of a service token", nil, object{"common_name": "09fe267ad20b0775ed49b8574b1a8aa5.access", "sub": ""}, valetkey.ReasonClaimRule},
			{"the token of the login to the team", nil, object{"type": "org"}, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "salesforce", kind: "a token for the org, of a listed app",
		params:   issuers.Params{Issuer: org, Audience: []string{org}, Clients: []string{"3MVG9"}},
		metadata: org + "/.well-known/openid-configuration", keySet: org + "/id/keys",
		header: object{"typ": "JWT", "tnk": "core/prod/00DE0X0A0M0PeLE", "ver": "1.0", "tty": "sfdc-core-token"},
		claims: `{"scp":"refresh_token api","aud":["` + org + `"],"sub":"uid:0051100000AbCdEAAV","nbf":$IAT,"mty":"oauth","sfi":"63c8d1fe0ce41eaf5c5b","roles":[],"iss":"` + org + `",
			"hsc":false,"exp":$EXP,"iat":$IAT,"client_id":"3MVG9"}`,
		subject: "uid:0051100000AbCdEAAV", client: "3MVG9", scopes: []string{"refresh_token", "api"},
		relatives: []relative{
			{"an ID token", object{"tty": nil}, object{"aud": "3MVG9", "mty": nil, "scp": nil, "client_id": nil, "at_hash": "h"}, valetkey.ReasonNotAccessToken},
			{"an ID token for the org", object{"tty": nil}, object{"mty": nil}, valetkey.ReasonNotAccessToken},
			{"a token of another app", nil, object{"client_id": "3MVG0"}, valetkey.ReasonClient},
			{"a token of another org", nil, object{"iss": "https://evil.my.salesforce.com"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "sap_xsuaa", kind: "a user's token",
		params: issuers.Params{Issuer: xsuaa, Audience: []string{"orders!t1234"}},
		keySet: xsuaa + "/token_keys",
		header: object{"typ": "JWT", "jku": "https://evil.example.net/token_keys", "jid": "x"},
		claims: `{"jti":"a2b4","ext_attr":{"enhancer":"XSUAA","subaccountid":"5f1d","zdn":"shop"},"xs.system.attributes":{"xs.rolecollections":["Clerks"]},"given_name":"Alice",
			"xs.user.attributes":{},"sub":"cd3e","scope":["orders!t1234.Display","openid"],"client_id":"sb-orders!t1234","cid":"sb-orders!t1234","azp":"sb-orders!t1234",
			"grant_type":"authorization_code","user_id":"cd3e","origin":"sap.default","user_name":"alice@example.com","email":"alice@example.com","auth_time":$IAT,"rev_sig":"9f",
			"iat":$IAT,"exp":$EXP,"iss":"` + xsuaa + `/oauth/token","zid":"5f1d","aud":["openid","sb-orders!t1234","orders!t1234"]}`,
		subject: "cd3e", client: "sb-orders!t1234", scopes: []string{"orders!t1234.Display", "openid"},
		relatives: []relative{
			{"an ID token", nil, object{"aud": []string{"sb-orders!t1234"}, "scope": []string{"openid"}}, valetkey.ReasonAudience},
			{"an ID token with a nonce", nil, object{"aud": []string{"orders!t1234"}, "nonce": "n"}, valetkey.ReasonNotAccessToken},
			{"a refresh token", nil, object{"jti": "a2b4-r", "scope": nil, "granted_scopes": []string{"orders!t1234.Display"}, "azp": nil}, valetkey.ReasonNotAccessToken},
			{"a token for another application", nil, object{"aud": []string{"openid", "sb-crm!t1", "crm!t1"}, "scope": []string{"crm!t1.Display"}}, valetkey.ReasonAudience},
			{"a token of another subaccount", nil, object{"iss": "https://other.authentication.eu10.hana.ondemand.com/oauth/token", "zid": "6a"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "sap_xsuaa", kind: "a machine's token",
		params: issuers.Params{Issuer: xsuaa, Audience: []string{"orders!t1234"}},
		keySet: xsuaa + "/token_keys",
		header: object{"typ": "JWT", "jku": xsuaa + "/token_keys"},
		claims: `{"jti":"b","ext_attr":{"enhancer":"XSUAA","zdn":"shop"},"sub":"sb-jobs!t99","authorities":["orders!t1234.Import"],"scope":["orders!t1234.Import"],
			"client_id":"sb-jobs!t99","cid":"sb-jobs!t99","azp":"sb-jobs!t99","grant_type":"client_credentials","rev_sig":"1","iat":$IAT,"exp":$EXP,
			"iss":"` + xsuaa + `/oauth/token","zid":"5f1d","aud":["orders!t1234","sb-jobs!t99"]}`,
		subject: "sb-jobs!t99", client: "sb-jobs!t99", scopes: []string{"orders!t1234.Import"},
		relatives: []relative{
			{"a token without authorities", nil, object{"scope": []string{}, "authorities": []string{}}, valetkey.ReasonNotAccessToken},
			{"a token for another application", nil, object{"aud": []string{"crm!t1"}}, valetkey.ReasonAudience},
		},
	},
	{
		of: "cloud_foundry_uaa", kind: "a user's token",
		params: issuers.Params{Issuer: "https://uaa.example.com", Audience: []string{"orders"}},
		keySet: "https://uaa.example.com/token_keys",
		header: object{"typ": "JWT", "jku": "https://uaa.example.com/token_keys"},
		claims: `{"jti":"53dd","sub":"e694","scope":["openid","orders.read"],"client_id":"shop","cid":"shop","azp":"shop","grant_type":"password","user_id":"e694","origin":"uaa",
			"user_name":"alice","email":"alice@example.com","auth_time":$IAT,"rev_sig":"2b","iat":$IAT,"exp":$EXP,"iss":"https://uaa.example.com/oauth/token","zid":"uaa",
			"aud":["shop","orders","openid"]}`,
		subject: "e694", client: "shop", scopes: []string{"openid", "orders.read"},
		relatives: []relative{
			{"an ID token", nil, object{"aud": []string{"shop"}, "scope": []string{"openid"}, "amr": []string{"pwd"}}, valetkey.ReasonAudience},
			{"a refresh token", nil, object{"jti": "53dd-r", "scope": nil, "granted_scopes": []string{"openid", "orders.read"}, "azp": nil}, valetkey.ReasonNotAccessToken},
			{"a token for the cloud controller", nil, object{"aud": []string{"cloud_controller", "openid"}, "scope": []string{"cloud_controller.read"}}, valetkey.ReasonAudience},
			{"a token of another identity zone", nil, object{"iss": "https://zone2.uaa.example.com/oauth/token", "zid": "zone2"}, valetkey.ReasonIssuer},
		},
	},
}

// balancerHeader returns the header of the claims that a load balancer signs. It repeats some of them.
func balancerHeader(arn, iss string) object {
	return object{"typ": "JWT", "signer": arn, "iss": iss, "client": "4fmvht22tjrgd7d3k3tghttct7", "exp": start.Add(time.Hour).Unix()}
}

// The parts of the token are padded, and the padding is signed.
func TestAWSLoadBalancerPadding(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	sign := func(signer string) string {
		var parts []string
		for _, part := range []object{
			{"typ": "JWT", "kid": "c2f80c8b-c05c-4068-af14-17299f7896b1", "alg": "ES256", "iss": userPool, "client": "c", "signer": signer, "exp": start.Add(time.Hour).Unix()},
			{"sub": "alice", "exp": start.Add(time.Hour).Unix(), "iss": userPool},
		} {
			data, err := json.Marshal(part)
			require.NoError(t, err)
			data = append(data, "  "[:(4-len(data)%3)%3]...) // one byte after a group of three: two padding characters
			parts = append(parts, base64.URLEncoding.EncodeToString(data))
			require.True(t, strings.HasSuffix(parts[len(parts)-1], "=="))
		}
		input := strings.Join(parts, ".")
		digest := sha256.Sum256([]byte(input))
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		require.NoError(t, err)
		signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		return input + "." + base64.URLEncoding.EncodeToString(signature)
	}
	cfg, err := issuers.AWSLoadBalancer(issuers.Params{Issuer: userPool, Audience: []string{balancer}})
	require.NoError(t, err)
	var asked []string
	cfg.Client = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.URL.String())
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(publicPEM(t, &key.PublicKey))), Request: r}, nil
	})}
	keys, err := jwks.New(cfg)
	require.NoError(t, err)
	defer keys.Close()
	guard, err := middleware.New(middleware.Config{Verifier: keys, Methods: []middleware.BearerMethod{middleware.HeaderToken("X-Amzn-Oidc-Data")}})
	require.NoError(t, err)
	handler := guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := valetkey.FromContext(r.Context())
		_, _ = io.WriteString(w, token.Subject())
	}), valetkey.AnyToken)
	send := func(name, value string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		r.Header.Set(name, value)
		handler.ServeHTTP(w, r)
		return w
	}
	token := sign(balancer)
	assert.Equal(t, 401, send("Authorization", "Bearer "+token).Code, "another header")
	assert.Equal(t, 401, send("X-Amzn-Oidc-Data", sign(strings.Replace(balancer, "orders", "billing", 1))).Code, "another load balancer")
	assert.Equal(t, 401, send("X-Amzn-Oidc-Data", strings.ReplaceAll(token, "=", "")).Code, "the padding is signed")
	for range 2 {
		w := send("X-Amzn-Oidc-Data", token)
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, "alice", w.Body.String())
	}
	assert.Equal(t, []string{"https://public-keys.auth.elb.eu-central-1.amazonaws.com/c2f80c8b-c05c-4068-af14-17299f7896b1"}, asked)
}

func TestAWSLoadBalancerParameters(t *testing.T) {
	const form = "is not the ARN of an Application Load Balancer"
	for name, test := range map[string]struct {
		audience []string
		want     string
	}{
		"a domain name":           {[]string{"orders-123.eu-central-1.elb.amazonaws.com"}, form},
		"a network load balancer": {[]string{strings.Replace(balancer, "/app/", "/net/", 1)}, form},
		"a listener":              {[]string{strings.Replace(balancer, "loadbalancer/", "listener/", 1) + "/0467ef3c8400ae65"}, form},
		"a target group":          {[]string{"arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/orders/50dc6c495c0c9188"}, form},
		"China":                   {[]string{strings.Replace(balancer, "aws:elastic", "aws-cn:elastic", 1)}, form},
		"a region with a slash":   {[]string{strings.Replace(balancer, "eu-central-1", "evil.example/eu-central-1", 1)}, form},
		"a region with a domain":  {[]string{strings.Replace(balancer, "eu-central-1", "eu-central-1.evil.example", 1)}, form},
		"two regions":             {[]string{balancer, strings.Replace(balancer, "eu-central-1", "us-east-1", 1)}, "Audience[1]: is of another region"},
		"nothing":                 {nil, "Audience: required"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := issuers.AWSLoadBalancer(issuers.Params{Issuer: userPool, Audience: test.audience})
			assert.ErrorContains(t, err, test.want)
		})
	}
}

// accessCerts returns the key set as Cloudflare Access publishes it, with the certificates of the keys beside them.
func accessCerts(t *testing.T, set []byte) []byte {
	t.Helper()
	var doc object
	require.NoError(t, json.Unmarshal(set, &doc))
	cert := object{"kid": "9338abe1", "cert": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: valetkeytest.ClientCertificate(t).Certificate[0]}))}
	doc["public_cert"], doc["public_certs"] = cert, []object{cert}
	data, err := json.Marshal(doc)
	require.NoError(t, err)
	return data
}

func TestCloudParameters(t *testing.T) {
	for name, test := range map[string]struct {
		of   string
		p    issuers.Params
		want string
	}{
		"a service account without a rule":             {"google_service_account_id_tokens", issuers.Params{Audience: []string{ordersAPI}}, "Rules: required"},
		"a service account by its audience":            {"google_service_account_id_tokens", issuers.Params{Audience: []string{ordersAPI}, Rules: []claims.Rule{claims.Equal("aud", ordersAPI)}}, "Rules: required"},
		"a service account by the beginning of a name": {"google_service_account_id_tokens", issuers.Params{Audience: []string{ordersAPI}, Rules: []claims.Rule{claims.Prefix("email", "deployer@")}}, "Rules[0]"},
		"an issuer of Google":                          {"google_id_tokens", issuers.Params{Issuer: google, Audience: []string{webApp}}, "Issuer: has no meaning"},
		"two projects":                                 {"firebase_id_tokens", issuers.Params{Audience: []string{"a", "b"}}, "Audience: must be one project ID"},
		"no project":                                   {"firebase_id_tokens", issuers.Params{}, "Audience: required"},
		"the audience of all tokens of an org":         {"salesforce", issuers.Params{Issuer: org, Audience: []string{org}}, "Clients: required with the My Domain URL"},
		"the same with a slash":                        {"salesforce", issuers.Params{Issuer: org, Audience: []string{org + "/"}}, "Clients: required with the My Domain URL"},
		"the client ID in place of xsappname":          {"sap_xsuaa", issuers.Params{Issuer: xsuaa, Audience: []string{"sb-orders!t1234"}}, "Audience: has a client ID"},
		"the audience of all users' tokens":            {"cloud_foundry_uaa", issuers.Params{Issuer: xsuaa, Audience: []string{"orders", "openid"}}, `Audience: has "openid"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := issuers.Named(test.of, test.p)
			assert.ErrorContains(t, err, test.want)
		})
	}
	t.Run("the issuer of UAA with and without its path is the same", func(t *testing.T) {
		want, err := issuers.CloudFoundryUAA(issuers.Params{Issuer: "https://uaa.example.com", Audience: []string{"orders"}})
		require.NoError(t, err)
		for _, issuer := range []string{"https://uaa.example.com/", "https://uaa.example.com/oauth/token"} {
			cfg, err := issuers.CloudFoundryUAA(issuers.Params{Issuer: issuer, Audience: []string{"orders"}})
			require.NoError(t, err)
			assert.Equal(t, want, cfg)
		}
	})
	t.Run("only the constructors that name ID tokens accept them", func(t *testing.T) {
		for _, name := range []string{"google_iap", "cloudflare_access", "salesforce", "sap_xsuaa", "cloud_foundry_uaa"} {
			cfg, err := issuers.Named(name, issuers.Params{Issuer: map[bool]string{false: team}[name == "google_iap"], Audience: []string{"a"}})
			require.NoError(t, err)
			assert.False(t, cfg.Profile.AllowIDTokens, name)
		}
	})
}
