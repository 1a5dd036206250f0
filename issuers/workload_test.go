package issuers_test

import (
	"bytes"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/valetkeytest"
)

const (
	eks = "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B716D3041E"
	gke = "https://container.googleapis.com/v1/projects/example-project/locations/europe-west1/clusters/shop"
	aks = "https://westeurope.oic.prod-aks.azure.com/" + tenant1 + "/" + tenant2 + "/"
	svc = "https://kubernetes.default.svc.cluster.local"

	serviceAccount = `"kubernetes.io":{"namespace":"shop","node":{"name":"n1","uid":"5a"},"pod":{"name":"billing-7d","uid":"0d8b"},
		"serviceaccount":{"name":"billing","uid":"e6a8"},"warnafter":1717674962},"nbf":$IAT,"iat":$IAT,"exp":$EXP,"sub":"system:serviceaccount:shop:billing"`
	svid = `{"aud":["` + ordersAPI + `"],"exp":$EXP,"iat":$IAT,"sub":"spiffe://example.org/ns/shop/sa/billing"}`
)

var kubernetesRelatives = []relative{
	{"a token for the API server", nil, object{"aud": []string{svc}}, valetkey.ReasonAudience},
	{"a token of another cluster", nil, object{"iss": "https://oidc.eks.eu-west-1.amazonaws.com/id/OTHER"}, valetkey.ReasonIssuer},
	{"a token from a secret, which never expires", nil, object{"iss": "kubernetes/serviceaccount", "aud": nil, "exp": nil, "iat": nil, "kubernetes.io": nil}, valetkey.ReasonIssuer},
	{"a token without a service account", nil, object{"kubernetes.io": object{"namespace": "shop"}}, valetkey.ReasonNotAccessToken},
}

var workloadShapes = []shape{
	{
		of: "kubernetes", kind: "a pod's token on EKS",
		params:   issuers.Params{Issuer: eks, Audience: []string{ordersAPI}},
		metadata: eks + "/.well-known/openid-configuration", keySet: eks + "/keys",
		claims:  `{"aud":["` + ordersAPI + `"],"iss":"` + eks + `","jti":"e51f1fbc",` + serviceAccount + `}`,
		subject: "system:serviceaccount:shop:billing", relatives: kubernetesRelatives,
	},
	{
		of: "kubernetes", kind: "a pod's token on GKE before 1.30, of one service account",
		params: issuers.Params{Issuer: gke, Audience: []string{ordersAPI}, Rules: []claims.Rule{
			claims.Equal("kubernetes.io.namespace", "shop"), claims.Equal("sub", "system:serviceaccount:shop:billing"),
		}},
		metadata: gke + "/.well-known/openid-configuration", keySet: gke + "/jwks",
		claims:  `{"aud":["` + ordersAPI + `"],"iss":"` + gke + `",` + serviceAccount + `}`,
		subject: "system:serviceaccount:shop:billing",
		relatives: append([]relative{
			{"a token of another service account", nil, object{"sub": "system:serviceaccount:shop:default"}, valetkey.ReasonClaimRule},
			{"a token of another namespace", nil, object{"kubernetes.io": object{"namespace": "dev", "serviceaccount": object{"name": "billing"}}}, valetkey.ReasonClaimRule},
		}, kubernetesRelatives...),
	},
	{
		of: "kubernetes", kind: "a pod's token on AKS",
		params:   issuers.Params{Issuer: aks, Audience: []string{ordersAPI}},
		metadata: aks + ".well-known/openid-configuration", keySet: aks + "openid/v1/jwks",
		claims:  `{"aud":["` + ordersAPI + `"],"iss":"` + aks + `",` + serviceAccount + `}`,
		subject: "system:serviceaccount:shop:billing", relatives: kubernetesRelatives,
	},
	{
		of: "kubernetes_in_cluster", kind: "a pod's token, in the cluster",
		params:  issuers.Params{Issuer: svc, Audience: []string{ordersAPI}},
		change:  func(c *jwks.Config) { c.KeyRequests = jwks.KeyRequests{} }, // TestKeysInTheCluster has the files
		keySet:  "https://kubernetes.default.svc/openid/v1/jwks",
		claims:  `{"aud":["` + ordersAPI + `"],"iss":"` + svc + `","jti":"e51f1fbc",` + serviceAccount + `}`,
		subject: "system:serviceaccount:shop:billing", relatives: kubernetesRelatives,
	},
	{
		of: "spiffe", kind: "a JWT-SVID, by the bundle of its trust domain",
		params: issuers.Params{Tenants: []string{"example.org"}, Audience: []string{ordersAPI}},
		change: func(c *jwks.Config) { c.JWKSURL = "https://spire.example.org:8443/bundle" },
		keySet: "https://spire.example.org:8443/bundle", keys: bundle,
		alg: "ES256", header: object{"typ": "JWT"}, claims: svid,
		subject: "spiffe://example.org/ns/shop/sa/billing", relatives: spiffeRelatives,
	},
	{
		of: "spiffe", kind: "a JWT-SVID with the typ JOSE",
		params: issuers.Params{Tenants: []string{"spiffe://example.org"}, Audience: []string{ordersAPI}},
		change: func(c *jwks.Config) { c.JWKSURL = "https://spire.example.org:8443/bundle" },
		keySet: "https://spire.example.org:8443/bundle", keys: bundle,
		alg: "ES256", header: object{"typ": "JOSE"}, claims: svid,
		subject: "spiffe://example.org/ns/shop/sa/billing", relatives: spiffeRelatives,
	},
	{
		of: "spiffe", kind: "a JWT-SVID with an issuer, by SPIRE's OIDC discovery provider",
		params:   issuers.Params{Issuer: "https://oidc-discovery.example.org", Tenants: []string{"example.org"}, Audience: []string{ordersAPI}},
		metadata: "https://oidc-discovery.example.org/.well-known/openid-configuration", keySet: "https://oidc-discovery.example.org/keys",
		alg: "ES256", header: object{"typ": "JWT"},
		claims:  `{"aud":["` + ordersAPI + `"],"exp":$EXP,"iat":$IAT,"iss":"https://oidc-discovery.example.org","sub":"spiffe://example.org/ns/shop/sa/billing"}`,
		subject: "spiffe://example.org/ns/shop/sa/billing",
		relatives: append([]relative{
			{"a JWT-SVID without an issuer", nil, object{"iss": nil}, valetkey.ReasonIssuer},
		}, spiffeRelatives...),
	},
}

var spiffeRelatives = []relative{
	{"a JWT-SVID of another trust domain", nil, object{"sub": "spiffe://evil.example/ns/shop/sa/billing"}, valetkey.ReasonClaimRule},
	{"a JWT-SVID of a trust domain that begins with the same name", nil, object{"sub": "spiffe://example.org.evil.example/billing"}, valetkey.ReasonClaimRule},
	{"a token without a workload", nil, object{"sub": nil}, valetkey.ReasonClaimMalformed},
	{"a WIT-SVID", object{"typ": "wit+jwt"}, object{"aud": nil}, valetkey.ReasonNotAccessToken},
}

// bundle returns jwks as the bundle of a trust domain (SPIFFE Trust Domain and Bundle, section 4): each key has a use of SPIFFE and no
// alg, and there is a key for X.509-SVIDs.
func bundle(t *testing.T, set []byte) []byte {
	t.Helper()
	out := bytes.ReplaceAll(set, []byte(`"use":"sig"`), []byte(`"use":"jwt-svid"`))
	require.NotEqual(t, set, out)
	for _, alg := range []string{"RS256", "ES256", "ES384", "EdDSA"} {
		out = bytes.ReplaceAll(out, []byte(`"alg":"`+alg+`",`), nil)
	}
	require.NotContains(t, string(out), `"alg"`)
	x509 := `{"keys":[{"use":"x509-svid","kty":"EC","crv":"P-256","x":"fK-wKTnKL7KFLM27lqq5DC-bxrVaH6rDV-IcCSEOeL4","y":"wq-g3TQWxYlV51TCPH030yXsRxvujD4hUUaIQrXk4KI"},`
	out = bytes.Replace(out, []byte(`{"keys":[`), []byte(x509), 1)
	return bytes.Replace(out, []byte("{"), []byte(`{"spiffe_sequence":12,"spiffe_refresh_hint":300,`), 1)
}

// TestKeysInTheCluster fetches the keys from an API server that requires the token of the pod, over TLS with the authority of the cluster,
// with the files in a folder as Kubernetes mounts them.
func TestKeysInTheCluster(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.SignWith("RS256"))
	var token atomic.Value
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/openid/v1/jwks" || r.Header.Get("Authorization") != "Bearer "+token.Load().(string) {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_, _ = w.Write(iss.JWKS())
	}))
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})

	cfg, err := issuers.KubernetesInCluster(issuers.Params{Issuer: svc, Audience: []string{ordersAPI}})
	require.NoError(t, err)
	assert.Equal(t, "https://kubernetes.default.svc/openid/v1/jwks", cfg.JWKSURL)
	assert.Equal(t, jwks.KeyRequests{
		TokenFile: "/var/run/secrets/kubernetes.io/serviceaccount/token",
		CAFile:    "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
	}, cfg.KeyRequests)

	// open returns the verifier of a program whose pod has these files in the folder.
	open := func(t *testing.T, files map[string][]byte) (v *jwks.Verifier, folder string, err error) {
		folder = t.TempDir()
		for name, data := range files {
			require.NoError(t, os.WriteFile(filepath.Join(folder, name), data, 0o600))
		}
		mine := cfg
		mine.JWKSURL = server.URL + "/openid/v1/jwks"
		mine.KeyRequests.TokenFile = filepath.Join(folder, filepath.Base(cfg.KeyRequests.TokenFile))
		mine.KeyRequests.CAFile = filepath.Join(folder, filepath.Base(cfg.KeyRequests.CAFile))
		if v, err = jwks.New(mine); err == nil {
			t.Cleanup(v.Close)
		}
		return v, folder, err
	}
	t.Run("outside a cluster, there are no files, and jwks.New fails", func(t *testing.T) {
		_, _, err := open(t, nil)
		assert.ErrorContains(t, err, "KeyRequests.TokenFile")
		_, _, err = open(t, map[string][]byte{"token": []byte("pod-1")})
		assert.ErrorContains(t, err, "KeyRequests.CAFile")
	})
	t.Run("a pod without permission gets no keys", func(t *testing.T) {
		token.Store("pod-1")
		v, _, err := open(t, map[string][]byte{"token": []byte("pod-2"), "ca.crt": ca})
		require.NoError(t, err)
		assert.ErrorContains(t, v.Ready(t.Context()), "403")
	})
	t.Run("a server with a certificate of another authority is not trusted", func(t *testing.T) {
		token.Store("pod-1")
		other := valetkeytest.ClientCertificate(t).Certificate[0]
		v, _, err := open(t, map[string][]byte{"token": []byte("pod-1"), "ca.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other})})
		require.NoError(t, err)
		assert.ErrorContains(t, v.Ready(t.Context()), "certificate")
	})
	t.Run("the pod's token gets the keys, also one that replaced the first", func(t *testing.T) {
		token.Store("pod-1b")
		v, folder, err := open(t, map[string][]byte{"token": []byte("pod-1"), "ca.crt": ca})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(folder, "token"), []byte("pod-1b\n"), 0o600))
		require.NoError(t, v.Ready(t.Context()))
		s := workloadShapes[slices.IndexFunc(workloadShapes, func(s shape) bool { return s.of == "kubernetes_in_cluster" })]
		_, err = v.Verify(t.Context(), s.mint(t, iss, nil, nil))
		assert.NoError(t, err)
	})
}

func TestWorkloadParameters(t *testing.T) {
	for name, test := range map[string]struct {
		of   string
		p    issuers.Params
		want string
	}{
		"the audience of the API server":    {"kubernetes", issuers.Params{Issuer: eks, Audience: []string{"https://kubernetes.default.svc"}}, "is the API server, whose tokens are in every pod"},
		"the issuer as audience":            {"kubernetes", issuers.Params{Issuer: gke, Audience: []string{ordersAPI, gke}}, "is the API server, whose tokens are in every pod"},
		"no trust domain":                   {"spiffe", issuers.Params{Audience: []string{ordersAPI}}, "Tenants: required"},
		"two trust domains":                 {"spiffe", issuers.Params{Tenants: []string{"a.example", "b.example"}, Audience: []string{ordersAPI}}, `Tenants: "a.example,b.example" is not one trust domain`},
		"a workload in place of its domain": {"spiffe", issuers.Params{Tenants: []string{"spiffe://a.example/billing"}, Audience: []string{ordersAPI}}, "is not one trust domain"},
		"a trust domain without a name":     {"spiffe", issuers.Params{Tenants: []string{"spiffe://"}, Audience: []string{ordersAPI}}, "is not one trust domain"},
		"a trust domain in capital letters": {"spiffe", issuers.Params{Tenants: []string{"Example.org"}, Audience: []string{ordersAPI}}, "is not one trust domain"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := issuers.Named(test.of, test.p)
			assert.ErrorContains(t, err, test.want)
		})
	}
	t.Run("the issuer of tokens without iss is the trust domain", func(t *testing.T) {
		cfg, err := issuers.SPIFFE(issuers.Params{Tenants: []string{"example.org"}, Audience: []string{ordersAPI}})
		require.NoError(t, err)
		assert.Equal(t, "spiffe://example.org", cfg.Issuer)
	})
}
