package issuers_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/issuers"
)

const (
	github    = "https://token.actions.githubusercontent.com"
	gitlab    = "https://gitlab.com"
	circleOrg = "5034460f-c7c4-4c43-9457-de07e2029e7b"
	circle    = "https://oidc.circleci.com/org/" + circleOrg
	agent     = "https://agent.buildkite.com"
	terraform = "https://app.terraform.io"

	circleProject = "c5e1b0ba-8f0c-4d5e-a4a9-8f2c6f0a9b11"

	// The claims of a job at each system.
	githubJob = `"jti":"a1","sub":"repo:example/orders:ref:refs/heads/main","aud":"` + ordersAPI + `","ref":"refs/heads/main","sha":"9f31",
		"repository":"example/orders","repository_owner":"example","repository_owner_id":"65","run_id":"301","run_number":"10","run_attempt":"2",
		"repository_visibility":"private","repository_id":"74","actor_id":"12","actor":"octocat","workflow":"deploy","head_ref":"","base_ref":"",
		"event_name":"push","ref_protected":"true","ref_type":"branch","workflow_ref":"example/orders/.github/workflows/deploy.yml@refs/heads/main",
		"workflow_sha":"9f31","job_workflow_ref":"example/ci/.github/workflows/build.yml@refs/heads/main","job_workflow_sha":"77aa",
		"runner_environment":"github-hosted","nbf":$IAT,"exp":$EXP,"iat":$IAT`
	gitlabJob = `{"namespace_id":"72","namespace_path":"example","project_id":"20","project_path":"example/orders","user_id":"1","user_login":"alice",
		"user_email":"alice@example.com","user_identities":[{"provider":"github","extern_uid":"2"}],"user_access_level":"developer","pipeline_id":"574",
		"pipeline_source":"push","job_id":"302","job_project_id":"20","ref":"main","ref_type":"branch","ref_path":"refs/heads/main",
		"ref_protected":"true","groups_direct":["example"],"environment":"prod","environment_protected":"false","deployment_tier":"production",
		"runner_id":1,"runner_environment":"self-hosted","sha":"714a","project_visibility":"private","ci_config_sha":null,
		"jti":"235b","iss":"` + gitlab + `","iat":$IAT,"nbf":$IAT,"exp":$EXP,"sub":"project_path:example/orders:ref_type:branch:ref:main","aud":"` + ordersAPI + `"}`
	buildkiteJob = `"iss":"` + agent + `","sub":"organization:example:pipeline:deploy:ref:refs/heads/main:commit:9f31:step:build","aud":"` + ordersAPI + `",
		"iat":$IAT,"nbf":$IAT,"exp":$EXP,"organization_slug":"example","pipeline_slug":"deploy","build_number":1,"build_branch":"main","build_tag":null,
		"build_commit":"9f31","step_key":"build","job_id":"0184990a","agent_id":"0184990b","build_source":"ui","runner_environment":"self-hosted"`
	terraformRun = `{"jti":"1192","iss":"` + terraform + `","aud":"` + ordersAPI + `","iat":$IAT,"nbf":$IAT,"exp":$EXP,
		"sub":"organization:example:project:Default Project:workspace:orders:run_phase:apply","terraform_run_phase":"apply",
		"terraform_workspace_id":"ws-mbsd5E3Ktt5Rg2Xm","terraform_workspace_name":"orders","terraform_organization_id":"org-GRNbCjYNpBB6NEBH",
		"terraform_organization_name":"example","terraform_project_id":"prj-vegSA59s1XPwMr2t","terraform_project_name":"Default Project",
		"terraform_run_id":"run-X3n1AUXNGWbfECsJ","terraform_full_workspace":"organization:example:project:Default Project:workspace:orders"}`
)

var ciShapes = []shape{
	{
		of: "github_actions", kind: "a job's token",
		params: issuers.Params{Issuer: github, Audience: []string{ordersAPI}, Rules: []claims.Rule{
			claims.Equal("repository_id", "74"), claims.Equal("ref", "refs/heads/main"),
		}},
		metadata: github + "/.well-known/openid-configuration", keySet: github + "/.well-known/jwks",
		header: object{"typ": "JWT", "x5t": "eBZ_cn3sXYAd0ch4THBKHIgOwOE"}, claims: `{` + githubJob + `,"iss":"` + github + `"}`,
		subject: "repo:example/orders:ref:refs/heads/main",
		relatives: []relative{
			{"a job of another repository", nil, object{"repository_id": "75", "repository": "stranger/orders", "sub": "repo:stranger/orders:ref:refs/heads/main"}, valetkey.ReasonClaimRule},
			{"a job of the next owner of the name", nil, object{"repository_id": "9075", "repository_owner_id": "9065"}, valetkey.ReasonClaimRule},
			{"a job of another branch", nil, object{"ref": "refs/heads/dev", "sub": "repo:example/orders:ref:refs/heads/dev"}, valetkey.ReasonClaimRule},
			{"a job of a stranger that calls the workflow", nil, object{"repository_id": "9075", "job_workflow_ref": "example/ci/.github/workflows/build.yml@refs/heads/main"}, valetkey.ReasonClaimRule},
			{"a token with the audience that it has by default", nil, object{"aud": "https://github.com/example"}, valetkey.ReasonAudience},
			{"a token of an enterprise", nil, object{"iss": github + "/stranger"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "github_actions", kind: "a token with a subject of names and IDs",
		params: issuers.Params{Issuer: github, Audience: []string{ordersAPI}, Rules: []claims.Rule{
			claims.Prefix("sub", "repo:example@65/"), claims.Equal("environment", "production"),
		}},
		metadata: github + "/.well-known/openid-configuration", keySet: github + "/.well-known/jwks",
		header:  object{"typ": "JWT"},
		claims:  `{` + githubJob + `,"iss":"` + github + `","environment":"production","sub":"repo:example@65/orders@74:environment:production"}`,
		subject: "repo:example@65/orders@74:environment:production",
		relatives: []relative{
			{"a job of the next owner of the name", nil, object{"sub": "repo:example@9065/orders@9074:environment:production"}, valetkey.ReasonClaimRule},
			{"a job whose subject begins otherwise", nil, object{"sub": "environment:production"}, valetkey.ReasonClaimRule},
			{"a job of another environment", nil, object{"sub": "repo:example@65/orders@74:environment:test", "environment": "test"}, valetkey.ReasonClaimRule},
		},
	},
	{
		of: "github_actions", kind: "a token of an enterprise's own issuer",
		params:   issuers.Params{Issuer: github + "/example", Audience: []string{ordersAPI}, Rules: []claims.Rule{claims.Equal("repository_owner_id", "65")}},
		metadata: github + "/example/.well-known/openid-configuration", keySet: github + "/example/.well-known/jwks",
		header: object{"typ": "JWT"}, claims: `{` + githubJob + `,"iss":"` + github + `/example","enterprise":"example","enterprise_id":"1"}`,
		subject: "repo:example/orders:ref:refs/heads/main",
		relatives: []relative{
			{"a job of another owner", nil, object{"repository_owner_id": "66"}, valetkey.ReasonClaimRule},
			{"a token of another enterprise", nil, object{"iss": github + "/stranger"}, valetkey.ReasonIssuer},
			{"a token of the issuer of all", nil, object{"iss": github}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "gitlab_ci", kind: "a job's ID token",
		params: issuers.Params{Issuer: gitlab, Audience: []string{ordersAPI}, Rules: []claims.Rule{
			claims.Equal("project_id", "20"), claims.Equal("ref_protected", "true"),
		}},
		metadata: gitlab + "/.well-known/openid-configuration", keySet: gitlab + "/oauth/discovery/keys",
		header: object{"typ": "JWT"}, claims: gitlabJob,
		subject: "project_path:example/orders:ref_type:branch:ref:main",
		relatives: []relative{
			{"a job of another project", nil, object{"project_id": "21", "project_path": "example/other"}, valetkey.ReasonClaimRule},
			{"a job of a fork", nil, object{"project_id": "77", "project_path": "stranger/orders", "namespace_id": "99"}, valetkey.ReasonClaimRule},
			{"a job of a branch that is not protected", nil, object{"ref_protected": "false"}, valetkey.ReasonClaimRule},
			{"an ID token of a user", nil, object{"sub": "1", "aud": "3f2b", "nonce": "n", "job_id": nil, "project_id": nil}, valetkey.ReasonNotAccessToken},
			{"an ID token of a user for an application named like the API", nil, object{"sub": "1", "sub_legacy": "9a", "job_id": nil}, valetkey.ReasonNotAccessToken},
			{"a job's token of another instance", nil, object{"iss": "https://gitlab.example.net"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "gitlab_ci", kind: "a job's ID token by the path of its group",
		params:   issuers.Params{Issuer: gitlab, Audience: []string{ordersAPI}, Rules: []claims.Rule{claims.Prefix("project_path", "example/")}},
		metadata: gitlab + "/.well-known/openid-configuration", keySet: gitlab + "/oauth/discovery/keys",
		header: object{"typ": "JWT"}, claims: gitlabJob,
		subject: "project_path:example/orders:ref_type:branch:ref:main",
		relatives: []relative{
			{"a job of a group with a longer name", nil, object{"project_path": "example-evil/orders"}, valetkey.ReasonClaimRule},
			{"a job of a group with the name further down", nil, object{"project_path": "stranger/example/orders"}, valetkey.ReasonClaimRule},
		},
	},
	{
		of: "circleci", kind: "a job's token",
		params: issuers.Params{Issuer: circle, Audience: []string{ordersAPI}, Rules: []claims.Rule{
			claims.Equal("oidc.circleci.com/project-id", circleProject),
		}},
		metadata: circle + "/.well-known/openid-configuration", keySet: circle + "/.well-known/jwks-pub.json",
		header: object{"typ": "JWT"},
		claims: `{"aud":["` + ordersAPI + `"],"exp":$EXP,"iat":$IAT,"iss":"` + circle + `","oidc.circleci.com/context-ids":["f1"],
			"oidc.circleci.com/project-id":"` + circleProject + `","oidc.circleci.com/ssh-rerun":false,
			"oidc.circleci.com/vcs-origin":"github.com/example/orders","oidc.circleci.com/vcs-ref":"refs/heads/main",
			"sub":"org/` + circleOrg + `/project/` + circleProject + `/user/b8c5"}`,
		subject: "org/" + circleOrg + "/project/" + circleProject + "/user/b8c5",
		relatives: []relative{
			{"a job of another project", nil, object{"oidc.circleci.com/project-id": "d0"}, valetkey.ReasonClaimRule},
			{"a job of another organization", nil, object{"iss": "https://oidc.circleci.com/org/6034460f"}, valetkey.ReasonIssuer},
			{"a token with the audience that it has by default", nil, object{"aud": circleOrg}, valetkey.ReasonAudience},
		},
	},
	{
		of: "circleci", kind: "a token of any project of the organization, with the audience that it has by default",
		params:   issuers.Params{Issuer: circle, Audience: []string{circleOrg}, Rules: []claims.Rule{claims.Prefix("sub", "org/"+circleOrg+"/")}},
		metadata: circle + "/.well-known/openid-configuration", keySet: circle + "/.well-known/jwks-pub.json",
		header: object{"typ": "JWT"},
		claims: `{"aud":"` + circleOrg + `","exp":$EXP,"iat":$IAT,"iss":"` + circle + `","oidc.circleci.com/project-id":"` + circleProject + `",
			"sub":"org/` + circleOrg + `/project/` + circleProject + `/user/b8c5/vcs-origin/github.com/example/orders/vcs-ref/refs/heads/main"}`,
		subject: "org/" + circleOrg + "/project/" + circleProject + "/user/b8c5/vcs-origin/github.com/example/orders/vcs-ref/refs/heads/main",
		relatives: []relative{
			{"a job of another organization", nil, object{"sub": "org/6034460f/project/d0/user/b8c5"}, valetkey.ReasonClaimRule},
			{"a job of another issuer", nil, object{"iss": "https://oidc.circleci.com/org/6034460f"}, valetkey.ReasonIssuer},
		},
	},
	{
		of: "buildkite", kind: "a job's token",
		params: issuers.Params{Issuer: agent, Audience: []string{ordersAPI}, Rules: []claims.Rule{
			claims.Prefix("sub", "organization:example:pipeline:deploy:"), claims.Equal("build_branch", "main"),
		}},
		metadata: agent + "/.well-known/openid-configuration", keySet: agent + "/.well-known/jwks",
		header: object{"typ": "JWT"}, claims: `{` + buildkiteJob + `}`,
		subject: "organization:example:pipeline:deploy:ref:refs/heads/main:commit:9f31:step:build",
		relatives: []relative{
			{"a job of another organization", nil, object{"sub": "organization:stranger:pipeline:deploy:ref:refs/heads/main:commit:9f31:step:build"}, valetkey.ReasonClaimRule},
			{"a job of a pipeline with a longer name", nil, object{"sub": "organization:example:pipeline:deploy-test:ref:refs/heads/main:commit:9f31:step:build"}, valetkey.ReasonClaimRule},
			{"a job of another branch", nil, object{"build_branch": "dev"}, valetkey.ReasonClaimRule},
			{"a token with the audience that it has by default", nil, object{"aud": "https://buildkite.com/example"}, valetkey.ReasonAudience},
		},
	},
	{
		of: "buildkite", kind: "a token with IDs, one of them as its subject",
		params:   issuers.Params{Issuer: agent, Audience: []string{ordersAPI}, Rules: []claims.Rule{claims.Equal("organization_id", "0182-org")}},
		metadata: agent + "/.well-known/openid-configuration", keySet: agent + "/.well-known/jwks",
		header: object{"typ": "JWT"}, claims: `{` + buildkiteJob + `,"sub":"0182-pipeline","organization_id":"0182-org","pipeline_id":"0182-pipeline"}`,
		subject: "0182-pipeline",
		relatives: []relative{
			{"a job of another organization", nil, object{"organization_id": "0183-org"}, valetkey.ReasonClaimRule},
			{"a token without IDs", nil, object{"organization_id": nil, "pipeline_id": nil}, valetkey.ReasonClaimRule},
		},
	},
	{
		of: "hcp_terraform", kind: "a run's token",
		params: issuers.Params{Issuer: terraform, Audience: []string{ordersAPI}, Rules: []claims.Rule{
			claims.Equal("terraform_workspace_id", "ws-mbsd5E3Ktt5Rg2Xm"), claims.Equal("terraform_run_phase", "apply"),
		}},
		metadata: terraform + "/.well-known/openid-configuration", keySet: terraform + "/.well-known/jwks",
		header: object{"typ": "JWT"}, claims: terraformRun,
		subject: "organization:example:project:Default Project:workspace:orders:run_phase:apply",
		relatives: []relative{
			{"a run of another workspace", nil, object{"terraform_workspace_id": "ws-other"}, valetkey.ReasonClaimRule},
			{"a plan", nil, object{"terraform_run_phase": "plan"}, valetkey.ReasonClaimRule},
			{"a token for a cloud provider", nil, object{"aud": "aws.workload.identity"}, valetkey.ReasonAudience},
		},
	},
	{
		of: "hcp_terraform", kind: "a run's token by its subject",
		params:   issuers.Params{Issuer: terraform, Audience: []string{ordersAPI}, Rules: []claims.Rule{claims.Prefix("sub", "organization:example:project:Default Project:")}},
		metadata: terraform + "/.well-known/openid-configuration", keySet: terraform + "/.well-known/jwks",
		header: object{"typ": "JWT"}, claims: terraformRun,
		subject: "organization:example:project:Default Project:workspace:orders:run_phase:apply",
		relatives: []relative{
			{"a run of an organization with a longer name", nil, object{"sub": "organization:example-evil:project:Default Project:workspace:orders:run_phase:apply"}, valetkey.ReasonClaimRule},
			{"a run of a project with a longer name", nil, object{"sub": "organization:example:project:Default Project 2:workspace:orders:run_phase:apply"}, valetkey.ReasonClaimRule},
		},
	},
}

func TestAnIssuerOfTokensForAnyoneNeedsARuleAboutTheSubject(t *testing.T) {
	const required = "Rules: required: this issuer issues tokens to anyone"
	for name, test := range map[string]struct {
		of   string
		rule claims.Rule
		want string // part of the error; "": accepted
	}{
		"the branch alone":                          {"github_actions", claims.Equal("ref", "refs/heads/main"), required},
		"a workflow that any repository can call":   {"github_actions", claims.Equal("job_workflow_ref", "example/ci/.github/workflows/build.yml@refs/heads/main"), required},
		"an environment that any repository has":    {"github_actions", claims.Equal("environment", "production"), required},
		"a subject that any repository can have":    {"github_actions", claims.Equal("sub", "environment:production"), required},
		"the beginning of every subject":            {"github_actions", claims.Prefix("sub", "repo:"), required},
		"one subject of two that anyone can have":   {"github_actions", claims.OneOf("sub", "repo:example/orders:pull_request", "ref:refs/heads/main"), required},
		"the presence of the repository":            {"github_actions", claims.Present("repository"), required},
		"the absence of the ID":                     {"github_actions", claims.Absent("repository_id"), required},
		"an owner without a separator":              {"github_actions", claims.Prefix("sub", "repo:example"), `Rules[0]: "sub ^= repo:example" also holds for others`},
		"a repository without a separator":          {"github_actions", claims.Prefix("repository", "example/orders"), "Rules[0]: "},
		"the beginning of an ID":                    {"github_actions", claims.Prefix("repository_owner_id", "65"), "Rules[0]: "},
		"only a separator":                          {"github_actions", claims.Prefix("repository", "/"), required},
		"a subject in GitLab that is a user":        {"gitlab_ci", claims.Equal("sub", "1"), required},
		"the project's branches":                    {"gitlab_ci", claims.Equal("ref_protected", "true"), required},
		"a group without a separator":               {"gitlab_ci", claims.Prefix("namespace_path", "example"), "Rules[0]: "},
		"a pipeline's name that any other can have": {"buildkite", claims.Equal("pipeline_slug", "deploy"), required},
		"a subject that a job chooses":              {"buildkite", claims.Equal("sub", "0182-pipeline"), required},
		"a workspace's name":                        {"hcp_terraform", claims.Equal("terraform_workspace_name", "orders"), required},
		"every organization":                        {"hcp_terraform", claims.Prefix("sub", "organization:"), required},
		"every workspace":                           {"hcp_terraform", claims.Prefix("terraform_full_workspace", "organization:"), required},
		"a workspace without an organization":       {"hcp_terraform", claims.Equal("terraform_full_workspace", "orders"), required},
		"a project that begins with the name":       {"hcp_terraform", claims.Prefix("sub", "organization:example:project:Default"), "Rules[0]: "},
		"every organization of CircleCI":            {"circleci", claims.Prefix("sub", "org/"), required},
		"the repository alone, in CircleCI":         {"circleci", claims.Equal("oidc.circleci.com/vcs-origin", "github.com/example/orders"), required},

		"the ID of a repository":                        {"github_actions", claims.Equal("repository_id", "74"), ""},
		"one of two owners":                             {"github_actions", claims.OneOf("repository_owner", "example", "example-labs"), ""},
		"every repository of an owner, by its subject":  {"github_actions", claims.Prefix("sub", "repo:example/"), ""},
		"a subject that begins with the owner's ID":     {"github_actions", claims.Prefix("sub", "repository_owner_id:65:"), ""},
		"a whole subject":                               {"gitlab_ci", claims.Equal("sub", "project_path:example/orders:ref_type:branch:ref:main"), ""},
		"an organization by its slug":                   {"buildkite", claims.Equal("organization_slug", "example"), ""},
		"an organization by its ID":                     {"hcp_terraform", claims.Equal("terraform_organization_id", "org-GRNbCjYNpBB6NEBH"), ""},
		"an organization by the name of its workspaces": {"hcp_terraform", claims.Prefix("terraform_full_workspace", "organization:example:"), ""},
		"an organization of CircleCI":                   {"circleci", claims.Prefix("sub", "org/"+circleOrg+"/"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := issuers.Named(test.of, issuers.Params{Issuer: github, Audience: []string{ordersAPI}, Rules: []claims.Rule{test.rule}})
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			assert.ErrorContains(t, err, "issuers: "+test.of+": "+test.want)
		})
	}
	t.Run("clients, which the tokens do not have", func(t *testing.T) {
		_, err := issuers.GitHubActions(issuers.Params{Issuer: github, Audience: []string{ordersAPI}, Clients: []string{"app"}, Rules: []claims.Rule{claims.Equal("repository_id", "74")}})
		assert.ErrorContains(t, err, "issuers: github_actions: Clients: has no meaning for this product: its tokens have no client")
	})
	t.Run("an issuer with a slash is that without it", func(t *testing.T) {
		cfg, err := issuers.GitLabCI(issuers.Params{Issuer: gitlab + "/", Audience: []string{ordersAPI}, Rules: []claims.Rule{claims.Equal("project_id", "20")}})
		require.NoError(t, err)
		assert.Equal(t, gitlab, cfg.Issuer)
	})
	t.Run("no rule", func(t *testing.T) {
		for _, of := range []string{"github_actions", "gitlab_ci", "circleci", "buildkite", "hcp_terraform"} {
			_, err := issuers.Named(of, issuers.Params{Issuer: github, Audience: []string{ordersAPI}})
			assert.ErrorContains(t, err, required, of)
		}
	})
}
