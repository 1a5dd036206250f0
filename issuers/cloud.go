package issuers

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/tokenclaims"
	"github.com/valetkey/valetkey/jwks"
)

var cloudProducts = []product{
	googleIDTokens, googleServiceAccounts, googleIAP, firebase, cloudflareAccess, awsLoadBalancer, salesforce, sapXSUAA, cloudFoundryUAA,
}

const google = "https://accounts.google.com"

// GoogleIDTokens returns the settings for the ID tokens of users of Google, as bearer tokens. It needs Audience, the OAuth client IDs
// of the applications that belong to this API, ending with .apps.googleusercontent.com.
//
// An ID token was not issued for an API; see jwks.Profile.AllowIDTokens. Google's access tokens are opaque and for Google's APIs only.
// The tokens have no jti and no scopes. The client in azp must be in Clients, or in Audience without Clients. An Android application
// has its own client ID in azp and that of the web application in aud: list both in Clients. Everyone with a Google account is
// accepted. For the accounts of one organization, add claims.Equal("hd", "example.com") to Rules.
func GoogleIDTokens(p Params) (jwks.Config, error) { return googleIDTokens.build(p) }

var googleIDTokens = product{
	name:  "google_id_tokens",
	needs: needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		googleIssuer(cfg)
		cfg.Profile.AllowIDTokens = true
	},
}

// GoogleServiceAccountIDTokens returns the settings for the ID tokens of Google Cloud service accounts, as bearer tokens. It needs
// Audience, which the callers request, such as the URL of this API, and Rules.
//
// Every service account of every Google customer can get a token for any audience. A rule must pin the account by email, or by its
// unique ID in sub or azp. An email is accepted only if it is verified, and is present only if the caller requests it
// (include_email, or format=full of a metadata server). An account that is deleted and created again has another unique ID. The
// tokens have no jti and no scopes. The client is the unique ID in azp.
func GoogleServiceAccountIDTokens(p Params) (jwks.Config, error) {
	return googleServiceAccounts.build(p)
}

var googleServiceAccounts = product{
	name:  "google_service_account_id_tokens",
	needs: needsAudience,
	pins:  []string{"email", "sub", "azp"},
	config: func(p Params, cfg *jwks.Config, _ *mistakes.List) {
		googleIssuer(cfg)
		cfg.Profile.AllowMissingClientID = true
		if slices.ContainsFunc(p.Rules, func(r claims.Rule) bool { return r.Claim() == "email" }) {
			cfg.Rules = append(cfg.Rules, claims.Equal("email_verified", "true"))
		}
	},
}

func googleIssuer(cfg *jwks.Config) {
	cfg.Issuer, cfg.IssuerAliases = google, []string{"accounts.google.com"}
	cfg.Profile.AllowUntyped, cfg.Profile.AllowMissingID = true, true
}

// GoogleIAP returns the settings for the assertions of Google Cloud's Identity-Aware Proxy. It needs Audience, such as
// /projects/NUMBER/apps/PROJECT or /projects/NUMBER/global/backendServices/ID.
//
// The proxy sends the assertion in the header X-Goog-Iap-Jwt-Assertion, so set middleware.HeaderToken to it. The proxy's issuer signs
// nothing else. The tokens have no jti and no scopes. Restrict the users in the IAM policy of the proxy.
func GoogleIAP(p Params) (jwks.Config, error) { return googleIAP.build(p) }

var googleIAP = product{
	name:  "google_iap",
	needs: needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Issuer = "https://cloud.google.com/iap"
		cfg.JWKSURL = "https://www.gstatic.com/iap/verify/public_key-jwk"
		cfg.Algorithms = []string{"ES256"}
		cfg.Profile.AllowUntyped, cfg.Profile.AllowMissingID, cfg.Profile.AllowMissingClientID = true, true, true
	},
}

// FirebaseIDTokens returns the settings for the ID tokens of Firebase Authentication and of Google's Identity Platform, as bearer
// tokens. It needs Audience, the project ID.
//
// The users of a project have no other token that an API could verify, and the ID token is for the backend of the project as well; see
// jwks.Profile.AllowIDTokens. The tokens have no jti and no scopes. The issuer is https://securetoken.google.com/PROJECT. All projects
// share the keys. Anonymous users are accepted unless a rule excludes them, such as
// claims.OneOf("firebase.sign_in_provider", "password", "google.com"). For one tenant, add claims.Equal("firebase.tenant", "TENANT").
func FirebaseIDTokens(p Params) (jwks.Config, error) { return firebase.build(p) }

var firebase = product{
	name:  "firebase_id_tokens",
	needs: needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		wrong.AddIf(len(p.Audience) > 1, "Audience", "must be one project ID, since each project has its own issuer")
		cfg.Issuer = "https://securetoken.google.com/" + strings.Join(p.Audience, "")
		cfg.JWKSURL = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
		cfg.Algorithms = []string{"RS256"}
		cfg.Profile.AllowUntyped, cfg.Profile.AllowMissingID, cfg.Profile.AllowIDTokens = true, true, true
		cfg.Markers = []claims.Rule{claims.Present("firebase.sign_in_provider")}
	},
}

// CloudflareAccess returns the settings for the application tokens of Cloudflare Access, of users and of service tokens. It needs
// Issuer (https://TEAM.cloudflareaccess.com) and Audience, the application audience tag (AUD).
//
// Access sends the token in the header Cf-Access-Jwt-Assertion, so set middleware.HeaderToken to it. The tokens have no jti and no
// scopes, and state their kind in the claim type, which must be app. The token of a service token has no sub: its client, in
// common_name, is the client ID of the service token. To accept only these, list their client IDs in Clients. To accept only users,
// add claims.Absent("common_name") to Rules.
func CloudflareAccess(p Params) (jwks.Config, error) { return cloudflareAccess.build(p) }

var cloudflareAccess = product{
	name:  "cloudflare_access",
	needs: needsIssuer | needsAudience,
	config: func(p Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Issuer = strings.TrimSuffix(p.Issuer, "/")
		cfg.JWKSURL = cfg.Issuer + "/cdn-cgi/access/certs"
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingID: true, AllowMissingSubject: true, AllowMissingClientID: true}
		cfg.ClientIDClaim = "common_name"
		cfg.Markers = []claims.Rule{claims.Equal("type", "app")}
	},
}

// AWSLoadBalancer returns the settings for the user claims that an Application Load Balancer of AWS adds to requests. It needs Issuer, the
// issuer of the listener rule that authenticates users, and Audience, the ARN of the load balancer. Several ARNs must be of one region.
// Clients may restrict the clients of listener rules.
//
// The load balancer sends the token in the header X-Amzn-Oidc-Data, so set middleware.HeaderToken to it. The API must be reachable only
// through the load balancer, and only through listener rules that authenticate: others pass on the header of a client, such as one
// that was recorded earlier.
//
// All load balancers of a region share their keys, and the owner of each chooses its issuer and its claims. The load balancer in the
// header parameter signer is therefore compared with Audience, and aud is not read. The tokens have no iat, jti or scopes, and their
// parts are padded. The client is in the header parameter client. The claims are those of the issuer's userinfo endpoint. Each key has
// its own URL, at public-keys.auth.elb.REGION.amazonaws.com; in the regions of GovCloud (US), in a bucket of S3.
func AWSLoadBalancer(p Params) (jwks.Config, error) { return awsLoadBalancer.build(p) }

var awsLoadBalancer = product{
	name:  "aws_load_balancer",
	needs: needsIssuer | needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		var first string // URL of the keys
		for i, arn := range p.Audience {
			at := fmt.Sprintf("Audience[%d]", i)
			parts := balancerARN.FindStringSubmatch(arn)
			if parts == nil {
				wrong.Add(at, "%q is not the ARN of an Application Load Balancer, arn:aws:elasticloadbalancing:REGION:ACCOUNT:loadbalancer/app/NAME/ID, "+
					"in the partitions aws or aws-us-gov", arn)
				continue
			}
			keys := "https://public-keys.auth.elb." + parts[2] + ".amazonaws.com/{kid}"
			if parts[1] == "aws-us-gov" {
				keys = "https://s3-" + parts[2] + ".amazonaws.com/aws-elb-public-keys-prod-" + parts[2] + "/{kid}"
			}
			wrong.AddIf(first != "" && keys != first, at, "is of another region, which has other keys: use a verifier for each region")
			first = cmp.Or(first, keys)
		}
		cfg.JWKSURL = first
		cfg.Algorithms = []string{"ES256"}
		cfg.AudienceHeader, cfg.ClientIDHeader = "signer", "client"
		cfg.AllowPaddedSegments = true
		cfg.Profile.AllowUntyped, cfg.Profile.AllowMissingID, cfg.Profile.AllowMissingIssuedAt = true, true, true
	},
}

var balancerARN = regexp.MustCompile(`^arn:(aws|aws-us-gov):elasticloadbalancing:([a-z]{2}(?:-[a-z]+)+-[0-9]):[0-9]{12}:loadbalancer/app/[A-Za-z0-9-]{1,32}/[0-9a-f]+$`)

// Salesforce returns the settings for the JWT-based access tokens of a Salesforce org. It needs Issuer, the My Domain URL
// (https://NAME.my.salesforce.com), and Audience.
//
// Access tokens are opaque unless "Issue JSON Web Token (JWT)-based access tokens for named users" is enabled for the app. Opaque tokens
// contain "!", which RFC 6750, section 2.1, does not allow in a bearer token, so they are refused.
//
// The aud of every token of the org contains the My Domain URL. To accept it nevertheless, list it in Audience, and the apps in
// Clients, which is then required. The tokens have the typ "JWT" and no jti. Their claim mty, which ID tokens do not have, must be
// oauth. Scopes are in scp.
func Salesforce(p Params) (jwks.Config, error) { return salesforce.build(p) }

var salesforce = product{
	name:  "salesforce",
	needs: needsIssuer | needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		cfg.Profile.AllowUntyped, cfg.Profile.AllowMissingID = true, true
		cfg.Markers = []claims.Rule{claims.Equal("mty", "oauth")}
		cfg.Scopes = []string{"scp"}
		everyone := tokenclaims.IsFor(valetkey.ListOf(p.Issuer), p.Audience, false)
		wrong.AddIf(everyone && len(p.Clients) == 0, "Clients",
			"required with the My Domain URL as the audience, which every token of the org has")
	},
}

// SAPXSUAA returns the settings for the access tokens of SAP BTP's Authorization and Trust Management (XSUAA). It needs Issuer, the url
// in the credentials of the service binding (https://SUBDOMAIN.authentication.REGION.hana.ondemand.com), and Audience, the xsappname
// there.
//
// The iss of the tokens is this URL with /oauth/token. The tokens have the typ "JWT" and scopes as an array, each with the xsappname
// as its prefix. Refresh tokens have granted_scopes in place of scope. ID tokens have a client ID as their aud, so do not list
// clientid, which begins with sb-. The key URL in a token's header (jku) is ignored. Other subaccounts that subscribe to the
// application have other issuers; use jwks.Tenants for them.
func SAPXSUAA(p Params) (jwks.Config, error) { return sapXSUAA.build(p) }

var sapXSUAA = product{
	name:  "sap_xsuaa",
	needs: needsIssuer | needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		uaa(p, cfg, wrong)
		wrong.AddIf(slices.ContainsFunc(p.Audience, func(a string) bool { return strings.HasPrefix(a, "sb-") }), "Audience",
			"has a client ID, which is the aud of ID tokens; use xsappname")
	},
}

// CloudFoundryUAA returns the settings for the access tokens of Cloud Foundry's User Account and Authentication server (UAA). It needs
// Issuer (https://uaa.HOST) and Audience, the resource ID of the API: the part of its scopes before the last dot.
//
// The iss of the tokens is this URL with /oauth/token. The tokens have the typ "JWT" and scopes as an array. Refresh tokens have
// granted_scopes in place of scope. ID tokens have a client ID as their aud, so a client must not have the name of the API. With
// token_format=opaque, tokens are opaque: use [CloudFoundryUAAIntrospection].
func CloudFoundryUAA(p Params) (jwks.Config, error) { return cloudFoundryUAA.build(p) }

var cloudFoundryUAA = product{
	name:   "cloud_foundry_uaa",
	needs:  needsIssuer | needsAudience,
	config: uaa,
}

func uaa(p Params, cfg *jwks.Config, wrong *mistakes.List) {
	server := strings.TrimSuffix(strings.TrimSuffix(p.Issuer, "/"), "/oauth/token")
	cfg.Issuer, cfg.JWKSURL = server+"/oauth/token", server+"/token_keys"
	cfg.Profile.AllowUntyped, cfg.Profile.AllowScopeArray = true, true
	cfg.RequireScope = true
	wrong.AddIf(slices.Contains(p.Audience, "openid"), "Audience", `has "openid", which every token with that scope has, for any API`)
}
