package issuers

import (
	"strings"

	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/jwks"
)

var ciProducts = []product{githubActions, gitlabCI, circleCI, buildkite, hcpTerraform}

// GitHubActions returns the settings for the tokens of GitHub Actions jobs. It needs Issuer
// (https://token.actions.githubusercontent.com, with /ENTERPRISE if the enterprise has a separate issuer;
// https://token.actions.SUBDOMAIN.ghe.com with data residency; https://HOST/_services/token of a GitHub Enterprise Server), Audience and
// Rules.
//
// Every repository on GitHub gets tokens of this issuer, for any audience that its jobs ask for. A rule must pin repository_id,
// repository_owner_id, enterprise_id, or a name: repository, repository_owner, enterprise or sub. Prefer the IDs. A name can belong
// to another account after a rename or deletion, and the form of sub depends on settings of the repository. A rule about
// job_workflow_ref or environment alone is not enough: any repository can call a public workflow and name its environments as it
// likes.
//
// A rule about the repository accepts every job in it, of every branch and of every workflow. To accept fewer, add rules about ref,
// environment or workflow_ref. The tokens have no client and no scope. The typ is JWT.
func GitHubActions(p Params) (jwks.Config, error) { return githubActions.build(p) }

var githubActions = product{
	name:   "github_actions",
	needs:  needsIssuer | needsAudience,
	pins:   []string{"repository_id", "repository_owner_id", "enterprise_id", "repository", "repository_owner", "enterprise", "sub"},
	owners: []string{"repo:", "repository:", "repository_id:", "repository_owner:", "repository_owner_id:"},
	config: job,
}

// GitLabCI returns the settings for the ID tokens of GitLab CI/CD jobs (the keyword id_tokens), of gitlab.com or a self-managed
// instance. It needs Issuer (https://gitlab.com or the URL of the instance), Audience and Rules.
//
// Every project of the instance gets tokens of this issuer, for any audience that its jobs ask for. A rule must pin project_id,
// namespace_id, or a name: project_path, namespace_path or sub. Prefer the IDs, since a name can belong to another group after a
// rename or deletion. In the pipeline of a merge request from a fork, these claims are those of the fork.
//
// A rule about the project accepts every job in it. Everyone with the Developer role can run one on a new branch. To accept those of
// protected branches and tags only, add claims.Equal("ref_protected", "true"). GitLab signs the ID tokens of its users with the same
// issuer and keys. They are refused, since they do not have the claim job_id. The tokens have no client and no scope. The typ is JWT.
func GitLabCI(p Params) (jwks.Config, error) { return gitlabCI.build(p) }

var gitlabCI = product{
	name:   "gitlab_ci",
	needs:  needsIssuer | needsAudience,
	pins:   []string{"project_id", "namespace_id", "project_path", "namespace_path", "sub"},
	owners: []string{"project_path:"},
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		job(p, cfg, wrong)
		cfg.Markers = []claims.Rule{claims.Present("job_id")}
	},
}

// CircleCI returns the settings for the OpenID Connect tokens of CircleCI jobs. It needs Issuer
// (https://oidc.circleci.com/org/ORGANIZATION_ID), Audience and Rules.
//
// A rule must pin oidc.circleci.com/project-id or sub. The sub org/ORGANIZATION_ID/project/PROJECT_ID/user/USER_ID consists of IDs
// only. For every project of the organization, use claims.Prefix("sub", "org/ORGANIZATION_ID/"). If the project passes secrets to
// builds of forked pull requests, add a rule about oidc.circleci.com/vcs-origin.
//
// The aud of CIRCLE_OIDC_TOKEN and CIRCLE_OIDC_TOKEN_V2 is the ID of the organization. Any service that receives such a token could
// use it here. Let the jobs request a token for this API: circleci run oidc get --claims '{"aud":"https://api.example.com"}'. The
// tokens have no client, no scope and no jti. The typ is JWT.
func CircleCI(p Params) (jwks.Config, error) { return circleCI.build(p) }

var circleCI = product{
	name:   "circleci",
	needs:  needsIssuer | needsAudience,
	pins:   []string{"oidc.circleci.com/project-id", "sub"},
	owners: []string{"org/"},
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		job(p, cfg, wrong)
		cfg.Profile.AllowMissingID = true
	},
}

// Buildkite returns the settings for the OpenID Connect tokens of Buildkite jobs. It needs Issuer (https://agent.buildkite.com),
// Audience and Rules.
//
// Every organization gets tokens of this issuer, for any audience that its jobs ask for. A rule must pin organization_id,
// organization_slug, pipeline_id or sub. Prefer the IDs, since a slug can belong to another organization later. They are in the
// token if the job requests them: buildkite-agent oidc request-token --claim organization_id. The slug of a pipeline alone is not
// enough, because other organizations may have a pipeline of that name. A job can choose the claim in sub (--subject-claim).
//
// A rule about the pipeline accepts the jobs of all its builds. To accept fewer, add rules about build_branch or step_key. The tokens
// have no client, no scope and no jti. The typ is JWT.
func Buildkite(p Params) (jwks.Config, error) { return buildkite.build(p) }

var buildkite = product{
	name:   "buildkite",
	needs:  needsIssuer | needsAudience,
	pins:   []string{"organization_id", "pipeline_id", "organization_slug", "sub"},
	owners: []string{"organization:"},
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		job(p, cfg, wrong)
		cfg.Profile.AllowMissingID = true
	},
}

// HCPTerraform returns the settings for the workload identity tokens of HCP Terraform and Terraform Enterprise. It needs Issuer
// (https://app.terraform.io or the URL of the installation), Audience and Rules.
//
// Every organization gets tokens of this issuer, for any audience that its workspaces ask for. A rule must pin
// terraform_organization_id, terraform_project_id, terraform_workspace_id, terraform_stack_id, or a name:
// terraform_organization_name, terraform_full_workspace or sub. Prefer the IDs, since a name can belong to another organization later.
// The name of a project or workspace alone is not enough.
//
// A plan can be started with less permission than an apply. To accept applies only, add claims.Equal("terraform_run_phase", "apply").
// The tokens have no client and no scope. The typ is JWT.
func HCPTerraform(p Params) (jwks.Config, error) { return hcpTerraform.build(p) }

var hcpTerraform = product{
	name:  "hcp_terraform",
	needs: needsIssuer | needsAudience,
	pins: []string{"terraform_organization_id", "terraform_project_id", "terraform_workspace_id", "terraform_stack_id",
		"terraform_organization_name", "terraform_full_workspace", "sub"},
	owners: []string{"organization:"},
	paths:  []string{"terraform_full_workspace"},
	config: job,
}

// job adds the settings for a token that represents a job instead of a client.
func job(p Params, cfg *jwks.Config, wrong *mistakes.List) {
	cfg.Issuer = strings.TrimSuffix(cfg.Issuer, "/")
	cfg.Profile.AllowUntyped = true
	withoutClient(p, cfg, wrong)
}

// withoutClient adds the setting for tokens that have no client, and the mistake of listing clients for them.
func withoutClient(p Params, cfg *jwks.Config, wrong *mistakes.List) {
	cfg.Profile.AllowMissingClientID = true
	wrong.AddIf(len(p.Clients) > 0, "Clients", "has no meaning for this product: its tokens have no client")
}
