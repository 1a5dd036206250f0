package doctor

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
)

// recognized lists products by a part of their issuers. For an issuer that issues tokens to anyone, pins lists claims of which one
// must be pinned by a rule, the best first.
var recognized = []struct {
	in, name, constructor string
	pins                  []string
}{
	{"/realms/", "keycloak", "Keycloak", nil},
	{"://cognito-idp.", "cognito", "Cognito", nil},
	{".auth0.com/", "auth0", "Auth0", nil},
	{".okta.com/oauth2/", "okta", "Okta", nil},
	{".oktapreview.com/oauth2/", "okta", "Okta", nil},
	{"://login.microsoftonline.com/", "entra_id", "EntraID", nil},
	{"://sts.windows.net/", "entra_id_v1", "EntraIDV1", nil},
	{".ciamlogin.com/", "entra_external_id", "EntraExternalID", nil},
	{".b2clogin.com/", "azure_ad_b2c", "AzureADB2C", []string{"tfp", "acr"}},
	{"://token.actions.githubusercontent.com", "github_actions", "GitHubActions", []string{"repository_id", "repository"}},
	{"://gitlab.com", "gitlab_ci", "GitLabCI", []string{"project_id", "project_path"}},
	{"://oidc.circleci.com/org/", "circleci", "CircleCI", []string{"oidc.circleci.com/project-id"}},
	{"://agent.buildkite.com", "buildkite", "Buildkite", []string{"organization_id", "organization_slug"}},
	{"://app.terraform.io", "hcp_terraform", "HCPTerraform", []string{"terraform_workspace_id", "terraform_organization_id"}},
	{"://securetoken.google.com/", "firebase_id_tokens", "FirebaseIDTokens", nil},
	{".cloudflareaccess.com", "cloudflare_access", "CloudflareAccess", nil},
	{".supabase.co/auth/v1", "supabase", "Supabase", nil},
	{".clerk.accounts.dev", "clerk", "Clerk", nil},
	{".kinde.com", "kinde", "Kinde", nil},
	{".zitadel.cloud", "zitadel", "Zitadel", nil},
	{".my.salesforce.com", "salesforce", "Salesforce", nil},
	{"://auth.pingone.", "pingone", "PingOne", nil},
}

// product names the constructor of package issuers that accepts the token as it is, if the issuer is recognized.
func (x *examination) product(ctx context.Context, cfg jwks.Config, t *token) {
	iss := t.text("iss")
	for _, p := range recognized {
		if !strings.Contains(iss, p.in) {
			continue
		}
		params := issuers.Params{Issuer: iss, Audience: cfg.Audience}
		yaml, code := "issuer_type: "+p.name, fmt.Sprintf("issuers.%s(issuers.Params{Issuer: %q, Audience: ...", p.constructor, iss)
		for _, claim := range p.pins {
			if value := t.text(claim); value != "" {
				params.Rules = []claims.Rule{claims.Equal(claim, value)}
				yaml += fmt.Sprintf(", rules: [%q]", params.Rules[0])
				code += fmt.Sprintf(", Rules: []claims.Rule{claims.Equal(%q, %q)}", claim, value)
				break
			}
		}
		if x.acceptedAs(ctx, cfg, p.name, params, t) {
			x.constructor(yaml, code)
			return
		}
		client := cmp.Or(t.text("client_id"), t.text("azp"))
		params.Clients = []string{client}
		if client != "" && x.acceptedAs(ctx, cfg, p.name, params, t) {
			x.constructor(yaml+fmt.Sprintf(", clients: [%q]", client), code+fmt.Sprintf(", Clients: []string{%q}", client))
			return
		}
	}
}

// acceptedAs reports whether the constructor with the given name and parameters accepts the token.
func (x *examination) acceptedAs(ctx context.Context, cfg jwks.Config, name string, p issuers.Params, t *token) bool {
	made, err := issuers.Named(name, p)
	if err != nil {
		return false
	}
	made.JWKS, made.JWKSURL, made.Client, made.KeyRequests = cfg.JWKS, cfg.JWKSURL, cfg.Client, jwks.KeyRequests{}
	made.Now, made.Logger = cfg.Now, cfg.Logger
	_, err = verify(ctx, made, t.raw)
	return err == nil
}

func (x *examination) constructor(yaml, code string) {
	x.add(Finding{Level: Warn, Check: "product", Cause: "one constructor has all of these settings and excludes the product's other tokens",
		YAML: yaml, Go: code + "})"})
}
