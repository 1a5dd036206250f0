package deploy_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const chart = "helm/valetkey"

// minimal are the values of the smallest release in each mode.
var minimal = map[string]string{
	"proxy": `
config:
  upstream: http://orders:9000
  resource: https://api.example.com
  verifiers: [{jwks: {issuer: https://as.example.com}}]
  routes: {"GET /orders": orders:read}
`,
	"authorize": `
mode: authorize
config:
  resource: https://api.example.com
  callers: [10.0.0.0/8]
  verifiers: [{jwks: {issuer: https://as.example.com}}]
  routes: {"GET /orders": orders:read}
`,
}

// rendered returns the objects of a release named api in the namespace web, and the notes. Later values take precedence.
func rendered(t *testing.T, values ...string) ([]any, string, error) {
	t.Helper()
	return renderedAs(t, "api", "web", values...)
}

func renderedAs(t *testing.T, name, namespace string, values ...string) ([]any, string, error) {
	t.Helper()
	c, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	given := map[string]any{}
	for _, text := range values {
		var more map[string]any
		if err := yaml.UnmarshalStrict([]byte(text), &more); err != nil {
			t.Fatal(err)
		}
		given = chartutil.MergeTables(more, given)
	}
	all, err := chartutil.ToRenderValues(c, given, chartutil.ReleaseOptions{Name: name, Namespace: namespace}, nil)
	if err != nil {
		return nil, "", err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return nil, "", err
	}
	var objects []any
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(path, ".yaml") {
			objects = append(objects, decoded(t, path, files[path])...)
		}
	}
	return objects, files["valetkey/templates/NOTES.txt"], nil
}

// release is rendered for values that must be good.
func release(t *testing.T, values ...string) []any {
	t.Helper()
	return releaseNamed(t, "api", "web", values...)
}

func releaseNamed(t *testing.T, name, namespace string, values ...string) []any {
	t.Helper()
	objects, _, err := renderedAs(t, name, namespace, values...)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestChartLint(t *testing.T) {
	for mode, text := range minimal {
		var values map[string]any
		if err := yaml.UnmarshalStrict([]byte(text), &values); err != nil {
			t.Fatal(err)
		}
		for _, m := range lint.All(chart, values, "web", true).Messages {
			if m.Severity > support.InfoSev {
				t.Errorf("%s: %v", mode, m)
			}
		}
	}
}

func TestChartRefuses(t *testing.T) {
	for _, c := range []struct{ name, mode, values, mistake string }{
		{"another mode", "proxy", "mode: decide", "/mode"},
		{"an unknown value", "proxy", "replicaCount: 3", "replicaCount"},
		{"an unknown value below another", "proxy", "image: {registry: example.com}", "registry"},
		{"a proxy without upstream", "proxy", "config: {upstream: null}", "upstream"},
		{"a proxy without verifiers", "proxy", "config: {verifiers: null}", "verifiers"},
		{"a service to ask without callers", "authorize", "config: {callers: null}", "callers"},
		{"a service to ask with an upstream", "authorize", "config: {upstream: http://orders:9000}", "/config/upstream"},
		{"a service to ask that does not listen", "authorize", "authorize: {grpc: false}", "/authorize"},
		{"HTTP without a dialect", "authorize", "authorize: {http: true}", "dialect"},
		{"an address that the chart sets", "proxy", `config: {listen: ":80"}`, "/config/listen"},
		{"a drain that the chart would not know", "proxy", "config: {drain: 1h}", "/config/drain"},
		{"a file in the place of the configuration", "proxy", `files: {proxy.yaml: ""}`, "proxy.yaml"},
		{"a file in another folder", "proxy", `files: {../../x: ""}`, "../../x"},
		{"a secret in the values", "proxy", "secretFiles: {introspection.secret: hunter2}", "introspection.secret"},
		{"a secret without a key", "proxy", "secretFiles: {introspection.secret: {name: orders}}", "key"},
		{"a network policy that allows all", "proxy", "networkPolicy: {enabled: true}", "/networkPolicy/from"},
		{"a peer that is every pod", "proxy", "networkPolicy: {enabled: true, from: [{}]}", "/networkPolicy/from/0"},
		{"a drain that is not a number", "proxy", "drainSeconds: 5s", "/drainSeconds"},
		{"a tag with a digest", "proxy", "image: {tag: 'v1@sha256:00'}", "/image/tag"},
		{"a half digest", "proxy", "image: {digest: 'sha256:00'}", "/image/digest"},
		{"no eviction at all", "proxy", "podDisruptionBudget: {maxUnavailable: 0}", "/podDisruptionBudget"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := rendered(t, minimal[c.mode], c.values)
			if err == nil || !strings.Contains(err.Error(), c.mistake) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("no configuration", func(t *testing.T) {
		if _, _, err := rendered(t); err == nil || !strings.Contains(err.Error(), "verifiers") {
			t.Errorf("got %v", err)
		}
	})
}

func TestChartIsConsistent(t *testing.T) {
	for _, c := range []struct{ name, mode, values string }{
		{"a proxy", "proxy", ""},
		{"gRPC", "authorize", ""},
		{"HTTP", "authorize", "authorize: {grpc: false, http: true}\nconfig: {dialect: nginx}"},
		{"both", "authorize", "authorize: {http: true}\nconfig: {dialect: traefik}"},
		{"everything", "proxy", everything},
	} {
		t.Run(c.name, func(t *testing.T) { checkObjects(t, release(t, minimal[c.mode], c.values)) })
	}
}

const everything = `
image: {repository: registry.example.com/valetkey, digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", pullPolicy: Always}
imagePullSecrets: [{name: registry}]
files: {openapi.yaml: "openapi: 3.1.0\n", keys.json: '{"keys":[]}'}
secretFiles: {introspection.secret: {name: orders-introspection, key: client-secret}}
drainSeconds: 20
replicas: 3
service: {type: LoadBalancer, port: 443, annotations: {example.com/a: "1"}}
podDisruptionBudget: {maxUnavailable: 50%}
networkPolicy:
  enabled: true
  from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: gateway}}}]
  probeFrom: [{podSelector: {matchLabels: {app: prometheus}}}]
serviceAccount: {name: orders, annotations: {example.com/role: orders}}
env: [{name: SSL_CERT_FILE, value: /etc/valetkey/ca.pem}, {name: KEY, valueFrom: {secretKeyRef: {name: keys, key: nonce}}}]
podAnnotations: {example.com/scrape: "true"}
podLabels: {team: orders}
nodeSelector: {kubernetes.io/arch: amd64}
tolerations: [{key: dedicated, operator: Exists}]
affinity: {nodeAffinity: {}}
priorityClassName: high
topologySpreadConstraints: [{maxSkew: 1, topologyKey: example.com/rack, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app.kubernetes.io/instance: api}}}]
`

func TestChart(t *testing.T) {
	t.Run("a release has these objects", func(t *testing.T) {
		for values, want := range map[string]string{
			"": "v1 ConfigMap api-valetkey, apps/v1 Deployment api-valetkey, policy/v1 PodDisruptionBudget api-valetkey, v1 Service api-valetkey, v1 ServiceAccount api-valetkey",
			"podDisruptionBudget: {enabled: false}\nserviceAccount: {create: false}": "v1 ConfigMap api-valetkey, apps/v1 Deployment api-valetkey, v1 Service api-valetkey",
			everything: "v1 ConfigMap api-valetkey, apps/v1 Deployment api-valetkey, networking.k8s.io/v1 NetworkPolicy api-valetkey, policy/v1 PodDisruptionBudget api-valetkey, v1 Service api-valetkey, v1 ServiceAccount orders",
		} {
			var got []string
			for _, o := range release(t, minimal["proxy"], values) {
				got = append(got, title(o))
			}
			if text := strings.Join(got, ", "); text != want {
				t.Errorf("got %s", text)
			}
		}
	})
	t.Run("a change of the configuration replaces the pods, another one does not", func(t *testing.T) {
		sum := func(values string) string {
			return one[*appsv1.Deployment](t, release(t, minimal["proxy"], values)).Spec.Template.Annotations["checksum/config"]
		}
		first := sum("")
		if first == "" || sum("replicas: 5") != first {
			t.Errorf("%q became %q", first, sum("replicas: 5"))
		}
		for _, values := range []string{"config: {realm: orders}", "files: {keys.json: '{}'}", "drainSeconds: 6"} {
			if sum(values) == first {
				t.Errorf("%s: no change", values)
			}
		}
	})
	t.Run("a pod is not killed before its drain has ended", func(t *testing.T) {
		objects := release(t, minimal["proxy"], "drainSeconds: 20\ngraceSeconds: 60")
		if got := *one[*appsv1.Deployment](t, objects).Spec.Template.Spec.TerminationGracePeriodSeconds; got != 85 {
			t.Errorf("got %d", got)
		}
		if file := configuration(t, objects); file["drain"] != "20s" || file["grace"] != "60s" {
			t.Errorf("drain: %v, grace: %v", file["drain"], file["grace"])
		}
	})
	t.Run("the listeners are those of the ports", func(t *testing.T) {
		for _, c := range []struct{ mode, values, want string }{
			{"proxy", "", "listen: :8080, probe: :8081"},
			{"authorize", "", "listen_grpc: :9000, probe: :8081"},
			{"authorize", "authorize: {grpc: false, http: true}\nconfig: {dialect: nginx}", "listen_http: :8080, probe: :8081"},
			{"authorize", "authorize: {http: true}\nconfig: {dialect: caddy}", "listen_grpc: :9000, listen_http: :8080, probe: :8081"},
		} {
			file := configuration(t, release(t, minimal[c.mode], c.values))
			var got []string
			for _, key := range slices.Sorted(maps.Keys(file)) {
				if strings.HasPrefix(key, "listen") || key == "probe" {
					got = append(got, fmt.Sprintf("%s: %v", key, file[key]))
				}
			}
			if text := strings.Join(got, ", "); text != c.want {
				t.Errorf("%s %s: got %s", c.mode, c.values, text)
			}
		}
	})
	t.Run("gateways know the protocol of the ports", func(t *testing.T) {
		s := one[*corev1.Service](t, release(t, minimal["authorize"], "authorize: {http: true}\nconfig: {dialect: traefik}\nservice: {grpcPort: 50051}"))
		var got []string
		for _, p := range s.Spec.Ports {
			got = append(got, fmt.Sprintf("%s %d %s", p.Name, p.Port, *p.AppProtocol))
		}
		if text := strings.Join(got, ", "); text != "http 80 http, grpc 50051 kubernetes.io/h2c" {
			t.Errorf("got %s", text)
		}
	})
	t.Run("the image is that of the version, a tag or a digest", func(t *testing.T) {
		const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
		for values, want := range map[string]string{
			"":                   "ghcr.io/valetkey/valetkey:v0.1.0",
			"image: {tag: edge}": "ghcr.io/valetkey/valetkey:edge",
			"image: {repository: localhost:5000/valetkey, tag: edge, digest: '" + digest + "'}": "localhost:5000/valetkey@" + digest,
		} {
			if got := one[*appsv1.Deployment](t, release(t, minimal["proxy"], values)).Spec.Template.Spec.Containers[0].Image; got != want {
				t.Errorf("got %s", got)
			}
		}
	})
	t.Run("only the peers can connect, and only those of the probes can read the status", func(t *testing.T) {
		p := one[*networkingv1.NetworkPolicy](t, release(t, minimal["proxy"], everything))
		var got []string
		for _, rule := range p.Spec.Ingress {
			for _, port := range rule.Ports {
				got = append(got, fmt.Sprintf("%s from %d", port.Port, len(rule.From)))
			}
		}
		if text := strings.Join(got, ", "); text != "http from 1, probe from 1" {
			t.Errorf("got %s", text)
		}
		rest := release(t, minimal["proxy"], everything, "networkPolicy: {probeFrom: []}")
		if got := one[*networkingv1.NetworkPolicy](t, rest).Spec.Ingress; len(got) != 1 {
			t.Errorf("%d rules", len(got))
		}
	})
	t.Run("an eviction leaves other pods", func(t *testing.T) {
		for values, want := range map[string]string{"": "1", everything: "50%"} {
			if got := one[*policyv1.PodDisruptionBudget](t, release(t, minimal["proxy"], values)).Spec.MaxUnavailable.String(); got != want {
				t.Errorf("got %s", got)
			}
		}
	})
	t.Run("the notes show how to ask", func(t *testing.T) {
		for _, c := range []struct{ mode, values, want string }{
			{"proxy", "", "http://api-valetkey.web:80"},
			{"proxy", "", "Set networkPolicy"},
			{"authorize", "", "grpc: {backendRefs: [{name: api-valetkey, port: 9000}]}"},
			{"authorize", "authorize: {grpc: false, http: true}\nconfig: {dialect: nginx}", "The URL for nginx is http://api-valetkey.web:80"},
		} {
			_, notes, err := rendered(t, minimal[c.mode], c.values)
			if err != nil || !strings.Contains(notes, c.want) {
				t.Errorf("got %v, %s", err, notes)
			}
		}
		if _, notes, _ := rendered(t, minimal["proxy"], everything); strings.Contains(notes, "networkPolicy") {
			t.Errorf("got %s", notes)
		}
	})
}

// configuration returns the configuration file of a release.
func configuration(t *testing.T, objects []any) map[string]any {
	t.Helper()
	mode := one[*appsv1.Deployment](t, objects).Spec.Template.Spec.Containers[0].Args[0]
	text, ok := one[*corev1.ConfigMap](t, objects).Data[mode+".yaml"]
	if !ok {
		t.Fatal("no file for " + mode)
	}
	var file map[string]any
	if err := yaml.UnmarshalStrict([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	return file
}
