package issuers

import (
	"slices"
	"strings"

	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/tokenclaims"
	"github.com/valetkey/valetkey/jwks"
)

var workloadProducts = []product{kubernetes, kubernetesInCluster, spiffe}

// Kubernetes returns the settings for the service account tokens of a Kubernetes cluster whose issuer is a public URL, such as those of
// Amazon EKS, Google GKE and Azure AKS. It needs Issuer, as in /.well-known/openid-configuration of the API server (AKS: with the slash
// at its end), and Audience.
//
// A pod gets a token for this API from a projected volume with this audience. Every pod of the cluster can have one, so restrict the
// service accounts by Rules or on each route: sub is system:serviceaccount:NAMESPACE:NAME, and claims.Equal("kubernetes.io.namespace",
// "shop") accepts a namespace. Do not list an audience of the API server: a token with it is in every pod, and an API that receives it
// could call the API server as that pod.
//
// The tokens have no typ, no client and no scope, and no jti before Kubernetes 1.30. They must have the claim kubernetes.io.
func Kubernetes(p Params) (jwks.Config, error) { return kubernetes.build(p) }

var kubernetes = product{
	name:   "kubernetes",
	needs:  needsIssuer | needsAudience,
	config: serviceAccount,
}

// KubernetesInCluster returns the settings for the service account tokens of the Kubernetes cluster that this program runs in. It needs
// Issuer, as in /.well-known/openid-configuration of the API server, and Audience. It also suits clusters with a public issuer.
//
// The keys come from https://kubernetes.default.svc/openid/v1/jwks. The requests have the token of this pod, and trust the certificate
// authority of the cluster: the files token and ca.crt in /var/run/secrets/kubernetes.io/serviceaccount. jwks.New fails if they are
// missing. They are read again for each request, since they rotate. By default, every service account may request the keys, by the role
// system:service-account-issuer-discovery. For other files or another URL, change KeyRequests and JWKSURL. The tokens are those of
// [Kubernetes], and so is the advice about Rules.
func KubernetesInCluster(p Params) (jwks.Config, error) { return kubernetesInCluster.build(p) }

var kubernetesInCluster = product{
	name:  "kubernetes_in_cluster",
	needs: needsIssuer | needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		serviceAccount(p, cfg, wrong)
		const pod = "/var/run/secrets/kubernetes.io/serviceaccount/"
		cfg.JWKSURL = "https://kubernetes.default.svc/openid/v1/jwks"
		cfg.KeyRequests = jwks.KeyRequests{TokenFile: pod + "token", CAFile: pod + "ca.crt"}
	},
}

func serviceAccount(p Params, cfg *jwks.Config, wrong *mistakes.List) {
	cfg.Profile.AllowUntyped, cfg.Profile.AllowMissingID, cfg.Profile.AllowMissingClientID = true, true, true
	cfg.Markers = []claims.Rule{claims.Present("kubernetes.io.serviceaccount.name")}
	servers := []string{p.Issuer, "https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local"}
	for _, a := range p.Audience {
		wrong.AddIf(slices.ContainsFunc(servers, func(s string) bool { return tokenclaims.SameResource(a, s) }), "Audience",
			"%q is the API server, whose tokens are in every pod; let the pods mount tokens for this API (projected volume)", a)
	}
}

// SPIFFE returns the settings for the JWT-SVIDs of a SPIFFE trust domain. It needs Tenants, the one trust domain, and Audience.
//
// A JWT-SVID names the workload in sub (spiffe://TRUST-DOMAIN/PATH), which must be in the trust domain. It has no client, no scope, no
// jti, and the typ "JWT", "JOSE" or none.
//
// Issuer is optional: the jwt_issuer of a SPIRE server, whose OIDC discovery provider publishes the keys. All tokens must then have it
// as their iss. Without Issuer, iss may be absent, the Issuer of the tokens is spiffe://TRUST-DOMAIN, and JWKSURL or JWKS must be set to
// the bundle of the trust domain, for example that of its https_web bundle endpoint. If such tokens have an iss, add it to
// IssuerAliases. Restrict the workloads by Rules or on each route.
func SPIFFE(p Params) (jwks.Config, error) { return spiffe.build(p) }

var spiffe = product{
	name:  "spiffe",
	needs: needsTenants | needsAudience,
	takes: needsIssuer,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		domain := strings.TrimPrefix(strings.Join(p.Tenants, ","), "spiffe://")
		if len(p.Tenants) > 0 && (domain == "" || strings.Trim(domain, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "") {
			wrong.Add("Tenants", "%q is not one trust domain, such as example.org", domain)
		}
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingID: true, AllowMissingClientID: true}
		cfg.Types = []string{"JOSE"} // JWT-SVID, section 2.3
		cfg.Rules = append(cfg.Rules, claims.Prefix("sub", "spiffe://"+domain+"/"))
		if p.Issuer == "" {
			cfg.Issuer, cfg.Profile.AllowMissingIssuer = "spiffe://"+domain, true
		}
	},
}
